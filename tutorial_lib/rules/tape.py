"""A tape: what a model did to a batch, operation by operation, so that it can be walked back.

`recorder.record` makes it. `walk_back` pushes numbers from the output to the input, by whatever
rule it is given for a step: its gradient, or another rule in its place.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tutorial_lib import checks

OUTPUTS = {"_softmax", "_log_softmax", "sigmoid"}  # as a last step, they turn logits into shares
RECURRENT = (
    "No rule opens nn.LSTM or nn.GRU: tl.integrated_gradients explains them, and a layer that "
    "you write step by step, from nn.Linear, sigmoid and tanh, can be followed"
)


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

    def fixed(self, place: int) -> object:
        """An argument that is no value, by its place; None where it is left out."""
        args = self.args[0]
        return args[place] if place < len(args) else None


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


def walk_back(
    tape: Tape, rule: Callable[[Step, Tensor], list[Tensor]], seed: Tensor
) -> Iterator[tuple[int, Tensor]]:
    """What reaches each value, from the output's seed back to the input: pairs (value, number).

    rule(step, up) gives for each value that the step reads what it gets (or None), when the step's
    output has `up`; a value that several steps read gets their sum. With `gradient` as the rule
    this is backpropagation.
    """
    reached = {tape.output: seed}
    for step in reversed(tape.steps):
        if step.output in reached:
            up = reached.pop(step.output)
            yield step.output, up
            for i, part in zip(step.inputs, rule(step, up), strict=True):
                if part is not None:
                    reached[i] = reached[i] + part if i in reached else part
    if 0 in reached:
        yield 0, reached[0]


def reaching_input(
    tape: Tape, rule: Callable[[Step, Tensor], list[Tensor]], seed: Tensor
) -> Tensor:
    """What reaches the input at the end of a walk back."""
    *_, (value, up) = walk_back(tape, rule, seed)
    return checks.gradient(up if value == 0 else None)


def gradient(tape: Tape, step: Step, up: Tensor) -> list[Tensor]:
    """The step's own rule: its vector-Jacobian products at the values on the tape."""
    try:
        return pulled(step, tape.of(step), up)
    except RuntimeError as error:
        if "not implemented" in str(error):
            raise no_rule("PyTorch's gradient", step) from error
        raise


def pulled(call: Callable[..., Tensor], values: list[Tensor], up: Tensor) -> list[Tensor | None]:
    """up' * d call / d value for every value, None where there is no derivative."""
    with torch.enable_grad():
        leaves = [v.detach().requires_grad_(v.is_floating_point()) for v in values]
        out = call(*leaves)
    wanted = [v for v in leaves if v.requires_grad]
    if not out.requires_grad:
        return [None] * len(values)
    found = iter(torch.autograd.grad(out, wanted, up, allow_unused=True))
    return [next(found) if v.requires_grad else None for v in leaves]


def one_hot(target: Tensor, scores: Tensor) -> Tensor:
    """1 at each row's target, of the shape (N, C) and kind of the scores."""
    return nn.functional.one_hot(target.to(scores.device), scores.shape[1]).to(scores)


def no_rule(method: str, step: Step) -> NotImplementedError:
    """The error for an operation that a method cannot walk through."""
    recurrent = any(word in step.name for word in ("rnn", "lstm", "gru"))
    return NotImplementedError(
        f"model: {method} has no rule for the operation {step.name} at {step.where}. There are "
        "rules for dense layers, convolutions, batch norm in eval mode, sums, pooling, reshaping, "
        "and activations applied entry by entry" + (f". {RECURRENT}" if recurrent else "")
    )


def leaves(tree: object) -> Iterator[object]:
    """The leaves of nested tuples, lists and dictionaries."""
    if isinstance(tree, tuple | list):
        for item in tree:
            yield from leaves(item)
    elif isinstance(tree, dict):
        yield from leaves(list(tree.values()))
    else:
        yield tree


def mapped(tree: object, change: Callable[[object], object]) -> object:
    """The same nesting with every leaf changed."""
    if isinstance(tree, tuple | list):
        return type(tree)(mapped(item, change) for item in tree)
    if isinstance(tree, dict):
        return {key: mapped(item, change) for key, item in tree.items()}
    return change(tree)


def _filled(tree: object, values: tuple[Tensor, ...]) -> object:
    return mapped(tree, lambda leaf: values[leaf.k] if isinstance(leaf, Slot) else leaf)
