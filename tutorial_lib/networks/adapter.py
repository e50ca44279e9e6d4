"""An adapter: from a network as it is to what every method takes, from (N, ...) to scores (N, C).

Three things differ from network to network: what it returns, what it takes beside the input that is
explained, and whether that input is one tensor of numbers. `scores` says what is done in each case.
"""

import contextlib
import difflib
import itertools
from collections.abc import Callable, Iterator, Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from tutorial_lib import checks

JOINED = ("baseline", "sigma")  # keywords of methods that may have a value for each input


def scores(
    model: Callable,
    pick: str | int | Callable | None = None,
    inputs: Tensor | tuple | Mapping[str, Tensor] | None = None,
    *,
    embedding: nn.Module | str | None = None,
    **held: object,
) -> "Adapter":
    """Make of any network what every method takes: a module from (N, ...) to scores (N, C).

        (N, ...) -> model(inputs, **held) -> pick -> (N, C)

    **What it returns.** `pick` says which part of the output is the scores. Without it that is a
    tensor (N, C) as it is; `.logits` or `["logits"]`; the first of a tuple, if that is (N, C); or
    the only part that has a row of floating-point numbers for each row of the input. A tensor (N,)
    becomes a column, whose target is 0. Anything else, such as a score for each pixel, is an error
    that says what to write.

    **What it takes.** Several inputs are explained together: they travel as one tensor x (B, D),
    each flattened, one beside the other. What is held goes to the model as it is in each call; a
    tensor of one row is repeated to the rows of the pass.

    **Token ids** have no gradient. With `embedding` the numbers that this layer makes of the ids
    are explained: in each call they take the place of what it returns. They are x (1, T, E), and a
    map has a number for each token and dimension; `map.sum(-1)` (1, T) is one for each token.

    The result has the layers of the model under the same names, and leaves it as it is. With
    `inputs` the model runs once at the first of them, to see that all fits.

    Args:
        model: Module in eval mode, or function.
        pick: Key, attribute or place of the scores in the output, or a function from the output to
            scores (N, C) or (N,).
        inputs: What is explained: a tensor (B, ...), a tuple of tensors in the order in which the
            model takes them, or {name of the parameter: tensor}. It is needed for several inputs,
            for one that is not the first, and with `embedding`.
        embedding: Layer, or its dotted name, that turns token ids into numbers. `inputs` is then a
            LongTensor (1, T), one sentence.
        **held: Further arguments of the model, by the names of its parameters: tensors of one row,
            or anything else, which is passed on as it is.

    Returns:
        `Adapter`, a module in eval mode. `net.x` is what a method explains, `net.join` makes such
        a tensor of a baseline for each input, `net.split` takes a map apart, and `net.explain`
        does all of it.

    Raises:
        TypeError: An argument has the wrong type, or the model does not take these arguments.
        ValueError: A part of the model is in training mode, a shape does not fit, the output has
            several parts that may be meant, or the embedding does not run once.

    Example:
        >>> class TwoInputs(nn.Module):
        ...     def forward(self, image, meta):
        ...         return {"logits": image.flatten(1).sum(1) * meta[:, 0], "loss": None}
        >>> image, meta = torch.ones(1, 2, 2), torch.tensor([[3.0]])
        >>> tl.gradient(tl.scores(TwoInputs().eval(), meta=meta), image, 0)
        tensor([[[3., 3.],
                 [3., 3.]]])
        >>> net = tl.scores(TwoInputs().eval(), inputs=(image, meta))
        >>> net.explain(tl.integrated_gradients, 0, baseline=(0.0, meta))
        (tensor([[[3., 3.],
                 [3., 3.]]]), tensor([[0.]]))
    """
    checks.model(model)
    if not (pick is None or callable(pick) or type(pick) in (str, int)):
        raise TypeError(
            f"pick: expected a key, an attribute, a place or a function of the output, got {pick!r}"
        )
    _check_held(held)
    return Adapter(model, pick, inputs, embedding, held)


