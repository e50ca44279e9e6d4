"""Finding a layer of a model, and what it returns while the model runs."""

import difflib
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import torch
from torch import Tensor, nn

from tutorial_lib import checks

# Layers of PyTorch whose output is (N, K, h, w), whatever its shape.
CHANNELS_FIRST = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm)
CHANNELS_FIRST += (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


@contextmanager
def tapped(module: nn.Module, keep: Callable[[Tensor], Tensor]) -> Iterator[list]:
    """A list that fills with what the module returns, each time that it runs in this thread.

    keep: function of the layer's output, a map (N, K, h, w); its result is appended to the list,
    and a copy of it, which the model may write into, replaces the output in the forward pass.
    """
    outputs = []
    thread = threading.get_ident()

    def tap(_: nn.Module, inputs: tuple, output: object) -> Tensor | None:
        if threading.get_ident() != thread:  # somebody else's pass over the same network
            return None
        if not _is_map(output):
            outputs.append(output)
            return None
        # The model may have switched gradients off for this layer.
        with torch.inference_mode(False), torch.enable_grad():
            outputs.append(keep(output))
            return outputs[-1].clone()

    with checks.MODEL_LOCK:
        handle = module.register_forward_hook(tap)
    try:
        yield outputs
    finally:
        with checks.MODEL_LOCK:
            handle.remove()


def pictures(x: Tensor) -> Tensor:
    """A batch of pictures (B, C, H, W); returned detached."""
    x = checks.pictures(x)
    if x.ndim != 4:
        raise ValueError(f"x: expected pictures (B, C, H, W), got shape {tuple(x.shape)}")
    return x


def found(model: Callable, layer: nn.Module | str, x: Tensor) -> nn.Module:
    """The module that is meant; TypeError or ValueError, with names that are near, if none is."""
    if isinstance(layer, torch.jit.ScriptModule):
        raise TypeError("layer: a scripted or traced module does not show its output, got one")
    if isinstance(layer, nn.Module):
        return layer
    if not isinstance(layer, str):
        raise TypeError(f"layer: expected a module or its dotted name, got {type(layer).__name__}")
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"layer: the name {layer!r} needs an nn.Module as model, got {type(model).__name__}; "
            "give the layer itself, for example net.layer4"
        )
    names = dict(model.named_modules(remove_duplicate=False))
    if layer not in names:
        close = difflib.get_close_matches(layer, names, n=3, cutoff=0.5)
        meant = f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
        raise ValueError(f"layer: the model has no module {layer!r}{meant}{_candidates(model, x)}")
    return found(model, names[layer], x)


def one_map(outputs: list, model: Callable, module: nn.Module, x: Tensor) -> Tensor:
    """The one output of a tapped layer, checked: (N, K, h, w)."""
    if len(outputs) == 1 and _is_map(outputs[0]) and len(outputs[0]) == len(x):
        return outputs[0]
    if not outputs:
        problem = (
            "does not run when the model does (in a scripted or traced model, none does; of a copy "
            "of the model, prepared or with noise on its weights, give the layer's dotted name)"
        )
    elif len(outputs) > 1:
        problem = f"runs {len(outputs)} times, so it has no one output"
    else:
        what = type(outputs[0]).__name__
        if isinstance(outputs[0], Tensor):
            what = f"{tuple(outputs[0].shape)} of {outputs[0].dtype}"
        problem = f"returns {what}, expected floating-point numbers (N = {len(x)}, K, h, w)"
    raise ValueError(f"layer: {_called(model, module)} {problem}{_candidates(model, x)}")


def channels(output: Tensor, model: Callable, module: nn.Module, x: Tensor) -> str:
    """Where a layer's map has its channels, "first" or "last"; ValueError where nothing tells.

    Its height and width are in the proportion of the picture's, (N, C, H, W), up to a cell. The
    last dimension is believed only of a layer with dense layers or layer norms, which work on it.
    """
    _, a, b, c = output.shape
    first, last = _proportional((b, c), x.shape[2:]), _proportional((a, b), x.shape[2:])
    works_on_last = any(isinstance(part, nn.Linear | nn.LayerNorm) for part in module.modules())
    if isinstance(module, CHANNELS_FIRST) or not (last or works_on_last) or (first and not last):
        return "first"
    if last and not first and works_on_last:
        return "last"
    raise ValueError(
        f"layer: {_called(model, module)} returns {tuple(output.shape)}, whose channels may be the "
        "second dimension or the last; say which, channels='first' or channels='last'"
    )


def _proportional(size: tuple[int, int], picture: torch.Size) -> bool:
    """Whether a map of this size shrinks both sides of a picture alike, up to one cell."""
    down, across = (n / whole for n, whole in zip(size, picture, strict=True))
    return max(down, across) <= 1 and abs(down - across) <= 1 / min(picture)


def unused(model: Callable, module: nn.Module) -> ValueError:
    """The error for a layer that has no say."""
    called = _called(model, module)
    return ValueError(f"layer: the scores do not depend on what {called} returns")


def _is_map(output: object) -> bool:
    return isinstance(output, Tensor) and output.ndim == 4 and output.is_floating_point()


def _called(model: Callable, module: nn.Module) -> str:
    """A module's name in the model, or what kind it is."""
    names = {m: n for n, m in model.named_modules()} if isinstance(model, nn.Module) else {}
    return repr(names.get(module) or type(module).__name__)


def _candidates(model: Callable, x: Tensor) -> str:
    """A sentence with layers that return a map: of each size the last of the outermost ones."""
    if not isinstance(model, nn.Module):
        return ""
    runs: dict[str, list] = {}

    def watch(name: str) -> Callable:
        return lambda _, inputs, output: runs.setdefault(name, []).append(output)

    with ExitStack() as handles, torch.no_grad(), suppress(Exception):
        for name, module in model.named_modules():
            if name and not isinstance(module, torch.jit.ScriptModule):
                handles.callback(module.register_forward_hook(watch(name)).remove)
        model(x[:1].clone())
    best: dict[tuple, str] = {}
    for name, outputs in runs.items():
        if len(outputs) == 1 and _is_map(outputs[0]):
            size = tuple(outputs[0].shape[2:])
            if size not in best or name.count(".") <= best[size].count("."):
                best[size] = name
    listed = ", ".join(f"{n!r} ({h} x {w})" for (h, w), n in best.items() if (h, w) != (1, 1))
    return f". Layers with one map (N, K, h, w), one of each size: {listed}" if listed else ""
