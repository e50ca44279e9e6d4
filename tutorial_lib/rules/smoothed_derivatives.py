"""SmoothDiff: the derivative of each nonlinearity averaged over noise, then one backward pass.

It records forward passes on tapes: lists of steps, one for each operation, with the values that
they read and make (see `tape.py`). Noisy passes give each nonlinear step a mean derivative, and the
walk back from the score to the input uses it in place of the derivative at the input.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from tutorial_lib import checks
from tutorial_lib.averaging import probes
from tutorial_lib.averaging.engine import Probes, average
from tutorial_lib.rules.linear_steps import linear_form
from tutorial_lib.rules.recorder import record
from tutorial_lib.rules.tape import (
    PLAIN,
    Step,
    Tape,
    gradient,
    no_rule_error,
    one_hot,
    vjp,
    walk_to_input,
)
from tutorial_lib.rules.transformer_steps import is_activation

ADVICE = "tl.smoothgrad takes the model as it is; of a ReLU written with a mask write nn.ReLU"


def smoothdiff(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    sigma: float | Tensor,
    samples: int = 50,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Average the derivative of each nonlinearity over noise, and walk back once.

        A(x) = J_1^T J_2^T ... J_L^T e_target,    J_l = 1/n sum_k d layer_l / d z at x + eps_k

    Hill et al. (2025), Smoothed Differentiation. SmoothGrad averages the product of the layers'
    Jacobians over eps_k ~ N(0, sigma^2 I); here each factor has an average of its own. A linear
    layer has the same Jacobian at every point. So what is averaged is, for an activation, its
    derivative, entry by entry (for a ReLU the share of draws that are above 0), and for max pooling
    how often each place of a window is its maximum. It takes n forward passes and one backward
    pass.

    The average of a product is the product of averages and covariances, which are neglected here.
    With one layer of activations nothing is neglected, nor with one draw: the map is SmoothGrad's
    of the same draws. With more layers it is another map, however many draws there are. For
    relu(relu(x)) at 0 the smoothed gradient is 1/2, and SmoothDiff 1/2 * 1/2.

    On ten photographs, with EfficientNet-Lite0, noise of 10 % of the range and 50 passes, the
    expectation of the map is 0.32 of the smoothed gradient's norm away from it, and one map 0.43;
    one of SmoothGrad's is 0.87 away, all of it sampling noise (smoothdiff.csv of tutorial_book).

    The authors' program has ReLU and max pooling. This one averages the derivative of every
    activation that is applied entry by entry. At a tie max pooling chooses the first place, as
    PyTorch does. (In the authors' program each place of a tie counts, as do the zeros of padding.)
    If the last operation is softmax, log_softmax or sigmoid, the map is of the logit before it.
    Memory: the activations of one pass, and a mean derivative for each of them; a pass is one noisy
    copy of at most batch_size pictures.

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
        x: (B, ...) finite floating-point inputs.
        target: Class index, or LongTensor (B,) with one for each input.
        sigma: Standard deviation of the noise in the units of x (see `tl.sigma_from_level`), a
            number or a tensor broadcastable to x.
        samples: n, the number of noisy copies of each input.
        batch_size: Inputs in a forward pass; None chooses by the device and the size of x.
        seed: Seed of the noise; with the same seed the draws are those of `tl.smoothgrad`.
        progress: Whether to show a progress bar, which counts the pictures.

    Returns:
        (B, ...) attributions in units of the score per unit of input.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, the model runs other operations on noisy
            inputs, its rows are not independent, or the result is not finite.
        NotImplementedError: An operation is neither linear nor an activation nor max pooling, such
            as a product of two values, softmax, a layer norm, or a choice that depends on the
            input; the message names it and says where it is.

    Example:
        >>> twice = lambda z: torch.relu(torch.relu(z))
        >>> zero = torch.zeros(1, 1)
        >>> round(float(tl.smoothgrad(twice, zero, 0, sigma=1.0, samples=1000)), 1)
        0.5
        >>> round(float(tl.smoothdiff(twice, zero, 0, sigma=1.0, samples=1000)), 2)
        0.25
    """

    def smoothed(network: Callable, points: Tensor, target: Tensor, sigma: Tensor) -> Tensor:
        tape = record(network, points, target).logits()
        noisy = probes.gaussian(points, sigma=sigma, samples=samples, seed=seed)
        rule = partial(_smoothed_rule, tape, _mean_derivatives(tape, network, noisy, target))
        return walk_to_input(tape, rule, one_hot(target, tape.values[tape.output]))

    deviations = checks.sigma(sigma, checks.pictures(x))
    spread = torch.as_tensor(deviations, dtype=x.dtype, device=x.device).expand(x.shape)
    probe_function = partial(probes.point, seed=seed)
    options = dict(batch_size=batch_size, progress=progress, gradient_of=smoothed)
    return average(model, x, target, probe_function, **options, per_picture={"sigma": spread})


