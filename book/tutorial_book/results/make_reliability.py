"""Split-half reliability of SmoothGrad and SmoothTaylor over the number of draws R, many pictures.

    python make_reliability.py PICTURES --count 20 --out reliability.csv

PICTURES holds images and a labels.csv (with a column file), such as ImageNet's validation
pictures. For every picture and noise level two independent halves of up to 150 draws are made, one
set of draws for both methods. A row: picture, sigma in the units of ImageNet's normalisation,
method, R, and the correlation of the two halves' maps after R draws each, entry by entry
(`entries`), summed over channels (`heatmap`) and as saliency maps (`saliency`). For SmoothTaylor
`disguise` is the correlation of |map| with sqrt(sum of g^2 over the draws), entry by entry, and
`excess` is the mean square of the map over the mean square of pure sampling noise,
sigma^2 E[g^2] / R. Pictures that are there already are not measured again.
"""

import torch
from over_pictures import measure

import tutorial_lib as tl

COUNTS = (1, 2, 5, 10, 20, 40, 80, 150)
SIGMAS = (0.1, 0.3, 0.5)
FIELDS = ["picture", "sigma", "method", "R", "entries", "heatmap", "saliency", "disguise", "excess"]


def halves(model, x, target, sigma, seed):
    """For each R: sums of g, of (x - z) g and of g^2 over R draws."""
    rng = torch.Generator(x.device).manual_seed(seed)
    total, sums = torch.zeros(3, *x.shape[1:], device=x.device), {}
    for k in range(1, max(COUNTS) + 1):
        if k % 4 == 1:
            noise = torch.randn(4, *x.shape[1:], generator=rng, device=x.device)
            z = x + sigma * noise
            slopes = tl.engine.gradients(model, z, torch.full((4,), target))
        g, weight = slopes[(k - 1) % 4], (x - z)[(k - 1) % 4]
        total += torch.stack([g, weight * g, g**2])
        if k in COUNTS:
            sums[k] = total.clone()
    return sums


def rows(model, picture, x, target):
    """The rows of one picture."""
    for level in SIGMAS:
        sigma = tl.sigma_from_level(
            tl.level_from_sigma(level, tl.noise.IMAGENET_BOUNDS), model.bounds
        )
        a, b = (halves(model, x, target, sigma, seed) for seed in (1, 2))
        for n in COUNTS:
            for j, method in enumerate(("SmoothGrad", "SmoothTaylor")):
                pair = a[n][j : j + 1] / n, b[n][j : j + 1] / n
                views = [pair, [tl.heatmap(m) for m in pair], [tl.saliency_map(m) for m in pair]]
                values = [float(tl.correlation(*view)) for view in views]
                if method == "SmoothTaylor":
                    size = (a[n][2:] / n).sqrt()
                    values.append(float(tl.correlation(pair[0].abs(), size)))
                    values.append(float((pair[0] ** 2).mean() / (sigma**2 * size**2 / n).mean()))
                else:
                    values += ["", ""]
                yield [picture, str(level), method, n, *values]


if __name__ == "__main__":
    measure(__doc__.splitlines()[0], FIELDS, rows)
