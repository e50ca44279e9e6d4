"""Where the cells of a layer look, and how to draw them there."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutorial_lib import checks, layers
from tutorial_lib.recorder import record
from tutorial_lib.tape import Step, Tape


def centres(model: Callable, x: Tensor, layer: nn.Module | str) -> tuple[tuple, tuple]:
    """Centres of a layer's receptive fields: ((top, step down), (left, step across)), in pixels.

    Cell (i, j) sees the pixels around (top + i * step down, left + j * step across), counted from 0
    at the centre of the first pixel. For windows of k cells, dilation d, stride s and padding p,
    over cells with centres a + b j:  a' = a + b (d (k - 1) / 2 - p),  b' = b s.

    x: (B, C, H, W). layer: as in `grad_cam`. Operations that change h or w in other ways are a
    NotImplementedError that names the first, unless they only lead to a factor for whole channels.
    Where branches with other centres are added, the first one counts.

    >>> tl.receptive.centres(torchvision.models.resnet18().eval(), x, "layer4")
    ((0.0, 32.0), (0.0, 32.0))
    """
    checks.model(model)
    x = checks.pictures(x)[:1]
    module = layers.found(model, layer, x)
    with torch.inference_mode(False), layers.tapped(module, lambda output: output) as outputs:
        tape = record(model, x.clone(), torch.zeros(1, dtype=torch.long))
    output = layers.one_map(outputs, model, module, x)
    same = ((n, v) for n, v in tape.values.items() if v.data_ptr() == output.data_ptr())
    wanted = next((n for n, v in same if v.shape == output.shape), None)
    if wanted is None:
        raise layers.unused(model, module)
    found, lost = {0: ((0.0, 1.0), (0.0, 1.0))}, []
    for step in tape.until(wanted).steps:
        moved = _moved(tape, step, found)
        if moved:
            found[step.output] = moved
        elif any(i in found for i in step.inputs):
            lost.append(step)
    if wanted not in found:
        raise NotImplementedError(
            f"model: {lost[0].name} at {lost[0].where} changes the places of cells, and only "
            "convolution, pooling and padding are followed; upsample='bilinear' needs no centres"
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
    window = _window(step)
    if not before or (window is None and _reorders(tape, step)):
        return None
    if window is None:
        size = tape.values[step.output].shape[-2:]
        return next((centre for centre, shape in before if shape == size), None)
    return tuple(
        (a + b * (d * (k - 1) / 2 - p), b * s)
        for (a, b), (k, s, p, d) in zip(before[0][0], window, strict=True)
    )


def _window(step: Step) -> list[tuple] | None:
    """(size, stride, padding, dilation) down and across, of a step that has a window."""
    if step.name == "constant_pad_nd":
        left, _, top, _ = (*step.fixed(1), 0, 0)[:4]
        return [(1, 1, top, 1), (1, 1, left, 1)]
    if step.name == "convolution" and not step.fixed(6):
        _, weight, _, *rest = step.args[0]
        return list(zip(weight.shape[2:], *rest[:3], strict=True))
    if step.name in ("max_pool2d_with_indices", "avg_pool2d"):
        _, kernel, *rest = step.args[0]
        stride, padding, dilation = (*rest, *[None] * 3)[:3]
        dilation = dilation if step.name.startswith("max") else None
        rest = stride or kernel, padding or (0, 0), dilation or (1, 1)
        return list(zip(kernel, *rest, strict=True))
    return None


def _reorders(tape: Tape, step: Step) -> bool:
    """Whether a step may move cells to other places though h and w stay."""
    ndim = tape.values[step.inputs[0]].ndim
    if step.name == "permute":
        return [d % ndim for d in step.fixed(1)][-2:] != [ndim - 2, ndim - 1]
    if step.name == "transpose":
        return any(step.fixed(k) % ndim >= ndim - 2 for k in (1, 2))
    return step.name in ("flip", "roll", "index", "gather") or tape.values[step.output].ndim < 3
