"""Noise: its units, how much of it leaves the range of the input, noise on weights."""

import math
from statistics import NormalDist

import torch
from torch import Tensor, nn

from tutorial_lib import checks

# The inputs of black and of white under ImageNet's usual normalisation, each (1, 3, 1, 1): the
# units of Goh et al.'s sigmas and of the range in Zhou et al.'s Fig. 3.
_MEAN, _STD = (
    torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1)
    for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
)
IMAGENET_BOUNDS = (-_MEAN / _STD, (1 - _MEAN) / _STD)


def sigma_from_level(level: float, bounds: tuple) -> float:
    """Convert a noise level, a fraction of the input's range, to sigma.

        sigma = level * (max upper - min lower)

    The noise level is that of Smilkov et al. (2017), Sec. 3.

    Args:
        level: Noise level, at least 0; 0.1 means 10 % of the range.
        bounds: Pair (lower, upper) of the range of the input, such as model.bounds.

    Returns:
        Sigma in the units of the input.

    Raises:
        TypeError: level is not a number, or bounds is not a pair of numbers or tensors.
        ValueError: level is negative or not finite, or lower is not below upper.

    Example:
        >>> tl.sigma_from_level(0.1, (-1.0, 1.0))
        0.2
    """
    return checks.nonnegative("level", level) * _input_range(bounds)


def level_from_sigma(sigma: float, bounds: tuple) -> float:
    """Convert sigma to a noise level, a fraction of the input's range.

        level = sigma / (max upper - min lower)

    The noise level is that of Smilkov et al. (2017), Sec. 3.

    Args:
        sigma: Standard deviation in the units of the input, at least 0.
        bounds: Pair (lower, upper) of the range of the input, such as model.bounds.

    Returns:
        The noise level; 0.1 means 10 % of the range.

    Raises:
        TypeError: sigma is not a number, or bounds is not a pair of numbers or tensors.
        ValueError: sigma is negative or not finite, or lower is not below upper.

    Example:
        >>> tl.level_from_sigma(0.2, (-1.0, 1.0))
        0.1
    """
    return checks.nonnegative("sigma", sigma) / _input_range(bounds)


def adaptive_sigma(x: Tensor, bounds: tuple, confidence: float = 0.95) -> Tensor:
    """Compute AdaptGrad's sigma for every entry of x: its distance to the nearer bound, scaled.

        sigma_i = min(|x_i - x_min|, |x_i - x_max|) / (sqrt(2) erfinv((1 + c) / 2))

    Zhou et al. (2024, version 1), Eq. 13. The divisor, 2.2414 for c = 0.95, is the standard
    normal's quantile at (3 + c) / 4. Noise then crosses the nearer bound with probability
    (1 - c) / 4, and either bound with at most (1 - c) / 2, which is half of the 1 - c that the
    paper asks for in Sec. 4.

    The authors' program differs: it has erfinv(c), which meets 1 - c. `confidence=2 * c - 1` gives
    its numbers here. Paper and program take one pair of bounds for all channels; give a pair for
    each channel where the channels differ.

    Args:
        x: (B, ...) finite floating-point inputs, inside the bounds.
        bounds: Pair (lower, upper) of numbers or tensors, such as model.bounds.
        confidence: c, between 0 and 1.

    Returns:
        (B, ...) standard deviations in the units of x; a value on a bound gets 0.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, or x lies outside the bounds by more than
            rounding; the message says how far.

    Example:
        >>> tl.adaptive_sigma(torch.tensor([[-1.0, 0.0, 0.5]]), (-1.0, 1.0))
        tensor([[0.0000, 0.4461, 0.2231]])
    """
    c = checks.fraction("confidence", confidence)
    x = checks.pictures(x)
    lower, upper = checks.inside(x, bounds)
    distance = torch.minimum(x - lower, upper - x).clamp(min=0)
    return distance / NormalDist().inv_cdf((3 + c) / 4)


def inherent_noise(x: Tensor, sigma: float | Tensor, bounds: tuple) -> Tensor:
    """Compute, for every entry of x, the probability that noise takes it outside the bounds.

        A^i = P(x_i + eps outside [x_min, x_max]),  eps ~ N(0, sigma^2)
            = 1 - 1/2 [  erf((x_max - x_i) / (sqrt(2) sigma))
                       + erf((x_i - x_min) / (sqrt(2) sigma))]

    Zhou et al. (2024, version 1), Eq. 9 and 10. The mean over x is the expected share of values
    that are out of range. Without noise the probability is 0 inside the bounds, bounds included,
    and 1 outside.

    Args:
        x: Finite floating-point inputs of any shape.
        sigma: Standard deviation in the units of x: a number, or a tensor of the shape of x where
            a dimension may be 1.
        bounds: Pair (lower, upper), each like sigma a number or a tensor.

    Returns:
        Probabilities, a tensor of the shape of x.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit; the message begins with the argument's name.

    Example:
        >>> tl.inherent_noise(torch.tensor([0.0, 1.0]), 0.5, (-1.0, 1.0))
        tensor([0.0455, 0.5000])
    """
    x = checks.numbers(x)
    sigma = torch.as_tensor(checks.sigma(sigma, x), dtype=x.dtype, device=x.device)
    lower, upper = checks.bounds(bounds, x)
    return _upper_tail(upper - x, sigma) + _upper_tail(x - lower, sigma)


