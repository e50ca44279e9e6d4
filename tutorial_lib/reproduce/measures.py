"""What is measured of a case: each measure is a function that returns named numbers.

`DIRECTIONS` says which way each column is better by its paper, "lower" or "higher". A table that
has both the paper's and the program's way of computing a column names the second `..._program`.
"""

from collections.abc import Callable

import torch

from tutorial_lib import metrics, noise
from tutorial_lib.maps import saliency_map
from tutorial_lib.metrics.total_variation import area
from tutorial_lib.reproduce.cases import Case, DigitCase, keywords

DIRECTIONS = {
    "aupc": "lower",
    "autvc": "lower",
    "autvc_program": "lower",
    "sparseness": "higher",
    "information": "higher",
    "consistency": "lower",
    "consistency_magnitudes": "lower",
    "invariance": "higher",
    "invariance_twin": "higher",
    "outside": "lower",
    "outside_widest": "lower",
}
WINDOWS, LEVELS = 30, 6


def perturbation(case: Case) -> dict[str, float]:
    """AUPC and its curve (Goh et al., 2021, Eq. 11, 12); a picture's rows share their noise."""
    own = dict(draws=case.settings.get("perturbations", 50), seed=case.common_seed)
    curve = metrics.perturbation_curve(
        case.model,
        case.x,
        case.target,
        case.heatmap,
        bounds=case.model.bounds,
        batch_size=case.batch_size,
        count=WINDOWS,
        **own,
    )
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
    """Mean over pictures of |rho|, signed maps and magnitudes (Zhou et al., 2024, Consistency)."""
    own = dict(method=case.method(), seed=case.seed)
    names = {"consistency": False, "consistency_magnitudes": True}
    pair = case.networks["network"], case.networks["blind"]
    return {
        name: abs(float(metrics.consistency(*pair, case.x, case.target, absolute=a, **own)))
        for name, a in names.items()
    }


def invariance(case: DigitCase) -> dict[str, float]:
    """Rank correlation after a shift by 1, bounds moved along (Zhou et al., 2024, Invariance).

    For a network trained on the shifted digits and for the one that computes the same function.
    """
    moved = {k: v for k, v in case.method(1.0).keywords.items() if k != "batch_size"}
    own = dict(method=case.method(), seed=case.seed, shift=1.0, shifted=moved)
    names = {"invariance": "moved", "invariance_twin": "twin"}
    nets = case.networks
    return {
        name: float(metrics.invariance(nets["network"], nets[other], case.x, case.target, **own))
        for name, other in names.items()
    }


def measured(case: Case | DigitCase, wanted: tuple[str, ...]) -> dict[str, float]:
    """The numbers of the functions that `wanted` columns come from, and what the map itself adds.

    Raises ValueError for a column that no function returns, and where a measure says nothing.
    """
    numbers = {}
    for function in dict.fromkeys(function_of(column) for column in wanted):
        numbers |= function(case)
    return {**numbers, **case.extra}


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
    "consistency_magnitudes": consistency,
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
