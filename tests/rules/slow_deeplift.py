"""DeepLIFT written slowly, as an oracle: one picture, dense matrices, a loop over the units.

For stacks of layers in eval mode. Every unit has a difference D = value - reference value and two
parts, D+ and D-, that add up to it; a multiplier belongs to each part. Pairs are columns: (n, 2).
"""

import math

import torch
from torch import Tensor, nn

MIXING = (nn.Linear, nn.Conv1d, nn.Conv2d)  # they split the whole difference of their input anew
BY_PARTS = (nn.Flatten, nn.AvgPool2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.MaxPool2d)
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.ELU, nn.Softplus, nn.SiLU)


def contributions(layers, x: Tensor, x0: Tensor, target: int, rule="rescale") -> Tensor:
    """What each entry of x (1, ...) adds to score `target`, against the reference x0 (1, ...).

    rule: one of the three words, or {number of a layer: word}, rescale elsewhere.
    """
    layers, shape, steps = list(layers), x.shape, []
    first = pair = split(x - x0)
    for i, layer in enumerate(layers):
        y, y0 = layer(x).detach(), layer(x0).detach()
        if isinstance(layer, MIXING):
            w, d = dense_matrix(layer, x), split(x - x0)
            pair = push(w, d)
            steps.append(("mixing", w, d.sum(1)))
        elif isinstance(layer, BY_PARTS):
            pooling = isinstance(layer, nn.MaxPool2d)
            w = largest(layer, x, x0) if pooling else dense_matrix(layer, x)
            pair = push(w, pair)
            steps.append(("by parts", w, None))
        else:
            assert isinstance(layer, ACTIVATIONS), layer
            word = word_of(layers, i, rule)
            units = zip(x.flatten().tolist(), x0.flatten().tolist(), pair.tolist(), strict=True)
            factors = torch.tensor([factor(word, layer, *unit) for unit in units], dtype=x.dtype)
            pair = factors * pair
            steps.append(("activation", factors, None))
        x, x0 = y, y0
        assert torch.allclose(pair.sum(1), (x - x0).flatten(), atol=1e-6), f"{layer} loses parts"
    m = torch.zeros(x.numel(), 2, dtype=x.dtype)
    m[target] = 1
    for kind, w, d in reversed(steps):
        m = w * m if kind == "activation" else push(w.T, m)
        if kind == "mixing":  # an input that rises meets column 0, one that falls column 1
            both = torch.where(d > 0, m[:, 0], torch.where(d < 0, m[:, 1], m.mean(1)))
            m = torch.stack([both, both], 1)
    return (first * m).sum(1).reshape(shape)


def split(d: Tensor) -> Tensor:
    """The pair of parts of an input's difference: what rises, what falls."""
    return torch.stack([d.flatten().clamp(min=0), d.flatten().clamp(max=0)], 1)


def push(w: Tensor, pair: Tensor) -> Tensor:
    """(w+ p+ + w- p-, w+ p- + w- p+): positive weights keep the two parts, negative ones swap."""
    return w.clamp(min=0) @ pair + w.clamp(max=0) @ pair.flip(1)


def dense_matrix(layer: nn.Module, x: Tensor) -> Tensor:
    """The matrix of a layer that is linear up to a constant: a unit vector for each column."""
    zero, columns = torch.zeros_like(x), []
    for j in range(x.numel()):
        unit = zero.clone()
        unit.view(-1)[j] = 1
        columns.append((layer(unit) - layer(zero)).flatten().detach())
    return torch.stack(columns, 1)


def largest(pool: nn.MaxPool2d, x: Tensor, x0: Tensor) -> Tensor:
    """Max pooling as a matrix: the place of the larger of the two maxima pays the difference."""
    twin = nn.MaxPool2d(pool.kernel_size, pool.stride, pool.padding, return_indices=True)
    (y, at), (y0, at0) = twin(x), twin(x0)
    d, w = (x - x0).flatten(), torch.zeros(y.numel(), x.numel(), dtype=x.dtype)
    for row, rise in enumerate((y - y0).flatten().tolist()):
        place = int((at if rise >= 0 else at0).flatten()[row])
        place += row // y[0, 0].numel() * x[0, 0].numel()  # PyTorch counts within a channel
        w[row, place] = rise / d[place] if d[place] else 1  # 1 where both are still
    return w


def word_of(layers: list[nn.Module], i: int, rule) -> str:
    """The rule of activation i: "genomics" asks which mixing layer came last before it."""
    if isinstance(rule, dict):
        return rule.get(i, "rescale")
    last = [layer for layer in layers[:i] if isinstance(layer, MIXING)][-1:]
    dense = bool(last) and isinstance(last[0], nn.Linear)
    return rule if rule != "genomics" else "reveal_cancel" if dense else "rescale"


def factor(word: str, f: nn.Module, a: float, a0: float, parts: list[float]) -> list[float]:
    """What an activation makes of each of the two parts of one unit, as quotients y / D."""
    plus, minus = parts
    if word == "reveal_cancel":
        return [shapley(f, a0, plus, minus), shapley(f, a0, minus, plus)]
    r = slope(f, a0) if abs(a - a0) < 1e-7 else (value(f, a) - value(f, a0)) / (a - a0)
    return [r, r]


def shapley(f: nn.Module, a0: float, part: float, other: float) -> float:
    """One part's shift alone and after the other's, averaged; the limit from above if empty."""
    if abs(part) < 5e-8:
        right = [slope(f, math.nextafter(a, math.inf)) for a in (a0, a0 + other)]
        return sum(right) / 2
    alone = value(f, a0 + part) - value(f, a0)
    after = value(f, a0 + other + part) - value(f, a0 + other)
    return (alone + after) / 2 / part


def value(f: nn.Module, a: float) -> float:
    return float(f(torch.tensor(a, dtype=torch.float64)))


def slope(f: nn.Module, a: float) -> float:
    with torch.enable_grad():
        at = torch.tensor(a, dtype=torch.float64, requires_grad=True)
        return float(torch.autograd.grad(f(at), at)[0])
