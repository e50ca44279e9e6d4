"""What is measured of a case: each measure is a function that returns named numbers.

`DIRECTIONS` says which way each column is better by its paper, "lower" or "higher". A table that
has both the paper's and the program's way of computing a column names the second `..._program`.
"""

from collections.abc import Callable

import torch

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
    "consistency": "lower",
    "consistency_abs": "lower",
    "invariance": "higher",
    "invariance_twin": "higher",
    "outside": "lower",
    "outside_widest": "lower",
}
LEVELS = 6  # of the pyramid of a map of 224 x 224


def perturbation(case: Case) -> dict[str, float]:
    """Compute AUPC and its curve (Goh et al., 2021, Eq. 11, 12); a picture's rows share noise."""
    curve = case.curve(case.heatmap, case.common_seed)
    points = {f"perturbation {k:02d}": float(v) for k, v in enumerate(curve[0])}
    return {"aupc": float(area(curve)), **points}


def variation(case: Case) -> dict[str, float]:
    """Compute AUTVC in both orders, and the curve of the order that the configuration asks for."""
    curves = {
        o: metrics.multiscale_total_variation(case.heatmap, order=o) for o in ("paper", "code")
    }
    levels = {f"variation {k}": float(v) for k, v in enumerate(curves[case.order][0, :LEVELS])}
    both = {"autvc": curves["paper"], "autvc_program": curves["code"]}
    return {**{name: float(area(curve)) for name, curve in both.items()}, **levels}


def sparseness(case: Case) -> dict[str, float]:
    """Compute the Gini index of the map summed over channels (Zhou et al., 2024, Sparseness)."""
    return {"sparseness": float(metrics.gini(case.heatmap))}


def information(case: Case) -> dict[str, float]:
    """Integrate the softmax information curve (Zhou et al., 2024, Information level)."""
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
    _, options = keywords(case.row, case.model.bounds, case.program)
    sigma = options.get("sigma")
    if sigma is None:
        sigma = noise.adaptive_sigma(case.x, options["bounds"], options["confidence"])
    ranges = tuple(side.double() for side in case.model.bounds)
    widest = float(ranges[0].min()), float(ranges[1].max())
    x = case.x.double().clamp(*ranges)  # black and white exactly
    p, q = (noise.inherent_noise(x, sigma, bounds) for bounds in (ranges, widest))
    none_outside = float(torch.log1p(-p).sum().exp())
    shares = {"outside": float(p.mean()), "outside_widest": float(q.mean())}
    return shares | {"affected": 1 - none_outside}


def consistency(case: DigitCase) -> dict[str, float]:
    """Compute |rho| with a network that learnt nothing (Zhou et al., 2024, Consistency).

    It is computed for signed maps and for magnitudes, and both maps have the same noise.
    """
    pair = case.map("network"), case.map("shuffled")
    names = {"consistency": False, "consistency_abs": True}
    return {n: abs(float(metrics.rank_correlation(*pair, absolute=a))) for n, a in names.items()}


def invariance(case: DigitCase) -> dict[str, float]:
    """Compute rho after a shift of inputs and bounds by 1 (Zhou et al., 2024, Invariance).

    The other network was trained on shifted digits, or computes the same function for them.
    """
    names = {"invariance": "shifted", "invariance_twin": "twin"}
    unshifted = case.map("network")
    maps = {name: case.map(network, 1.0) for name, network in names.items()}
    return {n: float(metrics.rank_correlation(unshifted, m)) for n, m in maps.items()}


def compute_measures(case: Case | DigitCase, wanted: tuple[str, ...]) -> dict[str, float | str]:
    """Compute the `wanted` columns (others come with them), and add what a search found.

    "note" says why a number is missing: a measure that is not defined for a case raises ValueError.
    """
    numbers, notes = {}, []
    for function in dict.fromkeys(function_of(column) for column in wanted):
        try:
            numbers |= function(case)
        except ValueError as error:
            notes.append(str(error))
    return {**numbers, **case.extra, "note": "; ".join(dict.fromkeys(notes))}


def function_of(column: str) -> Callable:
    """Return the function that computes a column."""
    if column not in FUNCTIONS:
        raise ValueError(f"measures: no {column!r}; there are: {', '.join(FUNCTIONS)}")
    return FUNCTIONS[column]


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
}
POINTS = {  # column -> its curve's points
    "aupc": [f"perturbation {k:02d}" for k in range(WINDOWS + 1)],
    "autvc": [f"variation {k}" for k in range(LEVELS)],
}
