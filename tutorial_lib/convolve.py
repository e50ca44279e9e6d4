"""The slope at the pictures: that of a strided convolution is a convolution too.

    y[o] = sum_k w[k] x[s o + k - p]   so that   d f / d x[s q + a] = sum_t up[q - t] w[s t + a + p]

for up = d f / d y, a stride s, p zeros before x, and each a < s, which takes every s-th weight. On
a CPU this is quicker than PyTorch's backward pass where there are few channels before the stride,
as at the first layer of a network.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEW = 4  # channels


def convolve(x: Tensor, layer: nn.Conv2d, before: Sequence, after: Sequence) -> Tensor:
    """The layer's output, without dilation, for so many zeros (rows, columns) around x.

    There may be one more after x than before it: a zero row in front of the kernel makes up for it,
    where padding would copy x.
    """
    down, across = (b - a for a, b in zip(before, after, strict=True))
    kernel = F.pad(layer.weight, (across, 0, down, 0)) if down or across else layer.weight
    given = kernel, layer.bias, layer.stride, after, 1, layer.groups
    frozen = not any(p.requires_grad for p in layer.parameters(recurse=False))
    if few(layer) and frozen and not torch.is_autocast_enabled("cpu"):
        return _Convolution.apply(x, layer.weight, before, given)
    return F.conv2d(x, *given)


def few(layer: nn.Conv2d) -> bool:
    """Whether it has a stride and few channels before it."""
    height, width = layer.stride
    fits = all(p < k for p, k in zip(layer.padding, layer.kernel_size, strict=True))
    return height == width > 1 and layer.groups == 1 and layer.in_channels <= FEW and fits


class _Convolution(torch.autograd.Function):
    """A convolution of x, with weights that want no gradients."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, before: Sequence, given: tuple) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.place = x.shape[2:], given[2][0], before
        return F.conv2d(x, *given)

    @staticmethod
    def backward(ctx, up: Tensor) -> tuple:
        return _slope(up, *ctx.saved_tensors, *ctx.place), None, None, None


def _slope(up: Tensor, weight: Tensor, size: Sequence, s: int, before: Sequence) -> Tensor:
    """d f / d x, of this size, from up = d f / d y with stride s."""
    edges, crops, pads = [], [], []
    for n, outputs, k, p in zip(size, up.shape[2:], weight.shape[2:], before, strict=True):
        least, most = -((s - 1 + p) // s), (k - 1 - p) // s  # t
        edges = [-(s * least + p), s * (most + 1) + p - k, *edges]  # columns first, as F.pad
        rows = -(-n // s)  # of each a
        pads.append(max(most, rows - outputs - least))
        crops.append(slice(pads[-1] - most, pads[-1] - most + rows))
    kernel = F.pad(weight, edges).unflatten(3, (-1, s)).unflatten(2, (-1, s))
    # From (out, in, t, a, t', b) to (a and b and in, out, t, t').
    kernel = kernel.permute(3, 5, 1, 0, 2, 4).flatten(0, 2).flip(2, 3)
    up = up.contiguous(memory_format=torch.channels_last)
    parts = F.conv2d(up, kernel, padding=pads)[:, :, *crops].permute(0, 2, 3, 1)
    parts = parts.unflatten(3, (s, s, -1)).transpose(2, 3)  # row, a, column, b, channel
    whole = parts.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)
    return whole[:, :, : size[0], : size[1]]
