"""Noise: its units, how much of it leaves the range of the input, noise on weights."""

import copy
import math
from statistics import NormalDist

import torch
from torch import Tensor, nn

from tutorial_lib import checks

# The inputs of black and of white under ImageNet's usual normalisation, each (1, 3, 1, 1): the
# units in which Goh et al. and Zhou et al. give their sigmas.
_MEAN, _STD = (
    torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1)
    for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
)
IMAGENET_BOUNDS = (-_MEAN / _STD, (1 - _MEAN) / _STD)


def sigma_from_level(level: float, bounds: tuple) -> float:
    """Noise level, a fraction of the input's range, to sigma: level * (max upper - min lower).

    The noise level of Smilkov et al. (2017), Sec. 3. bounds: (lower, upper), as model.bounds.

    >>> sigma_from_level(0.1, (-1.0, 1.0))
    0.2
    """
    return checks.nonnegative("level", level) * _span(bounds)


def level_from_sigma(sigma: float, bounds: tuple) -> float:
    """Sigma, in the units of the input, to the noise level: sigma / (max upper - min lower).

    >>> level_from_sigma(0.2, (-1.0, 1.0))
    0.1
    """
    return checks.nonnegative("sigma", sigma) / _span(bounds)


def adaptive_sigma(x: Tensor, bounds: tuple, confidence: float = 0.95) -> Tensor:
    """AdaptGrad's sigma for every entry of x: its distance to the nearer bound over a quantile.

    sigma_i = min(|x_i - x_min|, |x_i - x_max|) / (sqrt(2) erfinv((1 + c) / 2))
    (Zhou et al., 2024, Eq. 13). The divisor, 2.2414 for c = 0.95, is the standard normal's
    quantile at (3 + c) / 4. A step beyond the nearer bound then has probability (1 - c) / 4 and
    beyond either at most (1 - c) / 2, half of the 1 - c that the paper asks for. The authors'
    program has erfinv(c), which meets 1 - c: `confidence=2 * c - 1` here gives its numbers.

    x: (B, ...). bounds: (lower, upper), numbers or tensors, as model.bounds; a value on a bound
    gets 0. confidence: c, between 0 and 1. Returns the shape of x, in its units.
    Raises ValueError where x lies outside the bounds by more than rounding, and says how far.

    >>> adaptive_sigma(torch.tensor([[-1.0, 0.0, 0.5]]), (-1.0, 1.0))
    tensor([[0.0000, 0.4461, 0.2231]])
    """
    c = checks.fraction("confidence", confidence)
    x = checks.pictures(x)
    lower, upper = checks.inside(x, bounds)
    distance = torch.minimum(x - lower, upper - x).clamp(min=0)
    return distance / NormalDist().inv_cdf((3 + c) / 4)


def inherent_noise(x: Tensor, sigma: float | Tensor, bounds: tuple) -> Tensor:
    """Probability that noise takes a value outside the bounds, for every entry of x.

    A(x_i) = P(x_i + eps outside [x_min, x_max]),  eps ~ N(0, sigma^2)
           = 1 - 1/2 [erf((x_max - x_i) / (sqrt(2) sigma)) + erf((x_i - x_min) / (sqrt(2) sigma))]
    (Zhou et al., 2024, Eq. 9 and 10). Its mean over x is the share of values out of range.

    x: any shape. sigma, bounds: numbers, or tensors of the shape of x where a dimension may be 1.
    Without noise the answer is 0 inside the bounds, bounds included, and 1 outside. Raises like
    the methods.

    >>> inherent_noise(torch.tensor([0.0, 1.0]), 0.5, (-1.0, 1.0))
    tensor([0.0455, 0.5000])
    """
    x = checks.numbers(x)
    sigma = torch.as_tensor(checks.sigma(sigma, x), dtype=x.dtype, device=x.device)
    lower, upper = checks.bounds(bounds, x)
    return _beyond(upper - x, sigma) + _beyond(x - lower, sigma)


def _beyond(room: Tensor, sigma: Tensor) -> Tensor:
    """P(eps > room), exact where it is tiny; without noise a bound is never crossed."""
    scaled = room / (math.sqrt(2) * sigma)
    return torch.erfc(torch.where((sigma == 0) & (room >= 0), torch.inf, scaled)) / 2


def truncated_normal(x: Tensor, sigma: float | Tensor, bounds: tuple, uniform: Tensor) -> Tensor:
    """Normal noise around x, conditioned on staying within the bounds, by the inverse CDF.

    z = x + sigma * Phi^-1(Phi(a) + u (Phi(b) - Phi(a))),  a = (x_min - x) / sigma,
    b = (x_max - x) / sigma, for u uniform on [0, 1], of the shape of one picture or of x.
    The mean of z is x only where both bounds are equally far.
    """
    wide = checks.accumulator(x.dtype)
    lower, upper = (side.to(wide) for side in bounds)
    x = x.to(wide).clamp(lower, upper)
    sigma = torch.as_tensor(sigma, dtype=wide, device=x.device)
    low, high = _beyond(x - lower, sigma), 1 - _beyond(upper - x, sigma)
    z = x + sigma * torch.special.ndtri(low + uniform * (high - low))
    return torch.where(sigma == 0, x, z).clamp(lower, upper)


def reweighted(model: nn.Module, *, sigma: float, seed: int) -> nn.Module:
    """A copy of the model with noise on its weights: every parameter times its own eta.

    theta_i * eta_i,  eta_i ~ N(1, sigma^2)   (Bykov et al., 2022, Sec. 3). The model itself is
    not touched at any moment, so that an interrupt or another thread finds it as it was. Its
    forward() has to reach the weights through `self`: a function that it holds, and that closes
    over the model, keeps the weights without noise.
    """
    checks.weights(model)
    try:
        with checks.MODEL_LOCK:
            noisy = copy.deepcopy(model)
    except Exception as error:  # whatever a part of it says that cannot be copied
        raise TypeError(
            f"model: noise on the weights needs a copy of it, and copy.deepcopy says: {error}"
        ) from error
    generators: dict[torch.device, torch.Generator] = {}
    for p in noisy.parameters():  # weights that have two names come once
        if p.is_floating_point():
            rng = generators.setdefault(p.device, torch.Generator(p.device).manual_seed(seed))
            wide = torch.promote_types(p.dtype, torch.float32)
            eta = torch.empty(p.shape, device=p.device, dtype=wide).normal_(1, sigma, generator=rng)
            p.data = eta.mul_(p.detach()).to(p.dtype)
    return noisy


def _span(bounds: tuple) -> float:
    sides = bounds if isinstance(bounds, tuple | list) else ()
    like = next((side for side in sides if isinstance(side, Tensor)), torch.zeros(1, 1))
    lower, upper = checks.bounds(bounds, like.double())
    return float(upper.max() - lower.min())
