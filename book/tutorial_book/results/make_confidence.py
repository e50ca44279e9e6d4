"""AdaptGrad at several confidences, and SmoothGrad, over the number of draws N, many pictures.

    python make_confidence.py PICTURES --count 20 --out confidence.csv

PICTURES as for make_reliability.py. For every picture and kind of noise two independent halves of
up to 100 draws. A row: picture, kind of noise, N, the root mean square of the noise as a fraction
of the range, the expected share of values out of range (`outside`), and after N draws: the
correlation of the two halves' maps entry by entry (`entries`) and as saliency maps (`saliency`),
and the Gini index of the channel sums (`gini`, mean of both). `gradient` is the correlation, entry
by entry, of the gradient without noise with the mean of all draws, divided by the root of the
reliability of that mean: what it would be without sampling error. The kind "clean" is that
gradient. Pictures that are there already are left alone.
"""

import torch
from over_pictures import measure

import tutorial_lib as tl

COUNTS, CHUNK = (10, 20, 30, 50, 70, 100), 10
FIELDS = ["picture", "noise", "N", "rms", "outside", "entries", "saliency", "gini", "gradient"]


def kinds(model, x):
    """{kind of noise: its sigma and the number of draws of each half}."""
    most = {0.95: max(COUNTS), 0.99: 50, 0.995: 50, 0.999: 50}
    own = {f"AdaptGrad {c}": (tl.adaptive_sigma(x, model.bounds, c), n) for c, n in most.items()}
    return {"SmoothGrad 20 %": (tl.sigma_from_level(0.2, model.bounds), max(COUNTS))} | own


def half(model, x, target, sigma, draws, seed):
    """For each N up to the number of draws: the mean gradient of the first N."""
    points = tl.probes.gaussian(x, sigma=sigma, samples=draws, seed=seed).points()[:, 0]
    total, means = torch.zeros_like(x), {}
    for k, z in enumerate(points.split(CHUNK), start=1):
        slopes = tl.engine.gradients(model, z, torch.full((len(z),), target))
        total += slopes.sum(0, keepdim=True)
        if CHUNK * k in COUNTS:
            means[CHUNK * k] = total / (CHUNK * k)
    return means


def gini(attribution):
    """The Gini index of the channel sums."""
    return float(tl.metrics.gini(tl.heatmap(attribution)))


def rows(model, picture, x, target):
    """The rows of one picture."""
    span = float((model.bounds[1] - model.bounds[0]).mean())
    clean = tl.gradient(model, x, target)
    yield [picture, "clean", 0, 0.0, 0.0, 1.0, 1.0, gini(clean), 1.0]
    for name, (sigma, draws) in kinds(model, x).items():
        rms = float(torch.as_tensor(sigma).square().mean().sqrt()) / span
        outside = float(tl.inherent_noise(x, sigma, model.bounds).mean())
        halves = [half(model, x, target, sigma, draws, seed) for seed in (1, 2)]
        whole = (halves[0][draws] + halves[1][draws]) / 2
        r = float(tl.correlation(halves[0][draws], halves[1][draws]))
        left = float(tl.correlation(clean, whole)) / (2 * r / (1 + r)) ** 0.5
        for n in halves[0]:
            pair = [means[n] for means in halves]
            entries = float(tl.correlation(*pair))
            saliency = float(tl.correlation(*map(tl.saliency_map, pair)))
            sparse = sum(map(gini, pair)) / 2
            yield [picture, name, n, rms, outside, entries, saliency, sparse, left]


if __name__ == "__main__":
    measure(__doc__.splitlines()[0], FIELDS, rows)
