"""The one hot loop: every averaging method of the book is a weighted average of gradients.

    A(x) = sum over probes k of  share_k * weight_k * grad f_k(point_k)

`probes.py` says where to look and how to weigh, this file does the rest: it packs probe points
of all pictures into forward passes of at most `batch_size` rows and adds up what comes back.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from tutorial_lib import checks, lean, memory, packed
from tutorial_lib.chunks import Sizes
from tutorial_lib.precision import applied


class Block(NamedTuple):
    """K probe points for every picture of the batch.

    points: z, (K, B, ...). weights: w(x, z), broadcastable to the points, or None for 1.
    shares: every probe's part of the average, a number or (K, 1, ...); all shares sum to 1.
    draws: how many independent draws, the units of the standard error, end with this block: K where
        each probe is one; where they are parts of one, 1 in its last block and 0 before.
    network: from the model to the f_k whose gradient is taken, or None for the model itself.
    """

    points: Tensor
    weights: Tensor | None = None
    shares: float | Tensor = 1.0
    draws: int = 1
    network: Callable[[Callable], Callable] | None = None


@dataclass(frozen=True)
class Probes:
    """`count` probes a picture, in blocks; iterating starts afresh and gives the same each time."""

    count: int
    make: Callable[[], Iterator[Block]]

    def __iter__(self) -> Iterator[Block]:
        return self.make()

    def points(self) -> Tensor:
        """All points at once, (count, B, ...): to look at, where there is memory for them."""
        return torch.cat([block.points for block in self])


def gradients(model: Callable, points: Tensor, target: Tensor) -> Tensor:
    """Gradient of each row's target score with respect to that row, d f_target / d z.

    One forward and one backward pass: the rows are independent, so the gradient of the summed
    scores is every row's own gradient. points: (N, ...); target: LongTensor (N,).
    Raises ValueError if the model's output is not (N, C) or does not depend on its input.
    """
    with torch.inference_mode(False), torch.enable_grad(), lean.layers():
        points = points.clone() if points.is_inference() else points.detach()
        points.requires_grad_()
        scores = checks.scores(model(points), points, target)
        return checks.slope(slope_at(points, scores, target))


def slope_at(place: Tensor, scores: Tensor, target: Tensor) -> Tensor | None:
    """Gradient of each row's target score with respect to a tensor on its way; None without one."""
    if not scores.requires_grad:
        return None
    target = target.to(scores.device, non_blocking=True)
    chosen = torch.zeros_like(scores).scatter_(1, target[:, None], 1)  # d sum of f_target / d f
    return torch.autograd.grad(scores, place, chosen, allow_unused=True)[0]


def average(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    probes: Callable[[Tensor], Probes],
    *,
    batch_size: int | None = None,
    progress: bool = False,
    standard_error: bool = False,
    slope: Callable[[Callable, Tensor, Tensor], Tensor] = gradients,
) -> Tensor | tuple[Tensor, Tensor]:
    """Weighted average of gradients, A(x) = sum_k share_k * weight_k * slope(point_k).

    probes: function from x to `Probes`, for example `partial(probes.gaussian, sigma=0.2)`.
    slope: what is averaged; by default the gradient, else any function (model, points, target).
    standard_error: also return the standard error of every entry of A, from the spread of the
    independent draws (two draws at least).

    The sum runs block by block, in float32 or better, whatever the passes are, so the result does
    not depend on `batch_size` beyond what the backend's own kernels do. Where those round
    differently in passes of different sizes, give a batch_size to have the same bits each time:
    None tries a few sizes on a CPU (`chunks.py`). Memory grows with `batch_size` only.
    Returns A with the shape and dtype of x, or the pair (A, standard error).
    Raises ValueError or TypeError that names the argument at fault.

    >>> average(model, x, 285, partial(tl.probes.gaussian, sigma=0.2, samples=50))
    """
    checks.model(model)
    x = checks.pictures(x)
    target = checks.target(target, x)
    plain = slope is gradients
    sizes = Sizes(batch_size, model, x, "gradients" if plain else None)
    with torch.inference_mode(False), torch.no_grad(), applied(x.device, exact=not plain):
        where = probes(x)
        total = _Total(x, standard_error)
        bar = tqdm(total=where.count * len(x), unit="gradient", disable=not progress)
        with bar, memory.kept(x.device), packed.kept(where.count * len(x)):
            change, network = None, model
            for chunk in _chunks(where, len(x), sizes):
                if chunk[0][0].network is not change:
                    change = chunk[0][0].network
                    packed.forget()
                    network = change(model) if change else model
                points = torch.cat([block.points.flatten(0, 1)[rows] for block, rows in chunk])
                labels = torch.cat([_labels(target, block)[rows] for block, rows in chunk])
                total.add(chunk, sizes.run(partial(slope, network), points, labels))
                bar.update(len(points))
        checks.result(total.sum)
        return total.result(x.dtype)


