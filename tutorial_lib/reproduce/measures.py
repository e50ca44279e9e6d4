"""What is measured of a case: each measure is a function that returns named numbers.

`DIRECTIONS` says which way each column is better by its paper, "lower" or "higher"; of consistency
and invariance the paper does not say it. A table that has both the paper's and the program's way of
computing a column names the second `..._program`; printed numbers belong to both (`printed_name`).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from tutorial_lib import metrics
from tutorial_lib.averaging import noise
from tutorial_lib.heatmaps import saliency_map
from tutorial_lib.metrics.total_variation import area
from tutorial_lib.reproduce.cases import WINDOWS, Case, DigitCase
from tutorial_lib.reproduce.rows import keywords

DIRECTIONS = {
    "aupc": "lower",
    "autvc": "lower",
    "autvc_program": "lower",
    "sparseness": "higher",
    "information": "higher",
    "outside": "lower",
    "outside_widest": "lower",
    "inherent_noise": "lower",
}
LEVELS = 6  # of the pyramid of a map of 224 x 224


def perturbation(case: Case) -> dict[str, float]:
    """Compute AUPC and its curve (Goh et al., 2021, Eq. 11, 12); a picture's rows share noise."""
    curve = case.curve(case.heatmap, case.common_seed)
    points = {f"perturbation {k:02d}": float(v) for k, v in enumerate(curve[0])}
    return {"aupc": float(area(curve)), **points}


def variation(case: Case) -> dict[str, float]:
    """Compute AUTVC and its curve in both orders, the paper's text and its program's."""
    numbers = {}
    for column, order in (("autvc", "paper"), ("autvc_program", "code")):
        curve = metrics.multiscale_total_variation(case.heatmap, order=order)
        numbers[column] = float(area(curve))
        numbers |= {k: float(v) for k, v in zip(POINTS[column], curve[0], strict=False)}
    return numbers


def sparseness(case: Case) -> dict[str, float]:
    """Compute the Gini index of the map summed over channels: Sparseness in Zhou's program."""
    return {"sparseness": float(metrics.gini(case.heatmap))}


def information(case: Case) -> dict[str, float]:
    """Integrate the softmax information curve of Kapishnikov et al. (2019), whom Zhou et al. cite.

    The text of Zhou et al. (2024) calls its Information Level the entropy of the saliency map, and
    their program computes a third thing.
    """
    curve = metrics.information_curve(
        case.model,
        case.x,
        case.target,
        saliency_map(case.attribution),
        bounds=case.model.bounds,
        batch_size=case.batch_size,
        seed=case.common_seed % 2**32,
    )
    return {"information": float(curve.auc)}


def outside(case: Case) -> dict[str, float]:
    """Compute the shares of noisy values that leave the range (Zhou et al., 2024, Eq. 9).

    All are in closed form: out of each channel's range, out of the widest channel's range, and the
    chance that a draw has any such value.
    """
    sigma = input_sigma(case.row, case.x, case.model.bounds, case.program)
    ranges = tuple(side.double() for side in case.model.bounds)
    widest = float(ranges[0].min()), float(ranges[1].max())
    x = case.x.double().clamp(*ranges)  # black and white exactly
    p, q = (noise.inherent_noise(x, sigma, bounds) for bounds in (ranges, widest))
    none_outside = float(torch.log1p(-p).sum().exp())
    shares = {"outside": float(p.mean()), "outside_widest": float(q.mean())}
    return shares | {"affected": 1 - none_outside}


def inherent_noise(case: Case) -> dict[str, float]:
    """Compute the chance that noise takes a value out of the range, if it is uniform within it.

    This is the red area of Zhou et al. (2024), Fig. 3, in closed form and averaged over a grid. It
    depends on the row alone: no picture enters, and of the range only that there is one.
    """
    lower, upper = float(case.model.bounds[0].min()), float(case.model.bounds[1].max())
    grid = (torch.arange(20_000, dtype=torch.float64)[None] + 0.5) / 20_000  # (1, 20000)
    x = lower + (upper - lower) * grid
    sigma = input_sigma(case.row, x, (lower, upper), case.program)
    return {"inherent_noise": float(noise.inherent_noise(x, sigma, (lower, upper)).mean())}


def input_sigma(row: dict, x: Tensor, bounds: tuple, program: str = "") -> float | Tensor:
    """Return sigma of the noise that a row puts on x; ValueError where it puts none."""
    _, options = keywords(row, bounds, program)
    if "sigma" in options:
        return options["sigma"]
    if "confidence" not in options:
        raise ValueError(f"{row['method']} puts no noise on its input, or does not say how much")
    return noise.adaptive_sigma(x, options["bounds"], options["confidence"])


def consistency(case: DigitCase) -> dict[str, float]:
    """Compute |rho| with a network that learnt nothing: Consistency in Zhou's program.

    It is computed for signed maps and for magnitudes, and both maps have the same noise.
    """
    pair = case.map("network"), case.map("shuffled")
    names = {"consistency": False, "consistency_abs": True}
    return {n: abs(float(metrics.rank_correlation(*pair, absolute=a))) for n, a in names.items()}


def invariance(case: DigitCase) -> dict[str, float]:
    """Compute rho after a shift of inputs and bounds by 1: Invariance in Zhou's program.

    The other network was trained on shifted digits, or computes the same function for them.
    """
    names = {"invariance": "shifted", "invariance_twin": "twin"}
    unshifted = case.map("network")
    maps = {name: case.map(network, 1.0) for name, network in names.items()}
    return {n: float(metrics.rank_correlation(unshifted, m)) for n, m in maps.items()}


def compute_measures(case: Case | DigitCase, wanted: tuple[str, ...]) -> dict[str, float | str]:
    """Compute the `wanted` columns (others come with them), and add what a search found.

    "note" says why a number is missing: a measure that is not defined for a case raises ValueError,
    a method that has no rule for an operation of the network NotImplementedError or TypeError.
    """
    numbers, notes = {}, []
    for function in dict.fromkeys(function_of(column) for column in wanted):
        try:
            numbers |= function(case)
        except (ValueError, TypeError, NotImplementedError) as error:
            notes.append(str(error))
    return {**numbers, **case.extra, "note": "; ".join(dict.fromkeys(notes))}


def function_of(column: str) -> Callable:
    """Return the function that computes a column."""
    if column not in FUNCTIONS:
        raise ValueError(f"measures: no {column!r}; there are: {', '.join(FUNCTIONS)}")
    return FUNCTIONS[column]


def printed_name(column: str) -> str:
    """Return the name under which a configuration keeps the paper's numbers for a column."""
    return column.removesuffix("_program")


FUNCTIONS = {
    "aupc": perturbation,
    "autvc": variation,
    "autvc_program": variation,
    "sparseness": sparseness,
    "information": information,
    "consistency": consistency,
    "consistency_abs": consistency,
    "invariance": invariance,
    "invariance_twin": invariance,
    "outside": outside,
    "outside_widest": outside,
    "affected": outside,
    "inherent_noise": inherent_noise,
}
OF_DIGITS = (consistency, invariance)  # the other functions are for photographs
OF_INPUT_NOISE = (outside, inherent_noise)  # they look at the noise alone, and make no map
POINTS = {  # column -> its curve's points
    "aupc": [f"perturbation {k:02d}" for k in range(WINDOWS + 1)],
    "autvc": [f"variation {k}" for k in range(LEVELS)],
    "autvc_program": [f"program variation {k}" for k in range(LEVELS)],
}
