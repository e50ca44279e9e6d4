"""Smoothing: a method's maps averaged over noise on the input, on the weights, or on both.

Every function has the form of `methods.py` and takes M, the method that is smoothed, with its
keywords; `smoothgrad` says how M is called.
"""

import difflib
from collections.abc import Callable
from functools import partial
from inspect import Parameter, signature
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tutorial_lib import checks
from tutorial_lib.averaging import probes
from tutorial_lib.averaging.engine import average, gradients
from tutorial_lib.averaging.methods import (
    gradient,
    gradient_x_input,
    integrated_gradients,
    smooth_taylor,
)
from tutorial_lib.averaging.path_methods import expected_gradients


def smoothgrad(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    sigma: float | Tensor,
    samples: int = 50,
    sampling: str = "random",
    method: Callable[..., Tensor] = gradient,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
    **keywords: object,
) -> Tensor:
    """Average a method's maps at noisy copies of x; by default the signed gradient.

        A(x) = 1/n sum_k M(x + eps_k),  eps_k ~ N(0, sigma^2 I)

    Smilkov et al. (2017). It takes n maps of M.

    The averaging methods draw fresh inner noise at each noisy copy, and all their probes share
    forward passes. Any other M is called as M(model, points, target, ...) with up to `batch_size`
    noisy copies, which may come from different pictures. It gets no seed, so it should be
    deterministic. If a keyword of such an M is a tensor of as many rows and dimensions as x (a
    baseline for each picture), each row goes with its picture. All other keywords go to every call
    whole.

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
        x: (B, ...) finite floating-point inputs.
        target: Class index, or LongTensor (B,) with one for each input.
        sigma: Standard deviation in the units of x (the paper's noise level times the range of x,
            see `tl.sigma_from_level`), a number or a tensor broadcastable to x.
        samples: n, the number of noisy copies of each input.
        sampling: How the noise is drawn. "random" draws each copy by itself. "antithetic" draws
            pairs, x + eps and x - eps, so `samples` must be even. Then the part of M that is odd
            about x cancels exactly, and the even part is drawn half as often: on the bundled
            network at 10.5 % noise an eighth of the gradients is saved, at 1 % a quarter. Either
            way the average is unbiased. The noise of an M that draws itself stays random; bind
            `sampling` to M with functools.partial to pair that.
        method: M, the attribution function that is smoothed.
        batch_size: Points in a forward pass; None chooses by the device and the size of x.
        seed: Seed of the noise.
        progress: Whether to show a progress bar.
        **keywords: Further keywords of M. Where the smoothing takes one of the same name, give it
            as `method=functools.partial(M, ...)`.

    Returns:
        (B, ...) attributions in the units of M; for the gradient, the score per unit of input.

    Raises:
        TypeError: An argument has the wrong type, M misses a keyword, or a keyword is unknown.
        ValueError: A value or a shape does not fit, the rows of the model are not independent, or
            its gradients are not finite.

    Example:
        The gradient of a linear function does not change with noise on the input:

        >>> tl.smoothgrad(lambda z: 3 * z, torch.tensor([[1.0, 2.0]]), 1, sigma=0.2, samples=4)
        tensor([[0., 3.]])
        >>> tl.smoothgrad(model, x, 5, sigma=0.2, method=tl.integrated_gradients, steps=4).shape
        torch.Size([2, 3, 16, 16])
    """
    options: dict[str, Any] = dict(sigma=sigma, samples=samples, sampling=sampling)
    probe_function = partial(probes.gaussian, **options, seed=seed)
    inner = _how_to_smooth(method, keywords, smoothgrad)
    return _smoothed(model, x, target, probe_function, inner, batch_size, progress)


