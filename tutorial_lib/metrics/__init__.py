"""Measures of explanations, one file a family."""

from tutorial_lib.metrics.agreement import (
    consistency,
    correlation,
    invariance,
    randomisation,
    rank_correlation,
)
from tutorial_lib.metrics.axioms import axiom_gaps, completeness_gap
from tutorial_lib.metrics.information import Information, information_curve
from tutorial_lib.metrics.localisation import (
    class_difference,
    grid_pointing_game,
    share_in_cell,
    tile,
)
from tutorial_lib.metrics.perturbation import (
    aupc,
    perturbation_curve,
    salient_regions,
    symmetric_relevance_gain,
)
from tutorial_lib.metrics.sparseness import gini
from tutorial_lib.metrics.total_variation import (
    autvc,
    average_total_variation,
    multiscale_total_variation,
)

__all__ = [  # written out, so that type checkers can read it
    "Information", "aupc", "autvc", "average_total_variation", "axiom_gaps", "class_difference",
    "completeness_gap", "consistency", "correlation", "gini", "grid_pointing_game",
    "information_curve", "invariance", "multiscale_total_variation", "perturbation_curve",
    "randomisation", "rank_correlation", "salient_regions", "share_in_cell",
    "symmetric_relevance_gain", "tile",
]  # fmt: skip
