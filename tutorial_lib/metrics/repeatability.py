"""How far an averaged map can be trusted to repeat, and sampling until it does."""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from tutorial_lib import checks
from tutorial_lib.averaging.seeded_noise import child_seed
from tutorial_lib.averaging.smoothing import smoothgrad
from tutorial_lib.metrics.agreement import compare


class Sampled(NamedTuple):
    """A mean map and how reliable it is, as `tl.sample_until` returns it.

    Attributes:
        attribution: The mean map, (B, ...) as x.
        standard_error: Standard error of every entry of the mean map, (B, ...) as x.
        reliability: (B,) reliability of the mean map of the last even number of rounds.
        rounds: Number of rounds, which are calls of the method.
        history: For every second round, the triple (rounds, reliability (B,), root mean square
            standard error (B,)).
    """

    attribution: Tensor
    standard_error: Tensor
    reliability: Tensor
    rounds: int
    history: list[tuple[int, Tensor, Tensor]]


def reliability(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    method: Callable[..., Tensor] = smoothgrad,
    view: Callable[[Tensor], Tensor] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
    **keywords: object,
) -> Tensor:
    """Measure how well a method's map would repeat with other draws.

        r = corr(A_1(x), A_2(x))

    A_1 and A_2 are two maps of the same method from independent draws (split-half reliability with
    halves of full size). If every entry is a signal plus independent errors, r is the signal's
    share of the map's variance over entries. r is 1 for a method without randomness. It says
    nothing about whether the map is right. It takes two maps of the method.

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
        x: (B, ...) finite floating-point inputs.
        target: Class index, or LongTensor (B,) with one for each input.
        method: Any attribution function with a seed.
        view: Function from a map to what is compared of it, for example `tl.heatmap` or
            `tl.saliency_map`. By default the signed attributions are compared, entry by entry.
        batch_size: Points in a forward pass; None chooses by the device and the size of x.
        seed: Seed from which the seeds of both calls follow.
        progress: Whether to show a progress bar.
        **keywords: Keywords of the method as it will be used, for example
            ``method=tl.smooth_taylor, sigma=0.2, roots=150``.

    Returns:
        (B,) correlations from -1 to 1, in float64 on the CPU.

    Raises:
        TypeError: An argument has the wrong type, or the method or the view does not return a
            batch of real maps.
        ValueError: A map or its view is constant (as that of a dead network, 0 everywhere), NaN or
            infinite: there is nothing in it that could repeat. The message names the pictures. The
            method may raise its own errors.

    Example:
        The map of a method without noise repeats exactly:

        >>> tl.reliability(model, x, 5, method=tl.gradient_x_input)
        tensor([1., 1.], dtype=torch.float64)
        >>> tl.reliability(model, x, 5, method=tl.smoothgrad, sigma=0.2, samples=4).shape
        torch.Size([2])
    """
    seed = checks.seed(seed)
    options = dict(batch_size=batch_size, progress=progress, **keywords)
    first, second = (method(model, x, target, seed=child_seed(seed, k), **options) for k in (0, 1))
    return _correlation(view, first, second)


