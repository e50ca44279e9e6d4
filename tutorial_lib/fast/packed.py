"""Convolutions of oneDNN with weights in its own order, put there once a call.

oneDNN, which has PyTorch's convolutions on a CPU, wants weights in an order that suits the
processor, and brings them into it anew in each pass. Inside `kept` the first pass goes as always
and shows which layers there are. Then their weights are packed, all at once, so that they lie
side by side in memory, and are forgotten with the call: those that change between two calls are
never stale. With packed weights oneDNN clips a number before it stores it, which spares an
activation of its own.
"""

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor, nn

ENOUGH = 16  # rows in a call, from which on it pays
ONE = (1, 1)


class Store:
    """What a call knows of a network's layers."""

    def __init__(self):
        self.open = True  # until a pass has come to its end
        self.calls: dict[tuple, NamedTuple] = {}  # how a layer is called, for a shape of its input
        self.met: Counter[nn.Module] = Counter()  # how often in the first pass
        self.over: Counter[nn.Module] = Counter()  # how often an activation clipped its output
        self.clipped: set[nn.Module] = set()  # always

    def close(self, pack: Callable) -> None:
        """The first pass is over."""
        self.open = False
        self.calls = {key: pack(call) for key, call in self.calls.items()}
        self.clipped = {layer for layer, n in self.met.items() if n == self.over[layer] == 1}


STORE: ContextVar[Store | None] = ContextVar("packed weights", default=None)


@contextlib.contextmanager
def kept(rows: int = ENOUGH) -> Iterator[None]:
    """Inside, convolutions have packed weights if the call has so many rows and oneDNN offers them.

    They are packed where `passed` says that the first pass is over. Weights that change later in
    the call, in place, are used as they are then; what is done to their `.data` is not seen.
    """
    before = STORE.set(Store() if rows >= ENOUGH and _offered() else None)
    try:
        yield
    finally:
        STORE.reset(before)


def forget() -> None:
    """Another network comes: nothing is packed from here on."""
    if store := STORE.get():
        store.open, store.calls, store.clipped = False, {}, set()


def pack(kernel: Tensor, shape: Sequence, pads: Sequence, stride: Sequence, groups: int) -> Tensor:
    """A kernel in oneDNN's order, for inputs of about this shape."""
    own = pads, stride, ONE, groups, shape
    return torch.ops.mkldnn._reorder_convolution_weight(kernel, *own)


def convolve(
    x: Tensor,
    there: Tensor,
    bias: Tensor | None,
    pads: Sequence,
    stride: Sequence = ONE,
    groups: int = 1,
    limits: tuple | None = None,
) -> Tensor:
    """The convolution with a packed kernel, clipped if a lowest and a highest number are given."""
    after = ("hardtanh", limits, "") if limits else ("none", [], "")
    return torch.ops.mkldnn._convolution_pointwise(
        x, there, bias, pads, stride, ONE, groups, *after
    )


@functools.cache
def _offered() -> bool:
    """Whether this PyTorch has packed convolutions, tried on one. They are what it compiles to."""
    own = dict(generator=torch.Generator().manual_seed(0), device="cpu", dtype=torch.float32)
    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            x, kernel = torch.randn(2, 8, 5, 5, **own), torch.randn(4, 8, 3, 3, **own)
            wanted = torch.nn.functional.conv2d(x, kernel, None, (2, 2), ONE).clamp(0, 6)
            there = pack(kernel, x.shape, ONE, (2, 2), 1)
            found = convolve(x, there, None, ONE, (2, 2), limits=(0.0, 6.0))
            return torch.allclose(found, wanted, atol=1e-4)
    except (AttributeError, RuntimeError):
        return False
