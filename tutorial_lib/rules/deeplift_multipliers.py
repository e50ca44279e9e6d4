"""The rules of DeepLIFT: how differences pass forward through a step, and multipliers back.

The words: a *step* is one operation of the forward pass, which reads numbered *values* and makes
one; a *tape* holds the steps and values in order (see `tape.py`). The *linear form* of a step is
its output as a sum of values times fixed coefficients, without the constant (see
`linear_steps.py`): `function(change)` computes it with changed coefficients, and `transpose` goes
from numbers at its output to numbers at its values. An activation has none.

Two runs, one of x and one of a baseline, are kept on tapes. Every value z has a difference
D = z - z0, in two parts D+ >= 0 and D- <= 0 that sum to it, and a multiplier for each part, m+ and
m-. In place of the parts the code keeps sum and size, and in place of m+ and m- half their sum and
half their difference, for in these a dense layer or convolution W is simple:

    D = D+ + D-,  S = D+ - D-                      forward:  W D,  |W| |D|
    mu = (m+ + m-) / 2,  delta = (m+ - m-) / 2     back:     W^T mu + sign(D) * (|W|^T delta)

because a term w D_j counts as positive by the sign of w and D_j, whatever the parts of D_j are.
A value contributes D+ m+ + D- m- = D mu + S delta.
"""

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tutorial_lib import checks
from tutorial_lib.rules.linear_steps import DENSE, WITH_SIZES, LinearForm, linear_form
from tutorial_lib.rules.recorder import record
from tutorial_lib.rules.secant_forms import secant_form
from tutorial_lib.rules.tape import Step, Tape, no_rule_error, one_hot, tree_leaves, vjp, walk_back
from tutorial_lib.rules.transformer_steps import RECIPROCALS, gates, is_activation

# Not defined on both sides of 0, as roots are: a part of a difference may lead to no number.
ON_A_HALF_LINE = {"log", "log1p", "reciprocal", "rsqrt", "sqrt"}
TINY = 1e-7  # a difference below it has no quotient


@dataclass(frozen=True)
class Multipliers:
    """The multipliers of a value: mu = (m+ + m-) / 2 and delta = (m+ - m-) / 2.

    No delta stands for 0, where m+ = m-.
    """

    mu: Tensor
    delta: Tensor | None = None

    def __add__(self, other: "Multipliers") -> "Multipliers":
        deltas = [d for d in (self.delta, other.delta) if d is not None]
        return Multipliers(self.mu + other.mu, sum(deltas) if deltas else None)


