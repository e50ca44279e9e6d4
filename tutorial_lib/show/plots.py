"""Figures of the book: grids of pictures and maps, lines, bars.

Every function returns a closed matplotlib Figure: as the last expression of a notebook cell it is
shown exactly once. A figure is at most `WIDTH` inches wide, so that its letters stay readable.
"""

import itertools
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image

from tutorial_lib.pictures import to_rgb

WIDTH = 7.4  # inches for the page's 740 px, so 10 points are about 14 px
SIGNED, MAGNITUDE = "RdBu_r", "magma"  # diverging with a neutral centre; sequential from 0

# Okabe and Ito's colours without the yellow, which is too faint for a line on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
STYLES = ("-", "--", "-.", ":")
HATCHES = ("", "//", "..", "xx", "\\\\", "++")


def picture_grid(
    panels: Sequence,
    titles: Sequence[str] | None = None,
    *,
    columns: int | None = None,
    row_titles: Sequence[str] | None = None,
    column_titles: Sequence[str] | None = None,
    shared: bool = True,
    signed: bool | None = None,
    colorbar: bool = True,
    size: float = 2.2,
    title: str | None = None,
) -> Figure:
    """Pictures and maps in a grid, maps that are compared on one scale.

    A panel is a picture (a PIL image, an (H, W, 3) array or a (3, H, W) tensor, floats in [0, 1]
    or uint8), a map ((H, W) or (1, H, W)) or None for an empty place. A map with a negative value
    is signed: diverging colours, white at 0, limits +-v where v is the 99.5th percentile of
    |value|. Other maps run from 0 to their maximum. A map of zeros is drawn as its neighbours are.
    Limits are taken over all maps of a kind, with one colour bar for each kind.
    `shared=False` gives each map its own limits: no colour bar, and the figure says so.
    `signed=True` or `False` decides for all maps instead of looking for negative values.
    `size` is a panel's width in inches, made smaller where a row would be wider than 7.4 inches.
    Raises TypeError or ValueError for a panel of another form or another number of titles.

    >>> picture_grid([image, heatmap], ["picture", "gradient"])
    """
    panels = [None if p is None else _panel(p, i) for i, p in enumerate(panels)]
    if not any(p is not None for p in panels):
        raise ValueError("panels: expected at least one panel that is not None")
    columns = columns or (len(column_titles) if column_titles else min(len(panels), 4))
    rows = -(-len(panels) // columns)
    counts = {"titles": len(panels), "row_titles": rows, "column_titles": columns}
    for name, given in zip(counts, (titles, row_titles, column_titles), strict=True):
        if given is not None and len(given) != counts[name]:
            raise ValueError(f"{name}: {len(given)} given, expected {counts[name]}")
    kinds = _kinds(panels, signed)
    limits = _limits(panels, kinds, shared)
    shown = set(kinds.values()) if colorbar and shared else set()
    text = rows * bool(titles) + bool(column_titles) + bool(title) + (bool(kinds) and not shared)
    fig, axes = _empty_grid(panels, rows, columns, size, len(shown), text)
    drawn = {}
    for i, (ax, panel) in enumerate(itertools.zip_longest(axes.flat, panels)):
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        if i in kinds:
            cmap, (low, high) = SIGNED if kinds[i] else MAGNITUDE, limits[i]
            drawn[kinds[i]] = ax.imshow(panel, cmap, vmin=low, vmax=high)
        elif panel is not None:
            ax.imshow(panel)
        if titles and i < len(panels):
            ax.set_title(titles[i], fontsize=10)
    for ax, text in zip(axes[0], column_titles or [], strict=False):
        ax.set_title(text if not ax.get_title() else f"{text}\n{ax.get_title()}", fontsize=10)
    for ax, text in zip(axes[:, 0], row_titles or [], strict=False):
        ax.set_ylabel(text, fontsize=10)
    for is_signed in sorted(shown):
        _colour_bar(fig, axes, drawn[is_signed], is_signed)
    if kinds and not shared:
        fig.supxlabel("each map on its own scale", fontsize=9)
    fig.suptitle(title or "", fontsize=11)
    return fig


def lines(
    x: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    *,
    xlabel: str,
    ylabel: str,
    logx: bool = False,
    logy: bool = False,
    markers: bool = True,
    bands: Mapping[str, Sequence[float]] | None = None,
    size: tuple[float, float] = (6.4, 3.6),
    title: str | None = None,
    hline: float | None = None,
) -> Figure:
    """Curves over one x axis, told apart by colour, marker and line style.

    `curves` maps a label to y values, as many as `x`; NaN leaves a gap. `bands` maps a label to
    half widths: the band y +- half width is shaded. `hline` draws a thin line at that height.
    Raises ValueError for other lengths, for infinite values, and for values <= 0 on a log axis.

    >>> lines([1, 10, 100], {"right": gaps}, xlabel="steps", ylabel="gap", logx=True, logy=True)
    """
    x = _numbers("x", x, logx)
    bands = dict(bands or {})
    if unknown := set(bands) - set(curves):
        raise ValueError(f"bands: {sorted(unknown)} are no curves; these are: {list(curves)}")
    fig, ax = _axes(size, xlabel, ylabel, title)
    ax.set(xscale="log" if logx else "linear", yscale="log" if logy else "linear")
    for i, (label, values) in enumerate(curves.items()):
        y = _numbers(f"curves[{label!r}]", values, logy, len(x))
        colour, style = COLOURS[i % len(COLOURS)], STYLES[i % len(STYLES)]
        ax.plot(x, y, style, color=colour, label=label)
        if markers:
            ax.lines[-1].set(marker=MARKERS[i % len(MARKERS)], markevery=max(1, len(x) // 12), ms=5)
        if label in bands:
            half = _numbers(f"bands[{label!r}]", bands[label], False, len(x))
            ax.fill_between(x, y - half, y + half, color=colour, alpha=0.2, lw=0)
    if hline is not None:
        ax.axhline(hline, color="0.35", lw=1, zorder=1)
    if len(curves) > 1:
        ax.legend(frameon=False)
    ax.grid(alpha=0.25)
    return fig


def bars(
    labels: Sequence[str],
    values: Sequence[float] | Mapping[str, Sequence[float]],
    *,
    errors: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
    xlabel: str = "",
    ylabel: str = "",
    size: tuple[float, float] = (6.4, 3.6),
    title: str | None = None,
) -> Figure:
    """One bar for each label, or a group of bars where `values` maps series names to values.

    `errors` has the form of `values`: half lengths of the error bars. Series differ by colour and
    hatching. Raises ValueError where lengths or series differ, or a value is infinite.

    >>> bars(["Gradient", "IG"], [0.7, 0.2], ylabel="total variation")
    """
    series = dict(values) if isinstance(values, Mapping) else {"": values}
    spread = errors if isinstance(errors, Mapping) else {} if errors is None else {"": errors}
    if spread and set(spread) != set(series):
        raise ValueError(f"errors: series {list(spread)}, expected those of values: {list(series)}")
    fig, ax = _axes(size, xlabel, ylabel, title)
    width = 0.8 / len(series)
    for i, (name, heights) in enumerate(series.items()):
        heights = _numbers(f"values[{name!r}]", heights, False, len(labels))
        half = _numbers(f"errors[{name!r}]", spread[name], False, len(labels)) if spread else None
        look = {"color": COLOURS[i % len(COLOURS)], "hatch": HATCHES[i % len(HATCHES)]}
        place = np.arange(len(labels)) + (i - (len(series) - 1) / 2) * width
        ax.bar(place, heights, width, yerr=half, capsize=3, label=name, edgecolor="white", **look)
    ax.set_xticks(range(len(labels)), labels)
    ax.axhline(0, color="0.35", lw=1)
    if len(series) > 1:
        ax.legend(frameon=False)
    ax.grid(axis="y", alpha=0.25)
    ax.set_axisbelow(True)
    return fig


def overlay(picture, saliency, *, strength: float = 0.85) -> np.ndarray:
    """Saliency in [0, 1] laid over the grey picture: an (H, W, 3) array, a panel of `picture_grid`.

    out = (1 - a) * grey + a * colour(saliency), a = strength * saliency: no saliency, no colour.
    Raises ValueError where the sizes differ or the saliency leaves [0, 1].

    >>> picture_grid([image, overlay(image, saliency)])
    """
    base, values = _panel(picture, "picture"), _panel(saliency, "saliency")
    if base.ndim != 3 or values.shape != base.shape[:2]:
        raise ValueError("overlay: expected a picture and a saliency map (H, W) of its size")
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"saliency: values in [{values.min():g}, {values.max():g}], not [0, 1]")
    grey = (base @ [0.299, 0.587, 0.114])[..., None]
    alpha = strength * values[..., None]
    return (1 - alpha) * grey + alpha * colormaps[MAGNITUDE](values)[..., :3]


def as_picture(value) -> np.ndarray | None:
    """The (H, W, 3) floats behind a picture of any accepted form; None where it is no picture.

    A PIL image, an (H, W, 3) array or a (3, H, W) tensor; uint8, or floats in [0, 1].

    >>> as_picture(Image.new("RGB", (4, 3))).shape
    (3, 4, 3)
    """
    array = np.asarray(to_rgb(value)) if isinstance(value, Image.Image) else _array(value)
    axes = (0, -1) if hasattr(value, "detach") else (-1, 0)  # of 3 x H x 3, tensors mean the first
    axes = [a for a in axes if array.ndim == 3 and array.shape[a] == 3]
    if not axes:
        return None
    array = np.moveaxis(array, axes[0], -1)
    return array / 255 if array.dtype == np.uint8 else array.astype(float)


def _array(value) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() and value.itemsize < 4 else value
        value = value.numpy()
    return np.asarray(value)


def _panel(value, where) -> np.ndarray:
    """The (H, W, 3) picture or (H, W) map in one panel, checked."""
    name = f"panels[{where}]" if isinstance(where, int) else where
    array = as_picture(value)
    if array is None:
        array = _array(value)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{name}: {type(value).__name__}; expected a picture, a map or None")
        array = (array[0] if array.ndim == 3 and len(array) == 1 else array).astype(float)
        if array.ndim != 2 or not array.size:
            raise ValueError(
                f"{name}: shape {array.shape}; expected a picture (H, W, 3) or (3, H, W), or a map "
                "(H, W) or (1, H, W); of a batch, pass one element"
            )
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: holds NaN or infinite values")
    if array.ndim == 3 and (array.min() < -1e-3 or array.max() > 1.001):
        raise ValueError(f"{name}: values in [{array.min():g}, {array.max():g}], not [0, 1]")
    return array.clip(0, 1) if array.ndim == 3 else array


def _kinds(panels: list, signed: bool | None) -> dict[int, bool]:
    """For each map whether it is signed."""
    maps = {i: p for i, p in enumerate(panels) if p is not None and p.ndim == 2}
    some = any(p.min() < 0 for p in maps.values())
    if signed is False and some:
        raise ValueError("signed: False given, but a map has negative values")
    if signed is not None:
        return dict.fromkeys(maps, signed)
    return {i: bool(p.min() < 0 or (some and not p.any())) for i, p in maps.items()}


def _limits(panels: list, kinds: dict[int, bool], shared: bool) -> dict[int, tuple[float, float]]:
    limits = {}
    for i, kind in kinds.items():
        group = [j for j in kinds if kinds[j] == kind] if shared else [i]
        sizes = np.concatenate([np.abs(panels[j]).ravel() for j in group])
        top = float(np.percentile(sizes, 99.5 if kind else 100) or sizes.max() or 1)
        limits[i] = (-top if kind else 0.0, top)
    return limits


def _empty_grid(panels, rows: int, columns: int, size: float, bars: int, lines_of_text: float):
    """The figure with its axes; rows as high as their tallest panel needs (at most 3 x width)."""
    width = min(size, (WIDTH - 0.8 * bars - 0.1) / columns)
    groups = [panels[r * columns : (r + 1) * columns] for r in range(rows)]
    tall = [max([len(p) / p.shape[1] for p in g if p is not None] or [0.2]) for g in groups]
    tall = [min(t, 3.0) for t in tall]
    height = width * sum(tall) + 0.08 * rows + 0.25 * lines_of_text
    extent = max(width * columns + 0.8 * bars + 0.1, 2.5), max(height, 1.5 * bool(bars), 0.5)
    look = {"squeeze": False, "layout": "constrained", "dpi": 120}
    fig, axes = plt.subplots(rows, columns, figsize=extent, height_ratios=tall, **look)
    plt.close(fig)
    return fig, axes


def _colour_bar(fig: Figure, axes: np.ndarray, image, is_signed: bool) -> None:
    low, high = image.get_clim()
    ticks = [low, 0, high] if is_signed else [0, high / 2, high]
    bar = fig.colorbar(image, ax=axes, shrink=0.8, aspect=25, ticks=ticks, pad=0.02)
    bar.ax.set_yticklabels([f"{t:.2g}" for t in ticks], fontsize=9)
    bar.outline.set_visible(False)


def _axes(size, xlabel: str, ylabel: str, title: str | None):
    fig, ax = plt.subplots(figsize=size, layout="constrained", dpi=120)
    plt.close(fig)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.set_title(title or "", fontsize=11)
    ax.spines[["top", "right"]].set_visible(False)
    return fig, ax


def _numbers(name: str, values, log: bool, count: int | None = None) -> np.ndarray:
    array = _array(values).astype(float)
    if array.ndim != 1 or (count is not None and len(array) != count):
        raise ValueError(f"{name}: shape {array.shape}; expected ({count or 'n'},)")
    if np.isinf(array).any():
        raise ValueError(f"{name}: holds infinite values")
    if log and (array <= 0).any():
        raise ValueError(f"{name}: holds values <= 0, which a log axis cannot show")
    return array
