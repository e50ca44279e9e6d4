"""From results to tables: means with standard errors, paired differences, the printed numbers."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas
from scipy.stats import t

from tutorial_lib.reproduce.config import Config
from tutorial_lib.reproduce.measures import DIRECTIONS, printed_name

NO_NETWORK = ("any", "none")  # of printed numbers: they hold for every network, or need none


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
    power: float = 0.8,
) -> dict[str, float]:
    """Compute how much two groups of rows differ, as a mean over pictures with its interval.

        d_i = (mean of the rows `first`) - (mean of the rows `second`)  on picture i
        s = sd(d) / sqrt(n),    interval = mean d +- t s,    detectable = (t + t') s

    t is the quantile of Student's distribution with n - 1 degrees of freedom at
    (1 + confidence) / 2, t' that at `power`. The comparison is paired, so that what makes a picture
    easy or hard for every method cancels. Pictures without a value in one of the rows are left out.

    `detectable` is the smallest true difference that such a run shows with probability `power`. It
    is shown where the whole interval is on its side, mean d > t s. For a true difference D, (mean d
    - D) / s follows Student's distribution, so that this happens with probability P(T > t - D / s).
    That is `power` where t - D / s = -t', which is D = (t + t') s.

    Args:
        results: One line for each picture and row, as results.csv of a run has them.
        measure: Name of a column.
        first: Names of rows.
        second: Names of the rows that are subtracted.
        confidence: Probability that the interval covers the true mean.
        power: Probability that a true difference of size `detectable` is shown.

    Returns:
        A dictionary with "difference", "low", "high", "n", the number of pictures, and
        "detectable". The limits and "detectable" are NaN for fewer than 2 pictures.

    Example:
        >>> import pandas
        >>> from tutorial_lib import reproduce
        >>> columns = {"picture": [*"aabb"], "row": ["IG", "SG"] * 2, "aupc": [3.0, 1.0, 5.0, 2.0]}
        >>> found = reproduce.differences(pandas.DataFrame(columns), "aupc", ["IG"], ["SG"])
        >>> {name: round(number, 2) for name, number in found.items()}
        {'difference': 2.5, 'low': -3.85, 'high': 8.85, 'n': 2, 'detectable': 7.04}
    """
    wide = results.pivot(index="picture", columns="row", values=measure)
    d = wide[list(first)].mean(axis=1, skipna=False) - wide[list(second)].mean(axis=1, skipna=False)
    d = d.dropna().to_numpy()
    n, mean = len(d), float(np.mean(d)) if len(d) else math.nan
    half = detectable = math.nan
    if n > 1:
        error = float(np.std(d, ddof=1)) / math.sqrt(n)
        half = float(t.ppf((1 + confidence) / 2, n - 1)) * error
        detectable = half + float(t.ppf(power, n - 1)) * error
    limits = {"low": mean - half, "high": mean + half}
    return {"difference": mean, **limits, "n": n, "detectable": detectable}


def beside(results: pandas.DataFrame, config: Config) -> pandas.DataFrame:
    """Put the means that are measured here beside the numbers that the paper prints.

    Levels are those of other networks and pictures: `rank_agreement` compares the orders.

    Args:
        results: One line for each picture and row, as results.csv of a run has them.
        config: The configuration of the run.

    Returns:
        One line for each row of the configuration. The columns are (measure, "here"),
        (measure, "s.e."), (measure, "n") and (measure, network) for each network of the paper. A
        column of the program's way of computing has the same printed numbers as the paper's.

    Example:
        >>> import pandas
        >>> from tutorial_lib import reproduce
        >>> columns = {"picture": ["a", "b"], "row": ["IG, black"] * 2, "aupc": [26.0, 28.0]}
        >>> config = reproduce.load_config("goh-table1")
        >>> table = reproduce.beside(pandas.DataFrame(columns), config)["aupc"]
        >>> table.loc["IG, black"].to_dict()
        {'here': 27.0, 's.e.': 1.0, 'n': 2.0, 'densenet121': 23.63, 'resnet152': 22.87}
    """
    columns, names = {}, list(config.rows)
    for measure in config.measures:
        if measure in results:
            measured = summary(results, [measure])[measure].reindex(names)
            for name, label in {"mean": "here", "s.e.": "s.e.", "n": "n"}.items():
                columns[measure, label] = measured[name]
        for network, numbers in printed(config, measure).items():
            columns[measure, network] = pandas.Series(numbers, dtype=float).reindex(names)
    return pandas.DataFrame(columns, index=names)


def printed(config: Config, measure: str) -> dict[str, dict[str, float]]:
    """Return the paper's numbers for a column, network -> row -> number."""
    name = printed_name(measure)
    return {net: columns[name] for net, columns in config.printed.items() if name in columns}


