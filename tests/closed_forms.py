"""Small models with known answers, from (N, ...) to scores (N, C), and how to compare maps."""

import torch
from torch import Tensor, nn


def linear(weight: Tensor):
    """Score c of x is weight[c] . x."""
    return lambda x: x.flatten(1) @ weight.flatten(1).T


def quadratic(matrix: Tensor):
    """One score, f(x) = x' A x / 2 with A symmetric: gradient A x."""
    return lambda x: (x @ matrix * x).sum(1, keepdim=True) / 2


def saturating(x: Tensor) -> Tensor:
    """f(x) = 1 - relu(1 - x): grows to 1 at x = 1, then is flat."""
    return 1 - (1 - x).relu()


def hinge(x: Tensor) -> Tensor:
    """f(x) = relu(x - 10): gradient x input jumps from 0 to 10 at the kink."""
    return (x - 10).relu()


def tanh_mlp(inputs: int = 6, seed: int = 0) -> nn.Module:
    """A smooth two-layer network in float64."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(inputs, 16), nn.Tanh(), nn.Linear(16, 3))
    return net.double().eval()


def symmetric(size: int, seed: int = 0) -> Tensor:
    half = normal(size, size, seed=seed)
    return half + half.T


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def differs_by(ours: Tensor, theirs: Tensor) -> float:
    """The distance of two tensors, as a fraction of the second one's norm."""
    ours, theirs = ours.detach(), theirs.detach()
    return float((ours - theirs).norm() / theirs.norm().clamp(min=1e-6))


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-9) -> bool:
    """Whether two maps are equal up to rounding, and not both 0."""
    return bool(theirs.any()) and differs_by(ours, theirs) <= tolerance
