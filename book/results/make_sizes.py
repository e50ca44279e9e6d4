"""Gradients a second over the rows of a pass, for each thing that `prepare` does to a network.

    python book/results/make_sizes.py --out book/results/sizes.csv

EfficientNet-Lite0, one picture, on this machine's CPU. A row: machine, variant, `size` (rows a
pass), and over the rounds, in which all variants and sizes take turns, the median `rate` (gradients
a second), `low` and `high`. The variants: "gradients of all" asks for the gradients of the
parameters too, as backward() does where nobody has frozen them; the others ask for the input's
alone: of the network as timm makes it ("of the input"), with "channels last", with "folded" batch
norm, with both ("both"), and with the lean layers of `prepare` on top ("lean"). "compiled" is
"both" through torch.compile, at one size; compiling and the first pass took `seconds`.
"""

import argparse
import copy
import csv
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import torch

import tutorial_lib as tl

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.rates import machine, networks, without_lean

FIELDS = ["machine", "variant", "size", "rate", "low", "high", "seconds"]
SIZES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 32)
TARGET, COUNT, COMPILED = 967, 24, 4


def of_all(network, z):
    """Forward and backward, with the parameters' gradients."""
    z.requires_grad_()
    network(z)[:, TARGET].sum().backward()
    network.zero_grad()


def of_input(network, z):
    """Forward and backward, with the input's gradient alone."""
    torch.autograd.grad(network(z.requires_grad_())[:, TARGET].sum(), z)


def variants():
    """name: (what is done, with which network)."""
    wanting, fast, _ = networks("efficientnet_lite0", "cpu")
    as_made, both = copy.deepcopy(wanting).requires_grad_(False), without_lean(fast)
    return {
        "gradients of all": (of_all, wanting),
        "of the input": (of_input, as_made),
        "channels last": (of_input, copy.deepcopy(as_made).to(memory_format=torch.channels_last)),
        "folded": (of_input, copy.deepcopy(both).to(memory_format=torch.contiguous_format)),
        "both": (of_input, both),
        "lean": (of_input, fast),
    }


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
            start = time.perf_counter()
            for _ in range(passes):
                run(z.detach().clone())
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
