"""What a table costs, counted in passes through the network, by the paper's conventions.

The training of small networks for digits is not counted.
"""

import pandas

from tutorial_lib.reproduce.cases import WINDOWS
from tutorial_lib.reproduce.config import Config
from tutorial_lib.reproduce.measures import OF_INPUT_NOISE, function_of
from tutorial_lib.reproduce.rows import SEARCH


def gradients(row: dict) -> int:
    """Count the gradients of one map."""
    method, inner = row["method"], row.get("inner")
    if method == SEARCH:
        # At most: all iterations look on both sides.
        roots, evaluations = row.get("search_roots", 150), 2 * row.get("max_iterations", 20) + 1
        return roots * evaluations + row.get("roots", 150)
    counts = {
        "integrated_gradients": row.get("steps", 50) * row.get("baselines", 1),
        "smoothgrad": row.get("samples", 50),
        "adaptgrad": row.get("samples", 50),
        "smooth_taylor": row.get("roots", 150),
        "noisegrad": row.get("weight_samples", 10),
        "fusiongrad": row.get("samples", 10) * row.get("weight_samples", 10),
    }
    count = counts.get(method, 1)
    return count * gradients({**row, "method": inner, "inner": None}) if inner else count


def passes(config: Config) -> pandas.DataFrame:
    """Count the gradients and forward passes for one picture, row by row, with the sum below.

    Forward passes are those of the perturbation curve and of the information curve; a search by
    AUPC makes them at each evaluation.

    Args:
        config: The configuration of a table or figure.

    Returns:
        One line for each row, with columns "gradients" and "forward passes", and a last line "a
        picture" with their sums.

    Example:
        >>> from tutorial_lib import reproduce
        >>> from tutorial_lib.reproduce.cost import passes
        >>> int(passes(reproduce.load_config("goh-table1")).loc["IG, black", "gradients"])
        50
    """
    used = {function_of(column) for column in config.measures}
    functions = {function.__name__ for function in used}
    curve = WINDOWS * config.settings.get("perturbations", 50) + 1
    per_map = curve * ("perturbation" in functions) + 8 * ("information" in functions)
    needed = used - set(OF_INPUT_NOISE) or config.kind == "maps"
    digit_networks = 1 + ("consistency" in functions) + 2 * ("invariance" in functions)
    networks = digit_networks if config.data == "digits" else 1
    costs = {}
    for name, row in config.rows.items():
        search = row["method"] == SEARCH and row["objective"] == "aupc"
        extra = curve * (2 * row.get("max_iterations", 20) + 1) if search else 0
        costs[name] = {
            "gradients": networks * gradients(row) if needed else 0,
            "forward passes": per_map + extra,
        }
    table = pandas.DataFrame.from_dict(costs, orient="index")
    table.loc["a picture"] = table.sum()
    return table
