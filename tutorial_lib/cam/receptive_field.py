"""Where the cells of a layer look, and how to draw them there."""

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
STAYS = {"native_batch_norm", "native_group_norm", "native_layer_norm", "cat", "stack", "split"}
STAYS |= {"split_with_sizes", "unbind", "select", "slice", "unsqueeze", "squeeze", "view"}
STAYS |= {"_unsafe_view", "expand", "alias", "_to_copy", "_softmax", "_log_softmax", "mean", "sum"}
STAYS |= {"hardtanh", "hardswish", "leaky_relu", "permute", "transpose"}


def centres(model: Callable, x: Tensor, layer: nn.Module | str) -> tuple[tuple, tuple]:
    """Centres of a layer's receptive fields: ((top, step down), (left, step across)), in pixels.

    Cell (i, j) sees the pixels around (top + i * step down, left + j * step across), counted from 0
    at the centre of the first pixel. For windows of k cells, dilation d, stride s and padding p,
    over cells with centres a + b j:  a' = a + b (d (k - 1) / 2 - p),  b' = b s.

    x: (B, C, H, W). layer: as in `grad_cam`. Where branches meet, the first one that can be
    followed counts, so a factor for whole channels does no harm. Where none can, an operation that
    may move cells in another way is a NotImplementedError that names it.

    >>> tl.receptive.centres(torchvision.models.resnet18().eval(), x, "layer4")
    ((0.0, 32.0), (0.0, 32.0))
    """
    checks.model(model)
    x = layer_outputs.pictures(x)[:1]
    module = layer_outputs.found(model, layer, x)
    with (
        torch.inference_mode(False),
        layer_outputs.tapped(module, lambda output: output) as outputs,
    ):
        tape = record(model, x.clone(), torch.zeros(1, dtype=torch.long))
    output = layer_outputs.one_map(outputs, model, module, x)
    form = output.data_ptr(), output.shape, output.stride()
    same = [n for n, v in tape.values.items() if (v.data_ptr(), v.shape, v.stride()) == form]
    if not same:
        raise layer_outputs.unused(model, module)
    found, lost = {0: ((0.0, 1.0), (0.0, 1.0))}, []
    wanted = max(same)
    for step in tape.until(wanted).steps:
        moved = _moved(tape, step, found)
        if moved:
            found[step.output] = moved
        elif any(i in found for i in step.inputs):
            lost.append(step)
    if wanted not in found:
        raise NotImplementedError(
            f"model: {lost[-1].name} at {lost[-1].where} may move cells in a way that is not "
            "followed (convolution, pooling and padding are); upsample='bilinear' needs no centres"
        )
    return found[wanted]


def placed(cells: Tensor, places: tuple[tuple, tuple], size: torch.Size) -> Tensor:
    """Cells (B, h, w) drawn at their centres, linear between them, constant beyond: (B, H, W)."""
    where = []
    for (start, step), count, length in zip(places, cells.shape[1:], size, strict=True):
        pixels = torch.arange(length, device=cells.device, dtype=cells.dtype)
        where.append(2 * (pixels - start) / step / max(count - 1, 1) - 1)
    grid = torch.stack(torch.meshgrid(*where, indexing="ij")[::-1], -1)  # (H, W, 2): across, down
    grid = grid.expand(len(cells), -1, -1, -1)
    options = dict(mode="bilinear", padding_mode="border", align_corners=True)
    return F.grid_sample(cells[:, None], grid, **options)[:, 0]


def _moved(tape: Tape, step: Step, found: dict) -> tuple[tuple, tuple] | None:
    """The centres of a step's output; None where they are not known."""
    before = [(found[i], tape.values[i].shape[-2:]) for i in step.inputs if i in found]
    if not before:
        return None
    if step.name not in WINDOWS:
        size = tape.values[step.output].shape[-2:]
        same = [centre for centre, shape in before if shape == size]
        return same[0] if same and _stays(tape, step) else None
    window = _window(step)
    return window and tuple(
        (a + b * (d * (k - 1) / 2 - p), b * s)
        for (a, b), (k, s, p, d) in zip(before[0][0], window, strict=True)
    )


def _window(step: Step) -> list[tuple] | None:
    """(size, stride, padding, dilation) down and across; None where they are not fixed."""
    if step.name in PADDING:
        left, _, top, _ = (*step.fixed(1), 0, 0)[:4]
        return [(1, 1, top, 1), (1, 1, left, 1)]
    if step.name == "convolution":
        _, weight, _, *rest = step.args[0]
        transposed = step.fixed(6)
        if transposed or not isinstance(weight, Tensor):
            return None
        return list(zip(weight.shape[2:], *rest[:3], strict=True))
    _, kernel, *rest = step.args[0]
    stride, padding, dilation = (*rest, *[None] * 3)[:3]
    dilation = dilation if step.name.startswith("max") else None
    rest = stride or kernel, padding or (0, 0), dilation or (1, 1)
    return list(zip(kernel, *rest, strict=True))


def _stays(tape: Tape, step: Step) -> bool:
    """Whether cells stay where they are, given that h and w do."""
    ndim = tape.values[step.inputs[0]].ndim
    if step.name == "permute":
        return [d % ndim for d in step.fixed(1)][-2:] == [ndim - 2, ndim - 1]
    if step.name == "transpose":
        return all(step.fixed(k) % ndim < ndim - 2 for k in (1, 2))
    op = step.op if hasattr(step.op, "tags") else getattr(step.op, step.op.overloads()[0])
    return step.name in STAYS or torch.Tag.pointwise in op.tags
