"""A tape: what a model did to a batch, operation by operation, so that it can be walked back.

The words of this folder:

- A *value* is a tensor that the model computed from its input. Values are numbered; the input is 0.
- A *step* is one operation that reads values and makes a value, for example one matrix product.
- A *tape* is the list of steps from the input to the scores, in the order in which they ran, with
  all values. `recorder.record` makes it.
- A *rule* takes what has arrived at the output of a step, and says what goes on to each value that
  the step reads. What arrives is a gradient, a relevance or a multiplier. `walk_back` applies a
  rule from the last step to the first; with the rule `gradient` this is backpropagation.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from tutorial_lib import checks

OUTPUTS = {"_softmax", "_log_softmax", "sigmoid"}  # as a last step, they turn logits into shares
LARGEST = "Write F.adaptive_max_pool1d(z, 1) for the largest entry, or torch.softmax if it is one"
# What to write where an operation has no rule, by a word of its name.
ADVICE = {
    "embedding": "Whole numbers have no share: write net = tl.scores(model, inputs=ids, "
    "embedding='name of the layer') and explain net.x, what its embedding makes of them",
    "attention": "Let PyTorch open it: take away the sdpa_kernel(...) around the call, or write "
    "softmax(q @ k.mT * scale) @ v",
    "where": "Write nn.ReLU, torch.clamp or torch.maximum if it is one of them",
    "amax": LARGEST,
    "max": LARGEST,
    "rnn": "Write the layer step by step, from nn.Linear, sigmoid and tanh",
}
KNOWN = (
    "dense layers, convolutions, norms, softmax and attention, products and quotients, sums, "
    "pooling, reshaping, choosing by a mask, and activations applied entry by entry"
)
# Of methods whose papers know networks of layers and rectifiers only.
PLAIN = (
    "dense layers, convolutions, batch norm in eval mode, sums, pooling, reshaping, and "
    "activations applied entry by entry"
)
TRANSFORMER = 'Write rule="transformer", which has rules for products, softmax and norms'


@dataclass(frozen=True)
class Slot:
    """A placeholder among the stored arguments of a step, for its input number `index`."""

    index: int


@dataclass(frozen=True)
class Step:
    """One operation of the forward pass: which values it reads, and which value it makes.

    Args:
        name: PyTorch's basic name of the operation, such as "relu" or "addmm".
        op: The operation itself, a callable.
        args: The pair (positional, keyword) of its arguments, with a `Slot` for each value.
        inputs: Numbers of the values that it reads, in the order of the slots.
        output: Number of the value that it makes.
        output_index: Which one of the operation's outputs that value is; None if it has one output.
        modules: The modules that were running, from the outermost to the innermost.
        module: Name of the innermost module.
        location: That name and the line of the model's own code, for messages.
    """

    name: str
    op: Callable
    args: tuple
    inputs: tuple[int, ...]
    output: int
    output_index: int | None
    modules: tuple[nn.Module, ...]
    module: str
    location: str

    def __call__(self, *values: Tensor) -> Tensor:
        """Run the operation on other values."""
        out = self.outputs(*values)
        return out if self.output_index is None else out[self.output_index]

    def outputs(self, *values: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return all outputs of the operation, of which the step is one."""
        args, kwargs = _fill_slots(self.args, values)
        return self.op(*args, **kwargs)

    def constants(self) -> list[Tensor]:
        """Return the tensors among the arguments that are no values, such as weights."""
        return [a for a in tree_leaves(self.args) if isinstance(a, Tensor)]

    def argument(self, position: int) -> object:
        """Return a positional argument of the operation; None where it is left out."""
        args = self.args[0]
        return args[position] if position < len(args) else None


@dataclass
class Tape:
    """The steps from the input, which is value 0, to the output, and all values.

    Args:
        steps: The steps in the order of the forward pass.
        values: Tensor of each value, by its number.
        output: Number of the value that is the output.
    """

    steps: list[Step] = field(default_factory=list)
    values: dict[int, Tensor] = field(default_factory=dict)
    output: int = 0

    def values_read_by(self, step: Step) -> list[Tensor]:
        """Return the values that a step reads."""
        return [self.values[i] for i in step.inputs]

    def until(self, output: int) -> "Tape":
        """Return the part of the tape that one value depends on."""
        wanted, steps = {output}, []
        for step in reversed(self.steps):
            if step.output in wanted:
                wanted.update(step.inputs)
                steps.append(step)
        values = {i: v for i, v in self.values.items() if i in wanted}
        return Tape(steps[::-1], values, output)

    def without_choices(self) -> "Tape":
        """Return the tape with what is chosen, such as a mask or a place, as a constant.

        A choice is a value of whole numbers or of truth values that no rounding has made: nothing
        passes back through it. What is made of constants alone is a constant, too.
        """
        constants: dict[int, Tensor] = {}
        steps = []
        for step in self.steps:
            step = _with_constants(step, constants)
            value = self.values[step.output]
            chosen = not (value.is_floating_point() or value.is_complex())
            if not step.inputs or (chosen and step.name != "_to_copy"):
                constants[step.output] = value
            else:
                steps.append(step)
        return Tape(steps, self.values, self.output).until(self.output)

    def logits(self) -> "Tape":
        """Return the tape without a softmax, log_softmax or sigmoid as its last step."""
        last = next((s for s in self.steps if s.output == self.output), None)
        return self.until(last.inputs[0]) if last and last.name in OUTPUTS else self


