"""Memory of one pass kept for the next pass and for the next call, on a CPU.

The C library of most Linux systems (glibc) asks the system for every block above 32 MB and hands it
back as soon as it is free. A pass needs many such blocks, and a fresh one costs a page fault for
each 4 KB that is touched: up to a fifth of the time of a pass through EfficientNet-Lite0. Inside
`kept` blocks of all sizes come from the heap, which holds on to what is free at its end.
"""

import contextlib
import ctypes
import functools
import os
import platform
from collections.abc import Callable, Iterator

import torch

KEEP = 2**30  # bytes at the end of the heap that are kept when they are free
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # names of settings in glibc's malloc.h
BLOCKS, LARGE = 65_536, 2**25  # glibc's own: blocks outside the heap, and bytes from which on


@contextlib.contextmanager
def kept(device: torch.device) -> Iterator[None]:
    """Inside, memory comes from the heap, and freed memory stays there for the next pass.

    Afterwards large blocks come from the system again, as glibc decides by itself in a process that
    has freed one of `LARGE` bytes, but up to `KEEP` bytes that are free at the end of the heap stay
    with the process, for the next call or any other use. It does nothing on another device, with
    another C library, or where the process was started with MALLOC_... or GLIBC_TUNABLES: then
    somebody has chosen.
    """
    setting = _setting() if device.type == "cpu" else None
    if setting is None:
        yield
        return
    setting(TRIM_THRESHOLD, KEEP)
    setting(MMAP_MAX, 0)
    try:
        yield
    finally:
        setting(MMAP_MAX, BLOCKS)
        setting(MMAP_THRESHOLD, LARGE)


@functools.cache
def _setting() -> Callable[[int, int], int] | None:
    """glibc's mallopt; None where its settings are not ours to make."""
    chosen = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if chosen or platform.libc_ver()[0] != "glibc":
        return None
    return ctypes.CDLL(None).mallopt
