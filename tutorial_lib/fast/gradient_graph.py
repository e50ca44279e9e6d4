"""Scores and the gradient at the input as one ONNX graph, for browsers and for other programs.

The backward pass is recorded like a forward pass, and ONNX has no backward operators. So each of
PyTorch's is written with forward ones: by PyTorch's own decompositions, and by the four below
where PyTorch has none.
"""

import contextlib
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from tutorial_lib import checks

OPSET = 18
INPUTS = ["picture", "class_weights"]
OUTPUTS = ["scores", "gradient", "activation", "activation_gradient"]
MOST_BYTES = 2**31 - 2**20  # of an ONNX file, which is one message of protobuf
# Largest error of the written graph at x, by norms: one ReLU that lands on the other side of its
# kink changes a gradient by some 1e-2, a wrong operator by about 1.
SCORES_TOLERANCE, GRADIENT_TOLERANCE = 1e-3, 0.05


def export_gradient(
    model: Callable,
    x: Tensor,
    path: str | os.PathLike,
    *,
    layer: nn.Module | str | None = None,
) -> None:
    """Write the scores and the gradient at the input as an ONNX graph, which runs without PyTorch.

        scores = f(picture)
        gradient = d sum(scores * class_weights) / d picture

    The inputs are `picture`, of the shape of x, and `class_weights` (B, C): 1 for the class to
    explain and 0 elsewhere, or 1 and -1 for the difference of two classes. The batch size is that
    of x. With a layer there are two more outputs, of the shape of what the layer returns:

        activation = A
        activation_gradient = d sum(scores * class_weights) / d A

    Grad-CAM is the positive part of the sum over channels of A times the mean of its gradient. The
    file is one of float32 weights, stored once, and of operators of opset 18, all of which ONNX
    Runtime has, in browsers too. Before it is written it runs once at x and is compared with
    autograd. It appears whole or not at all; model and x stay as they are.

    The graph is what the model does at x: a model that chooses its layers by the values of its
    input is refused, one that chooses them by its shape is written for the shape of x.

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
            `prepare` makes its graph smaller and faster.
        x: (B, ...) finite float32 inputs, for the shape of `picture` and for the comparison.
        path: Where the file goes; an earlier one is replaced.
        layer: A module of the model, or its dotted name, that runs once and returns a tensor.

    Returns:
        Nothing; the file is at `path`.

    Raises:
        TypeError: An argument has the wrong type, or x another dtype than float32.
        ValueError: A value does not fit, the layer is not found or does not run once, the rows of
            the model are not independent, or its weights do not fit into a file of 2 GiB.
        NotImplementedError: An operation of the model, or of its backward pass, has no counterpart
            in ONNX; the message names it.
        FileNotFoundError: The folder of `path` does not exist.
        RuntimeError: The graph computes something else at x than PyTorch does.
        ImportError: A package of `tutorial_lib[export]` is missing, or PyTorch is older than 2.6.

    Example:
        >>> from tempfile import mkdtemp
        >>> path = mkdtemp() + "/network.onnx"
        >>> tl.export_gradient(model, x, path)
        >>> import onnxruntime
        >>> session = onnxruntime.InferenceSession(path)
        >>> cat_minus_dog = torch.zeros(2, 10)
        >>> cat_minus_dog[:, 3], cat_minus_dog[:, 5] = 1, -1
        >>> inputs = {"picture": x.numpy(), "class_weights": cat_minus_dog.numpy()}
        >>> scores, gradient = session.run(None, inputs)
        >>> difference = tl.gradient(model, x, 3) - tl.gradient(model, x, 5)
        >>> torch.allclose(torch.tensor(gradient), difference, atol=1e-6)
        True
    """
    _check_packages()
    checks.model(model)
    x, path = _float32(checks.pictures(x)).cpu(), _file(path)
    with torch.inference_mode(False):
        model, module = _own_copy(model, layer)
        with torch.no_grad():
            checks.examine(model, x)
            scores = checks.scores(model(x.clone()), x, torch.zeros(1, dtype=torch.int64))
        # Weights of all classes: a class of its own might not depend on some of the layers.
        rng = torch.Generator().manual_seed(0)
        inputs = x.clone(), torch.randn(scores.shape, generator=rng)
        recorded, wanted = _recorded(model, module, inputs)
        graph = _onnx(recorded, inputs, len(wanted))
    _compare(graph, inputs, wanted)
    _write(graph, path)


