"""VarGrad and squared SmoothGrad against closed forms and naive loops on the same draws."""

from functools import partial

import pytest
import torch

import tutorial_lib as tl
from tests.averaging.test_methods import close
from tests.averaging.test_smoothing import grad, noise
from tests.closed_forms import linear, normal, quadratic, symmetric, tanh_mlp

NOISY = dict(sigma=0.4, samples=7, seed=2)


def maps_at_noisy_copies(net, x, method, **keywords):
    """The map of a method at each noisy copy, (n, B, ...), from the definition of the noise."""
    copies = [x + 0.4 * e for e in noise(7, *x.shape[1:], seed=2)]
    return torch.stack([method(net, z, 1, **keywords) for z in copies])


@pytest.mark.parametrize(
    "method, keywords",
    [
        (tl.gradient, {}),
        (tl.integrated_gradients, {"steps": 4, "baseline": -1.0}),
        (tl.deeplift, {"baseline": 0.5}),
        (partial(tl.gradient_x_input), {}),
    ],
)
def test_both_are_the_moments_of_the_maps_at_the_noisy_copies(method, keywords):
    net, x = tanh_mlp(), normal(3, 6)
    maps = maps_at_noisy_copies(net, x, method, **keywords)
    squared = tl.smoothgrad_squared(net, x, 1, method=method, **keywords, **NOISY)
    close(squared, maps.square().mean(0))
    variance = tl.vargrad(net, x, 1, method=method, **keywords, **NOISY)
    close(variance, maps.var(0, correction=0))


@pytest.mark.parametrize(
    "inner",
    [
        {},
        dict(method=tl.integrated_gradients, baseline="noise", bounds=(-1.0, 1.0), steps=3),
        dict(method=tl.noisegrad, weight_samples=2),
        dict(method=partial(tl.smoothgrad, sigma=0.1, samples=3)),
        dict(method=partial(tl.expected_gradients, samples=5), baselines=normal(2, 6, seed=4)),
    ],
    ids=["gradient", "noise baselines", "noisy weights", "smoothgrad", "expected gradients"],
)
def test_vargrad_is_the_squares_minus_the_square_of_smoothgrad_on_the_same_draws(inner):
    net, x = tanh_mlp(), normal(2, 6)
    first, second, variance = (
        method(net, x, 1, **NOISY, **inner)
        for method in (tl.smoothgrad, tl.smoothgrad_squared, tl.vargrad)
    )
    close(variance, second - first.square())
    assert bool((variance > 0).all())


def test_of_a_linear_model_they_are_the_squared_weight_and_nothing():
    weight, x = normal(3, 5), normal(2, 5, seed=1)
    options = dict(sigma=2.0, samples=50)
    close(tl.smoothgrad_squared(linear(weight), x, 2, **options), weight[2].square().expand_as(x))
    found = tl.vargrad(linear(weight), x, 2, **options)
    assert float(found.max()) < 1e-30 and bool((found >= 0).all())


@pytest.mark.slow
def test_a_variance_far_below_the_square_is_not_lost_in_float32():
    # f = 1000 z + z^2 / 2: the gradient is 1000 + z, whose variance is that of the noise.
    x = torch.zeros(1, 1000)
    found = tl.vargrad(lambda z: 1000 * z + z**2 / 2, x, 3, sigma=0.01, samples=2000)[0, 3]
    assert float(found) == pytest.approx(1e-4, rel=0.15)  # 4.5 of its standard errors
    assert bool((tl.vargrad(lambda z: 1000 * z, x, 3, sigma=0.01) >= 0).all())


@pytest.mark.slow
def test_of_a_quadratic_form_the_variance_is_sigma_squared_times_the_squared_rows():
    # The gradient A x + sigma A e has the variances sigma^2 sum_j A_ij^2, of which n draws give
    # (n - 1)/n, with the relative spread sqrt(2 / n).
    matrix, x, n = symmetric(4), normal(1, 4, seed=1), 8000
    found = tl.vargrad(quadratic(matrix), x, 0, sigma=0.7, samples=n)
    wanted = 0.49 * matrix.square().sum(1).expand_as(x)
    assert bool(((found / wanted - 1).abs() < 4.5 * (2 / n) ** 0.5).all())


