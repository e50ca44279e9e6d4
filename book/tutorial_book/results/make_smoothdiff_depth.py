"""SmoothDiff's error by depth, where the truth is known to a thousandth.

    python make_smoothdiff_depth.py --out smoothdiff_depth.csv

Networks of 1 to 6 hidden layers of 32 ReLUs with He's random weights, from 16 standard normal
inputs to one score, 5 networks for each depth. The truth is SmoothGrad with 200,000 draws of noise
with deviation 0.5. A row: `layers`, `network`, and for SmoothDiff with 500 passes its `bias`
relative to the norm of the truth (the distance of its expectation, with the sampling errors of both
taken off, from two seeds), the `cosine` between expectation and truth, and its `norm` relative to
the truth's. `draw` is the noise of a single draw of SmoothGrad, relative to the truth.
"""

import argparse
import csv
from functools import partial
from pathlib import Path

import torch
from make_smoothdiff import distances
from torch import nn

import tutorial_lib as tl

FIELDS = ["layers", "network", "bias", "cosine", "norm", "draw"]
SIGMA, DRAWS = 0.5, 200_000


def network(layers, seed):
    """A network of rectifiers with He's weights, in float64."""
    torch.manual_seed(seed)
    sizes = [16, *[32] * layers]
    net = nn.Sequential()
    for i in range(layers):
        net.extend([nn.Linear(sizes[i], sizes[i + 1]), nn.ReLU()])
    net.append(nn.Linear(32, 1))
    for layer in net[::2]:
        nn.init.kaiming_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    return net.double().eval().requires_grad_(False)


def row(layers, seed):
    """The row of one network."""
    net, x = network(layers, seed), torch.randn(1, 16, dtype=torch.float64)
    noisy = partial(tl.probes.gaussian, sigma=SIGMA, samples=DRAWS, seed=1000)
    truth, error = tl.engine.average(net, x, 0, noisy, batch_size=20_000, standard_error=True)
    off = error.square().sum()
    draw = float(off * DRAWS / (truth.square().sum() - off)) ** 0.5
    maps = [tl.smoothdiff(net, x, 0, sigma=SIGMA, samples=500, seed=seed) for seed in (0, 1)]
    bias, _, _, _, cosine, norm = distances(torch.cat(maps), truth, off)
    return [layers, seed, *(f"{v:.4f}" for v in (bias, cosine, norm, draw))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    with parser.parse_args().out.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(FIELDS)
        writer.writerows(row(layers, seed) for layers in range(1, 7) for seed in range(5))