def _check_packages() -> None:
    """Raise ImportError where a package is missing, or PyTorch's exporter lacks what is used."""
    checks.extra("onnx", "export")
    checks.extra("onnxscript", "export")
    checks.extra("onnxruntime", "export")
    if torch.__version__ < "2.6":  # no plain string: 2.14 is more
        raise ImportError(
            f"torch 2.6 or newer is needed here, this is {torch.__version__}; "
            "pip install 'torch>=2.6' brings it"
        )


def _float32(x: Tensor) -> Tensor:
    """Check the dtype in which browsers compute."""
    if x.dtype != torch.float32:
        raise TypeError(
            f"x: expected torch.float32, in which the graph computes, got {x.dtype}; give "
            "model.float() and x.float()"
        )
    return x


def _file(path: str | os.PathLike) -> Path:
    """Check that a file can be made at a path."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path: expected a string or a path, got {type(path).__name__}")
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"path: {str(path)!r} is a folder; give a file, such as network.onnx")
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"path: no folder {str(path.parent)!r}; Path(path).parent.mkdir(parents=True) makes it"
        )
    return path


def _own_copy(model: Callable, layer: nn.Module | str | None) -> tuple[Callable, nn.Module | None]:
    """Return a frozen copy of a module and the layer in it; a function and a layer as they are.

    Channels last bring steps that only say how numbers lie in memory, which ONNX does not know. So
    the copy has its weights in the usual order, on the CPU.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            "model: a scripted or traced module cannot be recorded; give the module that it was "
            "made of"
        )
    if not isinstance(model, nn.Module):
        if layer is not None and not isinstance(layer, nn.Module):
            raise TypeError(
                f"layer: a name needs an nn.Module as model, which has names, got {layer!r} for a "
                f"{type(model).__name__}; give the layer itself, such as net.layer4"
            )
        return model, layer
    modules = dict(model.named_modules(remove_duplicate=False))
    name = next((n for n, m in modules.items() if m is layer), layer)
    if layer is not None and name not in modules:
        raise ValueError(
            f"layer: expected a module of the model or its dotted name, got "
            f"{name if isinstance(name, str) else type(name).__name__!r}; "
            "[name for name, _ in model.named_modules()] lists them"
        )
    copy = checks.copied(model, "export_gradient").requires_grad_(False)
    size = 0
    for value in (*copy.parameters(), *copy.buffers()):
        value.data = value.data.cpu().contiguous()
        size += value.nbytes
    if size > MOST_BYTES:
        raise ValueError(
            f"model: its weights are {size / 2**30:.1f} GiB, and an ONNX file holds 2 GiB at most; "
            "export a smaller network"
        )
    return copy, None if layer is None else copy.get_submodule(name)


# ------------------------------------------------------------------------ what goes into the graph


def _recorded(
    model: Callable, module: nn.Module | None, inputs: tuple[Tensor, Tensor]
) -> tuple[torch.fx.GraphModule, list[Tensor]]:
    """Record the passes at x; return them and their outputs there."""

    def passes(picture: Tensor, class_weights: Tensor) -> list[Tensor]:
        start = picture.detach().requires_grad_()
        with torch.enable_grad(), _output_of(module) as activations:
            scores = model(start)
            checks.gradient(scores.grad_fn)
            points = [start, *activations]
            gradients = torch.autograd.grad(scores, points, class_weights, allow_unused=True)
        if module is not None and (not activations or gradients[1] is None):
            what = "on which the scores depend" if activations else "that runs when the model does"
            raise ValueError(f"layer: expected one {what}, got {type(module).__name__}")
        checks.gradient(gradients[0])
        return [t.detach() for t in (scores, gradients[0], *activations, *gradients[1:])]

    # Imported here, as it brings much that `import torch` leaves out.
    from torch.fx.experimental.proxy_tensor import make_fx

    wanted = passes(*inputs)
    # Attention as products and a softmax, not as one operator.
    attention = torch.nn.attention
    try:
        with attention.sdpa_kernel(attention.SDPBackend.MATH):
            recorded = make_fx(passes, decomposition_table=_decompositions())(*inputs)
    except NotImplementedError:
        raise
    except Exception as error:  # whatever the model or PyTorch says
        raise NotImplementedError(
            f"model: its backward pass cannot be recorded ({type(error).__name__}: {error}). A "
            "graph has no layers that are chosen by the values of the input (`if z.mean() > 0:`): "
            "torch.where(z.mean() > 0, a, b) computes both"
        ) from error
    left = {str(n.target) for n in recorded.graph.nodes if "backward" in str(n.target)}
    if left:
        raise _no_counterpart(*sorted(left))
    return recorded.eval(), wanted


