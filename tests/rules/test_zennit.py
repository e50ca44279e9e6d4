"""Layer-wise relevance propagation and deep Taylor beside zennit, which computes them by hooks."""

import itertools
from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from zennit import rules as zr
from zennit.composites import LayerMapComposite, NameMapComposite, SpecialFirstLayerMapComposite
from zennit.core import BasicHook
from zennit.layer import Sum
from zennit.types import Activation, AvgPool, Convolution
from zennit.types import Linear as Dense

import tutorial_lib as tl
from tests.closed_forms import close
from tests.rules.test_backward import RULES, TARGET, TINY, convnet, dense, pictures, row

pytestmark = pytest.mark.slow  # importing zennit takes seconds

BOUNDS = (-4.0, 5.0)


def zennit_map(net, x, composite, target=TARGET):
    x = x.clone().requires_grad_()
    with composite.context(deepcopy(net)) as changed:
        out = changed(x)
        start = F.one_hot(target, out.shape[1]) * out.detach()
        return torch.autograd.grad(out, x, start)[0]


def by_kind(hidden, first=None, last=None):
    """A composite of one rule, or of others for the first convolution and the dense layers."""
    kinds = [(Activation, zr.Pass()), (AvgPool, zr.Norm())]
    kinds += [(Convolution, hidden), (Dense, last or hidden)]
    if first is None:
        return LayerMapComposite(kinds)
    return SpecialFirstLayerMapComposite(kinds, [(Convolution, first)])


# --- One rule for all layers ---


LOW, HIGH = (torch.full((1, 3, 1, 1), v).double() for v in BOUNDS)
BOX = dict(low=LOW, high=HIGH)
COMPOSITES = {
    "epsilon": by_kind(zr.Epsilon()),
    "alpha 1": by_kind(zr.AlphaBeta(1, 0)),
    "alpha 2": by_kind(zr.AlphaBeta(2, 1)),
    "flat, alpha 1": by_kind(zr.AlphaBeta(1, 0), zr.Flat(), zr.Epsilon()),
    "flat, gamma": by_kind(zr.Gamma(0.25), zr.Flat(), zr.Epsilon()),
    "z-box, alpha 2": by_kind(zr.AlphaBeta(2, 1), zr.ZBox(**BOX), zr.Epsilon()),
    "z-box, gamma": by_kind(zr.Gamma(0.25), zr.ZBox(**BOX), zr.Epsilon()),
}


@pytest.mark.parametrize("bias", [False, True], ids=["no biases", "biases"])
@pytest.mark.parametrize("name", RULES)
def test_zennit_agrees_on_lrp(name, bias):
    net, x = convnet(bias), pictures()
    theirs = zennit_map(net, x, COMPOSITES[name])
    assert close(tl.lrp(net, x, TARGET, **RULES[name]), theirs, 1e-5)


def test_without_biases_gamma_takes_the_sign_of_z_without_the_bias_and_zennit_with_it():
    # terms 3 and -2 and the bias -4: z is 1 without it and -3 with it, the relevance is -3
    net, x = nn.Sequential(dense([[3, -1]], [-4])).eval(), row(1, 2)
    ours = tl.lrp(net, x, 0, rule="gamma", gamma=1.0, biases=False, epsilon=TINY)
    assert torch.allclose(ours, -3 * row(6, -2) / 4)
    gamma = zr.Gamma(1.0, stabilizer=TINY, zero_params=["bias"])
    theirs = zennit_map(net, x, by_kind(gamma), torch.tensor([0]))
    assert torch.allclose(theirs, -3 * row(3, -4) / -1)


# --- A rule for each layer ---

NO_BIAS = dict(zero_params=["bias"])
BESIDE_ZENNIT = {
    "w_square": (dict(rule="w_square"), by_kind(zr.WSquare(**NO_BIAS))),
    "flat": (dict(rule="flat"), by_kind(zr.Flat())),
    "gamma": (dict(rule="gamma", gamma=0.5), by_kind(zr.Gamma(0.5))),
    "by name": (
        dict(rule={"0": "w_square", "3": "gamma", "5": "alpha_beta", "9": "flat"}, gamma=0.5),
        NameMapComposite(
            [
                (["0"], zr.WSquare(**NO_BIAS)),
                (["3"], zr.Gamma(0.5)),
                (["5"], zr.AlphaBeta(1, 0)),
                (["9"], zr.Flat()),
                (["11"], zr.Epsilon()),
                (["1", "4", "6", "10"], zr.Pass()),
                (["7"], zr.Norm()),
            ]
        ),
    ),
}


@pytest.mark.parametrize("bias", [False, True], ids=["no biases", "biases"])
@pytest.mark.parametrize("name", BESIDE_ZENNIT)
def test_zennit_agrees_on_rules_by_layer(name, bias):
    net, x = convnet(bias), pictures()
    keywords, composite = BESIDE_ZENNIT[name]
    assert close(tl.lrp(net, x, TARGET, **keywords), zennit_map(net, x, composite), 1e-5)


