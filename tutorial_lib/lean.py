"""Lean layers: the same numbers with fewer trips to memory, for gradients at the input and scores.

On a CPU the layers between the convolutions of a small network take as long as the convolutions,
for they wait for memory. `prepare` gives a network these in their place. They work only inside
`engine.gradients`, where nothing but the slope at the input is asked for, and in the metrics'
forward passes; everywhere else (tapes, your own backward pass) they do what the layers do of which
they are subclasses.
"""

import contextlib
import sys
from collections.abc import Iterator
from contextvars import ContextVar

import torch
from timm.layers import Conv2dSame as TimmConv2dSame
from timm.layers.padding import get_same_padding
from torch import Tensor, nn

from tutorial_lib.convolve import convolve, few

ON = ContextVar("lean layers", default=False)


@contextlib.contextmanager
def layers() -> Iterator[None]:
    """Inside, lean layers are lean."""
    before = ON.set(True)
    try:
        yield
    finally:
        ON.reset(before)


def lean(model: nn.Module) -> nn.Module:
    """Give a module its lean layers, in place. They hold the same parameters and settings."""
    for module in model.modules():
        if type(module) is nn.ReLU6:
            module.__class__ = ReLU6
        elif type(module) is nn.Conv2d and _plain(module) and few(module):
            module.__class__ = Conv2d
        elif (
            type(module) is TimmConv2dSame
            and _plain(module)
            and (few(module) or module.groups == module.in_channels)
        ):
            module.__class__ = Conv2dSame
    return model


def _on(x: Tensor) -> bool:
    """On a CPU only, where it is measured to pay, and not inside a transform of torch.func."""
    if not (ON.get() and x.device.type == "cpu"):
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(x)


def _plain(module: nn.Conv2d) -> bool:
    """Whether its padding is zeros, of so many rows, and its kernel has no gaps."""
    numbers = isinstance(module.padding, tuple) and module.padding_mode == "zeros"
    return numbers and max(module.dilation) == 1


class ReLU6(nn.ReLU6):
    """min(max(x, 0), 6). PyTorch's own, in place, first copies the x that it overwrites."""

    def forward(self, x: Tensor) -> Tensor:
        """The activation, over x if `inplace` says so."""
        if _on(x) and self.inplace and not x.is_leaf:
            return _Clip.apply(x, 0.0, 6.0)
        return super().forward(x)


class Conv2d(nn.Conv2d):
    """A network's first convolution, with a stride: its slope at the pictures is one, too."""

    def forward(self, x: Tensor) -> Tensor:
        """The convolution."""
        return convolve(x, self, self.padding, self.padding) if _on(x) else super().forward(x)


class Conv2dSame(TimmConv2dSame):
    """The same with TensorFlow's padding, which may have one more zero after x than before.

    Padding copies x, where a zero row before the kernel does as well.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The convolution."""
        if not _on(x):
            return super().forward(x)
        sides = x.shape[-2:], self.kernel_size, self.stride, self.dilation
        zeros = [get_same_padding(*side) for side in zip(*sides, strict=True)]
        return convolve(x, self, [n // 2 for n in zeros], [n - n // 2 for n in zeros])


class _Clip(torch.autograd.Function):
    """Clipping over its input, with the derivative from the output: 1 where low < y < high."""

    @staticmethod
    def forward(ctx, x: Tensor, low: float, high: float) -> Tensor:
        ctx.mark_dirty(x)
        y = x.clamp_(low, high)
        ctx.save_for_backward(y)
        ctx.limits = low, high
        return y

    @staticmethod
    def backward(ctx, up: Tensor) -> tuple:
        (y,) = ctx.saved_tensors
        derivative = torch.ops.aten.hardtanh_backward
        second = torch.is_grad_enabled()  # the backward pass of a backward pass
        if not second and ALONE and _owners(up) == ALONE and 0 not in up.stride():
            return derivative.grad_input(up, y, *ctx.limits, grad_input=up), None, None
        return derivative(up, y, *ctx.limits), None, None


def _owners(up: Tensor) -> tuple[int, ...]:
    """How often a gradient is held: as a tensor, its memory, and by Python."""
    storage = up.untyped_storage()
    return up._use_count(), torch._C._storage_Use_Count(storage._cdata), sys.getrefcount(up)


def _one_owner() -> tuple[int, ...] | None:
    """What `_owners` says of a gradient that nobody else holds, so that it may be overwritten.

    A sum, for example, hands one tensor to both its terms. None where PyTorch does not tell.
    """
    seen: list[tuple[int, ...]] = []

    class Look(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx, up: Tensor) -> Tensor:
            seen.append(_owners(up))
            return up

    with contextlib.suppress(AttributeError, RuntimeError), torch.enable_grad():
        x = torch.ones(2, 2, device="cpu", requires_grad=True)
        torch.autograd.grad((Look.apply(x) * 2).sum(), x)
    return seen[0] if seen else None


ALONE = _one_owner()
