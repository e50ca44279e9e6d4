"""The one hot loop: every averaging method of the book is a weighted average of gradients.

    A(x) = sum over probes k of  share_k * weight_k * grad f_k(point_k)

`probes.py` says where to look and how to weigh, this file does the rest: it packs probe points
of all pictures into forward passes of at most `batch_size` rows and adds up what comes back.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from tutorial_lib import checks
from tutorial_lib.fast.passes import Passes
from tutorial_lib.fast.precision_modes import precision_for


class Block(NamedTuple):
    """K probe points for every picture of the batch.

    points: z, (K, B, ...). weights: w(x, z), broadcastable to the points, or None for 1.
    shares: every probe's part of the average, a number or (K, 1, ...); all shares sum to 1.
    draws: number of independent draws that are complete after this block. K if every probe is a
        draw of its own (SmoothGrad). If a draw spans several blocks (a path of Integrated
        Gradients), 1 for its last block and 0 for the others. Needed for the standard error only.
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
    with torch.inference_mode(False), torch.enable_grad():
        points = points.clone() if points.is_inference() else points.detach()
        points.requires_grad_()
        # A copy, as the model may write into its input, which a leaf of the graph forbids.
        scores = checks.scores(model(points.clone()), points, target)
        return checks.gradient(gradient_at(points, scores, target))


def gradient_at(place: Tensor, scores: Tensor, target: Tensor) -> Tensor | None:
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
    gradient_of: Callable[..., Tensor] = gradients,
    per_picture: Mapping[str, Tensor] | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Weighted average of gradients, A(x) = sum_k share_k * weight_k * gradient_of(point_k).

    probes: function from x to `Probes`, for example `partial(probes.gaussian, sigma=0.2)`.
    gradient_of: what is averaged; by default the gradient, else any function
    (model, points, target). per_picture: tensors with a row for each picture of x, which
    gradient_of gets by name, each row beside the points of its picture.
    standard_error: also return the standard error of every entry of A, from the spread of the
    independent draws (two draws at least).

    The sum runs block by block, in float32 or better, whatever the passes are, so the result does
    not depend on `batch_size` beyond what the backend's own kernels do, and the same call gives
    the same bits each time. Memory grows with `batch_size` only.
    Returns A with the shape and dtype of x, or the pair (A, standard error).
    Raises ValueError or TypeError that names the argument at fault.

    >>> average(model, x, 285, partial(tl.probes.gaussian, sigma=0.2, samples=50))
    """
    checks.model(model)
    x = checks.pictures(x)
    target = checks.target(target, x)
    per_picture, exact = dict(per_picture or {}), gradient_of is not gradients
    passes = Passes(batch_size, x)

    def one_pass(network: Callable, points: Tensor, target: Tensor, *rows: Tensor) -> Tensor:
        return gradient_of(network, points, target, **dict(zip(per_picture, rows, strict=True)))

    with torch.inference_mode(False), torch.no_grad(), precision_for(x.device, exact=exact):
        found = checks.examine(model, x)
        passes.rows = len(x) if found.fixed_rows else passes.rows
        all_probes = probes(x)
        total = _RunningTotal(x, standard_error)
        change, network = None, model
        count = all_probes.count * len(x)
        with tqdm(total=count, unit="gradient", disable=not progress) as bar:
            for chunk in _chunks(all_probes, len(x), passes):
                wanted = chunk.parts[0][0].network
                if wanted is not change:
                    change = wanted
                    network = change(model) if change else model
                points, pictures = chunk.points(), chunk.pictures(len(x))  # (N, ...), (N,)
                rows = [tensor[pictures.to(tensor.device)] for tensor in per_picture.values()]
                call = partial(one_pass, network)
                total.add(chunk, passes.run(call, points, target[pictures], *rows))
                bar.update(len(points))
        checks.result(total.sum)
        checks.warn_if_saturated(found, total.sum, model, x, target)
        return total.result(x.dtype)


class _Chunk(NamedTuple):
    """The rows of one pass: (block, slice) pairs, rows counted through its probes and pictures."""

    parts: list[tuple[Block, slice]]

    def points(self) -> Tensor:
        """The points of its rows, (N, ...)."""
        return torch.cat([block.points.flatten(0, 1)[rows] for block, rows in self.parts])

    def pictures(self, count: int) -> Tensor:
        """Which of `count` pictures each row belongs to, (N,)."""
        return torch.cat([torch.arange(rows.start, rows.stop) for _, rows in self.parts]) % count


def _chunks(probes: Probes, pictures: int, passes: Passes) -> Iterator[_Chunk]:
    """Pack rows of consecutive blocks with one network into chunks of `passes.rows` rows."""
    parts: list[tuple[Block, slice]] = []
    room = 0
    for block in probes:
        if parts and block.network is not parts[0][0].network:
            yield _Chunk(parts)
            parts = []
        start, end = 0, len(block.points) * pictures
        while start < end:
            room = room if parts else passes.rows
            stop = min(end, start + room)
            parts.append((block, slice(start, stop)))
            room -= stop - start
            start = stop
            if room == 0:
                yield _Chunk(parts)
                parts = []
    if parts:
        yield _Chunk(parts)


class _RunningTotal:
    """Running sum over blocks and, if asked for, the running variance over draws."""

    def __init__(self, x: Tensor, standard_error: bool):
        self.sum = torch.zeros_like(x, dtype=checks.accumulator(x.dtype))
        self.waiting: list[Tensor] = []  # gradients of a block that is not complete
        self.spread = standard_error
        self.draws = 0
        if standard_error:
            self.draw = torch.zeros_like(self.sum)
            self.mean = torch.zeros_like(self.sum)
            self.squares = torch.zeros_like(self.sum)

    def add(self, chunk: _Chunk, gradients: Tensor) -> None:
        """Take the gradients of a chunk; the blocks that it completes are weighed and added."""
        start = 0
        for block, rows in chunk.parts:
            stop = start + rows.stop - rows.start
            self.waiting.append(gradients[start:stop])
            start = stop
            if rows.stop == block.points.shape[0] * self.sum.shape[0]:
                whole = torch.cat(self.waiting) if len(self.waiting) > 1 else self.waiting[0]
                self.waiting.clear()
                self._add_block(block, whole)

    def _add_block(self, block: Block, gradients: Tensor) -> None:
        probes = block.points.shape[0]
        gradients = gradients.to(self.sum.dtype).view(probes, *self.sum.shape)  # (K, B, ...)
        if probes == 1 and not (self.spread or isinstance(block.shares, Tensor)):
            self._add_probe(block, gradients)
            return
        values = gradients * block.shares
        if block.weights is not None:
            values *= block.weights
        whole = values.sum(0) if probes > 1 else values[0]  # (B, ...)
        self.sum += whole
        if self.spread and block.draws == probes > 1:
            self._end_draws(values)
        elif self.spread:
            self.draw += whole
            if block.draws:
                self._end_draws(self.draw[None])
                self.draw.zero_()

    def _add_probe(self, block: Block, gradient: Tensor) -> None:
        """One probe, in one operation: large pictures wait for memory."""
        total = self.sum[None]
        if block.weights is None:
            total.add_(gradient, alpha=block.shares)
        else:
            total.addcmul_(gradient, block.weights.to(total.dtype), value=block.shares)

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
