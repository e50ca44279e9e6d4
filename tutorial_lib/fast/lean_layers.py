"""Lean layers: the same numbers with fewer trips to memory, for gradients at the input and scores.

On a CPU the layers between the convolutions of a small network take as long as the convolutions,
for they wait for memory. `prepare` gives a network these in their place. They work only inside
`engine.gradients`, where nothing but the slope at the input is asked for, and in the metrics'
forward passes; everywhere else (tapes, your own backward pass) they do what the layers do of which
they are subclasses.
"""

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

import torch
from timm.layers import Conv2dSame as TimmConv2dSame
from timm.layers.padding import get_same_padding
from torch import Tensor, nn

from tutorial_lib import packed
from tutorial_lib.clip import clip_
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
        elif type(module) is nn.Conv2d and _plain(module):
            module.__class__ = Conv2d
        elif (
            type(module) is TimmConv2dSame
            and _plain(module)
            and (few(module) or module.groups == module.in_channels)
        ):
            module.__class__ = Conv2dSame
    return model


def _on(x: Tensor) -> bool:
    """On a CPU only, where it is measured to pay; not where torch.func or a compiler looks on."""
    if torch.compiler.is_compiling() or not (ON.get() and x.device.type == "cpu"):
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(x)


def _plain(module: nn.Conv2d) -> bool:
    """Whether its padding is zeros, of so many rows, and its kernel has no gaps."""
    numbers = isinstance(module.padding, tuple) and module.padding_mode == "zeros"
    return numbers and max(module.dilation) == 1


class ReLU6(nn.ReLU6):
    """min(max(x, 0), 6). PyTorch's own, in place, first copies the x that it overwrites."""

    def forward(self, x: Tensor) -> Tensor:
        """The activation, over x if `inplace` says so; x itself if it is clipped already."""
        if not (_on(x) and self.inplace and not x.is_leaf):
            return super().forward(x)
        if getattr(x, "clipped", False):
            return x
        store, maker = packed.STORE.get(), getattr(x, "maker", None)
        if store and maker and not (x._version or self._forward_pre_hooks):
            store.over[maker] += 1
        return clip_(x)


class Lean:
    """A convolution whose weights can be packed (`convolve.py`)."""

    clips = False  # whether an activation in place reads its output (see `prepare`)

    def forward(self, x: Tensor) -> Tensor:
        """The convolution, clipped where the first pass of the call has shown that it will be."""
        if not (_on(x) and _plain(self)):
            return super().forward(x)
        store, watched = packed.STORE.get(), self._forward_hooks or self._backward_hooks
        if store and store.open:
            store.met[self] += 1
        clips = self.clips and store is not None and self in store.clipped and not watched
        y = convolve(x, self, clips)
        y.maker = self
        return y

    def zeros(self, x: Tensor) -> tuple[Sequence, Sequence]:
        """How many (rows, columns) it pads before x, and after it."""
        return self.padding, self.padding


class Conv2d(Lean, nn.Conv2d):
    """A convolution."""


class Conv2dSame(Lean, TimmConv2dSame):
    """The same with TensorFlow's padding, which may have one more zero after x than before."""

    def zeros(self, x: Tensor) -> tuple[Sequence, Sequence]:
        """How many (rows, columns) it pads before x, and after it."""
        sides = x.shape[-2:], self.kernel_size, self.stride, self.dilation
        zeros = [get_same_padding(*side) for side in zip(*sides, strict=True)]
        return [n // 2 for n in zeros], [n - n // 2 for n in zeros]
