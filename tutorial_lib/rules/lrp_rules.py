"""The rules of layer-wise relevance propagation: what a step hands down of its output's relevance.

The words: a *step* is one operation of the forward pass, which reads numbered *values* and makes
one; a *tape* holds the steps and values in order (see `tape.py`). The *linear form* of a step is
its output as a sum of values times fixed coefficients, without the constant (see
`linear_steps.py`): `function(change)` computes it with changed coefficients, and `transpose` goes
from numbers at its output to numbers at its values. A step that is not linear has none.

The formulas are those of `lrp`. A layer a -> z = W a + b is a dense layer or a convolution. It
takes a batch norm or a constant right behind it into its W and b. Each rule divides the relevance
of z by a denominator, and each input gets the quotients times its terms in that denominator.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tutorial_lib.rules import linear_steps, transformer_steps
from tutorial_lib.rules.linear_steps import SOFTMAX, LinearForm
from tutorial_lib.rules.tape import TRANSFORMER, Step, Tape, gradient, no_rule_error, vjp

LAYER_RULES = ("epsilon", "alpha_beta", "gamma", "w_square", "flat", "z_box")


@dataclass
class Relevance:
    """What a step hands down of the relevance of its output, as a rule for `tape.walk_back`.

    Args:
        tape: The steps and values of one forward pass.
        rule_of: Function of a step, and of whether it reads the input or what is made of it without
            a layer, to the name of its rule: one of LAYER_RULES, or "transformer".
        epsilon: Number that keeps denominators from 0.
        alpha: Weight of the positive terms in "alpha_beta".
        beta: Weight of the negative terms there.
        gamma: Extra weight of terms with the sign of z in "gamma".
        input_bounds: (lower, upper) inputs for "z_box".
        biases: Whether biases count in the denominators, and the constant of a softmax.
        positive_sums: Whether sums and means share out by their positive terms alone.
    """

    tape: Tape
    rule_of: Callable[[Step, bool], str]
    epsilon: float
    alpha: float = 1.0
    beta: float = 0.0
    gamma: float = 0.25
    input_bounds: tuple[Tensor, Tensor] | None = None
    biases: bool = True
    positive_sums: bool = False

    def __post_init__(self):
        self.linear_forms = {s.output: linear_steps.linear_form(s) for s in self.tape.steps}
        self.makers = {step.output: step for step in self.tape.steps}
        self.input_side = self._find_input_side()
        self.layers = linear_steps.layers(self.tape)
        fixed = transformer_steps.RECIPROCALS | (set() if self.biases else SOFTMAX)
        self.fixed = transformer_steps.gates(self.tape, fixed)
        self.absorbed = {step.output for _, steps in self.layers.values() for step in steps}

    def __call__(self, step: Step, relevance: Tensor) -> list[Tensor]:
        """Return the relevance of each value that a step reads, given that of its output."""
        form, values = self.linear_forms[step.output], self.tape.values_read_by(step)
        if step.output in self.absorbed:  # the layer before it shares out
            return [relevance]
        if step.name in linear_steps.SELECTIONS and form:
            return form.transpose(values, relevance)
        if form is None and step.name in linear_steps.ACTIVATIONS and len(step.inputs) == 1:
            return [relevance]
        if form is None and "max_pool" in step.name:
            return gradient(self.tape, step, relevance)
        if form is None:
            return self._transformer_rule(step, values, relevance)
        if form.has_weights:
            return [self._layer_rule(step, values[0], relevance)]
        is_sum = step.name in linear_steps.SUMS or len(values) > 1
        if is_sum and self.positive_sums:
            return self._positive_sum_rule(form, values, relevance)
        return self._epsilon_rule(form, values, step.output, relevance)

    def has_choice(self, step: Step) -> bool:
        """Return whether `rule_of` is asked at a step: at layers, products, softmax and norms."""
        fixed = step.name in linear_steps.ACTIVATIONS or "max_pool" in step.name
        form = self.linear_forms[step.output]
        return form.has_weights if form else not fixed

    def _layer_rule(self, step: Step, a: Tensor, relevance: Tensor) -> Tensor:
        """The relevance of the input a of a layer, by the layer's rule."""
        form, absorbed = self.layers[step.output]
        rule = self.rule_of(step, step.inputs[0] in self.input_side)
        if rule == "z_box":
            return self._box_rule(step, form, a, relevance)
        if rule in ("flat", "w_square"):
            change = torch.ones_like if rule == "flat" else torch.square
            return self._weights_rule(form, self._ones(step.inputs[0]), relevance, change)
        if rule in ("epsilon", "transformer"):
            return self._epsilon_rule(form, [a], [step, *absorbed][-1].output, relevance)[0]
        by_terms = self._gamma_rule if rule == "gamma" else self._alpha_beta_rule
        return by_terms(form, a, self._bias(step, absorbed), relevance)

    def _transformer_rule(self, step: Step, values: list, relevance: Tensor) -> list:
        """Share out at a softmax, a norm, a product or a quotient; an error at all other steps."""
        norm = transformer_steps.norm_of(step, values[0])
        product = transformer_steps.product_of(step)
        softmax = step.name in SOFTMAX
        if self.rule_of(step, False) != "transformer":
            raise no_rule_error("LRP", step, TRANSFORMER if norm or product or softmax else "")
        if norm:
            form = norm.with_fixed_deviation(values[0])
            return self._epsilon_rule(form, values, step.output, relevance)
        if product:
            return self._product_rule(step, product, values, relevance)
        if softmax and self.biases:
            return [self._softmax_rule(step, values[0], relevance)]
        if softmax:
            raise no_rule_error(
                "LRP with biases=False",
                step,
                "It would hold the softmax fixed, and the relevance "
                "would stay there, as nothing is multiplied by it. Write biases=True",
            )
        raise no_rule_error("LRP", step)

    def _softmax_rule(self, step: Step, z: Tensor, relevance: Tensor) -> Tensor:
        """The terms of first order at z: z_i (R_i - s_i sum R); masked entries, -inf, get 0."""
        s = self.tape.values[step.output]
        total = relevance.sum(transformer_steps.softmax_dim(step), keepdim=True)
        return z.masked_fill(z.isneginf(), 0) * (relevance - s * total)

    def _product_rule(self, step: Step, product: Callable, values: list, relevance: Tensor) -> list:
        """Half to each of the two factors; all to one of them where the other is held fixed."""
        fixed = [i in self.fixed for i in step.inputs]
        if step.name == "div":  # what values are divided by is held fixed, as a deviation is
            fixed = [False, True]
        one_is_fixed = fixed[0] != fixed[1]
        share = 1.0 if one_is_fixed else 0.5
        if step.name in ("mul", "div"):
            shares = [(relevance * share).sum_to_size(v.shape) for v in values]
        else:
            z = self.tape.values[step.output] if self.biases else product(*values)
            quotients = vjp(product, values, self._divide(relevance, z / share))
            shares = [v * q for v, q in zip(values, quotients, strict=True)]
        pairs = zip(fixed, shares, strict=True)
        return [None if one_is_fixed and is_fixed else r for is_fixed, r in pairs]

    def _bias(self, step: Step, absorbed: list[Step]) -> Tensor:
        """The output of a layer, with the steps that it has absorbed, at 0; 0 without biases."""
        constant = linear_steps.bias(step, self.tape.values_read_by(step))
        for norm in absorbed:
            constant = norm(constant)
        return constant if self.biases else torch.zeros_like(constant)

    def _divide(self, relevance: Tensor, z: Tensor) -> Tensor:
        """relevance / z, with the denominator z moved away from 0 by epsilon."""
        return relevance / (z + torch.full_like(z, self.epsilon).copysign(z))

    def _epsilon_rule(self, form: LinearForm, values: list, output: int, relevance: Tensor) -> list:
        """Share out by c / z, with z what the step makes, or the sum of the c without biases."""
        z = self.tape.values[output] if self.biases else form.function()(*values)
        quotients = form.transpose(values, self._divide(relevance, z))
        return [v * q for v, q in zip(values, quotients, strict=True)]

    def _alpha_beta_rule(self, form: LinearForm, a: Tensor, b: Tensor, relevance: Tensor) -> Tensor:
        """Share out alpha of the relevance by the positive terms, and -beta by the negative."""
        result = torch.zeros_like(a)
        for factor, sign in ((self.alpha, 1), (-self.beta, -1)):
            if factor:  # the terms of one sign: a+ and a- with the weights that give it
                terms = ((a.clamp(min=0), _of_sign(sign)), (a.clamp(max=0), _of_sign(-sign)))
                total = sum(form.function(keep)(v) for v, keep in terms)
                share = self._divide(relevance, total + _of_sign(sign)(b))
                result += factor * sum(v * form.transpose([v], share, keep)[0] for v, keep in terms)
        return result

    def _gamma_rule(self, form: LinearForm, a: Tensor, b: Tensor, relevance: Tensor) -> Tensor:
        """Share out by the terms c, where gamma times those with the sign of z come on top."""
        size = a.abs()
        sums, sizes = form.function()(a), form.function(torch.abs)(size)  # of c and of |c|
        z = sums + b
        result = torch.zeros_like(a)
        for sign in (1, -1):  # of z; the terms of that sign sum to (sums + sign * sizes) / 2
            total = z + self.gamma * ((sums + sign * sizes) / 2 + _of_sign(sign)(b))
            share = self._divide(relevance, total) * (sign * z > 0)
            plain = a * form.transpose([a], share)[0]
            absolute = size * form.transpose([a], share, torch.abs)[0]
            result += plain + self.gamma * (plain + sign * absolute) / 2
        return result

    def _box_rule(self, step: Step, form: LinearForm, a: Tensor, relevance: Tensor) -> Tensor:
        """Share out by the terms of W a less their least possible sum, for inputs in the bounds."""
        ends = [self._recompute(step.inputs[0], bound) for bound in self.input_bounds]
        low, high = torch.minimum(*ends), torch.maximum(*ends)
        # A sign, a value, and the coefficients that it keeps:
        terms = ((1, a, None), (-1, low, _of_sign(1)), (-1, high, _of_sign(-1)))
        share = self._divide(relevance, sum(s * form.function(keep)(v) for s, v, keep in terms))
        return sum(s * v * form.transpose([v], share, keep)[0] for s, v, keep in terms)

    def _weights_rule(
        self, form: LinearForm, ones: Tensor, relevance: Tensor, change: Callable
    ) -> Tensor:
        """Share out by the weights alone: by change(w), whatever the inputs are."""
        total = form.function(change)(ones)  # padding is 0, and gets no share
        return ones * form.transpose([ones], self._divide(relevance, total), change)[0]

    def _ones(self, number: int) -> Tensor:
        """1 for each entry of a value, and 0 for those that a padding in front has made."""
        maker = self.makers.get(number)
        if maker and maker.name == "constant_pad_nd":
            return self.linear_forms[number].function()(self._ones(maker.inputs[0]))
        return torch.ones_like(self.tape.values[number])

    def _positive_sum_rule(self, form: LinearForm, values: list, relevance: Tensor) -> list:
        """Share out at a sum or mean by its positive terms."""
        signs = form.coefficients or [1] * len(values)
        pairs = zip(signs, values, strict=True)
        terms = [_of_sign(1 if sign > 0 else -1)(v) for sign, v in pairs]
        quotients = form.transpose(terms, self._divide(relevance, form.function()(*terms)))
        return [v * q for v, q in zip(terms, quotients, strict=True)]

    def _find_input_side(self) -> set[int]:
        """Numbers of the values that are made of the input without a dense layer or convolution."""
        input_side = {0}
        for step in self.tape.steps:
            form = self.linear_forms[step.output]
            if form and not form.has_weights and input_side.issuperset(step.inputs):
                input_side.add(step.output)
        return input_side

    def _recompute(self, number: int, x: Tensor) -> Tensor:
        """One value of the input side, by its number, for another input x."""
        values = {0: x.expand_as(self.tape.values[0])}
        for step in self.tape.steps:
            if step.output in self.input_side:
                values[step.output] = step(*(values[i] for i in step.inputs))
        return values[number]


def _of_sign(sign: int) -> Callable[[Tensor], Tensor]:
    """A function that keeps the positive entries of a tensor, or the negative ones."""
    return lambda v: v.clamp(min=0) if sign > 0 else v.clamp(max=0)
