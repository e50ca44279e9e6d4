"""Occlusion: cover a window of the input and see by how much the score falls.

It is an average like that of every method in `averaging/`: the probe points are x with one window
covered each, and in the place of the gradient stands the fall of the score.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from numbers import Integral

import torch
from torch import Tensor

from tutorial_lib import checks
from tutorial_lib.averaging import probes
from tutorial_lib.averaging.engine import Block, Probes, average, target_scores
from tutorial_lib.fast.passes import Passes
from tutorial_lib.fast.precision_modes import precision_for


def occlusion(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    window: int | tuple[int, ...],
    stride: int | tuple[int, ...] | None = None,
    baseline: float | Tensor = 0.0,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Average the falls of the score over the windows that cover an entry.

        A_i(x) = mean over the windows W with i in W of [ f(x) - f(x with b in W) ]

    Zeiler and Fergus (2014) cover a picture with a grey square and draw the score for
    each of its places; the fall, spread over the entries of the window and averaged, is captum's
    definition. Windows begin at 0, s, 2 s, ... in each dimension, up to the first that reaches the
    end, where it is cut off: it covers fewer entries, and its fall counts in full. The entries of A
    add up to nothing in particular.

    captum has windows and averages like these. There the stride is 1 where it is left out, a
    window has a size for every dimension, and the average is in float32 whatever the model is.

    It takes one forward pass for each window and one more.

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
        x: (B, ...) finite floating-point inputs.
        target: Class index, or LongTensor (B,) with one for each input.
        window: Sizes of the window. A tuple is for the last dimensions of x, and the window covers
            those before it whole: (8, 8) of pictures (B, C, H, W) is (C, 8, 8). A number stands for
            each dimension behind the channels, or for that of vectors (B, N).
        stride: s, at most the window's size: a number for every dimension, or a tuple for the last
            ones. None is the window's size, so that windows lie side by side.
        baseline: b, what covers, in the units of x: a number or a tensor broadcastable to x.
        batch_size: Points in a forward pass; None chooses by the device and the size of x.
        seed: It changes nothing, as no noise is drawn; every method takes it.
        progress: Whether to show a progress bar.

    Returns:
        (B, ...) attributions in units of the score, alike for all entries that the same windows
        cover, such as the channels of a pixel.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, the window is larger than x, the stride is
            larger than the window, the rows of the model are not independent, or its scores are not
            finite.

    Example:
        f is the sum of the squares, and windows of two entries overlap in the middle:

        >>> z = torch.tensor([[1.0, 2.0, 3.0]])
        >>> squares = tl.scores(lambda z: (z**2).sum(1))
        >>> tl.occlusion(squares, z, 0, window=2, stride=1)
        tensor([[ 5.,  9., 13.]])
        >>> tl.occlusion(model, x, 3, window=(4, 4)).shape
        torch.Size([2, 3, 16, 16])
    """
    checks.model(model)
    checks.seed(seed)
    windows = partial(covered, window=window, stride=stride, baseline=baseline)
    x, target = checks.pictures(x), checks.target(target, x)
    windows(x)  # what does not fit is said before the model runs
    passes = Passes(batch_size, x)
    with torch.inference_mode(False), torch.no_grad(), precision_for(x.device, exact=True):
        passes.examine(model, x)
        call = partial(_score, model)
        before = [passes.run(call, x[s], target[s]) for s in passes.slices(len(x))]
    options = dict(batch_size=batch_size, progress=progress)
    given = dict(gradient_of=_fall, per_picture=dict(before=torch.cat(before)))
    return average(model, x, target, windows, **given, **options)


def covered(
    x: Tensor,
    *,
    window: int | tuple[int, ...],
    stride: int | tuple[int, ...] | None = None,
    baseline: float | Tensor = 0.0,
) -> Probes:
    """Look at x with one window covered, and weigh by 1 / windows over an entry inside, else by 0.

    Args:
        x: (B, ...) inputs.
        window: Sizes of the window, as in `tl.occlusion`.
        stride: s, as in `tl.occlusion`.
        baseline: b, what covers: a number or a tensor broadcastable to x.

    Returns:
        `Probes` with one probe for each window. They are no draws.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit; the message begins with the argument's name.

    Example:
        >>> from tutorial_lib.cam.covered_windows import covered
        >>> covered(torch.tensor([[1.0, 2.0, 3.0]]), window=2, stride=1).points()
        tensor([[[0., 0., 3.]],
                [[1., 0., 0.]]])
    """
    b, shape = checks.broadcastable("baseline", baseline, x), x.shape[1:]
    sizes, steps = _sizes_and_steps(window, stride, shape)
    # The last window of a dimension is the first that reaches its end.
    starts = [range(0, n - size + s, s) for n, size, s in zip(shape, sizes, steps, strict=True)]
    boxes = [
        tuple(slice(a, a + n) for a, n in zip(corner, sizes, strict=True))
        for corner in product(*starts)
    ]
    count = torch.zeros(shape, dtype=checks.accumulator(x.dtype), device=x.device)
    for box in boxes:
        count[box] += 1

    def make() -> Iterator[Block]:
        for rows in probes.slices(len(boxes), x):
            inside = torch.zeros(rows.stop - rows.start, 1, *shape, dtype=torch.bool)  # (K, 1, ...)
            for one, box in zip(inside[:, 0], boxes[rows], strict=True):
                one[box] = True
            inside = inside.to(x.device)
            yield Block(torch.where(inside, b, x), inside / count)

    return Probes(len(boxes), make)


def _sizes_and_steps(window: object, stride: object, shape: torch.Size) -> tuple[tuple, tuple]:
    """Return the window's size and its stride in each dimension of one input."""
    d, shape = len(shape), tuple(shape)
    last = _for_last("window", window, max(d - 1, 1), d)  # a number covers channels whole
    sizes = shape[: d - len(last)] + last
    last = sizes if stride is None else _for_last("stride", stride, d, d)
    steps = sizes[: d - len(last)] + last
    if any(size > n for size, n in zip(sizes, shape, strict=True)):
        raise ValueError(f"window: expected at most the sizes of an input, {shape}, got {sizes}")
    if any(s > size < n for s, size, n in zip(steps, sizes, shape, strict=True)):
        raise ValueError(
            f"stride: expected at most the window's sizes, {sizes}, got {steps}, which leaves out "
            "entries between windows; stride=None lays them side by side"
        )
    return sizes, steps


def _for_last(name: str, value: object, repeats: int, most: int) -> tuple[int, ...]:
    """Return whole numbers for the last dimensions: `most` or fewer of a tuple, or one repeated."""
    if isinstance(value, Integral):
        value = (value,) * repeats
    if not isinstance(value, tuple | list):
        raise TypeError(f"{name}: expected an int or a tuple of them, got {value!r}")
    if not 0 < len(value) <= most:
        raise ValueError(
            f"{name}: expected an int or a tuple of 1 to {most}, for the last dimensions of an "
            f"input, got {len(value)} of them"
        )
    return tuple(checks.count(name, number) for number in value)


def _score(model: Callable, points: Tensor, target: Tensor) -> Tensor:
    """Return the target's score of each row at each of its entries, (N, ...)."""
    scores = target_scores(model, points, target)
    return scores.view(-1, *[1] * (points.ndim - 1)).expand_as(points)


def _fall(model: Callable, points: Tensor, target: Tensor, before: Tensor) -> Tensor:
    """Return by how much the score has fallen from `before`, f(x), at each entry: (N, ...)."""
    return before - _score(model, points, target)
