"""Gradients a second over the rows of a pass, for each thing that `prepare` does to a network.

    python make_sizes.py --out sizes.csv

EfficientNet-Lite0, one picture, on this machine's CPU. A row: machine, variant, `size` (rows a
pass), the median `rate` (gradients a second) over the rounds, in which all variants and sizes take
turns, `low`, `high`, and the `rates` of all rounds. The variants: "gradients of all" asks for the
gradients of the parameters too, as backward() does where nobody has frozen them; the others ask for
the input's alone: of the network as timm makes it ("of the input"), with "channels last", with
"folded" batch norm, with both ("both"), and with the lean layers of `prepare` on top ("lean").
"compiled" is "both" through torch.compile, at one size. The table is stored after each rate, and a
run that was interrupted goes on where it was: delete the table after a change of the script.
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
from tqdm import tqdm

import tutorial_lib as tl

sys.path.insert(0, str(Path(__file__).parents[3]))
from benchmarks.rates import machine, networks, without_lean

FIELDS = ["machine", "variant", "size", "rate", "low", "high", "rates"]
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


def stored(path):
    """(variant, size): the rates that a table has."""
    if not path.exists():
        return {}
    rows = csv.DictReader(path.open())
    return {(r["variant"], int(r["size"])): [*map(float, r["rates"].split())] for r in rows}


def store(path, rates):
    """Write the table; what was there stays until all of it is written."""
    part = path.with_suffix(".part")
    with part.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(FIELDS)
        for (name, size), values in rates.items():
            three = statistics.median(values), min(values), max(values)
            every = " ".join(f"{value:.3g}" for value in values)
            writer.writerow([machine("cpu"), name, size, *[f"{v:.3g}" for v in three], every])
    part.replace(path)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-compile", action="store_true", help="where there is no C++ compiler")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    x = tl.load_model("efficientnet_lite0", device="cpu").preprocess(tl.load_image("coffee"))
    found = variants()
    runs = {(name, size): partial(*found[name]) for name in found for size in SIZES}
    if not options.no_compile:
        runs["compiled", COMPILED] = partial(of_input, torch.compile(found["both"][1]))
    rates = stored(options.out)
    turns = [(turn, key) for turn in range(options.rounds) for key in runs]
    for _, key in tqdm([(turn, k) for turn, k in turns if len(rates.get(k, ())) <= turn]):
        z, passes = x.repeat(key[1], 1, 1, 1), max(1, COUNT // key[1])
        runs[key](z.clone())  # warms up, and compiles what is to be compiled
        start = time.perf_counter()
        for _ in range(passes):
            runs[key](z.clone())
        rate = passes * key[1] / (time.perf_counter() - start)
        rates.setdefault(key, []).append(rate)
        store(options.out, rates)


if __name__ == "__main__":
    main()
