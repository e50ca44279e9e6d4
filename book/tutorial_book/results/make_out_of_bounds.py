"""How much of the noise leaves the range of the input, over a folder of pictures.

    python make_out_of_bounds.py PICTURES --out out_of_bounds.csv

No network is needed: the share is the closed form `tl.inherent_noise`, averaged over a picture of
224 x 224 in ImageNet's normalisation. A row: the method, the bounds that count as out of range
("one range" for all channels, from the least black to the greatest white, or "per channel"), the
number of pictures, the mean share over them with its standard error, the least and the greatest
share, and the share of pictures in which a draw has some value out of range for sure (to 1e-9).
SmoothGrad's sigma is 20 % of the one range, as in Zhou et al.; `picture` is 20 % of the range of
the picture at hand.
"""

import argparse
import csv
from pathlib import Path

import torch
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize
from tqdm import tqdm

import tutorial_lib as tl
from tutorial_lib.averaging.noise import IMAGENET_BOUNDS

LOWER, UPPER = IMAGENET_BOUNDS
ONE = (float(LOWER.min()), float(UPPER.max()))
FIELDS = ["method", "bounds", "pictures", "mean", "standard_error", "least", "greatest", "surely"]


def shares(path):
    """{(method, bounds): (mean share, log of the chance that nothing is out)} of one picture."""
    pixels = pil_to_tensor(center_crop(resize(tl.load_image(path), 224), 224))[None].double() / 255
    x = (LOWER + (UPPER - LOWER) * pixels).clamp(LOWER, UPPER)  # black and white exactly
    span = ONE[1] - ONE[0]
    sigmas = {
        "SmoothGrad 20 %": 0.2 * span,
        "SmoothGrad 20 %, picture": 0.2 * float(x.max() - x.min()),
        "AdaptGrad, Eq. 13": tl.adaptive_sigma(x, IMAGENET_BOUNDS),
        "AdaptGrad, Eq. 13, one range": tl.adaptive_sigma(x, ONE),
        "AdaptGrad, program's sigma": tl.adaptive_sigma(x, IMAGENET_BOUNDS, 0.9),
        "AdaptGrad, program's sigma, one range": tl.adaptive_sigma(x, ONE, 0.9),
    }
    for method, sigma in sigmas.items():
        for name, bounds in {"one range": ONE, "per channel": IMAGENET_BOUNDS}.items():
            p = tl.inherent_noise(x, sigma, bounds)
            yield (method, name), (float(p.mean()), float(torch.log1p(-p).sum()))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    seen = {}
    for path in tqdm(sorted(options.pictures.glob("*.jpg")), unit="picture"):
        for key, value in shares(path):
            seen.setdefault(key, []).append(value)
    with options.out.open("w", newline="") as out:
        table = csv.writer(out)
        table.writerow(FIELDS)
        for (method, bounds), values in seen.items():
            share, nothing = torch.tensor(values, dtype=torch.float64).T
            error = share.std() / len(share) ** 0.5
            numbers = [
                share.mean(),
                error,
                share.min(),
                share.max(),
                (nothing < -20.7).double().mean(),
            ]
            table.writerow([method, bounds, len(share), *(f"{float(v):.5f}" for v in numbers)])


if __name__ == "__main__":
    main()
