"""Changed backward rules: guided backpropagation, DeconvNet, and layer-wise relevance propagation.

Each walks back over the tape of one forward pass (see `tape.py`) with another rule in the place of
some gradients. Functions, arguments and errors as in `attribution.py`; beside these, an operation
without a rule is a NotImplementedError that names it and says where it is.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from tutorial_lib import checks, probes
from tutorial_lib.engine import average
from tutorial_lib.linear import ACTIVATIONS, SELECTIONS, Linear, bias, linear
from tutorial_lib.prepare import prepare
from tutorial_lib.recorder import record
from tutorial_lib.tape import Step, Tape, gradient, no_rule, one_hot, walk_back

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
    All other operations keep their gradient, so without a ReLU this is the gradient.
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
    unit has terms of both signs); biases=False leaves them out of all denominators. Batch norm is
    first folded into the convolution before it, in a copy. alpha - beta must be 1. Units: score.
    Memory: all activations of batch_size pictures.

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
    if not isinstance(biases, bool):
        raise TypeError(f"biases: expected True or False, got {biases!r}")
    checks.model(model)
    x = checks.pictures(x)
    box = None if bounds is None else checks.inside(x, bounds)
    if box and max(map(len, box)) > 1:
        raise ValueError("bounds: expected one range for all pictures, first dimension 1")
    if isinstance(model, nn.Module) and any(isinstance(m, nn.BatchNorm2d) for m in model.modules()):
        model = prepare(model, x[:1])

    def slope(network: Callable, points: Tensor, labels: Tensor) -> Tensor:
        tape = record(network, points, labels).logits()
        rules = _Relevance(tape, rule, epsilon, alpha, beta, gamma, box, biases)
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


class _Relevance:
    """What a step hands down of the relevance of its output."""

    def __init__(self, tape: Tape, rule: str, epsilon, alpha, beta, gamma, box, biases):
        self.tape, self.rule, self.epsilon = tape, rule, epsilon
        self.alpha, self.beta, self.gamma, self.box = alpha, beta, gamma, box
        self.biases = biases
        self.early = self._before_layers()

    def __call__(self, step: Step, up: Tensor) -> list[Tensor]:
        way, values = linear(step), self.tape.of(step)
        if step.name in SELECTIONS:
            return way.back(values, up)
        if way is None and step.name in ACTIVATIONS and len(step.inputs) == 1:
            return [up]
        if way is None and "max_pool" in step.name:
            return gradient(self.tape, step, up)
        if way is None:
            raise no_rule("LRP", step)
        if not way.mixes or self.rule == "epsilon":
            return self._epsilon(step, way, values, up)
        (a,) = values
        if self.rule == "composite" and step.inputs[0] in self.early:
            return [self._box(step, way, a, up) if self.box else self._flat(way, a, up)]
        if self.rule == "composite" and step.name != "convolution":
            return self._epsilon(step, way, values, up)
        if self.rule == "composite" and self.gamma is not None:
            return [self._gamma(step, way, a, up)]
        return [self._alpha_beta(step, way, a, up)]

    def _share(self, up: Tensor, whole: Tensor) -> Tensor:
        """up / whole, with epsilon away from 0."""
        return up / (whole + torch.full_like(whole, self.epsilon).copysign(whole))

    def _bias(self, step: Step, a: Tensor) -> Tensor:
        constant = bias(step, [a])
        return constant if self.biases else torch.zeros_like(constant)

    def _epsilon(self, step: Step, way: Linear, values: list[Tensor], up: Tensor) -> list[Tensor]:
        whole = self.tape.values[step.output] if self.biases else way.part()(*values)
        share = self._share(up, whole)
        return [v * s for v, s in zip(values, way.back(values, share), strict=True)]

    def _alpha_beta(self, step: Step, way: Linear, a: Tensor, up: Tensor) -> Tensor:
        result, constant = torch.zeros_like(a), self._bias(step, a)
        for factor, sign in ((self.alpha, 1), (-self.beta, -1)):
            if factor:  # the terms of one sign: a+ and a- with the weights that give it
                terms = ((a.clamp(min=0), _signed(sign)), (a.clamp(max=0), _signed(-sign)))
                whole = sum(way.part(change)(v) for v, change in terms)
                share = self._share(up, whole + _signed(sign)(constant))
                result += factor * sum(v * way.back([v], share, change)[0] for v, change in terms)
        return result

    def _gamma(self, step: Step, way: Linear, a: Tensor, up: Tensor) -> Tensor:
        constant, size = self._bias(step, a), a.abs()
        sums, sizes = way.part()(a), way.part(torch.abs)(size)
        z = sums + constant
        result = torch.zeros_like(a)
        for sign in (1, -1):  # of z; the terms of that sign sum to (sums + sign * sizes) / 2
            whole = z + self.gamma * ((sums + sign * sizes) / 2 + _signed(sign)(constant))
            share = self._share(up, whole) * (sign * z > 0)
            plain, spread = way.back([a], share)[0], way.back([a], share, torch.abs)[0]
            result += a * plain + self.gamma * (a * plain + sign * size * spread) / 2
        return result

    def _box(self, step: Step, way: Linear, a: Tensor, up: Tensor) -> Tensor:
        ends = [self._replayed(step.inputs[0], side) for side in self.box]
        low, high = torch.minimum(*ends), torch.maximum(*ends)
        terms = ((1, a, None), (-1, low, _signed(1)), (-1, high, _signed(-1)))
        share = self._share(up, sum(sign * way.part(change)(v) for sign, v, change in terms))
        return sum(sign * v * way.back([v], share, change)[0] for sign, v, change in terms)

    def _flat(self, way: Linear, a: Tensor, up: Tensor) -> Tensor:
        whole = way.part(torch.ones_like)(torch.ones_like(a))
        return way.back([a], self._share(up, whole), torch.ones_like)[0]

    def _before_layers(self) -> set[int]:
        """The values that are made of the input without a dense layer or convolution."""
        early = {0}
        for step in self.tape.steps:
            way = linear(step)
            if way and not way.mixes and early.issuperset(step.inputs):
                early.add(step.output)
        return early

    def _replayed(self, wanted: int, x: Tensor) -> Tensor:
        """One of those values for another input."""
        values = {0: x.expand_as(self.tape.values[0])}
        for step in self.tape.steps:
            if step.output in self.early:
                values[step.output] = step(*(values[i] for i in step.inputs))
        return values[wanted]


def _signed(sign: int) -> Callable[[Tensor], Tensor]:
    """What keeps the positive part of a tensor, or the negative one."""
    return lambda v: v.clamp(min=0) if sign > 0 else v.clamp(max=0)
