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
    """Run the network's products of every method and metric in this precision, inside a with.

    The precision applies to the network's matrix products and convolutions. Weights, noise and sums
    of gradients stay in the dtypes that they have; float64 networks are left alone, and so is an
    autocast of your own. DeepLIFT, LRP and guided backpropagation, whose rules compare numbers with
    0 and with one another, occlusion, which subtracts scores that may be near one another, and
    methods of your own that are smoothed, run in float32. The choice belongs to the thread; a new
    thread starts with float32.

    Args:
        name: One of three precisions. "float32" computes with all 24 bits; it is the default, on a
            GPU as well, where PyTorch's own default rounds the factors of a convolution to TF32.
            "tf32" rounds the factors of matrix products and convolutions to 11 bits and sums in
            float32; it needs an NVIDIA GPU from compute capability 8.0 on. "bfloat16" computes
            products, and what is stored between the layers, in 8 bits (torch.autocast); it is
            quick where the processor has bfloat16 units.

    Returns:
        Context manager; after it the precision is what it was before.

    Raises:
        ValueError: name is another name, or a method is called inside on a device that does not
            have the precision.

    Example:
        One third, with 24 and with 8 bits:

        >>> third = nn.Linear(1, 1).eval()
        >>> _ = nn.init.constant_(third.weight, 1 / 3)
        >>> tl.gradient(third, torch.ones(1, 1), 0)
        tensor([[0.3333]])
        >>> with tl.precision("bfloat16"):
        ...     tl.gradient(third, torch.ones(1, 1), 0)
        tensor([[0.3340]])
    """
    checks.choice("precision", name, PRECISIONS)
    before = CHOSEN.set(name)
    try:
        yield
    finally:
        CHOSEN.reset(before)


@contextlib.contextmanager
def precision_for(device: torch.device, *, exact: bool = False) -> Iterator[None]:
    """Set the chosen precision, or float32 where `exact`, for passes on this device."""
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
    """Switch TF32 on or off for matrix products and convolutions, and afterwards to what it was.

    The switches belong to the process, so threads on a GPU wait for one another.
    """
    with _SWITCHES:
        yield from _switched(wanted)


def _switched(wanted: bool) -> Iterator[None]:
    """Set the switches of this version of PyTorch, yield, and set them to their old values."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    name, value, switches = "allow_tf32", wanted, (matmul, cudnn)
    try:
        old_values = [getattr(switch, name) for switch in switches]
        medium = torch.get_float32_matmul_precision() == "medium"  # which allow_tf32 forgets
    except RuntimeError:  # somebody has set the finer switches of PyTorch 2.9
        name, value = "fp32_precision", "tf32" if wanted else "ieee"
        switches, medium = (matmul, cudnn.conv, cudnn.rnn), False
        old_values = [getattr(switch, name) for switch in switches]
    try:
        for switch in switches:
            setattr(switch, name, value)
        yield
    finally:
        for switch, old in zip(switches, old_values, strict=True):
            setattr(switch, name, old)
        if medium:
            torch.set_float32_matmul_precision("medium")


def _check_tf32(device: torch.device) -> None:
    """Raise ValueError for a device without TF32."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
        raise ValueError(
            "precision: 'tf32' needs an NVIDIA GPU of compute capability 8.0 or more, the model's "
            f"input is on {device}; 'float32' runs everywhere"
        )
