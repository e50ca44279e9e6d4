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
    around = dict(kernel_size=WINDOW, stride=1, padding=WINDOW // 2, count_include_pad=False)
    return (F.avg_pool2d(grey**2, **around) - F.avg_pool2d(grey, **around) ** 2).clamp(min=0).sqrt()


def groups(x):
    """For each pixel its group, 0 to 4, and the deviation around it; both (H, W)."""
    around = deviations(x.mean(1, keepdim=True))[0, 0]
    rank = around.flatten().argsort().argsort().view(around.shape)
    return rank * 5 // around.numel(), around


def heatmaps(model, x, target, seed):
    """Heatmaps of the gradient at DRAWS noisy pictures, (DRAWS, H, W)."""
    sigma = tl.sigma_from_level(LEVEL, model.bounds)
    points = tl.probes.gaussian(x, sigma=sigma, samples=DRAWS, seed=seed).points()[:, 0]
    chunks = [tl.engine.gradients(model, z, torch.full((len(z),), target)) for z in points.split(4)]
    return tl.heatmap(torch.cat(chunks))


def share(maps, here):
    """The share of `here` in the sum of magnitudes, mean over maps (n, H, W)."""
    size = maps.abs()
    return float((size[:, here].sum(1) / size.sum((1, 2))).mean())


def rows(model, picture, x, target):
    """The rows of one picture."""
    span = float((model.bounds[1] - model.bounds[0]).mean())
    which, around = groups(x)
    plain = tl.heatmap(tl.gradient(model, x, target))
    runs = [heatmaps(model, x, target, seed) for seed in (1, 2)]
    means = torch.stack([run.mean(0) for run in runs])
    for k in range(5):
        here = which == k
        again = float(torch.corrcoef(means[:, here])[0, 1])
        shares = [share(maps, here) for maps in (plain, torch.cat(runs), means)]
        yield [picture, k + 1, float(around[here].mean()) / span, *shares, again]


if __name__ == "__main__":
    measure(__doc__.splitlines()[0], FIELDS, rows)
