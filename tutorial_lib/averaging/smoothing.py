"""Smoothing: a method's maps averaged over noise on the input, on the weights, or on both.

Every function has the form of `methods.py`, and the same arguments and errors. Beside them:

method: M, the method that is smoothed, any attribution function of this form; further keywords go
    to it. The averaging methods draw fresh inner noise at each noisy copy, and all their probes
    share forward passes. Any other M is called as M(model, points, target, ...) with up to
    batch_size noisy copies, which may come from different pictures; it gets no seed, so it should
    be deterministic. A keyword of such an M that is a tensor with a row for each picture, of as
    many dimensions as x (a baseline each) or a LongTensor (B,), goes with its pictures.
    Where M takes a keyword that the smoothing takes too, give it as functools.partial(M, ...).
"""

import difflib
from collections.abc import Callable
from functools import partial
from inspect import Parameter, signature
from typing import NamedTuple

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
    probe_function = partial(probes.gaussian, sigma=sigma, samples=samples, seed=seed)
    inner = _inside(method, keywords, smoothgrad)
    return _smoothed(model, x, target, probe_function, inner, batch_size, progress)


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
    options = dict(bounds=bounds, confidence=confidence, samples=samples)
    probe_function = partial(probes.adaptive_gaussian, **options, seed=seed)
    inner = _inside(method, keywords, adaptgrad)
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
    """Average of a method's maps over copies of the model with noise on their weights.

    A(x) = 1/n sum_k M(x; theta * eta_k),  eta_k ~ N(1, s^2 I)   (Bykov et al., 2022, Sec. 3)

    model: an nn.Module; on a copy, all its parameters get noise, its buffers none. A method that
        takes a module of the model (`layer`, `rule`) finds it in the copy by its dotted name.
        The map belongs to the parameters, not to the function alone: a network with its batch
        norm folded into the convolutions (as `load_model` makes it) has other parameters than the
        same network unfolded, and another map.
    weight_sigma: s, a fraction of each weight. weight_samples: n.

    >>> tl.noisegrad(model, x, 285, weight_sigma=0.1)
    """
    checks.weights(model)
    options = dict(weight_sigma=weight_sigma, weight_samples=weight_samples)
    probe_function = partial(probes.noisy_weights, **options, seed=seed)
    inner = _inside(method, keywords, noisegrad)
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
    """NoiseGrad of SmoothGrad: noise on the weights, and at each such network on the input.

    A(x) = 1/(n m) sum_k sum_j M(x + eps_kj; theta * eta_k),  eta_k ~ N(1, s^2 I),
    eps_kj ~ N(0, sigma^2 I)   (Bykov et al., 2022, Sec. 3)

    Arguments as in `smoothgrad` (sigma, samples: m) and `noisegrad` (weight_sigma: s,
    weight_samples: n). It takes n * m maps of M.

    >>> tl.fusiongrad(model, x, 285, sigma=0.2, weight_sigma=0.1)
    """
    checks.weights(model)
    inputs = dict(sigma=sigma, samples=samples)
    weights = dict(weight_sigma=weight_sigma, weight_samples=weight_samples)
    probe_function = partial(probes.noisy_weights_and_inputs, **inputs, **weights, seed=seed)
    inner = _inside(method, keywords, fusiongrad)
    return _smoothed(model, x, target, probe_function, inner, batch_size, progress)


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


class _Inner(NamedTuple):
    """What to do at each noisy copy: where to look, what to average there, and with what."""

    probes: Callable[..., probes.Probes]
    gradient_of: Callable[..., Tensor]
    keywords: dict


def _smoothed(model, x, target, probe_function: Callable, inner: _Inner, batch_size, progress):
    """The average over the probes of what is done at each of them."""
    each = {name: v for name, v in inner.keywords.items() if _has_a_row_each(v, x)}
    shared = {name: v for name, v in inner.keywords.items() if name not in each}
    gradient_of = partial(inner.gradient_of, **shared) if shared else inner.gradient_of
    options = dict(batch_size=batch_size, progress=progress, per_picture=each)
    places = partial(probe_function, inner=inner.probes)
    return average(model, x, target, places, gradient_of=gradient_of, **options)


def _has_a_row_each(value: object, x: Tensor) -> bool:
    """Whether a keyword of a smoothed method is a tensor with a row for each picture of x."""
    if not isinstance(value, Tensor) or not isinstance(x, Tensor) or value.ndim == 0:
        return False
    rows = len(value) == len(x) > 1
    return rows and (value.ndim == x.ndim or (value.ndim == 1 and value.dtype == torch.int64))


def _inside(method: Callable, keywords: dict, outer: Callable) -> _Inner:
    """How to smooth a method: by its probes, or by calling it."""
    while isinstance(method, partial) and not method.args:
        method, keywords = method.func, {**method.keywords, **keywords}
    if not callable(method):
        raise TypeError(f"method: expected an attribution function, got {method!r}")
    probe_function = next((p for known, p in PROBES.items() if known is method), None)
    if probe_function is None:  # no average of gradients that we know: call it
        _check_keywords(keywords, method, outer)
        return _Inner(probes.point, partial(_call, method), keywords)
    accepted = signature(probe_function).parameters
    own = {n: v for n, v in keywords.items() if n in accepted and n not in ("x", "seed", "inner")}
    needed = {n for n, p in accepted.items() if p.default is Parameter.empty} - {"x"}
    if missing := sorted(needed - set(own)):
        taken = [name for name in missing if name in signature(outer).parameters]
        why = f"{outer.__name__} takes {taken[0]} for itself. Bind it" if taken else "Give it"
        raise TypeError(
            f"method: the inner {method.__name__} has no {', '.join(missing)}; {why}: "
            f"method=functools.partial(tl.{method.__name__}, {missing[0]}=...)"
        )
    # How the forward passes are packed is the outer method's business.
    rest = {k: v for k, v in keywords.items() if k not in {*own, "batch_size", "progress"}}
    if "inner" not in accepted:
        _check_keywords(rest, probe_function, outer, method)
        return _Inner(partial(probe_function, **own) if own else probe_function, gradients, {})
    inner = _inside(rest.pop("method", gradient), rest, method)
    return inner._replace(probes=partial(probe_function, **own, inner=inner.probes))


def _check_keywords(
    keywords: dict, takes: Callable, outer: Callable, method: Callable | None = None
) -> None:
    """TypeError for a keyword that neither the method nor the smoothing takes."""
    try:
        accepted = signature(takes).parameters
    except (TypeError, ValueError):  # a callable that does not say
        return
    if any(p.kind is Parameter.VAR_KEYWORD for p in accepted.values()):
        return
    method = method or takes
    inner_name = getattr(method, "__name__", repr(method))
    for name in keywords:
        if name not in accepted or name in ("x", "seed", "inner"):
            known = [*signature(outer).parameters, *signature(method).parameters]
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            raise TypeError(
                f"{name}: neither {outer.__name__} nor its method {inner_name} takes it"
                + (f"; did you mean {near[0]}?" if near else "")
            )


def _call(method: Callable, model: Callable, points: Tensor, target: Tensor, **keywords: object):
    maps = method(model, points, target.to(points.device), **keywords)
    return checks.returned(maps, points.shape)
