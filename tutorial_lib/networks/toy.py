"""Toy networks, most of them the lecture's, small enough to follow in the head.

All compute in float64, map (N, inputs) to scores (N, 1), and are frozen and in eval mode.
"""

from collections.abc import Sequence

import torch
from torch import nn


def hinge() -> nn.Sequential:
    """Make a network that is flat up to 10, and then as steep as x.

        f(x) = max(0, x - 10)

    Returns:
        A frozen float64 network in eval mode, from (N, 1) to scores (N, 1).

    Example:
        >>> tl.toy.hinge()(torch.tensor([[12.0]]).double())
        tensor([[2.]], dtype=torch.float64)
    """
    return _frozen_network(_dense_layer([[1]], [-10]), nn.ReLU())


def minimum() -> nn.Sequential:
    """Make a network that computes the smaller one of two inputs.

        f(i1, i2) = relu(i1) - relu(i1 - i2) = min(i1, i2)  for i1 >= 0

    Returns:
        A frozen float64 network in eval mode, from (N, 2) to scores (N, 1).

    Example:
        >>> tl.toy.minimum()(torch.tensor([[3.0, 1.0]]).double())
        tensor([[1.]], dtype=torch.float64)
    """
    return _frozen_network(_dense_layer([[1, 0], [1, -1]]), nn.ReLU(), _dense_layer([[1, -1]]))


def saturating() -> nn.Sequential:
    """Make a network that grows to 1 at x = 1, and then is flat.

        f(x) = 1 - relu(1 - x)

    Returns:
        A frozen float64 network in eval mode, from (N, 1) to scores (N, 1).

    Example:
        >>> tl.toy.saturating()(torch.tensor([[2.0]]).double())
        tensor([[1.]], dtype=torch.float64)
    """
    return _frozen_network(_dense_layer([[-1]], [1]), nn.ReLU(), _dense_layer([[-1]], [1]))


def cancelling() -> nn.Sequential:
    """Make a network of one unit in which two inputs cancel.

        f(i1, i2) = relu(i1 - i2 - 1)

    A dense layer of weight 1 stands behind the unit.

    Returns:
        A frozen float64 network in eval mode, from (N, 2) to scores (N, 1).

    Example:
        >>> tl.toy.cancelling()(torch.tensor([[3.0, 3.0]]).double())
        tensor([[0.]], dtype=torch.float64)
    """
    return _frozen_network(_dense_layer([[1, -1]], [-1]), nn.ReLU(), _dense_layer([[1]]))


def wirings() -> tuple[nn.Sequential, nn.Sequential]:
    """Make two networks that compute one function with different units.

        f(x1, x2) = relu(relu(x1) - 1 - relu(x2))
        g(x1, x2) = relu(relu(x1 - 1) - relu(x2))

    Sundararajan et al. (2017), Fig. 7. The two scores are equal for every x.

    Returns:
        The networks f and g, frozen, float64 and in eval mode, from (N, 2) to scores (N, 1).

    Example:
        >>> [net(torch.tensor([[3.0, 1.0]]).double()).item() for net in tl.toy.wirings()]
        [1.0, 1.0]
    """
    f = _frozen_network(nn.ReLU(), _dense_layer([[1, -1]], [-1]), nn.ReLU())
    first, second = _dense_layer([[1, 0], [0, 1]], [-1, 0]), _dense_layer([[1, -1]])
    return f, _frozen_network(first, nn.ReLU(), second, nn.ReLU())


def plane() -> nn.Sequential:
    """Make the network of the book's recurring picture, which cuts the plane into tiles.

        f(x) = v^T relu(W x + c),  eight ReLUs on two inputs from -1 to 1

    Its weights are chosen so that gradients differ from tile to tile: at (0.6, 0.35) the gradient
    of input 2 is negative, and its mean along the way from (-0.9, -0.9) is positive.

    Returns:
        A frozen float64 network in eval mode, from (N, 2) to scores (N, 1).

    Example:
        >>> x, b = torch.tensor([[0.6, 0.35]]).double(), torch.tensor([[-0.9, -0.9]]).double()
        >>> tl.integrated_gradients(tl.toy.plane(), x, 0, baseline=b).round(decimals=2)
        tensor([[1.1200, 0.7400]], dtype=torch.float64)
    """
    rows = [[-0.9, -0.1], [-0.9, -0.5], [0.7, 0.6], [-0.5, -1.2]]
    rows += [[0.0, -1.0], [0.4, -1.2], [0.7, -0.8], [-0.8, 0.3]]
    bias = [0.7, -0.5, 0.3, 0.1, -0.6, -0.4, 0.0, -0.6]
    values = [[0.9, -0.8, 1.1, -0.8, 0.7, -1.3, 1.1, -0.8]]
    return _frozen_network(_dense_layer(rows, bias), nn.ReLU(), _dense_layer(values))


def _dense_layer(weight: Sequence, bias: Sequence | None = None) -> nn.Linear:
    """Make a float64 layer with these weights (outputs, inputs) and biases (outputs)."""
    layer = nn.Linear(len(weight[0]), len(weight), bias=bias is not None).double()
    layer.weight.data = torch.tensor(weight, dtype=torch.float64)
    if bias is not None:
        layer.bias.data = torch.tensor(bias, dtype=torch.float64)
    return layer


def _frozen_network(*layers: nn.Module) -> nn.Sequential:
    """Put the layers one after another, in eval mode and without gradients of the weights."""
    return nn.Sequential(*layers).eval().requires_grad_(False)