@pytest.mark.slow
def test_of_a_cube_both_are_the_known_moments():
    # g = 3 (x + s e)^2: E g^2 = 9 (x^4 + 6 x^2 s^2 + 3 s^4) and Var g = 36 x^2 s^2 + 18 s^4.
    x, s, n = torch.tensor([[0.5], [2.0]]).double(), 0.7, 40_000
    second = tl.smoothgrad_squared(lambda z: z**3, x, 0, sigma=s, samples=n)
    variance = tl.vargrad(lambda z: z**3, x, 0, sigma=s, samples=n)
    assert torch.allclose(second, 9 * (x**4 + 6 * x**2 * s**2 + 3 * s**4), rtol=0.04)
    assert torch.allclose(variance, 36 * x**2 * s**2 + 18 * s**4, rtol=0.06)


def test_one_noisy_copy_has_a_square_and_no_variance():
    net, x = tanh_mlp(), normal(2, 6)
    g = tl.smoothgrad(net, x, 1, sigma=0.3, samples=1)
    assert torch.equal(tl.smoothgrad_squared(net, x, 1, sigma=0.3, samples=1), g.square())
    assert not tl.vargrad(net, x, 1, sigma=0.3, samples=1).any()


def test_without_noise_they_are_the_squared_map_and_nothing():
    net, x = tanh_mlp(), normal(2, 6)
    close(tl.smoothgrad_squared(net, x, 1, sigma=0.0, samples=4), grad(net, x, 1).square())
    assert float(tl.vargrad(net, x, 1, sigma=0.0, samples=4).abs().max()) < 1e-30


def test_the_variance_is_that_of_the_standard_error_of_smoothgrad():
    net, x, n = tanh_mlp(), normal(2, 6), 9
    where = partial(tl.probes.gaussian, sigma=0.3, samples=n)
    _, error = tl.engine.average(net, x, 1, where, standard_error=True)
    close(tl.vargrad(net, x, 1, sigma=0.3, samples=n) / (n - 1), error.square())


@pytest.mark.parametrize("method", [tl.vargrad, tl.smoothgrad_squared, tl.smoothdiff])
def test_noise_that_all_noisy_copies_would_share_is_refused(method):
    inner = partial(method, sigma=0.1, samples=3)
    with pytest.raises(TypeError, match=f"method: {method.__name__} draws noise itself.*seed=k"):
        tl.smoothgrad(tanh_mlp(), normal(2, 6), 1, sigma=0.4, samples=5, method=inner)


@pytest.mark.parametrize("method", [tl.vargrad, tl.smoothgrad_squared])
@pytest.mark.parametrize("dtype, factor", [(torch.float16, 300.0), (torch.float32, 1e25)])
def test_squares_that_the_dtype_cannot_hold_are_an_error(method, dtype, factor):
    x = torch.rand(2, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    with pytest.raises(ValueError, match=r"model: the squares of its gradients.*\[0, 1\] of x"):
        method(lambda z: factor * z**2, x, 0, sigma=1.0, samples=4)


@pytest.mark.parametrize("method", [tl.occlusion, tl.pattern_net])
def test_a_keyword_that_the_method_needs_is_named(method):
    with pytest.raises(TypeError, match=rf"method: the inner {method.__name__} has no .*Give it"):
        tl.smoothgrad(tanh_mlp(), normal(2, 6), 1, sigma=0.1, method=method)


def test_a_seed_belongs_to_the_outer_method():
    with pytest.raises(TypeError, match="seed: the seed of vargrad is for all of its noise"):
        tl.vargrad(tanh_mlp(), normal(2, 6), 1, sigma=0.1, method=partial(tl.idgi, seed=3))


def test_a_keyword_that_nothing_takes_is_named():
    with pytest.raises(TypeError, match="n_samples: neither vargrad nor its method gradient"):
        tl.vargrad(tanh_mlp(), normal(2, 6), 1, sigma=0.1, n_samples=5)
