"""Where a method looks and how it weighs: each function here is one row of the book's table.

A probe function takes the pictures x (B, ...) and returns `Probes` for the engine. Noise is drawn
on the device of x from `seed` alone, one draw a sample, and every picture of the batch meets the
same draws: a batch gives the maps of its pictures one at a time, whatever `batch_size` is, and
maps of one picture for several targets can be compared draw by draw.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from tutorial_lib import checks
from tutorial_lib.engine import Probe, Probes, accumulator

RULES = ("right", "left", "midpoint", "trapezoid", "gauss-legendre")


def point(x: Tensor, *, seed: int = 0) -> Probes:
    """Look at x, weigh by 1: the gradient."""
    checks.seed(seed)
    return Probes(1, lambda: iter([Probe(x)]))


def point_times_input(x: Tensor, *, seed: int = 0) -> Probes:
    """Look at x, weigh by x: gradient x input."""
    checks.seed(seed)
    return Probes(1, lambda: iter([Probe(x, x)]))


def path(
    x: Tensor,
    *,
    baseline: float | Tensor | str = 0.0,
    baselines: int = 1,
    steps: int = 50,
    rule: str = "right",
    bounds: tuple | None = None,
    seed: int = 0,
) -> Probes:
    """Look along the line b + a (x - b), weigh by x - b: Integrated Gradients.

    The arguments are those of `attribution.integrated_gradients`.
    """
    nodes, shares = quadrature(rule, steps)
    seed = checks.seed(seed)
    starts = _baselines(x, baseline, checks.count("baselines", baselines), bounds, seed)

    def make() -> Iterator[Probe]:
        for start in starts():
            start = start.to(accumulator(x.dtype))
            distance = x - start
            for a, share in zip(nodes, shares, strict=True):
                z = (start + a * distance).to(x.dtype)
                yield Probe(z, distance, share / baselines, a == nodes[-1])

    return Probes(baselines * len(nodes), make)


def gaussian(
    x: Tensor,
    *,
    sigma: float | Tensor,
    samples: int = 50,
    seed: int = 0,
    inner: Callable[..., Probes] = point,
) -> Probes:
    """Look at x + sigma * eps with eps ~ N(0, I), and there wherever `inner` looks: SmoothGrad.

    inner: the probe function of the method that is smoothed, called as inner(noisy x, seed=...).
    """
    sigma = checks.sigma(sigma, x)
    samples, seed = checks.count("samples", samples), checks.seed(seed)

    def around(noisy: Tensor, k: int) -> Probes:
        return inner(noisy, seed=_spawn(seed, k))

    def make() -> Iterator[Probe]:
        rng = _generator(x, seed)
        for k in range(samples):
            noise = torch.randn(
                x.shape[1:], generator=rng, device=x.device, dtype=accumulator(x.dtype)
            )
            inside = around((x + sigma * noise).to(x.dtype), k)
            for j, probe in enumerate(inside, 1):
                yield probe._replace(share=probe.share / samples, last=j == inside.count)

    return Probes(samples * around(x, 0).count, make)


def quadrature(rule: str, steps: int) -> tuple[list[float], list[float]]:
    """Nodes on [0, 1] and their weights, which sum to 1, for `steps` intervals.

    "right" k/n, "left" (k-1)/n, "midpoint" (k-1/2)/n with k = 1..n and weights 1/n;
    "trapezoid" both ends and the points between, n + 1 nodes, the ends at half weight;
    "gauss-legendre" n nodes, exact for polynomials of degree 2n - 1.
    """
    checks.choice("rule", rule, RULES)
    n = checks.count("steps", steps, most=1000 if rule == "gauss-legendre" else 1_000_000)
    k = np.arange(1, n + 1)
    if rule == "gauss-legendre":
        nodes, weights = np.polynomial.legendre.leggauss(n)
        return ((nodes + 1) / 2).tolist(), (weights / 2).tolist()
    if rule == "trapezoid":
        weights = np.full(n + 1, 1 / n)
        weights[[0, -1]] /= 2
        return (np.arange(n + 1) / n).tolist(), weights.tolist()
    shift = {"right": 0.0, "left": 1.0, "midpoint": 0.5}[rule]
    return ((k - shift) / n).tolist(), [1 / n] * n


def sigma_from_level(level: float, bounds: tuple) -> float:
    """Noise level, a fraction of the input's range, to sigma: level * (max upper - min lower).

    The noise level of Smilkov et al. (2017), Sec. 3. bounds: (lower, upper), as model.bounds.

    >>> sigma_from_level(0.1, (-1.0, 1.0))
    0.2
    """
    return level * _span(bounds)


def level_from_sigma(sigma: float, bounds: tuple) -> float:
    """Sigma, in the units of the input, to the noise level: sigma / (max upper - min lower).

    >>> level_from_sigma(0.2, (-1.0, 1.0))
    0.1
    """
    return sigma / _span(bounds)


def _span(bounds: tuple) -> float:
    first = bounds[0] if isinstance(bounds, tuple | list) and bounds else 0.0
    like = first if isinstance(first, Tensor) else torch.zeros(1, 1, dtype=torch.float64)
    lower, upper = checks.bounds(bounds, like)
    return float(upper.max() - lower.min())


def _baselines(
    x: Tensor, baseline: float | Tensor | str, number: int, bounds: tuple | None, seed: int
) -> Callable[[], Iterator[Tensor]]:
    """The starts of the paths, as a function that begins afresh: one fixed, or noise draws."""
    if isinstance(baseline, str):
        if baseline != "noise":
            raise ValueError(f"baseline: expected a number, a tensor or 'noise', got {baseline!r}")
        lower, upper = checks.bounds(bounds, x)

        def noise() -> Iterator[Tensor]:
            rng = _generator(x, seed)
            for _ in range(number):
                u = torch.rand(
                    x.shape[1:], generator=rng, device=x.device, dtype=accumulator(x.dtype)
                )
                yield (lower + (upper - lower) * u).to(x.dtype)

        return noise
    if number != 1:
        raise ValueError(
            f"baselines: expected 1 unless baseline='noise', got {number}; "
            "a fixed baseline gives the same map each time"
        )
    if bounds is not None:
        checks.bounds(bounds, x)
    fixed = checks.broadcastable("baseline", baseline, x)
    return lambda: iter([fixed])


def _generator(x: Tensor, seed: int) -> torch.Generator:
    return torch.Generator(device=x.device).manual_seed(seed)


def _spawn(seed: int, k: int) -> int:
    """An independent seed for the k-th noisy picture, so that inner noise is not outer noise."""
    return int(np.random.SeedSequence([seed, k]).generate_state(1, np.uint64)[0] >> np.uint64(1))
