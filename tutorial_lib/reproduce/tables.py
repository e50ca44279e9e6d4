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
    """Read results.csv of a run, one line for each picture and row.

    Args:
        folder: The folder that `run` returned.

    Returns:
        Columns "picture", "row", "target", "score", the measures, and "note".

    Raises:
        FileNotFoundError: The run is not finished.
    """
    path = Path(folder) / "results.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: the run is not finished; start it again")
    return pandas.read_csv(
        path, keep_default_na=False, na_values=[""], dtype={"picture": str, "row": str, "note": str}
    )


def summary(results: pandas.DataFrame, measures: Sequence[str]) -> pandas.DataFrame:
    """Compute the mean over pictures, its standard error and the number of pictures.

        s.e. = standard deviation / sqrt(pictures)

    It is NaN for one picture. Empty cells are left out.

    Args:
        results: One line for each picture and row, as results.csv of a run has them.
        measures: Names of columns.

    Returns:
        One line for each row, in the order of the configuration. The columns are
        (measure, "mean"), (measure, "s.e.") and (measure, "n") for each measure.

    Example:
        >>> import pandas
        >>> from tutorial_lib import reproduce
        >>> columns = {"picture": ["a", "b"], "row": ["IG", "IG"], "aupc": [3.0, 5.0]}
        >>> reproduce.summary(pandas.DataFrame(columns), ["aupc"]).loc["IG"].tolist()
        [4.0, 1.0, 2.0]
    """
    grouped = results.groupby("row", sort=False)[list(measures)]
    statistics = {"mean": grouped.mean(), "s.e.": grouped.sem(), "n": grouped.count()}
    order = [(measure, name) for measure in measures for name in statistics]
    return pandas.concat(statistics, axis=1).swaplevel(axis=1)[order]


def differences(
    results: pandas.DataFrame,
    measure: str,
    first: Sequence[str],
    second: Sequence[str],
    confidence: float = 0.95,
) -> dict[str, float]:
    """Compute how much two groups of rows differ, as a mean over pictures with its interval.

        d_i = (mean of the rows `first`) - (mean of the rows `second`)  on picture i
        mean d +- t_(n-1) * sd(d) / sqrt(n)

    t is Student's. The comparison is paired, so that what makes a picture easy or hard for every
    method cancels. Pictures without a value in one of the rows are left out.

    Args:
        results: One line for each picture and row, as results.csv of a run has them.
        measure: Name of a column.
        first: Names of rows.
        second: Names of the rows that are subtracted.
        confidence: Probability that the interval covers the true mean.

    Returns:
        A dictionary with "difference", "low", "high" and "n", the number of pictures. The limits
        are NaN for fewer than 2 pictures.

    Example:
        >>> import pandas
        >>> from tutorial_lib import reproduce
        >>> columns = {"picture": [*"aabb"], "row": ["IG", "SG"] * 2, "aupc": [3.0, 1.0, 5.0, 2.0]}
        >>> reproduce.differences(pandas.DataFrame(columns), "aupc", ["IG"], ["SG"])
        {'difference': 2.5, 'low': -3.85, 'high': 8.85, 'n': 2}
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
    """Compare each claim of the paper with what is measured here.

    The verdict is one of these:

    - "cannot be tested here": fewer than two pictures have the measure.
    - "holds": the whole 95 % interval of the paired difference is on the claimed side.
    - "does not hold here": the whole interval is on the other side.
    - "not told apart": 0 is inside the interval.

    Args:
        results: One line for each picture and row, as results.csv of a run has them.
        config: The configuration of the run.

    Returns:
        One line for each claim, with columns "claim", "measure", those of `differences`, and
        "verdict".

    Example:
        >>> import pandas
        >>> from dataclasses import replace
        >>> from tutorial_lib import reproduce
        >>> columns = {"picture": [*"aabb"], "row": ["IG", "SG"] * 2, "aupc": [3.0, 1.0, 5.0, 2.9]}
        >>> claim = {"says": "SG is better", "measure": "aupc", "better": ["SG"], "worse": ["IG"]}
        >>> config = replace(reproduce.load_config("goh-table1"), claims=(claim,))
        >>> reproduce.claims(pandas.DataFrame(columns), config)["verdict"].tolist()
        ['holds']
    """
    verdicts = []
    for claim in config.claims:
        measure = claim["measure"]
        d = differences(results, measure, claim["better"], claim["worse"])
        sign = -1 if DIRECTIONS[measure] == "lower" else 1
        low, high = sorted((sign * d["low"], sign * d["high"]))
        verdict = "holds" if low > 0 else "does not hold here" if high < 0 else "not told apart"
        verdict = verdict if d["n"] > 1 else "cannot be tested here"
        verdicts.append({"claim": claim["says"], "measure": measure, **d, "verdict": verdict})
    return pandas.DataFrame(verdicts)


def text(results: pandas.DataFrame, config: Config) -> str:
    """Write the table as text: means with standard errors, and the paper's numbers beside them.

    Args:
        results: One line for each picture and row, as results.csv of a run has them.
        config: The configuration of the run.

    Returns:
        The lines of the table, and below them which side is better.

    Example:
        >>> import pandas
        >>> from dataclasses import replace
        >>> from tutorial_lib import reproduce
        >>> columns = {"picture": ["a", "b"], "row": ["IG", "IG"], "aupc": [3.0, 5.0]}
        >>> options = dict(measures=("aupc",), rows={"IG": {}}, printed={"IG": {"aupc": 3.5}})
        >>> config = replace(reproduce.load_config("goh-table1"), **options)
        >>> print(reproduce.text(pandas.DataFrame(columns), config))
                  aupc  printed
        IG  4.0 +- 1.0      3.5
        lower is better: aupc
    """
    table, pictures = summary(results, config.measures), results["picture"].nunique()
    header, lines = [""], []
    for measure in config.measures:
        header += [measure, "printed"] if _has_printed(config, measure) else [measure]
    for row in config.rows:
        cells = [row]
        for measure in config.measures:
            cells.append(_cell(*table.loc[row, measure][["mean", "s.e.", "n"]], pictures))
            if _has_printed(config, measure):
                cells.append(f"{config.printed[row].get(measure, '')}")
        lines.append(cells)
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]
    shown = [
        line[0].ljust(widths[0])
        + "".join("  " + c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))
        for line in [header, *lines]
    ]
    for side in ("lower", "higher"):
        names = [m for m in config.measures if DIRECTIONS.get(m) == side]
        shown += [f"{side} is better: {', '.join(names)}"] if names else []
    return "\n".join(line.rstrip() for line in shown)


def _has_printed(config: Config, measure: str) -> bool:
    """Say whether the paper has numbers for a measure."""
    return any(measure in row for row in config.printed.values())


def _cell(mean: float, error: float, n: int, pictures: int) -> str:
    """Write a mean with its error, to two digits of the error, and n where pictures lack it."""
    if not n:
        return "-"
    size = error if error > 0 else abs(mean) / 10
    digits = min(max(1 - math.floor(math.log10(size)), 1), 6) if size > 0 else 3
    shown = f"{mean:.{digits}f}"  # two digits of the error say enough
    shown += f" +- {error:.{digits}f}" if error == error else ""
    return shown + (f" (n {n})" if n < pictures else "")
