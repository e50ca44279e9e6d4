"""One picture and one row of a table: the map, and how its keywords follow from the row."""

import hashlib
import inspect
from collections.abc import Callable
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from tutorial_lib import noise
from tutorial_lib.adaptive import adaptive_noise
from tutorial_lib.attribution import (
    gradient,
    gradient_x_input,
    integrated_gradients,
    smooth_taylor,
)
from tutorial_lib.backward import deconvnet, guided_backprop, lrp
from tutorial_lib.deeplift import deeplift
from tutorial_lib.maps import heatmap
from tutorial_lib.metrics import aupc, autvc
from tutorial_lib.smoothing import adaptgrad, fusiongrad, noisegrad, smoothgrad

METHODS = {
    f.__name__: f
    for f in (
        gradient,
        gradient_x_input,
        integrated_gradients,
        smoothgrad,
        smooth_taylor,
        adaptgrad,
        noisegrad,
        fusiongrad,
        deeplift,
        lrp,
        guided_backprop,
        deconvnet,
    )
}
SEARCH = "adaptive_smooth_taylor"  # SmoothTaylor at the sigma that adaptive noising finds
OWN = ("method", "inner", "level")  # entries of a row that are no keywords


def seed_of(seed: int, *names: str) -> int:
    """A seed that follows from names and not from any order: 62 bits of their SHA-256."""
    text = "\n".join([str(seed), *names]).encode("utf-8")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 2


def keywords(row: dict, bounds: tuple, program: bool = False) -> tuple[Callable, dict]:
    """The attribution function of a row, and its keywords in the units of an input with `bounds`.

    `sigma` is in the papers' units, for ImageNet's normalisation, and is scaled by the ranges;
    `level` is a fraction of the range. A baseline "black" or "white" is the picture. `inner` is
    the method that is smoothed, and gets the keywords that the smoothing does not take.
    `program`: AdaptGrad with erfinv(c) and one range for all channels; baselines "white" 0 and
    "black" 1, as in the program.
    Raises ValueError for a method or a keyword that there is not.
    """
    bounds = tuple(torch.as_tensor(side) for side in bounds)
    given = {k: v for k, v in row.items() if k not in OWN}
    method, inner = _known(row["method"]), _known(row["inner"]) if "inner" in row else None
    if "sigma" in given:
        level = noise.level_from_sigma(given["sigma"], noise.IMAGENET_BOUNDS)
        given["sigma"] = noise.sigma_from_level(level, bounds)
    if "level" in row:
        given["sigma"] = noise.sigma_from_level(row["level"], bounds)
    if isinstance(given.get("baseline"), str) and given["baseline"] != "noise":
        sides = (1.0, 0.0) if program else bounds
        given["baseline"] = dict(zip(("black", "white"), sides, strict=True))[given["baseline"]]
    if adaptgrad in (method, inner):
        given["bounds"] = (float(bounds[0].min()), float(bounds[1].max())) if program else bounds
        given["confidence"] = given.get("confidence", 0.95)
        if program:
            given["confidence"] = 2 * given["confidence"] - 1
    if "bounds" not in given and (given.get("baseline") == "noise" or "composite" in row.values()):
        given["bounds"] = bounds
    outer, theirs = (set(inspect.signature(f).parameters) if f else set() for f in (method, inner))
    if unknown := set(given) - outer - theirs:
        raise ValueError(f"row: {row['method']} takes no {', '.join(sorted(unknown))}")
    if inner is not None:
        own = {k: given.pop(k) for k in list(given) if k not in outer}
        given["method"] = partial(inner, **own) if own else inner
    return method, given


def _known(name: str) -> Callable:
    if name not in METHODS:
        names = ", ".join([*METHODS, SEARCH])
        raise ValueError(f"row: no method {name!r}; there are: {names}")
    return METHODS[name]


