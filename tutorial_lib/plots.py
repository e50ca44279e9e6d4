"""Figures of the book: grids of pictures and maps, lines, bars.

Nothing here computes an attribution. Every function returns a closed matplotlib Figure: as the
last expression of a notebook cell it is shown exactly once. All are drawn for a text column of
740 px, so a figure is at most `WIDTH` inches wide and its letters stay readable.
"""

import itertools
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image

WIDTH = 7.4  # inches: 740 px at 100 dpi, so 10 points are about 14 px on the page
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
    Limits are taken over all maps of the same kind, one colour bar for each kind.

    `shared=False` gives each map its own limits: no colour bar, and the figure says so.
    `signed=True` or `False` decides for all maps instead of looking for negative values.
    `size` is a panel's width in inches, made smaller where a row would be wider than 7.4 inches.

    Raises TypeError or ValueError for a panel of another form, and where the number of titles does
    not fit.

    >>> picture_grid([image, heatmap], ["picture", "gradient"])
    """
    panels = [_panel(p, i) for i, p in enumerate(panels)]
    if not any(p is not None for p in panels):
        raise ValueError("panels: expected at least one panel that is not None")
    columns = columns or (len(column_titles) if column_titles else min(len(panels), 4))
    rows = -(-len(panels) // columns)
    _same_length("titles", titles, len(panels))
    _same_length("row_titles", row_titles, rows)
    _same_length("column_titles", column_titles, columns)
    kinds = _kinds(panels, signed)
    limits = _limits(panels, kinds, shared)
    fig, axes = _empty_grid(panels, rows, columns, size, bool(titles), colorbar and bool(limits))
    drawn: dict[bool, list] = {}
    for i, (ax, panel) in enumerate(itertools.zip_longest(axes.flat, panels)):
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        if panel is None:
            continue
        if panel.ndim == 3:
            ax.imshow(panel)
        else:
            low, high = limits[i]
            cmap = SIGNED if kinds[i] else MAGNITUDE
            drawn.setdefault(kinds[i], []).append(ax.imshow(panel, cmap, vmin=low, vmax=high))
        if titles:
            ax.set_title(titles[i], fontsize=10)
    for ax, text in zip(axes[0], column_titles or [], strict=False):
        ax.set_title(text if not ax.get_title() else f"{text}\n{ax.get_title()}", fontsize=10)
    for ax, text in zip(axes[:, 0], row_titles or [], strict=False):
        ax.set_ylabel(text, fontsize=10)
    if shared and colorbar:
        for is_signed, images in drawn.items():
            _colour_bar(fig, axes, images, is_signed)
    elif drawn and not shared:
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
        colour = COLOURS[i % len(COLOURS)]
        marker = MARKERS[i % len(MARKERS)] if markers else None
        style = STYLES[i % len(STYLES)]
        every = max(1, len(x) // 12)
        ax.plot(x, y, style, color=colour, marker=marker, markevery=every, ms=5, label=label)
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
    spread = dict(errors) if isinstance(errors, Mapping) else {"": errors} if errors else {}
    if spread and set(spread) != set(series):
        raise ValueError(f"errors: series {list(spread)}, expected those of values: {list(series)}")
    fig, ax = _axes(size, xlabel, ylabel, title)
    width = 0.8 / len(series)
    for i, (name, heights) in enumerate(series.items()):
        heights = _numbers(f"values[{name!r}]", heights, False, len(labels))
        half = spread and _numbers(f"errors[{name!r}]", spread[name], False, len(labels))
        ax.bar(
            np.arange(len(labels)) + (i - (len(series) - 1) / 2) * width,
            heights,
            width,
            yerr=half if spread else None,
            capsize=3,
            label=name,
            color=COLOURS[i % len(COLOURS)],
            hatch=HATCHES[i % len(HATCHES)],
            edgecolor="white",
        )
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
    if base is None or base.ndim != 3 or values is None or values.shape != base.shape[:2]:
        raise ValueError("overlay: expected a picture and a saliency map (H, W) of its size")
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"saliency: values in [{values.min():g}, {values.max():g}], not [0, 1]")
    grey = (base @ [0.299, 0.587, 0.114])[..., None]
    alpha = strength * values[..., None]
    return (1 - alpha) * grey + alpha * colormaps[MAGNITUDE](values)[..., :3]


def as_picture(value) -> np.ndarray | None:
    """The (H, W, 3) float array in [0, 1] behind a picture of any accepted form; None if no picture.

    A PIL image, an (H, W, 3) array or a (3, H, W) tensor; uint8, or floats in [0, 1].

    >>> as_picture(Image.new("RGB", (4, 3))).shape
    (3, 4, 3)
    """
    if isinstance(value, Image.Image):
        return np.asarray(value.convert("RGB")) / 255
    array = _array(value)
    first = 0 if hasattr(value, "detach") else -1  # 3 x H x 3: tensors put colours first
    axis = next((a for a in (first, -1 - first) if array.ndim == 3 and array.shape[a] == 3), None)
    if axis is None:
        return None
    array = np.moveaxis(array, axis, -1)
    return array / 255 if array.dtype == np.uint8 else array.astype(float)


def _array(value) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() and value.itemsize < 4 else value
        value = value.numpy()
    return np.asarray(value)


def _panel(value, where) -> np.ndarray | None:
    """The (H, W, 3) picture or (H, W) map in one panel, checked."""
    name = f"panels[{where}]" if isinstance(where, int) else where
    if value is None:
        return None
    array = as_picture(value)
    if array is None:
        array = _array(value)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{name}: {type(value).__name__}; expected a picture, a map or None")
        array = array[0] if array.ndim == 3 and len(array) == 1 else array
        array = array.astype(float)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] != 3) or not array.size:
        raise ValueError(
            f"{name}: shape {array.shape}; expected a picture (H, W, 3) or (3, H, W), or a map "
            "(H, W) or (1, H, W); of a batch, pass one element"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: holds NaN or infinite values")
    if array.ndim == 3 and (array.min() < -1e-3 or array.max() > 1.001):
        raise ValueError(
            f"{name}: picture with values in [{array.min():g}, {array.max():g}], not [0, 1]"
        )
    return array.clip(0, 1) if array.ndim == 3 else array


def _kinds(panels: list, signed: bool | None) -> dict[int, bool]:
    """For each map whether it is signed."""
    maps = {i: p for i, p in enumerate(panels) if p is not None and p.ndim == 2}
    if signed is not None:
        return dict.fromkeys(maps, signed)
    some = any(p.min() < 0 for p in maps.values())
    return {i: bool(p.min() < 0 or (some and not p.any())) for i, p in maps.items()}


def _limits(panels: list, kinds: dict[int, bool], shared: bool) -> dict[int, tuple[float, float]]:
    def high(values: list, is_signed: bool) -> float:
        flat = np.concatenate([np.abs(v).ravel() for v in values])
        return float(np.percentile(flat, 99.5) if is_signed else flat.max()) or flat.max() or 1.0

    limits = {}
    for i, kind in kinds.items():
        group = [panels[j] for j in kinds if kinds[j] == kind] if shared else [panels[i]]
        top = high(group, kind)
        limits[i] = (-top, top) if kind else (0.0, top)
    return limits


def _empty_grid(panels, rows, columns, size, titled, bar) -> tuple[Figure, np.ndarray]:
    width = min(size, (WIDTH - 0.9 * bar) / columns)
    rows_of = [[p for p in panels[r * columns : (r + 1) * columns]] for r in range(rows)]
    tall = [max([p.shape[0] / p.shape[1] for p in r if p is not None] or [0.2]) for r in rows_of]
    height = sum(width * min(t, 3) + 0.3 * titled for t in tall) + 0.5
    fig, axes = plt.subplots(
        rows,
        columns,
        figsize=(max(width * columns + 0.9 * bar, 2.5), height),
        height_ratios=[min(t, 3) for t in tall],
        squeeze=False,
        layout="constrained",
        dpi=120,
    )
    plt.close(fig)
    return fig, axes


def _colour_bar(fig: Figure, axes: np.ndarray, images: list, is_signed: bool) -> None:
    low, high = images[0].get_clim()
    ticks = [low, 0, high] if is_signed else [0, high / 2, high]
    bar = fig.colorbar(
        images[0], ax=axes, location="right", shrink=0.8, aspect=25, ticks=ticks, pad=0.02
    )
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


def _same_length(name: str, values, count: int) -> None:
    if values is not None and len(values) != count:
        raise ValueError(f"{name}: {len(values)} given, expected {count}")
