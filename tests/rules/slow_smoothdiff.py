"""SmoothDiff once more, in loops: matrices and counts in place of a tape."""

import itertools

import torch
from torch import Tensor, nn

import tutorial_lib as tl


def draws(x: Tensor, sigma, samples: int, seed: int) -> Tensor:
    """The noisy copies (samples, B, ...) that the method draws."""
    return tl.probes.gaussian(x, sigma=sigma, samples=samples, seed=seed).points()


def dense_map(net: nn.Sequential, x: Tensor, target: int, **noise) -> Tensor:
    """Of dense layers and activations: the product of weights and mean slopes, for each row."""
    copies, maps = draws(x, **noise), []
    for row in range(len(x)):
        z, back = copies[:, row], torch.eye(net[0].in_features).to(x)
        for layer in net:  # back: d z / d x
            if isinstance(layer, nn.Linear):
                back = layer.weight @ back
            else:
                slopes = [slope(layer, v) for v in z.flatten()]
                mean = torch.stack(slopes).view(z.shape).mean(0)
                back = mean[:, None] * back
            z = layer(z)
        maps.append(back[target])
    return torch.stack(maps).detach()


def slope(activation: nn.Module, v: Tensor) -> Tensor:
    v = v.detach().requires_grad_()
    return torch.autograd.grad(activation(v), v)[0]


def pool_shares(z: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """How often each place of (draws, H, W) is the maximum of each window: (windows, H, W)."""
    height, width = z.shape[1:]
    count = [(n + 2 * padding - kernel) // stride + 1 for n in (height, width)]
    shares = torch.zeros(count[0] * count[1], height, width).to(z)
    for draw in z:
        for w, (i, j) in enumerate(itertools.product(*map(range, count))):
            best = None
            for r, c in itertools.product(range(kernel), range(kernel)):
                r, c = i * stride - padding + r, j * stride - padding + c
                inside = 0 <= r < height and 0 <= c < width
                if inside and (best is None or draw[r, c] > draw[best]):
                    best = r, c
            shares[w, best[0], best[1]] += 1 / len(z)
    return shares
