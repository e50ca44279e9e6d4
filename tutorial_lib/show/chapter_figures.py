"""Teaching figures that belong to one chapter each; the general ones are in `plots.py`."""

from collections.abc import Sequence
from statistics import NormalDist

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from tutorial_lib.show.plane_tiles import tile_strip, tiles
from tutorial_lib.show.plots import COLOURS, MARKERS, SIGNED, STYLES, as_picture, colours_of

__all__ = [
    "bells",
    "chord",
    "dots",
    "network",
    "perturbation",
    "riemann",
    "search_path",
    "tangent",
    "tile_strip",
    "tiles",
]


def tangent(
    grid: Sequence, score: Sequence, place: float, height: float, slope: float, heatmap: Sequence
) -> Figure:
    """Draw the score from black to a picture with its tangent at one point, and the map there.

    Args:
        grid: (n,) positions from 0 (black) to 1 (the picture).
        score: (n,) scores at these positions.
        place: Position at which the tangent touches the curve.
        height: Score at this position.
        slope: Slope of the tangent, the sum of the map.
        heatmap: (H, W) map at this position, drawn on its own scale, which the title names.

    Returns:
        The figure, closed.

    Example:
        >>> heatmap = torch.ones(9, 9)
        >>> figure = tl.figures.tangent([0, 1], [0, 2], 1.0, 2.0, slope=2.0, heatmap=heatmap)
        >>> figure.axes[1].get_title()
        'sum 2.00, colours to ±1'
    """
    heatmap = np.asarray(heatmap)
    fig, (left, right) = _two_panels(3.0, [1.4, 1])
    left.plot(grid, score, color=COLOURS[0])
    left.axline((float(place), float(height)), slope=float(slope), color=COLOURS[1], ls="--")
    left.plot(place, height, "o", color=COLOURS[1])
    margin = 0.25 * (max(score) - min(score))
    left.set(xlabel="a, from black to picture", ylabel="score", xlim=(-0.02, 1.02))
    left.set_ylim(min(score) - margin, max(score) + margin)
    limit = float(np.quantile(np.abs(heatmap), 0.995)) or 1.0
    right.imshow(heatmap, cmap=SIGNED, vmin=-limit, vmax=limit)
    right.set(xticks=[], yticks=[])
    right.set_title(f"sum {float(slope):.2f}, colours to ±{limit:.2g}", fontsize=10)
    return fig


