"""A tape: what a model does to a batch, operation by operation, so that it can be walked back.

PyTorch reports every operation of a forward pass under its one basic name: `F.relu`, `x.relu()`,
`nn.ReLU(inplace=True)` are all "relu". A `Tape` keeps these steps with their values, and
`walk_back` pushes numbers from the output to the input, by whatever rule it is given for a step:
its gradient, or another rule in its place. The model itself is never touched.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.utils._python_dispatch import TorchDispatchMode

from tutorial_lib import checks

HIDDEN = (str(Path(torch.__file__).parent), str(Path(__file__).parent))  # not the user's code

OUTPUTS = {"_softmax", "_log_softmax", "sigmoid"}
NO_VALUES = {"_local_scalar_dense", "is_nonzero"}  # what comes out is a number for Python


@dataclass(frozen=True)
class Slot:
    """The place of the k-th value that the step reads, among its arguments."""

    k: int


@dataclass(frozen=True)
class Step:
    """One operation: which values it reads, which one it makes, and where it stands.

    name: PyTorch's basic name. args: its arguments, with a `Slot` for each value that depends on
    the input. inputs, output: numbers of values on the tape. part: which of several outputs.
    modules: the modules that were running, from the outside in. module: the innermost one's name.
    where: that and the line of the model's own code.
    """

    name: str
    op: Callable
    args: tuple
    inputs: tuple[int, ...]
    output: int
    part: int | None
    modules: tuple[nn.Module, ...]
    module: str
    where: str

    def __call__(self, *values: Tensor) -> Tensor:
        """The operation on other values."""
        out = self.outputs(*values)
        return out if self.part is None else out[self.part]

    def outputs(self, *values: Tensor) -> Tensor | tuple[Tensor, ...]:
        """All outputs of the operation, of which the step is one."""
        args, kwargs = _filled(self.args, values)
        return self.op(*args, **kwargs)

    def constants(self) -> list[Tensor]:
        """The tensors among its arguments that are no values."""
        return [a for a in leaves(self.args) if isinstance(a, Tensor)]

    def fixed(self, place: int, default: object = None) -> object:
        """An argument that is no value, by its place."""
        args = self.args[0]
        return args[place] if place < len(args) else default


@dataclass
class Tape:
    """The steps on the way from the input, value 0, to the output, and all values."""

    steps: list[Step] = field(default_factory=list)
    values: dict[int, Tensor] = field(default_factory=dict)
    output: int = 0

    def of(self, step: Step) -> list[Tensor]:
        """The values that a step reads."""
        return [self.values[i] for i in step.inputs]

    def until(self, output: int) -> "Tape":
        """The part of the tape that one value depends on."""
        wanted, steps = {output}, []
        for step in reversed(self.steps):
            if step.output in wanted:
                wanted.update(step.inputs)
                steps.append(step)
        values = {i: v for i, v in self.values.items() if i in wanted}
        return Tape(steps[::-1], values, output)

    def logits(self) -> "Tape":
        """The tape without a softmax, log_softmax or sigmoid as its last step."""
        last = next((s for s in self.steps if s.output == self.output), None)
        return self.until(last.inputs[0]) if last and last.name in OUTPUTS else self


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
    with torch.no_grad(), recorder.watching():
        x = x.detach().clone()  # the model may write into it
        recorder.track(x)
        with recorder:
            scores = model(x)
    checks.scores(scores, x, target)
    number = recorder.number.get(id(scores))
    if number is None:
        raise ValueError(
            "model: its output does not depend on its input by PyTorch operations (is there a "
            "NumPy call inside?), so there is nothing to explain"
        )
    return Tape(recorder.steps, recorder.values).until(number)


def walk_back(
    tape: Tape, rule: Callable[[Step, Tensor], list[Tensor]], seed: Tensor
) -> Iterator[tuple[int, Tensor]]:
    """What reaches each value, from the output's seed back to the input: pairs (value, number).

    rule(step, up) gives for each value that the step reads what it gets, when the step's output
    has `up`; a value that several steps read gets their sum. With `gradient` as the rule this is
    backpropagation.
    """
    reached = {tape.output: seed}
    for step in reversed(tape.steps):
        if step.output in reached:
            up = reached.pop(step.output)
            yield step.output, up
            for i, part in zip(step.inputs, rule(step, up), strict=True):
                reached[i] = reached[i] + part if i in reached else part
    if 0 in reached:
        yield 0, reached[0]


def gradient(tape: Tape, step: Step, up: Tensor) -> list[Tensor]:
    """The step's own rule: its vector-Jacobian products at the values on the tape."""
    return pulled(step, tape.of(step), up)


