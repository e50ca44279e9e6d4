"""The rules of DeepLIFT: how differences pass forward through a step, and multipliers back.

Two runs, one of x and one of a baseline, are kept on tapes. Every value z has a difference
D = z - z0, in two parts D+ >= 0 and D- <= 0 that sum to it, and a multiplier for each part, m+ and
m-. In place of the parts the code keeps sum and size, and in place of m+ and m- half their sum and
half their difference, for in these a dense layer or convolution W is simple:

    D = D+ + D-,  S = D+ - D-                      forward:  W D,  |W| |D|
    mu = (m+ + m-) / 2,  delta = (m+ - m-) / 2     back:     W' mu + sign(D) * (|W|' delta)

because a term w D_j counts as positive by the sign of w and D_j, whatever the parts of D_j are.
A value contributes D+ m+ + D- m- = D mu + S delta.
"""

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tutorial_lib.rules.linear_steps import ACTIVATIONS, DENSE, SHAPES, Linear, linear
from tutorial_lib.rules.recorder import record
from tutorial_lib.rules.tape import Step, Tape, leaves, no_rule, one_hot, pulled, walk_back

NEAR = 1e-7  # a difference below it has no quotient


@dataclass(frozen=True)
class Multipliers:
    """mu and delta of a value; no delta stands for 0, where m+ = m-."""

    mu: Tensor
    delta: Tensor | None = None

    def __add__(self, other: "Multipliers") -> "Multipliers":
        deltas = [d for d in (self.delta, other.delta) if d is not None]
        return Multipliers(self.mu + other.mu, sum(deltas) if deltas else None)


