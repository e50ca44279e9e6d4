"""Table 1 of Zhou et al. on their own three networks, step by step from the paper to the program.

    python make_digits_as_read.py NETWORKS --mnist FOLDER --out digits_as_read.csv

NETWORKS is the folder with the networks that the authors publish: mlp.pth, bias_mlp.pth (trained on
digits + 1) and random_mlp.pth (trained on random labels), two dense layers each. Each network is
explained for its own prediction, on the first 1000 digits of MNIST's test set, and the maps of mlp
are compared with those of random_mlp (consistency) and bias_mlp (invariance). A `way` changes one
thing of the one before it:

- "paper": digits as they are, the gradient of the logit, the equations as printed.
- "bytes": digits as the program reads them. It hands each digit, 784 numbers of four bytes, to
  `PIL.Image.fromarray(mode="L")`, which takes the first 784 bytes for the 784 pixels.
- "shift": bias_mlp's digits are shifted by 1 before their bytes are read, and once more after.
- "program": the first version that the authors published. Its network ends in a softmax, so the
  gradient is that of a probability. NoiseGrad puts its noise on a copy that is not used, so NG is
  the gradient, and S-NG is SmoothGrad with more draws. The clean gradient is one of the draws, and
  AdaptGrad's sigma has erfinv(c), and bounds of 0 and 1 for all three networks.

A row: `way`, `measure`, `method`, the mean of |rho| and its standard error over `n` digits. Rows of
the measure "accuracy" have the name of a network in place of the method.
"""

import argparse
import csv
import math
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

import tutorial_lib as tl

COUNT, SAMPLES, SIGMA, CONFIDENCE = 1000, 50, 0.2, 0.95
NETWORKS = ("mlp", "bias_mlp", "random_mlp")
FIELDS = ["way", "measure", "method", "mean", "error", "n"]
Maps = dict[str, Callable[..., Tensor]]


def as_read(digits: Tensor) -> Tensor:
    """Digits (N, 1, 28, 28) of float32 as the program reads them: the first bytes as pixels."""
    first_bytes = digits.contiguous().view(torch.uint8).flatten(1)[:, :784]
    return first_bytes.reshape(digits.shape).float() / 255


def load(path: Path) -> torch.nn.Module:
    """One of the authors' networks; `tl.mnist.dense` has a layer in front that flattens."""
    net = tl.mnist.dense()
    weights = torch.load(path, map_location="cpu", weights_only=True).values()
    net.load_state_dict(dict(zip(net.state_dict(), weights, strict=True)))
    return net.eval().requires_grad_(False)


def as_printed(low: float) -> Maps:
    """The six methods by the paper's equations, for digits from `low` to `low` + 1."""
    smooth = dict(sigma=SIGMA, samples=SAMPLES)
    adapt = dict(bounds=(low, low + 1), confidence=CONFIDENCE, samples=SAMPLES)
    noisy = partial(tl.noisegrad, weight_sigma=SIGMA, weight_samples=SAMPLES)
    both = partial(tl.noisegrad, weight_sigma=SIGMA, weight_samples=10)
    return {
        "Grad": tl.gradient,
        "SG": partial(tl.smoothgrad, **smooth),
        "AG": partial(tl.adaptgrad, **adapt),
        "NG": noisy,
        "S-NG": partial(both, method=tl.smoothgrad, **smooth | dict(samples=10)),
        "A-NG": partial(both, method=tl.adaptgrad, **adapt | dict(samples=10)),
    }


def as_programmed() -> Maps:
    """The six methods as the first published program computes them."""

    def sigma_of(x: Tensor) -> Tensor:  # distance to the nearer of 0 and 1, also from outside
        return torch.minimum(x.abs(), (x - 1).abs()) / (math.sqrt(2) * erfinv)

    def smoothed(model, x, target, *, adaptive: bool, repeats: int = 0) -> Tensor:
        """Draws and the clean gradient; repeated as NoiseGrad would, around which it stands."""
        clean = tl.gradient(model, x, target)
        sigma = sigma_of(x) if adaptive else SIGMA
        noisy = tl.smoothgrad(model, x, target, sigma=sigma, samples=SAMPLES * max(repeats, 1))
        average = (SAMPLES * noisy + clean) / (SAMPLES + 1)
        return (repeats * average + clean) / (repeats + 1) if repeats else average

    erfinv = float(torch.erfinv(torch.tensor(CONFIDENCE)))
    return {
        "Grad": tl.gradient,
        "SG": partial(smoothed, adaptive=False),
        "AG": partial(smoothed, adaptive=True),
        "NG": tl.gradient,
        "S-NG": partial(smoothed, adaptive=False, repeats=SAMPLES),
        "A-NG": partial(smoothed, adaptive=True, repeats=SAMPLES),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", type=Path)
    parser.add_argument("--mnist", required=True, help="folder that holds, or gets, MNIST")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    logits = {name: load(options.networks / f"{name}.pth") for name in NETWORKS}
    shares = {n: torch.nn.Sequential(net, torch.nn.Softmax(1)).eval() for n, net in logits.items()}
    x, labels = (v[:COUNT] for v in tl.load_mnist("test", root=options.mnist))
    printed = {name: as_printed(float(name == "bias_mlp")) for name in NETWORKS}
    program = dict.fromkeys(NETWORKS, as_programmed())
    ways = {  # what mlp and random_mlp see, what bias_mlp sees, the networks, the methods of each
        "paper": (x, x + 1, logits, printed),
        "bytes": (as_read(x), as_read(x) + 1, logits, printed),
        "shift": (as_read(x), as_read(x + 1) + 1, logits, printed),
        "program": (as_read(x), as_read(x + 1) + 1, shares, program),
    }
    warnings.filterwarnings("ignore", message="model: it ends in a softmax")
    with options.out.open("w", newline="") as file:
        table = csv.DictWriter(file, FIELDS, lineterminator="\n")
        table.writeheader()

        def write(way: str, measure: str, method: str, values: Tensor) -> None:
            error = values.std() / len(values) ** 0.5
            row = (way, measure, method, f"{values.mean():.5f}", f"{error:.5f}", len(values))
            table.writerow(dict(zip(FIELDS, row, strict=True)))

        for way, (plain, shifted, networks, methods) in tqdm(ways.items()):
            seen = {name: shifted if name == "bias_mlp" else plain for name in NETWORKS}
            targets = {name: net(seen[name]).argmax(1) for name, net in logits.items()}
            for name, target in targets.items():
                write(way, "accuracy", name, (target == labels).double())
            for method in methods["mlp"]:
                maps = {n: methods[n][method](networks[n], seen[n], targets[n]) for n in NETWORKS}
                for measure, other in (("consistency", "random_mlp"), ("invariance", "bias_mlp")):
                    rho = tl.metrics.rank_correlation(maps["mlp"], maps[other])
                    write(way, measure, method, rho.abs())


if __name__ == "__main__":
    main()