def _mean_derivatives(
    tape: Tape, network: Callable, noisy: Probes, target: Tensor
) -> dict[int, Tensor]:
    """The derivative of each nonlinear step, by the number of its output, averaged over draws.

    Draws are added one after the other, so that it does not matter how they come in blocks.
    """
    means: dict[int, Tensor] = {}
    for points in (draw for block in noisy for draw in block.points):  # (B, ...)
        there = record(network, points, target).logits()
        if _operations(there) != _operations(tape):
            raise ValueError(
                "model: it runs other operations on noisy inputs than on x (is there an if that "
                "depends on the input?), so no derivative has a mean; tl.smoothgrad needs none"
            )
        for step in there.steps:
            if (derivative := _derivative(there, step)) is not None:
                share = derivative.to(checks.accumulator(points.dtype)) / noisy.count
                means[step.output] = means.get(step.output, 0) + share
    return means


def _operations(tape: Tape) -> list[tuple]:
    """What a tape does: the name of each step and the values that it reads and makes."""
    shapes = {number: value.shape for number, value in tape.values.items()}
    return [(s.name, s.inputs, s.output, shapes[s.output]) for s in tape.steps]


def _derivative(tape: Tape, step: Step) -> Tensor | None:
    """The derivative of a nonlinear step at its values; None for a linear step."""
    values = tape.values_read_by(step)
    if not all(v.is_floating_point() for v in values):
        raise no_rule_error("SmoothDiff", step, ADVICE, PLAIN)
    if linear_form(step):
        return None
    if is_activation(step):
        return vjp(step, values, torch.ones_like(tape.values[step.output]))[0]
    if "max_pool" in step.name:
        windows = _windows(step, values[0], float("-inf"))  # (B, C, places..., window)
        largest = windows.argmax(-1, keepdim=True)  # the first one at a tie
        return torch.zeros_like(windows).scatter_(-1, largest, 1)
    raise no_rule_error("SmoothDiff", step, ADVICE, PLAIN)


def _smoothed_rule(
    tape: Tape, means: dict[int, Tensor], step: Step, grad_output: Tensor
) -> list[Tensor]:
    """Return the gradient at each value that a step reads, by its mean derivative if it has one."""
    if step.output not in means:
        return gradient(tape, step, grad_output)
    mean = means[step.output].to(grad_output.dtype)
    if is_activation(step):
        return [grad_output * mean]
    pool = lambda z: (_windows(step, z, 0.0) * mean).sum(-1)  # noqa: E731
    return vjp(pool, tape.values_read_by(step), grad_output)


def _windows(step: Step, z: Tensor, outside: float) -> Tensor:
    """What max pooling looks at, (B, C, places..., window), and a number for what is not in z."""
    k = 3 if "3d" in step.name else 2
    sizes, places = z.shape[-k:], step(z).shape[-k:]
    kernel, stride, padding, dilation = _geometry(step, sizes, places)
    spans = [d * (n - 1) + 1 for d, n in zip(dilation, kernel, strict=True)]
    ends = [(o - 1) * s + span for o, s, span in zip(places, stride, spans, strict=True)]
    pads = [(p, end - n - p) for p, end, n in zip(padding, ends, sizes, strict=True)]
    z = F.pad(z, [n for pair in reversed(pads) for n in pair], value=outside)
    for dim, span, s in zip(range(z.ndim - k, z.ndim), spans, stride, strict=True):
        z = z.unfold(dim, span, s)
    return z[(..., *(slice(None, None, d) for d in dilation))].flatten(-k)


def _geometry(step: Step, sizes: tuple, places: tuple) -> tuple[list[int], ...]:
    """Kernel, stride, padding and dilation of max pooling, a number for each dimension."""
    zeros, ones = [0] * len(sizes), [1] * len(sizes)
    if "adaptive" not in step.name:
        kernel, stride, padding, dilation = (step.argument(i) for i in range(1, 5))
        return kernel, stride or kernel, padding or zeros, dilation or ones
    if any(n % o for n, o in zip(sizes, places, strict=True)):
        advice = "Its windows differ in size; write nn.MaxPool2d"
        raise no_rule_error("SmoothDiff", step, advice, PLAIN)
    kernel = [n // o for n, o in zip(sizes, places, strict=True)]
    return kernel, kernel, zeros, ones
