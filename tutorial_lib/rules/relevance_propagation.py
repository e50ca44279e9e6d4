"""Layer-wise relevance propagation: the public function; its rules are in `lrp_rules.py`.

It records one forward pass on a tape: a list of steps, one for each operation, with the values that
they read and make (see `tape.py`). It then walks back from the score to the input, and at each step
the relevance of the output is shared out among the values that the step reads.
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from tutorial_lib import checks
from tutorial_lib.averaging import probes
from tutorial_lib.averaging.engine import average
from tutorial_lib.rules.lrp_rules import Relevance
from tutorial_lib.rules.recorder import record
from tutorial_lib.rules.tape import one_hot, walk_to_input

LRP_RULES = ("epsilon", "alpha_beta", "composite", "transformer")


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
    """Share out the score layer by layer, back to the input: layer-wise relevance propagation.

    A dense layer or convolution adds up terms and a bias, and hands down the relevance R_k of each
    output z_k by shares q_jk:

        z_k = sum_j c_jk + b_k,    c_jk = a_j w_jk,    R_j = sum_k q_jk R_k

    Bach et al. (2015); Montavon et al. (2019). The rule gives the shares. With c+ and c- the
    positive and negative terms, and b+ and b- likewise:

        epsilon      q = c / (z + epsilon sign z)                               Bach, Eq. 58
        alpha_beta   q = alpha c+ / (sum c+ + b+) - beta c- / (sum c- + b-)     Bach, Eq. 60
        composite    epsilon in dense layers, alpha_beta in convolutions, or with gamma there
                     q = (c + gamma c+) / (z + gamma (sum c+ + b+))   for z > 0,
                     with c- and b- in place of c+ and b+             for z < 0

    In the layer at the input, "composite" has a rule of its own: with `bounds` the z-box rule
    (Montavon et al., 2017), without them an equal share to all inputs of a unit ("flat").
    Denominators get epsilon times their sign. Activations hand down what they get, max pooling
    hands down to its maximum, and sums, means and scalings by the share of each term in the result.
    A batch norm or an added constant right behind a layer counts as part of it.

    "transformer" is epsilon in all layers, with rules for what transformers are made of, which the
    other rules refuse (AttnLRP, Achtibat et al., 2024, Prop. 3.1 to 3.4):

        s = softmax(z)     R_i = z_i (R^s_i - s_i sum_j R^s_j)
        a * b              half to each of the two values, entry by entry
        A @ B              R_A = A * (Q B^T), R_B = B * (A^T Q), with Q = R / (2 A B + epsilon)
        norms              linear, with the deviation held fixed: epsilon, as in a layer

    What values are divided by, and 1 / sqrt, are held fixed as a deviation is, so a norm that is
    written out is a norm. A product of an activation and a gate is shared as it is written: nn.SiLU
    is one activation, z * z.sigmoid() a product. Attention, nn.LSTM and nn.GRU are opened. With
    biases=False softmax, whose expansion at z has a constant, is held fixed, and the values take
    all relevance of attention (Ali et al., 2022). torch.where and masks hand down to what they have
    chosen, in all rules.

    Relevance starts as the score, which is the logit if the last operation is softmax or sigmoid.
    Biases keep their share, as does the constant of a softmax, so the map sums to the score only
    with biases=False or for a model without them, and with alpha_beta only if every unit that has
    relevance has positive terms, and negative ones where beta > 0. A constant that joins the
    values, such as a class token, keeps its share in any case.
    Memory: all activations of batch_size pictures.

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
        x: (B, ...) finite floating-point inputs.
        target: Class index, or LongTensor (B,) with one for each input.
        rule: "epsilon", "alpha_beta", "composite" or "transformer".
        epsilon: Number above 0 that keeps denominators from 0.
        alpha: Weight of the positive terms; alpha - beta must be 1.
        beta: Weight of the negative terms.
        gamma: How much more the terms with the sign of z count in convolutions. None stands for
            "alpha_beta" there. Only "composite" takes it.
        bounds: Pair (lower, upper) of the inputs that are possible, the same for all pictures, for
            the z-box rule. None stands for "flat". Only "composite" takes it.
        biases: Whether biases keep their share; False leaves them out of all denominators, which
            may then come near 0 and make a map large, and holds softmax fixed in "transformer".
        batch_size: Inputs in a forward pass; None chooses by the device and the size of x.
        seed: It changes nothing, as no noise is drawn; every method takes it.
        progress: Whether to show a progress bar.

    Returns:
        (B, ...) attributions in units of the score.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, x is not within `bounds`, the rule does not
            use an argument that is given, the rows of the model are not independent, or the result
            is not finite.
        NotImplementedError: An operation has no rule, or writes in place in a way that cannot be
            followed; the message names it and says where it is.

    Example:
        >>> f = lambda x: x @ torch.tensor([[2.0], [1.0]])
        >>> tl.lrp(f, torch.tensor([[3.0, 1.0]]), 0)
        tensor([[6.0000, 1.0000]])
        >>> tl.lrp(model, x, 3, rule="composite", bounds=(0.0, 1.0)).shape
        torch.Size([2, 3, 16, 16])
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
    input_bounds = None if bounds is None else checks.inside(x, bounds)
    if input_bounds and max(map(len, input_bounds)) > 1:
        raise ValueError("bounds: expected one range for all pictures, first dimension 1")

    def relevance(network: Callable, points: Tensor, target: Tensor) -> Tensor:
        tape = record(network, points, target).logits().without_choices()
        rules = Relevance(tape, rule, epsilon, alpha, beta, gamma, input_bounds, biases)
        score = tape.values[tape.output]
        return walk_to_input(tape, rules, one_hot(target, score) * score)

    probe_function = partial(probes.point, seed=seed)
    options = dict(batch_size=batch_size, progress=progress, gradient_of=relevance)
    return average(model, x, target, probe_function, **options)
