"""One look at a model before it is explained: are its rows independent, does it repeat itself?

Every method here asks for many rows in one pass and takes each row's gradient for its own. That
is wrong, without a sign of it in the map, where rows influence one another or where the scores
change from call to call. `examine` asks two rows, alone and together, twice.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from tutorial_lib import checks

# Of a map of a probability: below it, the probability does not move with any input.
FLAT = 1e-6
SKIP = "`with tl.skip_model_check():` explains it all the same"
_on = ContextVar("model check", default=True)
_examined: WeakKeyDictionary[Callable, dict[tuple, "Findings"]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Findings:
    """What a look at a model tells.

    fixed_rows: it takes batches of as many rows as x has, and no others.
    ending: "softmax" or "sigmoid" if that is the last thing that it does, else "".
    """

    fixed_rows: bool = False
    ending: str = ""


@contextlib.contextmanager
def skip_model_check() -> Iterator[None]:
    """Inside, no model is asked whether its rows are independent and its scores repeat.

    The check costs six rows of a forward pass, once for a model and a shape of x (for each call
    where the model is a function written anew for it, such as a lambda). Skip it where you know
    the answer: maps of a model whose rows influence one another are wrong.

    >>> with tl.skip_model_check():
    ...     tl.gradient(model, x, 285)
    """
    before = _on.set(False)
    try:
        yield
    finally:
        _on.reset(before)


def examine(model: Callable, x: Tensor) -> Findings:
    """Raise ValueError for a model whose rows influence one another or whose scores change.

    x: (B, ...). Asked once for a model, shape, dtype and device; `skip_model_check` leaves it out.
    """
    if not _on.get():
        return Findings()
    key = (x.shape, x.dtype, x.device)
    try:
        known = _examined.setdefault(model, {})
    except TypeError:  # a callable that cannot be referred to weakly, or not hashed
        known = {}
    if key not in known:
        known[key] = _look(model, x)
    return known[key]


def _look(model: Callable, x: Tensor) -> Findings:
    pair = _two_rows(x)
    together, ending = _graph(model, pair)
    alone = [_scores(model, row) for row in pair.split(1)]
    if any(scores is None for scores in (together, *alone)):
        # Perhaps it holds a tensor with a row for each picture: then it takes len(x) rows.
        return Findings(fixed_rows=_scores(model, x) is not None, ending=ending)
    again = _scores(model, pair)
    if again is None or _differ(together, again, x):
        raise ValueError(
            "model: its scores change from call to call with the same input. F.dropout drops at "
            "random unless it gets training=self.training; noise made in forward() needs a fixed "
            f"seed. {SKIP}"
        )
    if _differ(together, torch.cat(alone), x):
        raise ValueError(
            "model: the scores of a row change with the other rows of its batch, so each map would "
            "be of a mixture. A mean, norm or softmax over dimension 0 (or dynamic quantization) "
            f"does that; let it go over the others: z - z.mean(1, keepdim=True). {SKIP}"
        )
    return Findings(ending=ending)


def _two_rows(x: Tensor) -> Tensor:
    """Two different rows like those of x, (2, ...)."""
    first, second = x[:1], x[1:2]
    if not len(second) or bool((first == second).all()):
        second = first / 2 if bool(first.any()) else torch.ones_like(first)
    return torch.cat([first, second])


def _scores(model: Callable, rows: Tensor) -> Tensor | None:
    """The model's scores; None where it does not take so many rows."""
    try:
        scores = model(rows.clone())
    except Exception:  # whatever the model says; if it never runs, the first pass says it again
        return None
    checks.score_table(scores, len(rows))
    return scores if len(scores) == len(rows) else None


def _graph(model: Callable, rows: Tensor) -> tuple[Tensor | None, str]:
    """The scores, and what the model does last."""
    with torch.enable_grad():
        scores = _scores(model, rows.detach().clone().requires_grad_())
    if scores is None or scores.grad_fn is None:
        return scores, ""
    node = scores.grad_fn
    for _ in range(4):  # through a slice, a view or a column that is added
        name = node.name().lower()
        for ending in ("softmax", "sigmoid"):
            if ending in name and "log" not in name:
                return scores.detach(), ending
        following = [n for n, _ in node.next_functions if n is not None]
        if len(following) != 1:
            break
        node = following[0]
    return scores.detach(), ""


def _differ(one: Tensor, other: Tensor, x: Tensor) -> bool:
    """Whether scores differ by more than rounding."""
    eps = torch.finfo(one.dtype).eps
    if torch.is_autocast_enabled(x.device.type):
        eps = max(eps, torch.finfo(torch.get_autocast_dtype(x.device.type)).eps)
    elif x.device.type != "cpu":
        eps = max(eps, 2**-11)  # factors may be rounded to TF32
    scale = torch.maximum(one.abs(), other.abs()).nan_to_num().amax()
    same = torch.isclose(one, other, rtol=0, atol=float(scale * eps**0.5), equal_nan=True)
    return not bool(same.all())


def warn_if_saturated(found: Findings, attribution: Tensor) -> None:
    """Say that a map is flat because the probability that it explains is."""
    if not found.ending:
        return
    flat = attribution.abs().flatten(1).amax(1) < FLAT  # (B,)
    if bool(flat.any()):
        warnings.warn(
            f"model: it ends in a {found.ending}, which is saturated at pictures "
            f"{flat.nonzero().flatten().tolist()} of x, so its gradient and the map are 0 or "
            f"rounding. Explain the logits, the scores before the {found.ending}",
            UserWarning,
            stacklevel=4,
        )