def adaptgrad(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    bounds: tuple,
    confidence: float = 0.95,
    samples: int = 50,
    sampling: str = "random",
    method: Callable[..., Tensor] = gradient,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
    **keywords: object,
) -> Tensor:
    """Smooth with a sigma of its own for every input, so that few noisy values leave the bounds.

        A(x) = 1/n sum_k M(x + sigma * eps_k),  eps_k ~ N(0, I)
        sigma_i = min(|x_i - x_min|, |x_i - x_max|) / (sqrt(2) erfinv((1 + c) / 2))

    Zhou et al. (2024, version 1), Eq. 11 to 13; see `tl.adaptive_sigma`. It takes n maps of M.

    The authors' program differs: it has erfinv(c) (here `confidence=2 * c - 1`), and it takes the
    map at x itself into the average as one more sample. Paper and program use one range for all
    channels.

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
        x: (B, ...) finite floating-point inputs, inside the bounds.
        target: Class index, or LongTensor (B,) with one for each input.
        bounds: Pair (lower, upper) in the units of x, numbers or tensors, for each channel as in
            model.bounds.
        confidence: c, between 0 and 1.
        samples: n, the number of noisy copies of each input.
        sampling: How the noise is drawn, "random" or in pairs of opposite noise, "antithetic";
            `tl.smoothgrad` says what that does. Either way the average is unbiased.
        method: M, the attribution function that is smoothed; `tl.smoothgrad` says how.
        batch_size: Points in a forward pass; None chooses by the device and the size of x.
        seed: Seed of the noise.
        progress: Whether to show a progress bar.
        **keywords: Further keywords of M. Where the smoothing takes one of the same name, give it
            as `method=functools.partial(M, ...)`.

    Returns:
        (B, ...) attributions in the units of M; for the gradient, the score per unit of input.

    Raises:
        TypeError: An argument has the wrong type, M misses a keyword, or a keyword is unknown.
        ValueError: A value or a shape does not fit, x lies outside the bounds, the rows of the
            model are not independent, or its gradients are not finite.

    Example:
        The gradient of a linear function does not change with noise on the input:

        >>> z = torch.tensor([[0.5, 0.2]])
        >>> tl.adaptgrad(lambda z: 3 * z, z, 1, bounds=(0.0, 1.0), samples=4)
        tensor([[0., 3.]])
        >>> tl.adaptgrad(model, x, 5, bounds=(0.0, 1.0), method=tl.gradient_x_input).shape
        torch.Size([2, 3, 16, 16])
    """
    options: dict[str, Any] = dict(bounds=bounds, confidence=confidence, samples=samples)
    options |= dict(sampling=sampling)
    probe_function = partial(probes.adaptive_gaussian, **options, seed=seed)
    inner = _how_to_smooth(method, keywords, adaptgrad)
    return _smoothed(model, x, target, probe_function, inner, batch_size, progress)


def noisegrad(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    weight_sigma: float = 0.2,
    weight_samples: int = 10,
    method: Callable[..., Tensor] = gradient,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
    **keywords: object,
) -> Tensor:
    """Average a method's maps over copies of the model that have noise on their weights.

        A(x) = 1/n sum_k M(x; theta * eta_k),  eta_k ~ N(1, s^2 I)

    Bykov et al. (2022), Sec. 3. It takes n maps of M.

    On each copy all parameters get noise, and the buffers get none. The map belongs to the
    parameters, not to the function alone: a network with its batch norm folded into the
    convolutions (as `tl.load_model` makes it) has other parameters than the same network unfolded,
    and another map.

    Args:
        model: nn.Module with parameters, from (N, ...) to scores (N, C), rows independent, in eval
            mode.
        x: (B, ...) finite floating-point inputs.
        target: Class index, or LongTensor (B,) with one for each input.
        weight_sigma: s, a fraction of each weight.
        weight_samples: n, the number of noisy networks.
        method: M, the attribution function that is smoothed; `tl.smoothgrad` says how. If M takes a
            module of the model (`layer`, `rule`), it finds it in the copy by its dotted name.
        batch_size: Points in a forward pass; None chooses by the device and the size of x.
        seed: Seed of the noise.
        progress: Whether to show a progress bar.
        **keywords: Further keywords of M. Where the smoothing takes one of the same name, give it
            as `method=functools.partial(M, ...)`.

    Returns:
        (B, ...) attributions in the units of M; for the gradient, the score per unit of input.

    Raises:
        TypeError: An argument has the wrong type, M misses a keyword, a keyword is unknown, or the
            model is no module with parameters that can be copied.
        ValueError: A value or a shape does not fit, the rows of the model are not independent, or
            its gradients are not finite.

    Example:
        >>> tl.noisegrad(model, x, 5, weight_sigma=0.1).shape
        torch.Size([2, 3, 16, 16])
    """
    checks.weights(model)
    options: dict[str, Any] = dict(weight_sigma=weight_sigma, weight_samples=weight_samples)
    probe_function = partial(probes.noisy_weights, **options, seed=seed)
    inner = _how_to_smooth(method, keywords, noisegrad)
    return _smoothed(model, x, target, probe_function, inner, batch_size, progress)


