"""Where a method looks and how it weighs: each function here is one row of the book's table.

A probe function takes the pictures x (B, ...) and returns `Probes` for the engine. Noise is drawn
on the device of x from `seed` alone, one draw a sample, and every picture of the batch meets the
same draws: a batch gives the maps of its pictures one at a time, whatever `batch_size` is, and
maps of one picture for several targets can be compared draw by draw.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain

import torch
from torch import Tensor

from tutorial_lib import checks
from tutorial_lib.averaging import noise
from tutorial_lib.averaging.engine import Block, Probes
from tutorial_lib.averaging.quadrature import RULES, quadrature  # noqa: F401
from tutorial_lib.averaging.seeded_noise import child_seed, noise_blocks, slices


def point(x: Tensor, *, seed: int = 0) -> Probes:
    """Look at x, weigh by 1: the gradient."""
    checks.seed(seed)
    return Probes(1, lambda: iter([Block(x[None])]))


def point_times_input(x: Tensor, *, seed: int = 0) -> Probes:
    """Look at x, weigh by x: gradient x input."""
    checks.seed(seed)
    return Probes(1, lambda: iter([Block(x[None], x)]))


def pair(x: Tensor, *, baseline: float | Tensor = 0.0, seed: int = 0) -> Probes:
    """Look at x and a baseline b together, weigh by x - b: DeepLIFT.

    The points are pairs (B, 2, ...), for a changed backward rule that compares the two.
    """
    checks.seed(seed)
    start = checks.broadcastable("baseline", baseline, x).expand_as(x)
    both = torch.stack([x, start], 1)
    return Probes(1, lambda: iter([Block(both[None], x - start)]))


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
    shares = [share / baselines for share in shares]
    column = partial(torch.tensor, dtype=checks.accumulator(x.dtype))
    places, each = (column(v).view(-1, *[1] * x.ndim).to(x.device) for v in (nodes, shares))

    def make() -> Iterator[Block]:
        for start in starts():
            start = start.to(checks.accumulator(x.dtype))
            distance = x - start
            for part in slices(len(nodes), x):
                points = (start + places[part] * distance).to(x.dtype)
                one = part.stop - part.start == 1  # a number, for the engine's shorter way
                share = shares[part.start] if one else each[part]
                yield Block(points, distance, share, int(part.stop == len(nodes)))

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
    return _around(x, _gaussian_copies(x, sigma, samples, seed), samples, seed, inner)


def adaptive_gaussian(
    x: Tensor,
    *,
    bounds: tuple,
    confidence: float = 0.95,
    samples: int = 50,
    seed: int = 0,
    inner: Callable[..., Probes] = point,
) -> Probes:
    """Look at x + sigma_i * eps_i, sigma_i from the distance to the nearer bound: AdaptGrad."""
    sigma = noise.adaptive_sigma(x, bounds, confidence)
    return gaussian(x, sigma=sigma, samples=samples, seed=seed, inner=inner)


def truncated_gaussian(
    x: Tensor,
    *,
    sigma: float | Tensor,
    bounds: tuple,
    samples: int = 50,
    seed: int = 0,
    inner: Callable[..., Probes] = point,
) -> Probes:
    """Look around x with normal noise that is conditioned on staying within the bounds."""
    sigma, bounds = checks.sigma(sigma, x), checks.inside(x, bounds)

    def place(uniform: Tensor) -> Tensor:
        return noise.truncated_normal(x, sigma, bounds, uniform)

    return _around(x, _copies(x, place, torch.rand, samples, seed), samples, seed, inner)


def taylor_roots(
    x: Tensor, *, sigma: float | Tensor = 0.5, roots: int | Tensor = 150, seed: int = 0
) -> Probes:
    """Look at the roots z, drawn around x or given, and weigh by x - z: SmoothTaylor."""
    if not isinstance(roots, Tensor):
        count = checks.count("roots", roots)
        blocks = _gaussian_copies(x, sigma, count, seed)
    else:
        checks.sigma(sigma, x)
        checks.seed(seed)
        given = checks.roots(roots, x)
        count = len(given)

        def blocks() -> Iterator[Tensor]:
            return (given[part] for part in slices(count, x))

    def make() -> Iterator[Block]:
        for z in blocks():
            yield Block(z, x - z, 1 / count, len(z))

    return Probes(count, make)


def noisy_weights(
    x: Tensor,
    *,
    weight_sigma: float = 0.2,
    weight_samples: int = 10,
    seed: int = 0,
    inner: Callable[..., Probes] = point,
) -> Probes:
    """Look where `inner` looks, at networks with noise on their weights: NoiseGrad."""
    checks.nonnegative("weight_sigma", weight_sigma)
    number, seed = checks.count("weight_samples", weight_samples), checks.seed(seed)

    def make() -> Iterator[Block]:
        for k in range(number):
            network = partial(noise.reweighted, sigma=weight_sigma, seed=child_seed(seed, k, 1))
            inside = inner(x, seed=child_seed(seed, k))
            yield from _part_of_draw(inside, number, network=network)

    return Probes(number * inner(x, seed=seed).count, make)


def noisy_weights_and_inputs(
    x: Tensor,
    *,
    sigma: float | Tensor,
    samples: int = 10,
    weight_sigma: float = 0.2,
    weight_samples: int = 10,
    seed: int = 0,
    inner: Callable[..., Probes] = point,
) -> Probes:
    """Look at x + sigma * eps, at networks with noise on their weights: FusionGrad."""
    around = partial(gaussian, sigma=sigma, samples=samples, inner=inner)
    weights = dict(weight_sigma=weight_sigma, weight_samples=weight_samples)
    return noisy_weights(x, **weights, seed=seed, inner=around)


def _baselines(
    x: Tensor, baseline: float | Tensor | str, number: int, bounds: tuple | None, seed: int
) -> Callable[[], Iterator[Tensor]]:
    """The starts of the paths, as a function that begins afresh: one fixed, or noise draws."""
    if isinstance(baseline, str):
        if baseline != "noise":
            raise ValueError(f"baseline: expected a number, a tensor or 'noise', got {baseline!r}")
        lower, upper = checks.bounds(bounds, x)

        def draws() -> Iterator[Tensor]:
            for uniform in chain.from_iterable(noise_blocks(x, torch.rand, number, seed)):
                yield (lower + (upper - lower) * uniform).to(x.dtype)

        return draws
    if number != 1:
        raise ValueError(
            f"baselines: expected 1 unless baseline='noise', got {number}; "
            "a fixed baseline gives the same map each time"
        )
    if bounds is not None:
        checks.bounds(bounds, x)
    fixed = checks.broadcastable("baseline", baseline, x)
    return lambda: iter([fixed])


def _around(
    x: Tensor,
    blocks: Callable[[], Iterator[Tensor]],
    samples: int,
    seed: int,
    inner: Callable[..., Probes],
) -> Probes:
    """`samples` noisy copies of x, in blocks (K, B, ...), and there wherever `inner` looks."""

    def make() -> Iterator[Block]:
        for k, noisy in enumerate(z for block in blocks() for z in block):
            yield from _part_of_draw(inner(noisy, seed=child_seed(seed, k)), samples)

    def plain() -> Iterator[Block]:
        return (Block(z, shares=1 / samples, draws=len(z)) for z in blocks())

    if inner is point:
        return Probes(samples, plain)
    return Probes(samples * inner(x, seed=child_seed(seed, 0)).count, make)


def _gaussian_copies(
    x: Tensor, sigma: float | Tensor, samples: int, seed: int
) -> Callable[[], Iterator[Tensor]]:
    sigma = checks.sigma(sigma, x)
    return _copies(x, lambda eps: x + sigma * eps, torch.randn, samples, seed)


def _copies(
    x: Tensor, place: Callable, draw: Callable, samples: int, seed: int
) -> Callable[[], Iterator[Tensor]]:
    """Blocks (K, B, ...) of noisy copies, place(noise); it begins afresh, with the same noise."""
    samples, seed = checks.count("samples", samples), checks.seed(seed)

    def blocks() -> Iterator[Tensor]:
        for eps in noise_blocks(x, draw, samples, seed):
            yield place(eps[:, None]).to(x.dtype)

    return blocks


def _part_of_draw(inside: Probes, draws: int, **changes: object) -> Iterator[Block]:
    """The blocks of one draw out of `draws`: only the last of them ends it."""
    seen = 0
    for block in inside:
        if changes and block.network is not None:
            raise TypeError("method: noise on weights that have noise already is not offered")
        seen += len(block.points)
        last = seen == inside.count
        yield block._replace(shares=block.shares / draws, draws=int(last), **changes)
