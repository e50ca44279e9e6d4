"""The same function, faster: batch norm folded into the layers before it, channels last, frozen."""

import contextlib
import copy
import logging
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tutorial_lib import checks
from tutorial_lib.fast.lean_layers import make_lean
from tutorial_lib.fast.precision_modes import precision_for

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
# How a model learns a value of a tensor as a number of Python's, and may then branch on it.
READS = {"__bool__", "__int__", "__float__", "__index__", "__array__", "item", "tolist", "numpy"}
READS |= {"allclose", "equal", "is_nonzero", "nonzero", "argwhere", "masked_select", "unique"}
log = logging.getLogger(__name__)


def prepare(model: nn.Module, x: Tensor | None = None, *, tolerance: float = 1e-4) -> nn.Module:
    """A frozen copy of a module in eval mode that computes the same scores faster.

    A batch norm that reads the output of a convolution or dense layer, in eval mode
    y -> s (y - m) + t with s = weight / sqrt(var + eps), moves into it: weight * s and
    (bias - m) s + t. Pictures are kept with channels last in memory, which CPU and GPU convolutions
    prefer, and two layers take fewer trips to memory (see `lean_layers`). `load_model` prepares
    what it loads. The caller's model is not touched.

    Folding assumes that the same layers run for every input. It is left out for a model that
    turns a value of its input into a number of Python's while it runs (`if mask.any():`), as such
    a model may choose its layers by it.

    x: one example input. Each of these steps is taken only if the scores on it, and on half of it,
    its negative and 0, stay equal to `tolerance`, relative to the largest, and a gradient can be
    taken; a step that is left out is logged, with the reason. Without x, noise of 224 x 224 is
    taken, with the channels of the first convolution.

    Raises ValueError for a model in training mode, one that needs an x of another shape, and scores
    that are not finite; TypeError for one that is no nn.Module.

    >>> fast = tl.prepare(torchvision.models.resnet50().eval())
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected an nn.Module, got {type(model).__name__}")
    checks.model(model)
    checks.positive("tolerance", tolerance)
    with torch.inference_mode(False), torch.no_grad():
        examples = _examples(model, x)
        best = copy.deepcopy(model).requires_grad_(False)
        for step in (partial(_fold_norms, x=examples[0][0]), _channels_last, make_lean):
            changed = copy.deepcopy(best)
            step(changed)
            if _agrees(changed, examples, tolerance, step):
                best = changed
    return best


def _agrees(model: nn.Module, examples: list, tolerance: float, step: Callable) -> bool:
    """Whether the scores on the examples are the wanted ones and their gradient can be taken."""
    name = getattr(step, "func", step).__name__
    for x, wanted in examples:
        try:
            with precision_for(x.device, exact=True), torch.enable_grad():
                start = x.clone().requires_grad_()
                scores = model(start * 1)
                torch.autograd.grad(scores.sum(), start)
        except RuntimeError as error:  # for example a view() that channels last forbid
            log.info("prepare leaves out %s: %s", name, error)
            return False
        error = (scores - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30)
        if not error <= tolerance:
            log.info("prepare leaves out %s: it changes the scores by %.1e", name, error)
            return False
    return True


def _examples(model: nn.Module, x: Tensor | None) -> list[tuple[Tensor, Tensor]]:
    """Inputs and the model's scores on them: the one that is given, and others like it."""
    given = x is not None
    x = checks.pictures(x) if given else _noise(model)
    try:
        with precision_for(x.device, exact=True):
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
    examples = [(x, wanted)]
    for other in (x / 2, -x, torch.zeros_like(x)):  # which the model may not take
        with contextlib.suppress(Exception), precision_for(x.device, exact=True):
            scores = model(other.clone())
            if bool(scores.isfinite().all()):
                examples.append((other, scores))
    return examples


def _noise(model: nn.Module) -> Tensor:
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None:
        raise ValueError("x: a model without nn.Conv2d needs an example input, none was given")
    rng = torch.Generator().manual_seed(0)
    return torch.randn(1, first.in_channels, 224, 224, generator=rng).to(first.weight)


def _channels_last(model: nn.Module) -> None:
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and "weight" in layer._parameters:
            weight = layer.weight
            weight.data = weight.contiguous(memory_format=torch.channels_last)


class _ValuesRead(TorchFunctionMode):
    """Notes whether a value of a tensor becomes a number of Python's."""

    def __init__(self):
        super().__init__()
        self.found = False

    def __torch_function__(self, function, types, args=(), kwargs=None):
        masks = [a for a in args[1:] if isinstance(a, Tensor) and a.dtype == torch.bool]
        name = getattr(function, "__name__", "")
        self.found |= name in READS or (name == "__getitem__" and bool(masks))
        return function(*args, **(kwargs or {}))


def _fold_norms(model: nn.Module, x: Tensor) -> None:
    names = {module: name for name, module in model.named_modules()}
    for layer, norm in _foldable(model, x):
        dense = isinstance(layer, nn.Linear)
        fuse = nn.utils.fuse_linear_bn_eval if dense else nn.utils.fuse_conv_bn_eval
        fused = fuse(layer, norm)
        layer.weight, layer.bias = (p.requires_grad_(False) for p in (fused.weight, fused.bias))
        parent, _, child = names[norm].rpartition(".")
        # timm's batch norm holds the activation that follows it.
        after = getattr(norm, "act", nn.Identity().eval())
        setattr(model.get_submodule(parent), child, after)


def _foldable(model: nn.Module, x: Tensor) -> list[tuple[nn.Module, nn.Module]]:
    """Pairs (layer, batch norm that reads its output), each run once and whatever x is."""
    runs: dict[nn.Module, int] = {}
    outputs: list[tuple[Tensor, Tensor, nn.Module]] = []
    pairs = []

    def watch(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        runs[module] = runs.get(module, 0) + 1
        if isinstance(module, LAYERS):
            outputs.append((output, output.clone(), module))
        else:
            read = inputs[0].clone()
            pairs.extend(
                (layer, module, was, read) for out, was, layer in outputs if out is inputs[0]
            )

    watched = [m for m in model.modules() if isinstance(m, (*LAYERS, *NORMS))]
    hooks = [m.register_forward_hook(watch) for m in watched]
    try:
        with _ValuesRead() as values:
            model(x.clone())
    finally:
        for hook in hooks:
            hook.remove()
    if values.found:
        log.info("prepare leaves batch norms: the model reads values of its input")
        return []
    same = [(layer, norm) for layer, norm, was, read in pairs if torch.equal(was, read)]
    return [pair for pair in same if runs[pair[0]] == runs[pair[1]] == 1 and _fits(*pair)]


def _fits(layer: nn.Module, norm: nn.Module) -> bool:
    """Whether the norm is fixed and the layer has a plain weight, a row for each channel."""
    weight = layer._parameters.get("weight")  # None where it is parametrized
    fixed = norm.running_var is not None
    return fixed and weight is not None and len(weight) == norm.num_features
