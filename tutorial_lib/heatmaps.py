"""From attributions to pictures: the signed heatmap and the saliency map of the papers."""

import torch
from torch import Tensor


def heatmap(attribution: Tensor) -> Tensor:
    """Sum an attribution over the channels and keep its sign.

        h_ij = sum_c A_cij

    Args:
        attribution: A, (B, C, H, W) finite floating-point attributions.

    Returns:
        (B, H, W) heatmaps, in the units of the attribution and in float32, or float64 for float64.

    Raises:
        TypeError: attribution is not a floating-point tensor.
        ValueError: attribution is not (B, C, H, W), or it holds NaN or infinity; the message names
            the pictures.

    Example:
        >>> tl.heatmap(torch.tensor([[[[1.0, -2.0]], [[3.0, 1.0]]]]))
        tensor([[[ 4., -1.]]])
    """
    attribution = _checked("attribution", attribution, "(B, C, H, W)")
    return attribution.sum(1, dtype=torch.promote_types(attribution.dtype, torch.float32))


def saliency_map(attribution: Tensor) -> Tensor:
    """Turn an attribution into magnitudes for the eye, from 0 to 1.

        s = min(|h|, 99th percentile of |h|),  then (s - min s) / (max s - min s)

    Here h is the sum over the channels, `tl.heatmap`. Smilkov et al. (2017), Sec. 3.1; Goh et al.
    (2021), Sec. IV. A constant map has no contrast to show and becomes 0 everywhere.

    Args:
        attribution: (B, C, H, W) finite floating-point attributions.

    Returns:
        (B, H, W) saliency maps in [0, 1].

    Raises:
        TypeError: attribution is not a floating-point tensor.
        ValueError: attribution is not (B, C, H, W), or it holds NaN or infinity; the message names
            the pictures.

    Example:
        >>> tl.saliency_map(torch.tensor([[[[0.0, 1.0, -3.0, 3.0]]]]))
        tensor([[[0.0000, 0.3333, 1.0000, 1.0000]]])
    """
    return normalize(heatmap(attribution))


def normalize(heatmap: Tensor) -> Tensor:
    """Turn a signed heatmap into magnitudes for the eye, as `tl.saliency_map` does.

    Args:
        heatmap: (B, H, W) finite floating-point heatmaps.

    Returns:
        (B, H, W) saliency maps in [0, 1].

    Raises:
        TypeError: heatmap is not a floating-point tensor.
        ValueError: heatmap is not (B, H, W), or it holds NaN or infinity; the message names the
            pictures.

    Example:
        >>> tl.heatmaps.normalize(torch.tensor([[[0.0, 1.0, -3.0, 3.0]]]))
        tensor([[[0.0000, 0.3333, 1.0000, 1.0000]]])
    """
    magnitude = _checked("heatmap", heatmap, "(B, H, W)").abs()
    magnitude = magnitude if magnitude.dtype == torch.float64 else magnitude.float()
    rows = magnitude.flatten(1)  # (B, H W)
    rows = rows.minimum(_percentile_99(rows))
    low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)  # (B, 1)
    contrast = torch.where(high > low, high - low, torch.ones_like(high))
    return ((rows - low) / contrast).view_as(magnitude)


def _checked(name: str, value: Tensor, shape: str) -> Tensor:
    """Return the tensor if it is finite floating point with the dimensions of `shape`."""
    if not isinstance(value, Tensor) or not value.dtype.is_floating_point:
        kind = getattr(value, "dtype", type(value).__name__)
        raise TypeError(f"{name}: expected a floating-point tensor {shape}, got {kind}")
    if value.ndim != shape.count(",") + 1 or not value.numel():
        raise ValueError(f"{name}: expected shape {shape}, got {tuple(value.shape)}")
    finite = value.isfinite().flatten(1).all(1)  # (B,)
    if not bool(finite.all()):
        bad = f"pictures {(~finite).nonzero().flatten().tolist()} of {len(finite)}"
        raise ValueError(f"{name}: expected finite numbers; {bad} hold others, leave them out")
    return value


def _percentile_99(rows: Tensor) -> Tensor:
    """Compute the 99th percentile of each row, linearly between neighbours: (B, n) -> (B, 1).

    torch.quantile sorts everything; the largest hundredth is all that is needed.
    """
    position = 0.99 * (rows.shape[1] - 1)
    below = int(position)
    largest = rows.topk(rows.shape[1] - below, dim=1).values  # from the largest down to `below`
    return largest[:, -1:].lerp(largest[:, -2:][:, :1], position - below)
