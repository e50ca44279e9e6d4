"""From attributions to pictures: the signed heatmap and the saliency map of the papers."""

import torch
from torch import Tensor


def heatmap(attribution: Tensor) -> Tensor:
    """Attribution summed over channels, signed: (B, C, H, W) -> (B, H, W).

    Raises TypeError or ValueError for anything but a floating-point (B, C, H, W), and ValueError
    that names the pictures with NaN or infinity.

    >>> tl.heatmap(tl.gradient(model, x, 285)).shape
    torch.Size([1, 224, 224])
    """
    return _checked("attribution", attribution, "(B, C, H, W)").sum(1)


def saliency_map(attribution: Tensor) -> Tensor:
    """Magnitudes for the eye: (B, C, H, W) -> (B, H, W) in [0, 1].

    s = min(|sum over channels|, its 99th percentile), then (s - min s) / (max s - min s)
    (Smilkov et al., 2017, Sec. 3.1; Goh et al., 2021, Sec. IV). A constant map has no contrast to
    show and becomes 0 everywhere. Raises like `heatmap`.

    >>> tl.saliency_map(tl.gradient(model, x, 285)).amax()
    tensor(1.)
    """
    return normalize(heatmap(attribution))


def normalize(heatmap: Tensor) -> Tensor:
    """The saliency map of a signed heatmap: (B, H, W) -> (B, H, W) in [0, 1], see `saliency_map`.

    >>> tl.heatmaps.normalize(tl.heatmap(attribution))
    """
    size = _checked("heatmap", heatmap, "(B, H, W)").abs()
    size = size if size.dtype == torch.float64 else size.float()
    flat = size.flatten(1)
    flat = flat.minimum(_percentile_99(flat))
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    contrast = torch.where(high > low, high - low, torch.ones_like(high))
    return ((flat - low) / contrast).view_as(size)


def _checked(name: str, value: Tensor, shape: str) -> Tensor:
    """A finite floating-point tensor with the dimensions of `shape`."""
    if not isinstance(value, Tensor) or not value.dtype.is_floating_point:
        kind = getattr(value, "dtype", type(value).__name__)
        raise TypeError(f"{name}: expected a floating-point tensor {shape}, got {kind}")
    if value.ndim != shape.count(",") + 1 or not value.numel():
        raise ValueError(f"{name}: expected shape {shape}, got {tuple(value.shape)}")
    good = value.isfinite().flatten(1).all(1)
    if not bool(good.all()):
        bad = f"pictures {(~good).nonzero().flatten().tolist()} of {len(good)}"
        raise ValueError(f"{name}: expected finite numbers; {bad} hold others, leave them out")
    return value


def _percentile_99(flat: Tensor) -> Tensor:
    """The 99th percentile of each row, between neighbours linearly: (B, n) -> (B, 1).

    torch.quantile sorts everything; the largest hundredth is all that is needed.
    """
    place = 0.99 * (flat.shape[1] - 1)
    below = int(place)
    top = flat.topk(flat.shape[1] - below, dim=1).values
    return top[:, -1:].lerp(top[:, -2:][:, :1], place - below)
