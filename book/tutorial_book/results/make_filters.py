"""What noise on the picture does to a map, beside a blur of the map: spectra, stability, fidelity.

    python make_filters.py PICTURES --count 24 --out filters.csv

PICTURES as for make_reliability.py. Maps are `tl.heatmap` of the gradient, and of SmoothGrad of 10
draws at six levels, as two halves of 5 draws, S and T. Products <S, T> of both halves have no
sampling noise in the mean; with them lengths, powers and correlations are corrected for it. A row:
picture, map and its level in per cent of the range; the power of the map as a multiple of the
gradient's (`power`) and the share of it above 0.1 cycles a pixel (`tail`), both corrected; the
correlation of the map without sampling noise with the gradient (`plain`). The map "blurred" is the
gradient under a Gaussian over pixels, with the tail of SmoothGrad at this level; `width` is its
standard deviation in pixels, and `smooth` its correlation with that SmoothGrad, corrected. `aupc`
is the area under the perturbation curve (12 windows of 25 pixels, 2 draws). Then the map of a
second picture, which differs by uniform noise of 1 % of the range in each value: `fresh` is the
length of the difference of the maps of the two, by that of the first, with 5 draws each that are
not the same, and `common` with the same 5 draws; `change` is the square of the latter, corrected.
Pictures that are there already are left alone.
"""

import math

import torch
from over_pictures import measure

import tutorial_lib as tl

LEVELS, BLURRED = (2.5, 5, 10, 15, 20, 30), (5, 10, 20)
FIELDS = ["picture", "map", "level", "power", "tail", "plain", "width", "smooth", "aupc"]
FIELDS += ["fresh", "common", "change"]
CURVE = dict(size=25, count=12, draws=2)
EDGE = 0.1  # cycles a pixel, where the tail begins
NOTHING = float("nan")


def frequencies(side):
    """The spatial frequency of each entry of a two-dimensional Fourier transform."""
    f = torch.fft.fftfreq(side)
    return (f[:, None].square() + f.square()).sqrt()  # (H, W)


def cross_power(a, b):
    """The product of two maps at each spatial frequency, (H, W): its sum is <a, b>."""
    return (torch.fft.fft2(a) * torch.fft.fft2(b).conj()).real / a.numel()


def tail_of(power):
    """The share of the power above EDGE, without the mean of the map."""
    f = frequencies(len(power))
    return float(power[f > EDGE].sum() / power[f > 0].sum())


def blur(a, width):
    """Convolve a map with a Gaussian over pixels, periodically."""
    factor = torch.exp(-2 * (math.pi * width * frequencies(len(a))).square())
    return torch.fft.ifft2(torch.fft.fft2(a) * factor).real


def matching_width(a, tail):
    """The width of the blur under which `a` has a wanted tail."""
    low, high = 0.0, 20.0
    for _ in range(30):
        middle = (low + high) / 2
        small = tail_of(cross_power(*(2 * [blur(a, middle)]))) < tail
        low, high = (low, middle) if small else (middle, high)
    return middle


def inner(a, b):
    """The product of two maps without their means."""
    return float(((a - a.mean()) * (b - b.mean())).sum())


def alike(a, halves):
    """The correlation of a map with an average of which there are two halves, corrected."""
    s, t = halves
    squares = inner(a, a) * inner(s, t)
    return inner(a, (s + t) / 2) / math.sqrt(squares) if squares > 0 else NOTHING


def maps_of(model, x, target):
    """{level: the two halves of the map}; of the gradient, level 0, they are the same."""
    plain = tl.heatmap(tl.gradient(model, x, target))[0]
    found = {0: (plain, plain)}
    for level in LEVELS:
        options = dict(sigma=tl.sigma_from_level(level / 100, model.bounds), samples=5)
        halves = (tl.smoothgrad(model, x, target, **options, seed=seed) for seed in (1, 2))
        found[level] = tuple(tl.heatmap(a)[0] for a in halves)
    return found


def stability(first, second):
    """`fresh`, `common` and `change` of a row, of the maps of two pictures."""
    (s, t), (u, v) = first, second
    fresh = ((u - t).norm() / t.norm() + (v - s).norm() / s.norm()) / 2
    common = ((u - s).norm() / s.norm() + (v - t).norm() / t.norm()) / 2
    return float(fresh), float(common), float(((u - s) * (v - t)).sum() / (s * t).sum())


def rows(model, picture, x, target):
    """The rows of one picture."""
    random = torch.Generator().manual_seed(0)
    lower, upper = model.bounds
    small = 0.01 * (upper - lower) * (2 * torch.rand(x.shape, generator=random) - 1)
    here, there = (maps_of(model, z, target) for z in (x, x + small))
    plain, gaps = here[0][0], [NOTHING] * 3
    power = cross_power(plain, plain).sum()
    lines, heat = [], []
    for level, halves in here.items():
        name, cross = "SmoothGrad" if level else "gradient", cross_power(*halves)
        share = [float(cross.sum() / power), tail_of(cross), alike(plain, halves)]
        lines.append([name, level, *share, *gaps[:2], *stability(halves, there[level])])
        heat.append(sum(halves) / 2)
        if level in BLURRED:
            width = matching_width(plain, share[1])
            blurred = blur(plain, width)
            own = cross_power(blurred, blurred)
            like = float(own.sum() / power), tail_of(own), alike(plain, [blurred] * 2)
            lines.append(["blurred", level, *like, width, alike(blurred, halves), *gaps])
            heat.append(blurred)
    lines.append(["random", 0, *[NOTHING] * 8])
    heat.append(torch.rand(plain.shape, generator=random))
    areas = tl.metrics.aupc(
        model,
        x.expand(len(heat), -1, -1, -1),
        target,
        torch.stack(heat),
        bounds=model.bounds,
        **CURVE,
    )
    for line, area in zip(lines, areas.tolist(), strict=True):
        yield [picture, *line[:7], area, *line[7:]]


if __name__ == "__main__":
    measure(__doc__.splitlines()[0], FIELDS, rows)
