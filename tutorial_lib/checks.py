"""Clear errors for bad input: which argument, what was given, what is accepted, what to do."""

import contextlib
import copy
import importlib
import math
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from inspect import Parameter, signature
from numbers import Integral, Real
from types import ModuleType
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

# A thread holds it while it puts hooks on a model, removes them, or copies a model with hooks.
MODEL_LOCK = threading.RLock()
# Where no entry of the map of a probability reaches this, the probability does not change.
FLAT = 1e-6
SKIP = "`with tl.skip_model_check():` explains it all the same"
_check_is_on = ContextVar("model check", default=True)
_findings_of: WeakKeyDictionary[nn.Module, dict[tuple, "Findings"]] = WeakKeyDictionary()


def model(value: Callable) -> None:
    """Check that a model is callable and, if it is a module, in eval mode throughout."""
    value = behind(value)
    if not callable(value):
        raise TypeError(
            f"model: expected a module or function from (N, ...) to (N, C), got {_kind(value)}; "
            "tl.scores(network) makes one of a network that returns something else"
        )
    if isinstance(value, nn.Module):
        named = value.named_modules()
        training = [n or "the model itself" for n, m in named if m.training and _uses_training(m)]
        if training:
            raise ValueError(
                f"model: {training[0]} is in training mode, where dropout is random and batch "
                "norm mixes the pictures of a batch; call model.eval() first"
            )


def behind(value: object) -> object:
    """Return the module behind a partial of it or its bound method, else the value itself."""
    while isinstance(value, partial):
        value = value.func
    owner = getattr(value, "__self__", None)  # of the bound method net.forward
    return owner if isinstance(owner, nn.Module) else value


def _uses_training(module: nn.Module) -> bool:
    """Say whether the training flag can matter: that of a graph cannot be unset, so it cannot."""
    exported = type(module).__module__.startswith(("torch.export", "torch.fx"))
    return not (exported or type(module) is nn.Module or isinstance(module, torch.fx.GraphModule))


def weights(value: Callable) -> None:
    """Check that a model has weights that can be given noise, as a module with parameters has."""
    model(value)
    if not isinstance(value, nn.Module) or not any(True for _ in value.parameters()):
        raise TypeError(
            "model: noise on the weights needs an nn.Module with parameters, got "
            f"{type(value).__name__}; for a function of a network give the network itself, with "
            "tl.scores(network, pick=lambda y: ...) where the function changes what it returns"
        )


@contextlib.contextmanager
def forward_hook(module: nn.Module, hook: Callable) -> Iterator[None]:
    """Inside, passes of this thread call a hook on a module; those of other threads do not."""
    thread = threading.get_ident()

    def own(module: nn.Module, inputs: tuple, output: object) -> object:
        return hook(module, inputs, output) if threading.get_ident() == thread else None

    with MODEL_LOCK:
        handle = module.register_forward_hook(own)
    try:
        yield
    finally:
        with MODEL_LOCK:
            handle.remove()


def copied(value: nn.Module, purpose: str) -> nn.Module:
    """Copy a module, without the hooks that another thread has on it for a moment."""
    try:
        with MODEL_LOCK:
            return copy.deepcopy(value)
    except Exception as error:  # a part of it that cannot be copied may raise anything
        raise TypeError(
            f"model: {purpose} needs a copy of it, and copy.deepcopy says: {error}. If it keeps a "
            "tensor of a call (self.features = ...), let it keep features.detach()"
        ) from error


def pictures(x: Tensor, name: str = "x") -> Tensor:
    """Check a batch (B, ...) of finite floating-point numbers and return it detached."""
    if not isinstance(x, Tensor):
        hint = ""
        if isinstance(x, tuple | list | Mapping):
            hint = "; for a model of several inputs write net = tl.scores(model, inputs=x), then "
            hint += "net.explain(tl.gradient, target), or another method, which gives a map of each"
        raise TypeError(f"{name}: expected a torch.Tensor (B, ...), got {_kind(x)}{hint}")
    if not x.dtype.is_floating_point:
        raise TypeError(
            f"{name}: expected a floating-point tensor, got dtype {x.dtype}; try x.float(), or for "
            "token ids net = tl.scores(model, inputs=x, embedding='name of the layer'), then net.x"
        )
    _dense(name, x)
    if x.dtype.itemsize < 2:
        raise TypeError(f"{name}: expected a tensor of 16 bits or more, got {x.dtype}")
    if x.ndim < 2:
        raise ValueError(
            f"{name}: expected a batch (B, ...) with at least 2 dimensions, got shape "
            f"{tuple(x.shape)}; x[None] makes a batch of one"
        )
    if x.numel() == 0:
        raise ValueError(f"{name}: expected at least one number, got shape {tuple(x.shape)}")
    if not bool(x.isfinite().all()):
        bad = int((~x.isfinite()).sum())
        raise ValueError(f"{name}: expected finite numbers, got {bad} that are NaN or infinite")
    return x.detach()


