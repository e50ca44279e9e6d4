"""DeepLIFT: contributions of differences from a baseline, with the Rescale and RevealCancel rules.

The mathematics of a step is in `multipliers.py`; here are the public functions.
"""

import difflib
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

RULES = ("rescale", "reveal_cancel", "genomics")


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
        dense layers and "rescale" after convolutions (after a sum, what its first term follows).
    normalize: subtract the mean of the contributions to all classes (Sec. 3.6, for softmax).
    If the last operation is softmax, log_softmax or sigmoid, f is the logit before it.
    Cost on a CPU: 1.5 to 3 gradients a picture for rescale, 3 to 8 for reveal_cancel, more where
    layers are thin (benchmarks/backward.py measures). Memory: all activations of
    the 2 forward passes of batch_size pictures, and as much again for reveal_cancel.

    Raises ValueError or TypeError that names the argument at fault; NotImplementedError that names
    the operation, and where it is, for one without a rule.

    >>> f = lambda x: x[:, :1] - torch.relu(x[:, :1] - x[:, 1:])
    >>> tl.deeplift(f, torch.tensor([[3.0, 1.0]]), 0, rule="reveal_cancel")
    tensor([[0.5000, 0.5000]])
    """
    rules = _rules(model, rule)
    checks.flag("normalize", normalize)

    def multipliers(network: Callable, pairs: Tensor, target: Tensor) -> Tensor:
        return Explanation(network, *pairs.unbind(1), target, rules, normalize).multipliers()

    probe_function = partial(probes.pair, baseline=baseline, seed=seed)
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
    """Every step of `deeplift` on one picture, a row for each unit, for networks that fit the eye.

    Columns: operation, module, unit, reference, value, D, D+, D-, m+, m-, contribution
    (= D+ m+ + D- m-), in the order of the forward pass. The index is the number of the step, 0 the
    input. Arguments and errors as `deeplift`; ValueError beyond 1000 units.

    >>> tl.deeplift_trace(f, torch.tensor([[3.0, 1.0]]), 0, rule="reveal_cancel")
    """
    concat = checks.extra("pandas", "show").concat
    checks.model(model)
    x = checks.pictures(x)
    if len(x) != 1:
        raise ValueError(f"x: expected one picture, shape (1, ...), got {tuple(x.shape)}")
    target = checks.target(target, x)
    start = checks.broadcastable("baseline", baseline, x).expand_as(x)
    checks.flag("normalize", normalize)
    with torch.inference_mode(False), torch.no_grad(), precision_for(x.device, exact=True):
        explanation = Explanation(
            model, x, start, target, _rules(model, rule), normalize, parts=True
        )
        units = sum(v.numel() for v in explanation.at.values.values())
        if units > 1000:
            raise ValueError(f"model: expected at most 1000 units to write down, it has {units}")
        tables = [_table(explanation, i, up) for i, up in explanation.walk_back()]
    return concat(tables[::-1])


def _table(explanation: Explanation, i: int, up: Multipliers) -> "pandas.DataFrame":  # noqa: F821
    """One value of a single picture with its multipliers, a row for each unit."""
    step, d, s = explanation.maker.get(i), explanation.difference(i), explanation.sizes[i]
    columns = {
        "reference": explanation.start.values[i],
        "value": explanation.at.values[i],
        "D": d,
        "D+": (d + s) / 2,
        "D-": (d - s) / 2,
        "m+": up.mu if up.delta is None else up.mu + up.delta,
        "m-": up.mu if up.delta is None else up.mu - up.delta,
    }
    columns = {name: v.flatten().tolist() for name, v in columns.items()}
    rows = checks.extra("pandas", "show").DataFrame(columns)
    rows["contribution"] = rows["D+"] * rows["m+"] + rows["D-"] * rows["m-"]
    places = itertools.product(*map(range, d.shape[1:]))
    rows.insert(0, "unit", [", ".join(map(str, place)) for place in places])
    rows.insert(0, "module", step.module if step else "")
    name = step.name if step else "input"
    rows.insert(0, "operation", "dense" if name in DENSE else name)
    return rows.set_axis([i] * len(rows))


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
        if rules.setdefault(module, value) != value:
            raise ValueError(f"rule: expected one rule a module, {key!r} has two")
    return rules
