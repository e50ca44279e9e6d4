"""Lean layers must give the numbers of the layers that they replace, and only inside the engine."""

import copy
from functools import partial

import pytest
import torch
from timm.layers import Conv2dSame
from timm.layers.padding import get_same_padding
from torch import nn

import tutorial_lib as tl
from tests.closed_forms import normal
from tutorial_lib.fast import clip
from tutorial_lib.fast import convolve
from tutorial_lib.averaging import engine
from tutorial_lib.fast import lean_layers as lean


class Graph(nn.Module):
    """A convolution, and whatever comes after it."""

    def __init__(self, after, inplace=True):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.next = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))
        self.act, self.after = nn.ReLU6(inplace=inplace), after

    def forward(self, x):
        return self.after(self, x).flatten(1)


def scaled(net, x):
    return net.conv(9 * x)


GRAPHS = {
    "a chain": lambda net, x: net.next(net.act(scaled(net, x))),
    "a sum shares one gradient": lambda net, x: net.next(net.act(scaled(net, x)) + net.next(x)),
    "two clipped terms": lambda net, x: net.next(net.act(scaled(net, x)) + net.act(net.next(x))),
    "a shortcut around it": lambda net, x: (lambda y: net.next(net.act(y) + x))(scaled(net, x)),
    "two readers": lambda net, x: (lambda y: net.next(y) + 3 * y)(net.act(scaled(net, x))),
    "three times": lambda net, x: net.act(net.next(net.act(net.next(net.act(scaled(net, x)))))),
    "the last operation": lambda net, x: net.act(scaled(net, x)),
    "a mean": lambda net, x: net.act(scaled(net, x)).mean((2, 3)),
    "of a view": lambda net, x: net.next(net.act(scaled(net, x).transpose(2, 3))),
    "read through a view": lambda net, x: net.next(net.act(scaled(net, x)).transpose(2, 3) + x),
    "sums over space": lambda net, x: net.act(scaled(net, x)).sum((2, 3)),
    "of the input": lambda net, x: net.next(net.act(x * 1)),
}


def slopes(net, x, target):
    """The gradient without the engine, where no layer is lean."""
    z = x.clone().requires_grad_()
    return torch.autograd.grad(net(z).gather(1, target[:, None]).sum(), z)[0]


@pytest.mark.parametrize("inplace", [True, False])
@pytest.mark.parametrize("name", GRAPHS)
def test_a_lean_activation_gives_the_same_gradient_bit_for_bit(name, inplace):
    net = Graph(GRAPHS[name], inplace).eval().requires_grad_(False)
    x, target = normal(3, 4, 6, 6, dtype=torch.float32), torch.tensor([0, 3, 1])
    expected = slopes(net, x, target)
    assert torch.equal(engine.gradients(lean.lean(net), x, target), expected)
    assert torch.equal(engine.gradients(net, x, target), expected)


def test_the_gradient_is_written_over_where_nobody_else_holds_it_and_only_there(monkeypatch):
    seen, owners = [], clip.owners
    monkeypatch.setattr(clip, "owners", lambda up: seen.append(owners(up)) or seen[-1])
    assert clip.ALONE
    alone = clip._one_owner()  # the detour above holds it once more
    monkeypatch.setattr(clip, "ALONE", alone)
    counts = {}
    for name in ("a chain", "two clipped terms"):
        net = lean.lean(Graph(GRAPHS[name]).eval().requires_grad_(False))
        seen.clear()
        engine.gradients(net, normal(2, 4, 6, 6, dtype=torch.float32), torch.tensor([0, 1]))
        counts[name] = [given == alone for given in seen]
    assert counts == {"a chain": [True], "two clipped terms": [False, True]}


def test_the_edges_of_the_clip_have_the_derivative_that_pytorch_gives_them():
    values = torch.tensor([[-1.0, 0.0, 1e-30, 3.0, 6.0, 6.1, torch.nan, torch.inf]])
    net = nn.ReLU6(inplace=True)

    def model(x):
        return net(x * 1)

    expected = slopes(model, values, torch.tensor([0]))
    for k in range(values.shape[1]):
        target = torch.tensor([k])
        expected = slopes(model, values, target)
        net.__class__ = lean.ReLU6
        assert torch.equal(engine.gradients(model, values, target), expected)
        net.__class__ = nn.ReLU6


def test_where_pytorch_does_not_tell_the_owners_nothing_is_written_over(monkeypatch):
    monkeypatch.setattr(clip, "ALONE", None)
    monkeypatch.setattr(clip, "owners", lambda up: 1 / 0)
    net = lean.lean(Graph(GRAPHS["a chain"]).eval().requires_grad_(False))
    x, target = normal(1, 4, 6, 6, dtype=torch.float32), torch.tensor([5])
    assert torch.equal(engine.gradients(net, x, target), slopes(net, x, target))


