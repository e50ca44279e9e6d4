"""Sparseness: how much of a map is in how few entries."""

import torch
from torch import Tensor

from tutorial_lib import checks


def gini(attribution: Tensor) -> Tensor:
    """Compute the Gini index of the absolute values of each map.

        G = 1 - 2 sum_k (|a|_(k) / sum |a|) * (d - k + 1/2) / d,  |a|_(1) <= ... <= |a|_(d)

    Hurley and Rickard (2009), Eq. 11. G is 0 where all entries are equally large, and 1 - 1/d where
    one of the d entries has everything. Higher is sparser; one pixel at random has the best value.
    The program of Zhou et al. computes Sparseness this way; their paper (2024, version 1, Sec.
    5.1.1) describes it in words and counts higher as better.

    G does not change when a map is scaled. (That program adds 1e-7 to each entry, so there it
    does.) It takes no forward passes.

    Args:
        attribution: (B, ...) finite floating-point maps.

    Returns:
        (B,) indices from 0 to 1 - 1/d, in float64 on the CPU.

    Raises:
        TypeError: attribution is not a floating-point tensor.
        ValueError: attribution is not (B, ...), or a map holds NaN or infinity or is 0 everywhere,
            so that it has no distribution. The message names the maps.

    Example:
        >>> tl.metrics.gini(torch.tensor([[0.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]]))
        tensor([0.7500, 0.0000], dtype=torch.float64)
    """
    if not isinstance(attribution, Tensor) or not attribution.dtype.is_floating_point:
        raise TypeError("attribution: expected a floating-point tensor (B, ...)")
    if attribution.ndim < 2 or not attribution.numel():
        raise ValueError(f"attribution: expected shape (B, ...), got {tuple(attribution.shape)}")
    a = attribution.detach().cpu().double().abs().flatten(1).sort(dim=1).values  # (B, d)
    checks.defined("attribution", a.isfinite().all(1), "finite maps")
    checks.defined("attribution", a[:, -1] > 0, "maps that are not 0 everywhere")
    d = a.shape[1]
    k = torch.arange(1, d + 1, dtype=a.dtype, device=a.device)
    return 1 - 2 * (a / a.sum(1, keepdim=True) * (d - k + 0.5) / d).sum(1)
