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
    """Find the windows with the largest mean magnitude that do not overlap, best first.

    The search is greedy: it takes the best window of size x size pixels, then the best of those
    that do not touch a pixel of it, and so on. Between equals it takes the one further up, then the
    one further left. Goh et al. (2021), Sec. IV-C. The authors' program never offers the last row
    and column of windows; this function does. It takes no forward passes.

    Args:
        heatmap: (B, H, W) finite floating-point maps; their absolute values count.
        size: Side of a window in pixels.
        count: Number of windows.

    Returns:
        LongTensor (B, count, 2) on the CPU, top-left corners, row then column, best first.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, a window is larger than the map, or fewer than
            `count` windows fit.

    Example:
        >>> heatmap = torch.tensor([[[0.0, 1.0, 0.0], [5.0, 0.0, -9.0]]])
        >>> tl.metrics.salient_regions(heatmap, size=1, count=2)
        tensor([[[1, 2],
                 [1, 0]]])
    """
    heatmap = checks.maps("heatmap", heatmap).cpu()
    size, count = checks.count("size", size), checks.count("count", count)
    h, w = heatmap.shape[1:]
    if min(h, w) < size:
        raise ValueError(f"size: expected at most the sides of heatmap, {h} x {w}, got {size}")
    # Sums in float64: equal windows stay equal, so ties are broken as the definition says.
    sums = heatmap.double().abs().unfold(2, size, 1).sum(3).unfold(1, size, 1).sum(3)
    batch = torch.arange(len(heatmap), device=heatmap.device)
    offsets = torch.arange(1 - size, size, device=heatmap.device)
    corners, means = [], []
    for _ in range(count):
        best = sums.flatten(1).max(1)
        row, column = best.indices // sums.shape[2], best.indices % sums.shape[2]
        corners.append(torch.stack([row, column], 1))
        means.append(best.values)
        near_rows, near_columns = (  # the corners of all windows that touch this one
            (corner[:, None] + offsets).clamp(0, length - 1)
            for corner, length in ((row, sums.shape[1]), (column, sums.shape[2]))
        )
        sums[batch[:, None, None], near_rows[:, :, None], near_columns[:, None]] = -torch.inf
    found = int((torch.stack(means).amin(1) >= 0).sum())
    if found < count:
        raise ValueError(
            f"count: only {found} windows of {size} x {size} fit without overlap, got {count}"
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
    """Compute the target's score as salient windows are replaced by noise, one after another.

        g(k) = mean over the draws of f(x with noise in windows 1, ..., k) / f(x)

    The windows are those of `tl.metrics.salient_regions`, best first. Each is filled with uniform
    noise within `bounds` (black to white), `draws` times. The mean score of the draws is the
    curve's next point, and the draw with the median score (the earlier of two) stays in the
    picture. All is divided by the score of x, so the curve begins at 1. Goh et al. (2021), Eq. 11
    and 12; in print the index of Eq. 12 is one window behind.

    A lower curve means that the map found pixels that matter to this network, for this kind of
    noise, which is out of distribution for it. Scores are what the model returns (logits, as in
    the authors' program) or, with softmax=True, probabilities; rankings can differ. The noise is
    the same for all pictures of a batch and depends on `seed` alone.

    It takes count * draws + 1 forward passes a picture, of up to `batch_size` rows each.

    Args:
        model: Callable from (N, C, H, W) to scores (N, classes), rows independent; a module in
            eval mode.
        x: (B, C, H, W) finite floating-point pictures.
        target: Class index, or LongTensor (B,) with one for each picture.
        heatmap: (B, H, W) finite floating-point maps; their absolute values count.
        bounds: Pair (lower, upper), the inputs of black and white, such as model.bounds.
        size: Side of a window in pixels.
        count: Number of windows.
        draws: Number of draws of noise for each window.
        softmax: Whether to take probabilities instead of the scores of the model.
        batch_size: Points in a forward pass; None chooses by the device and the size of x.
        seed: Seed of the noise.
        progress: Whether to show a progress bar.

    Returns:
        (B, count + 1) ratios to the score of x, in float64 on the CPU.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, the rows of the model are not independent, a
            score is NaN or infinite, or the score of x is not above 1e-6, as a ratio to it would
            say nothing. The message names the pictures.

    Example:
        A score that is a sum of pixels falls to 0 as they become nearly black, best first:

        >>> z = torch.tensor([[[[3.0, 1.0], [0.0, 6.0]]]])
        >>> options = dict(bounds=(0.0, 1e-9), size=1, count=2, draws=2)
        >>> tl.metrics.perturbation_curve(lambda z: z.sum((2, 3)), z, 0, z[:, 0], **options)
        tensor([[1.0000, 0.4000, 0.1000]], dtype=torch.float64)
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
        scores = checks.scores(model(points.clone()), points, labels)
        scores = scores.cpu().double().softmax(1) if softmax else scores
        return scores.gather(1, labels.to(scores.device, non_blocking=True)[:, None])[:, 0]

    with torch.no_grad(), precision_for(x.device):
        passes.examine(model, x)
        first = [passes.run(score, x[rows], target[rows]) for rows in passes.slices(len(x))]
        curve = [torch.cat(first).cpu().double()]
        _check_first_scores(curve[0])
        for k in tqdm(range(count), unit="window", disable=not progress):
            u = torch.rand(draws, x.shape[1], size, size, generator=rng, device=x.device).to(x)
            window_slices = _window_slices(windows[:, k], size)
            # For each picture, (draws, C, size, size).
            noise = [lower[w] + (upper[w] - lower[w]) * u for w in window_slices]
            scores = []
            for rows in passes.slices(len(x) * draws):
                numbers = torch.arange(rows.start, rows.stop)
                # In this order a model that takes a row for each picture gets one of each.
                draw, pictures = numbers // len(x), numbers % len(x)
                points = x[pictures.to(x.device, non_blocking=True)]
                for j, (i, d) in enumerate(zip(pictures.tolist(), draw.tolist(), strict=True)):
                    points[j][window_slices[i][1:]] = noise[i][d]
                scores.append(passes.run(score, points, target[pictures]))
            scores = torch.cat(scores).cpu().double().view(draws, len(x)).T  # (B, draws)
            curve.append(scores.mean(1))
            order = scores.argsort(dim=1, stable=True)
            median = torch.minimum(order[:, (draws - 1) // 2], order[:, draws // 2])
            for i, d in enumerate(median.tolist()):
                x[window_slices[i]] = noise[i][d]
    scores = torch.stack(curve, 1)  # (B, count + 1)
    checks.defined("model", scores.isfinite().all(1), "finite scores")
    return scores / curve[0][:, None]


def _window_slices(corners: Tensor, size: int) -> list[tuple]:
    """For each picture the index of its window in (B, C, H, W); corners: (B, 2)."""
    return [
        (i, slice(None), slice(row, row + size), slice(column, column + size))
        for i, (row, column) in enumerate(corners.tolist())
    ]


def aupc(
    model: Callable, x: Tensor, target: int | Tensor, heatmap: Tensor, **keywords: object
) -> Tensor:
    """Compute the area under the perturbation curve by Simpson's rule.

        AUPC = integral of g over the windows 0, 1, ..., count

    Goh et al. (2021), Sec. IV-C and IV-D; g is the curve of `tl.metrics.perturbation_curve`, which
    has the same cost. Lower is better, in the sense that is explained there.

    Args:
        model: Callable from (N, C, H, W) to scores (N, classes), rows independent; a module in
            eval mode.
        x: (B, C, H, W) finite floating-point pictures.
        target: Class index, or LongTensor (B,) with one for each picture.
        heatmap: (B, H, W) finite floating-point maps; their absolute values count.
        **keywords: Further arguments of `tl.metrics.perturbation_curve`; bounds is needed.

    Returns:
        (B,) areas, in float64 on the CPU.

    Raises:
        ImportError: SciPy, of the extra "metrics", is not installed.
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: As in `tl.metrics.perturbation_curve`.

    Example:
        The curve is 1, 0.4, 0.1, and Simpson's rule gives (1 + 4 * 0.4 + 0.1) / 3:

        >>> z = torch.tensor([[[[3.0, 1.0], [0.0, 6.0]]]])
        >>> options = dict(bounds=(0.0, 1e-9), size=1, count=2, draws=2)
        >>> tl.metrics.aupc(lambda z: z.sum((2, 3)), z, 0, z[:, 0], **options)
        tensor([0.9000], dtype=torch.float64)
    """
    return area(perturbation_curve(model, x, target, heatmap, **keywords))


def symmetric_relevance_gain(
    model: Callable, x: Tensor, target: int | Tensor, heatmap: Tensor, **keywords: object
) -> Tensor:
    """Compute the area between the curves of the least and of the most influential windows.

        SRG = AUPC with the least influential windows first - AUPC with the most influential first

    Blücher et al. (2024). Each of the two areas depends on what the windows are filled with; their
    difference depends on it less. Higher is better. A map without any information has 0 in
    expectation, and the negative of a map has the negative gain, with the same noise.

    Here the sign of a map counts, unlike in `tl.metrics.aupc`: the least influential windows are
    those of the smallest values. With a map of magnitudes those are the ones that it calls
    unimportant; with signs, those that speak against the class. The paper replaces segments until
    nothing is left and takes the mean of its curves; here both curves have `count` windows, and the
    unit is that of `tl.metrics.aupc`. It takes the two curves' forward passes.

    Args:
        model: Callable from (N, C, H, W) to scores (N, classes), rows independent; a module in
            eval mode.
        x: (B, C, H, W) finite floating-point pictures.
        target: Class index, or LongTensor (B,) with one for each picture.
        heatmap: (B, H, W) finite floating-point maps, large where a picture speaks for the class.
        **keywords: Further arguments of `tl.metrics.perturbation_curve`; bounds is needed.

    Returns:
        (B,) differences of areas, in float64 on the CPU.

    Raises:
        ImportError: SciPy, of the extra "metrics", is not installed.
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: As in `tl.metrics.perturbation_curve`.

    Example:
        The curves are 1, 1, 0.9 and 1, 0.4, 0.1, with areas 5.9 / 3 and 2.7 / 3:

        >>> z = torch.tensor([[[[3.0, 1.0], [0.0, 6.0]]]])
        >>> options = dict(bounds=(0.0, 1e-9), size=1, count=2, draws=2)
        >>> tl.metrics.symmetric_relevance_gain(lambda z: z.sum((2, 3)), z, 0, z[:, 0], **options)
        tensor([1.0667], dtype=torch.float64)
    """
    # Windows are ordered by magnitude. So each order gets the map's distance from its other end.
    heatmap = checks.maps("heatmap", heatmap).cpu().double()
    least_first = heatmap.amax((1, 2), keepdim=True) - heatmap
    most_first = heatmap - heatmap.amin((1, 2), keepdim=True)
    areas = [aupc(model, x, target, order, **keywords) for order in (least_first, most_first)]
    return areas[0] - areas[1]


def _check_first_scores(scores: Tensor) -> None:
    """Raise ValueError for pictures whose score is too small to divide by."""
    wanted = f"scores of x above {LEAST_SCORE:g}, as the curve is divided by them"
    instead = "leave them out, or give softmax=True, which takes probabilities"
    checks.defined("model", scores > LEAST_SCORE, wanted, instead)
