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
    """AUPC and its curve (Goh et al., 2021, Eq. 11, 12); a picture's rows share their noise."""
    curve = case.curve(case.heatmap, case.common_seed)
    points = {f"perturbation {k:02d}": float(v) for k, v in enumerate(curve[0])}
    return {"aupc": float(area(curve)), **points}


def variation(case: Case) -> dict[str, float]:
    """AUTVC in both orders, and the curve of the paper's (the program's where it is asked for)."""
    curves = {
        o: metrics.multiscale_total_variation(case.heatmap, order=o) for o in ("paper", "code")
    }
    levels = {f"variation {k}": float(v) for k, v in enumerate(curves[case.order][0, :LEVELS])}
    both = {"autvc": curves["paper"], "autvc_program": curves["code"]}
    return {**{name: float(area(curve)) for name, curve in both.items()}, **levels}


def sparseness(case: Case) -> dict[str, float]:
    """Gini index of the map summed over channels (Zhou et al., 2024, Sparseness)."""
    return {"sparseness": float(metrics.gini(case.heatmap))}


def information(case: Case) -> dict[str, float]:
    """Area under the softmax information curve (Zhou et al., 2024, Information level)."""
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
    """Shares of noisy values that leave the range, in closed form (Zhou et al., 2024, Eq. 9).

    Out of each channel's range, out of the widest channel's, and the chance that a draw has any.
    """
    _, given = keywords(case.row, case.model.bounds, case.program)
    sigma = given.get("sigma")
    if sigma is None:
        sigma = noise.adaptive_sigma(case.x, given["bounds"], given["confidence"])
    own = tuple(side.double() for side in case.model.bounds)
    widest = float(own[0].min()), float(own[1].max())
    x = case.x.double().clamp(*own)  # black and white exactly
    p, q = (noise.inherent_noise(x, sigma, bounds) for bounds in (own, widest))
    none = float(torch.log1p(-p).sum().exp())
    return {"outside": float(p.mean()), "outside_widest": float(q.mean()), "affected": 1 - none}


def consistency(case: DigitCase) -> dict[str, float]:
    """|rho| with a network that learnt nothing, signed maps and magnitudes (Zhou et al., 2024).

    Both maps have the same noise.
    """
    pair = case.map("network"), case.map("blind")
    names = {"consistency": False, "consistency_abs": True}
    return {n: abs(float(metrics.rank_correlation(*pair, absolute=a))) for n, a in names.items()}


def invariance(case: DigitCase) -> dict[str, float]:
    """rho after a shift of all inputs by 1, bounds moved along (Zhou et al., 2024, Invariance).

    With a network trained on the shifted digits, and with the one that computes the same function.
    """
    names = {"invariance": "moved", "invariance_twin": "twin"}
    here = case.map("network")
    return {
        n: float(metrics.rank_correlation(here, case.map(other, 1.0))) for n, other in names.items()
    }


def measured(case: Case | DigitCase, wanted: tuple[str, ...]) -> dict[str, float | str]:
    """The numbers of the functions that `wanted` columns come from, and what a search found.

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
    """The function that returns a column."""
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