class Explanation:
    """Both tapes of one batch, and the walks over them: sizes forward, multipliers back.

    rules: {module: rule}, and under None the rule of all other activations. parts: follow the
    sizes even where no rule needs them.
    """

    def __init__(self, model, x, baseline, target, rules: dict, normalize=False, parts=False):
        shared = bool((baseline == baseline[:1]).all())  # one baseline for all: one row is enough
        self.at = record(model, x, target)
        self.start = self._of_baseline(model, baseline, target, shared and len(x) > 1)
        if where := self._parting():
            raise ValueError(
                f"model: at {where} it runs another operation, or with other constants, on x than "
                "on the baseline (an if, a loop, a NumPy call or noise that depends on the "
                "values?), so their differences cannot be followed"
            )
        self.at = self.at.logits()
        self.maker = {step.output: step for step in self.at.steps}
        self.target, self.normalize, self.rules = target, normalize, rules
        self.ways = {step.output: self._way(step) for step in self.at.steps}
        ran = {m for step in self._activations() for m in step.modules}
        if idle := [m for m in rules if m is not None and m not in ran]:
            raise ValueError(f"rule: no activation runs inside {idle[0]}, so no rule applies to it")
        self.factors: dict[int, tuple[Tensor, Tensor | None]] = {}
        self.sizes: dict[int, Tensor] = {}
        if parts or any(self.rule(s) == "reveal_cancel" for s in self._activations()):
            self._walk_forward()

    def _of_baseline(self, model, baseline: Tensor, target: Tensor, shared: bool) -> Tape:
        """The tape of the baseline, of one row if it is one for all pictures and that will do."""
        if shared:
            with contextlib.suppress(Exception):  # the model may take no batch of one row
                self.start = record(model, baseline[:1], target)
                if not self._parting():
                    return self.start
        return record(model, baseline, target)

    def difference(self, i: int) -> Tensor:
        """D of a value."""
        return self.at.values[i] - self.start.values[i]

    def multipliers(self) -> Tensor:
        """m of the input, of the shape of x."""
        *_, (_, up) = self.walk_back()
        return up.mu if up.delta is None else up.mu + self.difference(0).sign() * up.delta

    def walk_back(self) -> Iterator[tuple[int, Multipliers]]:
        """The multipliers of every value, from the output to the input."""
        scores = self.at.values[self.at.output]
        seed = one_hot(self.target, scores)
        if self.normalize:
            if scores.shape[1] < 2:
                raise ValueError("normalize: expected a model with at least 2 classes, it has 1")
            seed = seed - 1 / scores.shape[1]
        return walk_back(self.at, self.back, Multipliers(seed))

    def back(self, step: Step, up: Multipliers) -> list[Multipliers]:
        """The multipliers that a step hands to the values that it reads."""
        way, values = self.ways[step.output], self.at.of(step)
        if way is None:
            return [self._activation_back(step, up)]
        mu = way.back(values, up.mu)
        if up.delta is None:
            return [Multipliers(m) for m in mu]
        delta = way.back(values, up.delta, torch.abs)
        if way.mixes:  # the parts of its input play no part, so both get one multiplier
            return [Multipliers(self.difference(step.inputs[0]).sign().mul_(delta[0]).add_(mu[0]))]
        return [Multipliers(m, d) for m, d in zip(mu, delta, strict=True)]

    def _activation_back(self, step: Step, up: Multipliers) -> Multipliers:
        """m+ and m- times the factors of y = g(z): D_y+ / D_z+ and D_y- / D_z-."""
        plus, minus = self.factors.get(step.output) or (self._rescale(step), None)
        if minus is None:  # rescale: one factor for both
            return Multipliers(up.mu * plus, None if up.delta is None else up.delta * plus)
        mu, delta = (plus + minus).div_(2), (plus - minus).div_(2)
        if up.delta is None:
            return Multipliers(mu.mul_(up.mu), delta.mul_(up.mu))
        return Multipliers(
            (mu * up.mu).addcmul_(delta, up.delta), delta.mul_(up.mu).addcmul_(mu, up.delta)
        )

    def _walk_forward(self) -> None:
        """S of every value, and the factors of the activations."""
        self.sizes[0] = self.difference(0).abs()
        for step in self.at.steps:
            way, sizes = self.ways[step.output], [self.sizes[i] for i in step.inputs]
            if way and way.mixes:
                sizes = [self.difference(i).abs() for i in step.inputs]
            if way:
                self.sizes[step.output] = way.part(torch.abs)(*sizes)
            elif self.rule(step) == "reveal_cancel":
                self.sizes[step.output] = self._reveal_cancel(step, *sizes)
            else:
                factor = self._rescale(step)
                self.factors[step.output] = factor, None
                self.sizes[step.output] = factor * sizes[0]

    def _rescale(self, step: Step) -> Tensor:
        """D_y / D_z of an activation y = g(z), or the slope g'(z0) where D_z is almost 0."""
        i = step.inputs[0]
        d, z0 = self.difference(i), self.start.values[i]
        factor = self.difference(step.output).div_(d)
        near = (d.abs() < NEAR).nonzero(as_tuple=True)
        if len(near[0]):
            factor[near] = _slope(step, z0.expand_as(d), near)
        return factor

    def _reveal_cancel(self, step: Step, size: Tensor) -> Tensor:
        """S_y = g(z0 + D+) - g(z0 + D-) of an activation, and its factors.

        The average over both orders of the two parts is D_y+- = (D_y +- S_y) / 2. An empty part
        has as its factor the mean of the slopes just above z0 and just above z0 + the other part.
        """
        i = step.inputs[0]
        d, z0, dy = self.difference(i), self.start.values[i], self.difference(step.output)
        plus = (size + d).div_(2)
        minus = d - plus
        size_y = step(z0 + plus) - step(z0 + minus)
        rounding = 8 * torch.finfo(d.dtype).eps * (size + self.at.values[i].abs() + z0.abs())
        least = rounding + NEAR / 2  # below it a part counts as empty
        factors = []
        for part, other, dy_part in ((plus, minus, dy + size_y), (minus, plus, dy - size_y)):
            factor = dy_part.div_(part).div_(2)
            near = (part.abs() < least).nonzero(as_tuple=True)
            if len(near[0]):
                ends = z0.expand_as(d), z0 + other
                factor[near] = sum(_slope(step, _above(end), near) for end in ends) / 2
            factors.append(factor)
        self.factors[step.output] = tuple(factors)
        return size_y

    def rule(self, step: Step) -> str:
        """The rule of an activation."""
        rule = next((self.rules[m] for m in reversed(step.modules) if m in self.rules), None)
        rule = rule or self.rules.get(None, "rescale")
        if rule != "genomics":
            return rule
        while step.name not in DENSE | {"convolution"} and step.inputs[0] in self.maker:
            step = self.maker[step.inputs[0]]
        return "reveal_cancel" if step.name in DENSE else "rescale"

    def _activations(self) -> list[Step]:
        return [step for step in self.at.steps if self.ways[step.output] is None]

    def _way(self, step: Step) -> Linear | None:
        """The step as a linear one at these two inputs; None for an activation."""
        way = linear(step)
        if way is None and "max_pool" in step.name:
            return self._largest(step)
        if way is None and step.name == "mul" and len(step.inputs) == 2:
            a, b = ((self.at.values[i] + self.start.values[i]) / 2 for i in step.inputs)
            return Linear(lambda c, p, q: p * c[0] + q * c[1], (b, a))
        if way is None and (step.name not in ACTIVATIONS or len(step.inputs) != 1):
            raise no_rule("DeepLIFT", step)
        return way

    def _largest(self, step: Step) -> Linear:
        """Max pooling: the place of the larger of the two maxima gets the whole difference."""
        i, k = step.inputs[0], 3 if "3d" in step.name else 2
        (y, at), (y0, at0) = (step.outputs(tape.values[i]) for tape in (self.at, self.start))
        place = torch.where(y >= y0, at, at0).flatten(-k)
        moved = self.difference(i).flatten(-k).gather(-1, place)
        near = moved.abs() < NEAR
        share = torch.where(near, 1, (y - y0).flatten(-k) / torch.where(near, 1, moved))
        return Linear(lambda c, z: (z.flatten(-k).gather(-1, place) * c[0]).view_as(y), (share,))

    def _parting(self) -> str | None:
        """Where the tapes part: another step, or values that differ in shape beyond the rows."""
        for one, other in itertools.zip_longest(self.at.steps, self.start.steps):
            if not one or not other or not _same(one, other):
                return (one or other).where
            v, w = self.at.values[one.output], self.start.values[one.output]
            if v.shape[1:] != w.shape[1:] or w.shape[:1] not in (v.shape[:1], (1,)):
                return one.where
        return None


