"""Noise that leaves the range of the input and noise that does not, at equal cost, many pictures.

    python make_noise_in_bounds.py PICTURES --count 20 --out noise_in_bounds.csv

PICTURES as for make_reliability.py. For every picture and kind of noise two maps of 50 draws each
from independent draws. A row: picture, kind of noise, the root mean square of the noise as a
fraction of the range, the share of values out of range (`outside`), the mean probability of the
class at the noisy pictures, the Gini index of the map's channel sums (`gini`, mean of both maps),
and the correlation of the two maps entry by entry (`reliability`) and summed over channels
(`heatmap`). Controls: AdaptGrad's own sigmas at shuffled places, and the sigmas of another
photograph, scaled to the same root mean square. "truncated" is normal noise conditioned on
staying in range; "clean" is the gradient without noise, where a map cannot but repeat. Pictures
that are there already are left alone.
"""

from functools import partial

import torch
from over_pictures import measure

import tutorial_lib as tl

DRAWS, CHUNK = 50, 4
FIELDS = ["picture", "noise", "rms", "outside", "chance", "gini", "reliability", "heatmap"]


def kinds(model, x):
    """{kind of noise: its probe function}."""
    level = partial(tl.sigma_from_level, bounds=model.bounds)
    adaptive = tl.adaptive_sigma(x, model.bounds)
    same = float(adaptive.square().mean().sqrt())  # SmoothGrad with AdaptGrad's amount of noise
    places = torch.randperm(adaptive[0, 0].numel(), generator=torch.Generator().manual_seed(0))
    shuffled = adaptive.flatten(2)[:, :, places].view_as(adaptive)
    other = model.preprocess(tl.load_image("astronaut"))
    foreign = tl.adaptive_sigma(other, model.bounds)
    foreign *= same / foreign.square().mean().sqrt()
    gaussian, truncated = tl.probes.gaussian, tl.probes.truncated_gaussian
    inside = partial(truncated, bounds=model.bounds)
    return {
        "SmoothGrad 20 %": partial(gaussian, sigma=level(0.2)),
        "SmoothGrad, AdaptGrad's rms": partial(gaussian, sigma=same),
        "AdaptGrad 0.95": partial(tl.probes.adaptive_gaussian, bounds=model.bounds),
        "AdaptGrad's sigmas shuffled": partial(gaussian, sigma=shuffled),
        "the astronaut's sigmas, AdaptGrad's rms": partial(gaussian, sigma=foreign),
        "truncated 20 %": partial(inside, sigma=level(0.2)),
        "truncated, AdaptGrad's rms": partial(inside, sigma=_matching(x, same, model.bounds)),
    }


def _matching(x, rms, bounds):
    """The sigma at which truncated noise has a wanted root mean square."""
    low, high = 0.0, 4 * rms
    for _ in range(20):
        middle = (low + high) / 2
        probes = tl.probes.truncated_gaussian(x, sigma=middle, bounds=bounds, samples=2)
        size = (probes.points() - x).square().mean().sqrt()
        low, high = (middle, high) if size < rms else (low, middle)
    return middle


def rows(model, picture, x, target):
    """The rows of one picture."""
    lower, upper = model.bounds
    span = float((upper - lower).mean())
    clean = tl.heatmap(tl.gradient(model, x, target))
    chance = float(model(x).softmax(1)[0, target])
    yield [picture, "clean", 0.0, 0.0, chance, float(tl.metrics.gini(clean)), 1.0, 1.0]
    for name, probes in kinds(model, x).items():
        maps, rms, outside, chances = [], [], [], []
        for seed in (1, 2):
            total = torch.zeros_like(x)
            points = probes(x, samples=DRAWS, seed=seed).points()[:, 0]
            for z in points.split(CHUNK):
                z = z.clone().requires_grad_()
                scores = model(z)
                total += torch.autograd.grad(scores[:, target].sum(), z)[0].sum(0)
                chances.append(scores.detach().softmax(1)[:, target])
            maps.append(total / DRAWS)
            rms.append(float((points - x).square().mean().sqrt()) / span)
            outside.append(float(((points < lower) | (points > upper)).float().mean()))
        heat = [tl.heatmap(m) for m in maps]
        gini = sum(float(tl.metrics.gini(h)) for h in heat) / 2
        same = float(tl.correlation(*maps)), float(tl.correlation(*heat))
        p = float(torch.cat(chances).mean())
        yield [picture, name, sum(rms) / 2, sum(outside) / 2, p, gini, *same]


if __name__ == "__main__":
    measure(__doc__.splitlines()[0], FIELDS, rows)