def text(results: pandas.DataFrame, config: Config) -> str:
    """Write the table as text: means with standard errors, and the paper's numbers beside them.

    A network's name stands above what the paper prints for it. Where a measure is computed in two
    ways, these numbers stand once, beside the second.

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
        >>> options = dict(measures=("aupc",), rows={"IG": {}})
        >>> options |= dict(printed={"resnet152": {"aupc": {"IG": 3.5}}})
        >>> config = replace(reproduce.load_config("goh-table1"), **options)
        >>> print(reproduce.text(pandas.DataFrame(columns), config))
                  aupc  resnet152
        IG  4.0 +- 1.0        3.5
        printed in the paper: resnet152
        lower is better: aupc
    """
    table, pictures = beside(results, config), results["picture"].nunique()
    names = list(config.measures)
    shown, networks = {"": list(config.rows)}, []
    for measure, following in zip(names, [*names[1:], ""], strict=True):
        if (measure, "here") in table:
            cells = table[measure][["here", "s.e.", "n"]].itertuples(index=False)
            shown[measure] = [_cell(*cell, pictures) for cell in cells]
        if printed_name(measure) != printed_name(following):
            for network in printed(config, measure):
                shown[measure, network] = _printed_cells(table[measure, network])
                networks += [network] * (network not in [*networks, *NO_NETWORK])
    lines = [_aligned(*column) for column in shown.items()]
    lines = ["  ".join(cells).rstrip() for cells in zip(*lines, strict=True)]
    lines += [f"printed in the paper: {', '.join(networks)}"] if networks else []
    for side in ("lower", "higher"):
        better = [m for m in names if DIRECTIONS.get(m) == side]
        lines += [f"{side} is better: {', '.join(better)}"] if better else []
    return "\n".join(lines)


def _aligned(name: str | tuple[str, str], cells: list[str]) -> list[str]:
    """Write a header and its cells with one width; names of rows to the left."""
    header = name if isinstance(name, str) else name[1]
    header = "printed" if header in NO_NETWORK else header
    width = max(map(len, [header, *cells]))
    return [c.rjust(width) if header else c.ljust(width) for c in [header, *cells]]


def _printed_cells(numbers: pandas.Series) -> list[str]:
    """Write printed numbers with the digits that the paper has; nothing where it has none."""
    own = [len(repr(float(number)).partition(".")[2]) for number in numbers]
    usual = statistics.mode([d for d, number in zip(own, numbers, strict=True) if number == number])
    pairs = zip(own, numbers, strict=True)
    return ["" if n != n else f"{n:.{max(digits, usual)}f}" for digits, n in pairs]


def _cell(mean: float, error: float, n: int, pictures: int) -> str:
    """Write a mean with its error, to two digits of the error, and n where pictures lack it."""
    if not n > 0:  # NaN where the results lack the whole row
        return "-"
    size = error if error > 0 else abs(mean) / (1000 if error == 0 else 10)
    digits = min(max(1 - math.floor(math.log10(size)), 1), 6) if size > 0 else 3
    shown = f"{mean:.{digits}f}"  # two digits of the error say enough
    shown += (f" +- {error:.{digits}f}" if error else " +- 0") if error == error else ""
    return shown + (f" (n {n})" if n < pictures else "")
