"""Noise in blocks, and seeds: what is drawn depends on the seed and its place alone."""

from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from tutorial_lib import checks

NUMBERS_PER_BLOCK = 32_768  # numbers placed together, where one draw has fewer


def noise_blocks(x: Tensor, draw: Callable, samples: int, seed: int) -> Iterator[Tensor]:
    """Blocks (K, ...) of noise of the shape of one picture; draw: torch.randn or torch.rand.

    Each is drawn by itself, so that it depends on nothing but the seed and its place.
    """
    rng = torch.Generator(device=x.device).manual_seed(seed)
    one = partial(
        draw, x.shape[1:], generator=rng, device=x.device, dtype=checks.accumulator(x.dtype)
    )
    for part in slices(samples, x):
        yield torch.stack([one() for _ in range(part.stop - part.start)])  # (K, ...)


def slices(count: int, x: Tensor) -> Iterator[slice]:
    """Slices of range(count), so that many points of a few numbers are placed in one operation."""
    size = max(1, NUMBERS_PER_BLOCK // x.numel())
    return (slice(k, min(k + size, count)) for k in range(0, count, size))


@lru_cache(maxsize=10_000)
def child_seed(seed: int, *path: int) -> int:
    """An independent seed for one use of noise, so that inner noise is not outer noise."""
    return int(
        np.random.SeedSequence([seed, *path]).generate_state(1, np.uint64)[0] >> np.uint64(1)
    )
