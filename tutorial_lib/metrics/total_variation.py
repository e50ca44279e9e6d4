"""Total variation: how much a map jumps from pixel to pixel, at one scale and at many."""

import math
from functools import lru_cache

import torch
from torch import Tensor

from tutorial_lib import checks
from tutorial_lib.heatmaps import normalize

ORDERS = ("paper", "code")


def average_total_variation(saliency: Tensor) -> Tensor:
    """Mean jump between neighbouring pixels of a saliency map: (B, H, W) -> (B,).

    ATV = 1/(h w) sum |s_ij - s_i,j+1| + |s_ij - s_i+1,j|   (Goh et al., 2021, Eq. 13, p = 1)

    Lower is smoother; 0 for a constant map, at most 2. No forward passes. A blurred map wins: it
    says nothing about whether the map is right. Raises TypeError or ValueError for anything but a
    finite floating-point (B, H, W).

    >>> average_total_variation(torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]))
    tensor([1.])
    """
    return _variation(checks.maps("saliency", saliency))


def multiscale_total_variation(
    heatmap: Tensor, downscale: float = 1.5, min_size: int = 30, order: str = "paper"
) -> Tensor:
    """ATV at every level of a Gaussian pyramid: signed heatmaps (B, H, W) -> (B, levels).

    Each level is the one before, blurred with sigma = downscale / 3 and scaled down by `downscale`
    (sides rounded up) with linear interpolation, as skimage.transform.pyramid_gaussian does it;
    the last level is the last with both sides of at least `min_size` (Goh et al., 2021, Sec. IV).
    A map of 224 x 224 has six levels: 224, 150, 100, 67, 45, 30.

    order="paper": the saliency map (absolute value, 99th percentile, min-max), then its pyramid.
    order="code": the pyramid of the signed heatmap, then the saliency map of each level, as the
    authors' program has it; the printed Table I has the size of these numbers.
    Lower is smoother. No forward passes. Raises ValueError where a side is under min_size.

    >>> multiscale_total_variation(tl.heatmap(attribution)).shape
    torch.Size([1, 6])
    """
    level = checks.maps("heatmap", heatmap)
    checks.choice("order", order, ORDERS)
    checks.count("min_size", min_size, least=2)
    checks.positive("downscale", downscale)
    if downscale <= 1:
        raise ValueError(f"downscale: expected a number above 1, got {downscale}")
    if min(level.shape[1:]) < min_size:
        raise ValueError(
            f"heatmap: expected sides of at least min_size = {min_size}, got "
            f"{level.shape[1]} x {level.shape[2]}"
        )
    level = normalize(level) if order == "paper" else level
    values = []
    while min(level.shape[1:]) >= min_size:
        shown = level if order == "paper" else normalize(level)
        values.append(_variation(shown))
        rows, columns = (_reduce(n, downscale).to(level) for n in level.shape[1:])
        level = rows @ level @ columns.T
    return torch.stack(values, 1)


def autvc(
    heatmap: Tensor, downscale: float = 1.5, min_size: int = 30, order: str = "paper"
) -> Tensor:
    """Area under the curve of multi-scale total variation: (B, H, W) -> (B,).

    AUTVC = integral of ATV over the levels 0, 1, 2, ... by Simpson's rule (Goh et al., 2021,
    Sec. IV), as scipy.integrate.simpson has it: for an even number of levels, such as the six of a
    224 map, versions before 1.11 differ by about 0.4 % for order="code" and 1.5 % for "paper".
    Arguments and errors as in `multiscale_total_variation`. Lower is smoother. No forward passes.

    >>> autvc(tl.heatmap(attribution))
    """
    curve = multiscale_total_variation(heatmap, downscale, min_size, order)
    return area(curve)


def area(curve: Tensor) -> Tensor:
    """Simpson's rule with unit steps, as scipy has it: (B, points) -> (B,)."""
    simpson = checks.extra("scipy.integrate", "metrics").simpson
    weights = simpson(torch.eye(curve.shape[1], dtype=torch.float64).numpy(), dx=1.0)
    return curve @ torch.from_numpy(weights).to(curve)


def _variation(s: Tensor) -> Tensor:
    across, down = (torch.linalg.vector_norm(s.diff(dim=d), 1, dim=(1, 2)) for d in (2, 1))
    return (across + down) / (s.shape[1] * s.shape[2])


@lru_cache(maxsize=64)
def _reduce(size: int, downscale: float) -> Tensor:
    """One step of the pyramid along one side, as a matrix (smaller size, size)."""
    sigma, out = 2 * downscale / 6, math.ceil(size / downscale)
    radius = int(4 * sigma + 0.5)
    kernel = torch.exp(
        -(torch.arange(-radius, radius + 1, dtype=torch.float64) ** 2) / 2 / sigma**2
    )
    blur = torch.zeros(size, size, dtype=torch.float64)
    for offset, weight in zip(range(-radius, radius + 1), kernel / kernel.sum(), strict=True):
        place = torch.arange(size) + offset
        # Reflected at the borders: d c b a | a b c d | d c b a.
        place = torch.where(place < 0, -1 - place, place) % (2 * size)
        place = torch.where(place >= size, 2 * size - 1 - place, place)
        blur[torch.arange(size), place] += weight
    where = (torch.arange(out, dtype=torch.float64) + 0.5) * size / out - 0.5
    left = where.floor().long().clamp(0, size - 2)
    share = (where - left)[:, None]
    return (1 - share) * blur[left] + share * blur[left + 1]
