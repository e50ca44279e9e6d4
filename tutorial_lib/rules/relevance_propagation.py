"""Layer-wise relevance propagation: the public function; the rules' formulas are in `lrp_rules.py`.

It walks back over the tape of one forward pass (see `tape.py`). Arguments and errors as in
`averaging/methods.py`; beside these, an operation without a rule is a NotImplementedError that
names it and says where it is.
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from tutorial_lib import checks
from tutorial_lib.averaging import probes
from tutorial_lib.averaging.engine import average
from tutorial_lib.rules.lrp_rules import Relevance
from tutorial_lib.rules.recorder import record
from tutorial_lib.rules.tape import one_hot, reaching_input

LRP_RULES = ("epsilon", "alpha_beta", "composite")


def lrp(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    rule: str = "epsilon",
    epsilon: float = 1e-6,
    alpha: float = 1.0,
    beta: float = 0.0,
    gamma: float | None = None,
    bounds: tuple | None = None,
    biases: bool = True,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Layer-wise relevance propagation: the score, shared out layer by layer.

    A dense layer or convolution z_k = sum_j c_jk + b_k, c_jk = a_j w_jk, hands down
    R_j = sum_k q_jk R_k  (Bach et al., 2015; Montavon et al., 2019), with c+ and c- the positive
    and negative terms, b+ and b- likewise:
    "epsilon":     q = c / (z + epsilon sign z)                           (Bach, Eq. 58)
    "alpha_beta":  q = alpha c+ / (sum c+ + b+) - beta c- / (sum c- + b-)   (Bach, Eq. 60)
    "composite":   epsilon in dense layers; alpha_beta in convolutions, or, where gamma is given,
        q = (c + gamma c+) / (z + gamma (sum c+ + b+)) for z > 0, with c-, b- for z < 0; and at the
        input the z-box rule, with bounds (Montavon et al., 2017), or an equal share to all
        inputs of a unit ("flat") without.
    Denominators get epsilon times their sign. Activations hand down what they get, max pooling to
    its maximum, and sums, means and scalings by the share of each term in the result. Relevance
    starts as the score (the logit, if the last operation is softmax or sigmoid). Biases keep their
    share, so the map sums to the score only without biases (and, where beta > 0, only if every
    unit has terms of both signs); biases=False leaves them out of all denominators. A batch norm or
    an added constant right behind a layer counts as part of it. alpha - beta must be 1. Units:
    score. Memory: all activations of batch_size pictures.

    >>> tl.lrp(model, x, 285, rule="composite", bounds=model.bounds)
    """
    checks.choice("rule", rule, LRP_RULES)
    checks.positive("epsilon", epsilon)
    checks.nonnegative("alpha", alpha)
    if abs(alpha - checks.nonnegative("beta", beta) - 1) > 1e-9:
        raise ValueError(f"alpha: expected beta + 1 = {beta + 1}, got {alpha}")
    if gamma is not None:
        checks.nonnegative("gamma", gamma)
    for name, value in (("gamma", gamma), ("bounds", bounds)):
        if value is not None and rule != "composite":
            raise ValueError(f"{name}: only rule='composite' uses it, and rule is {rule!r}")
    checks.flag("biases", biases)
    checks.model(model)
    x = checks.pictures(x)
    box = None if bounds is None else checks.inside(x, bounds)
    if box and max(map(len, box)) > 1:
        raise ValueError("bounds: expected one range for all pictures, first dimension 1")

    def relevance(network: Callable, points: Tensor, target: Tensor) -> Tensor:
        tape = record(network, points, target).logits()
        rules = Relevance(tape, rule, epsilon, alpha, beta, gamma, box, biases)
        score = tape.values[tape.output]
        return reaching_input(tape, rules, one_hot(target, score) * score)

    probe_function = partial(probes.point, seed=seed)
    options = dict(batch_size=batch_size, progress=progress, gradient_of=relevance)
    return average(model, x, target, probe_function, **options)
