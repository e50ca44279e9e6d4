"""Layers opened: nn.LSTM, nn.GRU, nn.RNN and their cells by their equations, RMS norm and GLU.

PyTorch computes a recurrent layer in one operation that writes in place, and an RMS norm in one on
some devices only. While a model is recorded, these layers are computed by the same equations out of
place, from dense layers, sigmoid, tanh and products, so that each step stands on the tape. The
values are the same up to rounding.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class OpenLayers(TorchFunctionMode):
    """Inside, recurrent layers and RMS norms of this thread run step by step, out of place."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Run one function of PyTorch's, or the steps of a layer in its place."""
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if name in CELLS:
            z, state, *weights = args
            pair = not isinstance(state, Tensor)
            made = CELLS[name](z, tuple(state) if pair else (state,), *weights, **kwargs)
            return made if pair else made[0]
        if name in LAYERS:
            return _run_layer(LAYERS[name], *args, **kwargs)
        if name == "rms_norm":
            return _rms_norm(*args, **kwargs)
        if name == "glu":
            return _glu(*args, **kwargs)
        return func(*args, **kwargs)


def _rms_norm(input, normalized_shape, weight=None, eps=None) -> Tensor:
    """z / sqrt(mean of z^2 + eps) * weight, in float32 or better."""
    dims = tuple(range(-len(normalized_shape), 0))
    z = input.float() if input.dtype.itemsize < 4 else input
    eps = torch.finfo(z.dtype).eps if eps is None else eps
    z = (z * (z.pow(2).mean(dims, keepdim=True) + eps).rsqrt()).to(input.dtype)
    return z if weight is None else z * weight


def _glu(input: Tensor, dim: int = -1) -> Tensor:
    """The first half of the channels, times the sigmoid of the second."""
    signal, gate = input.chunk(2, dim)
    return signal * gate.sigmoid()


def _lstm_step(z, state, w_ih, w_hh, b_ih=None, b_hh=None, w_hr=None) -> tuple[Tensor, Tensor]:
    """c = f * c + i * g and h = o * tanh(c), with h projected if there is a w_hr."""
    h, c = state
    gates = F.linear(z, w_ih, b_ih) + F.linear(h, w_hh, b_hh)  # (N, 4 H)
    i, f, g, o = gates.chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    return (h if w_hr is None else F.linear(h, w_hr)), c


def _gru_step(z, state, w_ih, w_hh, b_ih=None, b_hh=None) -> tuple[Tensor]:
    """h = (1 - u) * n + u * h, with n = tanh(W z + r * (V h)) and the gates r and u."""
    (h,) = state
    r, u, n = F.linear(z, w_ih, b_ih).chunk(3, -1)
    r_h, u_h, n_h = F.linear(h, w_hh, b_hh).chunk(3, -1)
    u = (u + u_h).sigmoid()
    n = (n + (r + r_h).sigmoid() * n_h).tanh()
    return ((1 - u) * n + u * h,)


def _tanh_step(z, state, w_ih, w_hh, b_ih=None, b_hh=None) -> tuple[Tensor]:
    """h = tanh(W z + V h)."""
    return ((F.linear(z, w_ih, b_ih) + F.linear(state[0], w_hh, b_hh)).tanh(),)


def _relu_step(z, state, w_ih, w_hh, b_ih=None, b_hh=None) -> tuple[Tensor]:
    """h = relu(W z + V h)."""
    return ((F.linear(z, w_ih, b_ih) + F.linear(state[0], w_hh, b_hh)).relu(),)


LAYERS = {"lstm": _lstm_step, "gru": _gru_step, "rnn_tanh": _tanh_step, "rnn_relu": _relu_step}
CELLS = {f"{name}_cell": step for name, step in LAYERS.items()}


def _run_layer(
    step: Callable,
    z: Tensor,
    state: Tensor | tuple,
    weights: list[Tensor],
    has_biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool | None = None,
) -> tuple[Tensor, ...]:
    """Return (outputs, last state ...) of all layers and directions, as PyTorch's function does."""
    if batch_first is None or not isinstance(has_biases, bool):  # the arguments of packed sequences
        raise NotImplementedError(
            "model: a PackedSequence in a recurrent layer cannot be followed. Give it the padded "
            "batch, nn.utils.rnn.pad_packed_sequence(packed, batch_first=True)[0]"
        )
    state = (state,) if isinstance(state, Tensor) else tuple(state)
    z = z.transpose(0, 1) if batch_first else z  # (T, N, F)
    directions, last = 1 + bidirectional, []
    count = len(weights) // (layers * directions)
    for layer in range(layers):
        outputs = []
        for backward in range(directions):
            k = layer * directions + backward
            output, final = _run_direction(
                step,
                z,
                [s[k] for s in state],
                weights[k * count : (k + 1) * count],
                has_biases,
                backward,
            )
            outputs.append(output)
            last.append(final)
        z = torch.cat(outputs, -1) if bidirectional else outputs[0]  # (T, N, directions * H)
        if train and dropout and layer < layers - 1:
            z = F.dropout(z, dropout)
    return (z.transpose(0, 1) if batch_first else z, *map(torch.stack, zip(*last, strict=True)))


def _run_direction(
    step: Callable, z: Tensor, state: list[Tensor], weights, has_biases: bool, backward: int
) -> tuple[Tensor, tuple]:
    """Return the outputs (T, N, H) of one layer in one direction of time, and its last state."""
    w_ih, w_hh, *rest = weights
    if not has_biases:
        rest = [None, None, *rest]
    outputs, inputs = [], z.unbind(0)
    for moment in reversed(inputs) if backward else inputs:
        state = step(moment, state, w_ih, w_hh, *rest)
        outputs.append(state[0])
    return torch.stack(outputs[::-1] if backward else outputs), state
