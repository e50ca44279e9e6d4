"""Recording: a model runs, and every basic operation that it does is written on a tape.

PyTorch reports the operations of a forward pass under one basic name each: `F.relu`, `x.relu()` and
`nn.ReLU(inplace=True)` are all "relu", whoever calls them and however often. The model itself is
never touched.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tutorial_lib import checks
from tutorial_lib.rules.tape import RECURRENT, Slot, Step, Tape, leaves, mapped

aten = torch.ops.aten
HIDDEN = tuple(f"{Path(file).parent}{os.sep}" for file in (torch.__file__, checks.__file__))
_SWITCH = threading.RLock()  # the fast path of attention is switched for the process
NO_VALUES = {"_local_scalar_dense", "is_nonzero"}  # what comes out is a number for Python


def record(model: Callable, x: Tensor, target: Tensor) -> Tape:
    """Run the model on x (N, ...) and keep every step that the scores (N, C) depend on.

    Memory: all activations of the forward pass. Raises ValueError or TypeError as `checks.scores`
    does and if the output does not depend on the input, NotImplementedError for an operation in
    place whose effect cannot be followed.
    """
    names = {}
    if isinstance(model, nn.Module):
        names = {m: name or type(m).__name__ for name, m in model.named_modules()}
    recorder = _Recorder(names)
    with torch.no_grad(), _attention_in_steps(), _watching(names, recorder.running):
        x = x.detach().clone()  # the model may write into it
        recorder.track(x)
        with recorder:
            scores = model(x)
        checks.scores(scores, x, target)
        recorder.check_fresh("returning", scores)
    number = recorder.number.get(id(scores))
    if number is None:
        raise ValueError(
            "model: its output does not depend on its input by PyTorch operations (is there a "
            "NumPy call inside?), so there is nothing to explain"
        )
    return Tape(recorder.steps, recorder.values).until(number)


class _Recorder(TorchDispatchMode):
    """Sees every basic operation while the model runs, and writes down those on values."""

    def __init__(self, names: dict[nn.Module, str]):
        super().__init__()
        self.names = names
        self.running: list[nn.Module] = []
        self.steps: list[Step] = []
        self.values: dict[int, Tensor] = {}
        self.number: dict[int, int] = {}  # id of a live tensor -> number of its value
        self.alive: list[Tensor] = []  # so that no id or memory is used again
        self.constants: set[int] = set()  # memory of tensors that steps read as constants
        self.writes: dict[int, int] = {}  # memory -> how often values were written into it
        self.seen: dict[int, tuple] = {}  # number of a value -> its memory, and writes, when made

    def track(self, tensor: Tensor) -> int:
        """Give a tensor the next number."""
        number = len(self.seen)
        self.values[number] = tensor
        self.number[id(tensor)] = number
        self.seen[number] = _memory(tensor), self.writes.get(_memory(tensor), 0)
        self.alive.append(tensor)
        return number

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if op is aten._convolution.default:  # as traced modules call it, with cuDNN's settings
            op, args = aten.convolution.default, args[:9]
        tensors = [a for a in leaves((args, kwargs)) if isinstance(a, Tensor)]
        name = op._schema.name.split("::")[1]
        for tensor in tensors:
            self.check_fresh(name, tensor)
        written = [*args[:1], kwargs.get("out")] if op._schema.is_mutable else []
        if any(isinstance(t, Tensor) and _memory(t) in self.constants for t in written):
            raise self._unfollowed(name)
        shape_only = name.endswith("_like") or name.startswith("new_") or name in NO_VALUES
        if shape_only or not any(id(t) in self.number for t in tensors):
            return op(*args, **kwargs)
        if name == "as_strided_":  # only a note on memory layout where no value changes
            before = args[0].clone()
            if torch.equal(op(*args, **kwargs), before):
                return args[0]
        if op._schema.is_mutable:
            return self._write(op, name, args, kwargs)
        out = op(*args, **kwargs)
        self._note(op, name, args, kwargs, out)
        return out

    def _note(self, op, name: str, args: tuple, kwargs: dict, out: object) -> None:
        """A step for each tensor that the operation made."""
        inputs: list[int] = []
        slotted = _slotted((args, kwargs), self.number, inputs)
        running, module, where = tuple(self.running), self._module(), self._where()
        parts = [(None, out)] if isinstance(out, Tensor) else list(enumerate(out))
        for part, made in parts:
            if isinstance(made, Tensor) and id(made) not in self.number:
                number = self.track(made)
                step = Step(name, op, slotted, tuple(inputs), number, part, running, module, where)
                self.steps.append(step)
                self.constants.update(map(_memory, step.constants()))

    def _write(self, op, name: str, args: tuple, kwargs: dict) -> Tensor:
        """An operation in place: its value is new, made by the same operation out of place."""
        target, plain = args[0], getattr(torch.ops.aten, name[:-1], None)
        if not name.endswith("_") or not isinstance(target, Tensor) or plain is None:
            raise NotImplementedError(
                f"model: {name} at {self._where()} writes in place, and no rule follows that"
            )
        out = plain(*args, **kwargs)
        before, old = target.detach(), self.number.pop(id(target), None)
        if old is not None:
            self.values[old], self.number[id(before)] = before, old
        self._note(plain, name[:-1], (before, *args[1:]), kwargs, out)
        if _memory(out) != _memory(target):  # else only its shape is another
            self.writes[_memory(target)] = self.writes.get(_memory(target), 0) + 1
        self.alive.append(before)
        target.set_(out.to(target.dtype))  # the old memory keeps the value before
        self.number[id(target)] = self.number.pop(id(out))
        return target

    def check_fresh(self, name: str, tensor: Tensor) -> None:
        """Refuse a tensor whose memory was written through another name."""
        memory = _memory(tensor)
        made = self.seen.get(self.number.get(id(tensor)), (memory, 0))
        if made != (memory, self.writes.get(memory, 0)):
            raise self._unfollowed(name)

    def _unfollowed(self, name: str) -> NotImplementedError:
        if any(isinstance(module, nn.RNNBase) for module in self.running):
            return NotImplementedError(
                f"model: {name} at {self._where()} is a step inside a recurrent layer of "
                f"PyTorch, which writes in place. {RECURRENT}"
            )
        return NotImplementedError(
            f"model: {name} at {self._where()} meets memory that an operation in place writes "
            "through another name (a view, .data, or a constant that was read before); no rule "
            "follows that. Write the model with a copy, for example x.clone(), or torch.cat"
        )

    def _where(self) -> str:
        """The running module and the line of the model's own code."""
        frame = sys._getframe(1)
        while frame and frame.f_code.co_filename.startswith(HIDDEN):
            frame = frame.f_back
        line = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame else "?"
        return f"{self._module()} ({line})" if self._module() else line

    def _module(self) -> str:
        return next((self.names[m] for m in reversed(self.running) if m in self.names), "")