def riemann(
    slope: Sequence[float], steps: int, heatmap: Sequence, *, limit: float, change: float
) -> Figure:
    """Draw Integrated Gradients as a sum of bars, the right rule under the slope, and its map.

    Args:
        slope: (n + 1,) slopes of the score on an equal grid of n intervals from baseline to
            picture, ends included.
        steps: Number of bars, a divisor of n.
        heatmap: (H, W) map of these bars.
        limit: The map is drawn with colours from -limit to limit.
        change: f(x) - f(b), what the bars should add up to.

    Returns:
        The figure, closed. Its title holds the sum of the bars, and the gap to `change`.

    Raises:
        ValueError: `steps` does not divide the number of intervals.

    Example:
        >>> heatmap, slope = torch.zeros(9, 9), [0, 1, 2, 3, 4]
        >>> figure = tl.figures.riemann(slope, 2, heatmap, limit=1.0, change=2.0)
        >>> figure.axes[0].get_title()  # (2 + 4) / 2
        'n = 2: bars 3.00, gap +1.00'
    """
    slope = np.asarray(slope, dtype=float)
    intervals = len(slope) - 1
    if intervals % steps:
        raise ValueError(f"steps: expected a divisor of {intervals}, got {steps}")
    heights = slope[intervals // steps :: intervals // steps]
    fig, (left, right) = _two_panels(3.0, [1.5, 1])
    style = dict(width=1 / steps, align="edge", color=COLOURS[4], edgecolor="white", lw=0.6)
    left.bar(np.arange(steps) / steps, heights, **style)
    left.plot(np.linspace(0, 1, len(slope)), slope, color=COLOURS[0], lw=1.2)
    left.axhline(0, color="0.35", lw=0.8)
    left.set(xlabel="a, from baseline to picture", ylabel="slope of the score", xlim=(0, 1))
    total = heights.mean()
    left.set_title(f"n = {steps}: bars {total:.2f}, gap {total - change:+.2f}", fontsize=10)
    right.imshow(np.asarray(heatmap), cmap=SIGNED, vmin=-limit, vmax=limit)
    right.set(xticks=[], yticks=[])
    right.set_title("the map of these bars", fontsize=10)
    return fig


def search_path(
    sigmas: Sequence[float],
    values: Sequence[float],
    path_sigmas: Sequence[float],
    path_values: Sequence[float],
    *,
    ylabel: str,
) -> Figure:
    """Draw a line search over sigma: its evaluations on the curve, and beside it their order.

    The first evaluation is marked as the start, and the one with the least value as the best.

    Args:
        sigmas: (n,) noise levels of the curve, a grid.
        values: (n,) values of the objective on the grid.
        path_sigmas: (k,) noise levels that the search evaluated, in order.
        path_values: (k,) values that it found, in the same order.
        ylabel: Name of the objective.

    Returns:
        The figure, closed.

    Example:
        >>> found = [0.5, 1.5, 2.5], [2.2, 0.3, 0.2]
        >>> figure = tl.figures.search_path([0, 1, 2], [4, 1, 0], *found, ylabel="objective")
        >>> figure.axes[0].lines[-1].get_label(), figure.axes[0].lines[-1].get_xydata().tolist()
        ('best', [[2.5, 0.2]])
    """
    sigma, objective = (np.asarray(v, dtype=float) for v in (path_sigmas, path_values))
    order, best = np.arange(1, len(sigma) + 1), int(objective.argmin())
    fig, (left, right) = _two_panels(3.2, width=7.4, dpi=120)
    left.plot(sigmas, values, color="0.55", label="the curve, on a grid")
    for axes, x, y in ((left, sigma, objective), (right, order, sigma)):
        style = dict(ls=":" if axes is right else "none", marker="o", ms=4, color=COLOURS[0])
        axes.plot(x, y, label="evaluations", **style)
        axes.plot(x[0], y[0], "s", ms=8, mfc="none", mew=1.8, color=COLOURS[1], label="start")
        axes.plot(x[best], y[best], "D", ms=8, color=COLOURS[2], label="best")
        _open_frame(axes)
    left.set(xlabel="sigma", ylabel=ylabel)
    right.set(xlabel="evaluation", ylabel="sigma")
    left.legend(frameon=False, fontsize=9)
    return fig


def perturbation(picture: Sequence, curves: dict[str, Sequence[float]], step: int) -> Figure:
    """Draw a picture with its first windows replaced, and the score so far: a step of the curve.

    Args:
        picture: (3, H, W) picture in [0, 1], with `step` windows replaced.
        curves: Maps a label to the scores after 0, 1, 2, ... windows. The first curve is drawn up
            to `step` with a mark at its end, and the others are drawn whole, for comparison.
        step: Number of windows that are replaced.

    Returns:
        The figure, closed.

    Example:
        >>> curves = {"map": [1, 0.5, 0.2], "random": [1, 0.9, 0.8]}
        >>> figure = tl.figures.perturbation(x[0], curves, step=1)
        >>> [line.get_ydata().tolist() for line in figure.axes[1].lines]
        [[1.0, 0.5], [0.5], [1.0, 0.9, 0.8]]
    """
    fig, (left, right) = _two_panels(2.9, [1, 1.5])
    left.imshow(as_picture(picture).clip(0, 1))
    left.set(xticks=[], yticks=[])
    colours = colours_of(curves)
    for i, (label, values) in enumerate(curves.items()):
        shown = np.asarray(values, dtype=float)[: step + 1 if i == 0 else None]
        right.plot(shown, "--" if i else "-", color=colours[i], label=label)
        if i == 0:
            right.plot(step, shown[-1], "o", color=colours[0])
    scores = np.concatenate([np.asarray(v, dtype=float) for v in curves.values()])
    right.set(xlabel="windows replaced", ylabel="score / first score")
    right.set(xlim=(-0.3, len(next(iter(curves.values()))) - 0.7))
    right.set_ylim(min(scores.min(), 0.5) - 0.05, max(scores.max(), 1.0) + 0.15)
    right.legend(frameon=False, fontsize=9, loc="upper right", ncols=2)
    _open_frame(right)
    return fig


def network(columns: Sequence[Sequence[str]], weights: Sequence, titles: Sequence[str]) -> Figure:
    """Draw a small network: a box for every unit, an arrow with its weight for every connection.

    Args:
        columns: The texts of the units, one list for each column, from the input to the output and
            from top to bottom.
        weights: One matrix (units on the right, units on the left) between neighbouring columns.
            A weight of 0 is not drawn, and a negative weight is dashed.
        titles: One title above each column.

    Returns:
        The figure, closed.

    Example:
        >>> figure = tl.figures.network([["i1", "i2"], ["o"]], [[[1, -1]]], ["input", "output"])
        >>> [text.get_text() for text in figure.axes[0].texts if text.get_text()]
        ['+1', '-1', 'i1', 'i2', 'o', 'input', 'output']
    """
    rows = max(map(len, columns))
    fig, ax = plt.subplots(figsize=(6.0, 1.1 * rows + 0.4), layout="constrained", dpi=120)
    plt.close(fig)
    positions = [
        [(k, -(j + (rows - len(column)) / 2)) for j in range(len(column))]
        for k, column in enumerate(columns)
    ]
    for k, matrix in enumerate(weights):
        for (i, j), w in np.ndenumerate(np.asarray(matrix)):
            if w:
                _arrow(ax, positions[k][j], positions[k + 1][i], float(w))
    box = {"boxstyle": "round,pad=0.45", "facecolor": "white", "edgecolor": "0.35"}
    for column_positions, texts in zip(positions, columns, strict=True):
        for position, text in zip(column_positions, texts, strict=True):
            ax.text(*position, text, ha="center", va="center", fontsize=9, bbox=box, zorder=3)
    for k, title in enumerate(titles):
        ax.text(k, 0.5, title, ha="center", fontsize=10)
    ax.set(xlim=(-0.45, len(columns) - 0.55), ylim=(-rows + 0.55, 0.7))
    ax.axis("off")
    return fig


def dots(
    labels: Sequence[str],
    panels: dict[str, tuple[Sequence[float], Sequence[float]]],
    *,
    zero: bool = False,
    colours: Sequence[int] | None = None,
) -> Figure:
    """Draw a table: one line for each label, one panel for each measure, dots with error bars.

    Args:
        labels: n names on the left, from top to bottom.
        panels: Maps a title to (n,) values and (n,) half widths of their error bars; NaN leaves a
            gap.
        zero: Whether to draw the line at 0, where nothing differs.
        colours: A number for each label, which stands for its colour and marker. By default all
            are 0.

    Returns:
        The figure, closed.

    Example:
        >>> figure = tl.figures.dots(["IG", "SmoothTaylor"], {"AUPC": ([14.0, 12.0], [1.0, 1.5])})
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['IG', 'SmoothTaylor']
    """
    height = 0.9 + 0.26 * len(labels)
    options = dict(sharey=True, squeeze=False, layout="constrained")
    fig, axes = plt.subplots(1, len(panels), figsize=(7.2, height), **options)
    plt.close(fig)
    colours = list(colours or [0] * len(labels))
    for ax, (title, (values, errors)) in zip(axes[0], panels.items(), strict=True):
        for y, (value, error, colour) in enumerate(zip(values, errors, colours, strict=True)):
            style = dict(color=COLOURS[colour], marker=MARKERS[colour], ms=5, capsize=2)
            ax.errorbar(value, y, xerr=error, **style)
        if zero:
            ax.axvline(0, color="0.35", lw=1, zorder=1)
        ax.set_title(title, fontsize=10)
        ax.grid(alpha=0.25)
    axes[0, 0].set_yticks(range(len(labels)), labels)
    axes[0, 0].set_ylim(len(labels) - 0.4, -0.6)  # from top to bottom, none on the frame
    return fig


def chord(
    grid: Sequence, score: Sequence, curves: dict[str, Sequence], k: int, slope: float
) -> Figure:
    """Draw a score of one number with its tangent and its chord, and contributions beside it.

    The chord runs from the reference, grid[0], to grid[k]. The tangent touches at grid[k].

    Args:
        grid: (n,) inputs, the reference first.
        score: (n,) scores.
        curves: Maps a label to (n,) contributions, drawn whole, with a mark at grid[k].
        k: Index of the input that is explained.
        slope: Slope of the tangent.

    Returns:
        The figure, closed.

    Example:
        >>> figure = tl.figures.chord([0, 1, 2], [0, 0, 1], {"chord": [0, 0, 1]}, k=2, slope=1.0)
        >>> figure.axes[0].lines[1].get_xydata().tolist()
        [[0.0, 0.0], [2.0, 1.0]]
    """
    grid, score = np.asarray(grid, dtype=float), np.asarray(score, dtype=float)
    fig, (left, right) = _two_panels(3.0)
    left.plot(grid, score, color=COLOURS[6], label="score")
    left.plot(grid[[0, k]], score[[0, k]], "o-", color=COLOURS[0], label="chord")
    left.axline((grid[k], score[k]), slope=slope, color=COLOURS[1], ls="--", label="tangent")
    left.set(xlabel="x", ylabel="f(x)", ylim=(min(score) - 3, max(score) + 3))
    left.legend(frameon=False, fontsize=9, loc="upper left")
    for i, (label, colour) in enumerate(zip(curves, colours_of(list(curves)), strict=True)):
        right.plot(grid, curves[label], STYLES[i], color=colour, label=label)
        right.plot(grid[k], curves[label][k], MARKERS[i], color=colour)
    right.set(xlabel="x", ylabel="contribution")
    right.legend(frameon=False, fontsize=9, loc="upper left")
    for ax in (left, right):
        _open_frame(ax)
    return fig


def bells(place: float, sigmas: dict[str, float], bounds: tuple[float, float]) -> Figure:
    """Draw how a value with normal noise is distributed, and in red what of it leaves the range.

    Args:
        place: The value without noise.
        sigmas: Maps a name to a standard deviation; each gets a panel.
        bounds: Pair (lower, upper) of the range.

    Returns:
        The figure, closed.

    Example:
        >>> figure = tl.figures.bells(0.5, {"wide": 0.5, "narrow": 0.1}, (0.0, 1.0))
        >>> [axes.get_title() for axes in figure.axes]
        ['wide: 31.7% outside', 'narrow: 0.0% outside']
    """
    lower, upper = bounds
    room = 0.35 * (upper - lower)
    x = np.union1d(np.linspace(lower - room, upper + room, 801), bounds)
    fig, axes = plt.subplots(
        1, len(sigmas), figsize=(7.0, 2.6), layout="constrained", sharey=True, squeeze=False
    )
    plt.close(fig)
    for ax, (name, sigma) in zip(axes[0], sigmas.items(), strict=True):
        bell = NormalDist(place, sigma)
        density = np.array([bell.pdf(v) for v in x])
        outside = bell.cdf(lower) + 1 - bell.cdf(upper)
        ax.plot(x, density, color=COLOURS[0])
        ax.fill_between(x, density, where=(x <= lower) | (x >= upper), color="#c1121f", lw=0)
        for bound in bounds:
            ax.axvline(bound, color="0.35", lw=1)
        ax.axvline(place, color="0.35", lw=1, ls=":")
        ax.set_xlabel("value")
        ax.set_title(f"{name}: {outside:.1%} outside", fontsize=10)
        _open_frame(ax)
    axes[0, 0].set(ylabel="density", ylim=(0, None))
    return fig


def _two_panels(height: float, ratios: Sequence = (1, 1), width: float = 7.0, **options):
    """Make a closed figure with two axes side by side."""
    size = dict(figsize=(width, height), width_ratios=ratios, layout="constrained")
    fig, axes = plt.subplots(1, 2, **size, **options)
    plt.close(fig)
    return fig, axes


def _open_frame(ax) -> None:
    """Take the lines at the top and on the right away, and draw a grid."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.25)


def _arrow(ax, start: tuple, end: tuple, weight: float) -> None:
    """Draw a connection of `network` with its weight in the middle."""
    colour, style = (COLOURS[0], "-") if weight > 0 else (COLOURS[1], "--")
    arrow = {"arrowstyle": "-|>", "color": colour, "linestyle": style, "shrinkA": 40, "shrinkB": 40}
    ax.annotate("", xy=end, xytext=start, arrowprops=arrow)
    x, y = (a + 0.5 * (b - a) for a, b in zip(start, end, strict=True))
    label = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    ax.text(x, y, f"{weight:+g}", color=colour, fontsize=9, ha="center", va="center", bbox=label)