def _dense(name: str, value: Tensor) -> None:
    """Check that a tensor has its values one beside the other, as most have."""
    if value.layout != torch.strided or value.is_meta or value.is_nested:
        layout = "nested" if value.is_nested else value.layout
        raise TypeError(f"{name}: expected a dense tensor, got {layout} on {value.device}")


def target(value: int | Tensor, x: Tensor) -> Tensor:
    """Check one class index for all pictures, or one for each; return a LongTensor (B,)."""
    batch = len(x)
    if isinstance(value, Integral) and not isinstance(value, bool):
        if abs(value) >= 2**62:
            raise ValueError(f"target: expected a class index, got {value}")
        value = torch.full((batch,), int(value))
    elif not isinstance(value, Tensor):
        listed = "torch.as_tensor(target)" if hasattr(value, "__len__") else "model(x).argmax(1)"
        raise TypeError(
            f"target: expected an int or a LongTensor (B,), got {_kind(value)}; try {listed}"
        )
    _dense("target", value)
    if value.dtype != torch.int64:
        hint = "target.argmax(1) of one-hot rows" if value.ndim == 2 else "target.long()"
        raise TypeError(
            f"target: expected a LongTensor (int64), got dtype {value.dtype}; try {hint}"
        )
    if value.shape != (batch,):
        hints = {0: "int(target)", 2: "target[:, 0], or target.argmax(1) of one-hot rows"}
        hints |= {1: "target.expand(len(x))"} if value.shape == (1,) else {}
        raise ValueError(
            f"target: expected an int or shape ({batch},), one class for each of the {batch} "
            f"pictures of x, got shape {tuple(value.shape)}; try "
            f"{hints.get(value.ndim, 'model(x).argmax(1), the predicted classes')}"
        )
    if int(value.min()) < 0:
        raise ValueError(f"target: expected class indices from 0, got {int(value.min())}")
    return value.cpu()  # compared with C on the host: no waiting for a GPU in the loop


class NoScores(TypeError, ValueError):
    """A model does not give scores (N, C), and the message says what to write."""


def score_table(value: object, rows: int) -> Tensor:
    """Return what the model returned for `rows` rows, if it has the form (N, C) of scores."""
    if isinstance(value, Tensor) and value.ndim == 2 and value.is_floating_point():
        return value
    raise no_scores(value, rows)


def no_scores(value: object, rows: int, expression: str = "y") -> NoScores:
    """Return the error for an output that is no table of scores; it shows what to write.

    expression: code for the value, where y stands for what the model returned.
    """
    returned = "it returned" if expression == "y" else f"{expression} of its output y is"
    holds = [f"{name!r} {_kind(part)}" for name, part in parts(value).items()]
    holds = f" with {', '.join(holds)}" if holds else ""
    return NoScores(
        f"model: expected it to return a tensor of scores (N, C) for an input of N = {rows} rows, "
        f"{returned} {_kind(value)}{holds}. {_what_to_write(value, rows, expression)}"
    )


def parts(value: object) -> dict[str | int, object]:
    """Return what a model's output holds, by its keys, places or attributes; {} of a tensor."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple | list):
        return dict(zip(getattr(value, "_fields", range(len(value))), value, strict=True))
    if isinstance(value, Tensor) or not (hasattr(value, "__dict__") or is_dataclass(value)):
        return {}
    names = [f.name for f in fields(value)] if is_dataclass(value) else vars(value)
    found = {name: getattr(value, name) for name in names if not name.startswith("_")}
    with_logits = isinstance(getattr(value, "logits", None), Tensor)  # perhaps a property
    return found | ({"logits": value.logits} if with_logits else {})


def code_of_part(value: object, name: str | int, expression: str = "y") -> str:
    """Return the code for a part of a model's output, such as y.logits or y["out"]."""
    if isinstance(value, Mapping) or not isinstance(name, str):
        return f'{expression}["{name}"]' if isinstance(name, str) else f"{expression}[{name!r}]"
    return f"{expression}.{name}"


