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
    """attribution: the mean map, the shape of x. standard_error: of every entry of it.

    reliability: (B,), of the mean map of the last even number of rounds. rounds: calls of the
    method. history: for every second round, (rounds, reliability (B,), root mean square standard
    error (B,)).
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
    """How well a method's map would repeat with other draws: (B,).

    r = corr(A_1(x), A_2(x)), two maps of the same method from independent draws (split-half
    reliability with halves of full size). If every entry is a signal plus independent errors, r is
    the signal's share of the map's variance over entries. 1 for a method without randomness. It
    says nothing about whether the map is right.

    method, keywords: as it will be used, for example method=tl.smooth_taylor, sigma=0.2,
    roots=150; it must take a seed. It is called twice. view: what is compared of each map, for
    example tl.heatmap or tl.saliency_map; by default the signed attributions, entry by entry.
    Raises ValueError that names the pictures whose map or view is constant (as that of a dead
    network, 0 everywhere), NaN or infinite: there is nothing in it that could repeat.

    >>> tl.reliability(model, x, 285, method=tl.smoothgrad, sigma=0.2, samples=50)
    """
    seed = checks.seed(seed)
    call = dict(batch_size=batch_size, progress=progress, **keywords)
    first, second = (method(model, x, target, seed=child_seed(seed, k), **call) for k in (0, 1))
    return _agreement(view, first, second)


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

    After K rounds, K even, the odd and the even rounds make two independent half maps. Their
    correlation r gives the reliability of the whole by the formula of Spearman and Brown,
    2 r / (1 + r). The standard error of an entry is the spread of the rounds over sqrt(K); with
    few rounds it is rough.

    method, keywords: one round, for example method=tl.smoothgrad, sigma=0.2, samples=20.
    reliability: wanted, below 1, for every picture. standard_error: wanted, in the units of the
        map: its root mean square over entries, for every picture. Give at least one of them.
    max_rounds: stop there in any case; the result says how far it came. view: what the
        reliability compares, as in `reliability`.

    Returns `Sampled`. An interrupt ends the sampling with a warning and returns what there is.
    Raises like `reliability`, after the first two rounds, so that little is lost.

    >>> tl.sample_until(model, x, 285, sigma=0.2, samples=20, reliability=0.9).rounds
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
                call = dict(batch_size=batch_size, seed=child_seed(seed, k), **keywords)
                rounds.add(method(model, x, target, **call))
                bar.update()
                if rounds.count % 2 == 0 and rounds.reached(reliability, standard_error):
                    break
        except KeyboardInterrupt:
            if not rounds.history:
                raise
            message = f"sample_until was interrupted after {rounds.count} rounds"
            warnings.warn(f"{message}; their mean is returned", RuntimeWarning, stacklevel=2)
    return rounds.result(x.dtype)


def _agreement(view: Callable | None, a: Tensor, b: Tensor) -> Tensor:
    if view is not None:
        return compare(view(a), view(b), ("view", "view"))
    return compare(a, b, ("method", "method"))


class _Rounds:
    """Sums of the even and the odd rounds, and Welford's running variance over all."""

    def __init__(self, x: Tensor, view: Callable | None):
        self.view, self.count, self.history = view, 0, []
        self.half = [torch.zeros_like(x, dtype=checks.accumulator(x.dtype)) for _ in range(2)]
        self.squares = torch.zeros_like(self.half[0])

    def add(self, one: Tensor) -> None:
        checks.returned(one, self.squares.shape)
        mean = (self.half[0] + self.half[1]) / max(self.count, 1)
        self.half[self.count % 2] += one
        self.count += 1
        delta = one - mean
        self.squares += delta * (delta - delta / self.count)
        if self.count % 2 == 0:
            r = _agreement(self.view, *self.half)
            error = self.error().flatten(1).cpu().double().square().mean(1).sqrt()
            self.history.append((self.count, 2 * r / (1 + r), error))

    def error(self) -> Tensor:
        return (self.squares / (self.count - 1) / self.count).sqrt()

    def reached(self, reliability: float | None, standard_error: float | None) -> bool:
        _, r, error = self.history[-1]
        good = reliability is None or bool((r >= reliability).all())
        return good and (standard_error is None or bool((error <= standard_error).all()))

    def result(self, dtype: torch.dtype) -> Sampled:
        mean = (self.half[0] + self.half[1]) / self.count
        r = self.history[-1][1]
        return Sampled(mean.to(dtype), self.error().to(dtype), r, self.count, self.history)
