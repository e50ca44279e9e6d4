"""Finding a layer of a model, and what it returns while the model runs."""

import difflib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from tutorial_lib import checks


@contextmanager
def tapped(module: nn.Module, keep: Callable[[Tensor], Tensor]) -> Iterator[list]:
    """A list that fills with what the module returns, each time that it runs.

    keep: from a map (N, K, h, w) to what is kept of it. The model goes on with a copy of that,
    which it may write into.
    """
    outputs = []

    def tap(_: nn.Module, inputs: tuple, output: object) -> Tensor | None:
        if not _is_map(output):
            outputs.append(output)
            return None
        # The model may have switched gradients off for this layer.
        with torch.inference_mode(False), torch.enable_grad():
            outputs.append(keep(output))
            return outputs[-1].clone()

    handle = module.register_forward_hook(tap)
    try:
        yield outputs
    finally:
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
        problem = "does not run when the model does (in a scripted or traced model, none does)"
    elif len(outputs) > 1:
        problem = f"runs {len(outputs)} times, so it has no one output"
    else:
        what = type(outputs[0]).__name__
        if isinstance(outputs[0], Tensor):
            what = f"{tuple(outputs[0].shape)} of {outputs[0].dtype}"
        problem = f"returns {what}, expected floating-point numbers (N = {len(x)}, K, h, w)"
    raise ValueError(f"layer: {_called(model, module)} {problem}{_candidates(model, x)}")


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

    with ExitStack() as handles, torch.no_grad():
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