def pulled(call: Callable[..., Tensor], values: list[Tensor], up: Tensor) -> list[Tensor]:
    """up' * d call / d value for every value, zeros where there is none."""
    with torch.enable_grad():
        leaves = [v.detach().requires_grad_() for v in values]
        out = call(*leaves)
        if not out.requires_grad:
            return [torch.zeros_like(v) for v in values]
        return list(torch.autograd.grad(out, leaves, up, materialize_grads=True))


def one_hot(target: Tensor, scores: Tensor) -> Tensor:
    """1 at each row's target, of the shape (N, C) and kind of the scores."""
    return nn.functional.one_hot(target.to(scores.device), scores.shape[1]).to(scores)


def no_rule(method: str, step: Step) -> NotImplementedError:
    """The error for an operation that a method cannot walk through."""
    return NotImplementedError(
        f"model: {method} has no rule for the operation {step.name} at {step.where}. There are "
        "rules for dense layers, convolutions, batch norm in eval mode, sums, pooling, reshaping, "
        "and activations applied entry by entry"
    )


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

    def watching(self) -> "_Watch":
        """A context in which the modules that run are known."""
        return _Watch(self.running)

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [a for a in leaves((args, kwargs)) if isinstance(a, Tensor)]
        for tensor in tensors:
            self._check_fresh(op, tensor)
        name = op._schema.name.split("::")[1]
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
        """A step for each floating-point tensor that the operation made."""
        inputs: list[int] = []
        slotted = _slotted((args, kwargs), self.number, inputs)
        running, module, where = tuple(self.running), self._module(), self._where()
        parts = [(None, out)] if isinstance(out, Tensor) else list(enumerate(out))
        for part, made in parts:
            if isinstance(made, Tensor) and id(made) not in self.number:
                number = self.track(made)
                step = Step(name, op, slotted, tuple(inputs), number, part, running, module, where)
                self.steps.append(step)

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

    def _check_fresh(self, op, tensor: Tensor) -> None:
        """Refuse a tensor whose memory was written through another name."""
        memory = _memory(tensor)
        made = self.seen.get(self.number.get(id(tensor)), (memory, 0))
        if made != (memory, self.writes.get(memory, 0)):
            raise NotImplementedError(
                f"model: {op._schema.name.split('::')[1]} at {self._where()} reads memory that an "
                "operation in place wrote through another name (a view, or .data); no rule follows "
                "that. Write the model with a copy, for example x.clone(), or torch.cat"
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


class _Watch:
    """Keeps the stack of running modules, by PyTorch's hooks for all modules."""

    def __init__(self, running: list[nn.Module]):
        self.running = running

    def __enter__(self) -> None:
        self.handles = [
            hooks.register_module_forward_pre_hook(lambda m, _: self.running.append(m)),
            hooks.register_module_forward_hook(
                lambda m, _, out: self.running.pop() and None, always_call=True
            ),
        ]

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def leaves(tree: object) -> Iterator[object]:
    """The leaves of nested tuples, lists and dictionaries."""
    if isinstance(tree, tuple | list):
        for item in tree:
            yield from leaves(item)
    elif isinstance(tree, dict):
        yield from leaves(list(tree.values()))
    else:
        yield tree


def _mapped(tree: object, change: Callable[[object], object]) -> object:
    """The same nesting with every leaf changed."""
    if isinstance(tree, tuple | list):
        return type(tree)(_mapped(item, change) for item in tree)
    if isinstance(tree, dict):
        return {key: _mapped(item, change) for key, item in tree.items()}
    return change(tree)


def _slotted(tree: object, number: dict[int, int], inputs: list[int]) -> object:
    def change(leaf: object) -> object:
        if not isinstance(leaf, Tensor) or id(leaf) not in number:
            return leaf
        inputs.append(number[id(leaf)])
        return Slot(len(inputs) - 1)

    return _mapped(tree, change)


def _filled(tree: object, values: tuple[Tensor, ...]) -> object:
    return _mapped(tree, lambda leaf: values[leaf.k] if isinstance(leaf, Slot) else leaf)
