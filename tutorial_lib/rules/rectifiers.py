"""Rectifiers with another backward rule: guided backpropagation and DeconvNet.

Each walks back over the tape of one forward pass (see `tape.py`) with another rule in the place of
some gradients. Functions, arguments and errors as in `averaging/methods.py`.
"""

import warnings
from collections.abc import Callable
from functools import partial

from torch import Tensor

from tutorial_lib.averaging import probes
from tutorial_lib.averaging.engine import average
from tutorial_lib.rules.recorder import record
from tutorial_lib.rules.tape import Step, Tape, gradient, one_hot, reaching_input

# Their derivative is 0 wherever there is one. What a straight-through function puts in its place
# is known to PyTorch's autograd alone, and not to a tape of operations.
STAIRS = {"ceil", "floor", "round", "sgn", "sign", "trunc", "heaviside", "floor_divide"}


def guided_backprop(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """The gradient with, at each ReLU on the way back, only what is positive: signed.

    Backward through y = relu(z): up * [up > 0] * [z > 0]   (Springenberg et al., 2015, Sec. 3.4).
    A rectifier cut off above, such as ReLU6, is treated alike: [up > 0] times its own derivative.
    All other operations keep their gradient.
    Units: score per unit of input, though it is no derivative of the score.

    >>> tl.guided_backprop(model, x, 285)
    """
    return _walked(_guided, model, x, target, batch_size, seed, progress)


def deconvnet(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """The gradient with each ReLU applied to what comes back instead of to what went in: signed.

    Backward through y = relu(z): up * [up > 0], whatever z was; max pooling hands back to the place
    of its maximum (Zeiler and Fergus, 2014, Sec. 2.1). Rectifiers that are cut off above, such as
    ReLU6, are treated alike; all other operations keep their gradient.

    >>> tl.deconvnet(model, x, 285)
    """
    return _walked(_deconvolved, model, x, target, batch_size, seed, progress)


def _walked(rule: Callable, model, x, target, batch_size, seed, progress) -> Tensor:
    """The map of a rule (tape, step, grad_output) that changes gradients at rectifiers."""
    name = "guided_backprop" if rule is _guided else "deconvnet"
    rectifiers = 0

    def walk(network: Callable, points: Tensor, target: Tensor) -> Tensor:
        nonlocal rectifiers
        tape = record(network, points, target)
        rectifiers += sum(map(_rectifies, tape.steps))
        if stairs := next((step for step in tape.steps if step.name in STAIRS), None):
            raise NotImplementedError(
                f"model: {stairs.name} at {stairs.where} has the derivative 0, so {name} would be "
                "0. A straight-through function's own backward pass is used by tl.gradient"
            )
        return reaching_input(tape, partial(rule, tape), one_hot(target, tape.values[tape.output]))

    probe_function = partial(probes.point, seed=seed)
    options = dict(batch_size=batch_size, progress=progress, gradient_of=walk)
    attribution = average(model, x, target, probe_function, **options)
    if not rectifiers:
        warnings.warn(
            f"model: {name} changes what passes back through rectifiers (ReLU and its kin), and "
            "this model has none (GELU, SiLU and tanh are others): the map is its plain gradient",
            UserWarning,
            stacklevel=3,
        )
    return attribution


def _guided(tape: Tape, step: Step, up: Tensor) -> list[Tensor]:
    return gradient(tape, step, up.clamp(min=0) if _rectifies(step) else up)


def _deconvolved(tape: Tape, step: Step, up: Tensor) -> list[Tensor]:
    return [up.clamp(min=0)] if _rectifies(step) else gradient(tape, step, up)


def _rectifies(step: Step) -> bool:
    """Whether a step is max(0, z), or that with an upper limit."""
    if step.name == "maximum":
        return len(step.inputs) == 1 and not step.constants()[0].any()
    limits = [step.fixed(1), *([step.fixed(2)] if step.name == "threshold" else [])]
    clamps = ("hardtanh", "clamp", "clamp_min", "threshold")
    numbers = all(isinstance(v, int | float) and v == 0 for v in limits)
    return step.name == "relu" or (step.name in clamps and numbers)
