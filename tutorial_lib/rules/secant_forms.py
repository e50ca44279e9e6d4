"""Steps between two inputs as linear steps: their output's difference from those of their values.

The words: a *step* is one operation of the forward pass, and a *linear form* of it gives its output
as a sum of values times coefficients (see `linear_steps.py`). A product, a softmax or a norm has no
such form at one input. Between two, z and z0, it has: with D z = z - z0 and m(z) = (z + z0) / 2,

    a b        D (a b) = m(b) D a + m(a) D b
    a / b      D (a / b) = (D a - m(a / b) D b) / m(b), as a is the product of a / b and b
    exp z      D (exp z) = k D z, with k the quotient of the two

and what is made of these follows by the chain rule. All hold exactly, whatever the distance. For
softmax and norms the quotient is better than a product with 1 / b, whose coefficients are large
where b is small at one of the inputs, as the deviation of a constant baseline is.
"""

import torch
from torch import Tensor

from tutorial_lib.rules.linear_steps import SOFTMAX, LinearForm
from tutorial_lib.rules.tape import Step
from tutorial_lib.rules.transformer_steps import norm_of, product_of, softmax_dim


def secant_form(
    step: Step, values: list[Tensor], baseline: list[Tensor], reciprocal: list[bool]
) -> LinearForm | None:
    """Return the linear form of a step between two runs; None if it has none here.

    Args:
        step: A step without a linear form of its own.
        values: The values that it reads in the one run.
        baseline: Those that it reads in the other.
        reciprocal: For each value whether it is 1 over another, so that a product is a quotient.
    """
    pairs = list(zip(values, baseline, strict=True))
    if step.name == "mul" and len(pairs) == 2 and reciprocal[0] != reciprocal[1]:
        if reciprocal[1]:
            return _weighted_sum(*_times_reciprocal(*pairs))
        return _weighted_sum(*_times_reciprocal(*pairs[::-1])[::-1])
    if product_of(step):
        return _product(step, *pairs)
    if step.name == "div" and len(pairs) == 1 and not step.args[1]:
        return _constant_over(step, *pairs[0])
    if step.name in SOFTMAX:
        return _softmax(step, *pairs[0])
    if step.name in ("_log_softmax", "logsumexp"):
        return _log_softmax(step, *pairs[0])
    if step.name in ("var", "std", "linalg_vector_norm"):
        return _spread(step, *pairs[0])
    return _norm(step, *pairs[0])


