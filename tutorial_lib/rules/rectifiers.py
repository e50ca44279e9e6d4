"""Rectifiers with another backward rule: guided backpropagation and DeconvNet.

Each records one forward pass on a tape: a list of steps, one for each operation, with the values
that they read and make (see `tape.py`). It then walks back from the score to the input as
backpropagation does, with another rule in place of the gradient at rectifiers.
"""

import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from tutorial_lib import checks
from tutorial_lib.averaging import probes
from tutorial_lib.averaging.engine import average
from tutorial_lib.rules.recorder import record
from tutorial_lib.rules.tape import Step, Tape, gradient, one_hot, walk_to_input

# Their derivative is 0 wherever there is one. What a straight-through function puts in its place
# is known to PyTorch's autograd alone, and not to a tape of operations.
PIECEWISE_CONSTANT = {"ceil", "floor", "round", "sgn", "sign", "trunc", "heaviside", "floor_divide"}


def guided_backprop(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Compute the gradient, but let only what is positive back through each ReLU.

        backward through y = relu(z):   grad_z = grad_y * [grad_y > 0] * [z > 0]

    Springenberg et al. (2015), Sec. 3.4. A rectifier that is cut off above, such as ReLU6, is
    treated alike: [grad_y > 0] times its own derivative. All other operations keep their gradient.
    The map is signed. It is no derivative of the score. For a model without rectifiers it is the
    plain gradient, and a UserWarning says so.

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
        x: (B, ...) finite floating-point inputs.
        target: Class index, or LongTensor (B,) with one for each input.
        batch_size: Inputs in a forward pass; None chooses by the device and the size of x.
        seed: It changes nothing, as no noise is drawn; every method takes it.
        progress: Whether to show a progress bar.

    Returns:
        (B, ...) attributions in units of the score per unit of input.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, the rows of the model are not independent, or
            the result is not finite.
        NotImplementedError: An operation has no gradient, is piecewise constant (such as rounding),
            or writes in place in a way that cannot be followed; the message names it and says
            where it is.

    Example:
        >>> f = lambda x: torch.relu(x[:, :1]) - torch.relu(x[:, 1:])
        >>> tl.gradient(f, torch.tensor([[3.0, 1.0]]), 0)
        tensor([[ 1., -1.]])
        >>> tl.guided_backprop(f, torch.tensor([[3.0, 1.0]]), 0)
        tensor([[1., 0.]])
    """
    return _attribution(_guided_rule, model, x, target, batch_size, seed, progress)


def deconvnet(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Compute the gradient, but apply each ReLU to what comes back instead of to what went in.

        backward through y = relu(z):   grad_z = grad_y * [grad_y > 0], whatever z was

    Zeiler and Fergus (2014), Sec. 2.1. Max pooling hands back to the place of its maximum.
    Rectifiers that are cut off above, such as ReLU6, are treated alike. All other operations keep
    their gradient. The map is signed. For a model without rectifiers it is the plain gradient, and
    a UserWarning says so.

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
        x: (B, ...) finite floating-point inputs.
        target: Class index, or LongTensor (B,) with one for each input.
        batch_size: Inputs in a forward pass; None chooses by the device and the size of x.
        seed: It changes nothing, as no noise is drawn; every method takes it.
        progress: Whether to show a progress bar.

    Returns:
        (B, ...) attributions in units of the score per unit of input.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, the rows of the model are not independent, or
            the result is not finite.
        NotImplementedError: An operation has no gradient, is piecewise constant (such as rounding),
            or writes in place in a way that cannot be followed; the message names it and says
            where it is.

    Example:
        >>> f = lambda x: torch.relu(x[:, :1]) - torch.relu(x[:, 1:])
        >>> tl.gradient(f, torch.tensor([[-3.0, 1.0]]), 0)
        tensor([[ 0., -1.]])
        >>> tl.deconvnet(f, torch.tensor([[-3.0, 1.0]]), 0)
        tensor([[1., 0.]])
    """
    return _attribution(_deconvnet_rule, model, x, target, batch_size, seed, progress)


def _attribution(rule: Callable, model, x, target, batch_size, seed, progress) -> Tensor:
    """Return the map (B, ...) of a backward rule, a function (tape, step, grad_output)."""
    name = "guided_backprop" if rule is _guided_rule else "deconvnet"
    rectifiers, masks = 0, []

    def walk(network: Callable, points: Tensor, target: Tensor) -> Tensor:
        nonlocal rectifiers
        tape = record(network, points, target)
        rectifiers += sum(map(is_rectifier, tape.steps))
        masks.extend(step.location for step in tape.steps if step.name == "where")
        refuse_flat_steps(tape, name)
        return walk_to_input(tape, partial(rule, tape), one_hot(target, tape.values[tape.output]))

    probe_function = partial(probes.point, seed=seed)
    options = dict(batch_size=batch_size, progress=progress, gradient_of=walk)
    attribution = average(model, x, target, probe_function, **options)
    warn_of_own_backward(model, x, name, stacklevel=4)
    if rectifiers and masks:
        warnings.warn(
            f"model: {name} passes gradients unchanged through the where at {masks[0]}; if it is a "
            "ReLU, write nn.ReLU",
            UserWarning,
            stacklevel=3,
        )
    if not rectifiers:
        warnings.warn(
            f"model: {name} changes what passes back through rectifiers, and it sees none in this "
            "model (GELU, SiLU and tanh are none; of a ReLU written with where or a mask write "
            "nn.ReLU): the map is the gradient of its operations",
            UserWarning,
            stacklevel=3,
        )
    return attribution


def refuse_flat_steps(tape: Tape, name: str) -> None:
    """Raise an error for a step whose derivative is 0, which a method by this name would return."""
    if flat := next((step for step in tape.steps if step.name in PIECEWISE_CONSTANT), None):
        raise NotImplementedError(
            f"model: {flat.name} at {flat.location} has the derivative 0, so {name} would be "
            "0. A straight-through function's own backward pass is used by tl.gradient"
        )


def warn_of_own_backward(model: Callable, x: Tensor, name: str, stacklevel: int) -> None:
    """Warn that a method by this name does not see the backward pass of an autograd.Function."""
    if own := checks.examine(model, checks.pictures(x)).own_backward:
        warnings.warn(
            f"model: {own} is a torch.autograd.Function with a backward pass of its own, which "
            f"{name} cannot use: it takes the gradients of the operations inside",
            UserWarning,
            stacklevel=stacklevel,
        )


def _guided_rule(tape: Tape, step: Step, grad_output: Tensor) -> list[Tensor]:
    """Return the gradient at each value that a step reads, of what is positive at a rectifier."""
    return gradient(tape, step, grad_output.clamp(min=0) if is_rectifier(step) else grad_output)


def _deconvnet_rule(tape: Tape, step: Step, grad_output: Tensor) -> list[Tensor]:
    """Return the gradient at each value that a step reads; at a rectifier what is positive."""
    return [grad_output.clamp(min=0)] if is_rectifier(step) else gradient(tape, step, grad_output)


def is_rectifier(step: Step) -> bool:
    """Return whether a step is the operation max(0, z), or that with an upper limit."""
    if step.name in ("maximum", "fmax"):
        return len(step.inputs) == 1 and not step.constants()[0].any()
    limits = [step.argument(1), *([step.argument(2)] if step.name == "threshold" else [])]
    clamps = ("hardtanh", "clamp", "clamp_min", "threshold", "leaky_relu")
    numbers = [v for v in limits if isinstance(v, int | float | Tensor)]
    zeros = len(numbers) == len(limits) and not any(torch.as_tensor(v).any() for v in numbers)
    return step.name == "relu" or (step.name in clamps and zeros)
