"""Performance information curves: reveal the salient pixels of a blurred picture, most first."""

import io
from collections.abc import Callable, Sequence
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


class Information(NamedTuple):
    """information: (points,), from 0 (blurred) to 1 (the picture). performance: (B, points).

    auc: (B,), the area.
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
    """Performance against information as the salient pixels of a blurred picture are revealed.

    For each share t of `thresholds`: keep the pixels where saliency is at least its (1 - t)
    quantile, and those of a random mask (`fraction` of all, and the corners); fill the rest by
    linear interpolation. Information is the size of that picture as lossless WebP, performance the
    probability of the target (kind="sic") or whether it is the top class ("aic"). Both are scaled
    to 0 at the fully blurred picture and 1 at the picture itself and clipped; performance may only
    grow; straight lines join the points (Kapishnikov et al., 2019, Sec. 4; Zhou et al., 2024, call
    the area Information level, but their program scores the largest logit of any class).

    Higher is better: the pixels named first were enough. saliency: (B, H, W), larger is more
    important: pass `tl.saliency_map`, or a signed heatmap to rank by sign. bounds: the inputs of
    black and white. mask: (H, W) or (B, H, W), true where pixels are known from the start; by
    default drawn from `seed`, the same for all maps of a picture.
    Raises ValueError that names the pictures that have no curve, as the blurred one scores as high
    or is as large as the picture itself; before any map is looked at, so that little is lost.
    Cost: len(thresholds) + 2 forward passes a picture, and an interpolation for each share and for
    the blurred picture, which take longer than the passes.

    >>> information_curve(model, x, 285, tl.saliency_map(a), bounds=model.bounds).auc
    """
    checks.model(model)
    x = checks.pictures(x)
    target = checks.target(target, x)
    lower, upper = checks.bounds(bounds, x)
    saliency = checks.maps("saliency", saliency)
    if x.ndim != 4 or x.shape[1] not in (1, 3) or saliency.shape != (len(x), *x.shape[2:]):
        raise ValueError(
            f"saliency: expected (B, H, W) for pictures x (B, 1 or 3, H, W), got "
            f"{tuple(saliency.shape)} for {tuple(x.shape)}"
        )
    checks.choice("kind", kind, ("sic", "aic"))
    shares = [checks.fraction("thresholds", t) for t in thresholds]
    known = _known(mask, x, checks.fraction("fraction", fraction), checks.seed(seed))
    passes, points = Passes(batch_size, x), checks.count("points", points, least=2)
    with torch.no_grad(), precision_for(x.device):
        checks.examine(model, x)
    black, white = (side.expand_as(x) for side in (lower, upper))
    pixels = ((x - black) / (white - black) * 255).round().clamp(0, 255).byte()
    pixels = pixels.permute(0, 2, 3, 1).cpu().numpy()

    def scored(i: int, stages: list[np.ndarray]) -> np.ndarray:
        z = torch.from_numpy(np.stack(stages)).permute(0, 3, 1, 2).to(x) / 255
        return _performance(model, black[i] + (white[i] - black[i]) * z, target, i, kind, passes)

    ends, made = [], {}  # of each picture, blurred and as it is: sizes and scores
    for i in range(len(x)):
        key = pixels[i].tobytes(), known[i].tobytes()  # maps of one picture share the work
        if key not in made:
            blurred = fill(pixels[i], known[i])
            made[key] = blurred, (size(blurred), size(pixels[i]))
        blurred, sizes = made[key]
        ends.append((sizes, scored(i, [blurred, pixels[i]])))
    grows = torch.tensor([all(low < high for low, high in one) for one in ends])
    wanted = "pictures that score higher and take more bytes than when they are blurred"
    checks.defined("x", grows, wanted, "leave them out, or blur more by a smaller fraction or mask")
    curves = []
    for i in tqdm(range(len(x)), unit="picture", disable=not progress):
        ranked = saliency[i].cpu().numpy()
        masks = [known[i] | (ranked >= np.quantile(ranked, 1 - share)) for share in shares]
        revealed = [fill(pixels[i], mask) for mask in masks]
        sizes, scores = ends[i]
        scores = [scores[0], *scored(i, revealed), scores[1]]
        curves.append(_curve([sizes[0], *map(size, revealed), sizes[1]], scores, points))
    performance = torch.from_numpy(np.stack(curves))
    information = torch.linspace(0, 1, points, dtype=torch.float64)
    return Information(information, performance, torch.trapezoid(performance, information))


def fill(picture: np.ndarray, known: np.ndarray) -> np.ndarray:
    """A picture (H, W, C) of bytes from its known pixels (H, W), the rest interpolated linearly.

    The corners always count as known, so that there is nothing to extrapolate.
    """
    known = known.copy()
    known[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    if known.all():
        return picture
    interpolate = checks.extra("scipy.interpolate", "metrics")
    here, there = np.argwhere(known), np.argwhere(~known)
    filled = picture.copy()
    values = interpolate.griddata(here, picture[known].astype(float), there, method="linear")
    filled[~known] = np.round(values).astype(np.uint8)
    return filled


def size(picture: np.ndarray) -> int:
    """Information in a picture (H, W, C) of bytes: the bytes of its lossless WebP."""
    buffer = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).save(
        buffer, format="webp", lossless=True, quality=100
    )
    return buffer.tell()


def _known(mask: Tensor | None, x: Tensor, fraction: float, seed: int) -> np.ndarray:
    """The pixels that are known from the start, (B, H, W)."""
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
    model: Callable, z: Tensor, target: Tensor, i: int, kind: str, passes: Passes
) -> np.ndarray:
    """Of the stages z (N, C, H, W) of picture i: (N,)."""

    def score(part: Tensor, labels: Tensor) -> Tensor:
        given = checks.scores(model(part.clone()), part, labels).cpu().double()
        chance = given.softmax(1)[:, int(target[i])]
        if bool(chance.isnan().any()):
            raise ValueError(f"model: expected finite scores, got NaN or infinity for picture {i}")
        return chance if kind == "sic" else (given.argmax(1) == int(target[i])).double()

    with torch.no_grad(), precision_for(z.device):
        labels = target[i].expand(len(z))
        scores = [passes.run(score, z[rows], labels[rows]) for rows in passes.slices(len(z))]
    return torch.cat(scores).numpy()


def _curve(sizes: list[int], scores: list[float], points: int) -> np.ndarray:
    """Scaled, monotone and interpolated: from the blurred stage (first) to the picture (last)."""
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
