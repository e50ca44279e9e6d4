"""Even padding inside the convolution must give the numbers of TensorFlow's, as timm writes it."""

import copy
import io
from functools import partial

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

import tutorial_lib as tl
from tests.closed_forms import normal
from tests.fast.test_lean_layers import gradients
from tutorial_lib.fast import lean_layers
from tutorial_lib.fast.lean_layers import LeanConv2dSame, make_lean

pytestmark = pytest.mark.slow  # importing timm takes seconds


@pytest.mark.parametrize("size", [(8, 8), (9, 8), (8, 11), (7, 7), (5, 12)])
@pytest.mark.parametrize("kernel, stride", [(3, 2), (5, 2), (3, 1), (4, 1), (2, 2), (5, 3)])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_an_even_kernel_pads_as_tensorflow_does(size, kernel, stride, groups, monkeypatch):
    # checks eq-fast-even
    torch.manual_seed(0)
    conv = Conv2dSame(6, 6, kernel, stride=stride, groups=groups).double().requires_grad_(False)
    x, target = normal(2, 6, *size), torch.tensor([3, 7])

    def model(z):
        return conv(z).flatten(1)

    expected, scores = gradients(model, x, target), model(x)
    assert type(make_lean(conv)) is LeanConv2dSame
    padded, pad = [], lean_layers.F.pad
    watch = lambda t, *a, **k: padded.append(t.shape) or pad(t, *a, **k)  # noqa: E731
    monkeypatch.setattr(lean_layers.F, "pad", watch)
    assert torch.allclose(gradients(model, x, target), expected, rtol=0, atol=1e-12)
    assert set(padded) <= {conv.weight.shape}  # never the pictures
    assert torch.allclose(model(x), scores, rtol=0, atol=1e-12)


def test_convolutions_with_gaps_or_other_padding_stay_as_they_are():
    assert type(make_lean(Conv2dSame(6, 6, 3, stride=2, dilation=2))) is Conv2dSame
    assert type(make_lean(nn.Conv2d(3, 8, 3, stride=2, padding=1))) is nn.Conv2d


def test_rules_that_read_weights_see_those_of_the_layer():
    torch.manual_seed(0)
    conv = Conv2dSame(3, 5, 3, stride=2)
    net = nn.Sequential(conv, nn.ReLU6(inplace=True), nn.Flatten(), nn.LazyLinear(4))
    x = normal(2, 3, 8, 8, dtype=torch.float32)
    net(x)
    lean = make_lean(copy.deepcopy(net.eval()))
    for method in (partial(tl.lrp, rule="composite"), tl.lrp, tl.deeplift, tl.guided_backprop):
        assert torch.allclose(method(lean, x, 1), method(net, x, 1), atol=1e-6)
    assert tl.receptive.centres(lean, x, "0") == tl.receptive.centres(net, x, "0")


def test_weights_that_want_gradients_get_them():
    conv = make_lean(Conv2dSame(3, 5, 3, stride=2))
    conv(normal(1, 3, 8, 8, dtype=torch.float32).requires_grad_()).sum().backward()
    assert bool(conv.weight.grad.any()) and bool(conv.bias.grad.any())


def test_a_lean_network_can_be_stored_and_copied():
    net = make_lean(nn.Sequential(Conv2dSame(3, 5, 3, stride=2), nn.ReLU6(inplace=True)).eval())
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    x = normal(1, 3, 8, 8, dtype=torch.float32)
    for other in (torch.load(file, weights_only=False), copy.deepcopy(net)):
        assert torch.equal(other(x), net(x))


def test_a_model_may_have_an_autocast_of_its_own():
    net = nn.Sequential(Conv2dSame(3, 5, 3, stride=2), nn.ReLU6(True), nn.Flatten()).eval()
    x, target = normal(1, 3, 8, 8, dtype=torch.float32), torch.tensor([4])

    def rounded(model, z):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return model(z)

    expected = gradients(partial(rounded, net), x, target)
    lean = make_lean(copy.deepcopy(net))
    assert torch.allclose(gradients(partial(rounded, lean), x, target), expected, atol=1e-2)
    assert torch.equal(gradients(lean, x, target), gradients(make_lean(net), x, target))
