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

# One colour a method, in every figure; a label begins with the method's name.
METHODS = {
    "gradient": "#000000",
    "gradient x input": "#7F7F7F",
    "integrated gradients": "#0072B2",
    "smoothgrad": "#D55E00",
    "smoothtaylor": "#CC79A7",
    "adaptgrad": "#009E73",
    "noisegrad": "#56B4E9",
    "deeplift": "#56B4E9",
    "lrp": "#E69F00",
    "libragrad": "#7B3294",
    "grad-cam": "#8C564B",
    "guided backpropagation": "#6B8E23",
}


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
    """Draw pictures and maps in a grid, with maps that are compared on one scale.

    A map with a negative value is signed. It gets diverging colours, white at 0, and limits -v and
    v, where v is the 99.5th percentile of the absolute values. Other maps run from 0 to their
    maximum. A map of zeros is drawn as its neighbours are. Limits are taken over all maps of a
    kind, and each kind has one colour bar. A panel has a thin frame, since it may be white.

    Args:
        panels: What to draw, row by row. A panel is a picture (a PIL image, an (H, W, 3) array or
            a (3, H, W) tensor, floats in [0, 1] or uint8), a map ((H, W) or (1, H, W)), or None
            for an empty panel.
        titles: One title for each panel.
        columns: Number of columns. By default there is one for each column title, or at most 3.
        row_titles: One title for each row, on its left.
        column_titles: One title for each column, above it.
        shared: Whether maps share their limits. If not, each map has its own limits, there is no
            colour bar, and the figure says so.
        signed: Whether all maps are signed. None looks for negative values.
        colorbar: Whether to draw the colour bars.
        size: Width of a panel in inches. It is made smaller where a row would be wider than 7.4
            inches.
        title: Title of the figure.

    Returns:
        The figure, closed.

    Raises:
        TypeError: A panel is neither a picture nor a map nor None.
        ValueError: A panel has another shape, values that are not finite, or a picture with values
            outside [0, 1]; no panel is given; a number of titles does not fit; or `signed` is
            False and a map has negative values.

    Example:
        >>> figure = tl.plots.picture_grid([x[0], torch.eye(16)], ["picture", "map"])
        >>> [axes.get_title() for axes in figure.axes]  # the last is the colour bar
        ['picture', 'map', '']
    """
    panels = [None if p is None else as_panel(p, f"panels[{i}]") for i, p in enumerate(panels)]
    if not any(p is not None for p in panels):
        raise ValueError("panels: expected at least one panel that is not None")
    columns = columns or (len(column_titles) if column_titles else min(len(panels), 3))
    rows = -(-len(panels) // columns)
    counts = {"titles": len(panels), "row_titles": rows, "column_titles": columns}
    for name, given in zip(counts, (titles, row_titles, column_titles), strict=True):
        if given is not None and len(given) != counts[name]:
            raise ValueError(f"{name}: {len(given)} given, expected {counts[name]}")
    is_signed = _is_signed(panels, signed)
    limits = _limits(panels, is_signed, shared)
    bar_kinds = set(is_signed.values()) if colorbar and shared else set()
    text_lines = rows * bool(titles) + bool(column_titles) + bool(title)
    text_lines += bool(is_signed) and not shared
    fig, axes = _empty_grid(panels, rows, columns, size, len(bar_kinds), text_lines)
    drawn = {}
    for i, (ax, panel) in enumerate(itertools.zip_longest(axes.flat, panels)):
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(visible=i < len(panels) and panel is not None, color="0.7", lw=0.6)
        if i in is_signed:
            cmap, (low, high) = SIGNED if is_signed[i] else MAGNITUDE, limits[i]
            drawn[is_signed[i]] = ax.imshow(panel, cmap, vmin=low, vmax=high)
        elif panel is not None:
            ax.imshow(panel)
        if titles and i < len(panels):
            ax.set_title(titles[i], fontsize=10)
    for ax, text in zip(axes[0], column_titles or [], strict=False):
        ax.set_title(text if not ax.get_title() else f"{text}\n{ax.get_title()}", fontsize=10)
    for ax, text in zip(axes[:, 0], row_titles or [], strict=False):
        ax.set_ylabel(text, fontsize=10)
    for kind in sorted(bar_kinds):
        _colour_bar(fig, axes, drawn[kind], kind)
    if is_signed and not shared:
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
    """Draw curves over one x axis, each with its own marker and line style.

    A curve whose label begins with the name of a method, such as "SmoothGrad 10 %", has the colour
    that this method has in every figure. Other curves have colours of their own.

    Args:
        x: (n,) positions on the x axis.
        curves: Maps a label to (n,) values; NaN leaves a gap.
        xlabel: Label of the x axis.
        ylabel: Label of the y axis.
        logx: Whether the x axis is logarithmic.
        logy: Whether the y axis is logarithmic.
        markers: Whether to draw markers, on about 12 points of each curve.
        bands: Maps a label of a curve to (n,) half widths. The band from y - half width to
            y + half width is shaded.
        size: Width and height of the figure in inches.
        title: Title of the figure.
        hline: Height of a thin horizontal line; None draws no line.

    Returns:
        The figure, closed.

    Raises:
        ValueError: A length does not fit, a value is infinite, a value on a logarithmic axis is
            not above 0, or a band has no curve.

    Example:
        >>> figure = tl.plots.lines([1, 10], {"right rule": [2, 1]}, xlabel="steps", ylabel="gap")
        >>> figure.axes[0].lines[0].get_xydata().tolist()
        [[1.0, 2.0], [10.0, 1.0]]
    """
    x = _numbers("x", x, logx)
    bands = dict(bands or {})
    if unknown := set(bands) - set(curves):
        raise ValueError(f"bands: {sorted(unknown)} are no curves; these are: {list(curves)}")
    fig, ax = _empty_axes(size, xlabel, ylabel, title)
    ax.set(xscale="log" if logx else "linear", yscale="log" if logy else "linear")
    colours = colours_of(curves)
    for i, (label, values) in enumerate(curves.items()):
        y = _numbers(f"curves[{label!r}]", values, logy, len(x))
        colour, style = colours[i], STYLES[i % len(STYLES)]
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
    """Draw one bar for each label, or a group of bars where there are several series.

    Series differ by colour and hatching. Bars and series named after a method have its colour.

    Args:
        labels: n texts under the bars.
        values: (n,) heights, or a mapping from names of series to (n,) heights.
        errors: Half lengths of the error bars, in the form of `values`; None draws none.
        xlabel: Label of the x axis.
        ylabel: Label of the y axis.
        size: Width and height of the figure in inches.
        title: Title of the figure.

    Returns:
        The figure, closed.

    Raises:
        ValueError: Lengths or series differ, or a value is infinite.

    Example:
        >>> figure = tl.plots.bars(["Gradient", "IG"], [0.7, 0.2], ylabel="total variation")
        >>> [float(bar.get_height()) for bar in figure.axes[0].patches]
        [0.7, 0.2]
    """
    series = dict(values) if isinstance(values, Mapping) else {"": values}
    halves = errors if isinstance(errors, Mapping) else {} if errors is None else {"": errors}
    if halves and set(halves) != set(series):
        raise ValueError(f"errors: series {list(halves)}, expected those of values: {list(series)}")
    fig, ax = _empty_axes(size, xlabel, ylabel, title)
    width = 0.8 / len(series)
    colours = colours_of(series)
    if len(series) == 1 and all(map(_method, labels)):
        colours = [colours_of(labels)]
    for i, (name, heights) in enumerate(series.items()):
        heights = _numbers(f"values[{name!r}]", heights, False, len(labels))
        half = _numbers(f"errors[{name!r}]", halves[name], False, len(labels)) if halves else None
        style = {"color": colours[i], "hatch": HATCHES[i % len(HATCHES)]}
        x = np.arange(len(labels)) + (i - (len(series) - 1) / 2) * width
        ax.bar(x, heights, width, yerr=half, capsize=3, label=name, edgecolor="white", **style)
    ax.set_xticks(range(len(labels)), labels)
    ax.axhline(0, color="0.35", lw=1)
    if len(series) > 1:
        ax.legend(frameon=False)
    ax.grid(axis="y", alpha=0.25)
    ax.set_axisbelow(True)
    return fig


def overlay(picture, saliency, *, strength: float = 0.85) -> np.ndarray:
    """Lay saliency over the grey picture; where there is no saliency, there is no colour.

        out = (1 - a) * grey + a * colour(saliency),  a = strength * saliency

    Args:
        picture: A PIL image, an (H, W, 3) array or a (3, H, W) tensor, floats in [0, 1] or uint8.
        saliency: A map (H, W) or (1, H, W) in [0, 1].
        strength: Weight of the colour where the saliency is 1.

    Returns:
        An (H, W, 3) array in [0, 1], which can be a panel of `picture_grid`.

    Raises:
        TypeError: The picture or the saliency is of another kind.
        ValueError: The sizes differ, or the saliency leaves [0, 1].

    Example:
        >>> tl.plots.overlay(torch.full((3, 1, 1), 0.5), torch.zeros(1, 1))
        array([[[0.5, 0.5, 0.5]]])
    """
    base, values = as_panel(picture, "picture"), as_panel(saliency, "saliency")
    if base.ndim != 3 or values.shape != base.shape[:2]:
        raise ValueError("overlay: expected a picture and a saliency map (H, W) of its size")
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"saliency: values in [{values.min():g}, {values.max():g}], not [0, 1]")
    grey = (base @ [0.299, 0.587, 0.114])[..., None]  # (H, W, 1)
    alpha = strength * values[..., None]
    return (1 - alpha) * grey + alpha * colormaps[MAGNITUDE](values)[..., :3]


