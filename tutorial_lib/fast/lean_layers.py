"""Two layers that give the same numbers with fewer trips to memory.

The layers between the convolutions of a small network wait for memory and not for arithmetic
(the chapter on speed). `prepare` puts these in the place of the layers of which they are
subclasses; parameters and settings stay as they are.
"""

import sys

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _ClipInPlace(torch.autograd.Function):
    """Compute min(max(x, 0), 6) in the memory of x; the backward pass reads the output only."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clamp_(0.0, 6.0)

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.mark_dirty(*inputs)
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx, grad_output: Tensor) -> Tensor:
        (output,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(grad_output, output, 0.0, 6.0)

    @staticmethod
    def jvp(ctx, tangent: Tensor) -> Tensor:
        (output,) = ctx.saved_tensors
        return tangent.mul_((output > 0) & (output < 6))


class LeanReLU6(nn.ReLU6):
    """A ReLU6 that keeps its output for the backward pass, where PyTorch's copies its input."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of x, (...), in the memory of x where that is allowed."""
        if not (self.inplace and torch.is_grad_enabled() and x.requires_grad) or x.is_leaf:
            return super().forward(x)
        return _ClipInPlace.apply(x)


class LeanConv2dSame(nn.Conv2d):
    """A convolution with TensorFlow's padding that does not copy its input.

    Where TensorFlow puts one more zero behind x than before it, the kernel gets a zero in front:
    the surplus zero of an even padding then meets a weight of 0 (eq-fast-even in the book).
    This happens only where a gradient is wanted, so that rules that read weights (LRP's flat rule)
    see those of the layer.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of x, (N, C, H, W)."""
        sides = zip(x.shape[-2:], self.stride, self.kernel_size, strict=True)
        zeros = [max((-(-size // s) - 1) * s + k - size, 0) for size, s, k in sides]
        odd = [n % 2 for n in zeros]
        weight, padding = self.weight, [(n + 1) // 2 for n in zeros]
        if any(odd) and torch.is_grad_enabled() and x.requires_grad:
            weight = F.pad(weight, (odd[1], 0, odd[0], 0))
        elif any(odd):
            (top, left), (down, right) = [n // 2 for n in zeros], padding
            x, padding = F.pad(x, (left, right, top, down)), 0
        return F.conv2d(x, weight, self.bias, self.stride, padding, 1, self.groups)


def make_lean(model: nn.Module) -> nn.Module:
    """Replace the layers of a model that have a lean form, in place; the scores stay the same."""
    timm_layers = sys.modules.get("timm.layers")  # a network of timm has imported it
    for module in model.modules():
        if type(module) is nn.ReLU6:
            module.__class__ = LeanReLU6
        elif timm_layers and type(module) is timm_layers.Conv2dSame and max(module.dilation) == 1:
            module.__class__ = LeanConv2dSame
    return model
