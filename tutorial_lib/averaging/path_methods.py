"""Kin of Integrated Gradients: random baselines, a path that the gradient guides, and IDGI."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tutorial_lib import checks
from tutorial_lib.averaging import probes
from tutorial_lib.averaging.engine import average, gradients, target_scores


def expected_gradients(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    baselines: Tensor,
    samples: int = 50,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Average Integrated Gradients over baselines, by random points of their paths.

        A(x) = E over b and a of (x - b) * grad f(b + a (x - b))
             ~ 1/S sum_s (x - b_s) * grad f(b_s + a_s (x - b_s)),  b_s of the K given, a_s ~ U(0, 1)

    Erion et al. (2021). In expectation the entries sum to f(x) minus the mean score of the
    baselines. It takes S gradients, however many baselines there are.

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
        x: (B, ...) finite floating-point inputs.
        target: Class index, or LongTensor (B,) with one for each input.
        baselines: (K, ...), K points in the units of x, such as other pictures of the data. Each
            sample draws one of them, all equally likely.
        samples: S, the number of draws. Every input gets the same ones.
        batch_size: Points in a forward pass; None chooses by the device and the size of x.
        seed: Seed of the draws.
        progress: Whether to show a progress bar.

    Returns:
        (B, ...) attributions in units of the score.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, the rows of the model are not independent, or
            its gradients are not finite.

    Example:
        Of a linear function it is the weight times x minus the baseline:

        >>> background = torch.tensor([[1.0, 1.0]])
        >>> z = torch.tensor([[1.0, 3.0]])
        >>> tl.expected_gradients(lambda x: 5 * x, z, 1, baselines=background)
        tensor([[ 0., 10.]])
    """
    probe_function = partial(probes.random_paths, baselines=baselines, samples=samples, seed=seed)
    return average(model, x, target, probe_function, batch_size=batch_size, progress=progress)