def likely_parts(value: object, rows: int) -> list[str | int]:
    """Return the names of the parts of an output that may be its scores, the plain one alone.

    That is "logits", the only floating-point tensor with a row for each row of the input, or the
    first of a tuple if that is (N, C).
    """
    found = parts(value)
    if isinstance(found.get("logits"), Tensor):
        return ["logits"]
    likely = [n for n, v in found.items() if _has_rows(v, rows)]
    return likely[:1] if likely[:1] == [0] and found[0].ndim == 2 else likely


def _has_rows(value: object, rows: int) -> bool:
    """Say whether a value is a floating-point tensor with so many rows."""
    is_real = isinstance(value, Tensor) and value.is_floating_point()
    return is_real and value.ndim > 0 and len(value) == rows


def scores(value: Tensor, points: Tensor, target: Tensor) -> Tensor:
    """Check that the model returned a tensor (N, C) with a column for every target."""
    rows = points.shape[0]
    value = score_table(value, rows)
    if value.shape[0] != rows:
        raise ValueError(
            f"model: expected it to return a tensor of scores (N, C) for an input of N = {rows} "
            f"rows, it returned {_kind(value)}. A tensor y that it holds, with a row for each "
            "picture, does not follow: explain picture i with tl.scores(model, y=y[i : i + 1]), "
            "which repeats that row. A row of the input is one of the output: of a network with "
            "time first pick one place, pick=lambda y: y[0][-1], or set batch_first=True"
        )
    if (most := int(target.max())) >= value.shape[1]:
        raise ValueError(
            f"target: expected class indices below C = {value.shape[1]}, the number of scores "
            f"that the model returns, got {most}"
        )
    return value


def _what_to_write(value: object, rows: int, expression: str, name: object = None) -> str:
    """Say which line of code makes scores (N, C) of what a model returned."""
    if isinstance(value, list) and value and all(isinstance(part, Mapping) for part in value):
        return (
            "A list with a dictionary for each picture, as detectors return: write "
            'tl.scores(model, pick=lambda y: torch.stack([part["scores"].sum() for part in y]))'
        )
    if found := parts(value):
        tensors = [n for n, v in found.items() if isinstance(v, Tensor)]
        name = [*likely_parts(value, rows), *tensors, *found][0]
        inner = code_of_part(value, name, expression)
        return _what_to_write(found[name], rows, inner, None if expression != "y" else name)
    if not isinstance(value, Tensor):
        return (
            "Write tl.scores(model, pick=lambda y: ...) with code that makes (N, C) of it, by "
            "PyTorch, as a NumPy array has no gradient"
        )
    if not (value.is_floating_point() or value.is_complex()):
        return (
            "Whole numbers have no gradient: let it return the scores that they were made of, "
            "before an argmax, a rounding or a comparison, and write tl.scores(model)"
        )
    change, note = _to_table(value, rows)
    if change is None:
        return (
            "A number for all rows together explains none of them: let it return one for each, "
            "(N,), and write tl.scores(model)"
        )
    if change or (name is None and expression != "y"):
        return f"Write tl.scores(model, pick=lambda y: {expression}{change}){note}"
    quoted = f'"{name}"' if isinstance(name, str) else name
    return f"Write tl.scores(model{'' if name is None else f', pick={quoted}'})"


