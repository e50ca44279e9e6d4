"""Recording: a model runs, and every basic operation that it does is written on a tape.

PyTorch reports the operations of a forward pass under one basic name each: `F.relu`, `x.relu()` and
`nn.ReLU(inplace=True)` are all "relu", whoever calls them and however often. The model gets hooks
while it runs, and they are removed.

A *value* is a tensor that depends on the input; values are numbered, the input is 0. A *step* is
one operation that reads values and makes one. A *tape* holds all steps and values. Among the stored
arguments of a step a `Slot` stands for each value that it reads (see `tape.py`).
"""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from tutorial_lib import checks
from tutorial_lib.rules.opened_layers import OpenLayers
from tutorial_lib.rules.tape import Slot, Step, Tape, tree_leaves, tree_map

aten = torch.ops.aten
# Code in these folders is PyTorch's or ours, and not the model's.
LIBRARIES = tuple(f"{Path(file).parent}{os.sep}" for file in (torch.__file__, checks.__file__))
_ATTENTION_LOCK = threading.RLock()  # how attention runs is switched for the process
PYTHON_NUMBERS = {"_local_scalar_dense", "is_nonzero"}  # they return a Python number, no tensor


def record(model: Callable, x: Tensor, target: Tensor) -> Tape:
    """Run the model on x and keep every operation that the scores depend on, as steps of a tape.

    The memory that it takes is that of all activations of the forward pass.

    Args:
        model: Callable from (N, ...) to scores (N, C).
        x: (N, ...) floating-point inputs.
        target: LongTensor with class indices below C.

    Returns:
        The tape. Value 0 is a copy of x, and `tape.values[tape.output]` is the scores.

    Raises:
        ValueError, TypeError: The model returns no scores (N, C), they have no column for a target,
            or they do not depend on x.
        NotImplementedError: An operation writes in place, and its effect cannot be followed.

    Example:
        >>> from tutorial_lib.rules.recorder import record
        >>> tape = record(lambda x: x.relu() * 2, torch.tensor([[1.0, -1.0]]), torch.tensor([0]))
        >>> [step.name for step in tape.steps]
        ['relu', 'mul']
        >>> tape.values[tape.output]
        tensor([[2., 0.]])
    """
    names = {}
    if isinstance(model, nn.Module):
        names = {m: name or type(m).__name__ for name, m in model.named_modules()}
    recorder = _Recorder(names)
    with torch.no_grad(), _open_attention(), _track_modules(names, recorder.running):
        x = x.detach().clone()  # the model may write into it
        recorder.track(x)
        with recorder, OpenLayers(), _name_closed_operations():
            scores = model(x)
        checks.scores(scores, x, target)
        recorder.check_not_overwritten("returning", scores)
    number = recorder.numbers.get(id(scores))
    if number is None:
        raise ValueError(
            "model: its output does not depend on its input by PyTorch operations (is there a "
            "NumPy call inside?), so there is nothing to explain"
        )
    return Tape(recorder.steps, recorder.values).until(number)


