"""How the gradient loses itself along a random direction, and which noise smooths: many pictures.

    python make_shattering.py PICTURES --count 20 --out shattering.csv

PICTURES as for make_reliability.py. A row: picture, noise level (sigma over the range), the number
of units that change their piece on the way (`flips`, of all ReLU6 in the network, mean of 4
directions), the product over layers of the overlap of the units that pass (`product`), the
correlation of the gradient at the end with that at the picture (`correlation`), both means of 4
directions; and, with 20 draws a map, the mean correlation of two draws (`pairs`), of SmoothGrad's
map with the gradient at the picture (`plain`), and of the maps of two pictures that differ by noise
of 0.5 %, from independent draws (`alike`). Pictures that are there already are left alone.
"""

import math

import torch
from over_pictures import measure
from torch import nn

import tutorial_lib as tl

FIELDS = ["picture", "level", "flips", "product", "correlation", "pairs", "plain", "alike"]
LEVELS = (1e-4, 3e-4, 1e-3, 2e-3, 3e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2)
DRAWS, DIRECTIONS, ALIKE = 20, 4, 0.005


def pieces(model, z):
    """For every ReLU6 layer the piece of each unit: 0 off, 1 passing, 2 cut off above."""
    found = []

    def watch(_, inputs, out):
        found.append((out > 0).byte() + (out >= 6).byte())

    handles = [m.register_forward_hook(watch) for m in model.modules() if isinstance(m, nn.ReLU6)]
    with torch.no_grad():
        model(z)
    for handle in handles:
        handle.remove()
    return found


def overlap(a, b):
    """The cosine of the indicators of the units that pass, in one layer."""
    a, b = a == 1, b == 1
    return float((a & b).sum() / (a.sum() * b.sum()).double().sqrt())


def rows(model, picture, x, target):
    """The rows of one picture."""
    span = tl.sigma_from_level(1.0, model.bounds)

    def noisy(at, level, count, seed):
        random = torch.Generator().manual_seed(seed)
        draws = [torch.randn(x.shape[1:], generator=random) for _ in range(count)]
        return [at + level * span * draw for draw in draws]

    def maps(points):
        chunks = torch.cat(points).split(4)
        return torch.cat([tl.gradient(model, z, target) for z in chunks])

    plain, before = tl.gradient(model, x, target), pieces(model, x)
    similar = noisy(x, ALIKE, 1, seed=3)[0]
    for level in LEVELS:
        points = noisy(x, level, DRAWS, seed=1)
        first, second = maps(points), maps(noisy(similar, level, DRAWS, seed=2))
        after = [pieces(model, z) for z in points[:DIRECTIONS]]
        layers = [list(zip(before, a, strict=True)) for a in after]
        flips = sum(float((p != q).sum()) for pairs in layers for p, q in pairs) / DIRECTIONS
        products = [math.prod(overlap(p, q) for p, q in pairs) for pairs in layers]
        single = tl.correlation(first[:DIRECTIONS], plain.expand(DIRECTIONS, -1, -1, -1))
        between = torch.corrcoef(first.flatten(1).double())
        pairs = (float(between.sum()) - DRAWS) / (DRAWS * (DRAWS - 1))
        mean = first.mean(0, keepdim=True)
        alike = tl.correlation(mean, second.mean(0, keepdim=True))
        yield [picture, str(level), f"{flips:.0f}", sum(products) / DIRECTIONS] + [
            float(v) for v in (single.mean(), pairs, tl.correlation(mean, plain), alike)
        ]


if __name__ == "__main__":
    measure(__doc__.splitlines()[0], FIELDS, rows)
