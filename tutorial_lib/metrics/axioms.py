"""Axioms as numbers: how far an attribution is from what the axiom demands."""

from collections.abc import Callable

import torch
from torch import Tensor

from tutorial_lib import checks


def completeness_gap(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    attribution: Tensor,
    baseline: float | Tensor = 0.0,
) -> Tensor:
    """Sum of the attribution minus the change of the score from baseline to x: (B,), signed.

    gap = sum_i A_i(x) - (f(x) - f(b)); 0 where completeness holds
    (Sundararajan et al., 2017, Proposition 1). Units: score. float32 sums are made in float64.
    Raises ValueError or TypeError that names the argument at fault.

    >>> tl.metrics.completeness_gap(model, x, 285, attribution)
    """
    checks.model(model)
    x = checks.pictures(x)
    index = checks.target(target, x).to(x.device)[:, None]
    fits = isinstance(attribution, Tensor) and attribution.dtype.is_floating_point
    if not fits or attribution.shape != x.shape:
        shape = tuple(getattr(attribution, "shape", ()))
        kind = getattr(attribution, "dtype", type(attribution).__name__)
        raise ValueError(
            f"attribution: expected floats of the shape of x, {tuple(x.shape)}, got {kind} {shape}"
        )
    start = checks.broadcastable("baseline", baseline, x).expand_as(x)
    with torch.no_grad():
        scores, scores_start = (
            checks.scores(model(z), z, index).gather(1, index).double()[:, 0] for z in (x, start)
        )
    return attribution.detach().to(x.device).double().flatten(1).sum(1) - (scores - scores_start)