def as_picture(value) -> np.ndarray | None:
    """Turn a picture of any accepted form into an array.

    Args:
        value: A PIL image, an (H, W, 3) array or a (3, H, W) tensor, uint8 or floats in [0, 1].

    Returns:
        (H, W, 3) floats, or None where the value is no picture.

    Example:
        >>> tl.plots.as_picture(torch.zeros(3, 4, 5)).shape
        (4, 5, 3)
    """
    array = np.asarray(to_rgb(value)) if isinstance(value, Image.Image) else _array(value)
    axes = (0, -1) if hasattr(value, "detach") else (-1, 0)  # of 3 x H x 3, tensors mean the first
    axes = [a for a in axes if array.ndim == 3 and array.shape[a] == 3]
    if not axes:
        return None
    array = np.moveaxis(array, axes[0], -1)
    return array / 255 if array.dtype == np.uint8 else array.astype(float)


def colours_of(labels: Sequence[str]) -> list[str]:
    """Give each label a colour: that of the method whose name it begins with, or a free one.

    Args:
        labels: Names of curves, such as "SmoothGrad 10 %".

    Returns:
        One colour a label, as text.

    Example:
        >>> tl.plots.colours_of(["SmoothGrad 10 %", "random", "SmoothGrad 20 %"])
        ['#D55E00', '#0072B2', '#D55E00']
    """
    methods = [_method(label) for label in labels]
    taken = {METHODS[method] for method in methods if method}
    free = itertools.cycle([c for c in COLOURS if c not in taken] or COLOURS)
    return [METHODS[method] if method else next(free) for method in methods]


