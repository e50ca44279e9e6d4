"""One picture and one row of a table: the map, computed when it is asked for."""

import hashlib
import math
import warnings
from functools import cache, cached_property

from torch import Tensor, nn

from tutorial_lib.averaging import noise
from tutorial_lib.averaging.methods import smooth_taylor
from tutorial_lib.heatmaps import heatmap
from tutorial_lib.metrics import autvc, perturbation_curve
from tutorial_lib.metrics.sigma_search import adaptive_noise
from tutorial_lib.metrics.total_variation import area
from tutorial_lib.reproduce.rows import SEARCH, attribution_function

WINDOWS = 30  # of a perturbation curve


def seed_of(seed: int, *names: str) -> int:
    """Return a seed that follows from names and not from any order: 62 bits of their SHA-256."""
    text = "\n".join([str(seed), *names]).encode("utf-8")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 2


class Case:
    """A photograph, its predicted class, and one row of a table.

    `settings` are the configuration's. `seed` belongs to picture and row. `common_seed` belongs to
    the picture: all rows of a picture share its noise, so that their differences say more.
    `program` is "goh", "zhou" or "": whose program's conventions are taken. `extra` holds what a
    search found.
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
        program: str = "",
    ):
        self.model, self.x, self.target = model, x, target
        self.row, self.settings = row, settings
        self.seed, self.common_seed, self.batch_size = seed, common_seed, batch_size
        self.program, self.extra = program, {}

    @cached_property
    def attribution(self) -> Tensor:
        """The map of the row, (1, 3, H, W)."""
        if self.row["method"] == SEARCH:
            return self._search()
        method = attribution_function(self.row, self.model.bounds, self.program)
        return method(self.model, self.x, self.target, seed=self.seed, batch_size=self.batch_size)

    @cached_property
    def heatmap(self) -> Tensor:
        """The map summed over channels, signed, (1, H, W)."""
        return heatmap(self.attribution)

    @property
    def order(self) -> str:
        """The order of saliency map and pyramid in a search for the least "autvc"."""
        return "code" if self.program == "goh" else "paper"

    def curve(self, heat: Tensor, seed: int) -> Tensor:
        """Compute the perturbation curve of a heatmap, (1, WINDOWS + 1)."""
        options = dict(draws=self.settings.get("perturbations", 50), count=WINDOWS, seed=seed)
        options |= dict(bounds=self.model.bounds, batch_size=self.batch_size)
        return perturbation_curve(self.model, self.x, self.target, heat, **options)

    def _search(self) -> Tensor:
        """Compute SmoothTaylor at the sigma of Algorithm 1, with a step that is scaled as sigma is.

        The search starts at mean |x| and may have fewer roots (`search_roots`) than the map.
        """
        roots = self.row.get("roots", 150)
        scale = noise.sigma_from_level(1.0, self.model.bounds)
        scale /= noise.sigma_from_level(1.0, noise.IMAGENET_BOUNDS)
        seeds = []

        def objective(sigma: float) -> float:
            # fresh noise, as in the program
            seeds.append(seed_of(self.seed, f"evaluation {len(seeds)}"))
            return self._objective(sigma, self.row.get("search_roots", roots), seeds[-1])

        options = dict(max_iterations=self.row.get("max_iterations", 20), objective=objective)
        options |= dict(learning_rate=0.1 * scale, max_stop=2 if self.program == "goh" else 3)
        with warnings.catch_warnings():
            # An interrupted search would return its best so far; a table needs all of it.
            warnings.filterwarnings("error", message="adaptive_noise was interrupted")
            try:
                found = adaptive_noise(self.model, self.x, self.target, **options)
            except RuntimeWarning as stopped:
                raise KeyboardInterrupt from stopped
        sigma = float(found.sigma)
        self.extra = {"sigma": sigma / scale, "evaluations": float(len(found.history))}
        return self._smooth_taylor(sigma, roots, seed_of(self.seed, "found"))

    def _objective(self, sigma: float, roots: int, seed: int) -> float:
        """Compute the number that the search makes small."""
        heat, objective = heatmap(self._smooth_taylor(sigma, roots, seed)), self.row["objective"]
        if not heat.any():
            return math.inf  # no noise, no map: it explains nothing
        if objective == "aupc":
            return float(area(self.curve(heat, seed)))
        return float(autvc(heat, order="code" if objective == "autvc_program" else self.order))

    def _smooth_taylor(self, sigma: float, roots: int, seed: int) -> Tensor:
        """Compute SmoothTaylor, (1, 3, H, W)."""
        options = dict(sigma=sigma, roots=roots, seed=seed, batch_size=self.batch_size)
        return smooth_taylor(self.model, self.x, self.target, **options)


class DigitCase:
    """A digit and one row of a table, with four networks.

    `network` learnt the digits, `shuffled` learnt them with shuffled labels, and `shifted` learnt
    digits + 1. `twin` computes the function of `network` for digits + 1.
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
        program: str = "",
    ):
        self.networks, self.x, self.target, self.row = networks, x, target, row
        self.seed, self.batch_size, self.program, self.extra = seed, batch_size, program, {}
        self.map = cache(self._map)

    def _map(self, network: str, shift: float = 0.0) -> Tensor:
        """Compute the row's map of a network, for the digit + shift and shifted bounds."""
        method = attribution_function(self.row, (shift, shift + 1.0), self.program)
        options = dict(seed=self.seed, batch_size=self.batch_size)
        return method(self.networks[network], self.x + shift, self.target, **options)
