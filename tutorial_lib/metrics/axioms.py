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
    """Sum of the attribution minus the change of the score from baseline to x: (B,), signed.

    gap = sum_i A_i(x) - (f(x) - f(b)); 0 where completeness holds
    (Sundararajan et al., 2017, Proposition 1). Nearer 0 is better. Cost: two forward passes.
    Units: score. float32 sums are made in float64.
    Raises ValueError or TypeError that names the argument at fault, and the pictures whose
    attribution or scores are NaN or infinite.

    >>> tl.metrics.completeness_gap(model, x, 285, attribution)
    """
    checks.model(model)
    x = checks.pictures(x)
    index = checks.target(target, x).to(x.device)[:, None]
    fits = isinstance(attribution, Tensor) and attribution.dtype.is_floating_point
    if not fits or attribution.shape != x.shape:
        shape = tuple(getattr(attribution, "shape", ()))
        kind = getattr(attribution, "dtype", type(attribution).__name__)
        raise (ValueError if fits else TypeError)(
            f"attribution: expected floats of the shape of x, {tuple(x.shape)}, got {kind} {shape}"
        )
    total = attribution.detach().cpu().double().flatten(1).sum(1)
    checks.defined("attribution", total.isfinite(), "finite numbers")
    start = checks.broadcastable("baseline", baseline, x).expand_as(x)
    with torch.no_grad(), precision_for(x.device):
        checks.examine(model, x)
        scores, scores_start = (
            checks.scores(model(z.clone()), z, index).gather(1, index).cpu().double()[:, 0]
            for z in (x, start)
        )
    finite = scores.isfinite() & scores_start.isfinite()
    checks.defined("model", finite, "finite scores of x and of the baseline")
    return total - (scores - scores_start)


def axiom_gaps(method: Callable[..., Tensor], **keywords: object) -> dict[str, float]:
    """How far a method is from each axiom, on small functions in float64: {axiom: gap}.

    completeness: |sum A - (f(x) - f(0))| / |f(x) - f(0)| for a tanh network.
    sensitivity: 1 if the input of 1 - relu(1 - x) gets 0 at x = 2, although f(2) - f(0) = 1.
    dummy: |A_2| / |A_1| for f(x) = tanh(2 x_1), which does not depend on x_2.
    linearity: |A(3 f - 2 g) - 3 A(f) + 2 A(g)| / |A(3 f - 2 g)|.
    implementation invariance: |A(f) - A(f')| / |A(f)| for f and the same function written with
        every hidden unit split in two and one more linear layer.
    (Sundararajan et al., 2017, Sec. 2 and 3; the baseline, where a method has one, is 0.)
    0 is perfect. A gap of 0 on these functions is evidence, not a proof; a large one is a
    counterexample. keywords go to the method; random methods use their seed each time, so that
    only the axiom can make a difference. Cost: eight maps of tiny networks.
    Raises ValueError where the method's maps are NaN, infinite or, in a denominator above, 0.

    >>> axiom_gaps(tl.integrated_gradients, rule="gauss-legendre")["completeness"] < 1e-9
    True
    """
    rng = torch.Generator().manual_seed(0)
    f, g = _network(rng), _network(rng)
    x = torch.randn(3, 6, generator=rng, dtype=torch.float64)

    def attribution(model: nn.Module, at: Tensor = x) -> Tensor:
        found = method(model.eval().requires_grad_(False), at, 0, **keywords)
        found = checks.returned(found, at.shape)
        checks.defined("method", found.isfinite().flatten(1).all(1), "finite maps")
        return found

    with torch.no_grad():
        change = (f(x) - f(torch.zeros_like(x)))[:, 0]
    a, mixed = attribution(f), attribution(_Sum(f, 3.0, g, -2.0))
    parts = 3 * a - 2 * attribution(g)
    edge = attribution(_Function(lambda z: 1 - (1 - z).relu()), torch.full_like(x[:1, :1], 2.0))
    dummy = attribution(_Function(lambda z: (2 * z[:, :1]).tanh()), x[:, :2]).abs().sum(0)
    if not (mixed.any() and a.any() and dummy[0].any()):
        raise ValueError("method: expected maps that are not 0, as gaps are relative to them")
    return {
        "completeness": float(((a.sum(1) - change) / change).abs().max()),
        "sensitivity": float(edge.abs().max() < 1e-9),
        "dummy": float(dummy[1] / dummy[0]),
        "linearity": float((mixed - parts).norm() / mixed.norm()),
        "implementation invariance": float((a - attribution(_rewritten(f))).norm() / a.norm()),
    }


class _Function(nn.Module):
    def __init__(self, function: Callable):
        super().__init__()
        self.function = function
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))  # for noise on weights

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.function(x)


class _Sum(nn.Module):
    def __init__(self, f: nn.Module, a: float, g: nn.Module, b: float):
        super().__init__()
        self.f, self.g, self.a, self.b = f, g, a, b

    def forward(self, x: Tensor) -> Tensor:
        return self.a * self.f(x) + self.b * self.g(x)


def _network(rng: torch.Generator) -> nn.Sequential:
    net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1)).double()
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=rng, dtype=p.dtype) / 2
    return net


def _rewritten(net: nn.Sequential) -> nn.Sequential:
    """The same function: each hidden unit as two of half the weight, and one more linear layer."""
    first, last = net[0], net[2]
    wide = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 1), nn.Linear(1, 1)).double()
    wide[0].weight.data, wide[0].bias.data = first.weight.repeat(2, 1), first.bias.repeat(2)
    wide[2].weight.data, wide[2].bias.data = last.weight.repeat(1, 2) / 4, last.bias / 2
    wide[3].weight.data.fill_(2.0), wide[3].bias.data.zero_()
    return wide
