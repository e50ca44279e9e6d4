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
    """The result of the search for a sigma, as `tl.adaptive_noise` returns it.

    Attributes:
        sigma: (B,) best sigmas that were found.
        value: (B,) values of the objective there.
        history: Every evaluation in order, pairs (sigma, value) of (B,); both are NaN for pictures
            that were not evaluated then.
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
    """Search for the sigma at which the area under a curve of the SmoothTaylor map is smallest.

    This is the line search of Goh et al. (2021), Sec. V, Algorithm 1, as printed. It starts at
    sigma = mean ``|x|`` with step alpha. An iteration has these steps:

        1. Try |sigma + alpha|.
        2. Where that is worse than the present value, try |sigma - alpha|.
        3. Move to the last one tried, even if it is worse than the present value, too.
        4. Where it is worse, set alpha to decay * alpha.

    The (max_stop + 2)-th worse move in a row, the fifth by default, ends the search, and so does
    iteration max_iterations. The best sigma seen is returned. The authors' program stops one worse
    move earlier (`max_stop=2` here). Each picture of a batch has a search of its own.

    A map that is 0 everywhere (as at sigma = 0) explains nothing, and its value is infinite. If no
    other map occurs, the answer is the start. An interrupt ends the search with a warning and
    returns what was found so far.

    The objective "aupc" takes 1501 forward passes a picture and evaluation, beside the map.

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
        x: (B, ...) finite floating-point inputs.
        target: Class index, or LongTensor (B,) with one for each input.
        objective: What is minimised: "aupc" or "autvc" for `tl.metrics.aupc` or `tl.metrics.autvc`
            of the heatmap with their defaults, or a function from sigma to a value. For one
            picture the function gets and returns a float, for a batch tensors (B,). What it
            returns for pictures whose search has ended is ignored.
        metric: Function from attributions (N, ...) to values (N,), instead of `objective`.
        bounds: Pair (lower, upper) within which "aupc" draws its noise, by default model.bounds.
        roots: R of the `tl.smooth_taylor` maps that are measured.
        max_iterations: Number of iterations after which the search ends in any case.
        learning_rate: alpha at the start, in the units of x.
        decay: Factor of alpha after a worse move, above 0 and at most 1.
        max_stop: The (max_stop + 2)-th worse move in a row ends the search.
        common_noise: Whether to take the same draws at every sigma, so that the objective is a
            function of sigma (on a network with kinks still a rough one). By default each
            evaluation draws afresh, as in the authors' program (the paper does not say), and the
            best value is the luckiest of up to 41 noisy ones.
        batch_size: Points in a forward pass; None chooses by the device and the size of x.
        seed: Seed from which the noise of all evaluations follows.
        progress: Whether to show a progress bar.

    Returns:
        `tl.AdaptiveNoise`, the best sigmas in the units of x, their values and all evaluations.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, both an objective and a metric are given, or
            the objective is NaN.

    Example:
        A parabola with its least value at 0.5; the search starts at 0.25, the mean of ``|x|``:

        >>> def parabola(sigma):
        ...     return (sigma - 0.5) ** 2
        >>> found = tl.adaptive_noise(model, torch.full((1, 4), 0.25), 0, objective=parabola)
        >>> bool(abs(found.sigma - 0.5) < 0.05)
        True
        >>> found.history[0]
        (tensor([0.2500], dtype=torch.float64), tensor([0.0625], dtype=torch.float64))
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
        value_at = _of_sigma(objective)
    else:
        measure = _measure(objective, metric, bounds, model, x, target, batch_size)
        value_at = _of_map(measure, model, x, target, roots, batch_size)
    evaluate = _Evaluations(value_at, "objective" if metric is None else "metric")

    def seed_for(i: int, side: int) -> int:
        return seed if common_noise else child_seed(seed, i, side)

    start = x.cpu().abs().flatten(1).mean(1, dtype=torch.float64)
    search = _search(evaluate, start, seed_for, max_iterations, learning_rate, decay, max_stop)
    with tqdm(total=max_iterations, unit="iteration", disable=not progress) as bar:
        try:
            for _ in search:
                bar.update()
        except KeyboardInterrupt:
            if not evaluate.history:
                raise
            message = f"adaptive_noise was interrupted after {len(evaluate.history)} evaluations"
            warnings.warn(f"{message}; the best so far is returned", RuntimeWarning, stacklevel=2)
    return evaluate.best()


