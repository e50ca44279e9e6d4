"""Do two tables put their rows in the same order? Rank correlations, and how sure they are."""

import itertools

import numpy as np
import pandas
from scipy.stats import rankdata

from tutorial_lib.reproduce.config import Config
from tutorial_lib.reproduce.tables import printed

LEAST = 3  # rows; two are in one order or in the other


def rank_agreement(
    results: pandas.DataFrame,
    config: Config,
    *,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> pandas.DataFrame:
    """Compare the order of the rows here with the orders that the paper prints.

        rho = correlation(rank of the means here, rank of the printed numbers)

    This is Spearman's rank correlation, 1 for the same order, -1 for the opposite one; equal
    numbers share the mean of their ranks. The same is computed between each two networks of the
    paper, for comparison: how well do two networks agree in its own table?

    The interval is a bootstrap over pictures: as many pictures are drawn again with replacement,
    means and rho are computed anew, and the quantiles at (1 - confidence) / 2 and
    (1 + confidence) / 2 are taken of all `draws`. Drawing again adds noise to means that have noise
    already, so the drawn rho are nearer to 0 than rho itself. Printed numbers come without their
    pictures, so that nothing is known of the error in them.

    Args:
        results: One line for each picture and row, as results.csv of a run has them. Pictures
            without a value in one of the compared rows are left out.
        config: The configuration of the run.
        confidence: Probability that the interval covers.
        draws: How often pictures are drawn again.
        seed: Seed of these draws.

    Returns:
        One line for each measure and each printed network, and for each pair of them: columns
        "measure", "printed" (the network), "with" ("here" or the other network), "rho", "low",
        "high", "rows" and "pictures". "low" and "high" are NaN for a pair of printed networks and
        for fewer than two pictures. Measures with fewer than three printed rows are left out.

    Example:
        >>> import pandas
        >>> from tutorial_lib import reproduce
        >>> rows, values = ["Grad", "SG", "AG"] * 2, [0.52, 0.50, 0.55, 0.54, 0.53, 0.52]
        >>> columns = {"picture": [*"aaabbb"], "row": rows, "sparseness": values}
        >>> config = reproduce.load_config("zhou-table2")
        >>> found = reproduce.rank_agreement(pandas.DataFrame(columns), config)
        >>> print(found[["measure", "printed", "with", "rho"]].round(2).head(4).to_string())
              measure       printed          with   rho
        0  sparseness         vgg16          here  1.00
        1  sparseness  inception_v3          here  1.00
        2  sparseness      resnet50          here  1.00
        3  sparseness         vgg16  inception_v3  0.84
    """
    rng = np.random.default_rng(seed)
    lines = []
    for measure in config.measures:
        networks = {net: pandas.Series(n) for net, n in printed(config, measure).items()}
        for network, numbers in networks.items():
            line = {"measure": measure, "printed": network, "with": "here"}
            line |= _with_measured(results, measure, numbers, confidence, draws, rng)
            lines += [line] if line["rows"] >= LEAST else []
        for (one, first), (other, second) in itertools.combinations(networks.items(), 2):
            shared = [row for row in first.index if row in second.index]
            rho = float(_rho(first[shared].to_numpy(), second[shared].to_numpy()))
            line = {"measure": measure, "printed": one, "with": other, "rho": rho}
            line |= {"low": np.nan, "high": np.nan, "rows": len(shared), "pictures": 0}
            lines += [line] if len(shared) >= LEAST else []
    columns = ["measure", "printed", "with", "rho", "low", "high", "rows", "pictures"]
    return pandas.DataFrame(lines, columns=columns)


def _with_measured(
    results: pandas.DataFrame,
    measure: str,
    numbers: pandas.Series,
    confidence: float,
    draws: int,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Return rho of the measured means with printed numbers, its interval and the counts."""
    wide = pandas.DataFrame()
    if measure in results:
        wide = results.pivot(index="picture", columns="row", values=measure)
    rows = [row for row in numbers.index if row in wide]
    values, wanted = wide[rows].dropna().to_numpy(), numbers[rows].to_numpy()  # (pictures, rows)
    found = {"rho": np.nan, "low": np.nan, "high": np.nan}
    pictures = len(values)
    if pictures and len(rows) >= LEAST:
        found["rho"] = float(_rho(values.mean(axis=0), wanted))
    if pictures > 1 and found["rho"] == found["rho"]:
        again = rng.multinomial(pictures, np.full(pictures, 1 / pictures), size=draws)
        rhos = _rho(again @ values / pictures, wanted)  # (draws,)
        sides = [(1 - confidence) / 2, (1 + confidence) / 2]
        found["low"], found["high"] = (float(v) for v in np.nanquantile(rhos, sides))
    return found | {"rows": len(rows), "pictures": pictures}


def _rho(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute Spearman's rank correlation along the last axis; NaN where one is constant."""
    ranks = [rankdata(values, axis=-1) for values in (first, second)]
    a, b = (r - r.mean(axis=-1, keepdims=True) for r in ranks)
    size = np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))
    with np.errstate(invalid="ignore"):
        return (a * b).sum(axis=-1) / size
