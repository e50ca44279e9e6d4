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

from tutorial_lib import checks, lean
from tutorial_lib.chunks import Sizes
from tutorial_lib.precision import applied


class Probe(NamedTuple):
    """One probe point for every picture of the batch.

    point: z, the shape of x. weight: w(x, z), broadcastable to x, or None for 1.
    share: this probe's part of the average; all shares sum to 1.
    last: whether it ends one independent draw (the unit of the standard error).
    network: from the model to the f_k whose gradient is taken, or None for the model itself.
    """

    point: Tensor
    weight: Tensor | None = None
    share: float = 1.0
    last: bool = True
    network: Callable[[Callable], Callable] | None = None


@dataclass(frozen=True)
class Probes:
    """`count` probes a picture; iterating starts afresh and gives the same probes each time."""

    count: int
    make: Callable[[], Iterator[Probe]]

    def __iter__(self) -> Iterator[Probe]:
        return self.make()


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
    target = target.to(scores.device, non_blocking=True)
    chosen = scores.gather(1, target[:, None]).sum()
    if not chosen.requires_grad:
        return None
    return torch.autograd.grad(chosen, place, allow_unused=True)[0]


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

    The sum runs in the order of the probes, in float32 or better, so the result does not depend
    on `batch_size` beyond what the backend's own kernels do. Where those round differently in
    passes of different sizes, give a batch_size to have the same bits each time: None tries a few
    sizes on a CPU (`chunks.py`). Memory grows with `batch_size` only.
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
        with bar:
            change, network = None, model
            for chunk in _chunks(where, len(x), sizes):
                if chunk[0][0].network is not change:
                    change = chunk[0][0].network
                    network = change(model) if change else model
                points = torch.cat([_part(probe.point, rows) for probe, rows in chunk])
                labels = torch.cat([_part(target, rows) for _, rows in chunk])
                total.add(chunk, sizes.run(partial(slope, network), points, labels))
                bar.update(len(points))
        checks.result(total.sum)
        return total.result(x.dtype)


def _chunks(probes: Probes, pictures: int, sizes: Sizes) -> Iterator[list[tuple[Probe, slice]]]:
    """Pack rows of consecutive probes with one network into chunks of at most sizes.next() rows.

    A chunk is a list of (probe, rows).
    """
    chunk, room = [], sizes.next()
    for probe in probes:
        if chunk and probe.network is not chunk[0][0].network:
            yield chunk
            chunk, room = [], sizes.next()
        start = 0
        while start < pictures:
            stop = min(pictures, start + room)
            chunk.append((probe, slice(start, stop)))
            room -= stop - start
            start = stop
            if room == 0:
                yield chunk
                chunk, room = [], sizes.next()
    if chunk:
        yield chunk


def _part(values: Tensor, rows: slice) -> Tensor:
    """The rows of a tensor, or itself where they are all."""
    return values if rows.stop - rows.start == values.shape[0] else values[rows]


class _Total:
    """Running sum over probes and, if asked for, Welford's running variance over draws."""

    def __init__(self, x: Tensor, standard_error: bool):
        wide = accumulator(x.dtype)
        self.sum = torch.zeros_like(x, dtype=wide)
        self.column = [-1] + [1] * (x.ndim - 1)
        self.spread = standard_error
        if standard_error:
            self.draw, self.mean, self.squares = (torch.zeros_like(self.sum) for _ in range(3))
            self.draws = torch.zeros(len(x), *self.column[1:], dtype=wide, device=x.device)

    def add(self, chunk: list[tuple[Probe, slice]], slopes: Tensor) -> None:
        """Weigh the slopes of a chunk, all at once, and add them up, one probe after the other."""
        sizes = [rows.stop - rows.start for _, rows in chunk]
        values = slopes.to(self.sum.dtype) * self._shares(chunk, sizes)
        if any(probe.weight is not None for probe, _ in chunk):
            values *= torch.cat([self._weights(probe, rows) for probe, rows in chunk])
        for (probe, rows), value in zip(chunk, values.split(sizes), strict=True):
            _part(self.sum, rows).add_(value)
            if self.spread:
                self.draw[rows] += value
                if probe.last:
                    self._end_draw(rows)

    def _shares(self, chunk: list[tuple[Probe, slice]], sizes: list[int]) -> float | Tensor:
        """Every row's share, (N, 1, ...), or the one that all have."""
        shares = [probe.share for probe, _ in chunk]
        if len(set(shares)) == 1:
            return shares[0]
        rows = [share for share, size in zip(shares, sizes, strict=True) for _ in range(size)]
        each = torch.tensor(rows, dtype=self.sum.dtype).view(self.column)
        return each.to(self.sum.device, non_blocking=True)

    def _weights(self, probe: Probe, rows: slice) -> Tensor:
        weight = torch.ones(()).to(self.sum) if probe.weight is None else probe.weight
        return _part(weight.expand_as(self.sum), rows)

    def _end_draw(self, rows: slice) -> None:
        draw, mean = self.draw[rows], self.mean[rows]
        self.draws[rows] += 1
        delta = draw - mean
        mean += delta / self.draws[rows]
        self.squares[rows] += delta * (draw - mean)
        draw.zero_()

    def result(self, dtype: torch.dtype) -> Tensor | tuple[Tensor, Tensor]:
        if not self.spread:
            return self.sum.to(dtype)
        n = float(self.draws.flatten()[0])
        if n < 2:
            raise ValueError("standard_error: needs at least 2 independent draws, there was 1")
        # The sum of n draws with variance squares / (n - 1) each.
        return self.sum.to(dtype), (self.squares * n / (n - 1)).sqrt().to(dtype)


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums and noise: float64 stays, everything narrower uses float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32
