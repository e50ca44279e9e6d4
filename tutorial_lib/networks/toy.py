"""The lecture's toy networks, of one to three units: small enough to follow in the head.

All compute in float64, map (N, inputs) to scores (N, 1), and are frozen and in eval mode.
"""

from collections.abc import Sequence

import torch
from torch import nn


def hinge() -> nn.Sequential:
    """f(x) = max(0, x - 10): flat up to 10, then as steep as x.

    >>> toy.hinge()(torch.tensor([[12.0]]).double())
    tensor([[2.]], dtype=torch.float64)
    """
    return _network(_dense([[1]], [-10]), nn.ReLU())


def minimum() -> nn.Sequential:
    """min(i1, i2) for i1 >= 0, as relu(i1) - relu(i1 - i2).

    >>> toy.minimum()(torch.tensor([[3.0, 1.0]]).double())
    tensor([[1.]], dtype=torch.float64)
    """
    return _network(_dense([[1, 0], [1, -1]]), nn.ReLU(), _dense([[1, -1]]))


def saturating() -> nn.Sequential:
    """f(x) = 1 - relu(1 - x): grows to 1 at x = 1, then is flat.

    >>> toy.saturating()(torch.tensor([[2.0]]).double())
    tensor([[1.]], dtype=torch.float64)
    """
    return _network(_dense([[-1]], [1]), nn.ReLU(), _dense([[-1]], [1]))


def cancelling() -> nn.Sequential:
    """relu(i1 - i2 - 1), with a dense layer of weight 1 behind it.

    >>> toy.cancelling()(torch.tensor([[3.0, 3.0]]).double())
    tensor([[0.]], dtype=torch.float64)
    """
    return _network(_dense([[1, -1]], [-1]), nn.ReLU(), _dense([[1]]))


def wirings() -> tuple[nn.Sequential, nn.Sequential]:
    """Two networks of one function (Sundararajan et al., 2017, Fig. 7).

    f = relu(relu(x1) - 1 - relu(x2)) and g = relu(relu(x1 - 1) - relu(x2)), equal for every x.

    >>> [net(torch.tensor([[3.0, 1.0]]).double()).item() for net in toy.wirings()]
    [1.0, 1.0]
    """
    f = _network(nn.ReLU(), _dense([[1, -1]], [-1]), nn.ReLU())
    g = _network(_dense([[1, 0], [0, 1]], [-1, 0]), nn.ReLU(), _dense([[1, -1]]), nn.ReLU())
    return f, g


def _dense(weight: Sequence, bias: Sequence | None = None) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight), bias=bias is not None).double()
    layer.weight.data = torch.tensor(weight, dtype=torch.float64)
    if bias is not None:
        layer.bias.data = torch.tensor(bias, dtype=torch.float64)
    return layer


def _network(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers).eval().requires_grad_(False)
