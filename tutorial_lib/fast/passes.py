"""How many rows go through the network in one pass.

On a CPU a few sizes are tried on the first passes, which have to be made anyway, and the smallest
that is about as fast as the fastest is kept for this network and shape. On a GPU the free memory
decides. A pass that runs out of memory is made again in halves.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from tutorial_lib import checks, convolve, lean, memory, packed
from tutorial_lib.precision import CHOSEN, applied

PASSES = 2  # of each size that is tried; the quicker counts, as the first one warms up
ABOUT = 1.02  # as fast as the fastest; fewer rows take less memory
LARGEST = 64  # beyond so many rows of few numbers each, the size of a pass matters little
GPU_SHARE = 0.4  # of the free memory for what the backward pass keeps; as much again is worked in

_tried: WeakKeyDictionary[Callable, dict[tuple, "Trial"]] = WeakKeyDictionary()
_held: WeakKeyDictionary[Callable, dict[tuple, int]] = WeakKeyDictionary()


class Sizes:
    """The sizes of the passes of one call.

    given: the caller's batch_size, or None. kind: "gradients" or "scores" are measured on a CPU;
    anything else follows the size of a picture alone.
    """

    def __init__(self, given: int | None, model: Callable, x: Tensor, kind: str | None = None):
        self.most = checks.batch_size(given, x)
        self.trial = None
        if given is None and kind and x.device.type == "cpu" and self.most <= LARGEST:
            key = kind, x.shape[1:], x.dtype, CHOSEN.get(), torch.get_num_threads()
            self.trial = _remembered(_tried, model, key, lambda: Trial(self.most))
            self.most = max([self.trial.guess, *self.trial.times])
        if given is None and x.device.type == "cuda":
            self.most = fitting(self.most, _free_memory(x.device), held(model, x))

    def next(self, left: int) -> int:
        """Rows of the next pass, at most, where so many are left."""
        return min(self.most, self.trial.size(left)) if self.trial else self.most

    def of(self, count: int) -> Iterator[slice]:
        """Slices of range(count), each as long as the next pass."""
        start = 0
        while start < count:
            rows = slice(start, min(count, start + self.next(count - start)))
            yield rows
            start = rows.stop

    def run(self, call: Callable, points: Tensor, labels: Tensor) -> Tensor:
        """One pass, call(points, labels), by halves where the memory does not suffice."""
        start = time.perf_counter()
        try:
            out = call(points, labels)
        except RuntimeError as error:
            if len(points) == 1 or not _out_of_memory(error):
                raise
        else:
            if self.trial:
                self.trial.note(len(points), time.perf_counter() - start)
            convolve.passed()
            return out
        if self.trial:
            self.trial.forget(len(points))
        self.most = len(points) // 2
        halves = zip(points.split(self.most), labels.split(self.most), strict=True)
        return torch.cat([self.run(call, *half) for half in halves])


@contextlib.contextmanager
def forward(device: torch.device, rows: int) -> Iterator[None]:
    """Inside, passes give scores and no gradients, `rows` in all, in the chosen precision."""
    with torch.no_grad(), applied(device), memory.kept(device), packed.kept(rows), lean.layers():
        yield


class Trial:
    """The times of a few sizes around a first guess."""

    def __init__(self, guess: int):
        self.guess = guess
        sizes = (guess * k // 4 for k in (10, 8, 6, 4, 3, 2))
        self.times: dict[int, list[float]] = {size: [] for size in sizes if size}

    def size(self, left: int) -> int:
        """A size that is not measured yet, the largest first, or else about the fastest.

        Sizes below the guess are tried only if none above is better. In the end the rows that are
        left go into passes of one size, and not the last few into a slow short one.
        """
        for size, times in self.times.items():
            if len(times) < PASSES and (size >= self.guess or self.best() <= self.guess):
                return size
        passes = max(1, -(-left // self.best()))
        return max(1, -(-left // passes))

    def note(self, rows: int, seconds: float) -> None:
        """A pass of `rows` rows took so long."""
        if rows in self.times and len(self.times[rows]) < PASSES:
            self.times[rows].append(seconds / rows)

    def forget(self, rows: int) -> None:
        """So many rows are too many."""
        self.times = {size: times for size, times in self.times.items() if size < rows}
        self.guess = min(self.guess, max(1, rows // 2))

    def best(self) -> int:
        """The smallest of the sizes measured that are about as fast as the fastest."""
        known = {size: min(times) for size, times in self.times.items() if times}
        limit = ABOUT * min(known.values(), default=0)
        return min((size for size in known if known[size] <= limit), default=self.guess)


def fitting(most: int, free: int, row: int) -> int:
    """Rows, `most` at most, that fit into `free` bytes where each keeps `row` bytes."""
    return max(1, min(most, int(free * GPU_SHARE) // row))


def held(model: Callable, x: Tensor) -> int:
    """Bytes that one row keeps for the backward pass: those of all tensors that it saves."""

    def measured(rows: int) -> int:
        blocks = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            blocks[storage.data_ptr()] = storage.nbytes()
            return tensor.detach()  # the tensor itself would hold the graph that holds it

        with torch.inference_mode(False), torch.enable_grad(), applied(x.device):
            row = x[:1].detach().repeat(rows, *[1] * (x.ndim - 1)).requires_grad_()
            with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
                scores = checks.scores(model(row * 1), row, torch.zeros(rows, dtype=torch.long))
        return sum(blocks.values()) + row.nbytes + scores.nbytes

    def measure() -> int:
        return max(1, measured(2) - measured(1))  # without what is kept once, such as weights

    return _remembered(_held, model, (x.shape[1:], x.dtype, CHOSEN.get()), measure)


def _remembered(store: WeakKeyDictionary, model: Callable, key: tuple, make: Callable) -> object:
    try:
        known = store.setdefault(model, {})
    except TypeError:  # a callable that cannot be referred to weakly, or not hashed
        return make()
    if key not in known:
        known[key] = make()
    return known[key]


def _free_memory(device: torch.device) -> int:
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def _out_of_memory(error: RuntimeError) -> bool:
    signs = "out of memory", "can't allocate memory", "STATUS_ALLOC_FAILED"
    return any(sign in str(error) for sign in signs)
