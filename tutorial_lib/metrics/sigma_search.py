"""Adaptive noising: a line search for the noise of SmoothTaylor, one sigma for each picture."""

import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from tutorial_lib import checks
from tutorial_lib.averaging.methods import smooth_taylor
from tutorial_lib.averaging.seeded_noise import child_seed
from tutorial_lib.heatmaps import heatmap
from tutorial_lib.metrics.perturbation import aupc
from tutorial_lib.metrics.total_variation import autvc

PLUS, MINUS = 1, 2  # the two sides of the search


class AdaptiveNoise(NamedTuple):
    """sigma: the best one found, (B,). value: the objective there, (B,).

    history: every evaluation in order, pairs (sigma, value) of (B,), NaN for pictures that were
    not evaluated then.
    """

    sigma: Tensor
    value: Tensor
    history: list[tuple[Tensor, Tensor]]


def adaptive_noise(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    objective: str | Callable = "aupc",
    metric: Callable[[Tensor], Tensor] | None = None,
    bounds: tuple | None = None,
    roots: int = 150,
    max_iterations: int = 20,
    learning_rate: float = 0.1,
    decay: float = 0.9,
    max_stop: int = 3,
    common_noise: bool = False,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> AdaptiveNoise:
    """The sigma at which an area under a curve of the SmoothTaylor map is smallest, by line search.

    Algorithm 1 of Goh et al. (2021), as printed. Start at sigma = mean |x| with step alpha.
    Each iteration tries |sigma + alpha|; where that is worse than the present value,
    |sigma - alpha|; and moves there even if it is worse too. A worse move shrinks alpha to
    decay * alpha; the (max_stop + 2)-th worse move in a row, the fifth by default, ends the search,
    and so does iteration max_iterations. The best sigma seen is returned. The authors' program
    stops one worse move earlier (`max_stop=2` here). Each picture of a batch has its own search.

    objective: "aupc" or "autvc", `metrics.aupc` and `metrics.autvc` of the heatmap with their
        defaults, or a function from sigma to a value, a float each for one picture, tensors (B,)
        for a batch (what it says of pictures whose search has ended is ignored). aupc draws its
        noise within `bounds` (lower, upper), by default model.bounds, and costs 1501 forward
        passes a picture and evaluation.
    metric: instead of `objective`, a function from attributions (N, ...) to values (N,).
    roots: R of the `smooth_taylor` maps that are measured; sigma is in the units of x. A map that
        is 0 everywhere (as at sigma = 0) explains nothing: its value is infinite, and if no other
        is met, the answer is the start.
    common_noise: the same draws at every sigma, so that the objective is a function of sigma (on a
        network with kinks still a rough one). By default each evaluation draws afresh, as in the
        paper, and the best value is the luckiest of up to 41 noisy ones.

    Raises ValueError where the objective is NaN. An interrupt ends the search with a warning and
    returns what was found so far.

    >>> sigma, value, history = tl.adaptive_noise(model, x, 285, objective="autvc", roots=50)
    """
    checks.model(model)
    x = checks.pictures(x)
    target = checks.target(target, x).to(x.device)
    checks.count("roots", roots)
    checks.count("max_iterations", max_iterations)
    checks.count("max_stop", max_stop, least=0)
    checks.positive("learning_rate", learning_rate)
    checks.positive("decay", decay, most=1)
    seed = checks.seed(seed)
    batch_size = None if batch_size is None else checks.count("batch_size", batch_size)
    if metric is not None and objective != "aupc":
        raise ValueError("metric: give an objective or a metric, got both")
    if callable(objective):
        ask = _of_sigma(objective)
    else:
        measure = _measure(objective, metric, bounds, model, x, target, batch_size)
        ask = _of_map(measure, model, x, target, roots, batch_size)
    evaluate = _Evaluations(ask, "objective" if metric is None else "metric")

    def noise(i: int, side: int) -> int:
        return seed if common_noise else child_seed(seed, i, side)

    start = x.cpu().abs().flatten(1).mean(1, dtype=torch.float64)
    with tqdm(total=max_iterations, unit="iteration", disable=not progress) as bar:
        try:
            for _ in _search(
                evaluate, start, noise, max_iterations, learning_rate, decay, max_stop
            ):
                bar.update()
        except KeyboardInterrupt:
            if not evaluate.history:
                raise
            message = f"adaptive_noise was interrupted after {len(evaluate.history)} evaluations"
            warnings.warn(f"{message}; the best so far is returned", RuntimeWarning, stacklevel=2)
    return evaluate.best()


def _search(evaluate, sigma: Tensor, noise, max_iterations, alpha, decay, max_stop) -> Iterator:
    """Algorithm 1 for every picture at once, an iteration at a time."""
    active = torch.ones_like(sigma, dtype=torch.bool)  # the pictures whose search goes on
    value = evaluate(sigma, active, noise(0, PLUS))
    alpha = torch.full_like(sigma, alpha)
    worse_in_a_row = torch.zeros_like(sigma, dtype=torch.int64)
    for i in range(1, max_iterations + 1):
        up, down = (sigma + alpha).abs(), (sigma - alpha).abs()
        tried = evaluate(up, active, noise(i, PLUS))
        back = active & (tried > value)
        if back.any():
            tried = torch.where(back, evaluate(down, back, noise(i, MINUS)), tried)
        worse = active & (tried > value)
        sigma = torch.where(active, torch.where(back, down, up), sigma)
        value = torch.where(active, tried, value)
        alpha = torch.where(worse, alpha * decay, alpha)
        worse_in_a_row = torch.where(worse, worse_in_a_row + 1, 0)
        active &= worse_in_a_row < max_stop + 2
        yield i
        if not active.any():
            return


class _Evaluations:
    """The objective, checked, with a record of what was asked and answered."""

    def __init__(self, ask: Callable, name: str):
        self.ask, self.name, self.history = ask, name, []

    def __call__(self, sigma: Tensor, rows: Tensor, noise: int) -> Tensor:
        """Values (B,) at sigma (B,), NaN outside `rows`."""
        answers = torch.full_like(sigma, torch.nan)
        answers[rows] = self.ask(sigma, rows, noise)
        if bool(answers[rows].isnan().any()):
            raise ValueError(
                f"{self.name}: it is NaN at sigma = {sigma[rows & answers.isnan()].tolist()}, so "
                "sigmas cannot be compared"
            )
        self.history.append((sigma.where(rows, torch.nan), answers.clone()))
        return answers

    def best(self) -> AdaptiveNoise:
        """The first of the least values. (A move to a worse value never beats the best.)"""
        sigmas, values = (torch.stack(part) for part in zip(*self.history, strict=True))
        first = values.nan_to_num(nan=torch.inf, posinf=torch.inf).argmin(0)[None]
        return AdaptiveNoise(sigmas.gather(0, first)[0], values.gather(0, first)[0], self.history)


def _one_each(name: str, values: object, count: int) -> Tensor:
    try:
        if not isinstance(values, Tensor):
            values = torch.as_tensor(values, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name}: expected it to return numbers, got {values!r}") from None
    if values.is_complex() or values.numel() != count:
        raise ValueError(
            f"{name}: expected one real value for each picture, {count} in all, got "
            f"{values.dtype} of shape {tuple(values.shape)}"
        )
    return values.detach().cpu().double().reshape(count)


def _of_sigma(objective: Callable) -> Callable:
    """The value of a function of sigma alone, in the form ask(sigma, rows, noise)."""

    def ask(sigma: Tensor, rows: Tensor, noise: int) -> Tensor:
        given = objective(float(sigma) if len(sigma) == 1 else sigma.clone())
        return _one_each("objective", given, len(sigma))[rows]

    return ask


def _of_map(measure: Callable, model, x: Tensor, target: Tensor, roots, batch_size) -> Callable:
    """The measure of the SmoothTaylor maps at sigma, in the form ask(sigma, rows, noise)."""

    def ask(sigma: Tensor, rows: Tensor, noise: int) -> Tensor:
        own = dict(sigma=sigma[rows].view([-1] + [1] * (x.ndim - 1)), roots=roots, seed=noise)
        maps = smooth_taylor(model, x[rows], target[rows], batch_size=batch_size, **own)
        values = torch.full((len(maps),), torch.inf, dtype=torch.float64)
        shown = maps.flatten(1).any(1).cpu()  # where there is a map at all
        if shown.any():
            where = rows.nonzero()[:, 0][shown]
            values[shown] = _one_each("metric", measure(maps[shown], where, noise), len(where))
        return values

    return ask


def _measure(objective, metric, bounds, model, x: Tensor, target: Tensor, batch_size) -> Callable:
    """What is minimised, as a function of maps, the pictures they belong to, and a seed."""
    if metric is not None:
        if not callable(metric):
            raise TypeError(f"metric: expected a function from maps to values, got {metric!r}")
        return lambda maps, where, noise: metric(maps)
    checks.choice("objective", objective, ("aupc", "autvc"))
    if objective == "autvc":
        return lambda maps, where, noise: autvc(heatmap(maps))
    given = getattr(model, "bounds", None) if bounds is None else bounds
    if given is None:
        raise TypeError(
            "bounds: objective='aupc' replaces pixels by noise between black and white, and this "
            "model does not say what they are; give (lower, upper)"
        )
    span = [side.expand_as(x) for side in checks.bounds(given, x)]

    def area(maps: Tensor, where: Tensor, noise: int) -> Tensor:
        own = dict(bounds=tuple(side[where] for side in span), batch_size=batch_size, seed=noise)
        return aupc(model, x[where], target[where], heatmap(maps), **own)

    return area
