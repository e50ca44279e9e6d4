"""Convolutions with weights that want no gradients, and the slope at what they read.

The slope of a strided convolution is made of convolutions too:

    y[o] = sum_k w[k] x[s o + k - p]   so that   d f / d x[s q + a] = sum_t up[q - t] w[s t + a + p]

for up = d f / d y, a stride s, p zeros before x, and each a < s, which takes every s-th weight. On
a CPU this is quicker than PyTorch's backward pass where there are few channels before the stride,
as at the first layer of a network. With s = 1 it is one convolution, whose weights can be packed.
It is depthwise where the convolution is; other convolutions in groups are left to PyTorch.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutorial_lib import clip, packed

FEW = 4  # channels


class Call(NamedTuple):
    """How a layer is called: what is worked out once for inputs of one shape.

    kernel: the weights, with a zero row in front of them if there is one more zero after x than
        before it; this does instead of padding, which would copy x.
    there, back: the kernel packed for x, and turned round for the slope; None where it is not.
    """

    weight: Tensor
    kernel: Tensor
    bias: Tensor | None
    before: Sequence
    after: Sequence
    stride: tuple[int, int]
    groups: int
    few: bool
    packs: tuple[int, ...] | None  # the shape of x, if they can be packed
    version: int | None  # that of the weights, which may change in place
    there: Tensor | None = None
    back: Tensor | None = None


def convolve(x: Tensor, layer: nn.Conv2d, clips: bool = False) -> Tensor:
    """The output of a lean layer; clipped, and marked so, if `clips` and its weights are packed."""
    store, rounded = packed.STORE.get(), torch.is_autocast_enabled("cpu")
    key = layer, x.shape[1:], x.dtype
    call = store.calls.get(key) if store else None
    if call is None or not _same(call, layer):
        call = _call(layer, x)
        if store and store.open and call.packs and not rounded:
            store.calls[key] = call
    if rounded or not (call.few or call.there is not None):
        return F.conv2d(x, call.kernel, call.bias, call.stride, call.after, 1, call.groups)
    clips = clips and call.there is not None
    y = _Convolution.apply(x, call, clips)
    y.clipped = clips
    return y


def few(layer: nn.Conv2d) -> bool:
    """Whether it has a stride and few channels before it."""
    height, width = layer.stride
    fits = all(p < k for p, k in zip(layer.padding, layer.kernel_size, strict=True))
    return height == width > 1 and layer.groups == 1 and layer.in_channels <= FEW and fits


def _same(call: Call, layer: nn.Conv2d) -> bool:
    """Whether the layer has the weights that it was packed with."""
    same = call.weight is layer.weight and call.bias is layer.bias
    return same and call.version == _version(layer.weight)


def _version(weight: Tensor) -> int | None:
    return None if weight.is_inference() else weight._version


def _call(layer: nn.Conv2d, x: Tensor) -> Call:
    """Weights that want gradients are left to PyTorch."""
    before, after = layer.zeros(x)
    down, across = (b - a for a, b in zip(before, after, strict=True))
    weight, bias, stride, groups = layer.weight, layer.bias, layer.stride, layer.groups
    kernel = F.pad(weight, (across, 0, down, 0)) if down or across else weight
    frozen = not any(p.requires_grad for p in layer.parameters(recurse=False)) and x.ndim == 4
    single = x.dtype == weight.dtype == torch.float32
    last = weight.is_contiguous(memory_format=torch.channels_last)
    packs = tuple(x.shape) if frozen and single and last else None
    own = kernel, bias, before, after, stride, groups
    return Call(weight, *own, frozen and few(layer), packs, _version(weight))


def passed() -> None:
    """A pass is over: the first one of a call has shown which weights to pack (`packed.py`)."""
    if (store := packed.STORE.get()) and store.open:
        store.close(_packed)


def _packed(call: Call) -> Call:
    """The same with its weights packed."""
    kernel, after, back, pads = call.kernel, call.after, None, _turned_pads(call)
    there = packed.pack(kernel, call.packs, after, call.stride, call.groups)
    if call.stride == packed.ONE and (call.groups == 1 or _depthwise(call)) and min(pads) >= 0:
        sides = zip(call.packs[2:], kernel.shape[2:], after, strict=True)
        made = call.packs[0], len(kernel), *(n + 2 * p - k + 1 for n, k, p in sides)
        back = packed.pack(_turned(call), made, pads, packed.ONE, call.groups)
    return call._replace(there=there, back=back)


class _Convolution(torch.autograd.Function):
    """A convolution of x with weights that want no gradients, perhaps clipped."""

    @staticmethod
    def forward(ctx, x: Tensor, call: Call, clips: bool) -> Tensor:
        if call.there is None:
            y = F.conv2d(x, call.kernel, call.bias, call.stride, call.after)
        else:
            own = call.bias, call.after, call.stride, call.groups
            limits = (clip.LOW, clip.HIGH) if clips else None
            y = packed.convolve(x, call.there, *own, limits)
        alone = call.few or call.back is not None  # their slopes do not need x
        ctx.save_for_backward(None if alone else x, y if clips else None)
        ctx.call, ctx.size = call, x.shape[2:]
        return y

    @staticmethod
    def backward(ctx, up: Tensor) -> tuple:
        (x, y), call = ctx.saved_tensors, ctx.call
        if y is not None:
            held = clip.owners(up) if clip.ALONE else None
            up = clip.slope(up, y, held)
        if call.few:
            found = _slope(up, call.weight, ctx.size, call.stride[0], call.before)
        elif call.back is not None:
            found = _slope_of_one(up, call)
        else:
            own = None, call.stride, call.after, (1, 1), False, (0, 0), call.groups
            wanted = True, False, False
            found = torch.ops.aten.convolution_backward(up, x, call.kernel, *own, wanted)[0]
        return found, None, None


def _depthwise(call: Call) -> bool:
    """Whether each channel has one output, of its own."""
    return call.kernel.shape[1] == 1 and call.groups == len(call.kernel)


def _turned(call: Call) -> Tensor:
    """The kernel for the slope of a depthwise convolution, or of one without groups."""
    kernel = call.kernel if _depthwise(call) else call.kernel.transpose(0, 1)
    return kernel.flip(2, 3)


def _turned_pads(call: Call) -> list[int]:
    return [k - 1 - p for k, p in zip(call.kernel.shape[2:], call.after, strict=True)]


def _slope_of_one(up: Tensor, call: Call) -> Tensor:
    """d f / d x of a convolution with stride 1: one with the kernel turned round."""
    if clip.batched(up) or torch.is_grad_enabled():  # the backward pass of a backward pass
        pads, groups = _turned_pads(call), call.groups
        return F.conv2d(up, _turned(call), padding=pads, groups=groups)
    up = up.contiguous(memory_format=torch.channels_last)
    return packed.convolve(up, call.back, None, _turned_pads(call), packed.ONE, call.groups)


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