def _chunks(probes: Probes, pictures: int, sizes: Sizes) -> Iterator[list[tuple[Block, slice]]]:
    """Pack rows of consecutive blocks with one network into chunks of sizes.next(left) rows.

    A chunk is a list of (block, rows), rows counted through its probes and pictures.
    """
    chunk, left = [], probes.count * pictures
    for block in probes:
        if chunk and block.network is not chunk[0][0].network:
            yield chunk
            chunk = []
        start, end = 0, len(block.points) * pictures
        while start < end:
            if not chunk:
                room = sizes.next(left)
            stop = min(end, start + room)
            chunk.append((block, slice(start, stop)))
            room, left = room - (stop - start), left - (stop - start)
            start = stop
            if room == 0:
                yield chunk
                chunk = []
    if chunk:
        yield chunk


def _labels(target: Tensor, block: Block) -> Tensor:
    """The target of every row of a block."""
    return target.expand(len(block.points), -1).flatten()


class _Total:
    """Running sum over blocks and, if asked for, the running variance over draws."""

    def __init__(self, x: Tensor, standard_error: bool):
        self.sum = torch.zeros_like(x, dtype=accumulator(x.dtype))
        self.waiting: list[Tensor] = []  # slopes of a block that is not complete
        self.spread = standard_error
        if standard_error:
            self.draw, self.mean, self.squares = (torch.zeros_like(self.sum) for _ in range(3))
            self.draws = 0

    def add(self, chunk: list[tuple[Block, slice]], slopes: Tensor) -> None:
        """Take the slopes of a chunk; the blocks that it completes are weighed and added."""
        start = 0
        for block, rows in chunk:
            stop = start + rows.stop - rows.start
            self.waiting.append(slopes[start:stop])
            start = stop
            if rows.stop == block.points.shape[0] * self.sum.shape[0]:
                whole = torch.cat(self.waiting) if len(self.waiting) > 1 else self.waiting[0]
                self.waiting.clear()
                self._add_block(block, whole)

    def _add_block(self, block: Block, slopes: Tensor) -> None:
        probes = block.points.shape[0]
        slopes = slopes.to(self.sum.dtype).view(probes, *self.sum.shape)
        if probes == 1 and not (self.spread or isinstance(block.shares, Tensor)):
            self._add_probe(block, slopes)
            return
        values = slopes * block.shares
        if block.weights is not None:
            values *= block.weights
        whole = values.sum(0) if probes > 1 else values[0]
        self.sum += whole
        if self.spread and block.draws == probes > 1:
            self._end_draws(values)
        elif self.spread:
            self.draw += whole
            if block.draws:
                self._end_draws(self.draw[None])
                self.draw.zero_()

    def _add_probe(self, block: Block, slope: Tensor) -> None:
        """One probe, in one operation: large pictures wait for memory."""
        total = self.sum[None]
        if block.weights is None:
            total.add_(slope, alpha=block.shares)
        else:
            total.addcmul_(slope, block.weights.to(total.dtype), value=block.shares)

    def _end_draws(self, draws: Tensor) -> None:
        """Merge the mean and the squares of some draws (Chan et al., 1979)."""
        n, k = self.draws, len(draws)
        self.draws = n + k
        mean = draws.mean(0)
        delta = mean - self.mean
        self.mean += delta * (k / self.draws)
        self.squares += (draws - mean).square().sum(0) + delta.square() * (n * k / self.draws)

    def result(self, dtype: torch.dtype) -> Tensor | tuple[Tensor, Tensor]:
        if not self.spread:
            return self.sum.to(dtype)
        n = self.draws
        if n < 2:
            raise ValueError("standard_error: needs at least 2 independent draws, there was 1")
        # The sum of n draws with variance squares / (n - 1) each.
        return self.sum.to(dtype), (self.squares * n / (n - 1)).sqrt().to(dtype)


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums and noise: float64 stays, everything narrower uses float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32
