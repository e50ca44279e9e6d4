"""The toy networks compute the functions that their names promise."""

import pytest
import torch

from tutorial_lib.networks import toy

POINTS = torch.tensor([[0.0, 0.0], [3.0, 1.0], [1.0, 3.0], [2.0, 2.0], [5.5, 0.5]]).double()
X = torch.linspace(-3, 15, 19, dtype=torch.float64)[:, None]


@pytest.mark.parametrize(
    "network, at, wanted",
    [
        (toy.hinge(), X, (X - 10).clamp(min=0)),
        (toy.saturating(), X, 1 - (1 - X).clamp(min=0)),
        (toy.minimum(), POINTS, POINTS.amin(1, keepdim=True)),
        (toy.cancelling(), POINTS, (POINTS[:, :1] - POINTS[:, 1:] - 1).clamp(min=0)),
    ],
)
def test_a_toy_network_is_its_function_frozen_and_in_eval_mode(network, at, wanted):
    assert torch.equal(network(at), wanted)
    assert not network.training and not any(p.requires_grad for p in network.parameters())


def test_the_two_wirings_are_one_function():
    f, g = toy.wirings()
    x = 8 * torch.rand(500, 2, generator=torch.Generator().manual_seed(0)).double() - 2
    wanted = (x[:, :1].relu() - 1 - x[:, 1:].relu()).relu()
    assert torch.allclose(f(x), wanted) and torch.allclose(g(x), wanted)
