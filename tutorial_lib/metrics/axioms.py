"""Axioms as numbers: how far an attribution is from what the axiom demands."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tutorial_lib import checks
from tutorial_lib.fast.precision_modes import precision_for


def completeness_gap(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    attribution: Tensor,
    baseline: float | Tensor = 0.0,
) -> Tensor:
    """Subtract the change of the score from baseline to x from the sum of an attribution.

        gap = sum_i A_i(x) - (f(x) - f(b))

    Sundararajan et al. (2017), Proposition 1. The gap is 0 where completeness holds, so nearer 0
    is better. Sums of float32 numbers are made in float64. It takes two forward passes.

    Args:
        model: f, a callable from (N, ...) to scores (N, C), rows independent; a module in eval
            mode.
        x: (B, ...) finite floating-point inputs.
        target: Class index, or LongTensor (B,) with one for each input.
        attribution: A, a floating-point tensor of the shape of x, in units of the score.
        baseline: b, in the units of x, a number or a tensor broadcastable to x.

    Returns:
        (B,) signed gaps in units of the score, in float64 on the CPU.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, the rows of the model are not independent, or
            an attribution or a score is NaN or infinite. The message names the pictures.

    Example:
        Gradient times input of the square is 2 * 9 at 3, while the score changes by 9 only:

        >>> z = torch.tensor([[1.0, 3.0]])
        >>> a = tl.gradient_x_input(lambda x: x**2, z, 1)
        >>> tl.metrics.completeness_gap(lambda x: x**2, z, 1, a)
        tensor([9.], dtype=torch.float64)
    """
    checks.model(model)
    x = checks.pictures(x)
    index = checks.target(target, x).to(x.device)[:, None]  # (B, 1)
    is_float = isinstance(attribution, Tensor) and attribution.dtype.is_floating_point
    if not is_float or attribution.shape != x.shape:
        shape = tuple(getattr(attribution, "shape", ()))
        kind = getattr(attribution, "dtype", type(attribution).__name__)
        raise (ValueError if is_float else TypeError)(
            f"attribution: expected floats of the shape of x, {tuple(x.shape)}, got {kind} {shape}"
        )
    total = attribution.detach().cpu().double().flatten(1).sum(1)
    checks.defined("attribution", total.isfinite(), "finite numbers")
    baseline = checks.broadcastable("baseline", baseline, x).expand_as(x)
    with torch.no_grad(), precision_for(x.device):
        checks.examine(model, x)
        scores, baseline_scores = (
            checks.scores(model(z.clone()), z, index).gather(1, index).cpu().double()[:, 0]
            for z in (x, baseline)
        )
    finite = scores.isfinite() & baseline_scores.isfinite()
    checks.defined("model", finite, "finite scores of x and of the baseline")
    return total - (scores - baseline_scores)


def axiom_gaps(method: Callable[..., Tensor], **keywords: object) -> dict[str, float]:
    """Measure how far a method is from each axiom, on small functions in float64.

    The gaps, by the names of the axioms:

        completeness                 |sum A - (f(x) - f(0))| / |f(x) - f(0)|
        sensitivity                  1 if the map of 1 - relu(1 - x) is 0 at x = 2, else 0
        dummy                        |A_2| / |A_1| for f(x) = tanh(2 x_1)
        linearity                    |A(3 f - 2 g) - 3 A(f) + 2 A(g)| / |A(3 f - 2 g)|
        implementation invariance    |A(f) - A(f')| / |A(f)|

    Sundararajan et al. (2017), Sec. 2 and 3; the baseline, where a method has one, is 0. f and g
    are tanh networks. For sensitivity, the score changes by f(2) - f(0) = 1, so a map of 0 misses
    it. For dummy, the function does not depend on x_2. For implementation invariance, f' is the
    same function as f, written with every hidden unit split in two and one more linear layer.

    A gap of 0 is perfect. On these functions it is evidence, not a proof; a large gap is a
    counterexample. It takes eight maps of tiny networks. Random methods use their seed each time,
    so that only the axiom can make a difference.

    Args:
        method: Any attribution function.
        **keywords: Keywords of the method.

    Returns:
        Dictionary from the name of the axiom to the gap.

    Raises:
        ValueError: The maps of the method are NaN, infinite or, in a denominator above, 0. The
            method may raise its own errors.

    Example:
        >>> gaps = tl.metrics.axiom_gaps(tl.integrated_gradients, rule="gauss-legendre")
        >>> gaps["completeness"] < 1e-9
        True
        >>> tl.metrics.axiom_gaps(tl.gradient)["sensitivity"]
        1.0
    """
    rng = torch.Generator().manual_seed(0)
    f, g = _network(rng), _network(rng)
    x = torch.randn(3, 6, generator=rng, dtype=torch.float64)

    def attribution(model: nn.Module, x: Tensor = x) -> Tensor:
        value = method(model.eval().requires_grad_(False), x, 0, **keywords)
        value = checks.returned(value, x.shape)
        checks.defined("method", value.isfinite().flatten(1).all(1), "finite maps")
        return value

    with torch.no_grad():
        change = (f(x) - f(torch.zeros_like(x)))[:, 0]
    a, of_sum = attribution(f), attribution(_Sum(f, 3.0, g, -2.0))
    sum_of_maps = 3 * a - 2 * attribution(g)
    hinge = attribution(_Function(lambda z: 1 - (1 - z).relu()), torch.full_like(x[:1, :1], 2.0))
    dummy = attribution(_Function(lambda z: (2 * z[:, :1]).tanh()), x[:, :2]).abs().sum(0)
    if not (of_sum.any() and a.any() and dummy[0].any()):
        raise ValueError("method: expected maps that are not 0, as gaps are relative to them")
    return {
        "completeness": float(((a.sum(1) - change) / change).abs().max()),
        "sensitivity": float(hinge.abs().max() < 1e-9),
        "dummy": float(dummy[1] / dummy[0]),
        "linearity": float((of_sum - sum_of_maps).norm() / of_sum.norm()),
        "implementation invariance": float((a - attribution(_rewritten(f))).norm() / a.norm()),
    }


class _Function(nn.Module):
    """A function as a module, with a parameter for the methods that put noise on weights."""

    def __init__(self, function: Callable):
        super().__init__()
        self.function = function
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.function(x)


class _Sum(nn.Module):
    """The weighted sum a f + b g of two modules."""

    def __init__(self, f: nn.Module, a: float, g: nn.Module, b: float):
        super().__init__()
        self.f, self.g, self.a, self.b = f, g, a, b

    def forward(self, x: Tensor) -> Tensor:
        return self.a * self.f(x) + self.b * self.g(x)


def _network(rng: torch.Generator) -> nn.Sequential:
    """Make a random tanh network from (N, 6) to (N, 1) in float64."""
    net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1)).double()
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=rng, dtype=p.dtype) / 2
    return net


def _rewritten(net: nn.Sequential) -> nn.Sequential:
    """Write the same function with two half units for each hidden unit and one more layer."""
    first, last = net[0], net[2]
    wide = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 1), nn.Linear(1, 1)).double()
    wide[0].weight.data, wide[0].bias.data = first.weight.repeat(2, 1), first.bias.repeat(2)
    wide[2].weight.data, wide[2].bias.data = last.weight.repeat(1, 2) / 4, last.bias / 2
    wide[3].weight.data.fill_(2.0), wide[3].bias.data.zero_()
    return wide
