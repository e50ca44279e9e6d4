"""Lean layers must give the numbers of the layers that they replace."""

from functools import partial

import pytest
import torch
from torch import nn

import tutorial_lib as tl
from tests.closed_forms import normal
from tutorial_lib.fast.lean_layers import LeanReLU6, make_lean


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


def gradients(net, x, target):
    """The gradient by a plain backward pass."""
    z = x.clone().requires_grad_()
    return torch.autograd.grad(net(z * 1).gather(1, target[:, None]).sum(), z)[0]


@pytest.mark.parametrize("inplace", [True, False])
@pytest.mark.parametrize("name", GRAPHS)
def test_a_lean_activation_gives_the_same_gradient_bit_for_bit(name, inplace):
    net = Graph(GRAPHS[name], inplace).eval().requires_grad_(False)
    x, target = normal(3, 4, 6, 6, dtype=torch.float32), torch.tensor([0, 3, 1])
    expected, scores = gradients(net, x, target), net(x)
    make_lean(net)
    assert type(net.act) is LeanReLU6
    assert torch.equal(gradients(net, x, target), expected)
    assert torch.equal(tl.engine.gradients(net, x, target), expected)
    assert torch.equal(net(x), scores)


def test_the_lean_activation_keeps_its_output_and_pytorchs_a_copy_of_its_input():
    kept = {}
    for act in (nn.ReLU6(inplace=True), make_lean(nn.ReLU6(inplace=True))):
        blocks = set()
        note = lambda t, blocks=blocks: blocks.add(t.untyped_storage().data_ptr()) or t  # noqa: E731
        x = normal(1, 50).requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            y = act(x * 1)
        kept[type(act)] = y.untyped_storage().data_ptr() in blocks
    assert kept == {nn.ReLU6: False, LeanReLU6: True}


def test_the_edges_of_the_clip_have_the_derivative_that_pytorch_gives_them():
    values = torch.tensor([[-1.0, 0.0, 1e-30, 3.0, 6.0, 6.1, torch.inf]])
    for k in range(values.shape[1]):
        nets = nn.ReLU6(inplace=True), make_lean(nn.ReLU6(inplace=True))
        assert torch.equal(*(gradients(net, values, torch.tensor([k])) for net in nets))


def penalty(net, z):
    """A score that is itself made of gradients."""
    slope = torch.autograd.grad(net(z).sum(), z, create_graph=True)[0]
    return slope.flatten(1).square()


def test_a_score_may_itself_be_a_gradient():
    net = Graph(lambda net, x: net.next(net.act(scaled(net, x)) ** 2)).eval().requires_grad_(False)
    x, target = normal(2, 4, 6, 6, dtype=torch.float32), torch.tensor([5, 9])
    expected = gradients(partial(penalty, net), x, target)
    make_lean(net)
    assert torch.equal(gradients(partial(penalty, net), x, target), expected)
    assert bool(expected.any())


@pytest.mark.slow
def test_torch_func_and_forward_mode_work_on_lean_layers():
    net = Graph(GRAPHS["a chain"]).eval().requires_grad_(False)
    x, along = normal(4, 6, 6, dtype=torch.float32), normal(4, 6, 6, seed=1, dtype=torch.float32)
    score = lambda z: net(z[None]).square().sum()  # noqa: E731
    expected = torch.func.grad(score)(x), torch.func.jvp(score, (x,), (along,))[1]
    second = torch.func.jvp(torch.func.grad(score), (x,), (along,))[1]
    make_lean(net)
    assert torch.allclose(torch.func.grad(score)(x), expected[0])
    assert torch.allclose(torch.func.jvp(score, (x,), (along,))[1], expected[1])
    assert torch.allclose(torch.func.jvp(torch.func.grad(score), (x,), (along,))[1], second)


def test_activations_that_a_hook_keeps_are_what_they_were():
    net = Graph(GRAPHS["a chain"]).eval().requires_grad_(False)
    x, target = normal(1, 4, 6, 6, dtype=torch.float32), torch.tensor([5])
    kept = {}
    for name in ("plain", "lean"):
        if name == "lean":
            make_lean(net)
        seen = []
        handle = net.act.register_forward_hook(lambda m, i, out, seen=seen: seen.append(out))
        gradients(net, x, target)
        handle.remove()
        kept[name] = seen[0].detach().clone()
    assert torch.equal(kept["plain"], kept["lean"])