def idgi(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    baseline: float | Tensor = 0.0,
    steps: int = 50,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Share out each step's change of the score by the squared gradient: IDGI.

        A(x) = sum_j (f(z_(j+1)) - f(z_j)) * g_j^2 / |g_j|^2,  g_j = grad f(z_j)
        z_j = b + j/n (x - b),  j = 0, ..., n - 1

    Yang et al. (2023). Integrated Gradients shares the change of a step by g_j * (x - b) / n. That
    has a part along g_j, which changes the score, and a part across it, which does not and which
    the authors call noise; here the first remains. So an entry where x = b may get a share.

    The entries sum to f(x) - f(b), with any number of steps, if no g_j is 0. A step with a gradient
    of 0 gives no entry anything, and its change is missing from the sum; the authors' program
    returns NaN then. A map takes n gradients and 2 n forward passes more.

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
        x: (B, ...) finite floating-point inputs.
        target: Class index, or LongTensor (B,) with one for each input.
        baseline: b, in the units of x: a number or a tensor broadcastable to x.
        steps: n, the number of steps along the straight line from b to x.
        batch_size: Points in a forward pass; None chooses by the device and the size of x.
        seed: It changes nothing, as no noise is drawn; every method takes it.
        progress: Whether to show a progress bar.

    Returns:
        (B, ...) attributions in units of the score.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, the rows of the model are not independent, or
            its gradients are not finite.

    Example:
        A rise of 10, shared as 1^2 to 3^2, though the first input has not changed:

        >>> tl.idgi(lambda x: x[:, :1] + 3 * x[:, 1:], torch.tensor([[0.0, 10 / 3]]), 0)
        tensor([[1., 9.]])
    """

    def shared_slope(network: Callable, pairs: Tensor, target: Tensor) -> Tensor:
        before, after = pairs.unbind(1)  # (N, ...)
        g = gradients(network, before, target).flatten(1)
        g = g.to(checks.accumulator(g.dtype))  # (N, D)
        largest = g.abs().amax(1, keepdim=True)
        squares = torch.where(largest == 0, 0, g / largest).square()  # of 1 at most
        shares = squares / squares.sum(1, keepdim=True).clamp(min=1)
        rise = _score(network, after, target) - _score(network, before, target)  # (N, 1)
        return (steps * rise * shares).view_as(before)  # the engine's mean of n is their sum

    probe_function = partial(probes.segments, baseline=baseline, steps=steps, seed=seed)
    options: dict[str, Any] = dict(batch_size=batch_size, progress=progress)
    return average(model, x, target, probe_function, gradient_of=shared_slope, **options)


def guided_integrated_gradients(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    baseline: float | Tensor = 0.0,
    steps: int = 50,
    fraction: float = 0.25,
    max_dist: float = 1.0,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Integrate the gradient along a path that first moves what changes the score least.

        A(x) = sum_k (z_(k+1) - z_k) * grad f(z_k),  z_0 = b,  |x - z_k|_1 = (1 - k/n) |x - b|_1

    Kapishnikov et al. (2021), Guided IG. In step k the inputs whose gradients at z_k are smallest
    in size, the share `fraction` of all, move towards x as far as the step needs. If they are there
    before, the next ones follow, with the same gradient. So large gradients that the straight line
    meets on its way are met late or not at all. The path depends on the model, and A is not linear
    in it.

    The entries sum to f(x) - f(b) as n grows if f is smooth. They need not where it has kinks: of
    max(x_1, x_2) the path climbs along the kink in a zigzag, always by the input whose gradient is
    0, and nobody is paid for the rise. On a deep network the path also depends on the last bits of
    the gradients, as they decide which inputs are next: maps in float32 and in float64 differ. A
    map takes n gradients, one after another.

    The algorithm is that of the authors' package `saliency`, where max_dist is 0.02 and steps 200
    if left out. With max_dist=0 or fraction=1 it is Integrated Gradients with rule="left".

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
        x: (B, ...) finite floating-point inputs.
        target: Class index, or LongTensor (B,) with one for each input.
        baseline: b, in the units of x: a number or a tensor broadcastable to x.
        steps: n, the number of steps, equal in the L1 distance.
        fraction: Share of the inputs that move together, above 0 and at most 1.
        max_dist: How far an input may be ahead of the straight line or behind it, as a share of its
            way; 1 for no limit.
        batch_size: Points in a forward pass; None chooses by the device and the size of x.
        seed: It changes nothing, as no noise is drawn; every method takes it.
        progress: Whether to show a progress bar, which counts pictures here.

    Returns:
        (B, ...) attributions in units of the score.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, the rows of the model are not independent, or
            its gradients are not finite.

    Example:
        The product from (1, 0) to (2, 1) does not change with the first input while the second is
        0. So the first goes first, and all the rise of 2 is the second's:

        >>> product = lambda x: x[:, :1] * x[:, 1:]
        >>> z, b = torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0, 0.0]])
        >>> tl.guided_integrated_gradients(product, z, 0, baseline=b)
        tensor([[0., 2.]])
        >>> tl.integrated_gradients(product, z, 0, baseline=b, rule="midpoint")
        tensor([[0.5000, 1.5000]])
    """
    steps = checks.count("steps", steps)
    fraction = checks.positive("fraction", fraction, most=1.0)
    max_dist = checks.nonnegative("max_dist", max_dist)

    def multipliers(network: Callable, pairs: Tensor, target: Tensor) -> Tensor:
        x, b = pairs.to(checks.accumulator(pairs.dtype)).unbind(1)  # (N, ...)
        length = (x - b).abs().flatten(1)  # (N, D)
        a, total = torch.zeros_like(length), torch.zeros_like(length)
        for k in range(1, steps + 1):
            z = torch.lerp(b, x, a.view_as(x)).to(pairs.dtype)
            g = gradients(network, z, target).flatten(1)
            moved = _moved(a, g.abs().to(a), length, k / steps, fraction, max_dist)
            total += g * (moved - a)
            a = moved
        return total.view_as(x)

    probe_function = partial(probes.pair, baseline=baseline, seed=seed)  # it weighs by x - b
    options: dict[str, Any] = dict(batch_size=batch_size, progress=progress)
    return average(model, x, target, probe_function, gradient_of=multipliers, **options)


def _moved(
    a: Tensor, size: Tensor, length: Tensor, goal: float, fraction: float, max_dist: float
) -> Tensor:
    """Move inputs on, those with the smallest gradients first, until `goal` of the way is done.

    a: (N, D), which share of its way each input has gone. size: |gradient|. length: |x - b|.
    """
    rank = 1 + int(fraction * (a.shape[1] - 1))  # of the last input that moves
    a, high = a.clamp(min=goal - max_dist), torch.full_like(a, min(goal + max_dist, 1))
    going = torch.ones_like(a[:, :1], dtype=torch.bool)  # (N, 1)
    while bool(going.any()):
        size = size.masked_fill((a == high) | (length == 0), torch.inf)
        chosen = going & size.isfinite() & (size <= size.kthvalue(rank, 1, keepdim=True).values)
        room = (length * (high - a) * chosen).sum(1, keepdim=True)
        missing = (length * (goal - a)).sum(1, keepdim=True)
        part = torch.where(room > 0, missing / room, 0).clamp(0, 1)
        a = torch.where(chosen, a.lerp(high, part), a)
        going = part == 1
    return a


def _score(network: Callable, points: Tensor, target: Tensor) -> Tensor:
    """Return the target's score of each point, (N, 1), in float32 or better."""
    scores = target_scores(network, points, target)
    return scores.to(checks.accumulator(scores.dtype))[:, None]