class Explanation:
    """Both tapes of one batch, and the walks over them: sizes forward, multipliers back.

    Args:
        model: Callable from (N, ...) to scores (N, C).
        x: (N, ...) inputs.
        baseline: (N, ...) baseline of each input.
        target: LongTensor (N,) of class indices.
        rules: {module: rule}, and under None the rule of all other activations.
        normalize: Whether to subtract the mean of the multipliers over the classes.
        parts: Whether to follow the sizes S even where no rule needs them.
    """

    def __init__(self, model, x, baseline, target, rules: dict, normalize=False, parts=False):
        one_row = len(x) > 1 and bool((baseline == baseline[:1]).all())
        self.tape = record(model, x, target).without_choices()
        self.baseline_tape = self._record_baseline(model, baseline, target, one_row)
        if location := self._divergence():
            raise ValueError(
                f"model: at {location} it runs another operation, or with other constants, on x "
                "than on the baseline (a mask or place that depends on the values, an if, a loop, "
                "a NumPy call or noise?), so their differences cannot be followed. Write a ReLU as "
                "nn.ReLU, the larger of two as a + (b - a).relu(), or take a baseline for which "
                "the model chooses alike"
            )
        self.tape = self.tape.logits()
        self.makers = {step.output: step for step in self.tape.steps}
        self.target = target
        self.normalize = normalize
        self.rules = rules
        self.reciprocals = gates(self.tape, RECIPROCALS)
        self.linear_forms = {step.output: self._linear_form(step) for step in self.tape.steps}
        explained = {m for step in self._activations() for m in step.modules}
        if idle := [m for m in rules if m is not None and m not in explained]:
            raise ValueError(f"rule: no activation runs inside {idle[0]}, so no rule applies to it")
        self.factors: dict[int, tuple[Tensor, Tensor | None]] = {}  # D_y+ / D_z+, D_y- / D_z-
        self.sizes: dict[int, Tensor] = {}  # S of each value, by its number
        if parts or any(self.rule(s) == "reveal_cancel" for s in self._activations()):
            self._compute_sizes()

    def _record_baseline(self, model, baseline: Tensor, target: Tensor, try_one_row: bool) -> Tape:
        """The tape of the baseline; of one row if that is enough and the model takes it."""
        if try_one_row:
            with contextlib.suppress(Exception):  # the model may take no batch of one row
                self.baseline_tape = record(model, baseline[:1], target).without_choices()
                if not self._divergence():
                    return self.baseline_tape
        return record(model, baseline, target).without_choices()

    def difference(self, i: int) -> Tensor:
        """Return D = z - z0 of the value with number i."""
        return self.tape.values[i] - self.baseline_tape.values[i]

    def multipliers(self) -> Tensor:
        """Return m of the input: a tensor of the shape of x."""
        checks.gradient(self.tape.values.get(0))
        *_, (_, m) = self.walk_back()
        return m.mu if m.delta is None else m.mu + self.difference(0).sign() * m.delta

    def walk_back(self) -> Iterator[tuple[int, Multipliers]]:
        """Yield (number, multipliers) of every value, from the output to the input."""
        scores = self.tape.values[self.tape.output]
        mu = one_hot(self.target, scores)
        if self.normalize:
            if scores.shape[1] < 2:
                raise ValueError("normalize: expected a model with at least 2 classes, it has 1")
            mu = mu - 1 / scores.shape[1]
        return walk_back(self.tape, self.apply_rule, Multipliers(mu))

    def apply_rule(self, step: Step, at_output: Multipliers) -> list[Multipliers]:
        """Return the multipliers that go from the output of a step to each value that it reads."""
        form, values = self.linear_forms[step.output], self.tape.values_read_by(step)
        if form is None:
            return [self._apply_activation_rule(step, at_output)]
        mu = form.transpose(values, at_output.mu)
        if at_output.delta is None:
            return [Multipliers(m) for m in mu]
        delta = form.transpose(values, at_output.delta, torch.abs)
        if form.has_weights:  # the parts of its input play no part, so both get one multiplier
            return [Multipliers(self.difference(step.inputs[0]).sign().mul_(delta[0]).add_(mu[0]))]
        return [Multipliers(m, d) for m, d in zip(mu, delta, strict=True)]

    def _apply_activation_rule(self, step: Step, m: Multipliers) -> Multipliers:
        """The m at the output of y = g(z) times the factors D_y+ / D_z+ and D_y- / D_z-."""
        plus, minus = self.factors.get(step.output) or (self._rescale_factor(step), None)
        if minus is None:  # rescale: one factor for both
            return Multipliers(m.mu * plus, None if m.delta is None else m.delta * plus)
        mu, delta = (plus + minus).div_(2), (plus - minus).div_(2)
        if m.delta is None:
            return Multipliers(mu.mul_(m.mu), delta.mul_(m.mu))
        return Multipliers(
            (mu * m.mu).addcmul_(delta, m.delta), delta.mul_(m.mu).addcmul_(mu, m.delta)
        )

    def _compute_sizes(self) -> None:
        """Walk forward: S = D+ - D- of every value, and the factors of the activations."""
        self.sizes[0] = self.difference(0).abs()
        for step in self.tape.steps:
            form, sizes = self.linear_forms[step.output], [self.sizes[i] for i in step.inputs]
            if form and form.has_weights:
                sizes = [self.difference(i).abs() for i in step.inputs]
            if form:
                self.sizes[step.output] = form.function(torch.abs)(*sizes)
            elif self.rule(step) == "reveal_cancel":
                self.sizes[step.output] = self._apply_reveal_cancel(step, *sizes)
            else:
                factor = self._rescale_factor(step)
                self.factors[step.output] = factor, None
                self.sizes[step.output] = factor * sizes[0]

    def _rescale_factor(self, step: Step) -> Tensor:
        """D_y / D_z of an activation y = g(z), or the slope g'(z0) where D_z is almost 0."""
        i = step.inputs[0]
        d, z0 = self.difference(i), self.baseline_tape.values[i]
        factor = self.difference(step.output).div_(d)
        tiny = (d.abs() < TINY).nonzero(as_tuple=True)
        if len(tiny[0]):
            factor[tiny] = _slope(step, z0.expand_as(d), tiny)
        return factor

    def _apply_reveal_cancel(self, step: Step, size: Tensor) -> Tensor:
        """Return S_y = g(z0 + D+) - g(z0 + D-) of an activation y = g(z), and keep its factors.

        The average over both orders of the two parts is D_y+- = (D_y +- S_y) / 2. An empty part
        has as its factor the mean of the slopes just above z0 and just above z0 + the other part.
        """
        i = step.inputs[0]
        d, z0, dy = self.difference(i), self.baseline_tape.values[i], self.difference(step.output)
        plus = (size + d).div_(2)
        minus = d - plus
        size_y = step(z0 + plus) - step(z0 + minus)
        rounding = 8 * torch.finfo(d.dtype).eps * (size + self.tape.values[i].abs() + z0.abs())
        least = rounding + TINY / 2  # below it a part counts as empty
        factors = []
        for part, other, dy_part in ((plus, minus, dy + size_y), (minus, plus, dy - size_y)):
            factor = dy_part.div_(part).div_(2)
            empty = (part.abs() < least).nonzero(as_tuple=True)
            if len(empty[0]):
                points = z0.expand_as(d), z0 + other
                factor[empty] = sum(_slope(step, _just_above(z), empty) for z in points) / 2
            factors.append(factor)
        self.factors[step.output] = tuple(factors)
        return size_y

    def rule(self, step: Step) -> str:
        """Return the rule of an activation: "rescale" or "reveal_cancel"."""
        rule = next((self.rules[m] for m in reversed(step.modules) if m in self.rules), None)
        rule = rule or self.rules.get(None, "rescale")
        if step.name in ON_A_HALF_LINE or _is_broken_power(step):
            return "rescale"
        if rule != "genomics":
            return rule
        while step.name not in DENSE | {"convolution"} and step.inputs[0] in self.makers:
            step = self.makers[step.inputs[0]]
        return "reveal_cancel" if step.name in DENSE else "rescale"

    def _activations(self) -> list[Step]:
        """The steps without a linear form."""
        return [step for step in self.tape.steps if self.linear_forms[step.output] is None]

    def _linear_form(self, step: Step) -> LinearForm | None:
        """The step as a linear one at these two inputs; None for an activation."""
        form = linear_form(step)
        if form is None and "max_pool" in step.name:
            return self._max_pool_form(step)
        if form is None and not is_activation(step):
            values, baseline = (t.values_read_by(step) for t in (self.tape, self.baseline_tape))
            reciprocal = [i in self.reciprocals for i in step.inputs]
            form = secant_form(step, values, baseline, reciprocal)
        if form is None and not is_activation(step):
            raise no_rule_error("DeepLIFT", step)
        return form

    def _max_pool_form(self, step: Step) -> LinearForm:
        """Max pooling: the position of the larger of the two maxima gets the whole difference."""
        i, k = step.inputs[0], 3 if "3d" in step.name else 2  # k: dimensions of the window
        y, index = step.outputs(self.tape.values[i])
        y0, index0 = step.outputs(self.baseline_tape.values[i])
        index = torch.where(y >= y0, index, index0).flatten(-k)
        d = self.difference(i).flatten(-k).gather(-1, index)
        tiny = d.abs() < TINY
        rate = torch.where(tiny, 1, (y - y0).flatten(-k) / torch.where(tiny, 1, d))  # D_y / D
        return LinearForm(lambda c, z: (z.flatten(-k).gather(-1, index) * c[0]).view_as(y), (rate,))

    def _divergence(self) -> str | None:
        """Where the tapes diverge: another step, or values that differ in shape beyond the rows."""
        for step, other in itertools.zip_longest(self.tape.steps, self.baseline_tape.steps):
            if not step or not other or not _same_operation(step, other):
                return _place(step or other)
            v, v0 = self.tape.values[step.output], self.baseline_tape.values[other.output]
            if v.shape[1:] != v0.shape[1:] or v0.shape[:1] not in (v.shape[:1], (1,)):
                return _place(step)
        return None