def _same(one: Step, other: Step) -> bool:
    """Whether two steps are the same operation on the same values, with equal constants."""
    if (one.name, one.inputs, one.output) != (other.name, other.inputs, other.output):
        return False
    if one.name in SHAPES:  # sizes may hold the number of rows
        return True
    ours, theirs = list(leaves(one.args)), list(leaves(other.args))
    return len(ours) == len(theirs) and all(map(_equal, ours, theirs))


def _equal(a: object, b: object) -> bool:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        try:
            return type(a) is type(b) and bool(a == b)
        except (NotImplementedError, RuntimeError):  # packed weights of a quantized layer
            return a is b
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return (a.data_ptr(), a.stride()) == (b.data_ptr(), b.stride()) or torch.equal(a, b)


def _slope(step: Step, z: Tensor, places: tuple[Tensor, ...]) -> Tensor:
    """g'(z) at some places of z, as PyTorch has it: 0 at the kink of a ReLU."""
    if step.constants():  # one for each channel, so all places together
        return pulled(step, [z], torch.ones_like(z))[0][places]
    z = z[places]
    return pulled(step, [z], torch.ones_like(z))[0]


def _above(z: Tensor) -> Tensor:
    """A number just above z, on the other side of a kink at z."""
    return z + torch.finfo(z.dtype).eps * z.abs().clamp(min=1)
