"""How exactly the passes through the network are computed: an explicit choice."""

import contextlib
import threading
from collections.abc import Iterator
from contextvars import ContextVar

import torch

from tutorial_lib import checks

PRECISIONS = ("float32", "tf32", "bfloat16")
CHOSEN = ContextVar("precision", default="float32")
_SWITCHES = threading.RLock()  # TF32 is switched for the process: one thread at a time


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Inside, every method and metric runs the network's products in this precision.

    "float32": all 24 bits (the default, on a GPU as well, where PyTorch's own default rounds the
        factors of a convolution to TF32).
    "tf32": factors of matrix products and convolutions rounded to 11 bits, sums in float32;
        NVIDIA GPUs from compute capability 8.0 on.
    "bfloat16": products, and what is stored between the layers, in 8 bits (torch.autocast); quick
        where the processor has bfloat16 units.

    Weights, noise and sums of gradients stay in the dtypes that they have; float64 networks are
    left alone, and so is an autocast of your own. DeepLIFT, LRP and guided backpropagation, whose
    rules compare numbers with 0 and with one another, and methods of your own that are smoothed,
    run in float32. The choice belongs to the thread; a new thread starts with float32. Raises
    ValueError for another name, and when a method is called on a device that has no such precision.

    >>> with tl.precision("bfloat16"):
    ...     tl.smoothgrad(model, x, 285, sigma=0.2)
    """
    checks.choice("precision", name, PRECISIONS)
    before = CHOSEN.set(name)
    try:
        yield
    finally:
        CHOSEN.reset(before)


@contextlib.contextmanager
def precision_for(device: torch.device, *, exact: bool = False) -> Iterator[None]:
    """The chosen precision, or float32 where `exact`, for passes on this device."""
    name = "float32" if exact else CHOSEN.get()
    if name == "tf32":
        _check_tf32(device)
    with contextlib.ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(_tf32(name == "tf32"))
        if name == "bfloat16":
            stack.enter_context(torch.autocast(device.type, dtype=torch.bfloat16))
        yield


@contextlib.contextmanager
def _tf32(wanted: bool) -> Iterator[None]:
    """Switch TF32 on or off for matrix products and convolutions, and then back.

    The switches belong to the process, so threads on a GPU wait for one another.
    """
    with _SWITCHES:
        yield from _switched(wanted)


def _switched(wanted: bool) -> Iterator[None]:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    name, value, switches = "allow_tf32", wanted, (matmul, cudnn)
    try:
        before = [getattr(switch, name) for switch in switches]
        medium = torch.get_float32_matmul_precision() == "medium"  # which allow_tf32 forgets
    except RuntimeError:  # somebody has set the finer switches of PyTorch 2.9
        name, value = "fp32_precision", "tf32" if wanted else "ieee"
        switches, medium = (matmul, cudnn.conv, cudnn.rnn), False
        before = [getattr(switch, name) for switch in switches]
    try:
        for switch in switches:
            setattr(switch, name, value)
        yield
    finally:
        for switch, old in zip(switches, before, strict=True):
            setattr(switch, name, old)
        if medium:
            torch.set_float32_matmul_precision("medium")


def _check_tf32(device: torch.device) -> None:
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
        raise ValueError(
            "precision: 'tf32' needs an NVIDIA GPU of compute capability 8.0 or more, the model's "
            f"input is on {device}; 'float32' runs everywhere"
        )
