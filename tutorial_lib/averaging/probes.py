"""Where a method looks and how it weighs: each function here is one row of the table of methods.

A probe function takes the pictures x (B, ...) and returns `Probes` for the engine. Noise is drawn
on the device of x from `seed` alone, one draw a sample, and every picture of the batch gets the
same draws. So a batch gives the same maps as its pictures one at a time, whatever `batch_size` is,
and maps of one picture for several targets can be compared draw by draw.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from tutorial_lib import checks
from tutorial_lib.averaging import noise
from tutorial_lib.averaging.engine import Block, Probes
from tutorial_lib.averaging.quadrature import RULES, quadrature  # noqa: F401
from tutorial_lib.averaging.seeded_noise import (
    COPIES,
    child_seed,
    copies_per_draw,
    noise_blocks,
    slices,
)


def point(x: Tensor, *, seed: int = 0) -> Probes:
    """Look at x and weigh by 1: the gradient.

    Args:
        x: (B, ...) pictures.
        seed: It changes nothing, as no noise is drawn; every probe function takes it.

    Returns:
        `Probes` with 1 probe for each picture.

    Raises:
        TypeError: seed is not an int.
        ValueError: seed is negative.

    Example:
        >>> tl.probes.point(torch.tensor([[1.0, 3.0]])).points()
        tensor([[[1., 3.]]])
    """
    checks.seed(seed)
    return Probes(1, lambda: iter([Block(x[None])]))


def point_times_input(x: Tensor, *, seed: int = 0) -> Probes:
    """Look at x and weigh by x: gradient x input.

    Args:
        x: (B, ...) pictures.
        seed: It changes nothing, as no noise is drawn; every probe function takes it.

    Returns:
        `Probes` with 1 probe for each picture.

    Raises:
        TypeError: seed is not an int.
        ValueError: seed is negative.

    Example:
        >>> [block.weights for block in tl.probes.point_times_input(torch.tensor([[1.0, 3.0]]))]
        [tensor([[1., 3.]])]
    """
    checks.seed(seed)
    return Probes(1, lambda: iter([Block(x[None], x)]))


def pair(
    x: Tensor,
    *,
    baseline: float | Tensor = 0.0,
    baselines: Tensor | None = None,
    seed: int = 0,
) -> Probes:
    """Look at x and a baseline b together, and weigh by x - b: DeepLIFT.

    The points are pairs, for a changed backward rule that compares the two.

    Args:
        x: (B, ...) pictures.
        baseline: b, a number or a tensor broadcastable to x.
        baselines: (K, ...), K points that each picture is compared with, in place of `baseline`.
        seed: It changes nothing, as no noise is drawn; every probe function takes it.

    Returns:
        `Probes` with 1 probe, or K, for each picture, whose point is the pair (x, b): its points
        have the shape (1, B, 2, ...).

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: The shape of baseline does not fit x, it is not finite, or seed is negative.

    Example:
        >>> tl.probes.pair(torch.tensor([[1.0, 3.0]])).points()
        tensor([[[[1., 3.],
                  [0., 0.]]]])
    """
    checks.seed(seed)
    starts = [checks.broadcastable("baseline", baseline, x)]
    if baselines is not None:
        checks.left_out("baseline", baseline, 0.0, "baselines")
        starts = list(checks.baselines(baselines, x)[:, None])  # K times (1, ...)

    def make() -> Iterator[Block]:
        for start in starts:
            both = torch.stack([x, start.expand_as(x)], 1)  # (B, 2, ...)
            yield Block(both[None], x - start, 1 / len(starts))

    return Probes(len(starts), make)


def path(
    x: Tensor,
    *,
    baseline: float | Tensor | str = 0.0,
    baselines: int = 1,
    steps: int = 50,
    rule: str = "right",
    bounds: tuple | None = None,
    sampling: str = "random",
    seed: int = 0,
) -> Probes:
    """Look along the line b + a (x - b), and weigh by x - b: Integrated Gradients.

    Args:
        x: (B, ...) pictures.
        baseline: b, in the units of x: a number, a tensor broadcastable to x, or "noise" for noise
            that is uniform within `bounds`.
        baselines: Number of noise baselines; 1 for any other baseline.
        steps: Number of nodes a; the rule "trapezoid" has one more.
        rule: Nodes and weights of the sum, see `quadrature`: "right", "left", "midpoint",
            "trapezoid" or "gauss-legendre".
        bounds: Pair (lower, upper) of the range of x. The noise baseline needs it.
        sampling: How noise baselines are drawn, "random" or in mirrored pairs, "antithetic".
        seed: Seed of the noise baselines.

    Returns:
        `Probes` with a probe for each node of each baseline. A draw is the path of one baseline, or
        the two paths of an antithetic pair.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit; the message begins with the argument's name.

    Example:
        >>> tl.probes.path(torch.tensor([[2.0]]), steps=2, rule="midpoint").points().flatten()
        tensor([0.5000, 1.5000])
    """
    nodes, shares = quadrature(rule, steps)
    seed = checks.seed(seed)
    count = checks.count("baselines", baselines)
    starts, copies = _baselines(x, baseline, count, bounds, seed, sampling)
    shares = [share / baselines for share in shares]
    column = partial(torch.tensor, dtype=checks.accumulator(x.dtype))
    a, share_column = (column(v).view(-1, *[1] * x.ndim).to(x.device) for v in (nodes, shares))

    def make() -> Iterator[Block]:
        for k, b in enumerate(starts()):
            b = b.to(a.dtype)
            ends_draw = (k + 1) % copies == 0
            difference = x - b
            for rows in slices(len(nodes), x):
                points = (b + a[rows] * difference).to(x.dtype)  # (K, B, ...)
                single = rows.stop - rows.start == 1  # a number then, which the engine adds faster
                share = shares[rows.start] if single else share_column[rows]
                is_last = rows.stop == len(nodes) and ends_draw
                yield Block(points, difference, share, int(is_last))

    return Probes(baselines * len(nodes), make)


def weighted_path(
    x: Tensor,
    *,
    weight: Callable[[float], float],
    baseline: float | Tensor = 0.0,
    steps: int = 50,
    rule: str = "right",
    seed: int = 0,
) -> Probes:
    """Look along the line b + a (x - b), and weigh by w(a) (x - b): path-weighted gradients.

        A(x) = (x - b) * integral over a in [0, 1] of w(a) grad f(b + a (x - b))

    Kamalov et al. (2025). With w = 1 it is Integrated Gradients. If w(a) is the probability that
    a random t is at most a, it is the mean of Integrated Gradients from baselines b + t (x - b).

    Args:
        x: (B, ...) pictures.
        weight: w, a function from a number of [0, 1] to a number.
        baseline: b, in the units of x: a number or a tensor broadcastable to x.
        steps: Number of nodes a; the rule "trapezoid" has one more.
        rule: Nodes and weights of the sum, as in `path`.
        seed: It changes nothing, as no noise is drawn; every probe function takes it.

    Returns:
        `Probes` with a probe for each node.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit; the message begins with the argument's name.

    Example:
        The later half of the path alone, of the square from 0 to 2:

        >>> from functools import partial
        >>> late = partial(tl.probes.weighted_path, weight=lambda a: a >= 0.5, rule="midpoint")
        >>> tl.engine.average(lambda z: z**2, torch.tensor([[2.0]]), 0, late)
        tensor([[3.]])
    """
    plain = path(x, baseline=baseline, steps=steps, rule=rule, seed=seed)
    nodes = quadrature(rule, steps)[0]
    values = torch.tensor([checks.weight(weight, a) for a in nodes], dtype=torch.float64)
    values = values.to(x.device, checks.accumulator(x.dtype)).view(-1, *[1] * x.ndim)

    def make() -> Iterator[Block]:
        start = 0
        for block in plain:
            stop = start + len(block.points)
            weights = values[start:stop] * block.weights  # type: ignore[operator]  # path has them
            yield block._replace(weights=weights)
            start = stop

    return Probes(plain.count, make)


def random_paths(x: Tensor, *, baselines: Tensor, samples: int = 50, seed: int = 0) -> Probes:
    """Look at random points of the lines from random baselines b to x: expected gradients.

    Each probe draws one b of the K baselines and one a ~ U(0, 1); it looks at b + a (x - b) and
    weighs by x - b.

    Args:
        x: (B, ...) pictures.
        baselines: (K, ...), K points of the shape of a picture.
        samples: Number of draws of a pair (b, a).
        seed: Seed of the draws.

    Returns:
        `Probes` with a probe for each sample, which is a draw of its own.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit; the message begins with the argument's name.

    Example:
        >>> background = torch.zeros(5, 3, 16, 16)
        >>> tl.probes.random_paths(x, baselines=background, samples=50).points().shape
        torch.Size([50, 2, 3, 16, 16])
    """
    samples, seed = checks.count("samples", samples), checks.seed(seed)
    baselines = checks.baselines(baselines, x)
    two_numbers = x.new_empty(1, 2)  # the shape of what one sample draws
    uniform = torch.cat([*noise_blocks(two_numbers, torch.rand, samples, seed)])  # (samples, 2)
    chosen = (uniform[:, 0] * len(baselines)).long()
    a = uniform[:, 1].view(-1, *[1] * x.ndim)

    def make() -> Iterator[Block]:
        for rows in slices(samples, x):
            b = baselines[chosen[rows], None].to(a.dtype)  # (n, 1, ...)
            points = (b + a[rows] * (x - b)).to(x.dtype)  # (n, B, ...)
            yield Block(points, x - b, 1 / samples, len(points))

    return Probes(samples, make)


def segments(
    x: Tensor, *, baseline: float | Tensor = 0.0, steps: int = 50, seed: int = 0
) -> Probes:
    """Look at both ends of each of `steps` equal parts of the line from b to x: IDGI.

    The points are pairs, for a function that compares the two.

    Args:
        x: (B, ...) pictures.
        baseline: b, in the units of x: a number or a tensor broadcastable to x.
        steps: Number of parts.
        seed: It changes nothing, as no noise is drawn; every probe function takes it.

    Returns:
        `Probes` with a probe for each part, whose point is the pair of its ends, first that nearer
        to b. Its points have the shape (steps, B, 2, ...).

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit; the message begins with the argument's name.

    Example:
        >>> tl.probes.segments(torch.tensor([[3.0]]), steps=2).points().view(2, 2)
        tensor([[0.0000, 1.5000],
                [1.5000, 3.0000]])
    """
    checks.seed(seed)
    steps = checks.count("steps", steps, most=1_000_000)
    start = checks.broadcastable("baseline", baseline, x)
    a = torch.arange(steps + 1, dtype=checks.accumulator(x.dtype), device=x.device) / steps
    a = a.view(-1, *[1] * x.ndim)  # (steps + 1, 1, ...)

    def make() -> Iterator[Block]:
        for rows in slices(steps, x):
            nodes = torch.lerp(start.to(a), x.to(a), a[rows.start : rows.stop + 1]).to(x.dtype)
            points = torch.stack([nodes[:-1], nodes[1:]], 2)  # (K, B, 2, ...)
            yield Block(points, None, 1 / steps, int(rows.stop == steps))

    return Probes(steps, make)


def gaussian(
    x: Tensor,
    *,
    sigma: float | Tensor,
    samples: int = 50,
    sampling: str = "random",
    seed: int = 0,
    inner: Callable[..., Probes] = point,
) -> Probes:
    """Look at x + sigma * eps with eps ~ N(0, I), and there wherever `inner` looks: SmoothGrad.

    Args:
        x: (B, ...) pictures.
        sigma: Standard deviation in the units of x, a number or a tensor broadcastable to x.
        samples: Number of noisy copies of each picture.
        sampling: How the noise is drawn, "random" or in pairs of opposite noise, "antithetic". The
            noise of `inner` is drawn afresh at each copy.
        seed: Seed of the noise.
        inner: Probe function of the method that is smoothed, called as inner(noisy x, seed=...).

    Returns:
        `Probes` with samples times as many probes as `inner` has. A draw is one noisy copy, or one
        antithetic pair of them.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit; the message begins with the argument's name.

    Example:
        >>> tl.probes.gaussian(x, sigma=0.2, samples=50).points().shape
        torch.Size([50, 2, 3, 16, 16])
    """
    copies = _gaussian_copies(x, sigma, samples, seed, sampling)
    return _inner_probes(x, copies, samples, seed, inner, COPIES[sampling])


def adaptive_gaussian(
    x: Tensor,
    *,
    bounds: tuple,
    confidence: float = 0.95,
    samples: int = 50,
    sampling: str = "random",
    seed: int = 0,
    inner: Callable[..., Probes] = point,
) -> Probes:
    """Look at x + sigma_i * eps_i, sigma_i from the distance to the nearer bound: AdaptGrad.

    Args:
        x: (B, ...) pictures, inside the bounds.
        bounds: Pair (lower, upper) of the range of x, numbers or tensors, such as model.bounds.
        confidence: c of `tl.adaptive_sigma`, between 0 and 1.
        samples: Number of noisy copies of each picture.
        sampling: How the noise is drawn, as in `gaussian`.
        seed: Seed of the noise.
        inner: Probe function of the method that is smoothed, called as inner(noisy x, seed=...).

    Returns:
        `Probes` with samples times as many probes as `inner` has. A draw is one noisy copy, or one
        antithetic pair of them.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, or x lies outside the bounds.

    Example:
        A value on a bound gets no noise:

        >>> z = torch.tensor([[0.0, 1.0]])
        >>> tl.probes.adaptive_gaussian(z, bounds=(0.0, 1.0), samples=2).points()
        tensor([[[0., 1.]], [[0., 1.]]])
    """
    sigma = noise.adaptive_sigma(x, bounds, confidence)
    return gaussian(x, sigma=sigma, samples=samples, sampling=sampling, seed=seed, inner=inner)


def truncated_gaussian(
    x: Tensor,
    *,
    sigma: float | Tensor,
    bounds: tuple,
    samples: int = 50,
    seed: int = 0,
    inner: Callable[..., Probes] = point,
) -> Probes:
    """Look around x with normal noise that is conditioned on staying within the bounds.

    Args:
        x: (B, ...) pictures, inside the bounds.
        sigma: Standard deviation before the condition, in the units of x: a number or a tensor
            broadcastable to x.
        bounds: Pair (lower, upper) of the range of x, numbers or tensors, such as model.bounds.
        samples: Number of noisy copies of each picture.
        seed: Seed of the noise.
        inner: Probe function of the method that is smoothed, called as inner(noisy x, seed=...).

    Returns:
        `Probes` with samples times as many probes as `inner` has. A draw is one noisy copy.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, or x lies outside the bounds.

    Example:
        >>> z = tl.probes.truncated_gaussian(x, sigma=0.5, bounds=(0.0, 1.0)).points()
        >>> bool(((z >= 0) & (z <= 1)).all())
        True
    """
    sigma, bounds = checks.sigma(sigma, x), checks.inside(x, bounds)
    displace = partial(noise.truncated_normal, x, sigma, bounds)
    copies = _noisy_copies(x, displace, torch.rand, samples, seed)
    return _inner_probes(x, copies, samples, seed, inner)


def taylor_roots(
    x: Tensor,
    *,
    sigma: float | Tensor = 0.5,
    roots: int | Tensor = 150,
    sampling: str = "random",
    seed: int = 0,
) -> Probes:
    """Look at the roots z, drawn around x or given, and weigh by x - z: SmoothTaylor.

    Args:
        x: (B, ...) pictures.
        sigma: Standard deviation in the units of x, a number or a tensor broadcastable to x.
        roots: Number of roots that are drawn, or given roots (R, B, ...); sigma and seed then play
            no part.
        sampling: How the noise is drawn, "random" or in pairs of opposite noise, "antithetic".
        seed: Seed of the noise.

    Returns:
        `Probes` with a probe for each root, which is a draw of its own, or half of an antithetic
        one.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit; the message begins with the argument's name.

    Example:
        >>> roots = torch.tensor([[[0.5]], [[2.0]]])
        >>> probes = tl.probes.taylor_roots(torch.tensor([[1.0]]), roots=roots)
        >>> [block.weights.flatten() for block in probes]
        [tensor([ 0.5000, -1.0000])]
    """
    copies = 1
    if not isinstance(roots, Tensor):
        count = checks.count("roots", roots)
        copies = copies_per_draw(sampling, "roots", count)
        blocks = _gaussian_copies(x, sigma, count, seed, sampling)
    else:
        checks.sigma(sigma, x)
        checks.seed(seed)
        given = checks.roots(roots, x)
        count = len(given)
        _nothing_is_drawn(sampling, "for given roots")

        def blocks() -> Iterator[Tensor]:
            return (given[rows] for rows in slices(count, x))

    def make() -> Iterator[Block]:
        for z in blocks():  # (K, B, ...)
            yield Block(z, x - z, 1 / count, len(z) // copies)

    return Probes(count, make)


def noisy_weights(
    x: Tensor,
    *,
    weight_sigma: float = 0.2,
    weight_samples: int = 10,
    seed: int = 0,
    inner: Callable[..., Probes] = point,
) -> Probes:
    """Look where `inner` looks, at networks with noise on their weights: NoiseGrad.

    Args:
        x: (B, ...) pictures.
        weight_sigma: Standard deviation of the noise, a fraction of each weight.
        weight_samples: Number of noisy networks.
        seed: Seed of the noise.
        inner: Probe function of the method that is smoothed, called as inner(x, seed=...).

    Returns:
        `Probes` with weight_samples times as many probes as `inner` has. A draw is one network.

    Raises:
        TypeError: An argument has the wrong type, or `inner` has noise on weights itself.
        ValueError: A value does not fit; the message begins with the argument's name.

    Example:
        >>> tl.probes.noisy_weights(x, weight_samples=10).count
        10
    """
    checks.nonnegative("weight_sigma", weight_sigma)
    count, seed = checks.count("weight_samples", weight_samples), checks.seed(seed)

    def make() -> Iterator[Block]:
        for k in range(count):
            network = partial(noise.reweighted, sigma=weight_sigma, seed=child_seed(seed, k, 1))
            probes = inner(x, seed=child_seed(seed, k))
            yield from _blocks_of_draw(probes, count, network=network)

    return Probes(count * inner(x, seed=seed).count, make)


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
    """Look at x + sigma * eps, at networks with noise on their weights: FusionGrad.

    Args:
        x: (B, ...) pictures.
        sigma: Standard deviation in the units of x, a number or a tensor broadcastable to x.
        samples: Number of noisy copies of each picture for each network.
        weight_sigma: Standard deviation of the noise on weights, a fraction of each weight.
        weight_samples: Number of noisy networks.
        seed: Seed of the noise.
        inner: Probe function of the method that is smoothed, called as inner(noisy x, seed=...).

    Returns:
        `Probes` with weight_samples times samples times as many probes as `inner` has. A draw is
        one network.

    Raises:
        TypeError: An argument has the wrong type, or `inner` has noise on weights itself.
        ValueError: A value or a shape does not fit; the message begins with the argument's name.

    Example:
        >>> tl.probes.noisy_weights_and_inputs(x, sigma=0.2, samples=5, weight_samples=10).count
        50
    """
    noisy_inputs = partial(gaussian, sigma=sigma, samples=samples, inner=inner)
    weights: dict[str, Any] = dict(weight_sigma=weight_sigma, weight_samples=weight_samples)
    return noisy_weights(x, **weights, seed=seed, inner=noisy_inputs)


def _baselines(
    x: Tensor,
    baseline: float | Tensor | str,
    count: int,
    bounds: tuple | None,
    seed: int,
    sampling: str,
) -> tuple[Callable[[], Iterator[Tensor]], int]:
    """Return a function that iterates over the baselines, and how many of them make a draw."""
    if isinstance(baseline, str):
        if baseline != "noise":
            raise ValueError(f"baseline: expected a number, a tensor or 'noise', got {baseline!r}")
        lower, upper = checks.bounds(bounds, x)
        copies = copies_per_draw(sampling, "baselines", count)

        def noise_baselines() -> Iterator[Tensor]:
            blocks = noise_blocks(x, torch.rand, count, seed, sampling)
            for uniform in chain.from_iterable(blocks):
                yield (lower + (upper - lower) * uniform).to(x.dtype)

        return noise_baselines, copies
    if count != 1:
        raise ValueError(
            f"baselines: expected 1 unless baseline='noise', got {count}; "
            "a fixed baseline gives the same map each time"
        )
    if bounds is not None:
        checks.bounds(bounds, x)
    _nothing_is_drawn(sampling, "unless baseline='noise'")
    fixed = checks.broadcastable("baseline", baseline, x)
    return lambda: iter([fixed]), 1


def _nothing_is_drawn(sampling: str, when: str) -> None:
    """Raise ValueError for another sampling than the usual one where no noise is drawn."""
    checks.choice("sampling", sampling, tuple(COPIES))
    if sampling != "random":
        raise ValueError(
            f"sampling: expected 'random' {when}, where nothing is drawn; leave it out"
        )


def _inner_probes(
    x: Tensor,
    copies: Callable[[], Iterator[Tensor]],
    samples: int,
    seed: int,
    inner: Callable[..., Probes],
    per_draw: int = 1,
) -> Probes:
    """Return the probes of `inner` at each of `samples` noisy copies, blocks (K, B, ...).

    per_draw: how many copies, one after the other, make an independent draw.
    """

    def make() -> Iterator[Block]:
        for k, noisy in enumerate(z for block in copies() for z in block):
            ends_draw = (k + 1) % per_draw == 0
            yield from _blocks_of_draw(inner(noisy, seed=child_seed(seed, k)), samples, ends_draw)

    def make_points() -> Iterator[Block]:
        return (Block(z, shares=1 / samples, draws=len(z) // per_draw) for z in copies())

    if inner is point:
        return Probes(samples, make_points)
    return Probes(samples * inner(x, seed=child_seed(seed, 0)).count, make)


def _gaussian_copies(
    x: Tensor, sigma: float | Tensor, samples: int, seed: int, sampling: str
) -> Callable[[], Iterator[Tensor]]:
    """Return a function that iterates over blocks (K, B, ...) of x with normal noise."""
    sigma = checks.sigma(sigma, x)
    return _noisy_copies(x, lambda eps: x + sigma * eps, torch.randn, samples, seed, sampling)


def _noisy_copies(
    x: Tensor, displace: Callable, draw: Callable, samples: int, seed: int, sampling: str = "random"
) -> Callable[[], Iterator[Tensor]]:
    """Return a function that iterates over blocks (K, B, ...) of displace(noise).

    Every iteration starts from the first block and has the same noise.
    """
    samples, seed = checks.count("samples", samples), checks.seed(seed)
    copies_per_draw(sampling, "samples", samples)

    def copies() -> Iterator[Tensor]:
        for eps in noise_blocks(x, draw, samples, seed, sampling):  # (K, ...)
            yield displace(eps[:, None]).to(x.dtype)  # (K, B, ...)

    return copies


def _blocks_of_draw(
    probes: Probes, copies: int, ends_draw: bool = True, **fields: Any
) -> Iterator[Block]:
    """Return the blocks of one out of so many copies, with changed fields.

    ends_draw: whether the last block completes an independent draw; the others do not.
    """
    seen = 0
    for block in probes:
        if fields and block.network is not None:
            raise TypeError("method: noise on weights that have noise already is not offered")
        seen += len(block.points)
        last = seen == probes.count and ends_draw
        yield block._replace(shares=block.shares / copies, draws=int(last), **fields)
