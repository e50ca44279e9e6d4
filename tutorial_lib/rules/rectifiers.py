"""Changed backward rules: guided backpropagation, DeconvNet, and layer-wise relevance propagation.

Each walks back over the tape of one forward pass (see `tape.py`) with another rule in the place of
some gradients. Functions, arguments and errors as in `attribution.py`; beside these, an operation
that LRP has no rule for is a NotImplementedError that names it and says where it is.
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from tutorial_lib import checks, probes
from tutorial_lib.engine import average
from tutorial_lib.recorder import record
from tutorial_lib.relevance import Relevance
from tutorial_lib.tape import Step, Tape, gradient, one_hot, walk_back

LRP_RULES = ("epsilon", "alpha_beta", "composite")


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


def lrp(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    rule: str = "epsilon",
    epsilon: float = 1e-6,
    alpha: float = 1.0,
    beta: float = 0.0,
    gamma: float | None = None,
    bounds: tuple | None = None,
    biases: bool = True,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Layer-wise relevance propagation: the score, shared out layer by layer.

    A dense layer or convolution z_k = sum_j c_jk + b_k, c_jk = a_j w_jk, hands down
    R_j = sum_k q_jk R_k  (Bach et al., 2015; Montavon et al., 2019), with c+ and c- the positive
    and negative terms, b+ and b- likewise:
    "epsilon":     q = c / (z + epsilon sign z)                           (Bach, Eq. 58)
    "alpha_beta":  q = alpha c+ / (sum c+ + b+) - beta c- / (sum c- + b-)   (Bach, Eq. 60)
    "composite":   epsilon in dense layers; alpha_beta in convolutions, or, where gamma is given,
        q = (c + gamma c+) / (z + gamma (sum c+ + b+)) for z > 0, with c-, b- for z < 0; and at the
        input the z-box rule, with bounds (Montavon et al., 2017), or an equal share to all
        inputs of a unit ("flat") without.
    Denominators get epsilon times their sign. Activations hand down what they get, max pooling to
    its maximum, and sums, means and scalings by the share of each term in the result. Relevance
    starts as the score (the logit, if the last operation is softmax or sigmoid). Biases keep their
    share, so the map sums to the score only without biases (and, where beta > 0, only if every
    unit has terms of both signs); biases=False leaves them out of all denominators. A batch norm or
    an added constant right behind a layer counts as part of it. alpha - beta must be 1. Units:
    score. Memory: all activations of batch_size pictures.

    >>> tl.lrp(model, x, 285, rule="composite", bounds=model.bounds)
    """
    checks.choice("rule", rule, LRP_RULES)
    checks.positive("epsilon", epsilon)
    checks.nonnegative("alpha", alpha)
    if abs(alpha - checks.nonnegative("beta", beta) - 1) > 1e-9:
        raise ValueError(f"alpha: expected beta + 1 = {beta + 1}, got {alpha}")
    if gamma is not None:
        checks.nonnegative("gamma", gamma)
    for name, value in (("gamma", gamma), ("bounds", bounds)):
        if value is not None and rule != "composite":
            raise ValueError(f"{name}: only rule='composite' uses it, and rule is {rule!r}")
    checks.flag("biases", biases)
    checks.model(model)
    x = checks.pictures(x)
    box = None if bounds is None else checks.inside(x, bounds)
    if box and max(map(len, box)) > 1:
        raise ValueError("bounds: expected one range for all pictures, first dimension 1")

    def slope(network: Callable, points: Tensor, labels: Tensor) -> Tensor:
        tape = record(network, points, labels).logits()
        rules = Relevance(tape, rule, epsilon, alpha, beta, gamma, box, biases)
        score = tape.values[tape.output]
        return _last(tape, rules, one_hot(labels, score) * score)

    places = partial(probes.point, seed=seed)
    return average(model, x, target, places, batch_size=batch_size, progress=progress, slope=slope)


def _walked(rule: Callable, model, x, target, batch_size, seed, progress) -> Tensor:
    """The map of a rule (tape, step, up) that changes gradients."""

    def slope(network: Callable, points: Tensor, labels: Tensor) -> Tensor:
        tape = record(network, points, labels)
        return _last(tape, partial(rule, tape), one_hot(labels, tape.values[tape.output]))

    places = partial(probes.point, seed=seed)
    return average(model, x, target, places, batch_size=batch_size, progress=progress, slope=slope)


def _last(tape: Tape, rule: Callable, seed: Tensor) -> Tensor:
    """What reaches the input."""
    *_, (value, up) = walk_back(tape, rule, seed)
    return checks.slope(up if value == 0 else None)


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