class _Recorder(TorchDispatchMode):
    """Inside, PyTorch reports every basic operation; those that read values become steps."""

    def __init__(self, names: dict[nn.Module, str]):
        super().__init__()
        self.names = names
        self.running: list[nn.Module] = []
        self.steps: list[Step] = []
        self.values: dict[int, Tensor] = {}
        self.numbers: dict[int, int] = {}  # id of a live tensor -> number of its value
        self.kept_alive: list[Tensor] = []  # so that no id or memory is used again
        self.constant_memory: set[int] = set()  # of tensors that steps read as constants
        self.write_counts: dict[int, int] = {}  # memory -> how often values were written into it
        self.origins: dict[int, tuple] = {}  # number -> memory and its write count, when made

    def track(self, tensor: Tensor) -> int:
        """Make a tensor a value: give it the next number."""
        number = len(self.origins)
        self.values[number] = tensor
        self.numbers[id(tensor)] = number
        self.origins[number] = _memory(tensor), self.write_counts.get(_memory(tensor), 0)
        self.kept_alive.append(tensor)
        return number

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        """Run one basic operation for PyTorch; add a step if it reads values."""
        kwargs = kwargs or {}
        if op is aten._convolution.default:  # as traced modules call it, with cuDNN's settings
            op, args = aten.convolution.default, args[:9]
        tensors = [a for a in tree_leaves((args, kwargs)) if isinstance(a, Tensor)]
        name = op._schema.name.split("::")[1]
        for tensor in tensors:
            self.check_not_overwritten(name, tensor)
        written = [*args[:1], kwargs.get("out")] if op._schema.is_mutable else []
        if any(isinstance(t, Tensor) and _memory(t) in self.constant_memory for t in written):
            raise self._in_place_error(name)
        no_value = name.endswith("_like") or name.startswith("new_") or name in PYTHON_NUMBERS
        if no_value or not any(id(t) in self.numbers for t in tensors):
            return op(*args, **kwargs)
        if name == "as_strided_":  # only a note on memory layout where no value changes
            before = args[0].clone()
            if torch.equal(op(*args, **kwargs), before):
                return args[0]
        if op._schema.is_mutable:
            return self._run_out_of_place(op, name, args, kwargs)
        out = op(*args, **kwargs)
        self._add_steps(op, name, args, kwargs, out)
        return out

    def _add_steps(self, op, name: str, args: tuple, kwargs: dict, out: object) -> None:
        """Add a step to the tape for each tensor that an operation returned."""
        inputs: list[int] = []
        slotted = _insert_slots((args, kwargs), self.numbers, inputs)
        modules, module, location = tuple(self.running), self._module_name(), self._location()
        outputs = [(None, out)] if isinstance(out, Tensor) else list(enumerate(out))
        for i, made in outputs:
            if isinstance(made, Tensor) and id(made) not in self.numbers:
                number = self.track(made)
                step = Step(name, op, slotted, tuple(inputs), number, i, modules, module, location)
                self.steps.append(step)
                self.constant_memory.update(map(_memory, step.constants()))

    def _run_out_of_place(self, op, name: str, args: tuple, kwargs: dict) -> Tensor:
        """Run an operation in place, such as relu_, as relu, so that the old value is kept."""
        written, out_of_place = args[0], getattr(torch.ops.aten, name[:-1], None)
        if not name.endswith("_") or not isinstance(written, Tensor) or out_of_place is None:
            raise NotImplementedError(
                f"model: {name} at {self._location()} writes in place, and no rule follows that"
            )
        out = out_of_place(*args, **kwargs)
        before, number = written.detach(), self.numbers.pop(id(written), None)
        if number is not None:
            self.values[number], self.numbers[id(before)] = before, number
        self._add_steps(out_of_place, name[:-1], (before, *args[1:]), kwargs, out)
        if _memory(out) != _memory(written):  # else only its shape is another
            self.write_counts[_memory(written)] = self.write_counts.get(_memory(written), 0) + 1
        self.kept_alive.append(before)
        written.set_(out.to(written.dtype))  # the old memory keeps the value before
        self.numbers[id(written)] = self.numbers.pop(id(out))
        return written

    def check_not_overwritten(self, name: str, tensor: Tensor) -> None:
        """Refuse a tensor whose memory was written through another tensor since it was made."""
        memory = _memory(tensor)
        origin = self.origins.get(self.numbers.get(id(tensor)), (memory, 0))
        if origin != (memory, self.write_counts.get(memory, 0)):
            raise self._in_place_error(name)

    def _in_place_error(self, name: str) -> NotImplementedError:
        """Return the error for an operation that reads or writes memory shared by tensors."""
        return NotImplementedError(
            f"model: {name} at {self._location()} meets memory that an operation in place writes "
            "through another name (a view, .data, or a constant that was read before); no rule "
            "follows that. Write the model with a copy, for example x.clone(), or torch.cat"
        )

    def _location(self) -> str:
        """Return the running module's name and the line of the model's own code."""
        frame = sys._getframe(1)
        while frame and frame.f_code.co_filename.startswith(LIBRARIES):
            frame = frame.f_back
        line = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame else "?"
        return f"{self._module_name()} ({line})" if self._module_name() else line

    def _module_name(self) -> str:
        """Return the name of the innermost running module; "" outside of all modules."""
        return next((self.names[m] for m in reversed(self.running) if m in self.names), "")


@contextlib.contextmanager
def _track_modules(modules: dict[nn.Module, str], running: list[nn.Module]) -> Iterator[None]:
    """Inside, `running` is the stack of the model's modules that run, in this thread."""
    thread = threading.get_ident()

    def push(module: nn.Module, _: object) -> None:
        if threading.get_ident() == thread:
            running.append(module)

    def pop(module: nn.Module, inputs: object, output: object) -> None:
        if threading.get_ident() == thread:
            running.pop()

    handles = []
    try:
        with checks.MODEL_LOCK:
            for module in modules:
                if not isinstance(module, torch.jit.ScriptModule):  # its parts call no hooks
                    handles.append(module.register_forward_pre_hook(push))
                    handles.append(module.register_forward_hook(pop, always_call=True))
        yield
    finally:
        with checks.MODEL_LOCK:
            for handle in handles:
                handle.remove()


@contextlib.contextmanager
def _open_attention() -> Iterator[None]:
    """Inside, attention runs as matrix products and softmax, and not as one fused operation."""
    with _ATTENTION_LOCK:
        before = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with sdpa_kernel(SDPBackend.MATH):
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(before)


@contextlib.contextmanager
def _name_closed_operations() -> Iterator[None]:
    """Inside, an operation that runs functions of the model, unseen by a recorder, is an error."""
    try:
        yield
    except NotImplementedError as error:
        if "HigherOrderOperator" not in str(error):
            raise
        name = str(error).partition("HigherOrderOperator ")[2].partition(" ")[0]
        raise NotImplementedError(
            f"model: {name} runs functions inside, which cannot be followed. Write "
            "F.scaled_dot_product_attention for flex_attention, and a plain if or loop of Python "
            "for the others; tl.integrated_gradients takes the model as it is"
        ) from error


def _memory(tensor: Tensor) -> int:
    """Return a number that two tensors share exactly if they share memory."""
    return tensor.untyped_storage()._cdata


def _insert_slots(tree: object, numbers: dict[int, int], inputs: list[int]) -> object:
    """Return arguments with a slot for each value, and append the values' numbers to `inputs`."""

    def change(leaf: object) -> object:
        if not isinstance(leaf, Tensor) or id(leaf) not in numbers:
            return leaf
        inputs.append(numbers[id(leaf)])
        return Slot(len(inputs) - 1)

    return tree_map(tree, change)
