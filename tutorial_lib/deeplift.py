"""DeepLIFT: differences from a reference, handed back through the network by multipliers.

Two runs, one of x and one of the baseline b, are kept on tapes. Every value has a difference D,
in two parts D+ >= 0 and D- <= 0 that sum to it, and a multiplier for each part, m+ and m-. The
code keeps sums and differences instead, because both channels then pass a linear layer W alike:

    D = D+ + D-,  S = D+ - D-        forward:   W D,   |W| |D|
    mu = (m+ + m-)/2,  delta = (m+ - m-)/2      backward:  W'mu + sign(D) |W|'delta

Where the Rescale rule is used alone m+ = m-, and the second channel is left out.
"""

import difflib
import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import pandas
import torch
from torch import Tensor, nn

from tutorial_lib import checks, probes
from tutorial_lib.engine import average
from tutorial_lib.linear import ACTIVATIONS, DENSE, Linear, linear
from tutorial_lib.tape import Step, no_rule, one_hot, pulled, record, walk_back

RULES = ("rescale", "reveal_cancel", "genomics")
NEAR = 1e-7  # differences below it have no quotient


def deeplift(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    baseline: float | Tensor = 0.0,
    rule: str | Mapping[nn.Module | str, str] = "rescale",
    normalize: bool = False,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Contributions of the input's differences from a baseline to the score's difference.

    A(x) = (x - b) * m(x, b),  sum_i A_i = f(x) - f(b),  m by the chain rule for multipliers
    (Shrikumar et al., 2017, Sec. 3). Units: score. At each activation y = g(z), with D_z = z - z0:
    "rescale" (Sec. 3.5.2): m = D_y / D_z, and g'(z0) where |D_z| < 1e-7;
    "reveal_cancel" (Sec. 3.5.3): m+ = D_y+ / D_z+ with the Shapley value of two players,
        D_y+ = 1/2 [g(z0 + D_z+) - g(z0)] + 1/2 [g(z0 + D_z- + D_z+) - g(z0 + D_z-)], m- likewise;
        where a part is empty, the mean of the slopes just above z0 and above z0 + the other part.
    Dense layers and convolutions share out by the sign of weight times total difference; scaling,
    adding, pooling and reshaping pass the two parts on; max pooling gives the difference to the
    place of the larger maximum, and a product of two values half of each order
    (m = mean of the other factor). As the original package computes them, but for max pooling,
    which there sums to the difference only if the maximum stays in its place.

    baseline: b, a number or a tensor broadcastable to x (one, or one for each picture).
    rule: for all activations, or {module or its dotted name: rule}: activations inside the nearest
        named module follow its rule, all others "rescale". "genomics" is "reveal_cancel" after
        dense layers and "rescale" after convolutions.
    normalize: subtract the mean of the contributions to all classes (Sec. 3.6, for softmax).
    If the last operation is softmax, log_softmax or sigmoid, f is the logit before it.
    Cost: about 2 gradients a picture for rescale, 4 for reveal_cancel. Memory: all activations of
    the 2 forward passes of batch_size pictures, and as much again for reveal_cancel.

    Raises ValueError or TypeError that names the argument at fault; NotImplementedError that names
    the operation, and where it is, for one without a rule.

    >>> f = lambda x: x[:, :1] - torch.relu(x[:, :1] - x[:, 1:])
    >>> tl.deeplift(f, torch.tensor([[3.0, 1.0]]), 0, rule="reveal_cancel")
    tensor([[0.5000, 0.5000]])
    """
    rules = _rules(model, rule)

    def slope(network: Callable, pairs: Tensor, labels: Tensor) -> Tensor:
        return Explanation(network, *pairs.unbind(1), labels, rules, normalize).multipliers()

    places = partial(probes.pair, baseline=baseline, seed=seed)
    return average(model, x, target, places, batch_size=batch_size, progress=progress, slope=slope)


class Explanation:
    """Both tapes of one batch, and the walks over them: sizes forward, multipliers back."""

    def __init__(self, model, x, baseline, target, rules: dict, normalize=False, both=False):
        shared = bool((baseline == baseline[:1]).all())  # one baseline for all: one row is enough
        self.at = record(model, x, target)
        self.start = record(model, baseline[:1] if shared else baseline, target[:1])
        if shared and len(x) > 1 and not self._aligned():
            self.start = record(model, baseline, target)
        if not self._aligned():
            raise ValueError(
                "model: it runs other operations on x than on the baseline (an if or a loop that "
                "depends on the values?), so their differences cannot be followed"
            )
        self.maker = {step.output: step for step in self.at.steps}
        self.at = self.at.logits()
        self.target, self.normalize, self.rules = target, normalize, rules
        self.factors: dict[int, tuple[Tensor, Tensor]] = {}  # of activations: m+ / m+, m- / m-
        self.sizes: dict[int, Tensor] = {}
        self.revealing = both or any(self.rule(s) == "reveal_cancel" for s in self.at.steps)
        if self.revealing:
            self._walk_forward()

    def multipliers(self) -> Tensor:
        """m of the input, of the shape of x."""
        *_, (_, up) = self.walk_back()
        return up[0] + self.difference(0).sign() * up[1] if self.revealing else up[0]

    def walk_back(self) -> Iterator[tuple[int, Tensor]]:
        """Pairs (value, its multipliers): (mu, delta) stacked, or mu alone."""
        return walk_back(self.at, self.back, self.seed())

    def difference(self, i: int) -> Tensor:
        """D of a value."""
        return self.at.values[i] - self.start.values[i]

    def seed(self) -> Tensor:
        """Both multipliers of the output: 1 on the target, less the mean over classes if asked."""
        scores = self.at.values[self.at.output]
        mu = one_hot(self.target, scores)
        if self.normalize and scores.shape[1] < 2:
            raise ValueError("normalize: expected a model with at least 2 classes, it has 1")
        mu = mu - 1 / scores.shape[1] if self.normalize else mu
        return torch.stack([mu, torch.zeros_like(mu)] if self.revealing else [mu])

    def rule(self, step: Step) -> str | None:
        """The rule of an activation; None for other steps."""
        if step.name not in ACTIVATIONS or len(step.inputs) != 1:
            return None
        rule = next((self.rules[m] for m in reversed(step.modules) if m in self.rules), None)
        rule = rule or self.rules.get(None, "rescale")
        if rule != "genomics":
            return rule
        while step.name not in DENSE | {"convolution"} and step.inputs[0] in self.maker:
            step = self.maker[step.inputs[0]]
        return "reveal_cancel" if step.name in DENSE else "rescale"

    def back(self, step: Step, up: Tensor) -> list[Tensor]:
        """The multipliers that a step hands to the values that it reads."""
        way = self._way(step)
        if way is None:
            plus, minus = self.factors.get(step.output) or self._factors(step)
            mu, delta = (plus + minus) / 2, (plus - minus) / 2
            return [mu * up + delta * up.flip(0) if self.revealing else mu * up]
        values = self.at.of(step)
        mu = pulled(way.part(), values, up[0])
        if not self.revealing:
            return [m[None] for m in mu]
        delta = [torch.zeros_like(m) for m in mu]
        if bool(up[1].any()):
            delta = pulled(way.part(torch.abs), values, up[1])
        if way.mixes:  # both parts get one multiplier, by the sign of their sum
            (m,), (d,) = mu, delta
            mu, delta = [m + self.difference(step.inputs[0]).sign() * d], [torch.zeros_like(d)]
        return [torch.stack(pair) for pair in zip(mu, delta, strict=True)]

    def _walk_forward(self) -> None:
        """S of every value, and the factors of the activations."""
        self.sizes[0] = self.difference(0).abs()
        for step in self.at.steps:
            way = self._way(step)
            if way is None:
                plus, minus = self.factors[step.output] = self._factors(step)
                d, s = self.difference(step.inputs[0]), self.sizes[step.inputs[0]]
                self.sizes[step.output] = (plus * (s + d) + minus * (s - d)) / 2
            else:
                inside = [
                    self.difference(i).abs() if way.mixes else self.sizes[i] for i in step.inputs
                ]
                self.sizes[step.output] = way.part(torch.abs)(*inside)

    def _factors(self, step: Step) -> tuple[Tensor, Tensor]:
        """D_y+ / D_z+ and D_y- / D_z- of an activation y = g(z)."""
        i, rule = step.inputs[0], self.rule(step)
        d, z0, y0 = self.difference(i), self.start.values[i], self.start.values[step.output]
        if rule == "rescale":
            near = d.abs() < NEAR
            factor = self.difference(step.output) / torch.where(near, 1, d)
            if bool(near.any()):
                factor = torch.where(near, _slope(step, z0), factor)
            return factor, factor
        plus, minus = (d + self.sizes[i]) / 2, (d - self.sizes[i]) / 2
        y, y_plus, y_minus = self.at.values[step.output], step(z0 + plus), step(z0 + minus)
        least = (8 * torch.finfo(d.dtype).eps * self.sizes[i]).clamp(min=NEAR / 2)
        factors = []
        for part, own, other, others in (
            (plus, y_plus, minus, y_minus),
            (minus, y_minus, plus, y_plus),
        ):
            empty = part.abs() < least
            factor = (own - y0 + y - others) / 2 / torch.where(empty, 1, part)
            if bool(empty.any()):
                limit = (_slope(step, _above(z0)) + _slope(step, _above(z0 + other))) / 2
                factor = torch.where(empty, limit, factor)
            factors.append(factor)
        return factors[0], factors[1]

    def _way(self, step: Step) -> Linear | None:
        """The step as a linear one at these two inputs; None for an activation."""
        way = linear(step)
        if way is None and step.name.startswith(("max_pool", "adaptive_max_pool")):
            way = self._largest(step)
        if way is None and step.name == "mul" and len(step.inputs) == 2:
            a, b = ((self.at.values[i] + self.start.values[i]) / 2 for i in step.inputs)
            way = Linear(lambda c, p, q: p * c[0] + q * c[1], (b, a))
        if way is None and self.rule(step) is None:
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

    def _aligned(self) -> bool:
        """Whether both tapes hold the same steps, on values of one shape but for the rows."""
        ours, theirs = (
            [(s.name, s.inputs, s.output) for s in tape.steps] for tape in (self.at, self.start)
        )
        pairs = [(v, self.start.values.get(i)) for i, v in self.at.values.items()]
        return ours == theirs and all(
            v.shape[1:] == w.shape[1:] and w.shape[:1] in (v.shape[:1], (1,)) for v, w in pairs
        )

    def table(self, i: int, up: Tensor) -> pandas.DataFrame:
        """One value of a single picture with its multipliers, a row for each unit."""
        step, d, s = self.maker.get(i), self.difference(i), self.sizes[i]
        mu, delta = up
        columns = {
            "reference": self.start.values[i],
            "value": self.at.values[i],
            "D": d,
            "D+": (d + s) / 2,
            "D-": (d - s) / 2,
            "m+": mu + delta,
            "m-": mu - delta,
            "contribution": mu * d + delta * s,
        }
        shape = d.shape[1:]
        rows = pandas.DataFrame({name: v.flatten().tolist() for name, v in columns.items()})
        units = [", ".join(map(str, place)) for place in itertools.product(*map(range, shape))]
        rows.insert(0, "unit", units)
        rows.insert(0, "where", step.where if step else "")
        rows.insert(0, "operation", step.name if step else "input")
        rows.index = pandas.Index([i] * len(rows), name="step")
        return rows


def deeplift_trace(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    baseline: float | Tensor = 0.0,
    rule: str | Mapping[nn.Module | str, str] = "rescale",
    normalize: bool = False,
) -> pandas.DataFrame:
    """Every step of `deeplift` on one picture, a row for each unit, for networks that fit the eye.

    Columns: operation, where, unit, reference, value, D, D+, D-, m+, m-, contribution
    (= D+ m+ + D- m-), in the order of the forward pass. The index is the number of the value: 0
    is the input. Arguments and errors as `deeplift`; ValueError beyond 1000 units.

    >>> tl.deeplift_trace(f, torch.tensor([[3.0, 1.0]]), 0, rule="reveal_cancel")
    """
    checks.model(model)
    x = checks.pictures(x)
    if len(x) != 1:
        raise ValueError(f"x: expected one picture, shape (1, ...), got {tuple(x.shape)}")
    target = checks.target(target, x)
    start = checks.broadcastable("baseline", baseline, x).expand_as(x)
    with torch.inference_mode(False), torch.no_grad():
        told = Explanation(model, x, start, target, _rules(model, rule), normalize, both=True)
        units = sum(v.numel() for v in told.at.values.values())
        if units > 1000:
            raise ValueError(f"model: expected at most 1000 units to write down, it has {units}")
        tables = [told.table(i, up) for i, up in told.walk_back()]
    return pandas.concat(tables[::-1])


def _rules(model: Callable, rule: str | Mapping) -> dict[nn.Module | None, str]:
    """{module: rule}, and the rule of all other activations under None."""
    if not isinstance(rule, Mapping):
        checks.choice("rule", rule, RULES)
        return {None: rule}
    if not isinstance(model, nn.Module):
        raise TypeError("rule: a mapping from modules needs a model that is an nn.Module")
    named = dict(model.named_modules())
    rules = {}
    for key, value in rule.items():
        checks.choice("rule", value, RULES)
        module = named.get(key) if isinstance(key, str) else key
        if not any(module is m for m in named.values()):
            close = difflib.get_close_matches(str(key), named, n=5, cutoff=0) or [*named][:5]
            raise ValueError(f"rule: {key!r} is no module of the model; some are {close}")
        rules[module] = value
    return rules


def _slope(step: Step, z: Tensor) -> Tensor:
    """g'(z), as PyTorch has it: 0 at the kink of a ReLU."""
    return pulled(step, [z], torch.ones_like(z))[0]


def _above(z: Tensor) -> Tensor:
    """A number just above z, on the other side of a kink at z."""
    return z + torch.finfo(z.dtype).eps * z.abs().clamp(min=1)