@contextlib.contextmanager
def _output_of(module: nn.Module | None) -> Iterator[list[Tensor]]:
    """Inside, what a layer returns comes into a list, and a copy of it goes on in the model."""
    outputs: list[Tensor] = []

    def tap(_: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        if outputs or not (isinstance(output, Tensor) and output.requires_grad):
            what = "runs more than once" if outputs else f"returns a {type(output).__name__}"
            raise ValueError(
                "layer: expected one that runs once and returns a tensor that depends on the "
                f"input, {type(module).__name__} {what}"
            )
        outputs.append(output)
        return output.clone()  # which the model may write over

    if module is None:
        yield outputs
        return
    with checks.forward_hook(module, tap):
        yield outputs


# ------------------------------------------------------------------- backward as forward operators


def _decompositions() -> dict[Callable, Callable]:
    """PyTorch's decompositions of backward operators, and those that it has not."""
    aten = torch.ops.aten
    of_torch = torch.export.default_decompositions().items()
    return {op: function for op, function in of_torch if "backward" in str(op)} | {
        aten.convolution_backward.default: _convolution_backward,
        aten.max_pool2d_with_indices_backward.default: _max_pool_backward,
        aten.avg_pool2d_backward.default: _avg_pool_backward,
        aten._adaptive_avg_pool2d_backward.default: _adaptive_avg_pool_backward,
    }


def _convolution_backward(
    grad_output: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: list[int] | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    output_mask: list[bool],
) -> tuple[Tensor, None, None]:
    """Write the gradient at the input of a convolution as a convolution.

    Where the stride is 1, it is one with the flipped kernel, input and output channels exchanged,
    which browsers compute faster than a transposed one; elsewhere it is a transposed one.
    """
    if any(output_mask[1:]):
        raise _no_counterpart("aten.convolution_backward of a weight that depends on the input")
    sides = range(x.ndim - 2)
    kernel = [dilation[i] * (weight.shape[2 + i] - 1) for i in sides]  # from first to last weight
    rest = [kernel[i] - padding[i] for i in sides]
    ones, zeros = [1 for _ in sides], [0 for _ in sides]
    if transposed:
        options = (stride, padding, dilation, False, zeros, groups)
    elif max(stride) == 1 and min(rest) >= 0:
        weight = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)  # (C, K / groups)
        if max(kernel) > 0:
            weight = weight.flip([2 + i for i in sides])
        options = (ones, rest, dilation, False, zeros, groups)
    else:
        size = [(grad_output.shape[2 + i] - 1) * stride[i] + kernel[i] + 1 for i in sides]
        missing = [x.shape[2 + i] - size[i] + 2 * padding[i] for i in sides]
        options = (stride, padding, dilation, True, missing, groups)
    return torch.ops.aten.convolution.default(grad_output, weight, None, *options), None, None


def _max_pool_backward(
    grad_output: Tensor,
    x: Tensor,
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ceil_mode: bool,
    indices: Tensor,
) -> Tensor:
    """Add each gradient to the place of its maximum."""
    planes = torch.zeros_like(x).flatten(-2)  # (N, C, H * W)
    places = planes.scatter_add(-1, indices.flatten(-2), grad_output.flatten(-2))
    return places.reshape(x.shape)