class Adapter(nn.Module):
    """A network that every method takes, made by `tl.scores`: called, it returns scores (N, C).

    Attributes:
        x: What a method explains: the input (B, ...), several of them joined (B, D), or embedded
            tokens (1, T, E). None where `inputs` were not given.
        model: The network as it was given.

    Example:
        >>> a, b = torch.ones(1, 2), torch.zeros(1, 2)
        >>> net = tl.scores(lambda a, b: (a**2 + b).sum(1), inputs=(a, b))
        >>> net.x
        tensor([[1., 1., 0., 0.]])
        >>> net.split(tl.gradient(net, net.x, 0))
        (tensor([[2., 2.]]), tensor([[1., 1.]]))
    """

    def __init__(
        self, model: Callable, pick: Any, inputs: Any, embedding: Any, held: dict[str, object]
    ):
        super().__init__()
        self.training = False  # its own flag; those of the model are the caller's
        self.model = model
        self.behind = checks.behind(model)  # a module, so that its layers and weights are found
        self.pick = pick
        self.held = {n: v.detach() if isinstance(v, Tensor) else v for n, v in held.items()}
        self.embedding = None if embedding is None else (_layer(self.behind, embedding),)
        self.x: Tensor | None = None
        self.parts: dict[str, Tensor] = {}
        self.form: type = Tensor  # of the inputs: one tensor, a tuple or a dictionary
        if inputs is not None:
            self._take(inputs)
        elif embedding is not None:
            raise TypeError("inputs: embedding needs the token ids, a LongTensor (1, T)")
        self._check_signature()
        if inputs is not None:
            self._try_once()

    def forward(self, z: Tensor) -> Tensor:
        """Compute the scores.

        Args:
            z: (N, ...) inputs, each of the shape of a row of `x`.

        Returns:
            (N, C) scores.

        Raises:
            ValueError, TypeError: The rows have another shape than those of `x`, or the output is
                no table of scores and nothing says which part of it is.
        """
        if self.x is not None and z.shape[1:] != self.x.shape[1:]:
            raise ValueError(
                f"x: expected (N, {', '.join(map(str, self.x.shape[1:]))}) as net.x has, which "
                f"net.join makes of several inputs, got shape {tuple(z.shape)}"
            )
        values = {name: _repeated(value, len(z)) for name, value in self.held.items()}
        if self.embedding:
            ids = _repeated(self.ids, len(z))
            with _replaced(self.embedding[0], z):
                output = self._call(self._named([ids]), values)
        else:
            output = self._call(self._named(self._apart(z)), values)
        return _picked(output, self.pick, len(z))

    def named_modules(self, memo=None, prefix="", remove_duplicate=True):
        """Yield the layers under the names that they have in the model itself."""
        memo = set() if memo is None else memo
        yield prefix, self
        for child in self.children():
            dot = "." if prefix else ""
            own = f"{prefix}{dot}pick" if child is self.pick else prefix
            yield from child.named_modules(memo, own, remove_duplicate)

    def get_submodule(self, target: str) -> nn.Module:
        """Return the layer of a dotted name, as in the model itself."""
        found = dict(self.named_modules(remove_duplicate=False))
        if target not in found:
            raise AttributeError(f"the model has no layer {target!r}")
        return found[target]

    def join(self, values: object) -> Tensor:
        """Make one tensor, for a method, of a number or tensor for each input.

        Args:
            values: A tuple or dictionary like `inputs`, such as a baseline or a bound for each.

        Returns:
            (1, D) or (B, D), for several inputs side by side; for one of the shape of its rows.

        Raises:
            TypeError, ValueError: The values are not those of these inputs.

        Example:
            >>> net = tl.scores(lambda a, b: a + b, inputs=(torch.ones(1, 2), torch.ones(1, 2)))
            >>> net.join((0.5, torch.tensor([[3.0, 4.0]])))
            tensor([[0.5000, 0.5000, 3.0000, 4.0000]])
        """
        if not self.parts:
            raise TypeError("join: expected inputs, write tl.scores(model, inputs=...)")
        listed = self._listed("join", values)
        checked = [
            checks.broadcastable(f"join: {name}", value, part)
            for (name, part), value in zip(self.parts.items(), listed, strict=True)
        ]
        rows = max(map(len, checked))
        pairs = zip(checked, self.parts.values(), strict=True)
        sides = [v.expand(rows, *part.shape[1:]) for v, part in pairs]
        return torch.cat([v.reshape(rows, -1) for v in sides], 1) if self._is_joined else sides[0]

    def split(self, attribution: Tensor) -> Tensor | tuple | dict:
        """Take a map apart: give each input its own, in the form of `inputs`.

        Args:
            attribution: (B, D), a map of `x`.

        Returns:
            A tuple or dictionary of maps, each of the shape of its input; for one tensor the map.

        Raises:
            ValueError: The map has not the shape of the rows of `x`.

        Example:
            >>> inputs = {"a": torch.ones(1, 1), "b": torch.zeros(1, 1)}
            >>> net = tl.scores(lambda a, b: a * b, inputs=inputs)
            >>> net.split(tl.gradient(net, net.x, 0))
            {'a': tensor([[0.]]), 'b': tensor([[1.]])}
        """
        if self.x is None or attribution.shape[1:] != self.x.shape[1:]:
            wanted = None if self.x is None else tuple(self.x.shape)
            raise ValueError(f"split: expected a map of net.x, {wanted}, got {_shape(attribution)}")
        return self._as_given(self._apart(attribution))

    def explain(self, method: Callable, target: int | Tensor, /, **keywords: Any) -> Any:
        """Explain the inputs by a method, and give each input its own map.

        Args:
            method: A method such as `tl.integrated_gradients`.
            target: Class index, or LongTensor (B,) with one for each row.
            **keywords: Keywords of the method. `baseline`, `baselines` and `sigma` may be a tuple
                or dictionary with a value for each input, and so may both sides of `bounds`.

        Returns:
            Maps in the form of `inputs`; what is no map of x (that of Grad-CAM) as it is.

        Raises:
            TypeError, ValueError: There are no inputs, or the method raises it.

        Example:
            >>> net = tl.scores(lambda a, b: a * b, inputs=(torch.ones(1, 1), torch.ones(1, 1)))
            >>> net.explain(tl.smoothgrad, 0, sigma=(0.1, 0.0), seed=1)[0]
            tensor([[1.]])
        """
        if self.x is None:
            raise TypeError("inputs: explain needs them, write tl.scores(model, inputs=...)")
        for name in JOINED:
            if isinstance(keywords.get(name), tuple | list | Mapping):
                keywords[name] = self.join(keywords[name])
        if isinstance(keywords.get("baselines"), tuple | list | Mapping):
            keywords["baselines"] = self._join_rows("baselines", keywords["baselines"])
        if isinstance(keywords.get("bounds"), tuple | list):
            several = (tuple, list, dict)
            sides = keywords["bounds"]
            keywords["bounds"] = tuple(self.join(s) if isinstance(s, several) else s for s in sides)
        found = method(self, self.x, target, **keywords)
        is_map = isinstance(found, Tensor) and found.shape == self.x.shape
        return self.split(found) if is_map else found

    def _join_rows(self, what: str, values: object) -> Tensor:
        """Make one tensor of K points for each input, (K, ...), of the shape of its rows."""
        listed = self._listed(what, values)
        for (name, part), value in zip(self.parts.items(), listed, strict=True):
            if not isinstance(value, Tensor) or value.shape[1:] != part.shape[1:] or value.ndim < 1:
                raise ValueError(
                    f"{what}: expected K points (K, {', '.join(map(str, part.shape[1:]))}) for "
                    f"{name}, got {_shape(value) if isinstance(value, Tensor) else value!r}"
                )
        if len({len(value) for value in listed}) > 1:
            raise ValueError(
                f"{what}: expected equally many points for each input, got {[*map(len, listed)]}"
            )
        return torch.cat([v.flatten(1) for v in listed], 1) if self._is_joined else listed[0]

    @property
    def _is_joined(self) -> bool:
        """Whether the inputs travel flattened, as several do, and one of a number a row."""
        return len(self.parts) > 1 or any(part.ndim < 2 for part in self.parts.values())

    def _take(self, inputs: object) -> None:
        """Check the inputs and make x of them."""
        self.form = type(inputs) if isinstance(inputs, tuple | list | Mapping) else Tensor
        listed = {"inputs": inputs}
        if isinstance(inputs, Mapping):
            listed = dict(inputs)
        elif isinstance(inputs, tuple | list):
            listed = {f"inputs[{i}]": part for i, part in enumerate(inputs)}
        if not listed:
            raise ValueError("inputs: expected at least one tensor, got none")
        if isinstance(inputs, Mapping) and (twice := sorted({*listed} & {*self.held})):
            raise TypeError(f"{twice[0]}: it is among the inputs, and held as well; leave one out")
        if self.embedding:
            self._take_ids(listed)
            return
        self.parts = {name: _number_input(name, part) for name, part in listed.items()}
        values = list(self.parts.values())
        for what in ("dtype", "device"):
            if len(found := {str(getattr(v, what)) for v in values}) > 1:
                raise TypeError(f"inputs: expected one {what}, got {' and '.join(sorted(found))}")
        if len({len(v) for v in values}) > 1:
            rows = ", ".join(str(len(v)) for v in values)
            raise ValueError(f"inputs: expected tensors with equally many rows, got {rows}")
        flat = [v.reshape(len(v), -1) for v in values]
        self.x = torch.cat(flat, 1) if self._is_joined else values[0]

    def _take_ids(self, listed: dict[str, Tensor]) -> None:
        """Check token ids and make x of them: what the embedding returns when the model runs."""
        if len(listed) > 1:
            first, *others = listed
            more = ", ".join(f"{n.strip('[]')}=..." for n in others)
            raise TypeError(
                f"inputs: with embedding expected the token ids alone, got {', '.join(listed)}; "
                f"hold the others: tl.scores(model, inputs={{{first!r}: ids}}, {more})"
            )
        ((name, ids),) = listed.items()
        if not isinstance(ids, Tensor) or ids.is_floating_point() or ids.ndim < 1:
            raise TypeError(
                f"{name}: with embedding expected token ids, a LongTensor (1, T), got {_shape(ids)}"
            )
        if len(ids) != 1:
            raise ValueError(
                f"{name}: expected one sentence, (1, T), as the ids of a pass are those of one, "
                f"got shape {tuple(ids.shape)}. Explain one after the other: "
                "[tl.scores(model, inputs=ids[i : i + 1], ...) for i in range(len(ids))]"
            )
        self.ids, self.parts, outputs = ids, {name: ids}, []

        def keep(module: nn.Module, inputs: tuple, output: object) -> None:
            outputs.append(output)

        held = {name: _repeated(value, 1) for name, value in self.held.items()}
        self._check_signature()
        with torch.no_grad(), checks.forward_hook(self.embedding[0], keep):
            _run(lambda: self._call(self._named([ids]), held))
        _check_embedding(outputs)
        self.x = outputs[0].detach().clone()
        self.parts = {name: self.x}

    def _apart(self, z: Tensor) -> list[Tensor]:
        """Cut (N, D) into the inputs, each of its shape; one input stays as it is."""
        if not self._is_joined:
            return [z]
        sizes = [part[0].numel() for part in self.parts.values()]
        ends = torch.tensor([0, *sizes]).cumsum(0).tolist()
        cut = [z[:, a:b] for a, b in itertools.pairwise(ends)]
        shapes = [part.shape[1:] for part in self.parts.values()]
        return [v.reshape(len(z), *shape) for v, shape in zip(cut, shapes, strict=True)]

    def _named(self, values: list) -> list | dict[str, Any]:
        """Return the inputs as the model takes them: by name if they were given by name."""
        by_name = issubclass(self.form, Mapping)
        return dict(zip(self.parts, values, strict=True)) if by_name else values

    def _as_given(self, values: list) -> Tensor | tuple | dict:
        """Return a tensor for each input in the form in which the inputs were given."""
        if self.form is Tensor:
            return values[0]
        by_name = issubclass(self.form, Mapping)
        return dict(zip(self.parts, values, strict=True)) if by_name else tuple(values)

    def _listed(self, name: str, values: object) -> list:
        """Return a value for each input, in their order."""
        if self.form is Tensor:
            values = [values]
        elif issubclass(self.form, Mapping):
            if not isinstance(values, Mapping) or {*values} != {*self.parts}:
                got = list(values) if isinstance(values, Mapping) else type(values).__name__
                raise TypeError(f"{name}: expected a dictionary with {[*self.parts]}, got {got}")
            values = [values[key] for key in self.parts]
        if not isinstance(values, tuple | list) or len(values) != len(self.parts):
            got = len(values) if isinstance(values, tuple | list) else type(values).__name__
            raise TypeError(f"{name}: expected {len(self.parts)} values, one an input, got {got}")
        return list(values)

    def _call(self, inputs: list | dict, held: dict) -> object:
        """Call the model with the inputs and what is held."""
        by_name = isinstance(inputs, dict)
        return self.model(**inputs, **held) if by_name else self.model(*inputs, **held)

    def _check_signature(self) -> None:
        """Raise TypeError where the model does not take these arguments."""
        is_module = isinstance(self.model, nn.Module)
        try:
            taken = signature(self.model.forward if is_module else self.model)
        except (TypeError, ValueError):  # it does not say what it takes
            return
        names = self._named([None] * max(1, len(self.parts)))
        try:
            if isinstance(names, dict):
                taken.bind(**names, **self.held)
            else:
                taken.bind(*names, **self.held)
        except TypeError as error:
            raise TypeError(
                f"model: it takes {taken}, and so given: {error}. tl.scores(model, inputs=(a, b)) "
                "or inputs={'name': a} explains inputs, tl.scores(model, name=value) holds one"
            ) from None

    def _try_once(self) -> None:
        """Run the model at the first row of x, or at all where it takes no single row."""
        with torch.no_grad():
            try:
                self(self.x[:1].clone())
            except checks.NoScores:
                raise
            except Exception:
                _run(lambda: self(self.x.clone()))


