"""From a row of a configuration to an attribution function: keywords, units, conventions."""

import inspect
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from tutorial_lib.averaging import noise
from tutorial_lib.averaging.methods import (
    gradient,
    gradient_x_input,
    integrated_gradients,
    smooth_taylor,
)
from tutorial_lib.averaging.smoothing import adaptgrad, fusiongrad, noisegrad, smoothgrad
from tutorial_lib.rules.deeplift_contributions import deeplift
from tutorial_lib.rules.rectifiers import deconvnet, guided_backprop
from tutorial_lib.rules.relevance_propagation import lrp

KNOWN = (gradient, gradient_x_input, integrated_gradients, smooth_taylor, smoothgrad, adaptgrad)
KNOWN += (noisegrad, fusiongrad, deeplift, lrp, guided_backprop, deconvnet)
METHODS = {function.__name__: function for function in KNOWN}
SMOOTHING = (smoothgrad, adaptgrad, noisegrad, fusiongrad)
SEARCH = "adaptive_smooth_taylor"  # SmoothTaylor at the sigma that adaptive noising finds
SEARCH_ENTRIES = {"method", "objective", "roots", "search_roots", "max_iterations"}
NO_KEYWORDS = ("method", "inner", "level")  # other entries of a row
PROGRAMS = ("", "goh", "zhou")


def check(row: dict, bounds: tuple, program: str = "") -> None:
    """Raise ValueError for a row that cannot be computed, before anything is computed."""
    if row["method"] != SEARCH:
        keywords(row, bounds, program)
    elif row.get("objective") not in ("aupc", "autvc") or set(row) - SEARCH_ENTRIES:
        raise ValueError(
            f"row: {SEARCH} takes {', '.join(sorted(SEARCH_ENTRIES))}, objective aupc or autvc; "
            f"got {row}"
        )


def attribution_function(row: dict, bounds: tuple, program: str = "") -> Callable[..., Tensor]:
    """Return the map of a row as a function of (model, x, target, *, seed, batch_size).

    program="zhou" computes what is known of the program of Zhou et al.: AdaptGrad with erfinv(c)
    and one range for all channels; baselines "white" 0 and "black" 1; Integrated Gradients at 0,
    1/n, ..., 1 with equal weights; a smoothed map has the map at x itself as one more sample. The
    last two hold only for the row's method itself, and not for the one that it smooths.
    """
    method, options = keywords(row, bounds, program)
    if program != "zhou" or method not in (integrated_gradients, *SMOOTHING):
        return partial(method, **options)
    if method is integrated_gradients:
        return partial(_equal_weights, **options)
    count = options.get("weight_samples", 10) if method in (noisegrad, fusiongrad) else None
    return partial(_with_clean, method, count or options.get("samples", 50), **options)


def keywords(row: dict, bounds: tuple, program: str = "") -> tuple[Callable, dict]:
    """Return the attribution function of a row, and its keywords for inputs within `bounds`.

    `sigma` is in the papers' units, for ImageNet's normalisation, and is scaled by the ranges;
    `level` is a fraction of the range. A baseline "black" or "white" is the picture. `inner` is
    the method that is smoothed, and gets the keywords that the smoothing does not take.
    program: see `attribution_function`. Raises ValueError for an unknown method or keyword.
    """
    bounds = tuple(torch.as_tensor(side) for side in bounds)
    options = {k: v for k, v in row.items() if k not in NO_KEYWORDS}
    method, inner = _method(row["method"]), _method(row["inner"]) if "inner" in row else None
    if "sigma" in options:
        level = noise.level_from_sigma(options["sigma"], noise.IMAGENET_BOUNDS)
        options["sigma"] = noise.sigma_from_level(level, bounds)
    if "level" in row:
        options["sigma"] = noise.sigma_from_level(row["level"], bounds)
    if options.get("baseline") in ("black", "white"):
        sides = (1.0, 0.0) if program == "zhou" else bounds
        options["baseline"] = sides[options["baseline"] == "white"]
    if adaptgrad in (method, inner):
        options["bounds"], c = bounds, options.get("confidence", 0.95)
        if program == "zhou":
            options["bounds"], c = (float(bounds[0].min()), float(bounds[1].max())), 2 * c - 1
        options["confidence"] = c
    elif options.get("baseline") == "noise" or options.get("rule") == "composite":
        options["bounds"] = bounds
    outer, inside = (set(inspect.signature(f).parameters) if f else set() for f in (method, inner))
    if unknown := set(options) - outer - inside:
        raise ValueError(f"row: {row['method']} takes no {', '.join(sorted(unknown))}")
    if inner is not None:
        rest = {k: options.pop(k) for k in list(options) if k not in outer}
        options["method"] = partial(inner, **rest) if rest else inner
    if method in (smoothgrad, fusiongrad) and "sigma" not in options:
        raise ValueError(f"row: {row['method']} needs a sigma or a level")
    return method, options


def _method(name: str) -> Callable:
    """Return a method by its name; ValueError where there is none."""
    if name not in METHODS:
        names = ", ".join([*METHODS, SEARCH])
        raise ValueError(f"row: no method {name!r}; there are: {names}")
    return METHODS[name]


def _equal_weights(model, x: Tensor, target, *, baseline=0.0, steps=50, **keywords) -> Tensor:
    """Integrate with equal weights at 0, 1/n, ..., 1: n + 1 gradients."""
    options = dict(baseline=baseline, steps=steps) | keywords
    left = integrated_gradients(model, x, target, **options | dict(rule="left"))
    shared = {k: v for k, v in keywords.items() if k in ("batch_size", "seed")}
    return (steps * left + gradient(model, x, target, **shared) * (x - baseline)) / (steps + 1)


def _with_clean(method, count: int, model, x: Tensor, target, **keywords) -> Tensor:
    """Average `count` samples and the map at x itself."""
    shared = {k: v for k, v in keywords.items() if k in ("batch_size", "seed")}
    clean = keywords.get("method", gradient)(model, x, target, **shared)
    return (count * method(model, x, target, **keywords) + clean) / (count + 1)
