"""The rules of layer-wise relevance propagation: what a step hands down of its output's relevance.

The formulas are those of `lrp`. A layer a -> z = W a + c takes a batch norm or a constant
right behind it into its W and c.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from tutorial_lib.rules.linear_steps import (
    ACTIVATIONS,
    BATCH_NORMS,
    SELECTIONS,
    Linear,
    bias,
    followed,
    linear,
)
from tutorial_lib.rules.tape import Step, Tape, gradient, no_rule


class Relevance:
    """What a step hands down of the relevance of its output, as a rule for `tape.walk_back`."""

    def __init__(self, tape: Tape, rule: str, epsilon, alpha, beta, gamma, box, biases):
        self.tape, self.rule, self.epsilon, self.biases = tape, rule, epsilon, biases
        self.alpha, self.beta, self.gamma, self.box = alpha, beta, gamma, box
        self.ways = {step.output: linear(step) for step in tape.steps}
        self.early = self._before_layers()
        self.layers = self._layers()
        self.folded = {step.output for _, behind in self.layers.values() for step in behind}

    def __call__(self, step: Step, up: Tensor) -> list[Tensor]:
        """The relevance of each value that the step reads."""
        way, values = self.ways[step.output], self.tape.of(step)
        if step.output in self.folded:  # the layer before it shares out
            return [up]
        if step.name in SELECTIONS and way:
            return way.back(values, up)
        if way is None and step.name in ACTIVATIONS and len(step.inputs) == 1:
            return [up]
        if way is None and "max_pool" in step.name:
            return gradient(self.tape, step, up)
        if way is None:
            raise no_rule("LRP", step)
        if not way.mixes:
            return self._epsilon(way, values, step.output, up)
        return [self._layer(step, values[0], up)]

    def _layer(self, step: Step, a: Tensor, up: Tensor) -> Tensor:
        """A dense layer or convolution: the rule for its kind and place."""
        way, behind = self.layers[step.output]
        composite, dense = self.rule == "composite", step.name != "convolution"
        if composite and step.inputs[0] in self.early:
            return self._box(step, way, a, up) if self.box else self._flat(way, a, up)
        if self.rule == "epsilon" or (composite and dense):
            return self._epsilon(way, [a], [step, *behind][-1].output, up)[0]
        constant = self._constant(step, behind)
        if composite and self.gamma is not None:
            return self._gamma(way, a, constant, up)
        return self._alpha_beta(way, a, constant, up)

    def _layers(self) -> dict[int, tuple[Linear, list[Step]]]:
        """Every dense layer or convolution with the batch norms and constants right behind it."""
        readers: dict[int, list[Step]] = {}
        for step in self.tape.steps:
            for i in step.inputs:
                readers.setdefault(i, []).append(step)
        layers, values = {}, self.tape.values
        for step in self.tape.steps:
            way, behind, last = self.ways[step.output], [], step.output
            while way and way.mixes and len(readers.get(last, [])) == 1:
                (norm,) = readers[last]
                both = followed(way, step, norm) if norm.name in BATCH_NORMS | {"add"} else None
                if both is None or values[norm.output].shape != values[last].shape:
                    break
                way, last = both, norm.output
                behind.append(norm)
            if way and way.mixes:
                layers[step.output] = way, behind
        return layers

    def _constant(self, step: Step, behind: list[Step]) -> Tensor:
        """What a layer makes of zeros; 0 if biases play no part."""
        constant = bias(step, self.tape.of(step))
        for norm in behind:
            constant = norm(constant)
        return constant if self.biases else torch.zeros_like(constant)

    def _share(self, up: Tensor, whole: Tensor) -> Tensor:
        """up / whole, with epsilon away from 0."""
        return up / (whole + torch.full_like(whole, self.epsilon).copysign(whole))

    def _epsilon(self, way: Linear, values: list[Tensor], z: int, up: Tensor) -> list[Tensor]:
        share = self._share(up, self.tape.values[z] if self.biases else way.part()(*values))
        return [v * s for v, s in zip(values, way.back(values, share), strict=True)]

    def _alpha_beta(self, way: Linear, a: Tensor, constant: Tensor, up: Tensor) -> Tensor:
        result = torch.zeros_like(a)
        for factor, sign in ((self.alpha, 1), (-self.beta, -1)):
            if factor:  # the terms of one sign: a+ and a- with the weights that give it
                terms = ((a.clamp(min=0), _signed(sign)), (a.clamp(max=0), _signed(-sign)))
                whole = sum(way.part(change)(v) for v, change in terms)
                share = self._share(up, whole + _signed(sign)(constant))
                result += factor * sum(v * way.back([v], share, change)[0] for v, change in terms)
        return result

    def _gamma(self, way: Linear, a: Tensor, constant: Tensor, up: Tensor) -> Tensor:
        size = a.abs()
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
            way = self.ways[step.output]
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