def _run(call: Callable) -> object:
    """Return call(), or raise ValueError with what the model says of these inputs."""
    try:
        return call()
    except checks.NoScores:
        raise
    except Exception as error:  # whatever the model says
        raise ValueError(
            f"inputs: the model does not run on them ({type(error).__name__}: {error}). They go to "
            "it in the order of a tuple, or by the names of a dictionary; what is held by its name"
        ) from error


def _number_input(name: str, value: object) -> Tensor:
    """Check an input that is explained: finite floating-point numbers with rows."""
    if isinstance(value, Tensor) and not value.is_floating_point():
        hold = name if name.isidentifier() and name != "inputs" else "name"
        raise TypeError(
            f"{name}: expected floating-point numbers, got {value.dtype}, which has no gradient. "
            f"Hold it, tl.scores(model, {hold}=value, inputs=...), or for token ids give "
            "embedding='name of the layer'"
        )
    if not isinstance(value, Tensor) or value.ndim == 0 or not value.numel():
        raise TypeError(f"{name}: expected a tensor (B, ...), got {_shape(value)}")
    checks.pictures(value if value.ndim > 1 else value[:, None])
    return value.detach()


def _check_held(held: dict[str, object]) -> None:
    """Raise ValueError for a tensor that has not one row."""
    for name, value in held.items():
        if isinstance(value, Tensor) and value.ndim and len(value) != 1:
            raise ValueError(
                f"{name}: what is held has one row, which is repeated to the rows of a pass, got "
                f"shape {tuple(value.shape)}. Explain the inputs one by one, input i with "
                f"tl.scores(model, {name}={name}[i : i + 1]); what is for all rows alike stays in "
                f"the model: tl.scores(functools.partial(model, {name}={name}))"
            )


