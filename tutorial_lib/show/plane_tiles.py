"""The book's recurring picture: a small ReLU network on the plane, and where a method looks."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from matplotlib.patheffects import withStroke
from torch import nn

from tutorial_lib.show.plots import WIDTH, colours_of

LIMIT = 1.35  # the plane is drawn from -LIMIT to LIMIT
ARROW = 0.36  # length of an arrow for a gradient of length 1
SMALLEST = 0.01  # share of the plane that a tile must have to get an arrow
SCORES = LinearSegmentedColormap.from_list(
    "scores", ["#8FB8DE", "#DCE9F4", "#FBFAF6", "#FBE3CF", "#F0A875"]
)


def tiles(
    network: nn.Sequential,
    x: Sequence[float],
    look: Mapping,
    values: Sequence[float],
    *,
    limit: float,
    ylabel: str,
    title: str = "",
    errors: Sequence[float] | None = None,
) -> Figure:
    """Draw where a method looks in the plane of a network's two inputs, and the map it gives.

    A network of one ReLU layer cuts the plane into tiles, on each of which its score is a plane.
    Pale arrows are the gradients of the tiles. On the right stands the map, one bar for each input.

    Args:
        network: A linear layer with two inputs, a ReLU, and a linear layer with one score.
        x: (2,) the input that is explained.
        look: Where the method looks and how it weighs, as `tile_strip` takes it.
        values: (2,) the map.
        limit: The bars' axis runs from -limit to limit.
        ylabel: What the bars are.
        title: Title of the bars.
        errors: (2,) half lengths of error bars; None draws none.

    Returns:
        The figure, closed.

    Example:
        >>> network, point = tl.toy.plane(), torch.tensor([[0.6, 0.35]])
        >>> slope = tl.gradient(network, point.double(), 0)[0]
        >>> look = dict(method="gradient", mean=slope)
        >>> figure = tl.figures.tiles(network, point[0], look, slope, limit=1, ylabel="gradient")
        >>> [round(float(bar.get_height()), 2) for bar in figure.axes[1].patches]
        [0.73, -0.31]
    """
    options = dict(width_ratios=[1.6, 1], layout="constrained", dpi=120)
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.0, 4.2), **options)
    plt.close(fig)
    _draw_plane(left, network, x, look)
    colour = colours_of([look["method"]])[0]
    heights = np.asarray(values, dtype=float)
    right.bar(["input 1", "input 2"], heights, 0.6, color=colour, yerr=errors, capsize=4)
    right.axhline(0, color="0.35", lw=1)
    right.set(ylim=(-limit, limit), ylabel=ylabel)
    right.set_title(title, fontsize=10)
    right.spines[["top", "right"]].set_visible(False)
    right.grid(axis="y", alpha=0.25)
    right.set_axisbelow(True)
    return fig


def tile_strip(
    network: nn.Sequential,
    x: Sequence[float],
    looks: Mapping[str, Mapping],
    *,
    columns: int = 3,
) -> Figure:
    """Draw several planes beside each other, one for each method.

    Args:
        network: A linear layer with two inputs, a ReLU, and a linear layer with one score.
        x: (2,) the input that is explained.
        looks: Maps a title to a dictionary: `method`, whose colour is taken; and, where there are
            any, `points` (K, 2) and `arrows` (K, 2), arrows at these points; `mean` (2,), one
            thick arrow at x; `gradient` (2,), a thin one beside it; `baseline` (2,), joined to x;
            `box`, the bounds of the inputs; `tangent`, whether to draw lines of equal score and,
            dashed, those of the tangent plane at x; `x`, another input than that of the others.
        columns: Number of planes in a row.

    Returns:
        The figure, closed.

    Example:
        >>> looks = {"one arrow": dict(method="gradient", mean=[0.7, -0.3])}
        >>> figure = tl.figures.tile_strip(tl.toy.plane(), [0.6, 0.35], looks)
        >>> figure.axes[0].get_title()
        'one arrow'
    """
    columns = min(columns, len(looks))
    rows = -(-len(looks) // columns)
    size = min(WIDTH / columns, 3.4)
    options = dict(figsize=(size * columns, (size + 0.25) * rows), layout="constrained", dpi=120)
    fig, axes = plt.subplots(rows, columns, squeeze=False, **options)
    plt.close(fig)
    for ax, (title, look) in zip(axes.flat, looks.items(), strict=False):
        _draw_plane(ax, network, look.get("x", x), look)
        ax.set_title(title, fontsize=10)
    for ax in axes.flat[len(looks) :]:
        ax.set_visible(False)
    return fig


def _draw_plane(ax, network: nn.Sequential, x: Sequence[float], look: Mapping) -> None:
    """Draw the tiles, and what a look adds to them."""
    x = np.asarray(x, dtype=float)
    colour = colours_of([look["method"]])[0]
    line = np.linspace(-LIMIT, LIMIT, 241)
    grid = np.stack(np.meshgrid(line, line), -1)  # (241, 241, 2)
    score = _score(network, grid)
    _draw_tiles(ax, network, grid, score)
    if look.get("tangent"):
        _draw_tangent(ax, network, x, grid, score, colour)
    if "box" in look:
        low, high = look["box"]
        side = high - low
        ax.add_patch(
            plt.Rectangle((low, low), side, side, fill=False, ec="0.25", ls=":", lw=1.2, zorder=3)
        )
    if "baseline" in look:
        b = np.asarray(look["baseline"], dtype=float)
        ax.plot(*np.stack([b, x], 1), ":", color="black", lw=1)
        ax.plot(*b, "o", mfc="white", mec="black", ms=7, zorder=5)
        ax.annotate("b", b, (-4, 7), textcoords="offset points", style="italic", ha="right")
    if "points" in look:
        points = np.asarray(look["points"], dtype=float)
        ax.plot(*points.T, "o", color=colour, ms=2.5, alpha=0.7, zorder=3)
        if "arrows" in look:
            alpha = 0.9 if len(points) < 15 else 0.5
            for point, arrow in zip(points, np.asarray(look["arrows"], dtype=float), strict=True):
                _arrow(ax, point, arrow, colour, 1.0, alpha)
    if "gradient" in look:
        _arrow(ax, x, look["gradient"], "black", 1.5, 1.0)
    if "mean" in look:
        _arrow(ax, x, look["mean"], colour, 2.8, 1.0)
    ax.plot(*x, "o", color="black", ms=7, zorder=6)
    ax.annotate("x", x, (-6, 5), textcoords="offset points", style="italic", ha="right", zorder=7)
    ax.set(xlim=(-LIMIT, LIMIT), ylim=(-LIMIT, LIMIT), xticks=[], yticks=[], aspect="equal")
    ax.set_xlabel("input 1", fontsize=9)
    ax.set_ylabel("input 2", fontsize=9)
    ax.spines[:].set(color="0.7", lw=0.6)


def _draw_tiles(ax, network: nn.Sequential, grid: np.ndarray, score: np.ndarray) -> None:
    """Draw the score in pale colours, the edges of the tiles, and the gradient of each tile."""
    most, extent = np.abs(score).max(), [-LIMIT, LIMIT, -LIMIT, LIMIT]
    ax.imshow(score, SCORES, vmin=-most, vmax=most, origin="lower", extent=extent)
    weight, bias = (p.detach().numpy() for p in network[0].parameters())
    slope = network[2].weight.detach().numpy()[0]
    before = grid @ weight.T + bias  # (241, 241, units)
    for unit in range(len(bias)):
        ax.contour(*np.moveaxis(grid, -1, 0), before[..., unit], [0.0], colors="white")
    tile = (before > 0) @ (2 ** np.arange(len(bias)))
    for number in np.unique(tile):
        inside = tile == number
        if inside.mean() > SMALLEST:
            on = before[inside][0] > 0
            _arrow(ax, grid[inside].mean(0), (slope * on) @ weight, "0.6", 0.8, 0.8, middle=True)


def _draw_tangent(ax, network, x: np.ndarray, grid: np.ndarray, score: np.ndarray, colour) -> None:
    """Draw lines of equal score, and dashed those of the plane that touches the score at x."""
    point = torch.tensor(x[None], requires_grad=True)
    (slope,) = torch.autograd.grad(network(point).sum(), point)
    plane = _score(network, x) + (grid - x) @ slope[0].numpy()
    levels = np.linspace(score.min(), score.max(), 12)
    across = np.moveaxis(grid, -1, 0)
    ax.contour(*across, score, levels, colors="0.45", linewidths=0.7, linestyles="-")
    ax.contour(*across, plane, levels, colors=colour, linewidths=1.1, linestyles="--")


def _score(network: nn.Sequential, points: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return network(torch.from_numpy(points.reshape(-1, 2))).numpy().reshape(points.shape[:-1])


def _arrow(ax, start, slope, colour: str, width: float, alpha: float, middle: bool = False) -> None:
    """Draw a gradient as an arrow from a point, or through it."""
    start, step = np.asarray(start, dtype=float), ARROW * np.asarray(slope, dtype=float)
    start = start - step / 2 if middle else start
    style = dict(arrowstyle="-|>", color=colour, lw=width, alpha=alpha, shrinkA=0, shrinkB=0)
    style |= dict(mutation_scale=4 + 3 * width, zorder=5 if width > 1 else 4)
    halo = [withStroke(linewidth=width + 2, foreground="white")] if width > 1 else []
    ax.add_patch(FancyArrowPatch(start, start + step, path_effects=halo, **style))