def _to_table(value: Tensor, rows: int) -> tuple[str | None, str]:
    """Return the code that makes (N, C) of a tensor, None if there is none, and what to note."""
    shape, sizes = tuple(value.shape), [n for n in value.shape[1:] if n != 1]
    if value.is_complex():
        return ".abs()", ""
    if value.ndim < 2 and shape != (rows,):  # perhaps a squeeze() has dropped the only row
        return (f".reshape(-1, {value.numel()})" if rows == 1 else None), ""
    if value.ndim <= 2:
        return "", ""
    if len(sizes) <= 1:
        return ".flatten(1)", ""
    if value.ndim == 3:
        return "[:, 0]", ", or another place of the sequence, or its mean"
    middle = ", ".join(str(n // 2) for n in shape[2:])
    return f"[:, :, {middle}]", ", or another pixel, or the mean over some of them"


def gradient(value: Tensor | None) -> Tensor:
    """Check that there is a gradient, which there is only where the output depends on the input."""
    if value is None:
        raise ValueError(
            "model: its output does not depend on its input (is there a detach(), a no_grad() "
            "block, an argmax or a comparison inside?), so it has no gradient to explain"
        )
    return value


def returned(value: object, shape: torch.Size) -> Tensor:
    """Check that a method returned a map of the shape of its input."""
    if not isinstance(value, Tensor) or value.shape != shape:
        what = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"method: expected it to return shape {tuple(shape)}, got {what}")
    return value


def squares(value: Tensor, dtype: torch.dtype) -> None:
    """Check that squares of a map are finite in the dtype of x, in which they are returned."""
    finite = value.to(dtype).isfinite().flatten(1).all(1)  # (B,)
    if not bool(finite.all()):
        raise ValueError(
            "model: the squares of its gradients are infinite for pictures "
            f"{(~finite).nonzero().flatten().tolist()} of x, in {dtype}. Take x in a wider dtype, "
            "or divide the scores by a number"
        )


def result(value: Tensor) -> None:
    """Check that a finished average is finite."""
    finite = value.isfinite().flatten(1).all(1)  # (B,)
    if not bool(finite.all()):
        raise ValueError(
            "model: its scores or gradients are NaN or infinite for pictures "
            f"{(~finite).nonzero().flatten().tolist()} of x, in {value.dtype}. A square root, "
            "logarithm or division at 0 is the usual cause; look at model(x) there and nearby"
        )


def defined(name: str, good: Tensor, wanted: str, instead: str = "leave them out") -> None:
    """Check that a measure is defined for every picture: good, (B,), says so of each of them."""
    if not bool(good.all()):
        bad = (~good).nonzero().flatten().tolist()
        raise ValueError(
            f"{name}: expected {wanted}; not so for pictures {bad} of {len(good)}: {instead}"
        )


def count(name: str, value: int, least: int = 1, most: int = 2**63 - 1) -> int:
    """Check a whole number from `least` to `most`."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name}: expected an int from {least} on, got {value!r}")
    if not least <= value <= most:
        raise ValueError(f"{name}: expected an int from {least} to {most}, got {value}")
    return int(value)


def choice(name: str, value: object, accepted: tuple[str, ...]) -> None:
    """Check that a value is one of a few words."""
    if not isinstance(value, str) or value not in accepted:
        raise ValueError(f"{name}: expected one of {', '.join(accepted)}, got {value!r}")


def flag(name: str, value: bool) -> None:
    """Check that a value is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {value!r}")


def sigma(value: float | Tensor, x: Tensor) -> float | Tensor:
    """Check a standard deviation in the units of x: a number or a tensor, finite, at least 0."""
    if isinstance(value, float) and 0 <= value <= torch.finfo(x.dtype).max:
        return float(value)  # without waiting for a GPU
    tensor = broadcastable("sigma", value, x)
    if bool((tensor < 0).any()):
        raise ValueError(f"sigma: expected finite numbers of at least 0, got {_range(tensor)}")
    return tensor if isinstance(value, Tensor) else float(value)


def broadcastable(name: str, value: float | Tensor, x: Tensor) -> Tensor:
    """Return a number or a tensor, finite, with as many dimensions as x, each equal to x's or 1."""
    if isinstance(value, Real) and not isinstance(value, bool):
        try:
            value = torch.tensor(float(value), dtype=torch.float64)
        except OverflowError:
            raise ValueError(f"{name}: expected a finite number, got one too large") from None
    if not isinstance(value, Tensor):
        several = ""
        if isinstance(value, tuple | list | Mapping):
            several = (
                f"; for the inputs of net = tl.scores(model, inputs=...) write net.join({name})"
            )
            several += f", or net.explain(method, target, {name}={name})"
        raise TypeError(f"{name}: expected a number or a tensor, got {_kind(value)}{several}")
    if value.dtype == torch.bool or value.is_complex():
        raise TypeError(f"{name}: expected real numbers, got dtype {value.dtype}")
    if value.ndim == 0:
        value = value.reshape([1] * x.ndim)
    sizes = zip(value.shape, x.shape, strict=False)
    if value.ndim != x.ndim or any(size not in (1, of_x) for size, of_x in sizes):
        raise ValueError(
            f"{name}: expected a number or a tensor of the shape of x, {tuple(x.shape)}, where a "
            f"dimension may be 1, got shape {tuple(value.shape)}"
        )
    return _finite_as(name, value, x)


def bounds(value: object, x: Tensor) -> tuple[Tensor, Tensor]:
    """Check a pair (lower, upper) of numbers or tensors, lower below upper everywhere."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(
            "bounds: expected a pair (lower, upper) of numbers or tensors, for example "
            f"model.bounds, got {_kind(value)}"
        )
    lower, upper = (broadcastable("bounds", side, x) for side in value)
    if not bool((lower < upper).all()):
        raise ValueError("bounds: expected lower < upper everywhere, got lower >= upper somewhere")
    return lower, upper


def inside(x: Tensor, value: object) -> tuple[Tensor, Tensor]:
    """Check that x is within bounds, up to rounding in its dtype or float32, the coarser one."""
    lower, upper = bounds(value, x)
    beyond = torch.maximum(lower - x, x - upper)
    eps = max(torch.finfo(x.dtype).eps, torch.finfo(torch.float32).eps)
    rounding = 2 * eps * torch.maximum(lower.abs(), upper.abs())
    if bool((beyond > rounding).any()):
        raise ValueError(
            f"x: expected values within the bounds, {_range(lower)} below and {_range(upper)} "
            f"above, got {int((beyond > rounding).sum())} of {x.numel()} outside, the farthest by "
            f"{float(beyond.max()):.3g}; are these the bounds of this x (or is it a noisy copy)?"
        )
    return lower, upper


def roots(value: Tensor, x: Tensor) -> Tensor:
    """Check given roots (R, B, ...), R points for every picture of x."""
    if not isinstance(value, Tensor) or value.dtype == torch.bool or value.is_complex():
        kind = getattr(value, "dtype", _kind(value))
        raise TypeError(f"roots: expected an int or a tensor of real numbers, got {kind}")
    if value.ndim == 0 or value.shape[1:] != x.shape or not len(value):
        raise ValueError(
            f"roots: expected an int or shape (R, {', '.join(map(str, x.shape))}), R points for "
            f"every picture of x, got shape {tuple(value.shape)}"
        )
    return _finite_as("roots", value, x)


def baselines(value: Tensor, x: Tensor) -> Tensor:
    """Check baselines (K, ...), K points of the shape of a picture, for all pictures of x."""
    if not isinstance(value, Tensor) or value.dtype == torch.bool or value.is_complex():
        raise TypeError(
            f"baselines: expected a tensor of K points, {_points_like(x)}, got {_kind(value)}"
        )
    _dense("baselines", value)
    if value.ndim == 0 or value.shape[1:] != x.shape[1:] or not len(value):
        raise ValueError(
            f"baselines: expected K points of the shape of a picture, {_points_like(x)}, got shape "
            f"{tuple(value.shape)}; baseline[None] makes K = 1 of one"
        )
    return _finite_as("baselines", value, x)


def weight(value: Callable, a: float) -> float:
    """Return w(a) of a path's weight w, after a check that it is a finite real number."""
    if not callable(value):
        raise TypeError(f"weight: expected a function from a number to a number, got {value!r}")
    found = value(a)
    if isinstance(found, Tensor) and found.numel() == 1 and not found.is_complex():
        found = found.item()
    if not isinstance(found, Real) or not math.isfinite(found):
        raise ValueError(f"weight: expected a finite real number at a = {a:g}, got {found!r}")
    return float(found)


def left_out(name: str, value: object, default: float, other: str) -> None:
    """Check that an argument has its default, as another one takes its place."""
    if isinstance(value, Tensor) or value != default:
        raise ValueError(f"{name}: expected it left out beside {other}, which takes its place")


def maps(name: str, value: Tensor) -> Tensor:
    """Check a batch of finite maps (B, H, W); return it detached, in float32 or float64."""
    if not isinstance(value, Tensor) or not value.dtype.is_floating_point:
        kind = getattr(value, "dtype", _kind(value))
        raise TypeError(f"{name}: expected a floating-point tensor (B, H, W), got {kind}")
    if value.ndim != 3 or not value.numel():
        raise ValueError(f"{name}: expected shape (B, H, W), got {tuple(value.shape)}")
    defined(name, value.isfinite().flatten(1).all(1), "finite maps")
    value = value.detach()
    return value if value.dtype == torch.float64 else value.float()


def numbers(x: Tensor) -> Tensor:
    """Check a finite floating-point tensor of any shape and return it detached."""
    if not isinstance(x, Tensor) or not x.dtype.is_floating_point:
        raise TypeError(f"x: expected a floating-point tensor, got {getattr(x, 'dtype', _kind(x))}")
    return _finite_as("x", x, x)


def nonnegative(name: str, value: float) -> float:
    """Check a finite number of at least 0."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a number of at least 0, got {_kind(value)}")
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name}: expected a finite number of at least 0, got {value}")
    return float(value)


def positive(name: str, value: float, most: float = float("inf")) -> float:
    """Check a finite number above 0 and at most `most`."""
    if nonnegative(name, value) == 0 or value > most:
        limit = "" if most == float("inf") else f" and at most {most}"
        raise ValueError(f"{name}: expected a number above 0{limit}, got {value}")
    return float(value)


def fraction(name: str, value: float) -> float:
    """Check a number between 0 and 1, both left out."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a number between 0 and 1, got {_kind(value)}")
    if not 0 < value < 1 - 1e-15:
        raise ValueError(f"{name}: expected a number between 0 and 1, got {value}")
    return float(value)


