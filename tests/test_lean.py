"""Lean layers must give the numbers of the layers that they replace, and only inside the engine."""

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from tests.closed_forms import normal
from tutorial_lib import engine, lean


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
    seen, owners = [], lean._owners
    monkeypatch.setattr(lean, "_owners", lambda up: seen.append(owners(up)) or seen[-1])
    assert lean.ALONE
    alone = lean._one_owner()  # the detour above holds it once more
    monkeypatch.setattr(lean, "ALONE", alone)
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
    monkeypatch.setattr(lean, "ALONE", None)
    monkeypatch.setattr(lean, "_owners", lambda up: 1 / 0)
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
    padded, pad = [], lean.F.pad
    monkeypatch.setattr(lean.F, "pad", lambda t, *a, **k: padded.append(t.shape) or pad(t, *a, **k))
    with lean.layers():
        assert torch.allclose(model(x.requires_grad_()), scores, rtol=0, atol=1e-12)
    assert torch.allclose(engine.gradients(model, x, target), expected, rtol=0, atol=1e-12)
    assert set(padded) == {conv.weight.shape}  # never the pictures


def test_dense_and_dilated_convolutions_keep_their_padding():
    for own in (dict(groups=1), dict(groups=2), dict(groups=4, dilation=2)):
        assert type(lean.lean(Conv2dSame(4, 4, 3, stride=2, **own))) is Conv2dSame


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
