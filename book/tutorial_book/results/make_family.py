"""Gradient, IG, guided backpropagation, SmoothGrad, and SmoothGrad of guided: how maps agree.

    python make_family.py PICTURES --count 40 --out family.csv

PICTURES as for make_reliability.py. A row: picture, method, Spearman's rank correlation of the
heatmaps (with their signs) of the two classes with the highest scores, with the same noise
(`classes`), and of the first class with other noise (`again`; empty where nothing is drawn), and
the average total variation of the saliency map (`tv`). Noise of 10 % of the range, 10 samples.
Pictures that are there already are left alone.
"""

from functools import partial

from over_pictures import measure

import tutorial_lib as tl

FIELDS = ["picture", "method", "classes", "again", "tv"]


def methods(model):
    """{name: attribution function}; the last two draw noise."""
    sigma, black = tl.sigma_from_level(0.1, model.bounds), model.bounds[0]
    smooth = partial(tl.smoothgrad, sigma=sigma, samples=10)
    return {
        "gradient": tl.gradient,
        "IG": partial(tl.integrated_gradients, baseline=black, steps=20, rule="midpoint"),
        "guided": tl.guided_backprop,
        "SmoothGrad": smooth,
        "SmoothGrad of guided": partial(smooth, method=tl.guided_backprop),
    }


def rows(model, picture, x, target):
    """The rows of one picture."""
    second = int(model(x)[0].topk(2).indices[1])
    for name, method in methods(model).items():
        m, random = method(model, x, target), "SmoothGrad" in name
        others = [method(model, x, second)]
        others += [method(model, x, target, seed=1)] if random else []
        pairs = [tl.metrics.rank_correlation(tl.heatmap(m), tl.heatmap(o)) for o in others]
        ranks = [*map(float, pairs)] + ([] if random else [""])
        tv = float(tl.metrics.average_total_variation(tl.saliency_map(m)))
        yield [picture, name, *ranks, tv]


if __name__ == "__main__":
    measure(__doc__.splitlines()[0], FIELDS, rows)
