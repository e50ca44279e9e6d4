"""LibraGrad: gradients of transformers with paths pruned, so that input times gradient is complete.

It records one forward pass on a tape: a list of steps, one for each operation, with the values that
they read and make (see `tape.py`). It then walks back from the score to the input as
backpropagation does, and holds fixed what only weighs other values: gates, attention weights, the
deviations of norms.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from tutorial_lib.averaging import probes
from tutorial_lib.averaging.engine import average
from tutorial_lib.rules import transformer_steps
from tutorial_lib.rules.linear_steps import SOFTMAX
from tutorial_lib.rules.recorder import record
from tutorial_lib.rules.rectifiers import refuse_flat_steps, warn_of_own_backward
from tutorial_lib.rules.tape import Step, Tape, gradient, one_hot, vjp, walk_to_input

# Activations that are above 0 at 0: what they multiply is a signal, and they are its gate.
GATES = SOFTMAX | transformer_steps.RECIPROCALS | {"sigmoid", "hardsigmoid", "exp", "softplus"}


def libragrad(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Compute the gradient, but hold fixed what only weighs other values in a transformer.

        y = z g(z), such as GELU, SiLU, tanh    grad_z = grad_y * y / z, the gate g held fixed
        y = A V, A a softmax                    grad_V = A^T grad_y, nothing to A
        y = (z - mean z) / s, a norm            its gradient with the deviation s held fixed
        y = a * b, both no gate                 half of its gradient to each

    LibraGrad, Mehri et al. (2025), prunes and scales the backward paths of transformers, and leaves
    the forward pass alone, until a model without biases has

        f(x) = sum_i x_i * A_i(x)

    as a network of ReLUs has with its plain gradient (FullGrad-completeness); `x * tl.libragrad`
    is then a map that sums to the score, the logit if the last operation is softmax or sigmoid.
    Biases, a class token and position vectors keep their part of the score.

    A gate is a sigmoid, a softmax, an exponential, 1 / sqrt, and tanh or erf with a constant added.
    It is held fixed where it multiplies a value that is none, and elsewhere it keeps its gradient,
    as all other operations do. What values are divided by is held fixed. For a model of dense
    layers, convolutions and ReLUs the map is the gradient.

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
        x: (B, ...) finite floating-point inputs. For a language model, the embeddings.
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
        The gate of x * sigmoid(x) is 1/2 at 0 and 0.8808 at 2:

        >>> f = lambda x: torch.nn.functional.silu(x).sum(1, keepdim=True)
        >>> tl.libragrad(f, torch.tensor([[0.0, 2.0]]), 0)
        tensor([[0.5000, 0.8808]])
        >>> tl.gradient(f, torch.tensor([[0.0, 2.0]]), 0)
        tensor([[0.5000, 1.0908]])
    """

    def walk(network: Callable, points: Tensor, target: Tensor) -> Tensor:
        tape = record(network, points, target).logits()
        refuse_flat_steps(tape, "libragrad")
        tape = tape.without_choices()
        gates = transformer_steps.gates(tape, GATES, transformer_steps.ODD_GATES)
        rule = partial(_pruned_rule, tape, gates)
        return walk_to_input(tape, rule, one_hot(target, tape.values[tape.output]))

    probe_function = partial(probes.point, seed=seed)
    options = dict(batch_size=batch_size, progress=progress, gradient_of=walk)
    attribution = average(model, x, target, probe_function, **options)
    warn_of_own_backward(model, x, "libragrad", stacklevel=3)
    return attribution


def _pruned_rule(tape: Tape, gates: set[int], step: Step, grad_output: Tensor) -> list:
    """Return the gradient at each value that a step reads, with gates and deviations held fixed."""
    values = tape.values_read_by(step)
    if transformer_steps.product_of(step):
        fixed = [False, True] if step.name == "div" else [i in gates for i in step.inputs]
        gradients = gradient(tape, step, grad_output)
        if fixed[0] != fixed[1]:
            return [None if held else g for held, g in zip(fixed, gradients, strict=True)]
        return [g / 2 for g in gradients]
    if transformer_steps.is_activation(step) and _is_gated(step, values[0]):
        return [grad_output * _gate(step, values[0], tape.values[step.output])]
    if norm := transformer_steps.norm_of(step, values[0]):
        return norm.with_fixed_deviation(values[0]).transpose(values, grad_output)
    return gradient(tape, step, grad_output)


def _is_gated(step: Step, z: Tensor) -> bool:
    """Whether an activation is 0 at 0, so that it is z times a gate."""
    return not bool(step(torch.zeros_like(z)).any())


def _gate(step: Step, z: Tensor, y: Tensor) -> Tensor:
    """y / z, and the derivative where z is 0."""
    zero = z == 0
    gate = y / torch.where(zero, 1, z)
    if bool(zero.any()):
        gate = torch.where(zero, vjp(step, [z], torch.ones_like(y))[0], gate)
    return gate
