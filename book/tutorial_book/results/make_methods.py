"""All methods by all measures: one row for each picture and method.

    python make_methods.py PICTURES --count 10 --out methods.csv

PICTURES as for make_reliability.py. A row: picture, method (and three controls that have not seen
the network: edges, centre, random), and of its map with signs: AUTVC (`autvc`, lower is calmer),
the Gini index (`gini`), the area per window under the perturbation curve (`aupc`, lower is better),
the symmetric relevance gain per window (`srg`, higher is better), the area under the softmax
information curve of its magnitudes (`sic`, higher is better), and Spearman's rank correlation with
the map of the class with the second highest score (`classes`) and with the map of other noise
(`again`; empty where nothing is drawn). Curves have 10 windows of 23 pixels, drawn once. Noise of
10 % of the range and 20 samples wherever a method takes them. Pictures that are there already are
left alone.
"""

from functools import partial

import torch
from over_pictures import measure

import tutorial_lib as tl

FIELDS = ["picture", "method", "autvc", "gini", "aupc", "srg", "sic", "classes", "again"]
SAMPLES = 20
LAYER = "network.bn2"  # the last one before the mean over cells: 1280 channels of 7 x 7
MIDDLE = "network.blocks.4"  # 112 channels of 14 x 14, so that Score-CAM takes 113 passes


def methods(model, x):
    """{name: attribution function}."""
    sigma, bounds = tl.sigma_from_level(0.1, model.bounds), model.bounds
    black, white = (bound.to(x).expand_as(x) for bound in bounds)
    noise = dict(sigma=sigma, samples=SAMPLES)
    path = dict(baseline=bounds[0], steps=SAMPLES)
    weights = dict(weight_sigma=0.1, weight_samples=SAMPLES)
    uniform = black + (white - black) * torch.rand(
        8, *x.shape[1:], generator=torch.Generator().manual_seed(0)
    )
    layer = dict(layer=LAYER)
    return {
        "gradient": tl.gradient,
        "gradient x input": tl.gradient_x_input,
        "IG, black": partial(tl.integrated_gradients, **path, rule="midpoint"),
        "IG, noise baselines": partial(
            tl.integrated_gradients, baseline="noise", baselines=4, steps=5, bounds=bounds
        ),
        "expected gradients": partial(tl.expected_gradients, baselines=uniform, samples=SAMPLES),
        "guided IG": partial(tl.guided_integrated_gradients, **path),
        "IDGI": partial(tl.idgi, **path),
        "SmoothTaylor": partial(tl.smooth_taylor, sigma=sigma, roots=SAMPLES),
        "SmoothGrad": partial(tl.smoothgrad, **noise),
        "SmoothGrad squared": partial(tl.smoothgrad_squared, **noise),
        "VarGrad": partial(tl.vargrad, **noise),
        "AdaptGrad": partial(tl.adaptgrad, bounds=bounds, samples=SAMPLES),
        "NoiseGrad": partial(tl.noisegrad, **weights),
        "FusionGrad": partial(tl.fusiongrad, sigma=sigma, samples=4, weight_sigma=0.1,
                              weight_samples=5),
        "SmoothDiff": partial(tl.smoothdiff, **noise),
        "DeconvNet": tl.deconvnet,
        "guided backprop": tl.guided_backprop,
        "DeepLIFT, black": partial(tl.deeplift, baseline=bounds[0]),
        "LRP, composite": partial(tl.lrp, rule="composite", bounds=bounds),
        "deep Taylor": partial(tl.deep_taylor, bounds=bounds),
        "Grad-CAM": partial(tl.grad_cam, **layer),
        "Grad-CAM++": partial(tl.grad_cam_plus_plus, **layer),
        "LayerCAM": partial(tl.layer_cam, **layer),
        "Score-CAM": partial(tl.score_cam, layer=MIDDLE),
        "guided Grad-CAM": partial(tl.guided_grad_cam, **layer),
        "occlusion": partial(tl.occlusion, window=(32, 32)),
        "XRAI": partial(tl.xrai, bounds=bounds, steps=SAMPLES // 2),
        "edges": lambda model, x, target: edges(x),
        "centre": lambda model, x, target: centre(x),
        "random": lambda model, x, target, seed=0: dice(x, seed),
    }  # fmt: skip


def edges(x):
    """How steep the brightness is at each pixel: (B, H, W)."""
    across, down = torch.gradient(x.mean(1), dim=(1, 2))
    return torch.hypot(across, down)


def centre(x):
    """A blob in the middle, whatever the picture: (B, H, W)."""
    place = torch.linspace(-1, 1, x.shape[-1]).to(x)
    return torch.exp(-(place[:, None] ** 2 + place**2) / (2 * 0.4**2)).expand(len(x), -1, -1)


def dice(x, seed):
    """Random numbers: (B, H, W)."""
    return torch.rand(x[:, 0].shape, generator=torch.Generator().manual_seed(seed)).to(x)


RANDOM = {"IG, noise baselines", "expected gradients", "SmoothTaylor", "SmoothGrad", "VarGrad"}
RANDOM |= {"SmoothGrad squared", "AdaptGrad", "NoiseGrad", "FusionGrad", "SmoothDiff", "random"}
BLIND = {"edges", "centre", "random"}  # one map for all classes


def rows(model, picture, x, target):
    """The rows of one picture."""
    second = int(model(x)[0].topk(2).indices[1])
    named = methods(model, x)
    maps = {name: flat(method(model, x, target)) for name, method in named.items()}
    ranks = {}
    for name, method in named.items():
        other = 1.0 if name in BLIND else rank(maps[name], flat(method(model, x, second)))
        random = name in RANDOM
        again = rank(maps[name], flat(method(model, x, target, seed=1))) if random else ""
        ranks[name] = [other, again]
    stack = torch.cat([*maps.values()])
    same, how = x.expand(len(stack), -1, -1, -1), dict(bounds=model.bounds, size=23, count=10)
    how |= dict(draws=1)
    autvc, gini = tl.metrics.autvc(stack), tl.metrics.gini(stack)
    aupc = tl.metrics.aupc(model, same, target, stack, **how) / 10
    srg = tl.metrics.symmetric_relevance_gain(model, same, target, stack, **how) / 10
    shares = dict(bounds=model.bounds, thresholds=(0.03, 0.1, 0.3))
    saliency = tl.saliency_map(stack[:, None])
    sic = tl.metrics.information_curve(model, same, target, saliency, **shares).auc
    for i, name in enumerate(maps):
        yield [picture, name, *(float(v[i]) for v in (autvc, gini, aupc, srg, sic)), *ranks[name]]


def flat(m):
    """A map (B, H, W), of one with channels by their sum."""
    return tl.heatmap(m) if m.ndim == 4 else m


def rank(one, other):
    """Spearman's rank correlation of two maps."""
    return float(tl.metrics.rank_correlation(one, other))


if __name__ == "__main__":
    measure(__doc__.splitlines()[0], FIELDS, rows)
