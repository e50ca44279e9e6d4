"""The figures of a run, as PNG files in its folder."""

import io
import math
from pathlib import Path

import numpy as np
import pandas
import torch
from matplotlib.figure import Figure

from tutorial_lib.averaging.noise import IMAGENET_BOUNDS, inherent_noise
from tutorial_lib.heatmaps import saliency_map
from tutorial_lib.reproduce.config import Config
from tutorial_lib.reproduce.measures import POINTS, input_sigma
from tutorial_lib.reproduce.runner import map_path
from tutorial_lib.reproduce.store import write_file
from tutorial_lib.reproduce.tables import summary
from tutorial_lib.show.plots import WIDTH, lines, picture_grid

MAX_PICTURES = 12  # pictures in a figure of maps
AXES = {"aupc": ("windows replaced", "score, first = 1"), "autvc": ("level of the pyramid", "ATV")}
AXES["autvc_program"] = AXES["autvc"]
BELL_AT = 0.3  # of the range: where the value lies whose noise is drawn


def draw(folder: Path, results: pandas.DataFrame, config: Config) -> list[Path]:
    """Draw the figures of a configuration, and return their files; a table has no figure."""
    if config.kind == "maps":
        figures = {config.name: maps(folder, results, config)}
    elif config.kind == "curves":
        figures = {m: curves(results, config, m) for m in config.measures if m in POINTS}
    elif config.kind == "bells":
        figures = {config.name: bells(results, config)}
    else:
        figures = {}
    paths = []
    for name, figure in figures.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=200)
        paths.append(folder / f"{name}.png")
        write_file(paths[-1], buffer.getvalue())
    return paths


def curves(results: pandas.DataFrame, config: Config, measure: str) -> Figure:
    """Draw the mean curve behind a measure, one for each row, with bands of one standard error."""
    points = POINTS[measure]
    table = summary(results, points)
    mean, error = (table.xs(part, axis=1, level=1) for part in ("mean", "s.e."))
    error = error.fillna(0.0)
    xlabel, ylabel = AXES[measure]
    return lines(
        range(len(points)),
        {row: mean.loc[row].tolist() for row in config.rows},
        bands={row: error.loc[row].tolist() for row in config.rows},
        xlabel=xlabel,
        ylabel=ylabel,
        size=(7.0, 4.2),
    )


def bells(results: pandas.DataFrame, config: Config) -> Figure:
    """Draw the noise of each row around one value, and fill what of it is out of the range.

    The range is -2.12 to 2.64, as in Zhou et al. (2024), Fig. 3. A title has the filled area, and
    the mean of such areas over all values of the range, which the table has.
    """
    lower, upper = float(IMAGENET_BOUNDS[0].min()), float(IMAGENET_BOUNDS[1].max())
    x = torch.tensor([[lower + BELL_AT * (upper - lower)]], dtype=torch.float64)
    t = np.linspace(lower - 0.4 * (upper - lower), upper + 0.4 * (upper - lower), 1001)
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    axes = figure.subplots(1, len(config.rows), sharey=True, squeeze=False)[0]
    means = summary(results, ["inherent_noise"])["inherent_noise", "mean"]
    for ax, (label, row) in zip(axes, config.rows.items(), strict=True):
        sigma = torch.as_tensor(input_sigma(row, x, (lower, upper), config.program))
        area = float(inherent_noise(x, sigma, (lower, upper)))
        density = np.exp(-(((t - float(x)) / float(sigma)) ** 2) / 2)
        density /= float(sigma) * math.sqrt(2 * math.pi)
        ax.plot(t, density, color="black", lw=1.5)
        ax.fill_between(t, density, where=(t < lower) | (t > upper), color="#D55E00")
        for bound in (lower, upper):
            ax.axvline(bound, color="0.35", lw=1)
        ax.set(title=f"{label}: {area:.3g} here, mean {means[label]:.4g}", xlabel="x + noise")
        ax.title.set_fontsize(10)
    axes[0].set_ylabel("density")
    return figure


def maps(folder: Path, results: pandas.DataFrame, config: Config) -> Figure:
    """Draw the first pictures and their saliency maps, each map on its own scale.

    Each row of the configuration is a column, or `config.columns` of them make a line. A panel is
    empty where a map could not be made.
    """
    labels, columns = list(config.rows), config.columns or len(config.rows)
    lines = -(-len(labels) // columns)  # of the figure, for each picture
    names = list(dict.fromkeys(results.picture))[: max(MAX_PICTURES // lines, 1)]
    panels, titles, row_titles = [], [], []
    for name in names:
        for first in range(0, len(labels), columns):
            shown = labels[first : first + columns]
            panels.append(None if first else _load_map(map_path(folder, name)))
            panels += [_saliency(map_path(folder, name, row)) for row in shown]
            panels += [None] * (columns - len(shown))
            titles += ["" if first else "picture", *(row.replace(", ", "\n") for row in shown)]
            titles += [""] * (columns - len(shown))
            row_titles.append("" if first else Path(name).stem[:14])
    above = dict(titles=titles) if lines > 1 else dict(column_titles=titles[: columns + 1])
    options = dict(row_titles=row_titles, shared=False, colorbar=False, size=1.5)
    return picture_grid(panels, columns=columns + 1, **above, **options)


def _saliency(path: Path) -> torch.Tensor | None:
    """Read a stored heatmap as a saliency map, (H, W); None where there is none."""
    heat = _load_map(path)
    return None if heat is None else saliency_map(torch.from_numpy(heat)[None, None])[0]


def _load_map(path: Path) -> np.ndarray | None:
    """Read a stored map; None where there is none."""
    return np.load(path) if path.exists() else None