def fusiongrad(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    sigma: float | Tensor,
    samples: int = 10,
    weight_sigma: float = 0.2,
    weight_samples: int = 10,
    method: Callable[..., Tensor] = gradient,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
    **keywords: object,
) -> Tensor:
    """Put noise on the weights and, at each noisy network, on the input: NoiseGrad of SmoothGrad.

        A(x) = 1/(n m) sum_k sum_j M(x + eps_kj; theta * eta_k)
        eta_k ~ N(1, s^2 I),  eps_kj ~ N(0, sigma^2 I)

    Bykov et al. (2022), Sec. 3. It takes `n * m` maps of M.

    Args:
        model: nn.Module with parameters, from (N, ...) to scores (N, C), rows independent, in eval
            mode. On each copy all parameters get noise, and the buffers get none.
        x: (B, ...) finite floating-point inputs.
        target: Class index, or LongTensor (B,) with one for each input.
        sigma: Standard deviation of the noise on the input, in the units of x: a number or a tensor
            broadcastable to x. `tl.sigma_from_level` converts a fraction of the range.
        samples: m, the number of noisy inputs for each noisy network.
        weight_sigma: s, a fraction of each weight.
        weight_samples: n, the number of noisy networks.
        method: M, the attribution function that is smoothed; `tl.smoothgrad` says how. If M takes a
            module of the model (`layer`, `rule`), it finds it in the copy by its dotted name.
        batch_size: Points in a forward pass; None chooses by the device and the size of x.
        seed: Seed of the noise.
        progress: Whether to show a progress bar.
        **keywords: Further keywords of M. Where the smoothing takes one of the same name, give it
            as `method=functools.partial(M, ...)`.

    Returns:
        (B, ...) attributions in the units of M; for the gradient, the score per unit of input.

    Raises:
        TypeError: An argument has the wrong type, M misses a keyword, a keyword is unknown, or the
            model is no module with parameters that can be copied.
        ValueError: A value or a shape does not fit, the rows of the model are not independent, or
            its gradients are not finite.

    Example:
        >>> tl.fusiongrad(model, x, 5, sigma=0.2, weight_sigma=0.1).shape
        torch.Size([2, 3, 16, 16])
    """
    checks.weights(model)
    inputs: dict[str, Any] = dict(sigma=sigma, samples=samples)
    weights: dict[str, Any] = dict(weight_sigma=weight_sigma, weight_samples=weight_samples)
    probe_function = partial(probes.noisy_weights_and_inputs, **inputs, **weights, seed=seed)
    inner = _how_to_smooth(method, keywords, fusiongrad)
    return _smoothed(model, x, target, probe_function, inner, batch_size, progress)


