"""What transformers are made of: products of two values, norms, and gates that are held fixed.

The words: a *step* is one operation of the forward pass, which reads numbered *values* and makes
one; a *tape* holds the steps and values in order (see `tape.py`). These steps have no fixed
coefficients, as linear steps have (`linear_steps.py`). A rule makes them linear by holding
something fixed: a factor, the deviation of a norm, attention weights.
"""

from collections.abc import Callable, Set
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from tutorial_lib.rules.linear_steps import (
    ACTIVATIONS,
    BATCH_NORMS,
    DENSE,
    SELECTIONS,
    SOFTMAX,
    LinearForm,
)
from tutorial_lib.rules.tape import Slot, Step, Tape

ODD_GATES = {"tanh", "erf"}  # with a constant added they are gates, as in GELU by hand
RECIPROCALS = {"rsqrt", "reciprocal"}
SUMS_OF_TWO = {"add", "sub", "rsub"}
LAYERS = DENSE | {"convolution", "mul", "div"}  # of one value, with constants
PASSED_ON = SELECTIONS | {"neg", "sum", "mean"}


@dataclass(frozen=True)
class Norm:
    """A norm: weight * (z - mean of z) / sqrt(mean of (z - mean of z)^2 + eps) + bias.

    Args:
        mean: Function from z to the means over its groups, broadcastable to z.
        weight: Factor, broadcastable to z, or 1.
        eps: Number beside the mean square.
    """

    mean: Callable[[Tensor], Tensor]
    weight: Tensor | float
    eps: float

    def centre(self, z: Tensor) -> Tensor:
        """Return z without its mean."""
        return z - self.mean(z)

    def rate(self, z: Tensor) -> Tensor:
        """Return 1 / deviation of z, broadcastable to z."""
        return (self.mean(self.centre(z).square()) + self.eps).rsqrt()

    def form(self, call: Callable, coefficients: tuple) -> LinearForm:
        """Return a linear form of the values without their mean: call(coefficients, centred)."""
        minus = torch.tensor(-1.0, dtype=torch.float64)  # open, so that it has a size
        return LinearForm(lambda c, z: call(c[1:], z + c[0] * self.mean(z)), (minus, *coefficients))

    def with_fixed_deviation(self, z: Tensor) -> LinearForm:
        """Return the norm at z as a linear step: its deviation stays what it is at z."""
        return self.form(lambda c, centred: centred * c[0], (self.rate(z) * self.weight,))


def norm_of(step: Step, z: Tensor) -> Norm | None:
    """Return the norm that a step on z is: layer, group or instance norm; else None."""
    if len(step.inputs) != 1 or not isinstance(step.args[0][0], Slot) or step.output_index:
        return None
    args = step.args[0]
    if step.name == "native_layer_norm":
        mean = partial(torch.mean, dim=tuple(range(-len(args[1]), 0)), keepdim=True)
        return Norm(mean, 1.0 if args[2] is None else args[2], args[4])
    if step.name == "native_group_norm":
        return Norm(partial(_mean_of_groups, groups=args[6]), _by_channel(args[1], z), args[7])
    if step.name in BATCH_NORMS and args[5] is True and len(z) == 1:  # so runs an instance norm
        mean = partial(torch.mean, dim=(0, *range(2, z.ndim)), keepdim=True)
        return Norm(mean, _by_channel(args[1], z), args[-1])
    return None


def product_of(step: Step) -> Callable[[Tensor, Tensor], Tensor] | None:
    """Return the product that a step is, as a function of its two values; None for other steps.

    A constant that is added to a product of matrices (baddbmm) is left out.
    """
    args, options = step.args
    if len(step.inputs) != 2 or not all(isinstance(a, Slot) for a in args[-2:]):
        return None
    if step.name == "mul":
        return torch.mul
    if step.name == "div":
        return None if options or len(args) > 2 else torch.div
    if step.name in DENSE:
        alpha = options.get("alpha", 1)
        return lambda a, b: (a @ b) * alpha if alpha != 1 else a @ b
    return None


def gates(tape: Tape, names: Set[str], odd: Set[str] = frozenset()) -> set[int]:
    """Return the numbers of the values that rules hold fixed where they multiply another value.

    Args:
        tape: The steps and values of one forward pass.
        names: Operations whose results are gates. What is selected from gates, or made of them by
            constants and sums, is one, too.
        odd: Operations whose results become gates where a constant is added to them.
    """
    found: set[int] = set()
    bounded: set[int] = set()
    for step in tape.steps:
        inputs, one = set(step.inputs), len(step.inputs) == 1
        passed = step.name in PASSED_ON | SUMS_OF_TWO or (step.name in LAYERS and one)
        shifted = step.name in SUMS_OF_TWO and one and inputs <= bounded
        if step.name in names or shifted or (passed and inputs <= found):
            found.add(step.output)
        elif step.name in odd or (passed and inputs <= bounded):
            bounded.add(step.output)
    return found


def is_activation(step: Step) -> bool:
    """Return whether a step is a function of one value, applied entry by entry."""
    return step.name in ACTIVATIONS and len(step.inputs) == 1


def softmax_dim(step: Step) -> int:
    """Return the dimension over which a softmax or log_softmax goes."""
    assert step.name in SOFTMAX | {"_log_softmax"}
    return step.argument(1)


def _by_channel(weight: Tensor | None, z: Tensor) -> Tensor | float:
    """A weight (C,) as a factor of z (N, C, ...); 1 where there is none."""
    return 1.0 if weight is None else weight.view(1, -1, *[1] * (z.ndim - 2))


def _mean_of_groups(z: Tensor, groups: int) -> Tensor:
    """The mean of each group of channels of z (N, C, ...), in the shape of z."""
    grouped = z.reshape(len(z), groups, -1)  # (N, groups, C / groups * ...)
    return grouped.mean(2, keepdim=True).expand_as(grouped).reshape(z.shape)
