"""The averaging methods: each says where to look and how to weigh, and the engine does the rest.

Methods that smooth another method are in `smoothing.py`.

Every function has the form NAME(model, x, target, *, ...) and returns a tensor of the shape of x.

model: any callable (nn.Module or function) from a batch (N, ...) to scores (N, C), row by row
    independent; a module must be in eval mode. It is left exactly as it was.
x: (B, ...), a batch of finite floating-point inputs. target: int, or LongTensor (B,).
batch_size: gradient evaluations per forward pass; None chooses. Memory grows with it alone.
seed: the result depends on it, and never on batch_size. progress: show a tqdm bar.

All raise ValueError or TypeError that names the argument at fault.
"""

from collections.abc import Callable
from functools import partial

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
    """Gradient of the target's score, signed: how fast the score changes with each input.

    A(x) = grad f(x)   (Simonyan et al., 2014, Sec. 3). Units: score per unit of input.

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
    """Gradient times input: the first-order Taylor estimate of f(x) - f(0), entry by entry.

    A(x) = x * grad f(x)   (Shrikumar et al., 2016). Units: score.

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
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Gradients averaged along the straight line from a baseline b to x, times x - b.

    A(x) = (x - b) * integral over a in [0, 1] of grad f(b + a (x - b))
         ~ (x - b) * sum_j w_j grad f(b + a_j (x - b))
    (Sundararajan et al., 2017, Eq. 1; the sum as in Goh et al., 2021, Eq. 2, and the average over
    N noise baselines as in Eq. 3). Its entries sum to f(x) - f(b) up to the sum's error.
    Units: score.

    baseline: a number, a tensor broadcastable to x, or "noise": uniform noise within `bounds`,
        a pair (lower, upper) such as model.bounds, drawn `baselines` times (the N of Eq. 3).
    steps, rule: nodes a_j and weights w_j: "right" (Eq. 2), "left", "midpoint", "trapezoid"
        (steps + 1 gradients), "gauss-legendre"; see `probes.quadrature`.

    >>> tl.integrated_gradients(lambda x: x**2, torch.tensor([[1.0, 3.0]]), 1, rule="midpoint")
    tensor([[0.0000, 9.0000]])
    """
    probe_function = partial(
        probes.path,
        baseline=baseline,
        baselines=baselines,
        steps=steps,
        rule=rule,
        bounds=bounds,
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
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """First-order Taylor terms at x from many roots z around it, averaged.

    A(x) = 1/R sum_r (x - z_r) * grad f(z_r),  z_r = x + eps_r,  eps_r ~ N(0, sigma^2 I)
    (Goh et al., 2021, Eq. 9 and 10). Units: score.

    In expectation this is -sigma^2 d2 f_sigma / dx_i^2, a curvature of the score blurred with
    sigma: 0 for a linear f, and it does not sum to f(x). With few roots most of a map is sampling
    noise; `tl.reliability` measures how much.

    sigma: in the units of x. The default is the paper's, for ImageNet's normalisation (10.5 % of
        that range); `tl.sigma_from_level` converts. roots: R, or a tensor of given roots
        (R, B, ...), any set S of Eq. 8, which is averaged as it is; sigma and seed then play no
        part.

    >>> tl.smooth_taylor(lambda x: x**2, torch.tensor([[1.0]]), 0, roots=torch.tensor([[[0.5]]]))
    tensor([[0.5000]])
    """
    probe_function = partial(probes.taylor_roots, sigma=sigma, roots=roots, seed=seed)
    return average(model, x, target, probe_function, batch_size=batch_size, progress=progress)