class Case:
    """A photograph, its predicted class, and one row. Nothing is computed before it is asked for.

    `settings` are the configuration's, `seed` belongs to picture and row, `common_seed` to the
    picture: noise that all rows of a picture share, so that their differences say more.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        target: int,
        row: dict,
        settings: dict,
        *,
        seed: int,
        common_seed: int,
        batch_size: int,
        program: bool,
    ):
        self.model, self.x, self.target, self.row, self.settings = model, x, target, row, settings
        self.seed, self.common_seed, self.batch_size = seed, common_seed, batch_size
        self.program, self.extra = program, {}

    @cached_property
    def attribution(self) -> Tensor:
        """The map of the row, (1, 3, H, W)."""
        if self.row["method"] == SEARCH:
            return self._searched()
        method, given = keywords(self.row, self.model.bounds, self.program)
        calls = dict(batch_size=self.batch_size, seed=self.seed)
        if self.program and method is integrated_gradients:
            return self._equal_weights(given, calls)
        found = method(self.model, self.x, self.target, **given, **calls)
        if self.program and method in (smoothgrad, adaptgrad, noisegrad, fusiongrad):
            count = given.get("weight_samples", given.get("samples", 50))
            clean = given.get("method", gradient)(self.model, self.x, self.target, **calls)
            found = (count * found + clean) / (count + 1)  # the map at x is one more sample
        return found

    @cached_property
    def heatmap(self) -> Tensor:
        """The map summed over channels, signed, (1, H, W)."""
        return heatmap(self.attribution)

    def _equal_weights(self, given: dict, calls: dict) -> Tensor:
        """Integrated Gradients at 0, 1/n, ..., 1, all with weight 1/(n + 1)."""
        n = given.get("steps", 50)
        left = integrated_gradients(
            self.model, self.x, self.target, **{**given, "rule": "left"}, **calls
        )
        last = gradient(self.model, self.x, self.target, **calls)
        return (n * left + last * (self.x - torch.as_tensor(given["baseline"]))) / (n + 1)

    def _searched(self) -> Tensor:
        """SmoothTaylor at the sigma of Algorithm 1, started and stepped in the papers' units."""
        row = dict(self.row)
        objective, roots = row["objective"], row.get("search_roots", 150)
        span = noise.sigma_from_level(1.0, self.model.bounds)
        unit = span / noise.sigma_from_level(1.0, noise.IMAGENET_BOUNDS)
        calls = dict(batch_size=self.batch_size)

        def measure(sigma: float) -> float:
            """The area at sigma, with fresh noise as in the paper."""
            seed = seed_of(self.seed, repr(sigma))
            found = self._taylor(sigma, roots, seed, calls)
            if objective == "autvc":
                return float(autvc(heatmap(found), order=self.order))
            draws = dict(draws=self.settings.get("perturbations", 50), seed=seed, **calls)
            return float(
                aupc(
                    self.model,
                    self.x,
                    self.target,
                    heatmap(found),
                    bounds=self.model.bounds,
                    **draws,
                )
            )

        sigma, _, history = adaptive_noise(
            self.model,
            self.x,
            self.target,
            objective=measure,
            learning_rate=0.1 * unit,
            max_iterations=row.get("max_iterations", 20),
            max_stop=2 if self.program else 3,
        )
        self.extra = {"sigma": float(sigma) / unit, "evaluations": float(len(history))}
        return self._taylor(float(sigma), roots, seed_of(self.seed, "found"), calls)

    def _taylor(self, sigma: float, roots: int, seed: int, calls: dict) -> Tensor:
        own = dict(sigma=sigma, roots=roots, seed=seed)
        return smooth_taylor(self.model, self.x, self.target, **own, **calls)

    @property
    def order(self) -> str:
        """Of saliency map and pyramid in AUTVC."""
        return "code" if self.program else "paper"


class DigitCase:
    """A digit and one row, with four networks.

    `network` learnt the digits, `blind` the same digits with their labels shuffled, `moved` digits
    + 1; `twin` computes the function of `network` for digits + 1.
    """

    def __init__(
        self,
        networks: dict[str, nn.Module],
        x: Tensor,
        target: int,
        row: dict,
        *,
        seed: int,
        batch_size: int,
        program: bool,
    ):
        self.networks, self.x, self.target, self.row = networks, x, target, row
        self.seed, self.batch_size, self.program, self.extra = seed, batch_size, program, {}

    def method(self, shift: float = 0.0) -> Callable:
        """The row's method for inputs from shift to shift + 1."""
        method, given = keywords(self.row, (shift, shift + 1.0), self.program)
        return partial(method, **given, batch_size=self.batch_size)
