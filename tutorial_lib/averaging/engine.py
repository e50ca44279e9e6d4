"""The one hot loop: every averaging method of the book is a weighted average of gradients.

    A(x) = sum over probes k of  share_k * weight_k * grad f_k(point_k)

`probes.py` says where to look and how to weigh. This file does the rest: it packs the probe points
of all pictures into forward passes of at most `batch_size` rows, and it adds up their gradients.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from tutorial_lib import checks
from tutorial_lib.fast.passes import Passes
from tutorial_lib.fast.precision_modes import precision_for


class Block(NamedTuple):
    """K probe points for every picture of the batch, with their weights.

    Args:
        points: The points z, (K, B, ...).
        weights: w(x, z), broadcastable to the points, or None for 1.
        shares: The part of the average that each probe has, a number or (K, 1, ...). All shares of
            all blocks sum to 1.
        draws: Number of independent draws that are complete after this block. It is K if every
            probe is a draw of its own (SmoothGrad), and K / 2 if two neighbours are one (antithetic
            pairs). If a draw spans several blocks (a path of Integrated Gradients), it is 1 for the
            last block and 0 for the others. Only the standard error needs it.
        network: Function from the model to the f_k whose gradient is taken, or None for the model
            itself.

    Example:
        The gradient of the cube at 2, averaged over the points 1 and 3, is (3 + 27) / 2:

        >>> def both_sides(x):
        ...     block = tl.engine.Block(torch.stack([x - 1, x + 1]), shares=1 / 2, draws=2)
        ...     return tl.engine.Probes(2, lambda: iter([block]))
        >>> tl.engine.average(lambda z: z**3, torch.tensor([[2.0]]), 0, both_sides)
        tensor([[15.]])
    """

    points: Tensor
    weights: Tensor | None = None
    shares: float | Tensor = 1.0
    draws: int = 1
    network: Callable[[Callable], Callable] | None = None


@dataclass(frozen=True)
class Probes:
    """All probes of a method, in blocks; each iteration starts afresh and gives the same blocks.

    Args:
        count: Number of probes for each picture.
        make: Function without arguments that returns a new iterator over the blocks.

    Example:
        >>> probes = tl.probes.gaussian(x, sigma=0.2, samples=50)
        >>> probes.count
        50
        >>> sum(len(block.points) for block in probes)
        50
    """

    count: int
    make: Callable[[], Iterator[Block]]

    def __iter__(self) -> Iterator[Block]:
        return self.make()

    def points(self) -> Tensor:
        """Return all points at once, to look at them where there is memory for all.

        Returns:
            (count, B, ...) points.

        Example:
            >>> tl.probes.gaussian(x, sigma=0.2, samples=50).points().shape
            torch.Size([50, 2, 3, 16, 16])
        """
        return torch.cat([block.points for block in self])


def gradients(model: Callable, points: Tensor, target: Tensor) -> Tensor:
    """Compute the gradient of each row's target score with respect to that row.

        G(z) = d f_target(z) / d z

    It takes one forward and one backward pass: the rows are independent, so the gradient of the
    summed scores holds every row's own gradient.

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent.
        points: (N, ...) floating-point inputs.
        target: LongTensor (N,), one class index for each row.

    Returns:
        (N, ...) gradients, in units of the score per unit of input.

    Raises:
        TypeError: The model does not return a tensor.
        ValueError: The output of the model is not (N, C), has no class `target`, or does not
            depend on the input.

    Example:
        >>> z = torch.tensor([[1.0, 3.0], [2.0, 5.0]])
        >>> tl.engine.gradients(lambda z: z**2, z, torch.tensor([1, 0]))
        tensor([[0., 6.],
                [4., 0.]])
    """
    with torch.inference_mode(False), torch.enable_grad():
        # Autograd takes no inference tensor, and only a copy of one is an ordinary tensor.
        points = points.clone() if points.is_inference() else points.detach()
        points.requires_grad_()
        # A copy, as the model may write into its input, which a leaf of the graph forbids.
        scores = checks.scores(model(points.clone()), points, target)
        return checks.gradient(gradient_at(points, scores, target))


def target_scores(model: Callable, points: Tensor, target: Tensor) -> Tensor:
    """Compute each row's target score.

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent.
        points: (N, ...) inputs.
        target: LongTensor (N,), one class index for each row.

    Returns:
        (N,) scores, in the dtype of the model.

    Raises:
        TypeError: The model does not return a tensor.
        ValueError: The output of the model is not (N, C), or has no class `target`.

    Example:
        >>> z = torch.tensor([[1.0, 3.0], [2.0, 5.0]])
        >>> tl.engine.target_scores(lambda z: z**2, z, torch.tensor([1, 0]))
        tensor([9., 4.])
    """
    # A copy, as the model may write into its input.
    scores = checks.scores(model(points.clone()), points, target)
    return scores.gather(1, target.to(scores.device)[:, None])[:, 0]


def gradient_at(place: Tensor, scores: Tensor, target: Tensor) -> Tensor | None:
    """Compute the gradient of each row's target score with respect to a tensor that leads to it.

    Args:
        place: (N, ...) tensor of the graph of the scores: the input, or the output of a layer.
        scores: (N, C) scores, computed with gradients enabled.
        target: LongTensor (N,), one class index for each row.

    Returns:
        Gradients of the shape of `place`, or None where the scores do not depend on it.

    Example:
        >>> z = torch.tensor([[1.0, 3.0]], requires_grad=True)
        >>> hidden = 2 * z
        >>> tl.engine.gradient_at(hidden, hidden**2, torch.tensor([1]))
        tensor([[ 0., 12.]])
    """
    if not scores.requires_grad:
        return None
    target = target.to(scores.device, non_blocking=True)
    # d sum of f_target / d f: 1 at the target, but NaN where the score itself is not finite, as a
    # score of NaN may have a finite gradient.
    ones = 1 + 0 * scores.detach().gather(1, target[:, None])
    chosen = torch.zeros_like(scores).scatter_(1, target[:, None], ones)
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
) -> Tensor | Any:  # a pair with a standard error, which a caller knows and a type checker not
    """Compute a weighted average of gradients, which is what every averaging method is.

        A(x) = sum_k share_k * weight_k * gradient_of(point_k)

    The sum runs block by block, in float32 or better, whatever the precision of the passes is. So
    the result does not depend on `batch_size`, beyond what the backend's own kernels do, and the
    same call gives the same bits each time. Memory grows with `batch_size` only.

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
        x: (B, ...) finite floating-point inputs.
        target: Class index, or LongTensor (B,) with one for each input.
        probes: Function from x to `Probes`, for example `partial(tl.probes.gaussian, sigma=0.2)`.
        batch_size: Points in a forward pass; None chooses by the device and the size of x.
        progress: Whether to show a progress bar.
        standard_error: Whether to return the standard error of every entry of A, too. It comes
            from the spread of the independent draws, so it needs two of them at least.
        gradient_of: What is averaged: the gradient by default, else any function
            (model, points, target) that returns a tensor of the shape of the points. It is called
            with gradients disabled.
        per_picture: Tensors with a row for each picture of x. gradient_of gets them by name, each
            row beside the points of its picture.

    Returns:
        A, with the shape and the dtype of x, or the pair (A, standard error).

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, the rows of the model are not independent, its
            gradients are not finite, or a standard error is asked of one draw.

    Example:
        The gradient of a linear function does not change with noise on the input:

        >>> from functools import partial
        >>> noisy = partial(tl.probes.gaussian, sigma=0.2, samples=4)
        >>> z = torch.tensor([[1.0, 2.0]])
        >>> mean, error = tl.engine.average(lambda z: 3 * z, z, 0, noisy, standard_error=True)
        >>> mean
        tensor([[3., 0.]])
        >>> error
        tensor([[0., 0.]])
    """
    checks.model(model)
    x = checks.pictures(x)
    target = checks.target(target, x)
    per_picture = dict(per_picture or {})
    exact = gradient_of is not gradients
    passes = Passes(batch_size, x)

    def one_pass(network: Callable, points: Tensor, target: Tensor, *tensors: Tensor) -> Tensor:
        return gradient_of(network, points, target, **dict(zip(per_picture, tensors, strict=True)))

    with torch.inference_mode(False), torch.no_grad(), precision_for(x.device, exact=exact):
        findings = passes.examine(model, x)
        all_probes = probes(x)
        total = _RunningTotal(x, standard_error)
        transform: Callable[[Callable], Callable] | None = None
        network = model
        with tqdm(total=all_probes.count * len(x), unit="gradient", disable=not progress) as bar:
            for chunk in _chunks(all_probes, len(x), passes):
                new_transform = chunk.parts[0][0].network
                if new_transform is not transform:
                    transform = new_transform
                    network = transform(model) if transform else model
                points, pictures = chunk.points(), chunk.pictures(len(x))  # (N, ...), (N,)
                tensors = [tensor[pictures.to(tensor.device)] for tensor in per_picture.values()]
                call = partial(one_pass, network)
                total.add(chunk, passes.run(call, points, target[pictures], *tensors))
                bar.update(len(points))
        checks.result(total.sum.to(x.dtype))
        checks.warn_if_saturated(findings, total.sum, model, x, target)
        return total.result(x.dtype)


class _Chunk(NamedTuple):
    """The N rows of one pass. Row r of a block is probe r // B at picture r % B.

    parts: pairs (block, slice of its K * B rows), of blocks with the same network.
    """

    parts: list[tuple[Block, slice]]

    def points(self) -> Tensor:
        """Return the points of all rows, (N, ...)."""
        return torch.cat([block.points.flatten(0, 1)[rows] for block, rows in self.parts])

    def pictures(self, count: int) -> Tensor:
        """Return the index, among `count` pictures, of the picture of each row, (N,)."""
        return torch.cat([torch.arange(rows.start, rows.stop) for _, rows in self.parts]) % count


def _chunks(probes: Probes, pictures: int, passes: Passes) -> Iterator[_Chunk]:
    """Pack rows of consecutive blocks with one network into chunks of `passes.rows` rows."""
    parts: list[tuple[Block, slice]] = []
    free_rows = 0
    for block in probes:
        if parts and block.network is not parts[0][0].network:
            yield _Chunk(parts)
            parts = []
        start, end = 0, len(block.points) * pictures
        while start < end:
            # Read for each chunk, as a pass that runs out of memory makes it smaller.
            free_rows = free_rows if parts else passes.rows
            stop = min(end, start + free_rows)
            parts.append((block, slice(start, stop)))
            free_rows -= stop - start
            start = stop
            if free_rows == 0:
                yield _Chunk(parts)
                parts = []
    if parts:
        yield _Chunk(parts)


class _RunningTotal:
    """The running sum over blocks and, if asked for, the running variance over draws."""

    def __init__(self, x: Tensor, standard_error: bool):
        self.sum = torch.zeros_like(x, dtype=checks.accumulator(x.dtype))
        self.pending: list[Tensor] = []  # gradients of a block that is not complete
        self.standard_error = standard_error
        self.draws = 0  # number of complete draws
        if standard_error:
            self.draw_sum = torch.zeros_like(self.sum)  # of the draw that is not complete
            self.mean = torch.zeros_like(self.sum)  # over draws
            self.squares = torch.zeros_like(self.sum)  # squared deviations, summed over draws

    def add(self, chunk: _Chunk, gradients: Tensor) -> None:
        """Take the gradients of a chunk, (N, ...), and add every block that they complete."""
        start = 0
        for block, rows in chunk.parts:
            stop = start + rows.stop - rows.start
            self.pending.append(gradients[start:stop])
            start = stop
            if rows.stop == block.points.shape[0] * self.sum.shape[0]:
                complete = torch.cat(self.pending) if len(self.pending) > 1 else self.pending[0]
                self.pending.clear()
                self._add_block(block, complete)

    def _add_block(self, block: Block, gradients: Tensor) -> None:
        """Weigh the gradients of a complete block, (K * B, ...), and add them."""
        count = block.points.shape[0]
        gradients = gradients.to(self.sum.dtype).view(count, *self.sum.shape)  # (K, B, ...)
        if count == 1 and not (self.standard_error or isinstance(block.shares, Tensor)):
            self._add_probe(block, gradients)
            return
        terms = gradients * block.shares
        if block.weights is not None:
            terms *= block.weights
        block_sum = terms.sum(0) if count > 1 else terms[0]  # (B, ...)
        self.sum += block_sum
        if self.standard_error and block.draws > 1:
            self._end_draws(terms.unflatten(0, (block.draws, -1)).sum(1))
        elif self.standard_error:
            self.draw_sum += block_sum
            if block.draws:
                self._end_draws(self.draw_sum[None])
                self.draw_sum.zero_()

    def _add_probe(self, block: Block, gradient: Tensor) -> None:
        """Add a block of one probe in one operation: reading memory is what takes the time."""
        # Its share is a number, which the types do not say.
        total = self.sum[None]  # (1, B, ...), the same memory
        if block.weights is None:
            total.add_(gradient, alpha=block.shares)  # type: ignore[arg-type]
        else:
            weights = block.weights.to(total.dtype)
            total.addcmul_(gradient, weights, value=block.shares)  # type: ignore[arg-type]

    def _end_draws(self, draws: Tensor) -> None:
        """Merge complete draws, (K, B, ...), into mean and squares (Chan et al., 1979)."""
        n, k = self.draws, len(draws)
        self.draws = n + k
        mean = draws.mean(0)
        delta = mean - self.mean
        self.mean += delta * (k / self.draws)
        self.squares += (draws - mean).square().sum(0) + delta.square() * (n * k / self.draws)

    def result(self, dtype: torch.dtype) -> Tensor | tuple[Tensor, Tensor]:
        """Return the sum, or the pair (sum, standard error)."""
        if not self.standard_error:
            return self.sum.to(dtype)
        n = self.draws
        if n < 2:
            raise ValueError("standard_error: needs at least 2 independent draws, there was 1")
        # The sum of n draws with variance squares / (n - 1) each.
        return self.sum.to(dtype), (self.squares * n / (n - 1)).sqrt().to(dtype)