def _search(evaluate, sigma: Tensor, seed_for, max_iterations, alpha, decay, max_stop) -> Iterator:
    """Run Algorithm 1 for every picture at once and yield after each iteration."""
    active = torch.ones_like(sigma, dtype=torch.bool)  # the pictures whose search goes on
    value = evaluate(sigma, active, seed_for(0, PLUS))  # (B,)
    alpha = torch.full_like(sigma, alpha)
    worse_in_a_row = torch.zeros_like(sigma, dtype=torch.int64)
    for i in range(1, max_iterations + 1):
        plus, minus = (sigma + alpha).abs(), (sigma - alpha).abs()
        new_value = evaluate(plus, active, seed_for(i, PLUS))
        turns = active & (new_value > value)
        if turns.any():
            new_value = torch.where(turns, evaluate(minus, turns, seed_for(i, MINUS)), new_value)
        worse = active & (new_value > value)
        sigma = torch.where(active, torch.where(turns, minus, plus), sigma)
        value = torch.where(active, new_value, value)
        alpha = torch.where(worse, alpha * decay, alpha)
        worse_in_a_row = torch.where(worse, worse_in_a_row + 1, 0)
        active &= worse_in_a_row < max_stop + 2
        yield i
        if not active.any():
            return


class _Evaluations:
    """The objective, checked, with a record of every sigma and its value."""

    def __init__(self, value_at: Callable, name: str):
        self.value_at, self.name, self.history = value_at, name, []

    def __call__(self, sigma: Tensor, rows: Tensor, seed: int) -> Tensor:
        """Return the values (B,) at sigma (B,), NaN outside `rows`."""
        values = torch.full_like(sigma, torch.nan)
        values[rows] = self.value_at(sigma, rows, seed)
        if bool(values[rows].isnan().any()):
            raise ValueError(
                f"{self.name}: it is NaN at sigma = {sigma[rows & values.isnan()].tolist()}, so "
                "sigmas cannot be compared"
            )
        self.history.append((sigma.where(rows, torch.nan), values.clone()))
        return values

    def best(self) -> AdaptiveNoise:
        """Return the first of the least values. (A move to a worse value never beats the best.)"""
        sigmas, values = (torch.stack(column) for column in zip(*self.history, strict=True))
        first = values.nan_to_num(nan=torch.inf, posinf=torch.inf).argmin(0)[None]
        return AdaptiveNoise(sigmas.gather(0, first)[0], values.gather(0, first)[0], self.history)


def _one_each(name: str, values: object, count: int) -> Tensor:
    """Check that a function returned a real number for each picture; return them in float64."""
    try:
        values = torch.as_tensor(values, dtype=None if hasattr(values, "dtype") else torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name}: expected it to return numbers, got {values!r}") from None
    if values.is_complex() or values.numel() != count:
        raise ValueError(
            f"{name}: expected one real value for each picture, {count} in all, got "
            f"{values.dtype} of shape {tuple(values.shape)}"
        )
    return values.detach().cpu().double().reshape(count)


def _of_sigma(objective: Callable) -> Callable:
    """Bring a function of sigma alone into the form value_at(sigma, rows, seed)."""

    def value_at(sigma: Tensor, rows: Tensor, seed: int) -> Tensor:
        values = objective(float(sigma) if len(sigma) == 1 else sigma.clone())
        return _one_each("objective", values, len(sigma))[rows]

    return value_at


def _of_map(measure: Callable, model, x: Tensor, target: Tensor, roots, batch_size) -> Callable:
    """Bring a measure of the SmoothTaylor map into the form value_at(sigma, rows, seed)."""

    def value_at(sigma: Tensor, rows: Tensor, seed: int) -> Tensor:
        sigma = sigma[rows].view([-1] + [1] * (x.ndim - 1))  # (N, 1, ...)
        options = dict(sigma=sigma, roots=roots, batch_size=batch_size, seed=seed)
        maps = smooth_taylor(model, x[rows], target[rows], **options)
        values = torch.full((len(maps),), torch.inf, dtype=torch.float64)
        valid = maps.flatten(1).any(1).cpu()  # (N,): a map of zeros explains nothing
        if valid.any():
            pictures = rows.nonzero()[:, 0][valid]
            values[valid] = _one_each("metric", measure(maps[valid], pictures, seed), len(pictures))
        return values

    return value_at


def _measure(objective, metric, bounds, model, x: Tensor, target: Tensor, batch_size) -> Callable:
    """Return what is minimised, a function of maps, the numbers of their pictures, and a seed."""
    if metric is not None:
        if not callable(metric):
            raise TypeError(f"metric: expected a function from maps to values, got {metric!r}")
        return lambda maps, pictures, seed: metric(maps)
    checks.choice("objective", objective, ("aupc", "autvc"))
    if objective == "autvc":
        return lambda maps, pictures, seed: autvc(heatmap(maps))
    bounds = getattr(model, "bounds", None) if bounds is None else bounds
    if bounds is None:
        raise TypeError(
            "bounds: objective='aupc' replaces pixels by noise between black and white, and this "
            "model does not say what they are; give (lower, upper)"
        )
    lower, upper = (side.expand_as(x) for side in checks.bounds(bounds, x))

    def area(maps: Tensor, pictures: Tensor, seed: int) -> Tensor:
        options = dict(bounds=(lower[pictures], upper[pictures]), batch_size=batch_size, seed=seed)
        return aupc(model, x[pictures], target[pictures], heatmap(maps), **options)

    return area