def test_a_score_may_itself_be_a_gradient():
    net = Graph(lambda net, x: net.next(net.act(scaled(net, x)) ** 2)).eval().requires_grad_(False)

    def penalty(z):
        slope = torch.autograd.grad(net(z).sum(), z, create_graph=True)[0]
        return slope.flatten(1).square()

    x, target = normal(2, 4, 6, 6, dtype=torch.float32), torch.tensor([5, 9])
    expected = slopes(penalty, x, target)
    lean.lean(net)
    assert torch.equal(engine.gradients(penalty, x, target), expected) and bool(expected.any())


def test_a_gradient_that_a_hook_keeps_is_not_written_over():
    net = lean.lean(Graph(GRAPHS["a chain"]).eval().requires_grad_(False))
    kept = []

    def model(x):
        y = net.act(scaled(net, x))
        y.register_hook(kept.append)
        return net.next(y).flatten(1)

    x, target = normal(1, 4, 6, 6, dtype=torch.float32), torch.tensor([5])
    engine.gradients(model, x, target)
    z = x.clone().requires_grad_()
    y = net.act(scaled(net, z))
    assert torch.equal(kept[0], torch.autograd.grad(net.next(y).flatten(1)[0, 5], y)[0])


def watch_padding(monkeypatch):
    """A list that gets the shape of everything that is padded from now on."""
    padded, pad = [], convolve.F.pad
    monkeypatch.setattr(
        convolve.F, "pad", lambda t, *a, **k: padded.append(t.shape) or pad(t, *a, **k)
    )
    return padded


@pytest.mark.parametrize("size", [(8, 8), (9, 8), (8, 11), (7, 7), (5, 12)])
@pytest.mark.parametrize("kernel, stride", [(3, 2), (5, 2), (3, 1), (4, 1), (2, 2), (5, 3)])
def test_an_even_kernel_pads_as_tensorflow_does(size, kernel, stride, monkeypatch):
    torch.manual_seed(0)
    conv = Conv2dSame(6, 6, kernel, stride=stride, groups=6).double().requires_grad_(False)
    x = normal(2, 6, *size)

    def model(z):
        return conv(z).flatten(1)

    target = torch.tensor([3, 7])
    expected, scores = slopes(model, x, target), model(x)
    assert type(lean.lean(conv)) is lean.Conv2dSame
    padded = watch_padding(monkeypatch)
    with lean.layers():
        assert torch.allclose(model(x.requires_grad_()), scores, rtol=0, atol=1e-12)
    assert torch.allclose(engine.gradients(model, x, target), expected, rtol=0, atol=1e-12)
    uneven = any(get_same_padding(n, kernel, stride, 1) % 2 for n in size)
    assert set(padded) == ({conv.weight.shape} if uneven else set())  # never the pictures


def test_dense_and_dilated_convolutions_keep_their_padding():
    for own in (dict(groups=1), dict(groups=2), dict(groups=6, dilation=2)):
        assert type(lean.lean(Conv2dSame(6, 6, 3, stride=2, **own))) is Conv2dSame


OTHERS = {
    "no stride": dict(),
    "groups": dict(groups=2),
    "two strides": dict(stride=(2, 1)),
    "more padding than kernel": dict(stride=2, padding=3),
}


@pytest.mark.parametrize("name", OTHERS)
def test_only_first_layers_have_a_slope_of_our_own(name):
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 8, 3, **OTHERS[name]).double().requires_grad_(False)
    x = normal(2, 4, 8, 8).requires_grad_()
    expected = torch.autograd.grad(conv(x).square().sum(), x)[0]
    assert type(lean.lean(conv)) is lean.Conv2d and not convolve.few(conv)
    assert not convolve.few(nn.Conv2d(5, 8, 3, stride=2))
    with lean.layers():
        y = conv(x)
        assert torch.equal(torch.autograd.grad(y.square().sum(), x)[0], expected)
    assert "_Convolution" not in type(y.grad_fn).__name__


@pytest.mark.parametrize(
    "own", [dict(stride=2, dilation=2), dict(padding_mode="reflect"), dict(padding="same")]
)
def test_convolutions_with_gaps_or_other_edges_stay_as_they_are(own):
    own = dict(padding=1) | own
    assert type(lean.lean(nn.Conv2d(3, 8, 3, **own))) is nn.Conv2d


def first(kernel, stride=2, padding=0, channels=3):
    """A network's first layer, as float64 knows it best."""
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, 5, kernel, stride=stride, padding=padding)
    return conv.double().requires_grad_(False)


