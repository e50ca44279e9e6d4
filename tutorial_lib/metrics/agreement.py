"""Agreement of maps: between two maps, and between the maps of related networks."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tutorial_lib import checks

NOT_CONSTANT = "maps that are not constant (a constant one correlates with nothing)"


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Compute the Pearson correlation of two batches of maps over their entries.

        r = sum (a - mean a)(b - mean b) / (|a - mean a| |b - mean b|)

    The sums are made in float64. It takes no forward passes.

    Args:
        a: (B, ...) real maps.
        b: Maps of the shape of a.

    Returns:
        (B,) correlations from -1 to 1, in float64 on the CPU.

    Raises:
        TypeError: a or b is not a batch of real maps (B, ...).
        ValueError: The shapes differ, or a map holds NaN or infinity or is constant, since nothing
            can vary together with it. The message names the maps.

    Example:
        >>> tl.correlation(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[2.0, 4.0, 6.0]]))
        tensor([1.], dtype=torch.float64)
    """
    return compare(a, b)


def rank_correlation(a: Tensor, b: Tensor, absolute: bool = False) -> Tensor:
    """Compute Spearman's rank correlation of two batches of maps over their entries.

        rho = Pearson correlation of the ranks of a and of b

    Equal values share their mean rank. The measure sees the order of the entries only: any
    increasing function of a map gives the same rho. It takes no forward passes.

    Args:
        a: (B, ...) real maps.
        b: Maps of the shape of a.
        absolute: Whether to rank the magnitudes instead of the signed values.

    Returns:
        (B,) correlations from -1 to 1, in float64 on the CPU.

    Raises:
        TypeError: a or b is not a batch of real maps (B, ...).
        ValueError: The shapes differ, or a map holds NaN or infinity or is constant, since nothing
            can vary together with it. The message names the maps.

    Example:
        >>> a, b = torch.tensor([[1.0, 2.0, 9.0]]), torch.tensor([[-3.0, 0.0, 0.5]])
        >>> tl.metrics.rank_correlation(a, b)
        tensor([1.], dtype=torch.float64)
        >>> tl.metrics.rank_correlation(a, b, absolute=True)
        tensor([-0.5000], dtype=torch.float64)
    """
    return compare(a, b, ranks=True, absolute=absolute)


def consistency(
    model: Callable,
    other: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    method: Callable[..., Tensor],
    absolute: bool = False,
    **keywords: object,
) -> Tensor:
    """Correlate the ranks of a method's maps for a network and for one that learnt nothing.

        rho(M(x; f), M(x; f'))

    Here rho is the rank correlation, and f' was trained on random labels. Adebayo et al. (2018).
    This is how the program of Zhou et al. computes Consistency, which their paper (2024, version 1,
    Sec. 5.1.1) describes in words; it reports the mean of ``|rho|``. Nearer 0 is better: a map that
    shows what f has learnt should not survive in f'. It takes two maps of M.

    Args:
        model: f, a callable from (N, ...) to scores (N, C), rows independent; a module in eval
            mode.
        other: f', a network of the same form that was trained on random labels.
        x: (B, ...) finite floating-point inputs.
        target: Class index, or LongTensor (B,) with one for each input.
        method: M, any attribution function.
        absolute: Whether to rank the magnitudes instead of the signed values.
        **keywords: Keywords of M.

    Returns:
        (B,) rank correlations, in float64 on the CPU.

    Raises:
        TypeError: An argument has the wrong type, or M does not return a batch of real maps.
        ValueError: A map holds NaN or infinity or is constant. The message begins with "model" or
            "other", the network whose map is at fault. M may raise its own errors.

    Example:
        A map that does not change with the network keeps every rank, which is the worst case:

        >>> first, second = (lambda z: z), (lambda z: 5 * z)
        >>> z = torch.tensor([[1.0, 2.0, 3.0]])
        >>> tl.metrics.consistency(first, second, z, 0, method=tl.gradient)
        tensor([1.], dtype=torch.float64)
    """
    maps = [method(net, x, target, **keywords) for net in (model, other)]
    return compare(*maps, ("model", "other"), ranks=True, absolute=absolute)


def invariance(
    model: Callable,
    shifted_model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    shift: float | Tensor,
    method: Callable[..., Tensor],
    absolute: bool = False,
    shifted: dict | None = None,
    **keywords: object,
) -> Tensor:
    """Correlate the ranks of a method's maps for a network and for its twin with shifted inputs.

        rho(M(x; f), M(x + s; f'))

    Here rho is the rank correlation, and f' is the network for inputs x + s. Kindermans et al.
    (2019). This is how the program of Zhou et al. computes Invariance, which their paper (2024,
    version 1, Sec. 5.1.1) describes in words; s is 1 there, and ``|rho|`` is averaged. Nearer 1 is
    better: a constant that is added to all inputs explains nothing. It takes two maps of M.

    Args:
        model: f, a callable from (N, ...) to scores (N, C), rows independent; a module in eval
            mode.
        shifted_model: f', which gives at x + s the scores that f gives at x.
        x: (B, ...) finite floating-point inputs of f.
        target: Class index, or LongTensor (B,) with one for each input.
        shift: s, in the units of x, a number or a tensor broadcastable to x.
        method: M, any attribution function.
        absolute: Whether to rank the magnitudes instead of the signed values.
        shifted: Keywords of M that differ for f', such as the bounds of AdaptGrad or the baseline
            of Integrated Gradients.
        **keywords: Keywords of M for both networks.

    Returns:
        (B,) rank correlations, in float64 on the CPU.

    Raises:
        TypeError: An argument has the wrong type, or M does not return a batch of real maps.
        ValueError: A value or a shape does not fit, or a map holds NaN or infinity or is constant.
            Then the message begins with "model" or "shifted_model", the network whose map is at
            fault. M may raise its own errors.

    Example:
        Gradient times input sees the shift of the input, which the gradient does not see:

        >>> def f(z):
        ...     return (z**2).sum(1, keepdim=True)
        >>> arguments = (f, lambda z: f(z + 10), torch.tensor([[1.0, 2.0, 3.0]]), 0)
        >>> tl.metrics.invariance(*arguments, shift=-10.0, method=tl.gradient)
        tensor([1.], dtype=torch.float64)
        >>> tl.metrics.invariance(*arguments, shift=-10.0, method=tl.gradient_x_input)
        tensor([-1.], dtype=torch.float64)
    """
    shifted_x = checks.pictures(x) + checks.broadcastable("shift", shift, x)
    first = method(model, x, target, **keywords)
    second = method(shifted_model, shifted_x, target, **{**keywords, **(shifted or {})})
    return compare(first, second, ("model", "shifted_model"), ranks=True, absolute=absolute)


