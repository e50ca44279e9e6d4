"""The linear operations: how a step makes its output from values and coefficients.

A *step* is one operation of a model's forward pass, and the *values* that it reads are the tensors
that depend on the model's input (see `tape.py`). All other arguments of a step are constants.

A step is linear if its output is a sum of values times coefficients that do not depend on them
(and a constant). A *linear form* is such a step with its coefficients in the open and without its
constant. Rules that treat positive and negative coefficients apart, in DeepLIFT and LRP, need it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tutorial_lib.rules.tape import Slot, Step, Tape, vjp

aten = torch.ops.aten
# Each output is one input value, or a sum or mean of some: all coefficients are positive.
SELECTIONS = set(
    "_reshape_alias _to_copy _unsafe_view alias cat clone constant_pad_nd diagonal expand flip "
    "gather im2col index index_select masked_fill permute pixel_shuffle pixel_unshuffle repeat "
    "roll select slice split split_with_sizes squeeze stack t transpose tril triu unbind unfold "
    "unsafe_chunk unsafe_split unsqueeze view where".split()
)
SUMS = set(
    "_adaptive_avg_pool2d _adaptive_avg_pool3d avg_pool2d avg_pool3d mean sum upsample_bilinear2d "
    "upsample_nearest2d".split()
)
WITH_SIZES = {"_unsafe_view", "expand", "repeat", "view"}  # selections whose arguments are sizes
# Applied entry by entry.
ACTIVATIONS = set(
    "_prelu_kernel abs celu clamp clamp_max clamp_min elu erf exp gelu hardsigmoid hardswish "
    "hardtanh leaky_relu log log1p log_sigmoid_forward maximum minimum mish pow reciprocal relu "
    "rsqrt sigmoid silu softplus sqrt square tanh threshold".split()
)
DENSE = {"addmm", "baddbmm", "mm", "bmm"}
SOFTMAX = {"_softmax", "_safe_softmax"}
BATCH_NORMS = set(
    "_native_batch_norm_legit cudnn_batch_norm miopen_batch_norm native_batch_norm".split()
)


@dataclass(frozen=True)
class LinearForm:
    """A linear step without its constant: out = call(coefficients, *values).

    Args:
        call: The step as a function of its coefficients and of the values that it reads.
        coefficients: What the values are multiplied by; empty for sums and selections.
        has_weights: Whether the step is a dense layer or a convolution, which weighs and adds
            units. The others pass on, scale or add values as they are.
        transpose_call: The transposed step as a function (coefficients, value, what is at the
            output), where PyTorch has it; autograd finds the others.
    """

    call: Callable[..., Tensor]
    coefficients: tuple[Tensor, ...] = ()
    has_weights: bool = False
    transpose_call: Callable[..., Tensor] | None = None

    def function(self, change: Callable[[Tensor], Tensor] | None = None) -> Callable[..., Tensor]:
        """Return out as a function of the values, with change(c) for every coefficient c."""
        changed = self._changed(change)
        return lambda *values: self.call(changed, *values)

    def transpose(
        self, values: list[Tensor], at_output: Tensor, change: Callable | None = None
    ) -> list[Tensor]:
        """Return the transposed step: from numbers at its output to numbers at each value.

        Args:
            values: The values that the step reads; only their shapes matter.
            at_output: Numbers of the shape of the output.
            change: Function of the coefficients, such as torch.abs; None leaves them.

        Returns:
            A tensor of the shape of each value.
        """
        if self.transpose_call:
            return [self.transpose_call(self._changed(change), values[0], at_output)]
        return vjp(self.function(change), values, at_output)

    def _changed(self, change: Callable | None) -> list[Tensor]:
        """Return change(c) for every coefficient c."""
        return [change(c) if change else c for c in self.coefficients]


def linear_form(step: Step) -> LinearForm | None:
    """Return the linear form of a step, or None if the step is not linear."""
    if step.name == "_to_copy" and not step.args[1].get("dtype", torch.float32).is_floating_point:
        return None  # rounding
    if step.name in ("where", "masked_fill"):
        return _choice_by_mask(step)
    if step.name in SELECTIONS | SUMS:
        return _selection_or_sum(step)
    return FORMS[step.name](step) if step.name in FORMS else None


def layers(tape: Tape) -> dict[int, tuple[LinearForm, list[Step]]]:
    """Return every layer's linear form, and the batch norms and constants that it has absorbed.

    The key is the number of the value that the layer itself makes, a dense layer or a convolution.
    """
    readers: dict[int, list[Step]] = {}
    for step in tape.steps:
        for i in step.inputs:
            readers.setdefault(i, []).append(step)
    found, values = {}, tape.values
    for step in tape.steps:
        form, absorbed, last = linear_form(step), [], step.output
        while form and form.has_weights and len(readers.get(last, [])) == 1:
            (norm,) = readers[last]
            absorbs = norm.name in BATCH_NORMS | {"add"}
            both = absorb_norm(form, step, norm) if absorbs else None
            if both is None or values[norm.output].shape != values[last].shape:
                break
            form, last = both, norm.output
            absorbed.append(norm)
        if form and form.has_weights:
            found[step.output] = form, absorbed
    return found


def absorb_norm(form: LinearForm, step: Step, norm: Step) -> LinearForm | None:
    """Return one linear form for a layer and what follows it; None if they cannot be one.

    Args:
        form: The linear form of the layer, or of the layer with what it has absorbed already.
        step: The layer's step, a dense layer or a convolution.
        norm: The step that follows, a batch norm or the addition of a constant.
    """
    if norm.name == "add":
        return form if len(norm.inputs) == 1 and not norm.args[1] else None
    scaling, (weight,) = linear_form(norm), form.coefficients
    convolves, transposed = step.name == "convolution", step.argument(6) is True
    by_columns = step.name in ("addmm", "mm") and isinstance(step.args[0][-2], Slot)
    if scaling is None or transposed or not (convolves or by_columns):
        return None
    (scale,) = scaling.coefficients
    shape = [-1, *[1] * (weight.ndim - 1)] if convolves else [1, -1]
    return replace(form, coefficients=((weight * scale.view(shape)).to(weight.dtype),))


def bias(step: Step, values: list[Tensor]) -> Tensor:
    """Return the constant of a linear step: its output where all values that it reads are 0."""
    return step(*(torch.zeros_like(v) for v in values))


def _selection_or_sum(step: Step) -> LinearForm:
    """Constants joined to the values (by cat or padding) become 0."""

    def call(_, *values: Tensor) -> Tensor:
        if step.name == "constant_pad_nd":
            return aten.constant_pad_nd(values[0], step.argument(1))
        if step.name in ("cat", "stack") and len(step.argument(0)) > len(values):
            return step(*values) - bias(step, list(values))
        return step(*values)

    return LinearForm(call)


def _choice_by_mask(step: Step) -> LinearForm | None:
    """where(mask, a, b) and masked_fill(a, mask, number): what is no value counts as 0."""
    args = step.args[0]
    mask = args[0] if step.name == "where" else args[1]
    if not isinstance(mask, Tensor) or (step.name == "masked_fill" and len(step.inputs) > 1):
        return None
    if step.name == "masked_fill":
        return LinearForm(lambda _, z: z.masked_fill(mask, 0))
    shape = torch.broadcast_shapes(*(v.shape for v in args if isinstance(v, Tensor)))

    def call(_, *values: Tensor) -> Tensor:
        zero = values[0].new_zeros(())
        a, b = (values[v.index] if isinstance(v, Slot) else zero for v in args[1:])
        return torch.where(mask, a, b).expand(torch.broadcast_shapes(shape, a.shape, b.shape))

    return LinearForm(call)


def _convolution(step: Step) -> LinearForm | None:
    """A convolution of a value with constant weights."""
    options = step.args[0][3:]
    if not _reads_first_argument_only(step):
        return None

    def call(c: list, z: Tensor) -> Tensor:
        return aten.convolution(z, c[0], None, *options)

    def transpose(c: list, z: Tensor, grad_output: Tensor) -> Tensor:
        output_mask = [True, False, False]  # of the gradients of input, weight and bias
        return aten.convolution_backward(grad_output, z, c[0], None, *options, output_mask)[0]

    return LinearForm(call, (step.argument(1),), has_weights=True, transpose_call=transpose)


def _matrix_product(step: Step) -> LinearForm | None:
    """addmm and baddbmm(constant, values, weights), mm and bmm with weights on either side."""
    args, options = step.args
    left, right = args[-2:]
    if len(step.inputs) != 1 or (isinstance(args[0], Slot) and len(args) == 3):
        return None
    alpha = options.get("alpha", 1)
    if isinstance(left, Slot):
        return LinearForm(lambda c, z: z @ c[0], (right * alpha,), has_weights=True)
    return LinearForm(lambda c, z: c[0] @ z, (left * alpha,), has_weights=True)


def _batch_norm(step: Step) -> LinearForm | None:
    """A batch norm in eval mode: its coefficients are one factor for each channel."""
    args = step.args[0]
    weight, mean, var, eps = args[1], args[3], args[4], args[-1]
    if not _reads_first_argument_only(step) or mean is None or args[5] is True:
        return None
    scale = (var + eps).rsqrt() * (1 if weight is None else weight)  # (C,)

    def call(c: tuple, z: Tensor) -> Tensor:
        return z * c[0].view(1, -1, *[1] * (z.ndim - 2)).to(z.dtype)

    return LinearForm(call, (scale,))


def _sum(step: Step) -> LinearForm:
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

    return LinearForm(call, tuple(map(_scalar, used)))


def _scaling(step: Step) -> LinearForm | None:
    """Values times, or divided by, a constant."""
    left, right = step.args[0][0], step.args[0][1] if len(step.args[0]) > 1 else -1
    constant = right if isinstance(left, Slot) else left
    if len(step.inputs) != 1 or step.args[1] or (step.name == "div" and constant is left):
        return None
    factor = constant if isinstance(constant, Tensor) else _scalar(constant)
    factor = factor if factor.is_floating_point() else factor.float()
    return LinearForm(lambda c, z: z * c[0], (1 / factor if step.name == "div" else factor,))


def _scalar(value: float) -> Tensor:
    """A number that keeps its digits and takes the dtype of what it multiplies."""
    return torch.tensor(float(value), dtype=torch.float64)


def _reads_first_argument_only(step: Step) -> bool:
    """Whether the first argument is the only one that is a value; the weights are constants."""
    return len(step.inputs) == 1 and isinstance(step.args[0][0], Slot)


# The linear form of a step by the name of its operation; None for a step that is not linear.
FORMS: dict[str, Callable[[Step], LinearForm | None]] = {
    "convolution": _convolution,
    **dict.fromkeys(("add", "sub", "rsub"), _sum),
    **dict.fromkeys(("mul", "div", "neg"), _scaling),
    **dict.fromkeys(DENSE, _matrix_product),
    **dict.fromkeys(BATCH_NORMS, _batch_norm),
}