@contextlib.contextmanager
def _watching(modules: dict[nn.Module, str], running: list[nn.Module]) -> Iterator[None]:
    """Inside, `running` is the stack of the model's modules that run, in this thread."""
    thread = threading.get_ident()

    def begins(module: nn.Module, _: object) -> None:
        if threading.get_ident() == thread:
            running.append(module)

    def ends(module: nn.Module, inputs: object, output: object) -> None:
        if threading.get_ident() == thread:
            running.pop()

    handles = []
    try:
        with checks.MODEL_LOCK:
            for module in modules:
                if not isinstance(module, torch.jit.ScriptModule):  # its parts call no hooks
                    handles.append(module.register_forward_pre_hook(begins))
                    handles.append(module.register_forward_hook(ends, always_call=True))
        yield
    finally:
        with checks.MODEL_LOCK:
            for handle in handles:
                handle.remove()


@contextlib.contextmanager
def _attention_in_steps() -> Iterator[None]:
    """Inside, attention takes no fast path: that is one operation, which has no derivative."""
    with _SWITCH:
        before = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(before)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _slotted(tree: object, number: dict[int, int], inputs: list[int]) -> object:
    def change(leaf: object) -> object:
        if not isinstance(leaf, Tensor) or id(leaf) not in number:
            return leaf
        inputs.append(number[id(leaf)])
        return Slot(len(inputs) - 1)

    return mapped(tree, change)