def _method(label: str) -> str | None:
    """Return the name of the method that a label begins with, the longest that fits."""
    fits = [name for name in METHODS if label.lower().startswith(name)]
    return max(fits, key=len, default=None)


def _array(value) -> np.ndarray:
    """Turn an array, a sequence or a tensor of any device and precision into a NumPy array."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() and value.itemsize < 4 else value
        value = value.numpy()
    return np.asarray(value)


def as_panel(value, name: str) -> np.ndarray:
    """Turn a picture or a map of any accepted form into an array, as one panel of a grid.

    Args:
        value: A picture, as `as_picture` takes it, or a map (H, W) or (1, H, W).
        name: Name of the argument, with which errors begin.

    Returns:
        (H, W, 3) floats in [0, 1], or (H, W) floats.

    Raises:
        TypeError: The value is neither a picture nor a map.
        ValueError: It has another shape, values that are not finite, or is a picture with values
            outside [0, 1].

    Example:
        >>> tl.plots.as_panel(torch.zeros(1, 4, 5), "map").shape
        (4, 5)
    """
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


def _is_signed(panels: list, signed: bool | None) -> dict[int, bool]:
    """Say for the index of each map whether the map is signed."""
    maps = {i: p for i, p in enumerate(panels) if p is not None and p.ndim == 2}
    any_negative = any(p.min() < 0 for p in maps.values())
    if signed is False and any_negative:
        raise ValueError("signed: False given, but a map has negative values")
    if signed is not None:
        return dict.fromkeys(maps, signed)
    return {i: bool(p.min() < 0 or (any_negative and not p.any())) for i, p in maps.items()}


def _limits(panels: list, is_signed: dict[int, bool], shared: bool) -> dict[int, tuple]:
    """Return the limits of the colours for the index of each map."""
    limits = {}
    for i, kind in is_signed.items():
        group = [j for j in is_signed if is_signed[j] == kind] if shared else [i]
        magnitudes = np.concatenate([np.abs(panels[j]).ravel() for j in group])
        high = float(np.percentile(magnitudes, 99.5 if kind else 100) or magnitudes.max() or 1)
        limits[i] = (-high if kind else 0.0, high)
    return limits


def _empty_grid(panels, rows: int, columns: int, size: float, bars: int, text_lines: float):
    """Make the figure and its axes; rows are as high as their tallest panel, at most 3 x width."""
    width = min(size, (WIDTH - 0.8 * bars - 0.1) / columns)
    groups = [panels[r * columns : (r + 1) * columns] for r in range(rows)]
    ratios = [max([len(p) / p.shape[1] for p in g if p is not None] or [0.2]) for g in groups]
    ratios = [min(ratio, 3.0) for ratio in ratios]
    height = width * sum(ratios) + 0.08 * rows + 0.25 * text_lines
    extent = max(width * columns + 0.8 * bars + 0.1, 2.5), max(height, 1.5 * bool(bars), 0.5)
    options = {"squeeze": False, "layout": "constrained", "dpi": 120}
    fig, axes = plt.subplots(rows, columns, figsize=extent, height_ratios=ratios, **options)
    plt.close(fig)
    return fig, axes


def _colour_bar(fig: Figure, axes: np.ndarray, image, is_signed: bool) -> None:
    """Draw the colour bar of the signed maps or of the others, beside all axes."""
    low, high = image.get_clim()
    ticks = [low, 0, high] if is_signed else [0, high / 2, high]
    bar = fig.colorbar(image, ax=axes, shrink=0.8, aspect=25, ticks=ticks, pad=0.02)
    bar.ax.set_yticklabels([f"{t:.2g}" for t in ticks], fontsize=9)
    bar.outline.set_visible(False)


def _empty_axes(size, xlabel: str, ylabel: str, title: str | None):
    """Make a closed figure with labelled axes, open at the top and on the right."""
    fig, ax = plt.subplots(figsize=size, layout="constrained", dpi=120)
    plt.close(fig)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.set_title(title or "", fontsize=11)
    ax.spines[["top", "right"]].set_visible(False)
    return fig, ax


def _numbers(name: str, values, log: bool, count: int | None = None) -> np.ndarray:
    """Return the values as an array (count,) of floats, checked for its axis."""
    array = _array(values).astype(float)
    if array.ndim != 1 or (count is not None and len(array) != count):
        raise ValueError(f"{name}: shape {array.shape}; expected ({count or 'n'},)")
    if np.isinf(array).any():
        raise ValueError(f"{name}: holds infinite values")
    if log and (array <= 0).any():
        raise ValueError(f"{name}: holds values <= 0, which a log axis cannot show")
    return array
