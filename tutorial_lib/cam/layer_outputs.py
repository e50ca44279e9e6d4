"""Finding a layer of a model, and what it returns while the model runs."""

import difflib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import torch
from torch import Tensor, nn

from tutorial_lib import checks

# Layers of PyTorch whose output is (N, K, h, w), whatever its shape.
CHANNELS_FIRST = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm)
CHANNELS_FIRST += (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


@contextmanager
def tapped(
    module: nn.Module, keep: Callable[[Tensor], Tensor], dimensions: int = 4
) -> Iterator[list]:
    """Inside, a list fills with what a layer returns, each time that it runs in this thread.

    Args:
        module: The layer, a module of the model.
        keep: Function of the layer's output, if that is a map (N, K, h, w). Its result is appended
            to the list, and a copy of it, which the model may write into, replaces the output in
            the forward pass. An output that is no map is appended as it is.
        dimensions: 4 for maps, 3 for tokens (N, T, K).

    Returns:
        Context manager that gives the list. At its end the layer is as it was.

    Example:
        >>> with tl.layers.tapped(model[0], lambda output: output) as outputs:
        ...     scores = model(x)
        >>> [output.shape for output in outputs]
        [torch.Size([2, 4, 14, 14])]
    """
    outputs = []

    def tap(_: nn.Module, inputs: tuple, output: object) -> Tensor | None:
        if not _is_map(output, dimensions):
            outputs.append(output)
            return None
        # The model may have switched gradients off for this layer.
        with torch.inference_mode(False), torch.enable_grad():
            outputs.append(keep(output))
            return outputs[-1].clone()

    with checks.forward_hook(module, tap):
        yield outputs


def pictures(x: Tensor) -> Tensor:
    """Check that x is a batch of pictures.

    Args:
        x: (B, C, H, W) finite floating-point pictures.

    Returns:
        x, detached from any graph.

    Raises:
        TypeError: x is no dense floating-point tensor of 16 bits or more.
        ValueError: x has not four dimensions, is empty, or is not finite.

    Example:
        >>> tl.layers.pictures(x).shape
        torch.Size([2, 3, 16, 16])
    """
    x = checks.pictures(x)
    if x.ndim != 4:
        raise ValueError(f"x: expected pictures (B, C, H, W), got shape {tuple(x.shape)}")
    return x


def found(model: Callable, layer: nn.Module | str, x: Tensor) -> nn.Module:
    """Find the layer that is meant.

    Args:
        model: Callable from (N, C, H, W) to scores; an nn.Module if the layer is given by name.
        layer: A module, which is returned as it is, or a dotted name in the model.
        x: (B, C, H, W) pictures, to run the model on for a list of its layers in an error.

    Returns:
        The module.

    Raises:
        TypeError: The layer is neither a module nor a name, is scripted or traced, or is a name
            where the model is a function.
        ValueError: The model has no module of that name; the message has names that are near.

    Example:
        >>> tl.layers.found(model, "0", x)
        Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1))
    """
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
    modules = dict(model.named_modules(remove_duplicate=False))
    if layer not in modules:
        close = difflib.get_close_matches(layer, modules, n=3, cutoff=0.5)
        hint = f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
        raise ValueError(f"layer: the model has no module {layer!r}{hint}{_suggestion(model, x)}")
    return found(model, modules[layer], x)


def one_map(
    outputs: list, model: Callable, module: nn.Module, x: Tensor, dimensions: int = 4
) -> Tensor:
    """Check that a layer ran once and returned a map, and return the map.

    Args:
        outputs: The list that `tapped` has filled in one pass.
        model: Callable whose layer it is, for its name in an error.
        module: The layer.
        x: (N, C, H, W) pictures of the pass.
        dimensions: 4 for maps, 3 for tokens (N, T, K).

    Returns:
        (N, K, h, w) or (N, h, w, K), or tokens, the one output in the list.

    Raises:
        ValueError: The layer did not run, ran more than once, or returned something else; the
            message has layers that would do.

    Example:
        >>> with tl.layers.tapped(model[0], lambda output: output) as outputs:
        ...     scores = model(x)
        >>> tl.layers.one_map(outputs, model, model[0], x).shape
        torch.Size([2, 4, 14, 14])
    """
    if len(outputs) == 1 and _is_map(outputs[0], dimensions) and len(outputs[0]) == len(x):
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
        wanted = "K, h, w" if dimensions == 4 else "T, K, as grid is given"
        problem = f"returns {what}, expected floating-point numbers (N = {len(x)}, {wanted})"
        if dimensions == 4 and _is_map(outputs[0], 3):
            problem += (
                f". If these are tokens (N, T, K), say where they lie: {_grids(outputs[0], x)}"
            )
    raise ValueError(f"layer: {_name(model, module)} {problem}{_suggestion(model, x)}")


def token_cells(tokens: Tensor, grid: tuple[int, int], extra: int) -> Tensor:
    """Lay tokens out as a map.

    Args:
        tokens: (N, T, K) output of a layer of a transformer.
        grid: (h, w), how many patches lie below and beside one another.
        extra: Number of leading tokens that are no patches, such as the class token.

    Returns:
        (N, K, h, w), the patches row by row.

    Raises:
        ValueError: There are not extra + h * w tokens.

    Example:
        >>> tokens = torch.arange(5.0).view(1, 5, 1)
        >>> tl.layers.token_cells(tokens, (2, 2), extra=1)
        tensor([[[[1., 2.],
                  [3., 4.]]]])
    """
    count, (height, width) = tokens.shape[1], grid
    if count != extra + height * width:
        raise ValueError(
            f"grid: the layer returns T = {count} tokens, and extra_tokens + h * w = "
            f"{extra} + {height} * {width} = {extra + height * width}; with extra_tokens={extra}, "
            f"h * w has to be {count - extra}"
        )
    return tokens[:, extra:].unflatten(1, grid).movedim(3, 1)


def channels(output: Tensor, model: Callable, module: nn.Module, x: Tensor) -> str:
    """Tell which dimension of a layer's map its channels are.

    The height and width of a map are in the proportion of the picture's, up to a cell. The last
    dimension is believed only of a layer with dense layers or layer norms, which work on it.

    Args:
        output: The layer's map, (N, K, h, w) or (N, h, w, K).
        model: Callable whose layer it is, for its name in an error.
        module: The layer.
        x: (N, C, H, W) pictures.

    Returns:
        "first" for (N, K, h, w) or "last" for (N, h, w, K).

    Raises:
        ValueError: Neither the shape nor the kind of layer tells.

    Example:
        >>> tl.layers.channels(model[0](x), model, model[0], x)
        'first'
    """
    _, a, b, c = output.shape
    first, last = _proportional((b, c), x.shape[2:]), _proportional((a, b), x.shape[2:])
    works_on_last = any(isinstance(m, nn.Linear | nn.LayerNorm) for m in module.modules())
    if isinstance(module, CHANNELS_FIRST) or not (last or works_on_last) or (first and not last):
        return "first"
    if last and not first and works_on_last:
        return "last"
    raise ValueError(
        f"layer: {_name(model, module)} returns {tuple(output.shape)}, whose channels may be the "
        "second dimension or the last; say which, channels='first' or channels='last'"
    )


def _proportional(size: tuple[int, int], picture: torch.Size) -> bool:
    """Whether a map of this size shrinks both sides of a picture alike, up to one cell."""
    height, width = (n / whole for n, whole in zip(size, picture, strict=True))
    return max(height, width) <= 1 and abs(height - width) <= 1 / min(picture)


def unused(model: Callable, module: nn.Module) -> ValueError:
    """Make the error for a layer whose output the scores do not depend on.

    Args:
        model: Callable whose layer it is, for its name.
        module: The layer.

    Returns:
        The error, to be raised.

    Example:
        >>> tl.layers.unused(model, model[0])
        ValueError("layer: the scores do not depend on what '0' returns")
    """
    return ValueError(f"layer: the scores do not depend on what {_name(model, module)} returns")


def unused_patches(model: Callable, module: nn.Module) -> ValueError:
    """Make the error for a layer of whose tokens only the extra ones lead to the scores.

    Args:
        model: Callable whose layer it is, for its name.
        module: The layer.

    Returns:
        The error, to be raised.

    Example:
        >>> str(tl.layers.unused_patches(model, model[0]))[:59]
        "layer: of what '0' returns, no patch has a part in the scor"
    """
    return ValueError(
        f"layer: of what {_name(model, module)} returns, no patch has a part in the scores, only "
        "the extra tokens have (the last block of a network that reads its class token?). Take a "
        "layer before the last attention, such as 'blocks.11.norm1'"
    )


def _is_map(output: object, dimensions: int = 4) -> bool:
    """Whether it is a floating-point tensor of four dimensions, or of as many."""
    return isinstance(output, Tensor) and output.ndim == dimensions and output.is_floating_point()


def _grids(tokens: Tensor, x: Tensor) -> str:
    """What to write for these tokens: the grids that have the proportions of the pictures."""
    (height, width), found = x.shape[2:], []
    for extra in range(6):  # a class token, a distillation token, four registers
        rows = (
            round(((tokens.shape[1] - extra) * height / width) ** 0.5)
            if extra < tokens.shape[1]
            else 0
        )
        if rows and (tokens.shape[1] - extra) % rows == 0:
            columns = (tokens.shape[1] - extra) // rows
            if _proportional((rows, columns), x.shape[2:]):
                found.append(f"grid=({rows}, {columns}), extra_tokens={extra}")
    return " or ".join(found) or "grid=(h, w), extra_tokens=1 with a class token, else 0"


def _name(model: Callable, module: nn.Module) -> str:
    """A module's name in the model, or the name of its class, in quotation marks."""
    names = {m: n for n, m in model.named_modules()} if isinstance(model, nn.Module) else {}
    return repr(names.get(module) or type(module).__name__)


def _suggestion(model: Callable, x: Tensor) -> str:
    """A sentence with layers that return a map: of each size the last of the outermost ones."""
    if not isinstance(model, nn.Module):
        return ""
    outputs_of: dict[str, list] = {}

    def watch(name: str) -> Callable:
        return lambda _, inputs, output: outputs_of.setdefault(name, []).append(output)

    with ExitStack() as handles, torch.no_grad(), suppress(Exception):
        for name, module in model.named_modules():
            if name and not isinstance(module, torch.jit.ScriptModule):
                handles.callback(module.register_forward_hook(watch(name)).remove)
        model(x[:1].clone())
    best: dict[tuple, str] = {}
    for name, outputs in outputs_of.items():
        if len(outputs) == 1 and _is_map(outputs[0]):
            size = tuple(outputs[0].shape[2:])
            if size not in best or name.count(".") <= best[size].count("."):
                best[size] = name
    listed = ", ".join(f"{n!r} ({h} x {w})" for (h, w), n in best.items() if (h, w) != (1, 1))
    return f". Layers with one map (N, K, h, w), one of each size: {listed}" if listed else ""
