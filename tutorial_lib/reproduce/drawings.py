"""The figures of a run, as PNG files in its folder."""

from pathlib import Path

import numpy as np
import pandas
import torch
from matplotlib.figure import Figure

from tutorial_lib.maps import saliency_map
from tutorial_lib.plots import lines, picture_grid
from tutorial_lib.reproduce.config import Config
from tutorial_lib.reproduce.measures import POINTS
from tutorial_lib.reproduce.runner import map_path

AXES = {"aupc": ("windows replaced", "score, first = 1"), "autvc": ("level of the pyramid", "ATV")}


def draw(folder: Path, results: pandas.DataFrame, config: Config) -> list[Path]:
    """Draw what the configuration is about; returns the files. A table has no figure."""
    if config.kind == "maps":
        figures = {config.name: maps(folder, results, config)}
    elif config.kind == "curves":
        figures = {m: curves(results, config, m) for m in config.measures if m in POINTS}
    else:
        figures = {}
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=200)
    return paths


def curves(results: pandas.DataFrame, config: Config, measure: str) -> Figure:
    """The mean curve behind a measure, a line for each row, with bands of one standard error."""
    points = POINTS[measure]
    grouped = results.groupby("row", sort=False)[points]
    mean, error = grouped.mean(), grouped.sem().fillna(0.0)
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
    """Saliency maps, a line for each picture and a column for each row, each on its own scale."""
    names = list(dict.fromkeys(results.picture))
    panels = []
    for name in names:
        for row in config.rows:
            heat = torch.from_numpy(np.load(map_path(folder, name, row)))[None]
            panels.append(saliency_map(heat[:, None])[0])
    titles = [Path(name).stem[:14] for name in names]
    return picture_grid(
        panels,
        columns=len(config.rows),
        column_titles=list(config.rows),
        row_titles=titles,
        colorbar=False,
        size=1.5,
    )
