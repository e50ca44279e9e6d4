"""The papers' claims, judged by what is measured and by what the papers print themselves."""

import math

import pandas

from tutorial_lib.reproduce.config import Config
from tutorial_lib.reproduce.measures import DIRECTIONS
from tutorial_lib.reproduce.tables import NO_NETWORK, differences, printed


def claims(results: pandas.DataFrame, config: Config) -> pandas.DataFrame:
    """Compare each claim of the paper with what is measured here, and with what the paper prints.

    A claim of an order says that the rows `better` are better than the rows `worse`, as means over
    each list. With d = better - worse on each picture, its verdict is one of these:

    - "holds": the whole 95 % interval of the mean of d is on the claimed side.
    - "does not hold here": the whole interval is on the other side.
    - "not told apart": 0 is inside the interval.

    A claim of an equivalence says that the rows `equivalent` are like the rows `to` up to a margin:

        d = equivalent - to,    Delta = margin * |mean of `to`|

    - "holds": the whole 95 % interval of the mean of d is inside (-Delta, Delta). This is stricter
      than two one-sided tests at 5 %, which ask it of the 90 % interval.
    - "does not hold here": the whole interval is outside.
    - "undecided": the interval holds Delta or -Delta.

    Either is "cannot be tested here" where fewer than two pictures have the measure in all rows.

    Args:
        results: One line for each picture and row, as results.csv of a run has them.
        config: The configuration of the run.

    Returns:
        One line for each claim. The columns are "claim", "quote" and "where" (the paper's words and
        their place, or nothing), "measure", those of `differences`, "margin" (Delta, or NaN for a
        claim of an order), "verdict" and "printed": for each network of the paper, whether its own
        numbers agree with the claim, such as "densenet121: yes, resnet152: no". For an equivalence
        compare "detectable" with "margin": if they are equal, a difference that is truly 0 is shown
        to be inside in 60 % of such runs.

    Example:
        >>> import pandas
        >>> from tutorial_lib import reproduce
        >>> rows = ["Grad", "SG", "AG"] * 3
        >>> values = [0.700, 0.705, 0.701, 0.600, 0.704, 0.601, 0.650, 0.700, 0.652]
        >>> columns = {"picture": [*"aaabbbccc"], "row": rows, "invariance": values}
        >>> config = reproduce.load_config("zhou-table1")
        >>> found = reproduce.claims(pandas.DataFrame(columns), config)
        >>> found.loc[found["measure"] == "invariance", ["claim", "verdict"]].values.tolist()
        [['SmoothGrad has the invariance of the gradient', 'undecided'],
         ['AdaptGrad has the invariance of the gradient', 'holds']]
    """
    return pandas.DataFrame([_judged(results, config, claim) for claim in config.claims])


def _judged(results: pandas.DataFrame, config: Config, claim: dict) -> dict:
    """Return the line of one claim."""
    measure = claim["measure"]
    first, second = _groups(claim)
    there = measure in results and {*first, *second} <= set(results["row"])
    nothing = dict.fromkeys(("difference", "low", "high"), math.nan)
    d = nothing | {"n": 0, "detectable": math.nan}
    margin = math.nan
    if there:
        d = differences(results, measure, first, second)
        if "margin" in claim:
            level = results[results["row"].isin(second)].groupby("row")[measure].mean().mean()
            margin = claim["margin"] * abs(float(level))
    return {
        "claim": claim["says"],
        **{name: claim.get(name, "") for name in ("quote", "where")},
        "measure": measure,
        **d,
        "margin": margin,
        "verdict": _verdict(measure, d, margin),
        "printed": printed_verdicts(config, claim),
    }


def _groups(claim: dict) -> tuple[list[str], list[str]]:
    """Return the two lists of rows of a claim."""
    first, second = ("equivalent", "to") if "margin" in claim else ("better", "worse")
    return claim[first], claim[second]


def _verdict(measure: str, d: dict, margin: float) -> str:
    """Say what the interval of a difference tells; without a margin it is a claim of an order."""
    if d["n"] < 2:
        return "cannot be tested here"
    if margin == margin:
        if max(-d["low"], d["high"]) < margin:
            return "holds"
        return "does not hold here" if d["low"] > margin or d["high"] < -margin else "undecided"
    sign = -1 if DIRECTIONS[measure] == "lower" else 1
    low, high = sorted((sign * d["low"], sign * d["high"]))
    return "holds" if low > 0 else "does not hold here" if high < 0 else "not told apart"


def printed_verdicts(config: Config, claim: dict) -> str:
    """Say for each network that has all numbers whether the paper's own agree with a claim."""
    found = []
    for network, numbers in printed(config, claim["measure"]).items():
        groups = _groups(claim)
        if not {row for group in groups for row in group} <= numbers.keys():
            continue
        first, second = (math.fsum(numbers[row] for row in group) / len(group) for group in groups)
        if "margin" in claim:
            agrees = abs(first - second) < claim["margin"] * abs(second)
        else:
            sign = -1 if DIRECTIONS[claim["measure"]] == "lower" else 1
            agrees = sign * (first - second) > 1e-9  # what is printed as equal is no order
        name = "" if network in NO_NETWORK else f"{network}: "
        found.append(name + ("yes" if agrees else "no"))
    return ", ".join(found)
