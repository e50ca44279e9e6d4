"""PatternNet and PatternAttribution: the walk back of the gradient, by patterns learnt from data.

A pattern says how a unit's output shows itself in its inputs. `fit_patterns` learns one for each
unit of each layer, from forward passes that are recorded on tapes: lists of steps, one for each
operation, with the values that they read and make (see `tape.py`). The two methods walk back from
the score to the input with patterns in the place of weights, or times weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from tqdm.auto import tqdm

from tutorial_lib import checks
from tutorial_lib.averaging import probes
from tutorial_lib.averaging.engine import average
from tutorial_lib.fast.passes import Passes
from tutorial_lib.fast.precision_modes import precision_for
from tutorial_lib.rules import linear_steps
from tutorial_lib.rules.linear_steps import LinearForm, linear_form
from tutorial_lib.rules.recorder import record
from tutorial_lib.rules.rectifiers import is_rectifier
from tutorial_lib.rules.tape import (
    PLAIN,
    Slot,
    Step,
    Tape,
    gradient,
    no_rule_error,
    one_hot,
    vjp,
    walk_to_input,
)
from tutorial_lib.rules.transformer_steps import is_activation

ESTIMATORS = ("two_component", "linear")


def fit_patterns(
    model: Callable,
    inputs: Tensor,
    *,
    estimator: str = "two_component",
    batch_size: int | None = None,
    progress: bool = False,
) -> dict[str, Tensor]:
    """Learn, for every unit of every layer, the direction in which its signal shows in its inputs.

        linear           a = cov(x, y) / var(y)
        two_component    a = q / (w . q),   q = E_+[x (y - E y)],   in front of a ReLU

    Kindermans et al. (2018). A unit has the output y = w . x, without its constant; E_+ is the mean
    over those of its inputs that pass, w . x + constant > 0. For both, w . a = 1. The unit of a
    convolution has as many inputs x as it has places. A rectifier that is cut off above, such as
    ReLU6, is a ReLU here; in front of other operations, and at the scores, the estimator is the
    linear one. (In the program iNNvestigate the mean of y goes over the inputs that pass, too.)

    A batch norm or an added constant right behind a layer counts as part of it. A unit that no
    input passes, or whose output never changes by more than rounding, has a pattern of zeros.

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
        inputs: (B, ...) floating-point inputs as the model sees them, such as its training data.
        estimator: "two_component" or "linear" for all layers.
        batch_size: Inputs in a forward pass; None chooses by the device and the size of an input.
        progress: Whether to show a progress bar.

    Returns:
        {name of the layer: (units, ...) patterns}, of the shape of the layer's weights. The name is
        the dotted one of the module that runs it, "layer" outside of modules; the second layer that
        runs in one module has ":2" behind it.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, or the rows of the model are not independent.
        NotImplementedError: A layer is neither dense nor a plain convolution, or an operation
            writes in place in a way that cannot be followed; the message says where it is.

    Example:
        A signal times (2, 1), and a distractor times (1, 1), which w = (1, -1) cancels:

        >>> y, distractor = torch.tensor([[1.0, 1, -1, -1], [1, -1, 1, -1]])[:, :, None]
        >>> data = y * torch.tensor([2.0, 1.0]) + distractor * torch.tensor([1.0, 1.0])
        >>> tl.fit_patterns(lambda z: z @ torch.tensor([[1.0], [-1.0]]), data)
        {'layer': tensor([[2., 1.]])}
    """
    checks.choice("estimator", estimator, ESTIMATORS)
    checks.model(model)
    inputs = checks.pictures(inputs, "inputs")
    passes, layers, sums, origins = Passes(batch_size, inputs), {}, {}, {}
    with torch.inference_mode(False), torch.no_grad(), precision_for(inputs.device, exact=True):
        passes.examine(model, inputs)
        for rows in tqdm([*passes.slices(len(inputs))], unit="pass", disable=not progress):
            x = inputs[rows]
            tape = record(model, x, torch.zeros(len(x), dtype=torch.long)).logits()
            layers = _layers(tape.without_choices(), "fit_patterns")
            for name, layer in layers.items():
                new = _sums(layer, tape, estimator, origins.setdefault(name, _first(layer, tape)))
                sums[name] = [s + n for s, n in zip(sums.get(name, [0] * 6), new, strict=True)]
        return {name: _pattern(layer, *sums[name]) for name, layer in layers.items()}


def pattern_attribution(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    patterns: Mapping[str, Tensor],
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Send the score back by patterns times weights: how much of it the signal in each input made.

        backward through y = W a + b:    R_a = (P * W)^T R_y
        everywhere else:                 the gradient, so [z > 0] at a ReLU

    Kindermans et al. (2018), PatternAttribution. P has a row for each unit, its pattern. It starts
    with the score, which is the logit if the last operation is softmax or sigmoid. For one linear
    unit the map is y p * w, and sums to y, as w . p = 1. It is the root point of deep Taylor
    decomposition that lies in the direction of the signal. Through a ReLU what goes to a unit that
    is off is lost, so a network's map need not sum to the score. Sums pass all that they get to
    each of their terms, as the gradient does.

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
        x: (B, ...) finite floating-point inputs.
        target: Class index, or LongTensor (B,) with one for each input.
        patterns: What `tl.fit_patterns` made for this model: {name of the layer: (units, ...)}.
        batch_size: Inputs in a forward pass; None chooses by the device and the size of x.
        seed: It changes nothing, as no noise is drawn; every method takes it.
        progress: Whether to show a progress bar.

    Returns:
        (B, ...) attributions in units of the score.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, `patterns` does not belong to the model, its
            rows are not independent, or the result is not finite.
        NotImplementedError: An operation has no rule, or writes in place in a way that cannot be
            followed; the message names it and says where it is.

    Example:
        At one unit of signal (2, 1) and one of distractor (1, 1):

        >>> f = lambda z: z @ torch.tensor([[1.0], [-1.0]])
        >>> p = {"layer": torch.tensor([[2.0, 1.0]])}
        >>> tl.pattern_attribution(f, torch.tensor([[3.0, 2.0]]), 0, patterns=p)
        tensor([[ 2., -1.]])
        >>> tl.gradient_x_input(f, torch.tensor([[3.0, 2.0]]), 0)
        tensor([[ 3., -2.]])
    """
    method = "pattern_attribution"
    return _walk(method, model, x, target, patterns, batch_size, seed, progress)


