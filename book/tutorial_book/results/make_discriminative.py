"""Do maps of two classes differ, and is each where its class is? Many pictures beside an espresso.

    python make_discriminative.py PICTURES --count 60 --out discriminative.csv

PICTURES as for make_reliability.py. Each picture stands on the left of the bundled cup of espresso,
224 x 448 together. A row: picture, method, Spearman's rank correlation of the heatmaps of the two
classes (`signed`; `magnitude` with the signs left out), and the share of a map's positive part that
lies in its own half, for the picture's class (`left`) and for espresso (`right`); chance is 0.5. A
picture that the network takes for an espresso is left out. Pictures that are there already are
left alone.
"""

from functools import partial

import torch
from over_pictures import measure

import tutorial_lib as tl

FIELDS = ["picture", "method", "signed", "magnitude", "left", "right"]
ESPRESSO = 967


def methods(model):
    """{name: attribution function}."""
    sigma, black = tl.sigma_from_level(0.1, model.bounds), model.bounds[0]
    cam = {f"Grad-CAM, blocks.{k}": f"network.blocks.{k}" for k in range(7)}
    return {
        "gradient": tl.gradient,
        "SmoothGrad": partial(tl.smoothgrad, sigma=sigma, samples=10),
        "Integrated Gradients": partial(
            tl.integrated_gradients, baseline=black, steps=20, rule="midpoint"
        ),
        "guided backprop": tl.guided_backprop,
        "DeconvNet": tl.deconvnet,
        "LRP, composite": partial(tl.lrp, rule="composite", bounds=model.bounds),
        **{name: partial(tl.grad_cam, layer=layer) for name, layer in cam.items()},
        "Grad-CAM, last": partial(tl.grad_cam, layer="network.bn2"),
        "guided Grad-CAM": partial(tl.guided_grad_cam, layer="network.bn2"),
    }


def rows(model, picture, x, target):
    """The rows of one picture."""
    if target == ESPRESSO:
        return
    both = torch.cat([x, model.preprocess(tl.load_image("coffee"))], dim=3)
    for name, method in methods(model).items():
        maps = [method(model, both, c) for c in (target, ESPRESSO)]
        left, right = (m if m.ndim == 3 else tl.heatmap(m) for m in maps)
        ranks = [tl.metrics.rank_correlation(left, right, absolute=a) for a in (False, True)]
        halves = [m.clamp(min=0).unflatten(2, (2, -1)).sum((0, 1, 3)) for m in (left, right)]
        shares = [float(h[k] / h.sum()) for k, h in enumerate(halves)]
        yield [picture, name, *map(float, ranks), *shares]


if __name__ == "__main__":
    measure(__doc__.splitlines()[0], FIELDS, rows)