def mean_and_variance(
    outer: Callable, keywords: dict, model: Callable, x: Tensor, target: int | Tensor, *,
    sigma: float | Tensor, samples: int, method: Callable, seed: int, **options: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return mean and variance of a method's maps at the noisy copies that `smoothgrad` takes.

    The squared standard error of the mean of n maps is their variance divided by n - 1. So both
    come from one run.

    outer: the function that smooths. keywords: those of the method. options: of `_smoothed`.
    Both are in float32 or better, so that squares of half precision are not rounded twice.
    """
    probe_function = partial(probes.gaussian, sigma=sigma, samples=samples, seed=seed)
    inner = _how_to_smooth(method, keywords, outer)
    many = checks.count("samples", samples) > 1
    found = _smoothed(model, x, target, probe_function, inner, **options, standard_error=many)
    mean, error = found if many else (found, torch.zeros_like(found))
    mean, error = (v.to(checks.accumulator(v.dtype)) for v in (mean, error))
    variance = (samples - 1) * error.square()
    checks.squares(mean.square() + variance, x.dtype)
    return mean, variance


# Methods of other rooms that draw noise of their own and have no probe function here.
DRAW_NOISE = {"smoothdiff", "smoothgrad_squared", "vargrad"}

# Where each method looks. To smooth a method means to look at its probes around each noisy x, so
# smoothing can be smoothed in turn.
PROBES: dict[Callable[..., Tensor], Callable[..., probes.Probes]] = {
    gradient: probes.point,
    gradient_x_input: probes.point_times_input,
    integrated_gradients: probes.path,
    expected_gradients: probes.random_paths,
    smooth_taylor: probes.taylor_roots,
    smoothgrad: probes.gaussian,
    adaptgrad: probes.adaptive_gaussian,
    noisegrad: probes.noisy_weights,
    fusiongrad: probes.noisy_weights_and_inputs,
}


class _Inner(NamedTuple):
    """What happens at each noisy copy of x.

    probes: probe function, which says where to look around the copy and how to weigh.
    gradient_of: function (model, points, target, **keywords) whose result is averaged there.
    keywords: keywords of gradient_of.
    """

    probes: Callable[..., probes.Probes]
    gradient_of: Callable[..., Tensor]
    keywords: dict


def _smoothed(
    model: Callable, x: Tensor, target: int | Tensor, probe_function: Callable, inner: _Inner,
    batch_size: int | None, progress: bool, standard_error: bool = False,
) -> Any:  # fmt: skip
    """Average the inner method over the noisy copies that the probe function makes."""
    per_picture = {n: v for n, v in inner.keywords.items() if _has_row_per_picture(n, v, x)}
    shared = {name: v for name, v in inner.keywords.items() if name not in per_picture}
    gradient_of = partial(inner.gradient_of, **shared) if shared else inner.gradient_of
    smoothed_probes = partial(probe_function, inner=inner.probes)
    options: dict[str, Any] = dict(gradient_of=gradient_of, per_picture=per_picture)
    options |= dict(batch_size=batch_size, progress=progress, standard_error=standard_error)
    return average(model, x, target, smoothed_probes, **options)


def _has_row_per_picture(name: str, value: object, x: Tensor) -> bool:
    """Whether a keyword of a smoothed method is a tensor with a row for each picture of x.

    A vector of as many numbers as there are pictures may be meant either way, so it is refused.
    """
    if not isinstance(value, Tensor) or not isinstance(x, Tensor) or value.ndim == 0:
        return False
    if name == "baselines":  # of which every picture gets all, as many as there may be
        return False
    matches = len(value) == len(x) > 1
    if matches and value.ndim == 1:
        shape = ", ".join(["-1", *["1"] * (x.ndim - 1)])
        raise ValueError(
            f"{name}: expected a tensor that is for all pictures or has a row for each, "
            f"got {len(value)} numbers for {len(x)} pictures. For one a picture give "
            f"{name}.view({shape}), which the method gets with as many rows as points; for one "
            f"list for all let the method know it: method=lambda model, points, target: ..."
        )
    return matches and value.ndim == x.ndim


def _how_to_smooth(method: Callable, keywords: dict, outer: Callable) -> _Inner:
    """Smooth a method by its probes if it is an average of gradients, else by calling it.

    keywords: those that the user gave for the method. outer: the function that smooths it.
    """
    while isinstance(method, partial) and not method.args:
        keywords, method = {**method.keywords, **keywords}, method.func
    if not callable(method):
        raise TypeError(f"method: expected an attribution function, got {method!r}")
    probe_function = next((p for known, p in PROBES.items() if known is method), None)
    if probe_function is None:  # no average of gradients that we know: call it
        name = getattr(method, "__name__", "")
        if name in DRAW_NOISE and method.__module__.startswith("tutorial_lib."):
            raise TypeError(
                f"method: {name} draws noise itself, and would draw the same at each noisy copy of "
                f"{outer.__name__}. Average its maps over seeds: "
                f"torch.stack([tl.{name}(..., seed=k) for k in range(8)]).mean(0)"
            )
        _check_keywords(keywords, method, outer)
        _check_missing(keywords, method, outer)
        return _Inner(probes.point, partial(_call, method), keywords)
    accepted = signature(probe_function).parameters
    given = {n: v for n, v in keywords.items() if n in accepted.keys() - {"x", "seed", "inner"}}
    required = {n for n, p in accepted.items() if p.default is Parameter.empty} - {"x"}
    _require(required - set(given), method, outer)
    # How the forward passes are packed is the outer method's business.
    rest = {k: v for k, v in keywords.items() if k not in {*given, "batch_size", "progress"}}
    if "inner" not in accepted:
        _check_keywords(rest, probe_function, outer, method)
        # With nothing given it stays the same object, as probes.py looks for `point` by identity.
        return _Inner(partial(probe_function, **given) if given else probe_function, gradients, {})
    inner = _how_to_smooth(rest.pop("method", gradient), rest, method)
    return inner._replace(probes=partial(probe_function, **given, inner=inner.probes))


def _check_missing(keywords: dict, method: Callable, outer: Callable) -> None:
    """Raise TypeError for a keyword that a method needs and has not got."""
    try:
        accepted = signature(method).parameters
    except (TypeError, ValueError):  # a callable that does not say what it takes
        return
    needed = {n for n, p in accepted.items() if p.kind is p.KEYWORD_ONLY and p.default is p.empty}
    _require(needed - set(keywords), method, outer)


def _require(missing: set[str], method: Callable, outer: Callable) -> None:
    """Raise TypeError if keywords of a method are missing, and say how to give the first."""
    if not missing:
        return
    name, names = getattr(method, "__name__", "method"), sorted(missing)
    clash = [n for n in names if n in signature(outer).parameters]
    hint = f"{outer.__name__} takes {clash[0]} for itself. Bind it" if clash else "Give it"
    raise TypeError(
        f"method: the inner {name} has no {', '.join(names)}; {hint}: "
        f"method=functools.partial(tl.{name}, {names[0]}=...)"
    )


def _check_keywords(
    keywords: dict, function: Callable, outer: Callable, method: Callable | None = None
) -> None:
    """Raise TypeError for a keyword that neither the function nor the smoothing takes.

    function: what gets the keywords: the method, or its probe function. outer: what smooths it.
    """
    try:
        accepted = signature(function).parameters
    except (TypeError, ValueError):  # a callable that does not say what it takes
        return
    if any(p.kind is Parameter.VAR_KEYWORD for p in accepted.values()):
        return
    method = method or function
    inner_name = getattr(method, "__name__", repr(method))
    for name in keywords:
        if name == "seed":
            raise TypeError(
                f"seed: the seed of {outer.__name__} is for all of its noise; give it to "
                f"{outer.__name__}, and none to its method {inner_name}"
            )
        if name not in accepted or name in ("x", "inner"):
            known = [*signature(outer).parameters, *signature(method).parameters]
            closest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            raise TypeError(
                f"{name}: neither {outer.__name__} nor its method {inner_name} takes it"
                + (f"; did you mean {closest[0]}?" if closest else "")
            )


def _call(
    method: Callable, model: Callable, points: Tensor, target: Tensor, **keywords: object
) -> Tensor:
    """Call a method at noisy copies, (N, ...), and check the shape of its maps."""
    with torch.enable_grad():  # which a method that uses torch.autograd itself expects
        maps = method(model, points, target.to(points.device), **keywords)
    return checks.returned(maps, points.shape).detach()
