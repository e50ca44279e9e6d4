"""How far SmoothDiff is from the smoothed gradient that it stands for, many pictures.

    python make_smoothdiff.py PICTURES --count 10 --out smoothdiff.csv

PICTURES as for make_reliability.py. The noise is 10 % of the range. The truth is SmoothGrad with
400 draws; the sum of its squared standard errors is taken off every squared distance from it, and
off its squared norm. A row: picture, `method`, its number of noisy passes (`passes`), and, relative
to the norm of the truth: its `bias`, the distance of its expectation from the truth; its `noise`,
the deviation from that expectation; its `error`, the root of the sum of their squares. Then the
`cosine` between one map and the truth, that between the expectation and the truth (`expected`), and
the norm of the expectation (`norm`). SmoothDiff's expectation is that of maps of 50 passes, from 3
seeds. SmoothGrad has no bias, and its noise is that of the truth, for 50 draws. A bias below 0 is
one whose square came out below 0.
"""

from functools import partial

import torch
from over_pictures import measure

import tutorial_lib as tl

FIELDS = ["picture", "method", "passes", "bias", "noise", "error", "cosine", "expected", "norm"]
DRAWS, PASSES, SEEDS = 400, 50, 3


def root(square):
    """The root with the sign of the square, which may be below 0 by chance."""
    return float(abs(square) ** 0.5 * (1 if square >= 0 else -1))


def distances(maps, truth, off):
    """The columns from `bias` on, of maps (seeds, ...); the truth has the squared error `off`."""
    maps, truth = maps.double().flatten(1), truth.double().flatten()
    size, mean = truth.square().sum() - off, maps.mean(0)
    noise = maps.var(0).sum() if len(maps) > 1 else torch.zeros(())
    bias = (mean - truth).square().sum() - off - noise / len(maps)
    norm = mean.square().sum() - noise / len(maps)
    product, one = mean @ truth, (norm + noise) * size
    parts = [bias / size, noise / size, (bias + noise) / size]
    cosines = [float(product / one.sqrt()), float(product / (norm * size).sqrt())]
    return [*map(root, parts), *cosines, float((norm / size).sqrt())]


def rows(model, picture, x, target):
    """The rows of one picture."""
    sigma = tl.sigma_from_level(0.1, model.bounds)
    noisy = partial(tl.probes.gaussian, sigma=sigma, samples=DRAWS, seed=1000)
    truth, error = tl.engine.average(model, x, target, noisy, standard_error=True)
    off = error.double().square().sum()
    size = truth.double().square().sum() - off
    share = float(off / size) * DRAWS / PASSES  # SmoothGrad's squared noise
    yield [picture, "gradient", 1, *distances(tl.gradient(model, x, target), truth, off)]
    cosine = (1 + share) ** -0.5
    yield [picture, "SmoothGrad", PASSES, 0.0, share**0.5, share**0.5, cosine, 1.0, 1.0]
    made = partial(tl.smoothdiff, model, x, target, sigma=sigma, samples=PASSES)
    maps = torch.cat([made(seed=seed) for seed in range(SEEDS)])
    yield [picture, "SmoothDiff", PASSES, *distances(maps, truth, off)]


if __name__ == "__main__":
    measure(__doc__.splitlines()[0], FIELDS, rows)
