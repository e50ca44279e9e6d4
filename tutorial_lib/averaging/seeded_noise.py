"""Noise in blocks, and seeds: a draw depends on the seed and on its number, and on nothing else."""

from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from tutorial_lib import checks

NUMBERS_PER_BLOCK = 32_768  # numbers that one operation draws; a single draw may have more
# How noise may be drawn: the copies of x that one independent draw makes.
COPIES = {"random": 1, "antithetic": 2}


def noise_blocks(
    x: Tensor, draw: Callable, samples: int, seed: int, sampling: str = "random"
) -> Iterator[Tensor]:
    """Draw noise of the shape of one picture, in blocks of K samples.

    Each draw is made by itself, so that it depends on nothing but the seed and its number.

    Args:
        x: (B, ...) pictures, which give the shape, the device and the dtype.
        draw: `torch.randn` for normal or `torch.rand` for uniform noise.
        samples: Number of samples, checked by `copies_per_draw`.
        seed: Seed of the noise; the same seed gives the same draws.
        sampling: "random" draws every sample. "antithetic" draws the first of every two; the second
            is its mirror, -eps for normal noise and 1 - u for uniform noise, which has the same
            distribution.

    Returns:
        An iterator over blocks (K, ...), in float64 if x has it, else in float32. A block holds
        whole pairs.

    Example:
        >>> [len(block) for block in tl.probes.noise_blocks(x, torch.randn, 50, seed=0)]
        [21, 21, 8]
        >>> next(tl.probes.noise_blocks(x, torch.randn, 50, 0, "antithetic"))[:2].sum(0).norm()
        tensor(0.)
    """
    rng = torch.Generator(device=x.device).manual_seed(seed)
    draw_one = partial(
        draw, x.shape[1:], generator=rng, device=x.device, dtype=checks.accumulator(x.dtype)
    )
    for block in slices(samples // COPIES[sampling], x):
        drawn = torch.stack([draw_one() for _ in range(block.stop - block.start)])  # (K, ...)
        if sampling == "antithetic":
            mirrored = -drawn if draw is torch.randn else 1 - drawn
            drawn = torch.stack([drawn, mirrored], 1).flatten(0, 1)  # (2 K, ...), pair by pair
        yield drawn


def copies_per_draw(sampling: str, name: str, samples: int) -> int:
    """Check how noise is drawn, and return how many noisy copies one independent draw makes.

    Args:
        sampling: "random" or "antithetic".
        name: The argument that holds the number of samples, for the message.
        samples: Number of samples, of which antithetic pairs need an even one.

    Returns:
        1, or 2 for antithetic pairs.

    Raises:
        ValueError: sampling is another word, or a pair would miss its second half.

    Example:
        >>> tl.probes.copies_per_draw("antithetic", "samples", 50)
        2
    """
    checks.choice("sampling", sampling, tuple(COPIES))
    if samples % COPIES[sampling]:
        raise ValueError(
            f"{name}: expected an even number, as sampling='antithetic' draws pairs, got "
            f"{samples}; write {name}={samples + 1}"
        )
    return COPIES[sampling]


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
