"""Grad-CAM: what a layer's channels say for the target, and where.

Arguments and errors as in `attribution.py`. x: pictures (B, C, H, W). layer: a module of the model,
or its dotted name, that runs once and returns (N, K, h, w), channels K first; a bad layer is a
TypeError or ValueError that lists layers that would do.
"""

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from tutorial_lib import checks
from tutorial_lib.backward import guided_backprop
from tutorial_lib.engine import accumulator
from tutorial_lib.recorder import record
from tutorial_lib.tape import Step, Tape, no_rule

UPSAMPLE = ("bilinear", "receptive_field")


def grad_cam(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    layer: nn.Module | str,
    upsample: str | None = "bilinear",
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Where the channels of a layer speak for the target: (B, H, W), nowhere negative.

    alpha_k = 1/(h w) sum_ij d f / d A_kij             (Selvaraju et al., 2017, Eq. 1)
    L_ij = max(0, sum_k alpha_k A_kij)                 (Eq. 2), upsampled from h x w to H x W
    A: the layer's output at x. Units: score, as for a share of gradient x activation.

    upsample: "bilinear" (the paper; also captum's) spreads the cells evenly over the picture.
        "receptive_field" draws cell (i, j) where its receptive field has its centre, which strides
        and padding of the model decide: half a cell away in many networks. It needs one more
        forward pass, and NotImplementedError names an operation that it cannot follow. None:
        (B, h, w) as it is.

    >>> tl.grad_cam(model, x, 285, layer="network.blocks.6").shape
    torch.Size([1, 224, 224])
    """
    checks.model(model)
    x, target = _pictures(x), checks.target(target, x)
    if upsample is not None:
        checks.choice("upsample", upsample, UPSAMPLE)
    size, module = checks.batch_size(batch_size, x), _module(model, layer, x)
    maps = []
    with tqdm(total=len(x), unit="gradient", disable=not progress) as bar:
        for points, labels in zip(x.split(size), target.split(size), strict=True):
            maps.append(_coarse(model, module, points, labels))
            bar.update(len(points))
    cells = torch.cat(maps)
    checks.result(cells)
    if upsample == "bilinear":
        cells = F.interpolate(cells[:, None], x.shape[2:], mode="bilinear")[:, 0]
    elif upsample:
        cells = _placed(cells, centres(model, x, module), x.shape[2:])
    return cells.to(x.dtype)


def guided_grad_cam(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    layer: nn.Module | str,
    upsample: str = "bilinear",
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Guided backpropagation where Grad-CAM is: the shape of x, signed.

    A(x) = guided_backprop(x) * L, with L upsampled   (Selvaraju et al., 2017, Sec. 3.2).
    layer, upsample: as in `grad_cam`.

    >>> tl.guided_grad_cam(model, x, 285, layer="network.blocks.6")
    """
    checks.choice("upsample", upsample, UPSAMPLE)
    call = dict(batch_size=batch_size, seed=seed, progress=progress)
    where = grad_cam(model, x, target, layer=layer, upsample=upsample, **call)
    return guided_backprop(model, x, target, **call) * where[:, None]


def centres(model: Callable, x: Tensor, layer: nn.Module | str) -> tuple[tuple, tuple]:
    """Centres of a layer's receptive fields: ((top, step down), (left, step across)), in pixels.

    Cell (i, j) looks at the pixels around (top + i * step down, left + j * step across), counted
    from 0 at the centre of the first pixel. For a window of k cells, dilation d, stride s and
    padding p, behind centres a + b j:  a' = a + b (d (k - 1) / 2 - p),  b' = b s.
    Raises NotImplementedError for an operation that changes h or w in another way.

    >>> tl.cam.centres(torchvision.models.resnet18().eval(), x, "layer4")
    ((0.0, 32.0), (0.0, 32.0))
    """
    checks.model(model)
    x = _pictures(x)[:1]
    module = _module(model, layer, x)
    with _tapped(module, lambda output: output) as outputs:
        tape = record(model, x, torch.zeros(1, dtype=torch.long))
    output = _one_map(outputs, model, module, x)
    same = ((n, v) for n, v in tape.values.items() if v.data_ptr() == output.data_ptr())
    wanted = next((n for n, v in same if v.shape == output.shape), None)
    if wanted is None:
        raise ValueError(_unused(model, module))
    found = {0: ((0.0, 1.0), (0.0, 1.0))}
    for step in tape.until(wanted).steps:
        if tape.values[step.output].ndim == 4:
            found[step.output] = _moved(tape, step, found)
    return found[wanted]


def _moved(tape: Tape, step: Step, found: dict) -> tuple[tuple, tuple]:
    """The centres of a step's output."""
    before = [(found[i], tape.values[i].shape[2:]) for i in step.inputs if i in found]
    size = tape.values[step.output].shape[2:]
    if step.name == "constant_pad_nd":
        left, _, top, _ = (*step.fixed(1), 0, 0)[:4]
        window = [(1, 1, top, 1), (1, 1, left, 1)]
    elif step.name == "convolution" and not step.fixed(6):
        _, weight, _, *rest = step.args[0]
        window = list(zip(weight.shape[2:], *rest[:3], strict=True))
    elif step.name in ("max_pool2d_with_indices", "avg_pool2d"):
        _, kernel, *rest = step.args[0]
        stride, padding, dilation = (*rest, *[None] * 3)[:3]
        dilation = dilation if step.name.startswith("max") else None
        window = list(
            zip(kernel, stride or kernel, padding or (0, 0), dilation or (1, 1), strict=True)
        )
    else:
        same = [centre for centre, shape in before if shape == size]
        if not same:
            raise no_rule("the centre of receptive fields", step)
        return same[0]
    return tuple(
        (a + b * (d * (k - 1) / 2 - p), b * s)
        for (a, b), (k, s, p, d) in zip(before[0][0], window, strict=True)
    )


def _placed(cells: Tensor, places: tuple[tuple, tuple], size: torch.Size) -> Tensor:
    """Cells drawn at their centres, linear between them, constant beyond: (B, H, W)."""
    where = []
    for (start, step), count, length in zip(places, cells.shape[1:], size, strict=True):
        pixels = torch.arange(length, device=cells.device, dtype=cells.dtype)
        where.append(2 * (pixels - start) / step / max(count - 1, 1) - 1)
    grid = torch.stack(torch.meshgrid(*where, indexing="ij")[::-1], -1)  # (H, W, 2): across, down
    grid = grid.expand(len(cells), -1, -1, -1)
    options = dict(mode="bilinear", padding_mode="border", align_corners=True)
    return F.grid_sample(cells[:, None], grid, **options)[:, 0]


def _coarse(model: Callable, module: nn.Module, points: Tensor, labels: Tensor) -> Tensor:
    """L of Eq. 2 for one chunk: (N, h, w)."""
    with torch.inference_mode(False), torch.enable_grad(), _tapped(module, _leaf) as outputs:
        points = points.clone() if points.is_inference() else points
        scores = checks.scores(model(points), points, labels)
        activation = _one_map(outputs, model, module, points)
        chosen, slope = scores.gather(1, labels.to(scores.device)[:, None]).sum(), None
        if chosen.requires_grad:
            (slope,) = torch.autograd.grad(chosen, activation, allow_unused=True)
    if slope is None:
        raise ValueError(_unused(model, module))
    wide = accumulator(activation.dtype)
    alpha = slope.to(wide).mean((2, 3), keepdim=True)
    return (alpha * activation.detach().to(wide)).sum(1).relu()


def _leaf(output: Tensor) -> Tensor:
    """Where the graph begins: the scores are differentiated from the layer on only."""
    return output.detach().clone().requires_grad_()


@contextmanager
def _tapped(module: nn.Module, keep: Callable[[Tensor], Tensor]) -> Iterator[list]:
    """A list that fills with what the module returns, each time that it runs.

    keep: from a 4-d output to what is kept of it; the model goes on with a copy, which it may
    write into.
    """
    outputs = []

    def tap(_: nn.Module, inputs: tuple, output: object) -> Tensor | None:
        if not isinstance(output, Tensor) or output.ndim != 4:
            outputs.append(output)
            return None
        outputs.append(keep(output))
        return outputs[-1].clone()

    handle = module.register_forward_hook(tap)
    try:
        yield outputs
    finally:
        handle.remove()


def _pictures(x: Tensor) -> Tensor:
    x = checks.pictures(x)
    if x.ndim != 4:
        raise ValueError(f"x: expected pictures (B, C, H, W), got shape {tuple(x.shape)}")
    return x


def _module(model: Callable, layer: nn.Module | str, x: Tensor) -> nn.Module:
    """The module that is meant by a layer's name."""
    if isinstance(layer, nn.Module):
        return layer
    if not isinstance(layer, str):
        raise TypeError(f"layer: expected a module or its dotted name, got {type(layer).__name__}")
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"layer: the name {layer!r} needs an nn.Module as model, got {type(model).__name__}; "
            "give the module itself"
        )
    names = dict(model.named_modules())
    if layer not in names:
        close = difflib.get_close_matches(layer, names, n=3, cutoff=0.5)
        meant = f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
        raise ValueError(f"layer: the model has no module {layer!r}{meant}{_candidates(model, x)}")
    return names[layer]


def _one_map(outputs: list, model: Callable, module: nn.Module, x: Tensor) -> Tensor:
    """The one output of a layer, checked: (N, K, h, w)."""
    fits = len(outputs) == 1 and isinstance(outputs[0], Tensor)
    if fits and outputs[0].ndim == 4 and len(outputs[0]) == len(x):
        return outputs[0]
    if not outputs:
        problem = "does not run when the model does"
    elif len(outputs) > 1:
        problem = f"runs {len(outputs)} times, so it has no one output"
    else:
        what = tuple(outputs[0].shape) if fits else type(outputs[0]).__name__
        problem = f"returns {what}, expected a tensor (N = {len(x)}, K, h, w)"
    raise ValueError(f"layer: {_called(model, module)} {problem}{_candidates(model, x)}")


def _unused(model: Callable, module: nn.Module) -> str:
    return f"layer: the scores do not depend on what {_called(model, module)} returns"


def _called(model: Callable, module: nn.Module) -> str:
    """A module's name in the model, or what kind it is."""
    names = {m: n for n, m in model.named_modules()} if isinstance(model, nn.Module) else {}
    return repr(names.get(module) or type(module).__name__)


def _candidates(model: Callable, x: Tensor) -> str:
    """A sentence with layers that would do: of each size of map the last of the outermost ones."""
    if not isinstance(model, nn.Module):
        return ""
    runs: dict[str, list] = {}

    def watch(name: str) -> Callable:
        return lambda _, inputs, output: runs.setdefault(name, []).append(output)

    handles = [m.register_forward_hook(watch(name)) for name, m in model.named_modules() if name]
    try:
        with torch.no_grad():
            model(x[:1])
    finally:
        for handle in handles:
            handle.remove()
    best: dict[tuple, str] = {}
    for name, outputs in runs.items():
        if len(outputs) == 1 and isinstance(outputs[0], Tensor) and outputs[0].ndim == 4:
            size = tuple(outputs[0].shape[2:])
            if size not in best or name.count(".") <= best[size].count("."):
                best[size] = name
    listed = ", ".join(f"{n!r} ({h} x {w})" for (h, w), n in best.items() if (h, w) != (1, 1))
    return f". Layers that would do, one of each size: {listed}" if listed else ""
