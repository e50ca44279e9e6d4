"""Total variation: how much a map jumps from pixel to pixel, at one scale and at many."""

import math
from functools import lru_cache

import torch
from torch import Tensor

from tutorial_lib import checks
from tutorial_lib.heatmaps import normalize

ORDERS = ("paper", "code")


def average_total_variation(saliency: Tensor) -> Tensor:
    """Compute the mean jump between neighbouring pixels of a saliency map.

        ATV = 1/(h w) sum |s_ij - s_i,j+1| + |s_ij - s_i+1,j|

    Goh et al. (2021), Eq. 13, with p = 1. Lower is smoother. A blurred map wins: the measure says
    nothing about whether the map is right. It takes no forward passes.

    Args:
        saliency: s, (B, H, W) finite floating-point maps from 0 to 1, as `tl.saliency_map` has
            them.

    Returns:
        (B,) variations, 0 for a constant map and at most 2.

    Raises:
        TypeError: saliency is not a floating-point tensor.
        ValueError: saliency is not (B, H, W), or a map holds NaN or infinity.

    Example:
        Four jumps of 1 over four pixels:

        >>> tl.metrics.average_total_variation(torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]))
        tensor([1.])
    """
    return _variation(checks.maps("saliency", saliency))


def multiscale_total_variation(
    heatmap: Tensor, downscale: float = 1.5, min_size: int = 30, order: str = "paper"
) -> Tensor:
    """Compute the average total variation at every level of a Gaussian pyramid.

    Each level is the one before, blurred with sigma = downscale / 3 and scaled down by `downscale`
    (sides rounded up) with linear interpolation, as skimage.transform.pyramid_gaussian does it.
    The last level is the last one with both sides of at least `min_size`, as in the authors'
    program; Goh et al. (2021), Sec. IV-C, can also be read as one level more. A map of 224 x 224
    has six levels: 224, 150, 100, 67, 45, 30.

    With order="code" it computes what the authors' program computes; the printed Table I has the
    size of these numbers, and their ratios. Lower is smoother. It takes no forward passes.

    Args:
        heatmap: (B, H, W) finite floating-point maps with their signs, as `tl.heatmap` has them.
        downscale: Ratio of the sides of a level to those of the next, above 1.
        min_size: Least side of a level, at least 2.
        order: "paper" takes the saliency map (absolute value, 99th percentile, min-max), then its
            pyramid, as printed. "code" takes the pyramid of the signed heatmap, then the saliency
            map of each level.

    Returns:
        (B, levels) variations, the largest level first.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, a map holds NaN or infinity, or a side of the
            heatmap is under min_size.

    Example:
        >>> tl.metrics.multiscale_total_variation(torch.rand(1, 224, 224)).shape
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
        saliency = level if order == "paper" else normalize(level)
        values.append(_variation(saliency))
        rows, columns = (_reduce(n, downscale).to(level) for n in level.shape[1:])
        level = rows @ level @ columns.T
    return torch.stack(values, 1)


def autvc(
    heatmap: Tensor, downscale: float = 1.5, min_size: int = 30, order: str = "paper"
) -> Tensor:
    """Compute the area under the curve of multi-scale total variation.

        AUTVC = integral of ATV over the levels 0, 1, 2, ...

    Goh et al. (2021), Sec. IV-C and IV-D. It is Simpson's rule as scipy.integrate.simpson has it.
    For an even number of levels, such as the six of a map of 224 x 224, versions of SciPy before
    1.11 differ by about 0.4 % for order="code" and 1.5 % for order="paper".

    Lower is smoother. It takes no forward passes.

    Args:
        heatmap: (B, H, W) finite floating-point maps with their signs, as `tl.heatmap` has them.
        downscale: Ratio of the sides of a level to those of the next, above 1.
        min_size: Least side of a level, at least 2.
        order: "paper" or "code", as in `tl.metrics.multiscale_total_variation`.

    Returns:
        (B,) areas.

    Raises:
        ImportError: SciPy, of the extra "metrics", is not installed.
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, a map holds NaN or infinity, or a side of the
            heatmap is under min_size.

    Example:
        A single step from 0 to 1 between 45 and 45 columns is blurred, but it stays a step:

        >>> step = torch.zeros(1, 90, 90)
        >>> step[:, :, 45:] = 1
        >>> tl.metrics.multiscale_total_variation(step)
        tensor([[0.0111, 0.0167, 0.0250]])
        >>> tl.metrics.autvc(step)
        tensor([0.0343])
    """
    curve = multiscale_total_variation(heatmap, downscale, min_size, order)
    return area(curve)


def area(curve: Tensor) -> Tensor:
    """Apply Simpson's rule with unit steps, as SciPy has it: (B, points) -> (B,)."""
    simpson = checks.extra("scipy.integrate", "metrics").simpson
    weights = simpson(torch.eye(curve.shape[1], dtype=torch.float64).numpy(), dx=1.0)
    return curve @ torch.from_numpy(weights).to(curve)


def _variation(maps: Tensor) -> Tensor:
    """Sum the jumps along both sides of each map (B, H, W), divided by its number of pixels."""
    across, down = (torch.linalg.vector_norm(maps.diff(dim=d), 1, dim=(1, 2)) for d in (2, 1))
    return (across + down) / (maps.shape[1] * maps.shape[2])


@lru_cache(maxsize=64)
def _reduce(size: int, downscale: float) -> Tensor:
    """Return one step of the pyramid along one side, as a matrix (smaller size, size)."""
    sigma, new_size = 2 * downscale / 6, math.ceil(size / downscale)
    radius = int(4 * sigma + 0.5)
    kernel = torch.exp(
        -(torch.arange(-radius, radius + 1, dtype=torch.float64) ** 2) / 2 / sigma**2
    )
    blur = torch.zeros(size, size, dtype=torch.float64)
    for offset, weight in zip(range(-radius, radius + 1), kernel / kernel.sum(), strict=True):
        index = torch.arange(size) + offset
        # Reflected at the borders: d c b a | a b c d | d c b a.
        index = torch.where(index < 0, -1 - index, index) % (2 * size)
        index = torch.where(index >= size, 2 * size - 1 - index, index)
        blur[torch.arange(size), index] += weight
    position = (torch.arange(new_size, dtype=torch.float64) + 0.5) * size / new_size - 0.5
    left = position.floor().long().clamp(0, size - 2)
    fraction = (position - left)[:, None]
    return (1 - fraction) * blur[left] + fraction * blur[left + 1]
