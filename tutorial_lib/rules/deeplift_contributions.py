"""DeepLIFT: contributions of differences from a baseline, with the Rescale and RevealCancel rules.

The mathematics of a step, which is one operation of the model, is in `deeplift_multipliers.py`;
here are the public functions.
"""

import itertools
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from tutorial_lib import checks
from tutorial_lib.averaging import probes
from tutorial_lib.averaging.engine import average
from tutorial_lib.fast.precision_modes import precision_for
from tutorial_lib.rules.deeplift_multipliers import Explanation, Multipliers
from tutorial_lib.rules.linear_steps import DENSE
from tutorial_lib.rules.module_names import find_module

RULES = ("rescale", "reveal_cancel", "genomics")


def deeplift(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    baseline: float | Tensor = 0.0,
    baselines: Tensor | None = None,
    rule: str | Mapping[nn.Module | str, str] = "rescale",
    normalize: bool = False,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Share out the score's difference from a baseline among the differences of the inputs.

        A(x) = (x - b) * m(x, b),    sum_i A_i = f(x) - f(b)

    Shrikumar et al. (2017), Sec. 3: the multipliers m come from the chain rule for multipliers. The
    rule says what they are at each activation y = g(z), with z0 its value at the baseline and
    D_z = z - z0:

        rescale (Sec. 3.5.2)         m = D_y / D_z,  and g'(z0) where |D_z| < 1e-7
        reveal_cancel (Sec. 3.5.3)   m+ = D_y+ / D_z+,  and m- likewise, with
            D_y+ = 1/2 [g(z0 + D_z+) - g(z0)] + 1/2 [g(z0 + D_z- + D_z+) - g(z0 + D_z-)]

    In the second, D_z+ and D_z- are the positive and the negative part of the difference, and
    D_y+ is the Shapley value of two players. Where a part is empty, its multiplier is the mean of
    the slopes just above z0 and above z0 + the other part.

    Dense layers and convolutions share out by the sign of weight times total difference. Scaling,
    adding, pooling and reshaping pass the two parts on. Max pooling gives the difference to the
    place of the larger maximum. A product of two values gives half of each order: m is the mean of
    the other factor. All of this is as the original package computes it, but for max pooling, which
    there sums to the difference only if the maximum stays in its place.

    Transformers are made of more. With D for differences and m(a) for the mean of a at x and b, a
    product of matrices is a sum of products, a quotient is D(a/b) = (D a - m(a/b) D b) / m(b), and
    softmax and norms are quotients: of e^z, whose slope is D e^z / D z, by its sum, and of centred
    values by their deviation. All of these sum to the difference, and in "reveal_cancel" they pass
    the two parts on. Attention, nn.LSTM and nn.GRU are opened into such steps. torch.where hands
    back to what it has chosen, if it chooses alike at x and b.

    If the last operation is softmax, log_softmax or sigmoid, f is the logit before it.

    With `baselines` the contributions are averaged over K points b: Deep SHAP (Lundberg & Lee,
    2017). They sum to f(x) minus the mean score of the baselines, at K times the cost.

    Cost on a CPU: 1.5 to 3 gradients a picture for rescale, 3 to 8 for reveal_cancel, more where
    layers are thin (benchmarks/backward.py measures). Memory: all activations of the 2 forward
    passes of batch_size pictures, and as much again for reveal_cancel.

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
        x: (B, ...) finite floating-point inputs.
        target: Class index, or LongTensor (B,) with one for each input.
        baseline: b, a number or a tensor broadcastable to x: one for all inputs, or one for each.
        baselines: (K, ...), K points that all inputs are compared with, in place of `baseline`.
        rule: "rescale", "reveal_cancel" or "genomics" for all activations, or {module or its dotted
            name: rule}. Then activations inside the nearest named module follow its rule, and all
            others "rescale". "genomics" is "reveal_cancel" after dense layers and "rescale" after
            convolutions; after a sum it is what the first term follows.
        normalize: Whether to subtract the mean of the contributions to all classes (Sec. 3.6, for
            softmax).
        batch_size: Inputs in a forward pass; None chooses by the device and the size of x.
        seed: It changes nothing, as no noise is drawn; every method takes it.
        progress: Whether to show a progress bar.

    Returns:
        (B, ...) attributions in units of the score.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, no activation runs inside a module that `rule`
            names, the model runs other operations on x than on the baseline, its rows are not
            independent, or the result is not finite.
        NotImplementedError: An operation has no rule, or writes in place in a way that cannot be
            followed; the message names it and says where it is.

    Example:
        The smaller of two numbers, computed by a ReLU:

        >>> smaller = lambda x: x[:, :1] - torch.relu(x[:, :1] - x[:, 1:])
        >>> tl.deeplift(smaller, torch.tensor([[3.0, 1.0]]), 0, rule="reveal_cancel")
        tensor([[0.5000, 0.5000]])
        >>> tl.deeplift(smaller, torch.tensor([[3.0, 1.0]]), 0)
        tensor([[0., 1.]])
    """
    rules = _rules_by_module(model, rule)
    checks.flag("normalize", normalize)

    def multipliers(network: Callable, pairs: Tensor, target: Tensor) -> Tensor:
        return Explanation(network, *pairs.unbind(1), target, rules, normalize).multipliers()

    probe_function = partial(probes.pair, baseline=baseline, baselines=baselines, seed=seed)
    options = dict(batch_size=batch_size, progress=progress, gradient_of=multipliers)
    return average(model, x, target, probe_function, **options)


def deeplift_trace(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    baseline: float | Tensor = 0.0,
    rule: str | Mapping[nn.Module | str, str] = "rescale",
    normalize: bool = False,
) -> "pandas.DataFrame":  # noqa: F821
    """Write down every step of `deeplift` on one picture, for networks that fit the eye.

    A step is one operation of the model. Each unit contributes

        contribution = D+ m+ + D- m-

    with D+ and D- the positive and the negative part of its difference D from the baseline, and m+
    and m- their multipliers.

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode. It
            has at most 1000 units, the inputs among them.
        x: (1, ...), one finite floating-point input.
        target: Class index, or LongTensor (1,).
        baseline: A number or a tensor broadcastable to x.
        rule: As in `deeplift`: one for all activations, or {module or its dotted name: rule}.
        normalize: Whether to subtract the mean of the contributions to all classes.

    Returns:
        A row for each unit, in the order of the forward pass. The columns are operation, module,
        unit, reference (the unit's value at the baseline), value (at x), D, D+, D-, m+, m- and
        contribution. The index is the number of the step, 0 for the input.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, x is not one input, or there are more than 1000
            units; otherwise as in `deeplift`.
        NotImplementedError: An operation has no rule, as in `deeplift`.
        ImportError: There is no pandas, which comes with the extra `show`.

    Example:
        >>> smaller = lambda x: x[:, :1] - torch.relu(x[:, :1] - x[:, 1:])
        >>> table = tl.deeplift_trace(smaller, torch.tensor([[3.0, 1.0]]), 0, rule="reveal_cancel")
        >>> table[table.operation == "relu"][["value", "D+", "D-", "m+", "m-"]].values.tolist()
        [[2.0, 2.5, -0.5, -1.0, -1.0]]
        >>> table[table.operation == "input"].contribution.tolist()
        [0.5, 0.5]
    """
    concat = checks.extra("pandas", "show").concat
    checks.model(model)
    x = checks.pictures(x)
    if len(x) != 1:
        raise ValueError(f"x: expected one picture, shape (1, ...), got {tuple(x.shape)}")
    target = checks.target(target, x)
    start = checks.broadcastable("baseline", baseline, x).expand_as(x)
    checks.flag("normalize", normalize)
    rules = _rules_by_module(model, rule)
    with torch.inference_mode(False), torch.no_grad(), precision_for(x.device, exact=True):
        explanation = Explanation(model, x, start, target, rules, normalize, parts=True)
        units = sum(v.numel() for v in explanation.tape.values.values())
        if units > 1000:
            raise ValueError(f"model: expected at most 1000 units to write down, it has {units}")
        tables = [_table(explanation, i, m) for i, m in explanation.walk_back()]
    return concat(tables[::-1])


def _table(explanation: Explanation, i: int, m: Multipliers) -> "pandas.DataFrame":  # noqa: F821
    """The i-th value of a single picture with its multipliers, a row for each unit.

    Its difference is D = D+ + D- and its size is S = D+ - D-; m holds (m+ + m-) / 2 as mu and
    (m+ - m-) / 2 as delta, or None for 0.
    """
    step = explanation.makers.get(i)  # the operation that made the value; None for the input
    d, size = explanation.difference(i), explanation.sizes[i]
    columns = {
        "reference": explanation.baseline_tape.values[i],
        "value": explanation.tape.values[i],
        "D": d,
        "D+": (d + size) / 2,
        "D-": (d - size) / 2,
        "m+": m.mu if m.delta is None else m.mu + m.delta,
        "m-": m.mu if m.delta is None else m.mu - m.delta,
    }
    columns = {name: v.flatten().tolist() for name, v in columns.items()}
    rows = checks.extra("pandas", "show").DataFrame(columns)
    rows["contribution"] = rows["D+"] * rows["m+"] + rows["D-"] * rows["m-"]
    units = itertools.product(*map(range, d.shape[1:]))
    rows.insert(0, "unit", [", ".join(map(str, unit)) for unit in units])
    rows.insert(0, "module", step.module if step else "")
    name = step.name if step else "input"
    rows.insert(0, "operation", "dense" if name in DENSE else name)
    return rows.set_axis([i] * len(rows))


def _rules_by_module(model: Callable, rule: str | Mapping) -> dict[nn.Module | None, str]:
    """{module: rule}, and the rule of all other activations under None."""
    if not isinstance(rule, Mapping):
        checks.choice("rule", rule, RULES)
        return {None: rule}
    if not isinstance(model, nn.Module):
        raise TypeError("rule: a mapping from modules needs a model that is an nn.Module")
    rules = {}
    for key, value in rule.items():
        checks.choice("rule", value, RULES)
        module = find_module("rule", model, key)
        if rules.setdefault(module, value) != value:
            raise ValueError(f"rule: expected one rule a module, {key!r} has two")
    return rules