def extra(module: str, name: str) -> ModuleType:
    """Import a module that only some functions need; the ImportError says how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module} is needed here ({error}); pip install 'tutorial_lib[{name}]' brings it"
        ) from error


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of sums and noise: float64 stays, everything narrower uses float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def seed(value: int) -> int:
    """Check a whole number from 0 to 2**63 - 1."""
    return count("seed", value, least=0)


def _finite_as(name: str, value: Tensor, x: Tensor) -> Tensor:
    """Return a tensor with the dtype and on the device of x, if it is finite there."""
    value = value.detach().to(x.dtype)  # on its own device: a number on the CPU needs no GPU
    if not bool(value.isfinite().all()):
        raise ValueError(f"{name}: expected finite numbers in {x.dtype}, got {_range(value)}")
    return value.to(x.device)


def _kind(value: object) -> str:
    """Say what a value is, for an error message."""
    if isinstance(value, Tensor):
        return f"shape {tuple(value.shape)} and dtype {value.dtype}"
    return f"{type(value).__name__}" + (f" {value!r}" if isinstance(value, str | Real) else "")


def _points_like(x: Tensor) -> str:
    """Say which shape K points for the pictures of x have, for an error message."""
    return f"(K, {', '.join(map(str, x.shape[1:]))})"


def _range(value: Tensor) -> str:
    """Say which values a tensor has, for an error message."""
    low, high = float(value.min()), float(value.max())
    return f"{low}" if low == high or low != low else f"values from {low} to {high}"


# --- A model is examined before it is explained: are its rows independent, do its scores repeat?
# Every method puts many rows into one pass and takes the gradient of each row as that row's alone.
# That is wrong where rows influence one another or where the scores change from call to call, and
# the map does not show it. `examine` runs two rows together, each alone, and together once more.


@dataclass(frozen=True)
class Findings:
    """What examining a model has shown.

    Args:
        fixed_rows: Whether the model takes batches of as many rows as x has, and no others.
        ending: "softmax" or "sigmoid" if that is the last thing that the model does, else "".
        own_backward: Name of a torch.autograd.Function of the model's own, or "" if it has none.
    """

    fixed_rows: bool = False
    ending: str = ""
    own_backward: str = ""


@contextlib.contextmanager
def skip_model_check() -> Iterator[None]:
    """Leave out the check that a model's rows are independent and its scores repeat, inside a with.

    The check costs six rows of a forward pass, once for a module and a shape of x, and at each call
    for a function. A module that has changed since, by a hook or an attribute, is not checked
    again. Skip the check where you know the answer: maps of a model whose rows influence one
    another are wrong.

    Returns:
        Context manager; after it models are checked as before.

    Raises:
        ValueError: Not raised here. Outside of the with, every method raises it for a model whose
            rows influence one another or whose scores change from call to call.

    Example:
        Each score of this model changes by 1/2 with its own row, but the other row hides it:

        >>> def mixing(z):
        ...     return z - z.mean(0)
        >>> with tl.skip_model_check():
        ...     tl.gradient(mixing, torch.tensor([[1.0], [5.0]]), 0)
        tensor([[0.],
                [0.]])
    """
    before = _check_is_on.set(False)
    try:
        yield
    finally:
        _check_is_on.reset(before)


def examine(model: Callable, x: Tensor) -> Findings:
    """Raise ValueError for a model whose rows influence one another or whose scores change.

    A module is examined once for each shape, dtype and device of x, (B, ...), and a function at
    each call, as it may hold a module that is in training mode by then. `skip_model_check` leaves
    it out.
    """
    if not _check_is_on.get():
        return Findings()
    key = (x.shape, x.dtype, x.device)
    known = _findings_of.setdefault(model, {}) if isinstance(model, nn.Module) else {}
    if key not in known:
        known[key] = _compare_rows(model, x)
    return known[key]


def _compare_rows(model: Callable, x: Tensor) -> Findings:
    """Compare the scores of rows alone, together and once more."""
    rows = _two_rows(x)
    together, ending, own = _scores_and_graph(model, rows)
    alone = [_scores(model, row) for row in rows.split(1)]
    fixed = any(scores is None for scores in (together, *alone))
    if fixed:
        if together is None or len(x) > 1:  # perhaps it holds a tensor with a row for each picture
            rows, together = x, _scores(model, x)
        if together is None:
            _explain_failure(model, x)
            return Findings(ending=ending, own_backward=own)
        changed = torch.cat([rows[:1], _other_rows(rows[1:])]) if len(rows) > 1 else rows
        alone, together = [_scores(model, changed)[:1]], together[:1]
    again = _scores(model, rows)
    if again is None or _differ(together, again[: len(together)], x):
        raise ValueError(
            "model: its scores change from call to call with the same input. F.dropout drops at "
            "random unless it gets training=self.training; a network inside a function may be in "
            f"training mode: call its eval(); noise in forward() needs a fixed seed. {SKIP}"
        )
    if _differ(together, torch.cat(alone), x):
        raise ValueError(
            "model: the scores of a row change with the other rows of its batch, so each map would "
            "be of a mixture. A mean, norm or softmax over dimension 0 does that; let it go over "
            "the others: z - z.mean(1, keepdim=True). So do batch norm in training mode (call "
            "eval() on a network inside a function), nn.LSTM or nn.MultiheadAttention without "
            f"batch_first=True, state kept between calls, and dynamic quantization. {SKIP}"
        )
    return Findings(fixed and len(rows) == len(x), ending, own)


def _explain_failure(model: Callable, x: Tensor) -> None:
    """Raise an error that says why a model does not take x, where that is simple to see."""
    weights = model.parameters() if isinstance(model, nn.Module) else ()
    dtypes = {p.dtype for p in weights if p.dtype.is_floating_point}
    if dtypes and x.dtype not in dtypes:
        wanted = dtypes.pop()
        raise TypeError(
            f"x: its dtype is {x.dtype}, the model's weights are {wanted}; x.to({wanted})"
        )
    if more := _further_inputs(model):
        names, held = ", ".join(more), ", ".join(f"{n}={n}" for n in more)
        raise TypeError(
            f"model: it needs {names} beside its first input. Write tl.scores(model, {held}) to "
            f"hold what does not change, or net = tl.scores(model, inputs=(x, {names})) to explain "
            "all of them"
        )
    with torch.no_grad():
        if _runs(model, x.long()):
            raise TypeError(
                "x: the model takes whole numbers, such as token ids, which have no gradient. "
                "Write net = tl.scores(model, inputs=ids, embedding='name of the layer') and "
                "explain net.x, what its embedding makes of them"
            )
        if x.ndim == 4 and _runs(model, x.permute(0, 3, 1, 2)):
            raise ValueError(
                f"x: the model takes pictures (N, C, H, W), got shape {tuple(x.shape)}; "
                "x.permute(0, 3, 1, 2) puts the channels first"
            )
        if _runs(model, x[None]):
            raise ValueError(
                f"x: the model takes a batch of such inputs, got one of shape {tuple(x.shape)}; "
                "x[None] makes a batch of one"
            )


def _runs(model: Callable, rows: Tensor) -> bool:
    """Say whether the model takes this input, whatever it returns."""
    try:
        model(rows.clone())
    except Exception as error:
        return isinstance(error, NoScores)
    return True


def _further_inputs(model: Callable) -> list[str]:
    """Name the parameters, beside the first, that a model cannot do without."""
    try:
        of = signature(model.forward if isinstance(model, nn.Module) else model).parameters.values()
    except (TypeError, ValueError):  # it does not say
        return []
    several = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    return [p.name for p in of if p.default is Parameter.empty and p.kind not in several][1:]


def _other_rows(row: Tensor) -> Tensor:
    """Return other rows that hold numbers like those of these rows."""
    return row.flip(-1) / 2 if bool(row.any()) else torch.ones_like(row)


def _two_rows(x: Tensor) -> Tensor:
    """Return two different rows like those of x, (2, ...)."""
    first, second = x[:1], x[1:2]
    if not len(second) or bool((first == second).all()):
        second = _other_rows(first)
    return torch.cat([first, second])


def _scores(model: Callable, rows: Tensor) -> Tensor | None:
    """Return the model's scores, or None where it does not take this number of rows."""
    try:
        scores = model(rows.clone())
    except NoScores:  # of tl.scores, which says what to write
        raise
    except Exception:  # whatever the model says; if it never runs, the first pass says it again
        return None
    score_table(scores, len(rows))
    return scores if len(scores) == len(rows) else None