def randomisation(
    model: nn.Module,
    x: Tensor,
    target: int | Tensor,
    *,
    method: Callable[..., Tensor],
    absolute: bool = False,
    seed: int = 0,
    **keywords: object,
) -> list[tuple[str, Tensor]]:
    """Correlate a map's ranks with its own as the weights are randomised from the top layer down.

    One layer after another, the last first, gets its weights shuffled (each parameter's entries
    among themselves), and it stays so. After each, the map of the network is compared with the
    original one. Adebayo et al. (2018), Sec. 3, cascading randomisation; they draw new weights.

    The correlation should fall to 0: a map for which it does not fall does not depend on what was
    learnt. The model itself is not touched. It takes a map of M for the model and one for each
    layer with weights.

    Where the map of a shuffled network is constant, as a dead one's is, nothing is left of the
    original order, and that counts as 0.

    Args:
        model: Module from (N, ...) to scores (N, C), rows independent, in eval mode, with weights.
        x: (B, ...) finite floating-point inputs.
        target: Class index, or LongTensor (B,) with one for each input.
        method: M, any attribution function with a seed.
        absolute: Whether to rank the magnitudes instead of the signed values.
        seed: Seed of the shuffling, and of M for every map.
        **keywords: Keywords of M.

    Returns:
        A pair (name of the layer, (B,) rank correlations) for each layer with weights, the last
        layer first.

    Raises:
        TypeError: The model is not a module with weights, or M does not return a batch of real
            maps.
        ValueError: The map of the model as it is is constant, or a map holds NaN or infinity.
            M may raise its own errors.

    Example:
        >>> found = tl.metrics.randomisation(model, x, 5, method=tl.gradient, absolute=True)
        >>> [(name, rho.shape) for name, rho in found]
        [('4', torch.Size([2])), ('0', torch.Size([2]))]
    """
    checks.weights(model)
    seed = checks.seed(seed)
    rng = torch.Generator().manual_seed(seed)
    original = _entries("model", method(model, x, target, seed=seed, **keywords), absolute)
    checks.defined("model", _varies(original), NOT_CONSTANT)
    original = _ranks(original)
    shuffled, correlations = checks.copied(model, "randomisation"), []
    layers = [(n, m) for n, m in shuffled.named_modules() if any(True for _ in m.parameters(False))]
    for name, layer in reversed(layers):
        for p in layer.parameters(recurse=False):
            order = torch.randperm(p.numel(), generator=rng).to(p.device)
            p.data = p.data.flatten()[order].view(p.shape)
        new = method(shuffled, x, target, seed=seed, **keywords)
        new = _entries(f"model: layer {name!r} shuffled", new, absolute)
        rho = _pearson(original, _ranks(new))
        correlations.append((name, torch.where(_varies(new), rho, 0.0)))
    return correlations


def compare(a: Tensor, b: Tensor, names=("a", "b"), ranks=False, absolute=False) -> Tensor:
    """Correlate two batches of maps; an error begins with the name of what is at fault."""
    pair = [_entries(name, value, absolute) for name, value in zip(names, (a, b), strict=True)]
    if a.shape != b.shape:
        raise ValueError(
            f"{names[1]}: expected the shape of {names[0]}, {tuple(a.shape)}, got {tuple(b.shape)}"
        )
    for name, value in zip(names, pair, strict=True):
        checks.defined(name, _varies(value), NOT_CONSTANT)
    return _pearson(*map(_ranks, pair)) if ranks else _pearson(*pair)


def _entries(name: str, value: Tensor, absolute: bool) -> Tensor:
    """Return finite maps (B, ...) as float64 (B, entries) on the CPU."""
    if not isinstance(value, Tensor) or value.is_complex() or value.ndim < 2 or not value.numel():
        what = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name}: expected a batch of real maps (B, ...), got {what}")
    value = value.detach().cpu().double().flatten(1)  # (B, entries)
    checks.defined(name, value.isfinite().all(1), "finite maps")
    return value.abs() if absolute else value


def _varies(value: Tensor) -> Tensor:
    """Say of each map (B, entries) whether its entries differ, (B,)."""
    return value.amax(1) > value.amin(1)


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    """Correlate the rows of two tensors (B, entries)."""
    a, b = (v / v.abs().amax(1, keepdim=True) for v in (a, b))  # else squares may overflow
    a, b = (v - v.mean(1, keepdim=True) for v in (a, b))
    return ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).clamp(-1, 1)


def _ranks(v: Tensor) -> Tensor:
    """Rank the entries of each row from 1 to d; equal values get the mean of their ranks."""
    v = v.contiguous()
    ordered = v.sort(dim=1).values
    less, not_more = (torch.searchsorted(ordered, v, right=side) for side in (False, True))
    return (less + not_more + 1).double() / 2