def _place(step: Step) -> str:
    """Where a step is and what it does, for messages."""
    return f"{step.location}, {step.name},"


def _same_operation(step: Step, other: Step) -> bool:
    """Whether two steps are the same operation on the same values, with equal constants."""
    if (step.name, step.inputs, step.output) != (other.name, other.inputs, other.output):
        return False
    if step.name in WITH_SIZES:  # sizes may hold the number of rows
        return True
    arguments, others = list(tree_leaves(step.args)), list(tree_leaves(other.args))
    return len(arguments) == len(others) and all(map(_equal, arguments, others))


def _equal(a: object, b: object) -> bool:
    """Whether two arguments of an operation are the same, tensors by their entries."""
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        try:
            return type(a) is type(b) and bool(a == b)
        except (NotImplementedError, RuntimeError):  # packed weights of a quantized layer
            return a is b
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return (a.data_ptr(), a.stride()) == (b.data_ptr(), b.stride()) or torch.equal(a, b)


def _is_broken_power(step: Step) -> bool:
    """Whether a step is a power that is not defined, or not finite, on both sides of 0."""
    power = step.argument(1) if step.name == "pow" else 1
    return isinstance(power, int | float) and (power < 0 or not float(power).is_integer())


def _slope(step: Step, z: Tensor, indices: tuple[Tensor, ...]) -> Tensor:
    """g'(z[indices]) of an activation y = g(z), as PyTorch has it: 0 at the kink of a ReLU."""
    if step.constants():  # one for each channel, so all entries together
        return vjp(step, [z], torch.ones_like(z))[0][indices]
    z = z[indices]
    return vjp(step, [z], torch.ones_like(z))[0]


def _just_above(z: Tensor) -> Tensor:
    """A number just above z, on the other side of a kink at z."""
    return z + torch.finfo(z.dtype).eps * z.abs().clamp(min=1)