def _scores_and_graph(model: Callable, rows: Tensor) -> tuple[Tensor | None, str, str]:
    """Return the scores, and what their graph says: `ending` and `own_backward` of Findings."""
    with torch.enable_grad():
        scores = _scores(model, rows.detach().clone().requires_grad_())
    if scores is None or scores.grad_fn is None:
        return scores, "", ""
    return scores.detach(), _ending(scores.grad_fn), _own_backward(scores.grad_fn)


def _ending(node: torch.autograd.graph.Node) -> str:
    """Return "softmax" or "sigmoid" if the graph of the scores ends in it, else ""."""
    for _ in range(4):  # through a slice, a view or a column that is added
        name = node.name().lower()
        for ending in ("softmax", "sigmoid"):
            if ending in name and "log" not in name:
                return ending
        following = [n for n, _ in node.next_functions if n is not None]
        if len(following) != 1:
            break
        node = following[0]
    return ""


def _own_backward(node: torch.autograd.graph.Node) -> str:
    """Name a torch.autograd.Function in a graph that is neither PyTorch's nor ours; "" if none."""
    seen, waiting = set(), [node]
    while waiting:
        node = waiting.pop()
        function = getattr(type(node), "_forward_cls", None)
        if function and function.__module__.split(".")[0] not in ("torch", "tutorial_lib"):
            return function.__name__
        new = {n for n, _ in node.next_functions if n is not None} - seen
        seen |= new
        waiting.extend(new)
    return ""


