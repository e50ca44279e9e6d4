"""Performance information curves: reveal the salient pixels of a blurred picture, most first."""

import io
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from tutorial_lib import checks
from tutorial_lib.fast.passes import Passes
from tutorial_lib.fast.precision_modes import precision_for

ZHOU = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3)  # shares of pixels revealed by Zhou et al.'s program
_ONE_CALLER = threading.Lock()  # of those that change the number of BLAS threads


class Information(NamedTuple):
    """A performance information curve, as `tl.metrics.information_curve` returns it.

    Attributes:
        information: (points,) numbers from 0, the blurred picture, to 1, the picture itself.
        performance: (B, points) values of the curve, from 0 to 1.
        auc: (B,) areas under the curve.
    """

    information: Tensor
    performance: Tensor
    auc: Tensor


def information_curve(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    saliency: Tensor,
    *,
    bounds: tuple,
    kind: str = "sic",
    thresholds: Sequence[float] = ZHOU,
    mask: Tensor | None = None,
    fraction: float = 0.01,
    points: int = 1001,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Information:
    """Compute performance against information as a blurred picture's salient pixels are revealed.

    For each share t of `thresholds`, the pixels are kept where saliency is at least its (1 - t)
    quantile, and so are those of a random mask (`fraction` of all, and the corners). The rest is
    filled by linear interpolation. Information is the size of that picture as lossless WebP.
    Performance is the probability of the target (kind="sic") or whether the target is the top
    class (kind="aic"). Both are scaled to 0 at the fully blurred picture and to 1 at the picture
    itself, and clipped. Performance may only grow, and straight lines join the points.

    Kapishnikov et al. (2019), Sec. 4. Higher is better: the pixels named first were enough. The
    program of Zhou et al. computes Information Level from such a curve of the largest logit of any
    class; their paper (2024, version 1, Sec. 5.1.1) calls it "the entropy of the saliency map".

    It takes len(thresholds) + 2 forward passes a picture, and an interpolation for each share and
    for the blurred picture. The interpolations take longer than the passes.

    Args:
        model: Callable from (N, C, H, W) to scores (N, classes), rows independent; a module in
            eval mode.
        x: (B, C, H, W) finite floating-point pictures with 1 or 3 channels.
        target: Class index, or LongTensor (B,) with one for each picture.
        saliency: (B, H, W) maps, larger is more important: `tl.saliency_map`, or a signed heatmap
            to rank by sign.
        bounds: Pair (lower, upper), the inputs of black and white, such as model.bounds.
        kind: "sic" for the probability of the target, "aic" for whether it is the top class.
        thresholds: Shares t of the pixels that are revealed, between 0 and 1; by default those of
            Zhou et al.'s program.
        mask: Boolean (H, W) or (B, H, W), true where pixels are known from the start. By default
            it is drawn from `seed`, the same for all maps of a picture.
        fraction: Share of the pixels in the random mask, between 0 and 1.
        points: Number of points of the curve, evenly spaced in information.
        batch_size: Points in a forward pass; None chooses by the device and the size of x.
        seed: Seed of the random mask.
        progress: Whether to show a progress bar.

    Returns:
        The named tuple (information, performance, auc), of shapes (points,), (B, points) and (B,),
        in float64 on the CPU.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, the rows of the model are not independent, or
            its scores are not finite. It is also raised where pictures have no curve, since the
            blurred one scores as high or is as large as the picture itself. The message names
            those pictures, before any map is looked at, so that little is lost.

    Example:
        Noise everywhere, and a score that sees the left half only. The map of that half finds it:

        >>> x = torch.rand(1, 3, 12, 20)
        >>> left = torch.zeros(1, 12, 20)
        >>> left[:, :, :10] = torch.rand(12, 10)
        >>> def score_left(z):
        ...     contrast = z[..., :10].diff(dim=3).abs().mean((1, 2, 3))
        ...     return torch.stack([9 * contrast, 0 * contrast], 1)
        >>> options = dict(bounds=(0.0, 1.0), thresholds=(0.1, 0.3, 0.5), points=11)
        >>> good = tl.metrics.information_curve(score_left, x, 0, left, **options)
        >>> bad = tl.metrics.information_curve(score_left, x, 0, -left, **options)
        >>> bool(good.auc > bad.auc)
        True
        >>> good.information.shape, good.performance.shape
        (torch.Size([11]), torch.Size([1, 11]))
    """
    checks.model(model)
    x = checks.pictures(x)
    target = checks.target(target, x)
    lower, upper = checks.inside(x, bounds)
    saliency = checks.maps("saliency", saliency)
    if x.ndim != 4 or x.shape[1] not in (1, 3) or saliency.shape != (len(x), *x.shape[2:]):
        raise ValueError(
            f"saliency: expected (B, H, W) for pictures x (B, 1 or 3, H, W), got "
            f"{tuple(saliency.shape)} for {tuple(x.shape)}"
        )
    checks.choice("kind", kind, ("sic", "aic"))
    checks.defined("saliency", saliency.amax((1, 2)) > saliency.amin((1, 2)), "maps that vary")
    shares = [checks.fraction("thresholds", t) for t in thresholds]
    if not shares:
        raise ValueError("thresholds: expected at least one share of the pixels, got none")
    known = _known(mask, x, checks.fraction("fraction", fraction), checks.seed(seed))
    passes, points = Passes(batch_size, x), checks.count("points", points, least=2)
    with torch.no_grad(), precision_for(x.device):
        checks.examine(model, x)
    black, white = (side.expand_as(x) for side in (lower, upper))
    pixels = ((x - black) / (white - black) * 255).round().clamp(0, 255).byte()
    pixels = pixels.permute(0, 2, 3, 1).cpu().numpy()

    def measure(numbers: list[int], masks: list[np.ndarray]) -> np.ndarray:
        """The bytes and the performance, (2, N), of the pictures of these numbers, filled."""
        chosen = [pixels[i] for i in numbers]
        with ThreadPoolExecutor() as pool:  # SciPy and WebP let other threads run
            with _one_blas_thread():
                pictures = list(pool.map(_filled, chosen, masks))
            sizes = pool.map(size, pictures)
        z = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).to(x) / 255
        z = black[numbers] + (white[numbers] - black[numbers]) * z
        return np.stack(
            [list(sizes), _performance(model, z, target[numbers], numbers, kind, passes)]
        )

    ends = _measure_ends(pixels, known, target.tolist(), measure)
    curves, together = [], max(1, passes.rows // len(shares))  # pictures that fill a pass
    with tqdm(total=len(x), unit="picture", disable=not progress) as bar:
        for group in torch.arange(len(x)).split(together):
            rows = [(i, share) for i in group.tolist() for share in shares]
            masks = [known[i] | _most_salient(saliency[i], share) for i, share in rows]
            points_of = measure([i for i, _ in rows], masks).reshape(2, len(group), len(shares))
            for k, i in enumerate(group.tolist()):
                pairs = zip(ends[i], points_of[:, k], strict=True)
                curves.append(_curve(*([low, *v, high] for (low, high), v in pairs), points))
            bar.update(len(group))
    performance = torch.from_numpy(np.stack(curves))
    information = torch.linspace(0, 1, points, dtype=torch.float64)
    return Information(information, performance, torch.trapezoid(performance, information))


def fill(picture: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Fill the unknown pixels of a picture of bytes by linear interpolation of the known ones.

    The corners always count as known, so that there is nothing to extrapolate.

    Args:
        picture: (H, W, C) bytes.
        known: Boolean (H, W), true where a pixel is known.

    Returns:
        (H, W, C) bytes.

    Raises:
        ImportError: SciPy or threadpoolctl, of the extra "metrics", is not installed.

    Example:
        >>> import numpy as np
        >>> ramp = np.array([[[0], [9], [9], [30]]] * 2, dtype=np.uint8)
        >>> tl.metrics.information.fill(ramp, np.zeros((2, 4), dtype=bool))[0, :, 0]
        array([ 0, 10, 20, 30], dtype=uint8)
    """
    with _one_blas_thread():
        return _filled(picture, known)


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """SciPy solves a 2 x 2 system for each triangle: LAPACK with threads takes seconds for them.

    The number of threads is the process's: callers wait for one another, and it is put back.
    """
    checks.extra("scipy.interpolate", "metrics")  # only libraries that are loaded are limited
    with _ONE_CALLER, checks.extra("threadpoolctl", "metrics").threadpool_limits(1, "blas"):
        yield


def _filled(picture: np.ndarray, known: np.ndarray) -> np.ndarray:
    known = known.copy()
    known[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    if known.all():
        return picture
    interpolate = checks.extra("scipy.interpolate", "metrics")
    values, points = picture[known].astype(float), np.argwhere(~known)
    values = interpolate.griddata(np.argwhere(known), values, points, method="linear")
    filled = picture.copy()
    filled[~known] = np.round(values).astype(np.uint8)
    return filled


def size(picture: np.ndarray) -> int:
    """Count the bytes of a picture as lossless WebP, which is the information in it.

    Args:
        picture: (H, W, C) bytes.

    Returns:
        Number of bytes.

    Example:
        Noise holds more information than one colour:

        >>> import numpy as np
        >>> noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        >>> size = tl.metrics.information.size
        >>> size(noise) > size(np.zeros_like(noise))
        True
    """
    buffer = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).save(
        buffer, format="webp", lossless=True, quality=100
    )
    return buffer.tell()


def _measure_ends(
    pixels: np.ndarray, known: np.ndarray, target: list[int], measure: Callable
) -> list[np.ndarray]:
    """Return, for each picture, bytes and performance of it blurred and as it is: arrays (2, 2).

    Raises:
        ValueError: Of one of the two, a blurred picture has as much as the picture itself.
    """
    ends, cache = [], {}  # maps of one picture share the work
    for i in range(len(pixels)):
        key = pixels[i].tobytes(), known[i].tobytes(), target[i]
        if key not in cache:
            cache[key] = measure([i, i], [known[i], np.ones_like(known[i])])
        ends.append(cache[key])
    grows = torch.tensor([bool((pairs[:, 0] < pairs[:, 1]).all()) for pairs in ends])
    wanted = "pictures that score higher and take more bytes than when they are blurred"
    checks.defined("x", grows, wanted, "leave them out, or blur more by a smaller fraction or mask")
    return ends


def _most_salient(saliency: Tensor, share: float) -> np.ndarray:
    """Return where a map (H, W) is at least its (1 - share) quantile, boolean (H, W)."""
    ranked = saliency.cpu().numpy()
    return ranked >= np.quantile(ranked, 1 - share)


def _known(mask: Tensor | None, x: Tensor, fraction: float, seed: int) -> np.ndarray:
    """Return the pixels that are known from the start, boolean (B, H, W)."""
    h, w = x.shape[2:]
    if mask is None:
        flat = np.zeros(h * w, dtype=bool)
        flat[np.random.default_rng(seed).choice(h * w, int(h * w * fraction), replace=False)] = True
        mask = torch.from_numpy(flat.reshape(h, w))
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        raise TypeError("mask: expected a tensor of bools (H, W) or (B, H, W)")
    if mask.shape not in ((h, w), (len(x), h, w)):
        raise ValueError(f"mask: expected ({h}, {w}) or (B, {h}, {w}), got {tuple(mask.shape)}")
    return mask.cpu().numpy().reshape(-1, h, w).repeat(len(x) if mask.ndim == 2 else 1, axis=0)


def _performance(
    model: Callable, z: Tensor, target: Tensor, pictures: list[int], kind: str, passes: Passes
) -> np.ndarray:
    """Return the performance, (N,), of partly revealed pictures z (N, C, H, W), by their number."""

    def score(points: Tensor, labels: Tensor) -> Tensor:
        scores = checks.scores(model(points.clone()), points, labels).cpu().double()
        own = labels.cpu()[:, None]
        probability = scores.softmax(1).gather(1, own)[:, 0]
        if kind == "sic":
            return probability
        is_top = (scores.argmax(1, keepdim=True) == own)[:, 0].double()
        return torch.where(probability.isnan(), probability, is_top)

    with torch.no_grad(), precision_for(z.device):
        scores = [passes.run(score, z[rows], target[rows]) for rows in passes.slices(len(z))]
    performance = torch.cat(scores)
    if bool(performance.isnan().any()):
        first = pictures[int(performance.isnan().nonzero()[0])]
        raise ValueError(f"model: expected finite scores, got NaN or infinity for picture {first}")
    return performance.numpy()


def _curve(sizes: list[int], scores: list[float], points: int) -> np.ndarray:
    """Scale, make monotone and interpolate, from the blurred picture (first) to the picture (last).

    Returns (points,) values of performance at evenly spaced values of information.
    """
    information, performance = (
        np.clip((v - v[0]) / (v[-1] - v[0]), 0, 1)[1:-1]
        for v in (np.asarray(sizes, dtype=float), np.asarray(scores))
    )
    performance = np.maximum.accumulate(performance)
    information = np.concatenate([information, [0.0, 1.0]])
    performance = np.concatenate([performance, [0.0, 1.0]])
    order = np.argsort(information, kind="stable")
    curve = np.interp(np.linspace(0, 1, points), information[order], performance[order])
    curve[-1] = 1.0
    return curve