def _layer(model: object, layer: object) -> nn.Module:
    """Return the embedding, a module of the model given as it is or by its dotted name."""
    if isinstance(layer, torch.jit.ScriptModule) or isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            "embedding: the layers of a scripted or traced model do not show what they return; "
            "give the model that it was made of"
        )
    modules = {}
    if isinstance(model, nn.Module):
        modules = dict(model.named_modules(remove_duplicate=False))
    if isinstance(layer, nn.Module):
        if modules and not any(layer is module for module in modules.values()):
            raise ValueError("embedding: expected a layer of the model, got one that is not in it")
        return layer
    if not isinstance(layer, str):
        raise TypeError(f"embedding: expected a layer or its dotted name, got {_shape(layer)}")
    if layer not in modules:
        tables = [name for name, module in modules.items() if isinstance(module, nn.Embedding)]
        near = tables or difflib.get_close_matches(layer, modules, n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ValueError(f"embedding: the model has no layer {layer!r}{hint}")
    return modules[layer]


def _check_embedding(outputs: list) -> None:
    """Check that the embedding ran once and returned numbers for one sentence."""
    if len(outputs) != 1:
        raise ValueError(
            f"embedding: expected a layer that runs once in a call of the model, it ran "
            f"{len(outputs)} times (those of a compiled model may not show what they "
            "return: give the model that it was made of)"
        )
    if not isinstance(outputs[0], Tensor) or not outputs[0].is_floating_point():
        raise TypeError(
            f"embedding: expected a layer that returns a tensor of numbers (1, T, E), it returns "
            f"{_shape(outputs[0])}"
        )
    if outputs[0].ndim < 2 or len(outputs[0]) != 1:
        raise ValueError(
            f"embedding: expected a layer that returns (1, T, E) for one sentence, it returns "
            f"{_shape(outputs[0])}; a layer that has the batch first does"
        )


@contextlib.contextmanager
def _replaced(layer: nn.Module, z: Tensor) -> Iterator[None]:
    """Inside, z takes the place of what a layer returns, in this thread; it has to run once."""
    runs = []

    def put(module: nn.Module, inputs: tuple, output: object) -> Tensor:
        runs.append(module)
        return z

    with checks.forward_hook(layer, put):
        yield
    if len(runs) != 1:
        raise checks.NoScores(
            f"embedding: expected a layer that runs once in a call of the model, it ran "
            f"{len(runs)} times"
        )


def _repeated(value: object, rows: int) -> object:
    """Return a tensor of one row repeated to so many rows, anything else as it is."""
    if not isinstance(value, Tensor) or value.ndim == 0:
        return value
    return value.repeat(rows, *[1] * (value.ndim - 1))


def _picked(output: object, pick: object, rows: int) -> Tensor:
    """Return the scores (N, C) among what the model returned for N rows."""
    value, expression = output, "y"
    if callable(pick):
        value, expression = _called(pick, output), "pick(y)"
    elif pick is not None:
        value, expression = _part(output, pick)
    found = checks.parts(value)
    if found and len(likely := checks.likely_parts(value, rows)) == 1:
        expression = checks.code_of_part(value, likely[0], expression)
        value = found[likely[0]]
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise checks.no_scores(value, rows, expression)
    if value.ndim == 2:
        return value
    if value.shape == (rows,):
        return value[:, None]  # (N, 1)
    raise checks.no_scores(value, rows, expression)


def _called(pick: Callable, output: object) -> object:
    """Return pick(output), or raise an error that says what the output is."""
    try:
        return pick(output)
    except Exception as error:  # whatever the reader's own function says
        holds = ", ".join(map(repr, checks.parts(output)))
        raise checks.NoScores(
            f"pick: the function fails on what the model returns ({type(error).__name__}: {error})"
            f", which is {_shape(output)}{f' with {holds}' if holds else ''}"
        ) from error


def _part(output: object, pick: str | int) -> tuple[object, str]:
    """Return a part of the output by its key, attribute or place, and the code for it."""
    found = checks.parts(output)
    if pick in found:
        return found[pick], checks.code_of_part(output, pick)
    if type(pick) is int and found and -len(found) <= pick < len(found):
        return [*found.values()][pick], f"pick {pick}"
    if isinstance(pick, str) and not isinstance(output, Tensor) and hasattr(output, pick):
        return getattr(output, pick), f"y.{pick}"
    if isinstance(output, Tensor):
        raise checks.NoScores(
            f"pick: the model returns one tensor, of shape {tuple(output.shape)}, got {pick!r}. "
            "Leave pick out for scores (N, C) or (N,), and say which class by target; of another "
            "shape write pick=lambda y: y[:, :, row, column] or what makes (N, C) of it"
        )
    raise checks.NoScores(
        f"pick: expected one of {', '.join(map(repr, found)) or 'no names'}, which the model's "
        f"output has, got {pick!r}"
    )


def _shape(value: object) -> str:
    """Say what a value is, for an error message."""
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__
