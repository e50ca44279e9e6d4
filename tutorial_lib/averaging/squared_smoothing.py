"""Squares and variances of noisy maps: what `smoothgrad` averages away, as a map."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from tutorial_lib.averaging.methods import gradient
from tutorial_lib.averaging.smoothing import mean_and_variance


def smoothgrad_squared(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    sigma: float | Tensor,
    samples: int = 50,
    method: Callable[..., Tensor] = gradient,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
    **keywords: object,
) -> Tensor:
    """Average the squares of a method's maps at noisy copies of x.

        A(x) = 1/n sum_k M(x + eps_k)^2,  eps_k ~ N(0, sigma^2 I)

    Hooker et al. (2019), who call it SmoothGrad-squared. It is SmoothGrad squared plus
    VarGrad, on the same draws, and it has lost the sign. It takes n maps of M.

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
        x: (B, ...) finite floating-point inputs.
        target: Class index, or LongTensor (B,) with one for each input.
        sigma: Standard deviation in the units of x, as in `tl.smoothgrad`.
        samples: n, the number of noisy copies of each input.
        method: M, the attribution function whose maps are squared; `tl.smoothgrad` says how it is
            called.
        batch_size: Points in a forward pass; None chooses by the device and the size of x.
        seed: Seed of the noise; the draws are those of `tl.smoothgrad`.
        progress: Whether to show a progress bar.
        **keywords: Further keywords of M.

    Returns:
        (B, ...) attributions of at least 0, in the squared units of M.

    Raises:
        TypeError: An argument has the wrong type, M misses a keyword, or a keyword is unknown.
        ValueError: A value or a shape does not fit, the rows of the model are not independent, or
            its gradients are not finite.

    Example:
        The squared weight of a linear function:

        >>> z = torch.tensor([[1.0, 2.0]])
        >>> tl.smoothgrad_squared(lambda z: 3 * z, z, 1, sigma=0.2, samples=4)
        tensor([[0., 9.]])
    """
    options: dict[str, Any] = dict(sigma=sigma, samples=samples, method=method, seed=seed)
    options |= dict(batch_size=batch_size, progress=progress)
    mean, variance = mean_and_variance(smoothgrad_squared, keywords, model, x, target, **options)
    return (mean.square() + variance).to(x.dtype)


def vargrad(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    sigma: float | Tensor,
    samples: int = 50,
    method: Callable[..., Tensor] = gradient,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
    **keywords: object,
) -> Tensor:
    """Compute the variance of a method's maps over noisy copies of x.

        A(x) = 1/n sum_k (M(x + eps_k) - m)^2,  eps_k ~ N(0, sigma^2 I)
        m = 1/n sum_k M(x + eps_k)

    Adebayo et al. (2018); Hooker et al. (2019). The sum is divided by n here, so that A is
    SmoothGrad-squared minus the square of SmoothGrad; multiply by n / (n - 1) for the estimate
    without bias. A is also n - 1 times the squared standard error of SmoothGrad. It says how much
    the gradient changes near x and nothing about its size: it is 0 for a linear f. It takes n maps
    of M.

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
        x: (B, ...) finite floating-point inputs.
        target: Class index, or LongTensor (B,) with one for each input.
        sigma: Standard deviation in the units of x, as in `tl.smoothgrad`.
        samples: n, the number of noisy copies of each input.
        method: M, the attribution function whose maps vary; `tl.smoothgrad` says how it is called.
        batch_size: Points in a forward pass; None chooses by the device and the size of x.
        seed: Seed of the noise; the draws are those of `tl.smoothgrad`.
        progress: Whether to show a progress bar.
        **keywords: Further keywords of M.

    Returns:
        (B, ...) attributions of at least 0, in the squared units of M.

    Raises:
        TypeError: An argument has the wrong type, M misses a keyword, or a keyword is unknown.
        ValueError: A value or a shape does not fit, the rows of the model are not independent, or
            its gradients are not finite.

    Example:
        The gradient of the square is 2 z. So it varies 2^2 = 4 times as much as the noise:

        >>> z = torch.tensor([[1.0, 2.0]])
        >>> tl.vargrad(lambda z: z**2, z, 1, sigma=0.5, samples=4000).round(decimals=1)
        tensor([[0., 1.]])
    """
    options: dict[str, Any] = dict(sigma=sigma, samples=samples, method=method, seed=seed)
    options |= dict(batch_size=batch_size, progress=progress)
    _, variance = mean_and_variance(vargrad, keywords, model, x, target, **options)
    return variance.to(x.dtype)
