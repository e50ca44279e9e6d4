"""Sparseness: how much of a map is in how few entries."""

import torch
from torch import Tensor

from tutorial_lib import checks


def gini(attribution: Tensor) -> Tensor:
    """Gini index of the absolute values of each map: (B, ...) -> (B,).

    G = 1 - 2 sum_k (|a|_(k) / sum |a|) * (d - k + 1/2) / d,  |a|_(1) <= ... <= |a|_(d)
    (Hurley and Rickard, 2009, Eq. 11; Zhou et al., 2024, call it Sparseness). 0 where all entries
    are equally large, 1 - 1/d where one has everything. Higher is sparser, which the paper counts
    as better; one pixel at random has the best value. Does not change when a map is scaled (the
    authors' program adds 1e-7 to each entry, so there it does). No forward passes; in float64.
    Raises TypeError or ValueError for anything but a floating-point (B, ...), and ValueError that
    names the maps with NaN or infinity, or 0 everywhere: they have no distribution.

    >>> gini(torch.tensor([[0.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]]))
    tensor([0.7500, 0.0000], dtype=torch.float64)
    """
    if not isinstance(attribution, Tensor) or not attribution.dtype.is_floating_point:
        raise TypeError("attribution: expected a floating-point tensor (B, ...)")
    if attribution.ndim < 2 or not attribution.numel():
        raise ValueError(f"attribution: expected shape (B, ...), got {tuple(attribution.shape)}")
    size = attribution.detach().cpu().double().abs().flatten(1).sort(dim=1).values
    checks.defined("attribution", size.isfinite().all(1), "finite maps")
    checks.defined("attribution", size[:, -1] > 0, "maps that are not 0 everywhere")
    d = size.shape[1]
    k = torch.arange(1, d + 1, dtype=size.dtype, device=size.device)
    return 1 - 2 * (size / size.sum(1, keepdim=True) * (d - k + 0.5) / d).sum(1)