def pattern_net(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    patterns: Mapping[str, Tensor],
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Send the score back by patterns in the place of weights: the signal that made it.

        backward through y = W a + b:    R_a = P^T R_y
        everywhere else:                 the gradient, so [z > 0] at a ReLU

    Kindermans et al. (2018), PatternNet. P has a row for each unit, its pattern. It starts with the
    score, which is the logit if the last operation is softmax or sigmoid. For one linear unit the
    map is y p, the signal. With weights for patterns it is the gradient times the score. Each unit
    adds a signal of its own, so the numbers grow from layer to layer, and those of a deep network
    may need float64: model.double() and x.double().

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
        x: (B, ...) finite floating-point inputs.
        target: Class index, or LongTensor (B,) with one for each input.
        patterns: What `tl.fit_patterns` made for this model: {name of the layer: (units, ...)}.
        batch_size: Inputs in a forward pass; None chooses by the device and the size of x.
        seed: It changes nothing, as no noise is drawn; every method takes it.
        progress: Whether to show a progress bar.

    Returns:
        (B, ...) attributions in units of the input.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, `patterns` does not belong to the model, its
            rows are not independent, or the result is not finite.
        NotImplementedError: An operation has no rule, or writes in place in a way that cannot be
            followed; the message names it and says where it is.

    Example:
        >>> f = lambda z: z @ torch.tensor([[1.0], [-1.0]])
        >>> p = {"layer": torch.tensor([[2.0, 1.0]])}
        >>> tl.pattern_net(f, torch.tensor([[3.0, 2.0]]), 0, patterns=p)
        tensor([[2., 1.]])
    """
    return _walk("pattern_net", model, x, target, patterns, batch_size, seed, progress)


def _walk(method: str, model, x, target, patterns, batch_size, seed, progress) -> Tensor:
    """Return the map (B, ...) of a method with patterns, by its name."""
    if not isinstance(patterns, Mapping):
        raise TypeError(
            "patterns: expected a dict {name of the layer: (units, ...)}, got "
            f"{type(patterns).__name__}; write patterns=tl.fit_patterns(model, inputs)"
        )

    def walk(network: Callable, points: Tensor, target: Tensor) -> Tensor:
        tape = record(network, points, target).logits().without_choices()
        forms, absorbed = _pattern_forms(_layers(tape, method), patterns, method)
        rule = partial(_pattern_rule, tape, method, forms, absorbed)
        score = tape.values[tape.output]
        return walk_to_input(tape, rule, one_hot(target, score) * score)

    probe_function = partial(probes.point, seed=seed)
    options = dict(batch_size=batch_size, progress=progress, gradient_of=walk)
    return average(model, x, target, probe_function, **options)


def _pattern_rule(
    tape: Tape, method: str, forms: dict, absorbed: set[int], step: Step, relevance: Tensor
) -> list[Tensor]:
    """What goes back to each value that a step reads: by patterns at layers, else the gradient."""
    if step.output in absorbed:  # a norm that is part of the layer before it
        return [relevance]
    if step.output in forms:
        return forms[step.output].transpose(tape.values_read_by(step), relevance)
    if linear_form(step) or is_activation(step) or "max_pool" in step.name:
        return gradient(tape, step, relevance)
    raise no_rule_error(method, step, known=PLAIN)


@dataclass(frozen=True)
class _Layer:
    """A dense layer or convolution, and what stands behind it.

    Args:
        step: The layer's own step.
        form: Its linear form, with the norms that it has absorbed.
        absorbed: Those norms and constants.
        rectified: Whether a ReLU reads what it makes.
    """

    step: Step
    form: LinearForm
    absorbed: list[Step]
    rectified: bool

    @property
    def made(self) -> int:
        """Number of the value that the layer makes with what it has absorbed."""
        return [self.step, *self.absorbed][-1].output

    def by_units(self, weight: Tensor) -> Tensor:
        """Weights (in, units) of a dense layer as (units, in), and back."""
        return weight if self.step.name == "convolution" else weight.T


def _layers(tape: Tape, method: str) -> dict[str, _Layer]:
    """The layers of a tape by their names, in the order in which they run."""
    found: dict[str, _Layer] = {}
    of_tape, rectifiers = linear_steps.layers(tape), [s for s in tape.steps if is_rectifier(s)]
    for step in tape.steps:
        if step.output not in of_tape:
            continue
        form, absorbed = of_tape[step.output]
        by_columns = step.name in ("addmm", "mm") and isinstance(step.args[0][-2], Slot)
        if step.argument(6) is True or not (by_columns or step.name == "convolution"):
            raise no_rule_error(method, step, "Write nn.Linear or nn.Conv2d", PLAIN)
        name, last = step.module or "layer", [step, *absorbed][-1].output
        number = sum(other.partition(":")[0] == name for other in found) + 1
        rectified = any(last in s.inputs for s in rectifiers)
        found[name if number == 1 else f"{name}:{number}"] = _Layer(step, form, absorbed, rectified)
    return found


def _outputs(layer: _Layer, a: Tensor, weight: Tensor) -> Tensor:
    """What the units make of inputs a, (N, units, ...), without constants and in float64."""
    return layer.form.call([weight.double()], a.double())


def _first(layer: _Layer, tape: Tape) -> Tensor:
    """y of each unit at its first input, (1, units, 1, ...)."""
    (a,), (weight,) = tape.values_read_by(layer.step), layer.form.coefficients
    y = _outputs(layer, a[:1], weight)
    return y.flatten(2)[..., :1].view(1, -1, *[1] * (y.ndim - 2)) if y.ndim > 2 else y


def _sums(layer: _Layer, tape: Tape, estimator: str, origin: Tensor) -> list:
    """Over all inputs of all units: their number, sums of y, where they pass of x y and x, of y^2.

    y is counted from `origin`, its first value, as the digits of a y that hardly changes would be
    lost. The last is the sum of (sum |w x|)^2, to which the rounding of y^2 is small.
    """
    (a,), (weight,) = tape.values_read_by(layer.step), layer.form.coefficients
    a, weight = a.double(), weight.double()
    y, size = _outputs(layer, a, weight) - origin, _outputs(layer, a.abs(), weight.abs())
    by_unit = lambda v: v.transpose(0, 1).flatten(1).sum(1)  # (units,)  # noqa: E731
    passes = torch.ones_like(y)
    if layer.rectified and estimator == "two_component":
        passes = (tape.values[layer.made] > 0).double()
    over_inputs = lambda v: vjp(lambda w: layer.form.call([w], a), [weight], v)[0]  # noqa: E731
    count, total, squares = y.numel() // y.shape[1], by_unit(y), by_unit(y.square())
    sums = [count, total, over_inputs(passes * y), over_inputs(passes)]
    return [*sums, squares, by_unit(size.square())]


def _pattern(
    layer: _Layer, count: int, total: Tensor, xy: Tensor, x: Tensor, squares: Tensor, size: Tensor
) -> Tensor:
    """The patterns (units, ...) of a layer from its sums; 0 where nothing passes or changes."""
    weight = layer.by_units(layer.form.coefficients[0])
    xy, x = layer.by_units(xy), layer.by_units(x)
    column = lambda v: v.view(-1, *[1] * (weight.ndim - 1))  # noqa: E731
    q = xy - x * column(total / count)
    scale = column((weight * q).flatten(1).sum(1))  # w . q
    rounding = 16 * torch.finfo(checks.accumulator(weight.dtype)).eps
    none = (scale == 0) | column(squares <= rounding**2 * size)
    return torch.where(none, 0, q / scale).to(weight.dtype)


def _pattern_forms(
    layers: dict[str, _Layer], patterns: Mapping[str, Tensor], method: str
) -> tuple[dict[int, LinearForm], set[int]]:
    """Each layer's linear form with patterns for weights, and the numbers of what is absorbed."""
    if patterns.keys() != layers.keys():
        raise ValueError(
            f"patterns: expected those of the layers {[*layers]}, got {[*patterns]}; write "
            "patterns=tl.fit_patterns(model, inputs) with the same model"
        )
    forms, absorbed = {}, set()
    for name, layer in layers.items():
        (weight,), pattern = layer.form.coefficients, patterns[name]
        shape = tuple(layer.by_units(weight).shape)
        pattern = layer.by_units(_checked(pattern, name, shape).to(weight))
        if not bool(pattern.isfinite().all()):
            raise ValueError(
                f"patterns: expected finite numbers in {weight.dtype} for layer {name!r}, got some "
                "that are NaN or infinite"
            )
        new = pattern * weight if method == "pattern_attribution" else pattern
        forms[layer.step.output] = replace(layer.form, coefficients=(new,))
        absorbed.update(step.output for step in layer.absorbed)
    return forms, absorbed


def _checked(pattern: object, name: str, shape: tuple[int, ...]) -> Tensor:
    """Return the patterns of a layer if they are a tensor of real numbers of its shape."""
    if not isinstance(pattern, Tensor):
        raise TypeError(
            f"patterns: expected a tensor for layer {name!r}, got {type(pattern).__name__}; an "
            "array becomes one by torch.from_numpy(...)"
        )
    if pattern.is_complex() or pattern.dtype == torch.bool:
        raise TypeError(
            f"patterns: expected real numbers for layer {name!r}, got dtype {pattern.dtype}"
        )
    if tuple(pattern.shape) != shape:
        raise ValueError(
            f"patterns: expected shape {shape} for layer {name!r}, got {tuple(pattern.shape)}"
        )
    return pattern
