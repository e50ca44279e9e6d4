"""The same function, faster: batch norm folded into the layers before it, channels last, frozen."""

import copy
from functools import partial

import torch
from torch import Tensor, nn

from tutorial_lib import checks, convolve, packed
from tutorial_lib.lean import Lean, ReLU6, lean
from tutorial_lib.lean import layers as lean_layers
from tutorial_lib.precision import applied

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def prepare(model: nn.Module, x: Tensor | None = None, *, tolerance: float = 1e-4) -> nn.Module:
    """A frozen copy of a module in eval mode that computes the same scores faster.

    A batch norm that reads the output of a convolution or dense layer, in eval mode
    y -> s (y - m) + t with s = weight / sqrt(var + eps), moves into it: weight * s and
    (bias - m) s + t. Pictures are kept with channels last in memory, which CPU and GPU convolutions
    prefer, and gradients at the input take fewer trips to memory (see `lean`). `load_model`
    prepares what it loads. The caller's model is not touched.

    x: one example input. Each of these steps is taken only if the scores on it stay equal to
    `tolerance`, relative to the largest, and a gradient can be taken. Without x, noise of 224 x 224
    is taken, with the channels of the first convolution.

    Raises ValueError for a model in training mode, one that needs an x of another shape, and scores
    that are not finite; TypeError for one that is no nn.Module.

    >>> fast = tl.models.prepare(torchvision.models.resnet50().eval())
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected an nn.Module, got {type(model).__name__}")
    checks.model(model)
    checks.positive("tolerance", tolerance)
    with torch.inference_mode(False), torch.no_grad():
        x, wanted = _example(model, x)
        best = copy.deepcopy(model).requires_grad_(False)
        for step in (
            partial(_fold_norms, x=x),
            _channels_last,
            lean,
            partial(_leave_clipping, x=x),
        ):
            changed = copy.deepcopy(best)
            step(changed)
            if _agrees(changed, x, wanted, tolerance):
                best = changed
    return best


def _agrees(model: nn.Module, x: Tensor, wanted: Tensor, tolerance: float) -> bool:
    """Whether the scores on x are the wanted ones and their gradient can be taken."""
    try:
        with applied(x.device, exact=True), lean_layers(), packed.kept(), torch.enable_grad():
            for _ in range(1 + (x.dtype == torch.float32)):  # what one pass packs, the next uses
                start = x.clone().requires_grad_()
                scores = model(start * 1)
                torch.autograd.grad(scores.sum(), start)
                convolve.passed()
                if not (scores - wanted).abs().max() <= tolerance * wanted.abs().max():
                    return False
    except RuntimeError:  # for example a view() that channels last forbid
        return False
    return True


def _example(model: nn.Module, x: Tensor | None) -> tuple[Tensor, Tensor]:
    """An input and the model's scores on it."""
    given = x is not None
    x = checks.pictures(x) if given else _noise(model)
    try:
        with applied(x.device, exact=True):
            wanted = model(x.clone())
    except Exception as error:  # whatever the model says of a shape that it does not take
        if given:
            raise
        raise ValueError(
            f"x: none was given, and the model does not take noise of shape {tuple(x.shape)} "
            f"({type(error).__name__}: {error}); give an example input"
        ) from error
    if not isinstance(wanted, Tensor) or not bool(wanted.isfinite().all()):
        raise ValueError("model: expected a tensor of finite scores of the example input")
    return x, wanted


def _noise(model: nn.Module) -> Tensor:
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None:
        raise ValueError("x: a model without nn.Conv2d needs an example input, none was given")
    rng = torch.Generator().manual_seed(0)
    return torch.randn(1, first.in_channels, 224, 224, generator=rng).to(first.weight)


def _fold_norms(model: nn.Module, x: Tensor) -> None:
    for layer, norm_name in _foldable(model, x):
        _fold(model, layer, norm_name)


def _channels_last(model: nn.Module) -> None:
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and "weight" in layer._parameters:
            weight = layer.weight
            weight.data = weight.contiguous(memory_format=torch.channels_last)


def _leave_clipping(model: nn.Module, x: Tensor) -> None:
    """Mark convolutions whose output an activation clips in place, where that can be tried."""
    for layer, act in _pairs(model, x, Lean, ReLU6):
        layer.clips = act.inplace and x.dtype == torch.float32 and x.device.type == "cpu"


def _foldable(model: nn.Module, x: Tensor) -> list[tuple[nn.Module, str]]:
    """Pairs (layer, name of the batch norm that reads its output), each run once."""
    names = {module: name for name, module in model.named_modules()}
    pairs = _pairs(model, x, LAYERS, NORMS)
    fixed = [(layer, norm) for layer, norm in pairs if norm.running_var is not None]
    return [(layer, names[norm]) for layer, norm in fixed if _own_weight(layer, norm)]


def _pairs(model: nn.Module, x: Tensor, makers: tuple, readers: tuple) -> list[tuple]:
    """Pairs (maker, reader of its output) of such modules, each run once."""
    runs: dict[nn.Module, int] = {}
    made: list[tuple[Tensor, nn.Module]] = []
    pairs = []

    def watch(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        runs[module] = runs.get(module, 0) + 1
        if isinstance(module, makers):
            made.append((output, module))
        else:
            pairs.extend((maker, module) for result, maker in made if result is inputs[0])

    watched = [m for m in model.modules() if isinstance(m, (makers, readers))]
    hooks = [m.register_forward_hook(watch) for m in watched]
    try:
        model(x.clone())
    finally:
        for hook in hooks:
            hook.remove()
    return [(maker, reader) for maker, reader in pairs if runs[maker] == runs[reader] == 1]


def _own_weight(layer: nn.Module, norm: nn.Module) -> bool:
    """Whether the layer has a plain weight (no parametrization) with a row for each channel."""
    weight = layer._parameters.get("weight")
    return weight is not None and len(weight) == norm.num_features


def _fold(model: nn.Module, layer: nn.Module, norm_name: str) -> None:
    norm = model.get_submodule(norm_name)
    dense = isinstance(layer, nn.Linear)
    fuse = nn.utils.fuse_linear_bn_eval if dense else nn.utils.fuse_conv_bn_eval
    fused = fuse(layer, norm)
    layer.weight, layer.bias = (p.requires_grad_(False) for p in (fused.weight, fused.bias))
    parent, _, child = norm_name.rpartition(".")
    # timm's batch norm holds the activation that follows it.
    setattr(model.get_submodule(parent), child, getattr(norm, "act", nn.Identity().eval()))
