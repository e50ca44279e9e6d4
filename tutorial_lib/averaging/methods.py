"""The averaging methods: each says where to look and how to weigh, and the engine does the rest.

Methods that smooth another method are in `smoothing.py`.

Every function has the form NAME(model, x, target, *, ...), leaves the model as it was and returns a
tensor of the shape of x. The result depends on `seed` and never on `batch_size`, with which alone
memory grows.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from tutorial_lib.averaging import probes
from tutorial_lib.averaging.engine import average


def gradient(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Compute the signed gradient of the target's score: how fast it changes with each input.

        A(x) = grad f(x)

    Simonyan et al. (2014), Sec. 3.

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
        x: (B, ...) finite floating-point inputs.
        target: Class index, or LongTensor (B,) with one for each input.
        batch_size: Points in a forward pass; None chooses by the device and the size of x.
        seed: It changes nothing, as no noise is drawn; every method takes it.
        progress: Whether to show a progress bar.

    Returns:
        (B, ...) attributions in units of the score per unit of input.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, the rows of the model are not independent, or
            its gradients are not finite.

    Example:
        >>> tl.gradient(lambda x: x**2, torch.tensor([[1.0, 3.0]]), target=1)
        tensor([[0., 6.]])
    """
    probe_function = partial(probes.point, seed=seed)
    return average(model, x, target, probe_function, batch_size=batch_size, progress=progress)


def gradient_x_input(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Multiply gradient and input: the first-order Taylor estimate of f(x) - f(0), by entries.

        A(x) = x * grad f(x)

    Shrikumar et al. (2016).

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
        x: (B, ...) finite floating-point inputs.
        target: Class index, or LongTensor (B,) with one for each input.
        batch_size: Points in a forward pass; None chooses by the device and the size of x.
        seed: It changes nothing, as no noise is drawn; every method takes it.
        progress: Whether to show a progress bar.

    Returns:
        (B, ...) attributions in units of the score.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, the rows of the model are not independent, or
            its gradients are not finite.

    Example:
        >>> tl.gradient_x_input(lambda x: x**2, torch.tensor([[1.0, 3.0]]), target=1)
        tensor([[ 0., 18.]])
    """
    probe_function = partial(probes.point_times_input, seed=seed)
    return average(model, x, target, probe_function, batch_size=batch_size, progress=progress)


def integrated_gradients(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    baseline: float | Tensor | str = 0.0,
    baselines: int = 1,
    steps: int = 50,
    rule: str = "right",
    bounds: tuple | None = None,
    sampling: str = "random",
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Average the gradient along the straight line from a baseline b to x, times x - b.

        A(x) = (x - b) * integral over a in [0, 1] of grad f(b + a (x - b))
             ~ (x - b) * sum_j w_j grad f(b + a_j (x - b))

    Sundararajan et al. (2017), Eq. 1; as a sum in Goh et al. (2021), Eq. 2, and averaged over N
    noise baselines in their Eq. 3. The entries sum to f(x) - f(b) up to the error of the sum. A
    map takes one gradient for each node of each baseline.

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
        x: (B, ...) finite floating-point inputs.
        target: Class index, or LongTensor (B,) with one for each input.
        baseline: b, in the units of x: a number, a tensor broadcastable to x, or "noise" for noise
            that is uniform within `bounds`.
        baselines: Number of noise baselines, the N of Eq. 3; 1 for any other baseline.
        steps: Number of nodes a_j; the rule "trapezoid" has one more.
        rule: Nodes a_j and weights w_j: "right" (that of Eq. 2), "left", "midpoint", "trapezoid"
            or "gauss-legendre"; `tl.probes.quadrature` says what they are.
        bounds: Pair (lower, upper) of the range of x, such as model.bounds. The noise baseline
            needs it.
        sampling: How noise baselines are drawn. "random" draws each by itself. "antithetic" draws
            pairs, b and its mirror image in the bounds, lower + upper - b, so `baselines` must be
            even. Either way each baseline is uniform, and the average is unbiased.
        batch_size: Points in a forward pass; None chooses by the device and the size of x.
        seed: Seed of the noise baselines.
        progress: Whether to show a progress bar.

    Returns:
        (B, ...) attributions in units of the score.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, the rows of the model are not independent, or
            its gradients are not finite.

    Example:
        >>> z = torch.tensor([[1.0, 3.0]])
        >>> tl.integrated_gradients(lambda x: x**2, z, 1, steps=2, rule="midpoint")
        tensor([[0., 9.]])
    """
    probe_function = partial(
        probes.path,
        baseline=baseline,
        baselines=baselines,
        steps=steps,
        rule=rule,
        bounds=bounds,
        sampling=sampling,
        seed=seed,
    )
    return average(model, x, target, probe_function, batch_size=batch_size, progress=progress)


def smooth_taylor(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    sigma: float | Tensor = 0.5,
    roots: int | Tensor = 150,
    sampling: str = "random",
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Average the first-order Taylor terms at x from many roots z around it.

        A(x) = 1/R sum_r (x - z_r) * grad f(z_r),  z_r = x + eps_r,  eps_r ~ N(0, sigma^2 I)

    Goh et al. (2021), Eq. 9 and 10. A root is there a point near x with f(z) ~ f(x), no zero of f.
    In expectation this is

        -sigma^2 d2 f_sigma / dx_i^2

    a curvature of the score blurred with sigma. It is 0 for a linear f, and it sums neither to f(x)
    nor to f(x) - f_sigma(x). With few roots most of a map is sampling noise; `tl.reliability`
    measures how much. A map takes R gradients.

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
        x: (B, ...) finite floating-point inputs.
        target: Class index, or LongTensor (B,) with one for each input.
        sigma: Standard deviation of the noise in the units of x, a number or a tensor
            broadcastable to x. The default is the one of the paper's Fig. 1, for ImageNet's
            normalisation (10.5 % of that range); `tl.sigma_from_level` converts.
        roots: R, or a tensor of given roots (R, B, ...), any set S of Eq. 9, which is averaged as
            it is; sigma and seed then play no part.
        sampling: How roots are drawn. "random" draws each by itself. "antithetic" draws pairs,
            x + eps and x - eps, so R must be even. Then the terms of a linear f cancel exactly, at
            any R, and what is left is noise of higher order; on the bundled network that saves a
            tenth of the gradients at 1 % noise, and at 10.5 % it takes 8 % more. Either way the
            average is unbiased.
        batch_size: Points in a forward pass; None chooses by the device and the size of x.
        seed: Seed of the noise.
        progress: Whether to show a progress bar.

    Returns:
        (B, ...) attributions in units of the score.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, the rows of the model are not independent, or
            its gradients are not finite.

    Example:
        The term of the root 0.5 is (1 - 0.5) times the gradient there, 1:

        >>> root = torch.tensor([[[0.5]]])
        >>> tl.smooth_taylor(lambda x: x**2, torch.tensor([[1.0]]), 0, roots=root)
        tensor([[0.5000]])
    """
    options: dict[str, Any] = dict(sigma=sigma, roots=roots, sampling=sampling)
    probe_function = partial(probes.taylor_roots, **options, seed=seed)
    return average(model, x, target, probe_function, batch_size=batch_size, progress=progress)
