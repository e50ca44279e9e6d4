"""The family tree of the methods; narrow and tall, so that a phone shows it."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from tutorial_lib.show.plots import COLOURS

TRUNK, TWIG, TEXT, WORDS = 0.25, 0.75, 1.75, 9.0  # places from left to right, in lines


def family_tree(root: str, branches: Mapping[str, Sequence[tuple[str, str, bool]]]) -> Figure:
    """Draw a root, a branch for each question, and its methods: name, few words, whether built.

    A method that is not built is grey and in brackets.
    """
    count = sum(2 + len(methods) for methods in branches.values())
    fig, ax = plt.subplots(figsize=(4.6, 0.245 * (count + 2)), layout="constrained", dpi=120)
    plt.close(fig)
    _box(ax, 0, root, "black")
    line, last = 1.9, 0.0
    for colour, (branch, methods) in zip(COLOURS, branches.items(), strict=False):
        ax.plot([TRUNK, TRUNK, TWIG], [last, line, line], color="0.35", lw=1.6, zorder=1)
        _box(ax, line, branch, colour, left=TWIG)
        for k, method in enumerate(methods, start=1):
            _leaf(ax, line, line + k + 0.15, colour, *method)
        last, line = line, line + len(methods) + 1.75
    ax.set(xlim=(-0.1, 17.6), ylim=(line - 0.9, -0.9))
    ax.axis("off")
    return fig


def _leaf(ax, start: float, at: float, colour: str, name: str, words: str, built: bool) -> None:
    """Write a method at the end of its twig."""
    shade, end = colour if built else "0.6", TEXT - 0.35
    ax.plot([TWIG + 0.3, TWIG + 0.3, end], [start, at, at], color=colour, lw=1.2, zorder=1)
    ax.plot(end, at, "o", ms=4, color=shade, mfc=shade if built else "white")
    style = dict(color="black", weight="bold") if built else dict(color="0.4")
    ax.text(TEXT, at, name if built else f"({name})", va="center", fontsize=9.5, **style)
    ax.text(WORDS, at, words, va="center", fontsize=9, color="0.25" if built else "0.4")


def _box(ax, at: float, text: str, colour: str, left: float = 0.0) -> None:
    """Write white words on a coloured box."""
    size = dict(width=17.4 - left, height=0.9, boxstyle="round,pad=0.05,rounding_size=0.3")
    ax.add_patch(FancyBboxPatch((left, at - 0.45), fc=colour, ec="none", **size, zorder=2))
    style = dict(color="white", weight="bold", fontsize=10, va="center", zorder=3)
    ax.text(left + 0.35, at, text, **style)
