"""From results to tables: means with standard errors, paired differences, the papers' claims."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas
from scipy.stats import t

from tutorial_lib.reproduce.config import Config
from tutorial_lib.reproduce.measures import DIRECTIONS


def read(folder: str | Path) -> pandas.DataFrame:
    """results.csv of a run, one line for each picture and row.

    Raises FileNotFoundError where the run is not finished.
    """
    path = Path(folder) / "results.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: the run is not finished; start it again")
    return pandas.read_csv(
        path, keep_default_na=False, na_values=[""], dtype={"picture": str, "row": str, "note": str}
    )


def summary(results: pandas.DataFrame, measures: Sequence[str]) -> pandas.DataFrame:
    """Mean over pictures, its standard error and the number of pictures, for each row and measure.

    s.e. = standard deviation / sqrt(pictures); NaN for one picture. Empty cells are left out.
    Columns (measure, "mean" | "s.e." | "n"), rows in the order of the configuration.
    """
    grouped = results.groupby("row", sort=False)[list(measures)]
    parts = {"mean": grouped.mean(), "s.e.": grouped.sem(), "n": grouped.count()}
    order = [(m, part) for m in measures for part in parts]
    return pandas.concat(parts, axis=1).swaplevel(axis=1)[order]


def differences(
    results: pandas.DataFrame,
    measure: str,
    first: Sequence[str],
    second: Sequence[str],
    confidence: float = 0.95,
) -> dict[str, float]:
    """Mean over pictures of (mean of rows `first`) - (mean of rows `second`), with its interval.

    d_i: the difference on picture i. mean d +- t_(n-1) * sd(d) / sqrt(n), Student's t: paired, so
    what makes a picture easy or hard for every method cancels. Pictures without a value in one of
    the rows are left out. Returns difference, low, high, n; NaN limits for fewer than 2 pictures.
    """
    wide = results.pivot(index="picture", columns="row", values=measure)
    d = wide[list(first)].mean(axis=1, skipna=False) - wide[list(second)].mean(axis=1, skipna=False)
    d = d.dropna().to_numpy()
    n, mean = len(d), float(np.mean(d)) if len(d) else math.nan
    half = math.nan
    if n > 1:
        half = float(t.ppf((1 + confidence) / 2, n - 1)) * float(np.std(d, ddof=1)) / math.sqrt(n)
    return {"difference": mean, "low": mean - half, "high": mean + half, "n": n}


def claims(results: pandas.DataFrame, config: Config) -> pandas.DataFrame:
    """Each claim of the paper beside what is measured here: the verdict, and what it rests on.

    "cannot be tested here": fewer than two pictures have it. "holds": the whole 95 % interval of
    the paired difference is on the claimed side; "does not hold here": on the other; "not told
    apart": 0 is inside.
    """
    found = []
    for claim in config.claims:
        measure = claim["measure"]
        d = differences(results, measure, claim["better"], claim["worse"])
        sign = -1 if DIRECTIONS[measure] == "lower" else 1
        low, high = sorted((sign * d["low"], sign * d["high"]))
        verdict = "holds" if low > 0 else "does not hold here" if high < 0 else "not told apart"
        verdict = verdict if d["n"] > 1 else "cannot be tested here"
        found.append({"claim": claim["says"], "measure": measure, **d, "verdict": verdict})
    return pandas.DataFrame(found)


def text(results: pandas.DataFrame, config: Config) -> str:
    """The table as it is printed: means and errors; the paper's numbers where a row has them."""
    table, pictures = summary(results, config.measures), results["picture"].nunique()
    heads, lines = [""], []
    for measure in config.measures:
        heads += [measure, "printed"] if _has(config, measure) else [measure]
    for row in config.rows:
        cells = [row]
        for measure in config.measures:
            cells.append(_cell(*table.loc[row, measure][["mean", "s.e.", "n"]], pictures))
            if _has(config, measure):
                cells.append(f"{config.printed[row].get(measure, '')}")
        lines.append(cells)
    widths = [max(len(line[i]) for line in [heads, *lines]) for i in range(len(heads))]
    shown = [
        line[0].ljust(widths[0])
        + "".join("  " + c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))
        for line in [heads, *lines]
    ]
    for side in ("lower", "higher"):
        names = [m for m in config.measures if DIRECTIONS.get(m) == side]
        shown += [f"{side} is better: {', '.join(names)}"] if names else []
    return "\n".join(line.rstrip() for line in shown)


def _has(config: Config, measure: str) -> bool:
    return any(measure in row for row in config.printed.values())


def _cell(mean: float, error: float, n: int, pictures: int) -> str:
    if not n:
        return "-"
    size = error if error > 0 else abs(mean) / 10
    digits = min(max(1 - math.floor(math.log10(size)), 1), 6) if size > 0 else 3
    shown = f"{mean:.{digits}f}"  # two digits of the error say enough
    shown += f" +- {error:.{digits}f}" if error == error else ""
    return shown + (f" (n {n})" if n < pictures else "")
