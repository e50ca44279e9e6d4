"""How much of a map lies in smooth and in textured parts of a picture, before and after averaging.

    python make_textures.py PICTURES --count 40 --out textures.csv

PICTURES as for make_reliability.py. The pixels of a picture are put into five groups of equal size
by the standard deviation of the grey picture in the 9 x 9 pixels around them. A row: picture, group
(1 the smoothest), its mean deviation as a fraction of the range, its share of the sum of magnitudes
of the gradient's heatmap and of SmoothGrad's (noise of 20 % of the range, 20 draws, mean of two
runs), and the correlation of the two runs in the group. Pictures that are there already are left
alone.
"""

import torch
from over_pictures import measure
from torch.nn import functional as F

import tutorial_lib as tl

LEVEL, DRAWS, WINDOW = 0.2, 20, 9
FIELDS = ["picture", "group", "deviation", "gradient", "smoothgrad", "again"]


def deviations(grey):
    """Standard deviation in the window around each pixel; a window at the edge has fewer pixels."""
    mean = lambda v: F.avg_pool2d(v, WINDOW, 1, WINDOW // 2, count_include_pad=False)
    return (mean(grey**2) - mean(grey) ** 2).clamp(min=0).sqrt()


def groups(x):
    """For each pixel its group, 0 to 4, and the deviation around it; both (H, W)."""
    around = deviations(x.mean(1, keepdim=True))[0, 0]
    rank = around.flatten().argsort().argsort().view(around.shape)
    return rank * 5 // around.numel(), around


def rows(model, picture, x, target):
    """The rows of one picture."""
    span = float((model.bounds[1] - model.bounds[0]).mean())
    which, around = groups(x)
    own = dict(sigma=tl.sigma_from_level(LEVEL, model.bounds), samples=DRAWS)
    plain = tl.heatmap(tl.gradient(model, x, target))[0]
    runs = [tl.heatmap(tl.smoothgrad(model, x, target, **own, seed=s))[0] for s in (1, 2)]
    for k in range(5):
        here = which == k
        share = lambda heat: float(heat[here].abs().sum() / heat.abs().sum())
        again = float(torch.corrcoef(torch.stack([heat[here] for heat in runs]))[0, 1])
        smooth = sum(map(share, runs)) / 2
        yield [picture, k + 1, float(around[here].mean()) / span, share(plain), smooth, again]


if __name__ == "__main__":
    measure(__doc__.splitlines()[0], FIELDS, rows)
