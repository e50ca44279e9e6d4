"""How many rows go through the network in one pass, and what happens where memory is short."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from tutorial_lib import checks

# A pass of 4 pictures of 224 x 224 is near the best size on the CPUs that we measured
# (results/sizes.csv of tutorial_book); on a GPU 50 is a whole map, with the steps of Goh et al.
NUMBERS_PER_PASS = {"cpu": 4 * 3 * 224 * 224, "cuda": 50 * 3 * 224 * 224}
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "STATUS_ALLOC_FAILED")
# glibc gives freed memory back to the system, which then clears every page again for the next
# pass. Once a block of nearly 32 MiB has come and gone, it keeps what is smaller (M_MMAP_THRESHOLD
# in its manual). The block is never written, so it takes no memory.
torch.empty(2**25 - 2**13, dtype=torch.uint8, device="cpu")


class Passes:
    """Splits rows into passes of one size, and halves that size where a pass runs out of memory.

    The size follows from `batch_size` or, without one, from the device and the size of a picture,
    and from nothing else. So the same call makes the same passes each time.
    """

    def __init__(self, batch_size: int | None, x: Tensor):
        if batch_size is not None:
            batch_size = checks.count("batch_size", batch_size)
        numbers = NUMBERS_PER_PASS.get(x.device.type, NUMBERS_PER_PASS["cuda"])
        self.rows = batch_size or max(1, numbers // x[0].numel())

    def examine(self, model: Callable, x: Tensor) -> checks.Findings:
        """Check a model, and take all rows of x at once if it takes no other number of them."""
        findings = checks.examine(model, x)
        self.rows = len(x) if findings.fixed_rows else self.rows
        return findings

    def slices(self, count: int) -> Iterator[slice]:
        """Yield consecutive slices of range(count), each at most `rows` long."""
        start = 0
        while start < count:
            stop = min(count, start + self.rows)
            yield slice(start, stop)
            start = stop

    def run(self, call: Callable[..., Tensor], *rows: Tensor) -> Tensor:
        """Return call(*rows) for tensors of equally many rows, in halves if memory runs out."""
        count = len(rows[0])
        try:
            return call(*rows)
        except RuntimeError as error:
            if count == 1 or not any(sign in str(error) for sign in OUT_OF_MEMORY):
                raise
        # Outside of the except block, whose traceback holds the memory of the pass that failed.
        self.rows = count // 2
        parts = zip(*(tensor.split(self.rows) for tensor in rows), strict=True)
        return torch.cat([self.run(call, *part) for part in parts])
