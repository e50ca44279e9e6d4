"""Layer-wise relevance propagation: the public function; its rules are in `lrp_rules.py`.

It records one forward pass on a tape: a list of steps, one for each operation, with the values that
they read and make (see `tape.py`). It then walks back from the score to the input, and at each step
the relevance of the output is shared out among the values that the step reads.
"""

from collections.abc import Callable, Collection, Mapping
from functools import partial

from torch import Tensor, nn

from tutorial_lib import checks
from tutorial_lib.averaging import probes
from tutorial_lib.averaging.engine import average
from tutorial_lib.rules.lrp_rules import LAYER_RULES, Relevance
from tutorial_lib.rules.module_names import find_module
from tutorial_lib.rules.recorder import record
from tutorial_lib.rules.tape import Step, one_hot, walk_to_input

RULES = ("epsilon", "alpha_beta", "gamma", "w_square", "flat", "composite", "transformer")


def lrp(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    rule: str | Mapping[str | nn.Module | type[nn.Module], str] = "epsilon",
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
        gamma        q = (c + gamma c+) / (z + gamma (sum c+ + b+))   for z > 0,
                     with c- and b- in place of c+ and b+             for z < 0
        w_square     q = w^2 / sum w^2, whatever the inputs are       Montavon et al. (2017)
        flat         q = 1 / number of inputs
        z_box        q = (a w - l w+ - h w-) / sum (a w - l w+ - h w-), with bounds (l, h) of a,
                     in layers that read the input                    Montavon et al. (2017)

    "composite" takes epsilon in dense layers; in convolutions alpha_beta, or gamma if it is given;
    and in layers that read the input z_box with `bounds`, flat without them. Denominators get
    epsilon times their sign. Activations hand down what they get, max pooling hands down to its
    maximum, and sums, means and scalings by the share of each term in the result. A batch norm or
    an added constant right behind a layer counts as part of it.

    In alpha_beta and gamma the bias is one more term, on the side of its sign: gamma raises it as
    it raises c. It also counts in z, whose sign chooses the side. With biases=False it does
    neither. (zennit's Gamma without biases still takes the sign of z with the bias, so units whose
    sign the bias turns differ.) w_square, flat and z_box know no bias, and hand down all that they
    get; in zennit's WSquare and ZBox the bias takes a share.

    A rule for each layer: a mapping from the dotted name of a module, the module itself, or a class
    of modules. Layers inside a module that is named follow its rule, and the innermost decides; a
    name or a module goes before its class, and a class before those that it derives from. "" is
    the whole model, and without it the rule of all other layers is epsilon.

    "transformer" is epsilon in all layers, with rules for what transformers are made of, which the
    other rules refuse (AttnLRP, Achtibat et al., 2024, Prop. 3.1 to 3.4); {"": "transformer",
    nn.Linear: "gamma"} has another rule in layers:

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
        rule: "epsilon", "alpha_beta", "gamma", "w_square", "flat", "composite" or "transformer"; or
            a mapping from names, modules or classes to these, without "composite", and "z_box".
        epsilon: Number above 0 that keeps denominators from 0.
        alpha: Weight of the positive terms; alpha - beta must be 1.
        beta: Weight of the negative terms.
        gamma: How much more the terms with the sign of z count. None stands for 0.25 in "gamma",
            and for "alpha_beta" in the convolutions of "composite".
        bounds: Pair (lower, upper) of the inputs that are possible, the same for all pictures, for
            "z_box". None stands for "flat" in "composite".
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
            use an argument that is given, it names a module that does not exist or in which no
            layer runs, the rows of the model are not independent, or the result is not finite.
        NotImplementedError: An operation has no rule, or writes in place in a way that cannot be
            followed; the message names it and says where it is.

    Example:
        >>> f = lambda x: x @ torch.tensor([[2.0], [1.0]])
        >>> tl.lrp(f, torch.tensor([[3.0, 1.0]]), 0)
        tensor([[6.0000, 1.0000]])
        >>> tl.lrp(model, x, 3, rule="composite", bounds=(0.0, 1.0)).shape
        torch.Size([2, 3, 16, 16])
        >>> tl.lrp(model, x, 3, rule={"0": "w_square", nn.Linear: "gamma"}, gamma=0.5).shape
        torch.Size([2, 3, 16, 16])
    """
    rules, named = _rules_by_module(model, rule)
    chosen = set(rule.values() if isinstance(rule, Mapping) else [rule])
    checks.positive("epsilon", epsilon)
    checks.nonnegative("alpha", alpha)
    if abs(alpha - checks.nonnegative("beta", beta) - 1) > 1e-9:
        raise ValueError(f"alpha: expected beta + 1 = {beta + 1}, got {alpha}")
    if gamma is not None:
        checks.nonnegative("gamma", gamma)
    for name, is_given, users in (
        ("alpha", alpha != 1, {"alpha_beta", "composite"}),
        ("gamma", gamma is not None, {"gamma", "composite"}),
        ("bounds", bounds is not None, {"z_box", "composite"}),
    ):
        if is_given and not users & chosen:
            raise ValueError(f"{name}: only {' and '.join(sorted(users))} use it, not {rule!r}")
    if rule == "composite" and gamma is not None and alpha != 1:
        raise ValueError("alpha: composite has gamma in place of alpha_beta; give one of the two")
    if bounds is None and "z_box" in chosen:
        raise ValueError("bounds: the rule z_box needs the range of x, such as model.bounds")
    checks.flag("biases", biases)
    checks.model(model)
    x = checks.pictures(x)
    input_bounds = _input_bounds(x, bounds)
    if rule == "composite":
        rule_of = partial(_composite, "alpha_beta" if gamma is None else "gamma", bounds)
    else:
        rule_of = partial(_rule_of_step, rules)
    options = dict(alpha=alpha, beta=beta, gamma=0.25 if gamma is None else gamma, biases=biases)
    options |= dict(input_bounds=input_bounds, epsilon=epsilon)
    return _propagate(model, x, target, rule_of, options, batch_size, seed, progress, named)


def deep_taylor(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    bounds: tuple | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Share out the score by a Taylor expansion of each unit at a root of its own.

        R_j = sum_k q_jk R_k,    q_jk = (a_j - root_j) w_jk / sum_i (a_i - root_i) w_ik

    Montavon et al. (2017). The nearest root along a direction that keeps to the domain of the
    unit's inputs gives the rule:

        inputs of a hidden layer are >= 0      q = c+ / sum c+                      z+
        the input, without bounds              q = w^2 / sum w^2                    w^2
        the input x in (l, h)                  q = (x w - l w+ - h w-) / sum of it  z^B

    where c+ is the positive part of the terms c = a w. Biases get no share. Pooling and sums share
    out by their positive terms, too, and max pooling hands down to its maximum. So a score above 0
    gives a map without negative entries, which sums to the score unless some unit has relevance and
    no positive term. A score below 0 gives a map of the other sign.

    In hidden layers whose inputs have both signs this is z+, too, as in other programs: c+ are then
    also the products of two negative numbers. The map is that of `tl.lrp` with "alpha_beta" in
    hidden layers, "w_square" or "z_box" in those that read the input and biases=False, but for sums
    of values of both signs.

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
        x: (B, ...) finite floating-point inputs.
        target: Class index, or LongTensor (B,) with one for each input.
        bounds: Pair (l, h) of the inputs that are possible, the same for all pictures, such as
            model.bounds, for z^B. None stands for w^2.
        batch_size: Inputs in a forward pass; None chooses by the device and the size of x.
        seed: It changes nothing, as no noise is drawn; every method takes it.
        progress: Whether to show a progress bar.

    Returns:
        (B, ...) attributions in units of the score.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, x is not within `bounds`, the rows of the model
            are not independent, or the result is not finite.
        NotImplementedError: An operation has no rule, or writes in place in a way that cannot be
            followed; the message names it and says where it is.

    Example:
        The nearest root of x1 - x2 is halfway between the two numbers; within (0, 4) the root is
        where one has grown by as much of its way as the other has fallen:

        >>> f = lambda x: x @ torch.tensor([[1.0], [-1.0]])
        >>> tl.deep_taylor(f, torch.tensor([[3.0, 2.0]]), 0)
        tensor([[0.5000, 0.5000]])
        >>> tl.deep_taylor(f, torch.tensor([[3.0, 2.0]]), 0, bounds=(0.0, 4.0))
        tensor([[0.6000, 0.4000]])
    """
    checks.model(model)
    x = checks.pictures(x)
    options = dict(biases=False, positive_sums=True, epsilon=1e-9)
    options["input_bounds"] = _input_bounds(x, bounds)
    rule_of = partial(_deep_taylor, bounds)
    return _propagate(model, x, target, rule_of, options, batch_size, seed, progress)


def _propagate(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    rule_of: Callable[[Step, bool], str],
    options: dict,
    batch_size: int | None,
    seed: int,
    progress: bool,
    named: Collection[nn.Module] = (),
) -> Tensor:
    """Return the relevance (B, ...) by the rules of `rule_of`, with the options of `Relevance`.

    A module of `named` inside which no layer runs is an error.
    """

    def relevance(network: Callable, points: Tensor, target: Tensor) -> Tensor:
        tape = record(network, points, target).logits().without_choices()
        rules, score = Relevance(tape, rule_of, **options), tape.values[tape.output]
        users = {m for step in tape.steps if rules.has_choice(step) for m in step.modules}
        if idle := [m for m in named if m not in users]:
            raise ValueError(f"rule: no layer runs inside {idle[0]}, so no rule applies to it")
        return walk_to_input(tape, rules, one_hot(target, score) * score)

    probe_function = partial(probes.point, seed=seed)
    passes = dict(batch_size=batch_size, progress=progress, gradient_of=relevance)
    return average(model, x, target, probe_function, **passes)


def _composite(convolutions: str, bounds: tuple | None, step: Step, reads_input: bool) -> str:
    """The rule of a layer in "composite"."""
    if reads_input:
        return "flat" if bounds is None else "z_box"
    return convolutions if step.name == "convolution" else "epsilon"


def _deep_taylor(bounds: tuple | None, step: Step, reads_input: bool) -> str:
    """The rule of a layer in deep Taylor decomposition."""
    if reads_input:
        return "w_square" if bounds is None else "z_box"
    return "alpha_beta"


def _rule_of_step(rules: dict, step: Step, reads_input: bool) -> str:
    """The rule of the innermost module that has one; that of all other layers is under None."""
    rule = next((rules[m] for m in reversed(step.modules) if m in rules), rules[None])
    if rule == "z_box" and not reads_input:
        raise ValueError(
            f"rule: z_box is for layers that read the input, and {step.location} reads what other "
            "layers have made; write alpha_beta there"
        )
    return rule


def _rules_by_module(model: Callable, rule: str | Mapping) -> tuple[dict, list[nn.Module]]:
    """{module: rule}, with that of all other layers under None, and the modules that are named."""
    if not isinstance(rule, Mapping):
        checks.choice("rule", rule, RULES)
        return {None: rule}, []
    if not isinstance(model, nn.Module):
        raise TypeError("rule: a mapping from modules needs a model that is an nn.Module")
    by_name: dict[nn.Module, str] = {}
    kin = {m: [c for c in type(m).__mro__ if c in rule] for m in model.modules()}
    for key, value in rule.items():
        checks.choice("rule", value, (*LAYER_RULES, "transformer"))
        if not isinstance(key, type):
            if by_name.setdefault(find_module("rule", model, key), value) != value:
                raise ValueError(f"rule: expected one rule a module, {key!r} has two")
        elif not any(key in classes for classes in kin.values()):
            raise ValueError(f"rule: the model has no module of the class {key.__name__}")
    by_class = {m: rule[classes[0]] for m, classes in kin.items() if classes}
    return {None: "epsilon"} | by_class | by_name, list(by_name)


def _input_bounds(x: Tensor, bounds: tuple | None) -> tuple[Tensor, Tensor] | None:
    """The bounds as tensors, one range for all pictures; None where there are none."""
    found = None if bounds is None else checks.inside(x, bounds)
    if found and max(map(len, found)) > 1:
        raise ValueError("bounds: expected one range for all pictures, first dimension 1")
    return found