@pytest.mark.parametrize("bounds", [None, BOUNDS])
def test_zennit_agrees_on_deep_taylor(bounds):
    net, x = convnet(bias=True), pictures()
    first = zr.ZBox(**BOX, **NO_BIAS) if bounds else zr.WSquare(**NO_BIAS)
    theirs = zennit_map(net, x, by_kind(zr.ZPlus(**NO_BIAS), first))
    assert close(tl.deep_taylor(net, x, TARGET, bounds=bounds), theirs, 1e-4)


def test_zennit_counts_the_squared_bias_in_w_square_and_we_do_not():
    net, x = nn.Sequential(dense([[3, -1]], [2])).eval(), row(1, 2)  # z = 3, squares 9, 1 and 4
    ours = tl.lrp(net, x, 0, rule="w_square", epsilon=TINY)
    theirs = zennit_map(net, x, by_kind(zr.WSquare(stabilizer=TINY)), torch.tensor([0]))
    assert torch.allclose(ours, 3 * row(9, 1) / 10) and torch.allclose(theirs, 3 * row(9, 1) / 14)


# --- EfficientNet-Lite0 ---


class Skip(nn.Module):
    """A block and what it is added to, as zennit wants a sum."""

    def __init__(self, block):
        super().__init__()
        self.block, self.sum = block, Sum()
        block.has_skip = False

    def forward(self, z):
        return self.sum(torch.stack([self.block(z), z], -1))


def lite0(dtype):
    """timm's network without batch norms: each in the convolution before it."""
    network = tl.models._lite("efficientnet_lite0").network
    for module in [*network.modules()]:
        names = [name for name, _ in module.named_children()]
        for first, second in itertools.pairwise(names):
            conv, norm = getattr(module, first), getattr(module, second)
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, first, nn.utils.fuse_conv_bn_eval(conv, norm))
                setattr(module, second, norm.act)
    for stage in network.blocks:
        for i, block in enumerate(stage):
            if block.has_skip:
                stage[i] = Skip(block)
    return network.to(dtype).eval()


def positive_sum():
    """A sum's positive terms share, which is no rule of zennit's."""
    return BasicHook(
        input_modifiers=[lambda z: z.clamp(min=0)],
        param_modifiers=[zr.NoMod()],
        output_modifiers=[lambda z: z],
        gradient_mapper=lambda g, outputs: [g / (outputs[0] + 1e-9)],
        reducer=lambda inputs, gradients: inputs[0] * gradients[0],
    )


def on_lite0(hidden, dense_rule, first, sums):
    kinds = [(Activation, zr.Pass()), (AvgPool, sums), (Sum, sums)]
    kinds += [(Convolution, hidden), (Dense, dense_rule)]
    return SpecialFirstLayerMapComposite(kinds, [(Convolution, first)])


def lite0_box(model):
    low, high = (torch.as_tensor(v).double().view(1, -1, 1, 1) for v in model.bounds)
    return zr.ZBox(low, high, stabilizer=1e-9, **NO_BIAS)


@pytest.mark.parametrize("name", ["epsilon", "gamma", "by name", "deep_taylor"])
def test_zennit_agrees_on_the_bundled_network(name):
    model = tl.load_model("efficientnet_lite0", device="cpu")
    x = model.preprocess(tl.load_image("coffee")).double()[..., ::2, ::2]
    box, hidden, norm = lite0_box(model), dict(stabilizer=1e-3), zr.Norm(stabilizer=1e-3)
    model = deepcopy(model).double()
    if name == "epsilon":
        found = tl.lrp(model, x, 967, epsilon=1e-3)
        composite = on_lite0(zr.Epsilon(1e-3), zr.Epsilon(1e-3), zr.Epsilon(1e-3), norm)
    elif name == "gamma":
        found = tl.lrp(model, x, 967, rule="gamma", gamma=0.5, epsilon=1e-3)
        gamma = zr.Gamma(0.5, **hidden)
        composite = on_lite0(gamma, gamma, gamma, norm)
    elif name == "by name":
        rule = {"": "gamma", "network.conv_stem": "w_square", "network.classifier": "epsilon"}
        found = tl.lrp(model, x, 967, rule=rule, gamma=0.5, epsilon=1e-3)
        square = zr.WSquare(1e-3, **NO_BIAS)
        composite = on_lite0(zr.Gamma(0.5, **hidden), zr.Epsilon(1e-3), square, norm)
    else:
        found = tl.deep_taylor(model, x, 967, bounds=model.bounds)
        plus = zr.ZPlus(stabilizer=1e-9, **NO_BIAS)
        composite = on_lite0(plus, plus, box, positive_sum())
        assert float(found.min()) >= 0
    theirs = zennit_map(lite0(torch.float64), x, composite, torch.tensor([967]))
    assert close(found, theirs, 1e-4)
