"""What reduced precision adds to a map, beside what a finite number of samples adds, many pictures.

    python make_precision.py PICTURES --count 8 --out precision.csv

PICTURES holds images and a labels.csv (with a column file), such as ImageNet's validation
pictures. A row: picture, method, the number of gradients it averages (`gradients`), a `source` of
error and its size relative to the map, norm of the difference over norm of the map: entry by entry
(`entries`), and of the maps summed over channels (`heatmap`). Sources: "float32" against float64,
"tf32" and "bfloat16" against float32, with nothing changed but the arithmetic (the same draws);
"layout" is float32 with the network as timm makes it (batch norm of its own, channels first);
"samples" is another set of draws, over sqrt(2): the sampling error of one map (for Integrated
Gradients 50 steps against 200). The reduced precisions are emulated, so that any machine can make
the table: what goes into a product is rounded to 11 or 8 bits, and for bfloat16 what comes out as
well; for one gradient "bfloat16, not emulated" stands beside it. float64 is slow, so it has one
gradient only. The noise level is the paper's 0.5 of 4.76, 10.5 % of the range.
"""

import torch
from over_pictures import measure
from torch.utils._python_dispatch import TorchDispatchMode

import tutorial_lib as tl

FIELDS = ["picture", "method", "gradients", "source", "entries", "heatmap"]
PRODUCTS = {"convolution", "convolution_backward", "addmm", "mm", "mkldnn_convolution"}


class Rounded(TorchDispatchMode):
    """Factors of products (and results) rounded to so many bits, products and sums in float32."""

    def __init__(self, bits, results):
        super().__init__()
        self.bits, self.results = bits, results

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        if op._schema.name.split("::")[1] not in PRODUCTS:
            return op(*args, **(kwargs or {}))
        out = op(*(self._rounded(a) for a in args), **(kwargs or {}))
        if not self.results:
            return out
        return self._rounded(out) if isinstance(out, torch.Tensor) else [*map(self._rounded, out)]

    def _rounded(self, x):
        return rounded(x, self.bits) if isinstance(x, torch.Tensor) else x


def rounded(x, bits):
    """float32 to the nearest number with that many significant bits, ties to even."""
    cut = 24 - bits
    whole = x.view(torch.int32)
    whole = whole + (2 ** (cut - 1) - 1) + ((whole >> cut) & 1)
    return (whole >> cut << cut).view(torch.float32)


def off(a, b):
    """Two relative differences: entry by entry, and of the heatmaps."""
    pairs = (a, b), (tl.heatmap(a), tl.heatmap(b))
    return [float((u.double() - v.double()).norm() / v.double().norm()) for u, v in pairs]


def rows(model, picture, x, target):
    """The rows of one picture."""
    sigma = tl.sigma_from_level(tl.level_from_sigma(0.5, tl.noise.IMAGENET_BOUNDS), model.bounds)
    noisy, ig = dict(sigma=sigma, seed=1), tl.integrated_gradients
    methods = {
        "gradient": (tl.gradient, {}, None, 1),
        "Integrated Gradients": (ig, dict(steps=50), dict(steps=200), 50),
        "SmoothGrad": (tl.smoothgrad, dict(samples=50, **noisy), dict(seed=2), 50),
        "SmoothTaylor": (tl.smooth_taylor, dict(roots=150, **noisy), dict(seed=2), 150),
    }
    plain = tl.models._lite("efficientnet_lite0").to(x.device)
    for name, (method, own, other, count) in methods.items():

        def made(x=x, model=model, method=method, own=own, **more):
            return method(model, x, target, batch_size=4, **(own | more))

        exact, found = made(), {}
        if count == 1:
            double = tl.load_model("efficientnet_lite0", device=x.device).double()
            wide = method(lambda z, net=double: net(z.double()), x, target, batch_size=4)
            found["float32"] = off(exact, wide)
            with tl.precision("bfloat16"):
                found["bfloat16, not emulated"] = off(made(), exact)
        found["layout"] = off(made(model=plain), exact)
        for source, rounding in (("tf32", Rounded(11, False)), ("bfloat16", Rounded(8, True))):
            with rounding:
                found[source] = off(made(), exact)
        if other:
            share = 1 if "steps" in other else 2**-0.5
            found["samples"] = [share * value for value in off(made(**other), exact)]
        for source, values in found.items():
            yield [picture, name, count, source, *[f"{v:.3g}" for v in values]]


if __name__ == "__main__":
    measure(__doc__.splitlines()[0], FIELDS, rows)