def sample_until(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    method: Callable[..., Tensor] = smoothgrad,
    reliability: float | None = None,
    standard_error: float | None = None,
    max_rounds: int = 100,
    view: Callable[[Tensor], Tensor] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
    **keywords: object,
) -> Sampled:
    """Call a method with ever new seeds and average, until the map is as reliable as wanted.

        r_K = 2 r / (1 + r)

    After K rounds, K even, the odd and the even rounds make two independent half maps. Their
    correlation r gives the reliability r_K of the whole by the formula of Spearman and Brown. The
    standard error of an entry is the spread of the rounds over sqrt(K); with few rounds it is
    rough. It takes one map of the method for each round.

    An interrupt ends the sampling with a warning and returns what there is.

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
        x: (B, ...) finite floating-point inputs.
        target: Class index, or LongTensor (B,) with one for each input.
        method: Any attribution function with a seed. One call of it is one round.
        reliability: Wanted reliability of every picture, between 0 and 1. Give it, or
            standard_error, or both.
        standard_error: Wanted standard error of every picture, in the units of the map: the root
            mean square over its entries.
        max_rounds: Number of rounds after which sampling ends in any case, at least 2; the result
            says how far it came.
        view: Function from a map to what the reliability compares, as in `tl.reliability`.
        batch_size: Points in a forward pass; None chooses by the device and the size of x.
        seed: Seed from which the seeds of all rounds follow.
        progress: Whether to show a progress bar.
        **keywords: Keywords of the method for one round, for example ``sigma=0.2, samples=20``.

    Returns:
        `tl.Sampled`, the mean map with its standard error and its reliability.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, neither reliability nor standard_error is
            given, or a map or its view is constant, NaN or infinite (after the first two rounds,
            so that little is lost). The method may raise its own errors.

    Example:
        Two rounds are enough for a method without noise:

        >>> result = tl.sample_until(model, x, 5, method=tl.gradient_x_input, reliability=0.9)
        >>> result.rounds, result.attribution.shape
        (2, torch.Size([2, 3, 16, 16]))
        >>> options = dict(sigma=0.2, samples=4, standard_error=0.1, max_rounds=4)
        >>> tl.sample_until(model, x, 5, **options).reliability.shape
        torch.Size([2])
    """
    checks.model(model)
    x = checks.pictures(x)
    checks.count("max_rounds", max_rounds, least=2)
    seed = checks.seed(seed)
    if reliability is None and standard_error is None:
        raise ValueError("reliability: give a wanted reliability or standard_error, got neither")
    if reliability is not None:
        checks.fraction("reliability", reliability)
    if standard_error is not None:
        checks.positive("standard_error", standard_error)
    rounds = _Rounds(x, view)
    with tqdm(total=max_rounds, unit="round", disable=not progress) as bar:
        try:
            for k in range(max_rounds // 2 * 2):
                options = dict(batch_size=batch_size, seed=child_seed(seed, k), **keywords)
                rounds.add(method(model, x, target, **options))
                bar.update()
                if rounds.count % 2 == 0 and rounds.are_enough(reliability, standard_error):
                    break
        except KeyboardInterrupt:
            if not rounds.history:
                raise
            message = f"sample_until was interrupted after {rounds.count} rounds"
            warnings.warn(f"{message}; their mean is returned", RuntimeWarning, stacklevel=2)
    return rounds.result(x.dtype)


def _correlation(view: Callable | None, a: Tensor, b: Tensor) -> Tensor:
    """Correlate the views of two batches of maps, (B,)."""
    if view is not None:
        if not callable(view):
            raise TypeError(f"view: expected a function such as tl.heatmap, got {view!r}")
        return compare(view(a), view(b), ("view", "view"))
    return compare(a, b, ("method", "method"))


class _Rounds:
    """Sums of the even and the odd rounds, and Welford's running variance over all."""

    def __init__(self, x: Tensor, view: Callable | None):
        self.view, self.count, self.history = view, 0, []
        self.half_sums = [torch.zeros_like(x, dtype=checks.accumulator(x.dtype)) for _ in range(2)]
        self.squares = torch.zeros_like(self.half_sums[0])  # squared deviations, summed over rounds

    def add(self, attribution: Tensor) -> None:
        """Take the map of one round; after every second round, note how reliable the mean is."""
        checks.returned(attribution, self.squares.shape)
        mean = (self.half_sums[0] + self.half_sums[1]) / max(self.count, 1)
        self.half_sums[self.count % 2] += attribution
        self.count += 1
        delta = attribution - mean
        self.squares += delta * (delta - delta / self.count)
        if self.count % 2 == 0:
            r = _correlation(self.view, *self.half_sums)
            error = self.standard_error().flatten(1).cpu().double().square().mean(1).sqrt()
            self.history.append((self.count, 2 * r / (1 + r), error))

    def standard_error(self) -> Tensor:
        """Return the standard error of every entry of the mean."""
        return (self.squares / (self.count - 1) / self.count).sqrt()

    def are_enough(self, reliability: float | None, standard_error: float | None) -> bool:
        """Say whether every picture has the wanted reliability and standard error."""
        _, r, error = self.history[-1]
        reliable = reliability is None or bool((r >= reliability).all())
        return reliable and (standard_error is None or bool((error <= standard_error).all()))

    def result(self, dtype: torch.dtype) -> Sampled:
        """Return the mean of the rounds and what is known of it."""
        mean = (self.half_sums[0] + self.half_sums[1]) / self.count
        r, error = self.history[-1][1], self.standard_error()
        return Sampled(mean.to(dtype), error.to(dtype), r, self.count, self.history)
