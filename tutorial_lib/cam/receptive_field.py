"""Where the cells of a layer look, and how to draw them there.

The model runs once and is written down on a tape: a list of steps, one for each operation, with the
numbered values that they read and make (`rules/tape.py`). The centres are followed along the steps.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutorial_lib import checks
from tutorial_lib.cam import layer_outputs
from tutorial_lib.rules.recorder import record
from tutorial_lib.rules.tape import Step, Tape

PADDING = ("constant_pad_nd", "reflection_pad2d", "replication_pad2d")
WINDOWS = (*PADDING, "convolution", "max_pool2d_with_indices", "avg_pool2d")
# Beside PyTorch's pointwise operations, these leave a cell where it is if h and w stay.
KEEPS = {"native_batch_norm", "native_group_norm", "native_layer_norm", "cat", "stack", "split"}
KEEPS |= {"split_with_sizes", "unbind", "select", "slice", "unsqueeze", "squeeze", "view"}
KEEPS |= {"_unsafe_view", "expand", "alias", "_to_copy", "_softmax", "_log_softmax", "mean", "sum"}
KEEPS |= {"hardtanh", "hardswish", "leaky_relu", "permute", "transpose"}


def centres(model: Callable, x: Tensor, layer: nn.Module | str) -> tuple[tuple, tuple]:
    """Find the centres of a layer's receptive fields, in pixels.

    Cell (i, j) sees the pixels around (top + i * step_down, left + j * step_across), counted from
    0 at the centre of the first pixel. A window of k cells, with dilation d, stride s and padding
    p, over cells with centres a + b j has the centres a' + b' j with

        a' = a + b (d (k - 1) / 2 - p),    b' = b s

    Where branches meet, the first one that can be followed counts, so a factor for whole channels
    does no harm. For `layer4` of torchvision's ResNet-18 the result is ((0.0, 32.0), (0.0, 32.0)).

    Args:
        model: Callable from (N, C, H, W) to scores (N, classes); a module in eval mode.
        x: (B, C, H, W) finite floating-point pictures.
        layer: A module of the model, or its dotted name, as in `tl.grad_cam`.

    Returns:
        ((top, step_down), (left, step_across)).

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, or the layer will not do, as in `tl.grad_cam`.
        NotImplementedError: No branch can be followed; the message names the operation that may
            move cells in another way.

    Example:
        The first layers of a ResNet:

        >>> stem = nn.Sequential(nn.Conv2d(3, 8, 7, 2, 3), nn.MaxPool2d(3, 2, 1), nn.Flatten())
        >>> tl.receptive.centres(stem.eval(), x, "1")
        ((0.0, 4.0), (0.0, 4.0))
    """
    checks.model(model)
    x = layer_outputs.pictures(x)[:1]
    module = layer_outputs.found(model, layer, x)
    tap = layer_outputs.tapped(module, lambda output: output)
    with torch.inference_mode(False), tap as outputs:
        tape = record(model, x.clone(), torch.zeros(1, dtype=torch.long))
    output = layer_outputs.one_map(outputs, model, module, x)
    layout = output.data_ptr(), output.shape, output.stride()
    same = [n for n, v in tape.values.items() if (v.data_ptr(), v.shape, v.stride()) == layout]
    if not same:
        raise layer_outputs.unused(model, module)
    known, lost = {0: ((0.0, 1.0), (0.0, 1.0))}, []  # centres by the number of the value
    number = max(same)
    for step in tape.until(number).steps:
        output_centres = _output_centres(tape, step, known)
        if output_centres:
            known[step.output] = output_centres
        elif any(i in known for i in step.inputs):
            lost.append(step)
    if number not in known:
        raise NotImplementedError(
            f"model: {lost[-1].name} at {lost[-1].location} may move cells in a way that is not "
            "followed (convolution, pooling and padding are); upsample='bilinear' needs no centres"
        )
    return known[number]


def placed(cells: Tensor, places: tuple[tuple, tuple], size: torch.Size) -> Tensor:
    """Draw cells at their centres, with straight lines between them and constant beyond.

    Args:
        cells: (B, h, w) map.
        places: ((top, step_down), (left, step_across)) in pixels, as `centres` returns them.
        size: (H, W) of the picture.

    Returns:
        (B, H, W) map.

    Example:
        >>> tl.receptive.placed(torch.tensor([[[0.0, 2.0]]]), ((0.0, 1.0), (0.0, 2.0)), (1, 4))
        tensor([[[0., 1., 2., 2.]]])
    """
    coordinates = []  # from -1 at the first cell to 1 at the last, as grid_sample has them
    for (start, step), count, length in zip(places, cells.shape[1:], size, strict=True):
        pixels = torch.arange(length, device=cells.device, dtype=cells.dtype)
        coordinates.append(2 * (pixels - start) / step / max(count - 1, 1) - 1)
    grid = torch.stack(torch.meshgrid(*coordinates, indexing="ij")[::-1], -1)  # (H, W, 2): x, y
    options = dict(mode="bilinear", padding_mode="border", align_corners=True)
    return F.grid_sample(cells[:, None], grid.expand(len(cells), -1, -1, -1), **options)[:, 0]


def _output_centres(tape: Tape, step: Step, known: dict) -> tuple[tuple, tuple] | None:
    """The centres of the cells that a step makes; None where they are not known.

    `known` has the centres of other values by their numbers.
    """
    inputs = [(known[i], tape.values[i].shape[-2:]) for i in step.inputs if i in known]
    if not inputs:
        return None
    if step.name not in WINDOWS:
        size = tape.values[step.output].shape[-2:]
        same = [centre for centre, shape in inputs if shape == size]
        return same[0] if same and _keeps_cells(tape, step) else None
    window = _window(step)
    return window and tuple(
        (a + b * (d * (k - 1) / 2 - p), b * s)
        for (a, b), (k, s, p, d) in zip(inputs[0][0], window, strict=True)
    )


def _window(step: Step) -> list[tuple] | None:
    """(size, stride, padding, dilation) down and across; None where they are not fixed."""
    if step.name in PADDING:
        left, _, top, _ = (*step.argument(1), 0, 0)[:4]
        return [(1, 1, top, 1), (1, 1, left, 1)]
    if step.name == "convolution":
        _, weight, _, *rest = step.args[0]
        if step.argument(6) or not isinstance(weight, Tensor):  # 6: whether it is transposed
            return None
        return list(zip(weight.shape[2:], *rest[:3], strict=True))
    _, kernel, *rest = step.args[0]
    stride, padding, dilation = (*rest, *[None] * 3)[:3]
    dilation = dilation if step.name.startswith("max") else None
    rest = stride or kernel, padding or (0, 0), dilation or (1, 1)
    return list(zip(kernel, *rest, strict=True))


def _keeps_cells(tape: Tape, step: Step) -> bool:
    """Whether a step leaves each cell where it is, given that h and w stay the same."""
    ndim = tape.values[step.inputs[0]].ndim
    if step.name == "permute":
        return [d % ndim for d in step.argument(1)][-2:] == [ndim - 2, ndim - 1]
    if step.name == "transpose":
        return all(step.argument(k) % ndim < ndim - 2 for k in (1, 2))
    op = step.op if hasattr(step.op, "tags") else getattr(step.op, step.op.overloads()[0])
    return step.name in KEEPS or torch.Tag.pointwise in op.tags
