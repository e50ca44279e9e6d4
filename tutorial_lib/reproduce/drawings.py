"""The figures of a run, as PNG files in its folder."""

import io
from pathlib import Path

import numpy as np
import pandas
import torch
from matplotlib.figure import Figure

from tutorial_lib.heatmaps import saliency_map
from tutorial_lib.reproduce.config import Config
from tutorial_lib.reproduce.measures import POINTS
from tutorial_lib.reproduce.runner import map_path
from tutorial_lib.reproduce.store import write_file
from tutorial_lib.reproduce.tables import summary
from tutorial_lib.show.plots import lines, picture_grid

MAX_PICTURES = 12  # pictures in a figure of maps
AXES = {"aupc": ("windows replaced", "score, first = 1"), "autvc": ("level of the pyramid", "ATV")}


def draw(folder: Path, results: pandas.DataFrame, config: Config) -> list[Path]:
    """Draw the figures of a configuration, and return their files; a table has no figure."""
    if config.kind == "maps":
        figures = {config.name: maps(folder, results, config)}
    elif config.kind == "curves":
        figures = {m: curves(results, config, m) for m in config.measures if m in POINTS}
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


def maps(folder: Path, results: pandas.DataFrame, config: Config) -> Figure:
    """Draw the first pictures and their saliency maps, each map on its own scale.

    Each row of the configuration is a column. A panel is empty where a map could not be made.
    """
    names = list(dict.fromkeys(results.picture))[:MAX_PICTURES]
    panels = []
    for name in names:
        panels.append(_load_map(map_path(folder, name)))
        for row in config.rows:
            heat = _load_map(map_path(folder, name, row))
            tensor = None if heat is None else torch.from_numpy(heat)[None, None]  # (1, 1, H, W)
            panels.append(None if tensor is None else saliency_map(tensor)[0])
    columns = ["picture", *(row.replace(", ", "\n") for row in config.rows)]
    return picture_grid(
        panels,
        columns=len(columns),
        column_titles=columns,
        row_titles=[Path(name).stem[:14] for name in names],
        shared=False,
        colorbar=False,
        size=1.5,
    )


def _load_map(path: Path) -> np.ndarray | None:
    """Read a stored map; None where there is none."""
    return np.load(path) if path.exists() else None