def _differ(one: Tensor, other: Tensor, x: Tensor) -> bool:
    """Say whether scores differ by more than rounding, class by class."""
    eps = torch.finfo(one.dtype).eps
    if torch.is_autocast_enabled(x.device.type):
        eps = max(eps, torch.finfo(torch.get_autocast_dtype(x.device.type)).eps)
    elif x.device.type != "cpu":
        eps = max(eps, 2**-11)  # factors may be rounded to TF32
    size = torch.maximum(one.abs(), other.abs()).nan_to_num(0, 0, 0)
    # What a score changes by from row to row, as a large number may be added to all of them.
    change = one.nan_to_num(0, 0, 0).diff(dim=0).abs().amax(0) if len(one) > 1 else size[0]  # (C,)
    tolerance = eps**0.5 * change + min(100 * eps, eps**0.5) * size.amax()
    same = ((one - other).abs() <= tolerance) | (one == other) | (one.isnan() & other.isnan())
    return not bool(same.all())


def warn_if_saturated(
    findings: Findings, attribution: Tensor, model: Callable, x: Tensor, target: Tensor
) -> None:
    """Warn that a map is flat because the probability that it explains does not change."""
    flat = attribution.abs().flatten(1).amax(1) < FLAT  # (B,)
    if not findings.ending or not bool(flat.any()):
        return
    p = model(x.clone()).gather(1, target.to(x.device)[:, None])[:, 0]
    flat &= torch.minimum(p, 1 - p) < FLAT
    if bool(flat.any()):
        warnings.warn(
            f"model: it ends in a {findings.ending}, which is saturated at pictures "
            f"{flat.nonzero().flatten().tolist()} of x, so its gradient and the map are 0 or "
            f"rounding. Explain the logits, the scores before the {findings.ending}",
            UserWarning,
            stacklevel=4,
        )