def _avg_pool_backward(
    grad_output: Tensor,
    x: Tensor,
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    """Spread each gradient evenly over its window; windows at an edge may be smaller."""
    matrices = []
    for i in (0, 1):
        size, cells = x.shape[i - 2], grad_output.shape[i - 2]
        windows = []
        for cell in range(cells):
            start = cell * (stride or kernel_size)[i] - padding[i]
            end = min(start + kernel_size[i], size + padding[i])
            inside = max(start, 0), min(end, size)
            count = end - start if count_include_pad else inside[1] - inside[0]
            windows.append((*inside, 1 if divisor_override else count))
        matrices.append(_means(size, windows).to(x))
    return _spread(grad_output, *matrices) / (divisor_override or 1)


def _adaptive_avg_pool_backward(grad_output: Tensor, x: Tensor) -> Tensor:
    """Spread each gradient evenly over its window; windows may overlap."""
    matrices = []
    for i in (-2, -1):
        size, cells = x.shape[i], grad_output.shape[i]
        ends = [(k * size // cells, -(-(k + 1) * size // cells)) for k in range(cells)]
        matrices.append(_means(size, [(start, end, end - start) for start, end in ends]).to(x))
    return _spread(grad_output, *matrices)


def _means(size: int, windows: list[tuple[int, int, int]]) -> Tensor:
    """Make the matrix (cells, size) whose rows are means over windows: start, end, divisor."""
    return torch.tensor(
        [[(start <= k < end) / count for k in range(size)] for start, end, count in windows]
    )


def _spread(grad_output: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Transpose the map X -> rows X columns^T, of which means over rectangles are made."""
    return rows.T @ grad_output @ columns  # (..., H, W)


def _no_counterpart(*operations: str) -> NotImplementedError:
    """Make the error for operations that ONNX, or this file, has not."""
    return NotImplementedError(
        f"model: {', '.join(operations)} cannot be exported to ONNX; write this step with sums, "
        "products, convolutions or torch.where, which can be (tl.gradient needs no export)"
    )


# ---------------------------------------------------------------------------------- the ONNX file


def _onnx(recorded: torch.fx.GraphModule, inputs: tuple[Tensor, Tensor], outputs: int) -> bytes:
    """Translate the recorded passes; what names this machine's folders is left out."""
    options = dict(input_names=INPUTS, output_names=OUTPUTS[:outputs], opset_version=OPSET)
    options |= dict(dynamo=True, external_data=False, optimize=True, verbose=False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of versions of the exporter
            model = torch.onnx.export(recorded, inputs, **options).model_proto
    except Exception as error:  # of many kinds, in many layers
        said = str(error)
        operations = {*re.findall(r"op='([\w.]+)'", said)}
        raise _no_counterpart(*sorted(operations) or [said]) from error
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.ClearField("value_info")
    return model.SerializeToString()


def _compare(graph: bytes, inputs: tuple[Tensor, Tensor], wanted: list[Tensor]) -> None:
    """Run the graph at x: its outputs are those of PyTorch."""
    runtime = checks.extra("onnxruntime", "export")
    session = runtime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    feeds = {name: value.numpy() for name, value in zip(INPUTS, inputs, strict=True)}
    names = OUTPUTS[: len(wanted)]
    for name, found, value in zip(names, session.run(names, feeds), wanted, strict=True):
        error = float((torch.from_numpy(found) - value).norm() / value.norm().clamp(min=1e-30))
        tolerance = GRADIENT_TOLERANCE if "gradient" in name else SCORES_TOLERANCE
        if not error <= tolerance:
            raise RuntimeError(
                f"model: the {name} of the ONNX graph at x differs by {error:.1e} of its norm from "
                f"PyTorch's, more than {tolerance}: an operator of the model is translated wrongly "
                "by this version of onnxscript; try another version"
            )


def _write(graph: bytes, path: Path) -> None:
    """Write a file that appears whole or not at all."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        part = Path(folder) / "part"
        part.write_bytes(graph)
        os.replace(part, path)