def _upper_tail(distance: Tensor, sigma: Tensor) -> Tensor:
    """P(eps > distance) for eps ~ N(0, sigma^2), exact where tiny; 0 on a bound without noise."""
    scaled = distance / (math.sqrt(2) * sigma)
    return torch.erfc(torch.where((sigma == 0) & (distance >= 0), torch.inf, scaled)) / 2


def truncated_normal(x: Tensor, sigma: float | Tensor, bounds: tuple, uniform: Tensor) -> Tensor:
    """Make normal noise around x that stays within the bounds, from uniform noise.

        z = x + sigma * Phi^-1(Phi(a) + u (Phi(b) - Phi(a)))
        a = (x_min - x) / sigma,  b = (x_max - x) / sigma,  u uniform on [0, 1]

    This is the inverse CDF of the normal distribution, conditioned on staying within the bounds.
    The mean of z is x only where both bounds are equally far.

    Args:
        x: (B, ...) floating-point inputs; a value outside the bounds counts as being on them.
        sigma: Standard deviation in the units of x, a number or a tensor broadcastable to x.
        bounds: Pair (lower, upper) of tensors broadcastable to x, with lower below upper.
        uniform: u, of the shape of one picture or of x.

    Returns:
        z, in float64 if x has it, else in float32; where sigma is 0, x.

    Example:
        The least and the greatest u give the bounds:

        >>> bounds = torch.tensor(-1.0), torch.tensor(1.0)
        >>> tl.noise.truncated_normal(torch.zeros(2), 1.0, bounds, torch.tensor([0.0, 1.0]))
        tensor([-1.0000, 1.0000])
    """
    dtype = checks.accumulator(x.dtype)
    lower, upper = (bound.to(dtype) for bound in bounds)
    x = x.to(dtype).clamp(lower, upper)
    sigma = torch.as_tensor(sigma, dtype=dtype, device=x.device)
    cdf_lower, cdf_upper = _upper_tail(x - lower, sigma), 1 - _upper_tail(upper - x, sigma)
    z = x + sigma * torch.special.ndtri(cdf_lower + uniform * (cdf_upper - cdf_lower))
    return torch.where(sigma == 0, x, z).clamp(lower, upper)


def reweighted(model: nn.Module, *, sigma: float, seed: int) -> nn.Module:
    """Copy the model and multiply every parameter of the copy by its own normal factor.

        theta_i * eta_i,  eta_i ~ N(1, sigma^2)

    Bykov et al. (2022), Sec. 3. The model itself is not touched at any moment, so that an
    interrupt or another thread finds it as it was. Its forward() has to reach the weights through
    `self`: a function that it holds, and that closes over the model, keeps the weights without
    noise.

    Args:
        model: nn.Module with parameters, in eval mode.
        sigma: Standard deviation of the factors, a fraction of each weight.
        seed: Seed of the noise; the same seed gives the same copy.

    Returns:
        The copy. A parameter that has two names gets one factor, a complex one a real factor, and
            buffers get no noise.

    Raises:
        TypeError: The model is no nn.Module, has no parameters, or cannot be copied.
        ValueError: A part of the model is in training mode.

    Example:
        >>> noisy = tl.noise.reweighted(model, sigma=0.2, seed=0)
        >>> torch.equal(noisy[0].weight, model[0].weight)
        False
        >>> copy = tl.noise.reweighted(model, sigma=0.0, seed=0)
        >>> torch.equal(copy[0].weight, model[0].weight)
        True
    """
    checks.weights(model)
    noisy = checks.copied(model, "noise on the weights")
    generators: dict[torch.device, torch.Generator] = {}
    for p in noisy.parameters():  # a weight that has two names comes once
        if p.is_floating_point() or p.is_complex():
            rng = generators.setdefault(p.device, torch.Generator(p.device).manual_seed(seed))
            wide = torch.promote_types(p.dtype, torch.float32).to_real()
            eta = torch.empty(p.shape, device=p.device, dtype=wide).normal_(1, sigma, generator=rng)
            p.data = (eta * p.detach()).to(p.dtype)
    return noisy


def _input_range(bounds: tuple) -> float:
    """Return the range of the input over all channels, max upper - min lower."""
    sides = bounds if isinstance(bounds, tuple | list) else ()
    like = next((side for side in sides if isinstance(side, Tensor)), torch.zeros(1, 1))
    lower, upper = checks.bounds(bounds, like.double())
    return float(upper.max() - lower.min())
