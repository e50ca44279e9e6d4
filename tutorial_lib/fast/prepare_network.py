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
READS |= {"unique_consecutive", "__contains__", "__format__"}
log = logging.getLogger(__name__)


def prepare(model: nn.Module, x: Tensor | None = None, *, tolerance: float = 1e-4) -> nn.Module:
    """Make a frozen copy of a module in eval mode that computes the same scores faster.

        y -> s (y - m) + t,  s = weight / sqrt(var + eps)

    This is a batch norm in eval mode with mean m and bias t. One that reads the output of a
    convolution or dense layer moves into that layer, whose weight becomes weight * s and whose bias
    becomes (bias - m) s + t. Pictures are kept with channels last in memory, which the convolutions
    of CPUs and GPUs prefer, and two layers take fewer trips to memory (`fast/lean_layers.py`).
    `tl.load_model` prepares what it loads. The model of the caller is not touched.

    Each of these steps is taken only if the scores on an example, and on half of it, its negative
    and 0, stay equal to `tolerance`, and a gradient can be taken. A step that is left out is
    logged, with the reason.

    Folding assumes that the same layers run for every input. It is left out for a model that
    turns a value of its input into a number of Python's while it runs (`if mask.any():`), as such
    a model may choose its layers by it. A model that chooses them by the shape of its input is to
    be prepared for each shape.

    Args:
        model: Module in eval mode from (N, ...) to scores (N, C).
        x: One example input, (B, ...). By default it is noise of 224 x 224 with the channels of
            the first convolution.
        tolerance: Largest change of a score, relative to the largest score.

    Returns:
        Module of the class of the model, whose parameters need no gradient.

    Raises:
        TypeError: model is no nn.Module, or x is not a floating-point tensor.
        ValueError: The model is in training mode, does not take the noise where no x is given, or
            has scores that are not finite.

    Example:
        >>> layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(784, 10)
        >>> slow = nn.Sequential(*layers).eval()
        >>> fast = tl.prepare(slow, x)
        >>> fast[1]
        Identity()
        >>> torch.allclose(fast(x), slow(x), atol=1e-5)
        True
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected an nn.Module, got {type(model).__name__}")
    checks.model(model)
    checks.positive("tolerance", tolerance)
    with torch.inference_mode(False), torch.no_grad():
        examples = _examples(model, x)
        best = checks.copied(model, "prepare").requires_grad_(False)
        steps = [partial(_fold_norms, x=examples[0][0]), _channels_last, make_lean]
        # Nearly always all three may be taken, and one comparison says so.
        for some in (steps, *([step] for step in steps)):
            changed = copy.deepcopy(best)
            for step in some:
                step(changed)
            # A copy is run, as a model may keep a tensor of the run, which could not be copied.
            if _agrees(copy.deepcopy(changed), examples, tolerance, some):
                best = changed
                if some is steps:
                    break
    return best


def _agrees(model: nn.Module, examples: list, tolerance: float, steps: list[Callable]) -> bool:
    """Say whether the scores on the examples are the wanted ones and have a gradient."""
    name = " with ".join(getattr(step, "func", step).__name__ for step in steps)
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
    """Return inputs and the model's scores on them: the given input, and others like it."""
    is_given = x is not None
    x = checks.pictures(x) if is_given else _noise(model)
    try:
        with precision_for(x.device, exact=True):
            wanted = model(x.clone())
    except Exception as error:  # whatever the model says of a shape that it does not take
        if is_given:
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
    """Make one picture of noise with the channels of the first convolution, (1, C, 224, 224)."""
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None:
        raise ValueError("x: a model without nn.Conv2d needs an example input, none was given")
    rng = torch.Generator().manual_seed(0)
    return torch.randn(1, first.in_channels, 224, 224, generator=rng).to(first.weight)


def _channels_last(model: nn.Module) -> None:
    """Store the weights of the convolutions with channels last, in place."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and "weight" in layer._parameters:
            weight = layer.weight
            weight.data = weight.contiguous(memory_format=torch.channels_last)


class _ValuesRead(TorchFunctionMode):
    """Notes whether the model turns a value of a tensor into a number of Python's."""

    def __init__(self):
        super().__init__()
        self.found = False

    def __torch_function__(self, function, types, args=(), kwargs=None):
        masks = [a for a in args[1:] if isinstance(a, Tensor) and a.dtype == torch.bool]
        name = getattr(function, "__name__", "")
        found = name in READS or (name == "where" and len(args) == 1)
        self.found |= found or (name == "__getitem__" and bool(masks))
        return function(*args, **(kwargs or {}))


def _fold_norms(model: nn.Module, x: Tensor) -> None:
    """Fold every batch norm that can be into the layer before it, in place."""
    names = {module: name for name, module in model.named_modules()}
    for layer, norm in _foldable(model, x):
        dense = isinstance(layer, nn.Linear)
        fuse = nn.utils.fuse_linear_bn_eval if dense else nn.utils.fuse_conv_bn_eval
        fused = fuse(layer, norm)
        layer.weight, layer.bias = (p.requires_grad_(False) for p in (fused.weight, fused.bias))
        parent, _, child = names[norm].rpartition(".")
        # timm's batch norm holds the activation that follows it.
        activation = getattr(norm, "act", nn.Identity().eval())
        setattr(model.get_submodule(parent), child, activation)


def _foldable(model: nn.Module, x: Tensor) -> list[tuple[nn.Module, nn.Module]]:
    """Return pairs (layer, batch norm that reads its output), each run once and whatever x is."""
    runs: dict[nn.Module, int] = {}
    outputs: list[tuple[Tensor, Tensor, nn.Module]] = []
    pairs = []

    def record(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        runs[module] = runs.get(module, 0) + 1
        if isinstance(module, LAYERS):
            outputs.append((output, output.clone(), module))
        else:
            read = inputs[0].clone()
            pairs.extend(
                (layer, module, made, read) for out, made, layer in outputs if out is inputs[0]
            )

    watched = [m for m in model.modules() if isinstance(m, (*LAYERS, *NORMS))]
    hooks = [m.register_forward_hook(record) for m in watched]
    try:
        with _ValuesRead() as values:
            model(x.clone())
    finally:
        for hook in hooks:
            hook.remove()
    if values.found:
        log.info("prepare leaves batch norms: the model reads values of its input")
        return []
    same = [(layer, norm) for layer, norm, made, read in pairs if torch.equal(made, read)]
    return [pair for pair in same if runs[pair[0]] == runs[pair[1]] == 1 and _fits(*pair)]


def _fits(layer: nn.Module, norm: nn.Module) -> bool:
    """Say whether the norm is fixed and the layer has a plain weight, a row for each channel."""
    weight = layer._parameters.get("weight")  # None where it is parametrized
    fixed = norm.running_var is not None
    return fixed and weight is not None and len(weight) == norm.num_features
