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
OWN = ("method", "inner", "level")  # entries of a row that are no keywords
PROGRAMS = ("", "goh", "zhou")


def check(row: dict, bounds: tuple, program: str = "") -> None:
    """Raises ValueError for a row that cannot be computed, before anything is."""
    if row["method"] != SEARCH:
        keywords(row, bounds, program)
    elif row.get("objective") not in ("aupc", "autvc") or set(row) - SEARCH_ENTRIES:
        raise ValueError(
            f"row: {SEARCH} takes {', '.join(sorted(SEARCH_ENTRIES))}, objective aupc or autvc; "
            f"got {row}"
        )


def attributed(row: dict, bounds: tuple, program: str = "") -> Callable[..., Tensor]:
    """The map of a row as a function of (model, x, target, *, seed, batch_size).

    program="zhou" computes what is known of the program of Zhou et al.: AdaptGrad with erfinv(c)
    and one range for all channels; baselines "white" 0 and "black" 1; Integrated Gradients at 0,
    1/n, ..., 1 with equal weights; a smoothed map has the map at x itself as one more sample. The
    last two only where the row's method itself is meant, not the one that it smooths.
    """
    method, given = keywords(row, bounds, program)
    if program != "zhou" or method not in (integrated_gradients, *SMOOTHING):
        return partial(method, **given)
    if method is integrated_gradients:
        return partial(_equal_weights, **given)
    count = given.get("weight_samples", 10) if method in (noisegrad, fusiongrad) else None
    return partial(_with_clean, method, count or given.get("samples", 50), **given)


def keywords(row: dict, bounds: tuple, program: str = "") -> tuple[Callable, dict]:
    """The attribution function of a row, and its keywords for inputs within `bounds`.

    `sigma` is in the papers' units, for ImageNet's normalisation, and is scaled by the ranges;
    `level` is a fraction of the range. A baseline "black" or "white" is the picture. `inner` is
    the method that is smoothed, and gets the keywords that the smoothing does not take.
    program: see `attributed`. Raises ValueError for a method or keyword that there is not.
    """
    bounds = tuple(torch.as_tensor(side) for side in bounds)
    given = {k: v for k, v in row.items() if k not in OWN}
    method, inner = _known(row["method"]), _known(row["inner"]) if "inner" in row else None
    if "sigma" in given:
        level = noise.level_from_sigma(given["sigma"], noise.IMAGENET_BOUNDS)
        given["sigma"] = noise.sigma_from_level(level, bounds)
    if "level" in row:
        given["sigma"] = noise.sigma_from_level(row["level"], bounds)
    if given.get("baseline") in ("black", "white"):
        sides = (1.0, 0.0) if program == "zhou" else bounds
        given["baseline"] = sides[given["baseline"] == "white"]
    if adaptgrad in (method, inner):
        given["bounds"], c = bounds, given.get("confidence", 0.95)
        if program == "zhou":
            given["bounds"], c = (float(bounds[0].min()), float(bounds[1].max())), 2 * c - 1
        given["confidence"] = c
    elif given.get("baseline") == "noise" or given.get("rule") == "composite":
        given["bounds"] = bounds
    outer, theirs = (set(inspect.signature(f).parameters) if f else set() for f in (method, inner))
    if unknown := set(given) - outer - theirs:
        raise ValueError(f"row: {row['method']} takes no {', '.join(sorted(unknown))}")
    if inner is not None:
        own = {k: given.pop(k) for k in list(given) if k not in outer}
        given["method"] = partial(inner, **own) if own else inner
    if method in (smoothgrad, fusiongrad) and "sigma" not in given:
        raise ValueError(f"row: {row['method']} needs a sigma or a level")
    return method, given


def _known(name: str) -> Callable:
    if name not in METHODS:
        names = ", ".join([*METHODS, SEARCH])
        raise ValueError(f"row: no method {name!r}; there are: {names}")
    return METHODS[name]


def _equal_weights(model, x: Tensor, target, *, baseline=0.0, steps=50, **keywords) -> Tensor:
    own = dict(baseline=baseline, steps=steps) | keywords
    left = integrated_gradients(model, x, target, **own | dict(rule="left"))
    calls = {k: v for k, v in keywords.items() if k in ("batch_size", "seed")}
    return (steps * left + gradient(model, x, target, **calls) * (x - baseline)) / (steps + 1)


def _with_clean(method, count: int, model, x: Tensor, target, **keywords) -> Tensor:
    calls = {k: v for k, v in keywords.items() if k in ("batch_size", "seed")}
    clean = keywords.get("method", gradient)(model, x, target, **calls)
    return (count * method(model, x, target, **keywords) + clean) / (count + 1)