def _product(step: Step, a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> LinearForm:
    """A product of two values, entry by entry or of matrices, or a quotient of two."""
    product, mean_a, mean_b = product_of(step), sum(a) / 2, sum(b) / 2
    if step.name == "div":
        return _weighted_sum(*_quotient(a, b))
    return LinearForm(lambda c, p, q: product(p, c[0]) + product(c[1], q), (mean_b, mean_a))


def _quotient(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The coefficients of D a and D b in D (a / b); those of a (1 / b) where b changes its sign."""
    same_sign = b[0] * b[1] > 0
    mean_b = torch.where(same_sign, sum(b) / 2, 1)
    first = torch.where(same_sign, 1 / mean_b, (1 / b[0] + 1 / b[1]) / 2)
    second = (a[0] / b[0] + a[1] / b[1]) / 2 / mean_b
    return first, -torch.where(same_sign, second, sum(a) / 2 / (b[0] * b[1]))


def _times_reciprocal(a: tuple[Tensor, Tensor], r: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The coefficients of D a and D r in D (a r), of a over b = 1 / r: D b = - D r / (r r0)."""
    first, second = _quotient(a, (1 / r[0], 1 / r[1]))
    return first, -second / (r[0] * r[1])


def _weighted_sum(first: Tensor, second: Tensor) -> LinearForm:
    """Two values, times these coefficients, added up."""
    return LinearForm(lambda c, p, q: p * c[0] + q * c[1], (first, second))


def _constant_over(step: Step, b: Tensor, b0: Tensor) -> LinearForm:
    """A constant over a value."""
    return LinearForm(lambda c, q: q * c[0], (-step.argument(0) / (b * b0),))


def _softmax(step: Step, z: Tensor, z0: Tensor) -> LinearForm:
    """Softmax s = e / S: D s_i = w_i D z_i - m(s_i) sum_j w_j D z_j, with w = k / m(S)."""
    dim = softmax_dim(step)
    weights, _ = _exponentials(z, z0, dim)
    mean = (z.softmax(dim) + z0.softmax(dim)) / 2

    def call(c: list, v: Tensor) -> Tensor:
        return c[0] * v + c[1] * (c[0] * v).sum(dim, keepdim=True)

    return LinearForm(call, (weights, -mean))


def _log_softmax(step: Step, z: Tensor, z0: Tensor) -> LinearForm | None:
    """log_softmax z = z - log S, and log S alone, whose D is its rate times sum_j w_j D z_j."""
    if step.name == "logsumexp":
        dims, keep = step.argument(1), bool(step.argument(2))
        if len(dims) != 1:
            return None
        weights, rate = _exponentials(z, z0, dims[0])
        return LinearForm(lambda c, v: (c[0] * v).sum(dims, keepdim=keep), (weights * rate,))
    dim = softmax_dim(step)
    weights, rate = _exponentials(z, z0, dim)
    return LinearForm(lambda c, v: v + (c[0] * v).sum(dim, keepdim=True), (-weights * rate,))


def _exponentials(z: Tensor, z0: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """w = D e / D z / m(S) for e = exp(z - shift) with the sum S, and m(S) D log S / D S.

    A common shift of z and z0 changes neither. Here it makes the larger of S and S0 1.
    """
    total, total0 = z.logsumexp(dim, keepdim=True), z0.logsumexp(dim, keepdim=True)
    shift, h = torch.maximum(total, total0), (total - total0).abs()
    e, e0, d = (z - shift).exp(), (z0 - shift).exp(), z - z0
    rise = torch.where(d.abs() < 1, e0 * torch.expm1(d), e - e0)  # the first keeps its digits
    k = torch.where(d == 0, e, rise / torch.where(d == 0, 1, d))
    mean = (1 + (-h).exp()) / 2  # m(S)
    rate = torch.where(h == 0, 1, mean * h / torch.where(h == 0, 1, -torch.expm1(-h)))
    return (k / mean).nan_to_num(0, 0, 0), rate  # where both are -inf, behind a mask, w is 0


def _norm(step: Step, z: Tensor, z0: Tensor) -> LinearForm | None:
    """A norm y = c / s, centred values over the deviation: D y = (D c - m(y) D s) / m(s).

    The mean square v of c has D v = mean of 2 m(c) D c, and its root has D s = D v / (s + s0).
    """
    norm = norm_of(step, z)
    if norm is None:
        return None
    c, c0, s, s0 = norm.centre(z), norm.centre(z0), 1 / norm.rate(z), 1 / norm.rate(z0)
    scale = 2 * norm.weight / (s + s0)  # weight / m(s)
    coefficients = scale, -scale * (c / s + c0 / s0) / 2, (c + c0) / (s + s0)

    def call(c: tuple, v: Tensor) -> Tensor:
        return c[0] * v + c[1] * norm.mean(c[2] * v)

    return norm.form(call, coefficients)


def _spread(step: Step, z: Tensor, z0: Tensor) -> LinearForm | None:
    """Variance, deviation and the length of vectors: the sum of squares, and its root."""
    options = step.args[1]
    length = step.name == "linalg_vector_norm"
    if length and step.argument(1) not in (None, 2):
        return None
    dims = step.argument(2 if length else 1)
    dims = dims or tuple(range(z.ndim))
    keep = step.argument(3) if length else options.get("keepdim", step.argument(3))
    mean = lambda v: 0 if length else v.mean(dims, keepdim=True)  # noqa: E731
    centred = (z - mean(z) + z0 - mean(z0)) / 2
    count = 1.0 if length else _degrees(step, z, dims)
    weights = 2 * centred / count  # of D z in D variance; they sum to 0 over the dims
    if step.name != "var":
        both = step(z) + step(z0)
        both = both if keep else _unsqueezed(both, z, dims)
        weights = weights / torch.where(both == 0, 1, both)
    return LinearForm(lambda c, v: (c[0] * v).sum(dims, keepdim=bool(keep)), (weights,))


def _degrees(step: Step, z: Tensor, dims: tuple[int, ...]) -> float:
    """The number that the sum of squares is divided by, in a variance."""
    count = 1
    for dim in dims:
        count *= z.shape[dim]
    correction = step.args[1].get("correction", 1)
    return count - (1 if correction is None else correction)


def _unsqueezed(v: Tensor, z: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Numbers that have lost dimensions of z, with those of length 1 in their place."""
    lost = {d % z.ndim for d in dims}
    return v.reshape([1 if d in lost else n for d, n in enumerate(z.shape)])
