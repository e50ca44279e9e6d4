"""Gradients a second over the rows of a pass, for each thing that `prepare` does to a network.

    python book/results/make_sizes.py --out book/results/sizes.csv

EfficientNet-Lite0, one picture, on this machine's CPU. A row: machine, variant, `size` (rows a
pass), and over the rounds, in which all variants and sizes take turns, the median `rate` (gradients
a second), `low` and `high`. The variants: "gradients of all" asks for the gradients of the
parameters too, as backward() does where nobody has frozen them; the others ask for the input's
alone: of the network as timm makes it ("of the input"), with "channels last", with "folded" batch
norm, with both ("both"), with the lean layers of `prepare` on top ("lean"), where memory is kept
from one pass to the next as well ("memory kept"), and with packed weights too ("weights packed");
the last two after two passes. "compiled" is "both" through torch.compile, at one size; compiling
and the first pass took `seconds`.
"""

import argparse
import contextlib
import copy
import csv
import ctypes
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import torch
from tutorial_lib.prepare import _channels_last, _fold_norms

import tutorial_lib as tl
from tutorial_lib import convolve, lean, memory, packed

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.benchmarks.rates import machine

FIELDS = ["machine", "variant", "size", "rate", "low", "high", "seconds"]
SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 32)
TARGET, COUNT, COMPILED = 967, 24, 4
KEPT, PACKED = "memory kept", "weights packed"


def of_all(network, z):
    """Forward and backward, with the parameters' gradients."""
    z.requires_grad_()
    network(z)[:, TARGET].sum().backward()
    network.zero_grad()


def of_input(network, z):
    """Forward and backward, with the input's gradient alone."""
    torch.autograd.grad(network(z.requires_grad_())[:, TARGET].sum(), z)


def of_lean(network, z):
    """The same where lean layers are on."""
    with lean.layers():
        of_input(network, z)


def variants():
    """name: (what is done, with which network)."""
    as_made = tl.models._lite("efficientnet_lite0").network.eval()
    wanting = copy.deepcopy(as_made).requires_grad_(True)
    fast = tl.load_model("efficientnet_lite0", device="cpu").network
    both = copy.deepcopy(as_made)  # without lean layers, which torch.compile might stumble over
    _fold_norms(both, torch.zeros(1, 3, 224, 224))
    _channels_last(both)
    folded = copy.deepcopy(both).to(memory_format=torch.contiguous_format)
    last = copy.deepcopy(as_made).to(memory_format=torch.channels_last)
    return {
        "gradients of all": (of_all, wanting),
        "of the input": (of_input, as_made),
        "channels last": (of_input, last),
        "folded": (of_input, folded),
        "both": (of_input, both),
        "lean": (of_lean, fast),
        KEPT: (of_lean, fast),
        PACKED: (of_lean, fast),
    }


def forget():
    """The memory that was kept is given back, and glibc's settings are what it comes to itself."""
    if setting := memory._setting():
        setting(memory.TRIM_THRESHOLD, 2 * memory.LARGE)
        ctypes.CDLL(None).malloc_trim(0)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--no-compile", action="store_true", help="where there is no C++ compiler")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    x = tl.load_model("efficientnet_lite0", device="cpu").preprocess(tl.load_image("coffee"))
    found = variants()
    runs = {(name, size): partial(*found[name]) for name in found for size in SIZES}
    compiling = ""
    if not options.no_compile:
        runs["compiled", COMPILED] = partial(of_input, torch.compile(found["both"][1]))
        start = time.perf_counter()
        runs["compiled", COMPILED](x.repeat(COMPILED, 1, 1, 1))
        compiling = f"{time.perf_counter() - start:.0f}"
    rates = {key: [] for key in runs}
    for turn in range(options.rounds + 1):  # the first one warms up
        for key, run in runs.items():
            z, passes = x.repeat(key[1], 1, 1, 1), max(1, COUNT // key[1])
            with contextlib.ExitStack() as stack:
                if key[0] in (KEPT, PACKED):
                    stack.callback(forget)
                    stack.enter_context(memory.kept(x.device))
                    if key[0] == PACKED:
                        stack.enter_context(packed.kept())
                    for _ in range(2):  # weights are packed between the two
                        run(z.detach())
                        convolve.passed()
                start = time.perf_counter()
                for _ in range(passes):
                    run(z.detach())
                if turn:
                    rates[key].append(passes * key[1] / (time.perf_counter() - start))
    with options.out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(FIELDS)
        for (name, size), values in rates.items():
            three = statistics.median(values), min(values), max(values)
            last = compiling if name == "compiled" else ""
            writer.writerow([machine("cpu"), name, size, *[f"{v:.3g}" for v in three], last])


if __name__ == "__main__":
    main()