@pytest.mark.parametrize("size", [(12, 12), (13, 14), (9, 7), (7, 10)])
@pytest.mark.parametrize(
    "kernel, stride, padding",
    [(k, s, p) for k in (1, 2, 3, 5, 7) for s in (2, 3, 4) for p in range(min(k, 4))]
    + [((3, 5), 2, (2, 0)), ((6, 1), 3, (5, 0))],
)
def test_the_slope_of_a_strided_convolution_is_a_convolution(size, kernel, stride, padding):
    conv = first(kernel, stride, padding)
    x = normal(2, 3, *size).requires_grad_()
    up = torch.randn_like(conv(x))
    expected = torch.autograd.grad(conv(x), x, up)[0]
    assert type(lean.lean(conv)) is lean.Conv2d
    with lean.layers():
        y = conv(x)
        found = torch.autograd.grad(y, x, up)[0]
    assert "_Convolution" in type(y.grad_fn).__name__
    assert torch.allclose(found, expected, rtol=0, atol=1e-12) and bool(expected.any())


@pytest.mark.parametrize("size", [(12, 12), (13, 14), (8, 7)])
@pytest.mark.parametrize("kernel", [3, 4, 5])
def test_and_so_it_is_with_the_padding_of_tensorflow(size, kernel):
    torch.manual_seed(0)
    conv = Conv2dSame(3, 5, kernel, stride=2).double().requires_grad_(False)
    x, target = normal(2, 3, *size), torch.tensor([3, 7])

    def model(z):
        return conv(z).square().flatten(1)

    expected = slopes(model, x, target)
    assert type(lean.lean(conv)) is lean.Conv2dSame
    assert torch.allclose(engine.gradients(model, x, target), expected, rtol=0, atol=1e-12)


def test_forward_passes_of_a_metric_do_not_pad_the_pictures(monkeypatch):
    torch.manual_seed(0)
    conv = Conv2dSame(3, 5, 3, stride=2).requires_grad_(False)
    net = nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    x = normal(2, 3, 8, 8, dtype=torch.float32)
    own = dict(size=3, count=2, draws=4, bounds=(-3.0, 3.0), softmax=True)
    expected = tl.metrics.perturbation_curve(net, x, 1, x[:, 0], **own)
    padded = watch_padding(monkeypatch)
    curve = tl.metrics.perturbation_curve(lean.lean(net), x, 1, x[:, 0], **own)
    assert set(padded) == {conv.weight.shape} and torch.allclose(curve, expected, atol=1e-5)


def test_a_first_layer_whose_weights_want_gradients_gets_them():
    conv = lean.lean(first(3).requires_grad_())
    with lean.layers():
        y = conv(normal(1, 3, 8, 8).requires_grad_())
    y.sum().backward()
    assert bool(conv.weight.grad.any()) and bool(conv.bias.grad.any())


def test_the_slope_of_a_first_layer_has_a_slope():
    conv = first(3, padding=1)
    x = normal(1, 3, 6, 6).requires_grad_()

    def penalty(z):
        return torch.autograd.grad(conv(z).pow(3).sum(), z, create_graph=True)[0].square().sum()

    expected = torch.autograd.grad(penalty(x), x)[0]
    lean.lean(conv)
    with lean.layers():
        found = torch.autograd.grad(penalty(x), x)[0]
    assert torch.allclose(found, expected, rtol=1e-9) and bool(expected.any())


def test_a_first_layer_follows_the_chosen_precision():
    net = nn.Sequential(first(3).float(), nn.ReLU(), nn.Flatten()).eval()
    x, target = normal(1, 3, 8, 8, dtype=torch.float32), torch.tensor([4])
    other = lean.lean(copy.deepcopy(net))
    for name in ("float32", "bfloat16"):
        with tl.precision(name):
            assert torch.equal(tl.gradient(other, x, target), tl.gradient(net, x, target))


def test_a_model_may_have_an_autocast_of_its_own():
    net = nn.Sequential(first(3).float(), nn.ReLU(), nn.Flatten()).eval()
    x, target = normal(1, 3, 8, 8, dtype=torch.float32), torch.tensor([4])

    def rounded(model, z):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return model(z)

    expected = tl.gradient(partial(rounded, net), x, target)
    assert torch.equal(tl.gradient(partial(rounded, lean.lean(net)), x, target), expected)


def test_outside_the_engine_the_layers_are_the_ones_that_they_replace():
    net = lean.lean(nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU6(inplace=True)).eval())
    x = normal(1, 2, 3, 3, dtype=torch.float32).requires_grad_()
    assert "Hardtanh" in type(net(x).grad_fn).__name__
    with lean.layers():
        assert "Clip" in type(net(x).grad_fn).__name__
        assert net(x.detach()).shape == x.shape  # forward passes need no lean layers
    with pytest.raises(ZeroDivisionError), lean.layers():
        raise ZeroDivisionError
    assert "Hardtanh" in type(net(x).grad_fn).__name__
    one = torch.func.grad(lambda z: net(z[None]).sum())
    with lean.layers():
        assert torch.allclose(
            one(x[0].detach()),
            slopes(lambda z: net(z).flatten(1).sum(1, True), x.detach(), torch.tensor([0]))[0],
        )
