"""Localisation with known truth: pictures whose parts belong to different classes."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from tutorial_lib import checks
from tutorial_lib.heatmaps import heatmap, normalize


def tile(pictures: Tensor) -> Tensor:
    """Four (or 9, 16, ...) pictures as one, row by row: (G, C, H, W) -> (1, C, H g, W g), g^2 = G.

    >>> tile(torch.rand(4, 3, 224, 224)).shape
    torch.Size([1, 3, 448, 448])
    """
    pictures = checks.pictures(pictures)
    side = math.isqrt(len(pictures))
    if pictures.ndim != 4 or side**2 != len(pictures):
        raise ValueError(
            f"pictures: expected (G, C, H, W) with G a square number, got {tuple(pictures.shape)}"
        )
    rows = [torch.cat(list(row), dim=2) for row in pictures.unflatten(0, (side, side))]
    return torch.cat(rows, dim=1)[None]


def share_in_cell(maps: Tensor, cell: int, grid: int = 2) -> Tensor:
    """Share of the positive attribution that lies in one cell of a grid: (B, H, W) -> (B,).

    s = sum of max(A, 0) in the cell / sum of max(A, 0)   (Boehle et al., 2021, Sec. 4). Cells are
    counted row by row from 0. Higher is better, 1 / grid^2 is chance. No forward passes. Raises
    ValueError that names the maps where nothing is positive: there is nothing to share out.

    >>> share_in_cell(torch.ones(1, 4, 4), cell=0)
    tensor([0.2500])
    """
    maps = checks.maps("maps", maps).clamp(min=0)
    grid = checks.count("grid", grid)
    cell = checks.count("cell", cell, least=0, most=grid**2 - 1)
    if maps.shape[1] % grid or maps.shape[2] % grid:
        raise ValueError(
            f"maps: expected sides that {grid} divides, got {maps.shape[1]} x {maps.shape[2]}"
        )
    checks.defined("maps", maps.flatten(1).any(1), "maps that are positive somewhere")
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
    """Is the explanation of each class in the picture of that class? (G, C, H, W) -> (G,).

    The pictures, of different classes, are tiled into one; for each class the positive part of its
    heatmap is shared out among the cells, and the share in its own cell returned (Boehle et al.,
    2021, Sec. 4). Higher is better, 1 / G is chance. The truth is known only as far as the network
    looks at its class in its own picture. targets: LongTensor (G,). method: any attribution
    function, tl.grad_cam too. Cost: G maps of the tiling. Raises ValueError that names the pictures
    for whose class nothing is positive.

    >>> grid_pointing_game(model, x, torch.tensor([967, 285, 1, 2]), method=tl.gradient_x_input)
    """
    tiled = tile(pictures)
    targets = checks.target(targets, pictures)
    side = math.isqrt(len(pictures))
    maps = [_flat(method(model, tiled, c, **keywords), tiled) for c in targets.tolist()]
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
    """Where a method sees one class more than another: (B, C, H, W) -> (B, H, W) in [-1, 1].

    D = s_1 - s_2, the saliency maps of the two classes (Smilkov et al., 2017, Sec. 3.2, drawn blue
    to red). 0 everywhere means that the map does not depend on the class. A constant map counts as
    0 everywhere, as in `tl.saliency_map`. method: any attribution function, tl.grad_cam too.
    Cost: two maps.

    >>> class_difference(model, x, 285, 967, method=tl.smoothgrad, sigma=0.2)
    """
    one, two = (normalize(_flat(method(model, x, c, **keywords), x)) for c in (first, second))
    return one - two


def _flat(attribution: Tensor, x: Tensor) -> Tensor:
    """The heatmap (B, H, W) of an attribution; a map without channels, as Grad-CAM's, is one."""
    flat = isinstance(attribution, Tensor) and attribution.shape == (len(x), *x.shape[2:])
    return attribution if flat and x.ndim == 4 else heatmap(attribution)
