"""Antithetic pairs against naive loops, closed forms, and what must not be torn apart."""

import math
from functools import partial

import pytest
import torch

import tutorial_lib as tl
from tests.averaging.test_methods import close
from tests.averaging.test_smoothing import grad, noise, within
from tests.closed_forms import linear, normal, quadratic, symmetric, tanh_mlp
from tutorial_lib.averaging import seeded_noise
from tutorial_lib.averaging.seeded_noise import child_seed

BOUNDS = (-3.0, 4.0)
BLOCKS = [1, 20, 32_768]  # numbers in a block: less than a draw, some pairs, all pairs
PAIRS = {
    "smoothgrad": partial(tl.smoothgrad, sigma=0.4, samples=10),
    "adaptgrad": partial(tl.adaptgrad, bounds=BOUNDS, samples=10),
    "smooth_taylor": partial(tl.smooth_taylor, sigma=0.4, roots=10),
    "noise baselines": partial(
        tl.integrated_gradients, baseline="noise", bounds=BOUNDS, baselines=10, steps=3
    ),
}
PAIRS = {name: partial(method, sampling="antithetic") for name, method in PAIRS.items()}


def pairs(n, *shape, seed=0):
    """n / 2 draws, each followed by its opposite."""
    return [sign * e for e in noise(n // 2, *shape, seed=seed) for sign in (1, -1)]


def naive(name, net, x, seed):
    """The same map by a loop over its pairs."""
    if name == "noise baselines":
        rng = torch.Generator().manual_seed(seed)
        drawn = [-3 + 7 * torch.rand(6, generator=rng, dtype=torch.float64) for _ in range(5)]
        starts = [b for first in drawn for b in (first, 1 - first)]  # 1 = lower + upper
        maps = [tl.integrated_gradients(net, x, 1, baseline=b[None], steps=3) for b in starts]
        return torch.stack(maps).mean(0)
    sigma = tl.adaptive_sigma(x, BOUNDS) if name == "adaptgrad" else 0.4
    points = [x + sigma * e for e in pairs(10, 6, seed=seed)]
    weights = [x - z if name == "smooth_taylor" else 1 for z in points]
    maps = [w * grad(net, z, 1) for w, z in zip(weights, points, strict=True)]
    return torch.stack(maps).mean(0)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("name", PAIRS)
def test_pairs_are_draws_and_their_mirror_images(name, block, monkeypatch):
    monkeypatch.setattr(seeded_noise, "NUMBERS_PER_BLOCK", block)
    net, x = tanh_mlp(), normal(2, 6)
    for size in (1, 3, None):
        close(PAIRS[name](net, x, 1, seed=2, batch_size=size), naive(name, net, x, seed=2))


def test_the_first_of_each_pair_is_a_draw_of_random_sampling():
    x = normal(2, 6)
    drawn = tl.probes.gaussian(x, sigma=0.4, samples=5).points()
    paired = tl.probes.gaussian(x, sigma=0.4, samples=10, sampling="antithetic").points()
    assert torch.equal(paired[::2], drawn)
    close(paired[::2] + paired[1::2], (2 * x).expand_as(drawn))


def test_two_samples_give_the_exact_smoothgrad_of_a_quadratic_form():
    matrix, x = symmetric(4), normal(2, 4, seed=1)
    a = tl.smoothgrad(quadratic(matrix), x, 0, sigma=0.7, samples=2, sampling="antithetic")
    close(a, x @ matrix)


def test_two_roots_give_the_exact_smoothtaylor_of_a_linear_model():
    weight, x = normal(3, 5), normal(2, 5, seed=1)
    a = tl.smooth_taylor(linear(weight), x, 2, sigma=0.5, roots=2, sampling="antithetic")
    close(a, torch.zeros_like(x))


def test_two_noise_baselines_give_a_linear_model_the_map_from_the_middle_of_the_bounds():
    weight, x = normal(3, 5), normal(2, 5, seed=1).clamp(*BOUNDS)
    own = dict(baseline="noise", bounds=BOUNDS, baselines=2, steps=1, sampling="antithetic")
    close(tl.integrated_gradients(linear(weight), x, 2, **own), weight[2] * (x - 0.5))


def erf_network(inputs=4, hidden=5):
    """f(x) = sum_j v_j erf(w_j x / sqrt 2), its smoothed gradient and what SmoothTaylor tends to.

    erf(u / sqrt 2) blurred by u ~ N(0, t^2) is erf(u / sqrt(2 (1 + t^2))), t = sigma |w|.
    """
    w, v = normal(hidden, inputs, seed=5), normal(hidden, seed=6)

    def score(z):
        return (torch.erf(z @ w.T / math.sqrt(2)) @ v)[:, None]

    def blurred(z, sigma):
        wide = (1 + sigma**2 * w.square().sum(1)).sqrt()
        return (torch.erf(z @ w.T / (math.sqrt(2) * wide)) @ v)[:, None]

    return score, blurred


def curvature(f, x):
    """The second derivatives d2 f / dx_i^2, (1, D)."""
    hessian = torch.autograd.functional.hessian(lambda z: f(z[None])[0, 0], x[0])
    return hessian.diagonal()[None]


@pytest.mark.parametrize("sampling", ["random", "antithetic"])
def test_neither_sampling_is_biased_on_a_network_whose_blurred_score_is_known(sampling):
    x, sigma, n = normal(1, 4), 0.8, 4000
    score, blurred = erf_network()
    smoothed = partial(blurred, sigma=sigma)
    truths = {
        tl.probes.gaussian: grad(smoothed, x, 0),
        tl.probes.taylor_roots: -(sigma**2) * curvature(smoothed, x),
    }
    for probes, truth in truths.items():
        count = dict(roots=n) if probes is tl.probes.taylor_roots else dict(samples=n)
        where = partial(probes, sigma=sigma, sampling=sampling, **count)
        a, error = tl.engine.average(score, x, 0, where, standard_error=True)
        within(a, truth, error)


@pytest.mark.slow
@pytest.mark.parametrize("sampling", ["random", "antithetic"])
def test_neither_sampling_of_baselines_is_biased_on_a_cube(sampling):
    # IG of z^3 from b is x^3 - b^3, and the mean of b^3 on [-3, 4] is (4^4 - 3^4) / 28.
    x, n = normal(1, 4), 4000
    own = dict(baseline="noise", bounds=BOUNDS, baselines=n, steps=2, rule="gauss-legendre")
    where = partial(tl.probes.path, sampling=sampling, **own)
    cubes = lambda z: (z**3).sum(1, keepdim=True)  # noqa: E731
    a, error = tl.engine.average(cubes, x, 0, where, standard_error=True)
    within(a, x**3 - (4**4 - 3**4) / 28, error)


WHERE = {
    "points": partial(tl.probes.gaussian, sigma=0.5, samples=10),
    "roots": partial(tl.probes.taylor_roots, sigma=0.5, roots=10),
    "paths": partial(tl.probes.path, baseline="noise", bounds=BOUNDS, baselines=10, steps=3),
    "inner paths": partial(
        tl.probes.gaussian, sigma=0.5, samples=10, inner=partial(tl.probes.path, steps=3)
    ),
}


@pytest.mark.parametrize("block", [*BLOCKS, 6])
@pytest.mark.parametrize("name", WHERE)
def test_the_standard_error_counts_a_pair_as_one_draw(name, block, monkeypatch):
    monkeypatch.setattr(seeded_noise, "NUMBERS_PER_BLOCK", block)
    x, where = normal(2, 3), partial(WHERE[name], sampling="antithetic")
    cubic = lambda z: (z**3 + z**2 + z).sum(1, keepdim=True)  # noqa: E731
    terms = []
    for b in where(x):
        weight = 1 if b.weights is None else b.weights
        terms += [*(b.shares * weight * torch.stack([tl.gradient(cubic, z, 0) for z in b.points]))]
    draws = torch.stack(terms).unflatten(0, (5, -1)).sum(1) * 5
    mean, error = tl.engine.average(cubic, x, 0, where, standard_error=True, batch_size=3)
    close(mean, draws.mean(0))
    close(error, draws.std(0) / 5**0.5)


def test_smoothed_methods_get_paired_outer_noise_and_inner_noise_of_their_own():
    net, x = tanh_mlp(), normal(2, 6)
    copies = [x + 0.2 * e for e in pairs(4, 6)]
    seeds = [child_seed(0, k) for k in range(4)]
    for inner in ("random", "antithetic"):
        method = partial(tl.smooth_taylor, sigma=0.3, roots=2, sampling=inner)
        maps = [method(net, z, 1, seed=s) for z, s in zip(copies, seeds, strict=True)]
        own = dict(sigma=0.2, samples=4, sampling="antithetic")
        close(tl.smoothgrad(net, x, 1, method=method, **own), torch.stack(maps).mean(0))


def test_any_method_is_averaged_over_pairs():
    net, x = tanh_mlp(), normal(2, 6)
    own = dict(sigma=0.2, samples=4, sampling="antithetic")
    a = tl.smoothgrad(net, x, 1, method=lambda m, z, t: tl.gradient(m, z, t) ** 2, **own)
    close(a, torch.stack([grad(net, x + 0.2 * e, 1) ** 2 for e in pairs(4, 6)]).mean(0))


def test_no_half_map_of_a_reliability_holds_half_a_pair():
    # Whole pairs give the exact gradient of a quadratic form, so every half map is the same.
    net, x = quadratic(symmetric(4)), normal(2, 4, seed=1)
    own = dict(sigma=0.7, samples=2)
    paired = tl.reliability(net, x, 0, sampling="antithetic", **own)
    assert float((1 - paired).abs().max()) < 1e-12
    assert float(tl.reliability(net, x, 0, **own).max()) < 0.99
    until = dict(max_rounds=4, standard_error=1e-9)
    result = tl.sample_until(net, x, 0, sampling="antithetic", **own, **until)
    assert result.rounds == 2 and float(result.standard_error.max()) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mirrored_baselines_stay_within_the_bounds(dtype):
    x = normal(1, 50).to(dtype)
    own = dict(baseline="noise", bounds=(-2.12, 2.64), baselines=40, steps=1, rule="left")
    b = tl.probes.path(x, sampling="antithetic", **own).points().float()
    assert float(b.min()) >= -2.13 and float(b.max()) <= 2.65
    assert float((b[::2] + b[1::2] - 0.52).abs().max()) < (
        0.03 if dtype == torch.bfloat16 else 1e-5
    )
    assert float(b.std()) == pytest.approx(4.76 / math.sqrt(12), rel=0.05)


X, ROOTS = normal(2, 6), normal(3, 2, 6)
WRONG = {
    "another word": (tl.smoothgrad, dict(sigma=0.1, sampling="sobol"), "sampling: .*antithetic"),
    "no word": (tl.smooth_taylor, dict(sampling=None), "sampling: .*random"),
    "half a pair": (tl.smoothgrad, dict(sigma=0.1, samples=5), "samples: .*samples=6"),
    "half a pair of roots": (tl.smooth_taylor, dict(roots=5), "roots: .*roots=6"),
    "half a pair for AdaptGrad": (
        tl.adaptgrad,
        dict(bounds=(-9.0, 9.0), samples=1),
        "samples: .*samples=2",
    ),
    "one noise baseline": (
        tl.integrated_gradients,
        dict(baseline="noise", bounds=(-9.0, 9.0)),
        "baselines: .*baselines=2",
    ),
    "a fixed baseline": (tl.integrated_gradients, {}, "sampling: .*baseline='noise'"),
    "given roots": (tl.smooth_taylor, dict(roots=ROOTS), "sampling: .*given roots"),
    "a word beside given roots": (
        tl.smooth_taylor,
        dict(roots=ROOTS, sampling="x"),
        "sampling: .*antithetic",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_paired_is_an_error_that_says_what_to_write(case):
    method, keywords, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        method(tanh_mlp(), X, 1, **{"sampling": "antithetic", **keywords})


@pytest.mark.parametrize("method", [tl.noisegrad, partial(tl.fusiongrad, sigma=0.1)])
def test_methods_without_a_sampling_say_so(method):
    with pytest.raises(TypeError, match="sampling: neither"):
        method(tanh_mlp(), X, 1, sampling="antithetic")
