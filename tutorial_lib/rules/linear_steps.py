"""The linear operations: how a step makes its output from values and coefficients.

A step is linear if its output is a sum of values times coefficients that do not depend on them
(and a constant). Rules that treat positive and negative coefficients apart, in DeepLIFT and LRP,
need the coefficients in the open; this file finds them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tutorial_lib.rules.tape import Slot, Step, pulled

aten = torch.ops.aten
# Each output is one input value, or a sum or mean of some: all coefficients are positive.
SELECTIONS = set(
    "_to_copy _unsafe_view alias cat clone constant_pad_nd expand flip permute repeat roll select "
    "slice split split_with_sizes squeeze stack t transpose unbind unsafe_split unsqueeze "
    "view".split()
)
SUMS = set(
    "_adaptive_avg_pool2d _adaptive_avg_pool3d avg_pool2d avg_pool3d mean sum upsample_bilinear2d "
    "upsample_nearest2d".split()
)
SHAPES = {"_unsafe_view", "expand", "repeat", "view"}  # selections with sizes among their arguments
# Applied entry by entry.
ACTIVATIONS = set(
    "_prelu_kernel abs celu clamp clamp_max clamp_min elu erf exp gelu hardsigmoid hardswish "
    "hardtanh leaky_relu log log1p log_sigmoid_forward maximum minimum mish pow reciprocal relu "
    "rsqrt sigmoid silu softplus sqrt square tanh threshold".split()
)
DENSE = {"addmm", "mm", "bmm"}
BATCH_NORMS = set(
    "_native_batch_norm_legit cudnn_batch_norm miopen_batch_norm native_batch_norm".split()
)


@dataclass(frozen=True)
class Linear:
    """A linear step without its constant: out = call(coefficients, *values).

    mixes: whether it is a dense layer or a convolution, which weigh and add units; the others
    pass on, scale or add values as they are. transposed: the transpose, called with coefficients,
    value and up, where it is at hand; autograd finds the others.
    """

    call: Callable[..., Tensor]
    coefficients: tuple[Tensor, ...] = ()
    mixes: bool = False
    transposed: Callable[..., Tensor] | None = None

    def part(self, change: Callable[[Tensor], Tensor] | None = None) -> Callable[..., Tensor]:
        """The step with changed coefficients, as a function of the values."""
        changed = self._changed(change)
        return lambda *values: self.call(changed, *values)

    def back(
        self, values: list[Tensor], up: Tensor, change: Callable | None = None
    ) -> list[Tensor]:
        """The transposed step, from numbers at its output to numbers at its values."""
        if self.transposed:
            return [self.transposed(self._changed(change), values[0], up)]
        return pulled(self.part(change), values, up)

    def _changed(self, change: Callable | None) -> list[Tensor]:
        return [change(c) if change else c for c in self.coefficients]


def linear(step: Step) -> Linear | None:
    """The linear operation in a step, or None where it is no linear one."""
    if step.name == "_to_copy" and not step.args[1].get("dtype", torch.float32).is_floating_point:
        return None  # rounding
    if step.name in SELECTIONS | SUMS:
        return _passing(step)
    return RULES[step.name](step) if step.name in RULES else None


def followed(way: Linear, step: Step, norm: Step) -> Linear | None:
    """A dense layer or convolution with the batch norm (or added constant) behind it, as one."""
    if norm.name == "add":
        return way if len(norm.inputs) == 1 and not norm.args[1] else None
    scaling, (weight,) = linear(norm), way.coefficients
    convolves, transposed = step.name == "convolution", step.fixed(6) is True
    by_columns = step.name in ("addmm", "mm") and isinstance(step.args[0][-2], Slot)
    if scaling is None or transposed or not (convolves or by_columns):
        return None
    (scale,) = scaling.coefficients
    shape = [-1, *[1] * (weight.ndim - 1)] if convolves else [1, -1]
    return replace(way, coefficients=((weight * scale.view(shape)).to(weight.dtype),))


def bias(step: Step, values: list[Tensor]) -> Tensor:
    """The constant of a linear step: what it makes of zeros."""
    return step(*(torch.zeros_like(v) for v in values))


def _passing(step: Step) -> Linear:
    """Constants joined to the values (by cat or padding) become 0."""

    def call(_, *values: Tensor) -> Tensor:
        if step.name == "constant_pad_nd":
            return aten.constant_pad_nd(values[0], step.fixed(1))
        if step.name in ("cat", "stack") and len(step.fixed(0)) > len(values):
            return step(*values) - bias(step, list(values))
        return step(*values)

    return Linear(call)


def _convolution(step: Step) -> Linear | None:
    options = step.args[0][3:]
    if not _is_first(step):
        return None

    def call(c: list, z: Tensor) -> Tensor:
        return aten.convolution(z, c[0], None, *options)

    def transposed(c: list, z: Tensor, up: Tensor) -> Tensor:
        wanted = [True, False, False]  # of the gradients of input, weight and bias
        return aten.convolution_backward(up, z, c[0], None, *options, wanted)[0]

    return Linear(call, (step.fixed(1),), mixes=True, transposed=transposed)


def _product(step: Step) -> Linear | None:
    """addmm(constant, values, weights), mm and bmm with weights on either side."""
    args, options = step.args
    left, right = args[-2:]
    if len(step.inputs) != 1 or (isinstance(args[0], Slot) and step.name == "addmm"):
        return None
    alpha = options.get("alpha", 1)
    if isinstance(left, Slot):
        return Linear(lambda c, z: z @ c[0], (right * alpha,), mixes=True)
    return Linear(lambda c, z: c[0] @ z, (left * alpha,), mixes=True)


def _batch_norm(step: Step) -> Linear | None:
    args = step.args[0]
    weight, mean, var, eps = args[1], args[3], args[4], args[-1]
    if not _is_first(step) or mean is None or args[5] is True:
        return None
    scale = (var + eps).rsqrt() * (1 if weight is None else weight)

    def call(c: tuple, z: Tensor) -> Tensor:
        return z * c[0].view(1, -1, *[1] * (z.ndim - 2)).to(z.dtype)

    return Linear(call, (scale,))


def _sum(step: Step) -> Linear:
    """add, sub and rsub: a + alpha b, where one of the two may be a constant."""
    args, options = step.args
    alpha = options.get("alpha", args[2] if len(args) > 2 else 1)
    second = -alpha if step.name in ("sub", "rsub") else alpha
    factors = (-alpha, 1) if step.name == "rsub" else (1, second)
    used = [f for f, a in zip(factors, args, strict=False) if isinstance(a, Slot)]
    shape = torch.broadcast_shapes(*(a.shape for a in args[:2] if isinstance(a, Tensor)))

    def call(c: tuple, *values: Tensor) -> Tensor:
        out = sum(f * v for f, v in zip(c, values, strict=True))
        return out.expand(torch.broadcast_shapes(out.shape, shape))

    return Linear(call, tuple(map(_number, used)))


def _scaled(step: Step) -> Linear | None:
    """Values times, or divided by, a constant."""
    left, right = step.args[0][0], step.args[0][1] if len(step.args[0]) > 1 else -1
    constant = right if isinstance(left, Slot) else left
    if len(step.inputs) != 1 or step.args[1] or (step.name == "div" and constant is left):
        return None
    factor = constant if isinstance(constant, Tensor) else _number(constant)
    factor = factor if factor.is_floating_point() else factor.float()
    return Linear(lambda c, z: z * c[0], (1 / factor if step.name == "div" else factor,))


def _number(value: float) -> Tensor:
    """A number that keeps its digits and takes the dtype of what it multiplies."""
    return torch.tensor(float(value), dtype=torch.float64)


def _is_first(step: Step) -> bool:
    return len(step.inputs) == 1 and isinstance(step.args[0][0], Slot)


RULES: dict[str, Callable[[Step], Linear | None]] = {
    "convolution": _convolution,
    "add": _sum,
    "sub": _sum,
    "rsub": _sum,
    "mul": _scaled,
    "div": _scaled,
    "neg": _scaled,
    **dict.fromkeys(DENSE, _product),
    **dict.fromkeys(BATCH_NORMS, _batch_norm),
}
