"""Localisation with known truth: pictures whose parts belong to different classes."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from tutorial_lib import checks
from tutorial_lib.heatmaps import heatmap, normalize


def tile(pictures: Tensor) -> Tensor:
    """Put four (or 9, 16, ...) pictures together as one, row by row.

    Args:
        pictures: (G, C, H, W) finite floating-point pictures; G is a square number g * g.

    Returns:
        One picture as a batch, (1, C, g H, g W).

    Raises:
        TypeError: pictures is not a floating-point tensor.
        ValueError: pictures is not (G, C, H, W) with a square number G, or not finite.

    Example:
        >>> tl.metrics.tile(torch.arange(4.0).view(4, 1, 1, 1))
        tensor([[[[0., 1.],
                  [2., 3.]]]])
    """
    pictures = checks.pictures(pictures)
    side = math.isqrt(len(pictures))
    if pictures.ndim != 4 or side**2 != len(pictures):
        raise ValueError(
            f"pictures: expected (G, C, H, W) with G a square number, got {tuple(pictures.shape)}"
        )
    rows = [torch.cat(list(row), dim=2) for row in pictures.unflatten(0, (side, side))]
    return torch.cat(rows, dim=1)[None]  # (1, C, g H, g W)


def share_in_cell(maps: Tensor, cell: int, grid: int = 2) -> Tensor:
    """Compute the share of the positive attribution that lies in one cell of a grid.

        s = sum of max(A, 0) in the cell / sum of max(A, 0)

    Boehle et al. (2021), Sec. 4. Higher is better; 1 / grid^2 is chance. It takes no forward
    passes.

    Args:
        maps: A, (B, H, W) finite floating-point maps; grid divides H and W.
        cell: Number of the cell, counted row by row from 0.
        grid: Number of cells along a side.

    Returns:
        (B,) shares, from 0 to 1.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, or a map is positive nowhere, so that there is
            nothing to share out. The message names the maps.

    Example:
        >>> tl.metrics.share_in_cell(torch.tensor([[[3.0, 1.0], [-5.0, 0.0]]]), cell=0)
        tensor([0.7500])
    """
    maps = checks.maps("maps", maps).clamp(min=0)
    grid = checks.count("grid", grid)
    cell = checks.count("cell", cell, least=0, most=grid**2 - 1)
    if maps.shape[1] % grid or maps.shape[2] % grid:
        raise ValueError(
            f"maps: expected sides that {grid} divides, got {maps.shape[1]} x {maps.shape[2]}"
        )
    checks.defined("maps", maps.flatten(1).any(1), "maps that are positive somewhere")
    # (B, H, W) -> (B, grid, h, grid, w) -> (B, grid^2)
    cells = maps.unflatten(1, (grid, -1)).unflatten(3, (grid, -1)).sum((2, 4)).flatten(1)
    return cells[:, cell] / cells.sum(1)


def grid_pointing_game(
    model: Callable,
    pictures: Tensor,
    targets: Tensor,
    *,
    method: Callable[..., Tensor],
    **keywords: object,
) -> Tensor:
    """Measure whether the explanation of each class lies in the picture of that class.

    The pictures, of different classes, are tiled into one. For each class the positive part of its
    heatmap is shared out among the cells, and the share in the cell of that class is returned.
    Boehle et al. (2021), Sec. 4. Higher is better; 1 / G is chance. The truth is known only as far
    as the network looks at its class in the picture of that class. It takes G maps of the tiling.

    Args:
        model: Callable from (N, C, H, W) to scores (N, classes), rows independent; a module in
            eval mode. It must take pictures of the size of the tiling.
        pictures: (G, C, H, W) finite floating-point pictures; G is a square number.
        targets: LongTensor (G,), the class of each picture.
        method: Any attribution function, `tl.grad_cam` too.
        **keywords: Keywords of the method.

    Returns:
        (G,) shares, from 0 to 1.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, or nothing is positive in the map of a class.
            The message names the pictures of those classes. The method may raise its own errors.

    Example:
        Class k of this model is the brightness of quarter k, so every map is in its own cell:

        >>> def quarters(z):
        ...     return nn.functional.adaptive_avg_pool2d(z.mean(1, keepdim=True), 2).flatten(1)
        >>> pictures, targets = torch.rand(4, 3, 8, 8), torch.arange(4)
        >>> tl.metrics.grid_pointing_game(quarters, pictures, targets, method=tl.gradient)
        tensor([1., 1., 1., 1.])
    """
    tiled = tile(pictures)
    targets = checks.target(targets, pictures)
    side = math.isqrt(len(pictures))
    maps = [_heatmap(method(model, tiled, c, **keywords), tiled) for c in targets.tolist()]
    positive = torch.stack([(m > 0).any() for m in maps])
    checks.defined("method", positive, "maps that are positive somewhere", "put in other pictures")
    return torch.cat([share_in_cell(m, k, side) for k, m in enumerate(maps)])


def class_difference(
    model: Callable,
    x: Tensor,
    first: int | Tensor,
    second: int | Tensor,
    *,
    method: Callable[..., Tensor],
    **keywords: object,
) -> Tensor:
    """Show where a method sees one class more than another.

        D = s_1 - s_2

    Here s_1 and s_2 are the saliency maps of the two classes. Smilkov et al. (2017) draw D from
    blue to red. If D is 0 everywhere, the map does not depend on the class. A constant map
    counts as 0 everywhere, as in `tl.saliency_map`. It takes two maps.

    Args:
        model: Callable from (N, C, H, W) to scores (N, classes), rows independent; a module in
            eval mode.
        x: (B, C, H, W) finite floating-point pictures.
        first: Class index of s_1, or LongTensor (B,) with one for each picture.
        second: Class index of s_2, or LongTensor (B,) with one for each picture.
        method: Any attribution function, `tl.grad_cam` too.
        **keywords: Keywords of the method.

    Returns:
        (B, H, W) differences, from -1 to 1.

    Raises:
        TypeError: The method does not return a floating-point tensor.
        ValueError: The map is not (B, C, H, W) or (B, H, W), or it holds NaN or infinity; the
            message names the pictures. The method may raise its own errors.

    Example:
        >>> options = dict(method=tl.smoothgrad, sigma=0.2, samples=4)
        >>> tl.metrics.class_difference(model, x, 5, 3, **options).shape
        torch.Size([2, 16, 16])
    """
    one, other = (normalize(_heatmap(method(model, x, c, **keywords), x)) for c in (first, second))
    return one - other


def _heatmap(attribution: Tensor, x: Tensor) -> Tensor:
    """Return the heatmap (B, H, W); a map without channels, such as Grad-CAM's, is one already."""
    has_shape = isinstance(attribution, Tensor) and attribution.shape == (len(x), *x.shape[2:])
    return attribution if has_shape and x.ndim == 4 else heatmap(attribution)
