"""Perturbation: replace what a map calls important, and watch the score fall."""

from collections.abc import Callable

import torch
from torch import Tensor
from tqdm.auto import tqdm

from tutorial_lib import checks
from tutorial_lib.fast.passes import Passes
from tutorial_lib.fast.precision_modes import precision_for
from tutorial_lib.metrics.total_variation import area

LEAST_SCORE = 1e-6  # below it, dividing by the first score says nothing


def salient_regions(heatmap: Tensor, size: int = 15, count: int = 30) -> Tensor:
    """The windows with the largest mean |heatmap| that do not overlap: (B, H, W) -> (B, count, 2).

    Greedy: the best window of size x size, then the best of those that do not touch a pixel of it,
    and so on (Goh et al., 2021, Sec. IV). Between equals the one further up, then further left. The
    authors' program never offers the last row and column of windows; this function does.
    Returns top-left corners, row then column, best first. No forward passes. Raises ValueError
    where a window is larger than the map, or fewer than `count` fit.

    >>> salient_regions(tl.heatmap(attribution))[0, 0]
    """
    h = checks.maps("heatmap", heatmap).cpu()
    size, count = checks.count("size", size), checks.count("count", count)
    if min(h.shape[1:]) < size:
        raise ValueError(
            f"size: expected at most the sides of heatmap, {h.shape[1]} x {h.shape[2]}, got {size}"
        )
    # Sums in float64: equal windows stay equal, so ties are broken as the definition says.
    sums = h.double().abs().unfold(2, size, 1).sum(3).unfold(1, size, 1).sum(3)
    batch = torch.arange(len(h), device=h.device)
    reach = torch.arange(1 - size, size, device=h.device)
    corners, means = [], []
    for _ in range(count):
        best = sums.flatten(1).max(1)
        row, column = best.indices // sums.shape[2], best.indices % sums.shape[2]
        corners.append(torch.stack([row, column], 1))
        means.append(best.values)
        near_rows, near_columns = (  # the corners of all windows that touch this one
            (place[:, None] + reach).clamp(0, most - 1)
            for place, most in ((row, sums.shape[1]), (column, sums.shape[2]))
        )
        sums[batch[:, None, None], near_rows[:, :, None], near_columns[:, None]] = -torch.inf
    fit = int((torch.stack(means).amin(1) >= 0).sum())
    if fit < count:
        raise ValueError(
            f"count: only {fit} windows of {size} x {size} fit without overlap, got {count}"
        )
    return torch.stack(corners, 1)


def perturbation_curve(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    heatmap: Tensor,
    *,
    bounds: tuple,
    size: int = 15,
    count: int = 30,
    draws: int = 50,
    softmax: bool = False,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Score of the target as salient windows are replaced by noise, one by one: (B, count + 1).

    The windows of `salient_regions`, best first. Each is filled with uniform noise within `bounds`
    (black to white), `draws` times; the mean score of the draws is the curve's next point, and the
    draw with the median score (the earlier of two) stays in the picture. All is divided by the
    score of x, so the curve begins at 1 (Goh et al., 2021, Eq. 11 and 12).

    A lower curve means that the map found pixels that matter to this network, for this kind of
    noise, which is out of distribution for it. Scores are what the model returns (logits, as in
    the authors' program) or, with softmax=True, probabilities; rankings can differ.
    Cost: count * draws + 1 forward passes a picture, of up to batch_size rows each. The noise is
    the same for all pictures of a batch and depends on `seed` alone.
    Raises ValueError that names the pictures where the score of x is not above 1e-6, as a ratio to
    it would say nothing, or where a score is NaN or infinite.

    >>> curve = perturbation_curve(model, x, 285, tl.heatmap(attribution), bounds=model.bounds)
    """
    checks.model(model)
    x = checks.pictures(x)
    target = checks.target(target, x)
    lower, upper = checks.bounds(bounds, x)
    checks.count("draws", draws)
    heatmap = checks.maps("heatmap", heatmap)
    if x.ndim != 4 or heatmap.shape != (len(x), *x.shape[2:]):
        raise ValueError(
            f"heatmap: expected (B, H, W) for x of shape {tuple(x.shape)}, got "
            f"{tuple(heatmap.shape)}"
        )
    windows = salient_regions(heatmap, size, count)
    passes = Passes(batch_size, x)
    rng = torch.Generator(device=x.device).manual_seed(checks.seed(seed))
    x, lower, upper = x.clone(), lower.expand_as(x), upper.expand_as(x)

    def score(points: Tensor, labels: Tensor) -> Tensor:
        given = checks.scores(model(points.clone()), points, labels)
        given = given.cpu().double().softmax(1) if softmax else given
        return given.gather(1, labels.to(given.device, non_blocking=True)[:, None])[:, 0]

    with torch.no_grad(), precision_for(x.device):
        passes.rows = len(x) if checks.examine(model, x).fixed_rows else passes.rows
        first = [passes.run(score, x[rows], target[rows]) for rows in passes.slices(len(x))]
        curve = [torch.cat(first).cpu().double()]
        _check_first(curve[0])
        for k in tqdm(range(count), unit="window", disable=not progress):
            u = torch.rand(draws, x.shape[1], size, size, generator=rng, device=x.device).to(x)
            places = [
                (i, slice(None), slice(row, row + size), slice(column, column + size))
                for i, (row, column) in enumerate(windows[:, k].tolist())
            ]
            fills = [lower[p] + (upper[p] - lower[p]) * u for p in places]
            scores = []
            for rows in passes.slices(len(x) * draws):
                chunk = torch.arange(rows.start, rows.stop)
                draw, pictures = chunk // len(x), chunk % len(x)  # as a model with a row each wants
                points = x[pictures.to(x.device, non_blocking=True)]
                for j, (i, d) in enumerate(zip(pictures.tolist(), draw.tolist(), strict=True)):
                    points[j][places[i][1:]] = fills[i][d]
                scores.append(passes.run(score, points, target[pictures]))
            scores = torch.cat(scores).cpu().double().view(draws, len(x)).T
            curve.append(scores.mean(1))
            order = scores.argsort(dim=1, stable=True)
            kept = torch.minimum(order[:, (draws - 1) // 2], order[:, draws // 2])
            for i, d in enumerate(kept.tolist()):
                x[places[i]] = fills[i][d]
    found = torch.stack(curve, 1)
    checks.defined("model", found.isfinite().all(1), "finite scores")
    return found / curve[0][:, None]


def aupc(
    model: Callable, x: Tensor, target: int | Tensor, heatmap: Tensor, **keywords: object
) -> Tensor:
    """Area under the perturbation curve by Simpson's rule: (B,).

    AUPC = integral of the curve over the windows 0, 1, ..., count (Goh et al., 2021, Sec. IV).
    Arguments, cost and errors as in `perturbation_curve`. Lower is better, in its sense.

    >>> aupc(model, x, 285, tl.heatmap(attribution), bounds=model.bounds)
    """
    return area(perturbation_curve(model, x, target, heatmap, **keywords))


def _check_first(scores: Tensor) -> None:
    wanted = f"scores of x above {LEAST_SCORE:g}, as the curve is divided by them"
    instead = "leave them out, or give softmax=True, which takes probabilities"
    checks.defined("model", scores > LEAST_SCORE, wanted, instead)
