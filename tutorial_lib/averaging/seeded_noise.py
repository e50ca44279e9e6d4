"""Noise in blocks, and seeds: a draw depends on the seed and on its number, and on nothing else."""

from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from tutorial_lib import checks

NUMBERS_PER_BLOCK = 32_768  # numbers that one operation draws; a single draw may have more


def noise_blocks(x: Tensor, draw: Callable, samples: int, seed: int) -> Iterator[Tensor]:
    """Draw noise of the shape of one picture, in blocks of K draws.

    Each draw is made by itself, so that it depends on nothing but the seed and its number.

    Args:
        x: (B, ...) pictures, which give the shape, the device and the dtype.
        draw: `torch.randn` for normal or `torch.rand` for uniform noise.
        samples: Number of draws.
        seed: Seed of the noise; the same seed gives the same draws.

    Returns:
        An iterator over blocks (K, ...), in float64 if x has it, else in float32.

    Example:
        >>> [len(block) for block in tl.probes.noise_blocks(x, torch.randn, 50, seed=0)]
        [21, 21, 8]
    """
    rng = torch.Generator(device=x.device).manual_seed(seed)
    draw_one = partial(
        draw, x.shape[1:], generator=rng, device=x.device, dtype=checks.accumulator(x.dtype)
    )
    for block in slices(samples, x):
        yield torch.stack([draw_one() for _ in range(block.stop - block.start)])  # (K, ...)


def slices(count: int, x: Tensor) -> Iterator[slice]:
    """Split range(count) into slices, so that one operation handles many points of a few numbers.

    Args:
        count: Number of points for every picture.
        x: (B, ...) pictures; a point of all of them has as many numbers as x.

    Returns:
        An iterator over slices of 32,768 numbers at most, or of one point if that has more.

    Example:
        >>> [*tl.probes.slices(50, torch.zeros(2, 3, 16, 16))]
        [slice(0, 21, None), slice(21, 42, None), slice(42, 50, None)]
    """
    size = max(1, NUMBERS_PER_BLOCK // x.numel())
    return (slice(k, min(k + size, count)) for k in range(0, count, size))


@lru_cache(maxsize=10_000)
def child_seed(seed: int, *path: int) -> int:
    """Return an independent seed for one use of noise, so that inner noise is not outer noise.

    Args:
        seed: The seed of the whole call.
        *path: Numbers that name the use, such as the number of the outer draw.

    Returns:
        An int from 0 to `2**63 - 1`, the same for the same arguments.

    Example:
        >>> tl.probes.child_seed(0, 1) == tl.probes.child_seed(0, 1)
        True
        >>> tl.probes.child_seed(0, 1) == tl.probes.child_seed(0, 2)
        False
    """
    return int(
        np.random.SeedSequence([seed, *path]).generate_state(1, np.uint64)[0] >> np.uint64(1)
    )
