"""From a row of a configuration to an attribution function: keywords, units, conventions."""

import inspect
import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from tutorial_lib import checks
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
OBJECTIVES = ("aupc", "autvc", "autvc_program")
NO_KEYWORDS = ("method", "inner", "level")  # other entries of a row
GIVEN = ("model", "x", "target", "bounds", "seed", "batch_size", "progress", "keywords")  # by a run
PROGRAMS = ("", "goh", "zhou")
COUNTS = ("steps", "baselines", "samples", "roots", "weight_samples", "max_iterations")
COUNTS += ("search_roots", "perturbations", "epochs")
MOST = 10**6  # of any count


def check(row: dict, bounds: tuple, program: str = "") -> None:
    """Raise ValueError for a row that cannot be computed, before anything is measured.

    What only the method knows, such as which rules or baselines there are, is tried out on a toy
    network with counts of at most 2.
    """
    for key, value in row.items():
        if key in GIVEN:
            raise ValueError(f"{key} is given by the run, a row cannot have it")
        check_entry(key, value)
    if row["method"] == SEARCH:
        if row.get("objective") not in OBJECTIVES or set(row) - SEARCH_ENTRIES:
            raise ValueError(
                f"{SEARCH} takes {', '.join(sorted(SEARCH_ENTRIES))}, objective one of "
                f"{', '.join(OBJECTIVES)}; got {row}"
            )
        return
    small = {k: min(v, 2) if k in COUNTS else v for k, v in row.items()}
    network, x = _toy(bounds)
    try:
        with warnings.catch_warnings(), checks.skip_model_check():
            warnings.simplefilter("ignore")
            attribution_function(small, bounds, program)(network, x, 0, seed=0, batch_size=200)
    except TypeError as error:
        raise ValueError(str(error)) from error


def check_entry(key: str, value: object) -> None:
    """Raise ValueError for a count that is no count, and for what is neither number nor text."""
    if key in COUNTS:
        if type(value) is not int or not 1 <= value <= MOST:
            raise ValueError(f"{key}: expected a whole number from 1 to {MOST}, got {value!r}")
    elif not isinstance(value, (str, int, float)):
        raise ValueError(f"{key}: expected a number or a text, got {value!r}")


def has_input_noise(row: dict) -> bool:
    """Whether a row says how much noise it puts on its input."""
    return "sigma" in row or "level" in row or "adaptgrad" in (row["method"], row.get("inner"))


def _toy(bounds: tuple) -> tuple[nn.Module, Tensor]:
    """Return a small network, and an input inside the bounds: (1, 3, 8, 8) or (1, 1, 8, 8)."""
    lower, upper = (torch.as_tensor(side, dtype=torch.float32) for side in bounds)
    ramp = torch.linspace(0.1, 0.9, 64).view(1, 1, 8, 8)
    x = lower + (upper - lower) * ramp
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Conv2d(x.shape[1], 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2)
        return nn.Sequential(*layers).eval(), x


def attribution_function(row: dict, bounds: tuple, program: str = "") -> Callable[..., Tensor]:
    """Return the map of a row as a function of (model, x, target, *, seed, batch_size).

    program="zhou" computes what is known of the program of Zhou et al.: AdaptGrad with erfinv(c)
    and one range for all channels, as in the paper (else each channel has its own); baselines
    "white" 0 and "black" 1; Integrated Gradients at 0, 1/n, ..., 1 with equal weights; a smoothed
    map has the map at x itself as one more sample. The last two hold only for the row's method
    itself, and not for the one that it smooths.
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
        if "sigma" in row:
            raise ValueError("it has a sigma and a level, one thing in two units; leave one out")
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
        raise ValueError(f"{row['method']} takes no {', '.join(sorted(unknown))}")
    if inner is not None:
        rest = {k: options.pop(k) for k in list(options) if k not in outer}
        options["method"] = partial(inner, **rest) if rest else inner
    if method in (smoothgrad, fusiongrad) and "sigma" not in options:
        raise ValueError(f"{row['method']} needs a sigma or a level")
    return method, options


def _method(name: str) -> Callable:
    """Return a method by its name; ValueError where there is none."""
    if name not in METHODS:
        names = ", ".join([*METHODS, SEARCH])
        raise ValueError(f"no method {name!r}; there are: {names}")
    return METHODS[name]


def _equal_weights(model, x: Tensor, target, *, baseline=0.0, steps=50, **keywords) -> Tensor:
    """Integrate with equal weights at 0, 1/n, ..., 1: n + 1 gradients."""
    options = dict(baseline=baseline, steps=steps) | keywords
    left = integrated_gradients(model, x, target, **options | dict(rule="left"))
    shared = {k: v for k, v in keywords.items() if k in ("batch_size", "seed")}
    return (steps * left + gradient(model, x, target, **shared) * (x - baseline)) / (steps + 1)


def _with_clean(smoothing, count: int, model, x: Tensor, target, **keywords) -> Tensor:
    """Average `count` samples and the map at x itself."""
    shared = {k: v for k, v in keywords.items() if k in ("batch_size", "seed")}
    clean = keywords.get("method", gradient)(model, x, target, **shared)
    return (count * smoothing(model, x, target, **keywords) + clean) / (count + 1)
