"""How much of a map lies in smooth and in textured parts of a picture: clean, noisy, averaged.

    python make_textures.py PICTURES --count 40 --out textures.csv

PICTURES as for make_reliability.py. The pixels of a picture are put into five groups of equal size
by the standard deviation of the grey picture in the 9 x 9 pixels around them. A row: picture, group
(1 the smoothest), its mean deviation as a fraction of the range, its share of the sum of magnitudes
of the heatmap of the gradient (`gradient`), of the gradients at noisy pictures (`noisy`, 20 % of
the range, mean of 40 draws) and of SmoothGrad (20 draws, mean of two runs), and the correlation of
the two runs in the group (`again`). Pictures that are there already are left alone.
"""

import torch
from over_pictures import measure
from torch.nn import functional as F

import tutorial_lib as tl

LEVEL, DRAWS, WINDOW = 0.2, 20, 9
FIELDS = ["picture", "group", "deviation", "gradient", "noisy", "smoothgrad", "again"]


def deviations(grey):
    """Standard deviation in the window around each pixel; a window at the edge has fewer pixels."""
    mean = lambda v: F.avg_pool2d(v, WINDOW, 1, WINDOW // 2, count_include_pad=False)
    return (mean(grey**2) - mean(grey) ** 2).clamp(min=0).sqrt()


def groups(x):
    """For each pixel its group, 0 to 4, and the deviation around it; both (H, W)."""
    around = deviations(x.mean(1, keepdim=True))[0, 0]
    rank = around.flatten().argsort().argsort().view(around.shape)
    return rank * 5 // around.numel(), around


def heatmaps(model, x, target, seed):
    """Heatmaps of the gradient at DRAWS noisy pictures, (DRAWS, H, W)."""
    sigma = tl.sigma_from_level(LEVEL, model.bounds)
    points = tl.probes.gaussian(x, sigma=sigma, samples=DRAWS, seed=seed).points()[:, 0]
    heat = lambda z: tl.heatmap(tl.engine.gradients(model, z, torch.full((len(z),), target)))
    return torch.cat([heat(z) for z in points.split(4)])


def rows(model, picture, x, target):
    """The rows of one picture."""
    span = float((model.bounds[1] - model.bounds[0]).mean())
    which, around = groups(x)
    plain = tl.heatmap(tl.gradient(model, x, target))
    runs = [heatmaps(model, x, target, seed) for seed in (1, 2)]
    means = torch.stack([run.mean(0) for run in runs])
    for k in range(5):
        here = which == k
        share = lambda maps: float((maps[:, here].abs().sum(1) / maps.abs().sum((1, 2))).mean())
        again = float(torch.corrcoef(means[:, here])[0, 1])
        around_here = float(around[here].mean()) / span
        shares = [share(maps) for maps in (plain, torch.cat(runs), means)]
        yield [picture, k + 1, around_here, *shares, again]


if __name__ == "__main__":
    measure(__doc__.splitlines()[0], FIELDS, rows)
