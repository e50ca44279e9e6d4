"""The averaging methods: each says where to look and how to weigh, and the engine does the rest.

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
from inspect import signature

from torch import Tensor

from tutorial_lib import probes
from tutorial_lib.engine import average, gradients


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
    places = partial(probes.point, seed=seed)
    return average(model, x, target, places, batch_size=batch_size, progress=progress)


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
    places = partial(probes.point_times_input, seed=seed)
    return average(model, x, target, places, batch_size=batch_size, progress=progress)


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
    places = partial(
        probes.path,
        baseline=baseline,
        baselines=baselines,
        steps=steps,
        rule=rule,
        bounds=bounds,
        seed=seed,
    )
    return average(model, x, target, places, batch_size=batch_size, progress=progress)


# What a method looks at, for the methods that average plain gradients: smoothing one of them
# means to look at its probes around each noisy x.
PROBES = {
    gradient: probes.point,
    gradient_x_input: probes.point_times_input,
    integrated_gradients: probes.path,
}


def smoothgrad(
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
    """Average of a method's maps at noisy copies of x; by default of the gradient, signed.

    A(x) = 1/n sum_k M(x + eps_k),  eps_k ~ N(0, sigma^2 I)   (Smilkov et al., 2017, Sec. 3)

    sigma: standard deviation in the units of x (the paper's noise level times the range of x, see
        `sigma_from_level`), a number or a tensor broadcastable to x. samples: n.
    method: M, any attribution function of this form; further keywords go to it. The package's
        methods draw fresh inner noise at each noisy copy; another M should be deterministic.

    >>> tl.smoothgrad(model, x, 285, sigma=0.2, samples=50)
    >>> tl.smoothgrad(model, x, 285, sigma=0.2, method=tl.integrated_gradients, steps=20)
    """
    inner, slope = _inside(method, keywords)
    places = partial(probes.gaussian, sigma=sigma, samples=samples, seed=seed, inner=inner)
    return average(model, x, target, places, batch_size=batch_size, progress=progress, slope=slope)


def _inside(method: Callable, keywords: dict) -> tuple[Callable[..., probes.Probes], Callable]:
    """What to do at each noisy copy: the method's probe function, and the slope to average."""
    while isinstance(method, partial) and not method.args:
        method, keywords = method.func, {**method.keywords, **keywords}
    if not callable(method):
        raise TypeError(f"method: expected an attribution function, got {method!r}")
    if method is not smoothgrad and method not in PROBES:  # no average of gradients: call it
        return probes.point, partial(_call, method, keywords)
    keywords = {k: v for k, v in keywords.items() if k not in ("batch_size", "progress")}
    if method is smoothgrad:
        own = {k: keywords.pop(k) for k in ("sigma", "samples") if k in keywords}
        inner, slope = _inside(keywords.pop("method", gradient), keywords)
        return partial(probes.gaussian, inner=inner, **own), slope
    accepted = set(signature(PROBES[method]).parameters) - {"x", "seed"}
    if unknown := set(keywords) - accepted:
        raise TypeError(f"method: {method.__name__} takes no {', '.join(sorted(unknown))} here")
    return partial(PROBES[method], **keywords), gradients


def _call(method: Callable, keywords: dict, model: Callable, points: Tensor, target: Tensor):
    maps = method(model, points, target, **keywords)
    if not isinstance(maps, Tensor) or maps.shape != points.shape:
        what = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise ValueError(f"method: expected it to return shape {tuple(points.shape)}, got {what}")
    return maps
