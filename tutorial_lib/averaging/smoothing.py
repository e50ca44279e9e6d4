"""Smoothing: a method's maps averaged over noise on the input, on the weights, or on both.

Every function has the form of `attribution.py`, and the same arguments and errors. Beside them:

method: M, the method that is smoothed, any attribution function of this form; further keywords go
    to it. The averaging methods draw fresh inner noise at each noisy copy, and all their probes
    share forward passes. Another M is called on noisy copies of any pictures of x, up to
    batch_size at once, with their targets; it should be deterministic.
    Where M takes a keyword that the smoothing takes too, give it as functools.partial(M, ...).
"""

from collections.abc import Callable
from functools import partial
from inspect import Parameter, signature

from torch import Tensor

from tutorial_lib import checks, probes
from tutorial_lib.attribution import (
    gradient,
    gradient_x_input,
    integrated_gradients,
    smooth_taylor,
)
from tutorial_lib.engine import average, gradients


def smoothgrad(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    sigma: float | Tensor,
    samples: int = 50,
    method: Callable[..., Tensor] = gradient,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
    **keywords: object,
) -> Tensor:
    """Average of a method's maps at noisy copies of x; by default of the gradient, signed.

    A(x) = 1/n sum_k M(x + eps_k),  eps_k ~ N(0, sigma^2 I)   (Smilkov et al., 2017, Sec. 3)

    sigma: standard deviation in the units of x (the paper's noise level times the range of x, see
        `sigma_from_level`), a number or a tensor broadcastable to x. samples: n.

    >>> tl.smoothgrad(model, x, 285, sigma=0.2, samples=50)
    >>> tl.smoothgrad(model, x, 285, sigma=0.2, method=tl.integrated_gradients, steps=20)
    """
    inner, slope = _inside(method, keywords)
    places = partial(probes.gaussian, sigma=sigma, samples=samples, seed=seed, inner=inner)
    return average(model, x, target, places, batch_size=batch_size, progress=progress, slope=slope)


def adaptgrad(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    bounds: tuple,
    confidence: float = 0.95,
    samples: int = 50,
    method: Callable[..., Tensor] = gradient,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
    **keywords: object,
) -> Tensor:
    """SmoothGrad with its own sigma for every input, so that few noisy values leave the bounds.

    A(x) = 1/n sum_k M(x + sigma * eps_k),  eps_k ~ N(0, I),
    sigma_i = min(|x_i - x_min|, |x_i - x_max|) / (sqrt(2) erfinv((1 + c) / 2))
    (Zhou et al., 2024, Eq. 13; see `noise.adaptive_sigma`).

    bounds: (lower, upper) in the units of x, numbers or tensors, per channel as model.bounds; x
        must lie inside. confidence: c. samples: n.

    The authors' program differs: it has erfinv(c) (here: confidence=2 * c - 1), one range for all
    channels, and averages the map at x itself in as one more sample.

    >>> tl.adaptgrad(model, x, 285, bounds=model.bounds)
    >>> tl.adaptgrad(model, x, 285, bounds=model.bounds, method=tl.gradient_x_input)
    """
    inner, slope = _inside(method, keywords)
    own = dict(bounds=bounds, confidence=confidence, samples=samples)
    places = partial(probes.adaptive_gaussian, **own, seed=seed, inner=inner)
    return average(model, x, target, places, batch_size=batch_size, progress=progress, slope=slope)


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
    """Average of a method's maps over copies of the model with noise on their weights.

    A(x) = 1/n sum_k M(x; theta * eta_k),  eta_k ~ N(1, s^2 I)   (Bykov et al., 2022, Sec. 3)

    model: an nn.Module; all its parameters get noise, its buffers none, and it is never changed.
        The map belongs to the parameters, not to the function alone: a network with its batch
        norm folded into the convolutions (as `load_model` makes it) has other parameters than the
        same network unfolded, and another map.
    weight_sigma: s, a fraction of each weight. weight_samples: n.

    >>> tl.noisegrad(model, x, 285, weight_sigma=0.1)
    """
    checks.weights(model)
    inner, slope = _inside(method, keywords)
    own = dict(weight_sigma=weight_sigma, weight_samples=weight_samples)
    places = partial(probes.noisy_weights, **own, seed=seed, inner=inner)
    return average(model, x, target, places, batch_size=batch_size, progress=progress, slope=slope)


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
    """NoiseGrad of SmoothGrad: noise on the weights, and at each such network on the input.

    A(x) = 1/(n m) sum_k sum_j M(x + eps_kj; theta * eta_k),  eta_k ~ N(1, s^2 I),
    eps_kj ~ N(0, sigma^2 I)   (Bykov et al., 2022, Sec. 3)

    Arguments as in `smoothgrad` (sigma, samples: m) and `noisegrad` (weight_sigma: s,
    weight_samples: n). It takes n * m maps of M.

    >>> tl.fusiongrad(model, x, 285, sigma=0.2, weight_sigma=0.1)
    """
    checks.weights(model)
    inner, slope = _inside(method, keywords)
    inputs = dict(sigma=sigma, samples=samples)
    weights = dict(weight_sigma=weight_sigma, weight_samples=weight_samples)
    own = {**inputs, **weights}
    places = partial(probes.noisy_weights_and_inputs, **own, seed=seed, inner=inner)
    return average(model, x, target, places, batch_size=batch_size, progress=progress, slope=slope)


# Where each method looks. To smooth a method means to look at its probes around each noisy x, so
# smoothing can be smoothed in turn.
PROBES = {
    gradient: probes.point,
    gradient_x_input: probes.point_times_input,
    integrated_gradients: probes.path,
    smooth_taylor: probes.taylor_roots,
    smoothgrad: probes.gaussian,
    adaptgrad: probes.adaptive_gaussian,
    noisegrad: probes.noisy_weights,
    fusiongrad: probes.noisy_weights_and_inputs,
}


def _inside(method: Callable, keywords: dict) -> tuple[Callable[..., probes.Probes], Callable]:
    """What to do at each noisy copy: the method's probe function, and the slope to average."""
    while isinstance(method, partial) and not method.args:
        method, keywords = method.func, {**method.keywords, **keywords}
    if not callable(method):
        raise TypeError(f"method: expected an attribution function, got {method!r}")
    places = next((places for known, places in PROBES.items() if known is method), None)
    if places is None:  # no average of gradients that we know: call it
        return probes.point, partial(_call, method, keywords)
    accepted = set(signature(places).parameters) - {"x", "seed", "inner"}
    own = {name: value for name, value in keywords.items() if name in accepted}
    needed = {n for n in accepted if signature(places).parameters[n].default is Parameter.empty}
    if missing := ", ".join(sorted(needed - set(own))):
        raise TypeError(
            f"method: {method.__name__} needs {missing} here, and what the smoothing takes itself "
            f"does not reach it; give it as functools.partial({method.__name__}, ...)"
        )
    # How the forward passes are packed is the outer method's business.
    rest = {k: v for k, v in keywords.items() if k not in {*own, "batch_size", "progress"}}
    if "inner" not in signature(places).parameters:
        if rest:
            raise TypeError(f"method: {method.__name__} takes no {', '.join(sorted(rest))} here")
        return (partial(places, **own) if own else places), gradients
    inner, slope = _inside(rest.pop("method", gradient), rest)
    return partial(places, **own, inner=inner), slope


def _call(method: Callable, keywords: dict, model: Callable, points: Tensor, target: Tensor):
    maps = method(model, points, target.to(points.device), **keywords)
    return checks.returned(maps, points.shape)
