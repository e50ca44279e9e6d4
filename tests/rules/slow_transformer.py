"""Transformers written with autograd and detach, as an oracle for rules that walk a tape.

In "input times gradient" a rule is a forward pass in which something stands still: a gate, the
deviation of a norm, half of a product. What comes out of backpropagation, times the input, is then
the relevance of LRP with epsilon = 0, whatever the biases are.
"""

import math

import torch
from torch import Tensor

KINDS = ("attnlrp", "pruned")  # LRP with biases, and LibraGrad


def halved(product: Tensor) -> Tensor:
    """The product, with half of its gradient: each of the two factors gets half."""
    return product / 2 + (product / 2).detach()


def gated(function, z: Tensor) -> Tensor:
    """An activation as z times a gate that stands still."""
    return z * (function(z) / z).detach()


def norm(z: Tensor, weight: Tensor, bias: Tensor | None, rms: bool) -> Tensor:
    """A layer norm or an RMS norm whose deviation stands still."""
    centred = z if rms else z - z.mean(-1, keepdim=True)
    deviation = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt().detach()
    return centred / deviation * weight + (0 if bias is None else bias)


def attention(q: Tensor, k: Tensor, v: Tensor, kind: str, mask: Tensor | None = None) -> Tensor:
    """One head, (N, T, d) each; `mask` is True where a token must not look."""
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    if kind == "attnlrp":
        scores = halved(scores)
    if mask is not None:
        scores = scores.masked_fill(mask, -math.inf)
    weights = scores.softmax(-1)
    return halved(weights @ v) if kind == "attnlrp" else weights.detach() @ v


def times_gradient(function, x: Tensor, target: int) -> Tensor:
    """x times the gradient of one score of each row, (N, ...)."""
    x = x.clone().requires_grad_()
    return (x * torch.autograd.grad(function(x)[:, target].sum(), x)[0]).detach()
