"""Sums for the integral of Integrated Gradients: nodes on [0, 1] and their weights."""

import numpy as np

from tutorial_lib import checks

RULES = ("right", "left", "midpoint", "trapezoid", "gauss-legendre")


def quadrature(rule: str, steps: int) -> tuple[list[float], list[float]]:
    """Return nodes on [0, 1] and their weights, which sum to 1, for n intervals.

    With k = 1, ..., n the rules are:

    - "right": nodes k / n, weights 1 / n;
    - "left": nodes (k - 1) / n, weights 1 / n;
    - "midpoint": nodes (k - 1/2) / n, weights 1 / n;
    - "trapezoid": both ends and the points between, n + 1 nodes, the ends at half weight;
    - "gauss-legendre": n nodes, exact for polynomials of degree 2n - 1.

    Args:
        rule: One of the names above.
        steps: n, from 1 to 1,000,000; for "gauss-legendre" 1000 at most.

    Returns:
        A list of nodes and a list of weights, equally long.

    Raises:
        TypeError: steps is not an int.
        ValueError: rule is not one of the names, or steps is outside its range.

    Example:
        >>> tl.probes.quadrature("midpoint", 2)
        ([0.25, 0.75], [0.5, 0.5])
        >>> tl.probes.quadrature("trapezoid", 2)
        ([0.0, 0.5, 1.0], [0.25, 0.5, 0.25])
    """
    checks.choice("rule", rule, RULES)
    n = checks.count("steps", steps, most=1000 if rule == "gauss-legendre" else 1_000_000)
    k = np.arange(1, n + 1)
    if rule == "gauss-legendre":
        nodes, weights = np.polynomial.legendre.leggauss(n)  # on [-1, 1], where weights sum to 2
        return ((nodes + 1) / 2).tolist(), (weights / 2).tolist()
    if rule == "trapezoid":
        weights = np.full(n + 1, 1 / n)
        weights[[0, -1]] /= 2
        return (np.arange(n + 1) / n).tolist(), weights.tolist()
    shift = {"right": 0.0, "left": 1.0, "midpoint": 0.5}[rule]
    return ((k - shift) / n).tolist(), [1 / n] * n
