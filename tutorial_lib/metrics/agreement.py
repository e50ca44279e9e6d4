"""Agreement of maps: between two maps, and between the maps of related networks."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from tutorial_lib import checks

NOT_CONSTANT = "maps that are not constant (a constant one correlates with nothing)"


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation of two batches of maps over their entries: (B, ...) -> (B,).

    r = sum (a - mean a)(b - mean b) / (|a - mean a| |b - mean b|), in float64. No forward passes.
    Raises TypeError or ValueError for maps of other shapes, and ValueError that names the maps with
    NaN or infinity, and those that are constant: with them nothing can vary together.

    >>> correlation(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[2.0, 4.0, 6.0]]))
    tensor([1.], dtype=torch.float64)
    """
    return compare(a, b)


def rank_correlation(a: Tensor, b: Tensor, absolute: bool = False) -> Tensor:
    """Spearman's rank correlation of two batches of maps: (B, ...) -> (B,).

    rho = Pearson correlation of the ranks, equal values sharing their mean rank. It sees order
    only: any increasing function of a map gives the same rho. absolute=True ranks the magnitudes.
    No forward passes. Raises like `correlation`.

    >>> rank_correlation(torch.tensor([[1.0, 2.0, 9.0]]), torch.tensor([[-3.0, 0.0, 0.5]]))
    tensor([1.], dtype=torch.float64)
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
    """Rank correlation of a method's maps for a network and for one that learnt nothing: (B,).

    rho(M(x; f), M(x; f')), f' trained on random labels (Adebayo et al., 2018; Zhou et al., 2024,
    Consistency, who report the mean of |rho|). Nearer 0 is better: a map that shows what f has
    learnt should not survive in f'. Cost: that of two maps. keywords go to the method.
    Raises like `correlation`, by the name of the network whose map is at fault.

    >>> consistency(model, random_model, x, labels, method=tl.gradient)
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
    """Rank correlation of a method's maps for a network and for its twin with shifted inputs: (B,).

    rho(M(x; f), M(x + s; f')), f' the network for inputs x + s (Kindermans et al., 2019; Zhou et
    al., 2024, Invariance). Nearer 1 is better: a constant added to all inputs explains nothing.
    shift: s. keywords go to the method; `shifted` holds those that differ for f', such as the
    bounds of AdaptGrad or the baseline of Integrated Gradients. Cost: that of two maps. Raises like
    `correlation`, by the name of the network whose map is at fault.

    >>> invariance(model, shifted_model, x, labels, shift=1.0, method=tl.adaptgrad,
    ...            bounds=(0.0, 1.0), shifted=dict(bounds=(1.0, 2.0)))
    """
    moved = checks.pictures(x) + checks.broadcastable("shift", shift, x)
    here = method(model, x, target, **keywords)
    there = method(shifted_model, moved, target, **{**keywords, **(shifted or {})})
    return compare(here, there, ("model", "shifted_model"), ranks=True, absolute=absolute)


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
    """Rank correlation with the map of the network as its weights are randomised from the top.

    One layer after another, the last first, gets its weights shuffled (each parameter's entries
    among themselves), and stays so; after each, the correlation with the original map, (B,), is
    kept under the layer's name (Adebayo et al., 2018, Sec. 3, cascading randomisation; they draw
    new weights). It should fall to 0: a map that does not, does not depend on what was learnt. The
    model itself is not touched. Cost: a map for each layer with weights.

    Raises like `correlation` for the map of the model as it is. Where the map of a shuffled network
    is constant, as a dead one's is, nothing is left of the original order: that counts as 0.

    >>> randomisation(model, x, 285, method=tl.gradient, absolute=True)
    """
    checks.weights(model)
    seed = checks.seed(seed)
    rng = torch.Generator().manual_seed(seed)
    original = _entries("model", method(model, x, target, seed=seed, **keywords), absolute)
    checks.defined("model", _varies(original), NOT_CONSTANT)
    original = _ranks(original)
    shuffled, found = copy.deepcopy(model), []
    layers = [(n, m) for n, m in shuffled.named_modules() if any(True for _ in m.parameters(False))]
    for name, layer in reversed(layers):
        for p in layer.parameters(recurse=False):
            order = torch.randperm(p.numel(), generator=rng).to(p.device)
            p.data = p.data.flatten()[order].view(p.shape)
        new = method(shuffled, x, target, seed=seed, **keywords)
        new = _entries(f"model: layer {name!r} shuffled", new, absolute)
        rho = _pearson(original, _ranks(new))
        found.append((name, torch.where(_varies(new), rho, 0.0)))
    return found


def compare(a: Tensor, b: Tensor, names=("a", "b"), ranks=False, absolute=False) -> Tensor:
    """Correlation of two batches of maps; an error begins with the name of what is at fault."""
    pair = [_entries(name, value, absolute) for name, value in zip(names, (a, b), strict=True)]
    if a.shape != b.shape:
        raise ValueError(
            f"{names[1]}: expected the shape of {names[0]}, {tuple(a.shape)}, got {tuple(b.shape)}"
        )
    for name, value in zip(names, pair, strict=True):
        checks.defined(name, _varies(value), NOT_CONSTANT)
    return _pearson(*map(_ranks, pair)) if ranks else _pearson(*pair)


def _entries(name: str, value: Tensor, absolute: bool) -> Tensor:
    """A batch of finite maps (B, ...), as float64 (B, entries) on the CPU."""
    if not isinstance(value, Tensor) or value.is_complex() or value.ndim < 2 or not value.numel():
        what = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name}: expected a batch of real maps (B, ...), got {what}")
    value = value.detach().cpu().double().flatten(1)
    checks.defined(name, value.isfinite().all(1), "finite maps")
    return value.abs() if absolute else value


def _varies(value: Tensor) -> Tensor:
    return value.amax(1) > value.amin(1)


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    a, b = (v / v.abs().amax(1, keepdim=True) for v in (a, b))  # else squares may overflow
    a, b = (v - v.mean(1, keepdim=True) for v in (a, b))
    return ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).clamp(-1, 1)


def _ranks(v: Tensor) -> Tensor:
    """Ranks 1..d of each row, equal values at the mean of their ranks."""
    v = v.contiguous()
    ordered = v.sort(dim=1).values
    first, behind = (torch.searchsorted(ordered, v, right=side) for side in (False, True))
    return (first + behind + 1).double() / 2
