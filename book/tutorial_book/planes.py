"""Figures in the plane, for the pages on signals and roots; narrow, so that a phone shows them."""

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from tutorial_lib.show.plots import COLOURS, MARKERS

BOX = {"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.85}


def signal_plane(points, amounts, arrows: Mapping[str, Sequence[float]], limit: float) -> Figure:
    """Draw data with two inputs, coloured by what is to be read from them, and named arrows."""
    fig, ax = plt.subplots(figsize=(4.6, 4.4), layout="constrained", dpi=120)
    plt.close(fig)
    x, y = np.asarray(points).T
    style = dict(c=np.asarray(amounts), cmap="RdBu_r", vmin=-2.5, vmax=2.5, s=11, lw=0)
    dots = ax.scatter(x, y, alpha=0.8, **style)
    for (name, end), colour in zip(arrows.items(), (2, 5, 6), strict=False):
        _arrow(ax, (0, 0), end, COLOURS[colour])
        ax.plot([], [], color=COLOURS[colour], lw=2, label=name)
    ax.legend(fontsize=9, loc="upper left", framealpha=0.9)
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    ax.set(xlabel="input 1", ylabel="input 2")
    bar = fig.colorbar(dots, ax=ax, shrink=0.7, label="amount of signal, y")
    bar.solids.set_alpha(1)
    return fig


def root_plane(
    field: Callable,
    x: Sequence[float],
    roots: Mapping[str, Sequence[float]],
    bars: Mapping[str, Sequence[float]],
    limits: Sequence[float],
    slope: Sequence[float] | None = None,
) -> Figure:
    """Draw a score's boundary, a point and its roots, and beneath them two bars for each name.

    `field` takes (n, 2) points. `slope` is an arrow for the gradient, at the first root.
    """
    fig, (plane, below) = plt.subplots(
        2, 1, figsize=(4.6, 6.6), height_ratios=(3.4, 2), layout="constrained", dpi=120
    )
    plt.close(fig)
    _field(plane, field, limits)
    for i, (name, root) in enumerate(roots.items()):
        if slope is not None and i == 0:
            end = np.add(root, slope)
            _arrow(plane, root, end, COLOURS[1])
            place = dict(xytext=(6, 2), textcoords="offset points", fontsize=10)
            plane.annotate("gradient", end, color=COLOURS[1], **place)
        _arrow(plane, root, x, COLOURS[i])
        plane.plot(*root, MARKERS[i], color=COLOURS[i], ms=8, zorder=4)
        place = dict(xytext=(-9, 5), textcoords="offset points", ha="right", fontsize=10)
        plane.annotate(name, root, color=COLOURS[i], bbox=BOX, **place)
    plane.plot(*x, "*", color="black", ms=14, zorder=5)
    plane.annotate("x", x, xytext=(8, 5), textcoords="offset points", fontsize=12)
    _pairs(below, bars)
    return fig


def _field(ax, field: Callable, limits: Sequence[float]) -> None:
    """Draw the score in shades, and its boundary."""
    axis = np.linspace(*limits, 201)
    grid = np.stack(np.meshgrid(axis, axis), -1)
    values = np.asarray(field(grid.reshape(-1, 2))).reshape(201, 201)
    top = np.abs(values).max()
    ax.contourf(axis, axis, values, 21, cmap="RdBu_r", vmin=-2.5 * top, vmax=2.5 * top)
    ax.contour(axis, axis, values, [0.0], colors="black", linewidths=1.6)
    ax.set(xlim=limits, ylim=limits, aspect="equal", xlabel="input 1", ylabel="input 2")


def _pairs(ax, bars: Mapping[str, Sequence[float]]) -> None:
    """Draw a bar for each of the two inputs, with its number, under each name."""
    numbers = np.array(list(bars.values()), dtype=float)  # (names, 2)
    for k in (0, 1):
        place = np.arange(len(bars)) + (k - 0.5) * 0.38
        style = dict(color=COLOURS[(4, 5)[k]], edgecolor="white", hatch=("", "//")[k])
        drawn = ax.bar(place, numbers[:, k], 0.36, label=f"input {k + 1}", **style)
        ax.bar_label(drawn, [f"{v:g}" for v in numbers[:, k].round(3) + 0.0], fontsize=9, padding=1)
    ax.axhline(0, color="0.35", lw=0.8)
    ax.margins(y=0.2)
    ax.set_xticks(range(len(bars)), list(bars), fontsize=9)
    ax.legend(frameon=False, fontsize=9, ncols=2, loc="lower right", bbox_to_anchor=(1, 0.98))
    ax.spines[["top", "right"]].set_visible(False)


def _arrow(ax, start: Sequence[float], end: Sequence[float], colour: str) -> None:
    arrow = dict(arrowstyle="-|>", color=colour, lw=2, shrinkA=0, shrinkB=0, mutation_scale=14)
    ax.annotate("", xy=end, xytext=start, arrowprops=arrow, zorder=3)