def walk_back(
    tape: Tape, rule: Callable[[Step, Tensor], list[Tensor]], at_output: Tensor
) -> Iterator[tuple[int, Tensor]]:
    """Walk from the output of a tape to its input, and yield what has arrived at each value.

    Args:
        tape: The steps and values of one forward pass.
        rule: Function of a step and of what has arrived at its output. It returns a list: for each
            value that the step reads, what goes there, or None for nothing. A value that several
            steps read gets their sum. What arrives is a tensor of the value's shape, or anything
            else that can be added.
        at_output: What the walk starts with at the output of the tape.

    Returns:
        Iterator over pairs (number of a value, what has arrived there); value 0, the input, is
        the last one if anything arrives there.
    """
    totals = {tape.output: at_output}
    for step in reversed(tape.steps):
        if step.output in totals:
            total = totals.pop(step.output)
            yield step.output, total
            for i, share in zip(step.inputs, rule(step, total), strict=True):
                if share is not None:
                    totals[i] = totals[i] + share if i in totals else share
    if 0 in totals:
        yield 0, totals[0]


def walk_to_input(
    tape: Tape, rule: Callable[[Step, Tensor], list[Tensor]], at_output: Tensor
) -> Tensor:
    """Return what has arrived at the input, value 0, at the end of a walk back (`walk_back`)."""
    number = total = None
    for number, total in walk_back(tape, rule, at_output):  # noqa: B007
        pass  # only the last one is wanted, and nothing is to be kept
    return checks.gradient(total if number == 0 else None)


def gradient(tape: Tape, step: Step, grad_output: Tensor) -> list[Tensor]:
    """Return the gradient at each value that a step reads, given the gradient at its output."""
    try:
        return vjp(step, tape.values_read_by(step), grad_output)
    except RuntimeError as error:
        if "not implemented" in str(error):
            raise no_rule_error("PyTorch's gradient", step) from error
        raise


def vjp(call: Callable, values: list[Tensor], grad_output: Tensor) -> list[Tensor | None]:
    """Return grad_output' * d call / d value for every value, None where there is no derivative."""
    with torch.enable_grad():
        smooth = [v.is_floating_point() or v.is_complex() for v in values]
        leaves = [v.detach().requires_grad_(yes) for v, yes in zip(values, smooth, strict=True)]
        out = call(*leaves)
    wanted = [v for v in leaves if v.requires_grad]
    if not out.requires_grad:
        return [None] * len(values)
    gradients = iter(torch.autograd.grad(out, wanted, grad_output, allow_unused=True))
    return [next(gradients) if v.requires_grad else None for v in leaves]


def one_hot(target: Tensor, scores: Tensor) -> Tensor:
    """Return 1 at each row's target, else 0: the shape (N, C), dtype and device of the scores."""
    return nn.functional.one_hot(target.to(scores.device), scores.shape[1]).to(scores)


def no_rule_error(
    method: str, step: Step, advice: str = "", known: str = KNOWN
) -> NotImplementedError:
    """Return the error for a step, one operation of the model, that a method has no rule for."""
    words = step.name.split("_")
    advice = advice or next((text for word, text in ADVICE.items() if word in words), "")
    return NotImplementedError(
        f"model: {method} has no rule for the operation {step.name} at {step.location}. "
        f"{advice or 'tl.integrated_gradients needs none'}. There are rules for {known}"
    )


def tree_leaves(tree: object) -> Iterator[object]:
    """Yield the leaves of nested tuples, lists and dictionaries."""
    if isinstance(tree, tuple | list):
        for item in tree:
            yield from tree_leaves(item)
    elif isinstance(tree, dict):
        yield from tree_leaves(list(tree.values()))
    else:
        yield tree


def tree_map(tree: object, change: Callable[[object], object]) -> object:
    """Return the same nested tuples, lists and dictionaries with change(leaf) for every leaf."""
    if isinstance(tree, tuple | list):
        return type(tree)(tree_map(item, change) for item in tree)
    if isinstance(tree, dict):
        return {key: tree_map(item, change) for key, item in tree.items()}
    return change(tree)


def _with_constants(step: Step, constants: dict[int, Tensor]) -> Step:
    """Return a step that reads some values, by their numbers, as constants."""
    if not constants.keys() & set(step.inputs):
        return step
    kept = [i for i in step.inputs if i not in constants]
    places = [k for k, i in enumerate(step.inputs) if i not in constants]

    def change(leaf: object) -> object:
        if not isinstance(leaf, Slot):
            return leaf
        number = step.inputs[leaf.index]
        return constants[number] if number in constants else Slot(places.index(leaf.index))

    return replace(step, args=tree_map(step.args, change), inputs=tuple(kept))


def _fill_slots(tree: object, values: tuple[Tensor, ...]) -> object:
    """Return the arguments of a step with a value in the place of each slot."""
    return tree_map(tree, lambda leaf: values[leaf.index] if isinstance(leaf, Slot) else leaf)
