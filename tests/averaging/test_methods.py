"""The averaging methods against closed forms."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tutorial_lib as tl
from tests.closed_forms import hinge, linear, normal, quadratic, saturating, symmetric, tanh_mlp
from tutorial_lib.averaging.quadrature import RULES


def expected_gradients(model, x, target, **keywords):
    """From three baselines of the shape of x."""
    baselines = torch.stack([torch.full_like(x[0], value) for value in (-1.0, 0.0, 2.0)])
    return tl.expected_gradients(model, x, target, baselines=baselines, **keywords)


METHODS = {
    "gradient": (tl.gradient, {}),
    "gradient_x_input": (tl.gradient_x_input, {}),
    "integrated_gradients": (tl.integrated_gradients, {"steps": 7}),
    "smoothgrad": (tl.smoothgrad, {"sigma": 0.3, "samples": 7}),
    "smoothgrad of IG": (
        tl.smoothgrad,
        {"sigma": 0.3, "samples": 3, "method": tl.integrated_gradients, "steps": 4},
    ),
    "IG of noise": (
        tl.integrated_gradients,
        {"baseline": "noise", "baselines": 3, "steps": 4, "bounds": (-1.0, 1.0)},
    ),
    "smooth_taylor": (tl.smooth_taylor, {"sigma": 0.3, "roots": 7}),
    "adaptgrad": (tl.adaptgrad, {"bounds": (-9.0, 9.0), "samples": 7}),
    "adaptgrad of gradient x input": (
        tl.adaptgrad,
        {"bounds": (-9.0, 9.0), "samples": 5, "method": tl.gradient_x_input},
    ),
    "expected_gradients": (expected_gradients, {"samples": 7}),
    "idgi": (tl.idgi, {"baseline": 0.3, "steps": 5}),
    "guided_integrated_gradients": (tl.guided_integrated_gradients, {"steps": 6, "fraction": 0.3}),
    "smoothgrad_squared": (tl.smoothgrad_squared, {"sigma": 0.3, "samples": 7}),
    "vargrad": (tl.vargrad, {"sigma": 0.3, "samples": 7}),
    "vargrad of IG": (
        tl.vargrad,
        {"sigma": 0.3, "samples": 3, "method": tl.integrated_gradients, "steps": 4},
    ),
    "noisegrad": (tl.noisegrad, {"weight_samples": 4}),
    "fusiongrad": (tl.fusiongrad, {"sigma": 0.3, "samples": 3, "weight_samples": 4}),
    "smoothgrad of noisegrad": (
        tl.smoothgrad,
        {"sigma": 0.3, "samples": 3, "method": tl.noisegrad, "weight_samples": 2},
    ),
}


def close(a, b, tolerance=1e-12):
    assert torch.allclose(a, b.to(a), rtol=tolerance, atol=tolerance), (a - b).abs().max()


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_exact_for_a_linear_model(rule):
    weight, x, baseline = normal(3, 5), normal(4, 5, seed=1), normal(1, 5, seed=2)
    for steps in (1, 2, 3, 10, 50):
        a = tl.integrated_gradients(linear(weight), x, 2, baseline=baseline, steps=steps, rule=rule)
        close(a, weight[2] * (x - baseline))


def test_gradient_and_gradient_x_input_of_a_linear_model_are_weight_and_weight_times_x():
    weight, x = normal(3, 5), normal(4, 5, seed=1)
    target = torch.tensor([0, 2, 1, 2])
    close(tl.gradient(linear(weight), x, target), weight[target])
    close(tl.gradient_x_input(linear(weight), x, target), weight[target] * x)
    close(tl.smoothgrad(linear(weight), x, target, sigma=2.0), weight[target])


@pytest.mark.parametrize("rule", ["midpoint", "trapezoid", "gauss-legendre"])
def test_ig_of_a_quadratic_form_is_the_exact_half_sum(rule):
    # checks eq-ig-quadratic: A(x) = (x - b) * (grad f(x) + grad f(b)) / 2
    matrix, x, b = symmetric(5), normal(4, 5, seed=1), normal(1, 5, seed=2)
    a = tl.integrated_gradients(quadratic(matrix), x, 0, baseline=b, steps=9, rule=rule)
    close(a, (x - b) * ((x + b) @ matrix) / 2)


@pytest.mark.parametrize("rule, sign", [("right", 1), ("left", -1)])
def test_one_sided_rules_miss_a_quadratic_form_by_half_a_step_of_the_known_sign(rule, sign):
    matrix, x, steps = symmetric(5), normal(4, 5, seed=1), 10
    a = tl.integrated_gradients(quadratic(matrix), x, 0, steps=steps, rule=rule)
    close(a, x * (x @ matrix) / 2 * (1 + sign / steps))


def test_ig_sees_a_saturated_input_that_the_gradient_misses():
    x = torch.full((1, 1), 2.0, dtype=torch.float64)
    assert tl.gradient(saturating, x, 0).item() == 0
    a = tl.integrated_gradients(saturating, x, 0, rule="midpoint", steps=10)
    close(a, torch.ones(1, 1))  # f(2) - f(0) = 1


def test_gradient_x_input_jumps_at_a_kink_and_ig_does_not():
    below, above = (torch.full((1, 1), 10 + e, dtype=torch.float64) for e in (-1e-6, 1e-6))
    assert tl.gradient_x_input(hinge, below, 0).item() == 0
    close(tl.gradient_x_input(hinge, above, 0), torch.full((1, 1), 10.0), 1e-6)
    a = tl.integrated_gradients(hinge, above, 0, rule="midpoint", steps=200)
    assert a.item() < 1e-6


def test_gauss_legendre_with_50_points_is_complete_on_a_smooth_network():
    net, x = tanh_mlp(), normal(8, 6, seed=3)
    a = tl.integrated_gradients(net, x, 1, rule="gauss-legendre")
    gap = tl.metrics.completeness_gap(net, x, 1, a)
    assert gap.abs().max() < 1e-13


def test_completeness_gap_is_the_sum_minus_the_change_of_the_score():
    net, x, b = tanh_mlp(), normal(4, 6, seed=3), normal(1, 6, seed=4)
    a = normal(4, 6, seed=5)
    change = net(x)[:, 2] - net(b.expand_as(x))[:, 2]
    close(tl.metrics.completeness_gap(net, x, 2, a, b), a.sum(1) - change.detach())


@pytest.mark.slow
def test_noise_baselines_average_over_uniform_draws_within_the_bounds():
    # x'Ax/2, A = diag(d): A_i = d_i (x_i^2 - b_i^2) / 2, and E b^2 = (u^3 - l^3) / (3(u - l)).
    d, x = torch.tensor([1.0, -2.0, 3.0]).double(), normal(2, 3, seed=1)
    low, high, n = -1.0, 2.0, 4000
    a = tl.integrated_gradients(
        quadratic(torch.diag(d)),
        x,
        0,
        baseline="noise",
        baselines=n,
        steps=1,
        rule="midpoint",
        bounds=(low, high),
    )
    second = (high**3 - low**3) / (3 * (high - low))
    error = (a - d * (x**2 - second) / 2).abs()
    spread = d.abs() / 2 * math.sqrt((high**5 - low**5) / (5 * (high - low)) - second**2)
    assert bool((error < 4 * spread / math.sqrt(n)).all())


@pytest.mark.slow
def test_smoothgrad_is_the_gradient_of_the_gaussian_blurred_score():
    # For f = x^3: E (x + s e)^3 = x^3 + 3 x s^2, so the smoothed gradient is 3 x^2 + 3 s^2.
    x, sigma, n = torch.tensor([[0.5], [2.0]]).double(), 0.7, 20000
    a = tl.smoothgrad(lambda z: z**3, x, 0, sigma=sigma, samples=n)
    spread = torch.sqrt(36 * x**2 * sigma**2 + 18 * sigma**4)
    assert bool(((a - 3 * x**2 - 3 * sigma**2).abs() < 4 * spread / n**0.5).all())


def test_smoothgrad_without_noise_is_its_method():
    net, x = tanh_mlp(), normal(3, 6)
    for method, keywords in [(tl.gradient, {}), (tl.integrated_gradients, {"steps": 5})]:
        smooth = tl.smoothgrad(net, x, 0, sigma=0.0, samples=4, method=method, **keywords)
        close(smooth, method(net, x, 0, **keywords))


def test_smoothgrad_of_ig_equals_the_naive_loop_on_the_same_draws():
    net, x = tanh_mlp(), normal(3, 6)
    noise = torch.Generator().manual_seed(5)
    naive = torch.zeros_like(x)
    for _ in range(6):
        noisy = x + 0.4 * torch.randn(6, generator=noise, dtype=torch.float64)
        naive += tl.integrated_gradients(net, noisy, 1, steps=8, rule="midpoint") / 6
    keywords = {"steps": 8, "rule": "midpoint"}
    a = tl.smoothgrad(
        net, x, 1, sigma=0.4, samples=6, method=tl.integrated_gradients, seed=5, **keywords
    )
    close(a, naive)


def test_smoothgrad_smooths_any_function_of_the_form_of_an_attribution():
    def squared(model, x, target, *, power):
        return tl.gradient(model, x, target) ** power

    net, x = tanh_mlp(), normal(3, 6)
    a = tl.smoothgrad(net, x, 1, sigma=0.2, samples=5, method=squared, power=2, batch_size=4)
    b = tl.smoothgrad(net, x, 1, sigma=0.2, samples=5, method=squared, power=2, batch_size=1)
    close(a, b)
    assert bool((a >= 0).all()) and bool((a > 0).any())


@pytest.mark.slow
def test_inner_noise_repeats_neither_the_outer_noise_nor_itself():
    # One left step looks at its start b and weighs by x - b: both noises can be read off.
    x, n = torch.zeros(1, 4, dtype=torch.float64), 500
    inner = partial(tl.probes.path, baseline="noise", bounds=(-1.0, 1.0), steps=1, rule="left")
    seen = tl.probes.gaussian(x, sigma=1.0, samples=n, inner=inner)
    b = seen.points()[:, 0]
    noisy = torch.cat([block.weights for block in seen]) + b
    assert len(b.unique(dim=0)) == n
    both = torch.corrcoef(torch.stack([noisy.flatten(), b.flatten()]))
    assert abs(both[0, 1]) < 4 / math.sqrt(b.numel())


def test_a_partial_is_smoothed_like_the_method_that_it_holds():
    net, x = tanh_mlp(), normal(2, 6)
    keywords = dict(baseline="noise", bounds=(-1.0, 1.0), steps=3, baselines=2)
    own = partial(tl.integrated_gradients, **keywords)
    a = tl.smoothgrad(net, x, 0, sigma=0.3, samples=4, method=own)
    b = tl.smoothgrad(net, x, 0, sigma=0.3, samples=4, method=tl.integrated_gradients, **keywords)
    assert torch.equal(a, b)


@pytest.mark.slow
def test_smoothing_twice_adds_the_variances():
    # Gradient of x^3 smoothed with s and t: 3 x^2 + 3 (s^2 + t^2). Shared draws would double them.
    x, n = torch.zeros(1, 1, dtype=torch.float64), 400
    twice = partial(tl.smoothgrad, sigma=0.5, samples=20)
    a = tl.smoothgrad(lambda z: z**3, x, 0, sigma=0.5, samples=n, method=twice)
    assert abs(a.item() - 3 * (0.25 + 0.25)) < 4 * math.sqrt(18 * 0.25) / math.sqrt(n)


@settings(deadline=None, max_examples=25)
@given(
    steps=st.integers(1, 40),
    rule=st.sampled_from(RULES),
    seed=st.integers(0, 1000),
    scale=st.floats(-3, 3),
)
@pytest.mark.slow
def test_ig_is_linear_in_the_model(steps, rule, seed, scale):
    f, g, x = tanh_mlp(seed=seed), tanh_mlp(seed=seed + 1), normal(2, 6, seed=seed)
    keywords = {"steps": steps, "rule": rule}
    mixed = tl.integrated_gradients(lambda z: f(z) + scale * g(z), x, 0, **keywords)
    parts = [tl.integrated_gradients(m, x, 0, **keywords) for m in (f, g)]
    close(mixed, parts[0] + scale * parts[1], 1e-10)


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_gives_the_maps_of_its_pictures_one_at_a_time(name):
    method, keywords = METHODS[name]
    net, x, target = tanh_mlp(), normal(4, 6), torch.tensor([0, 1, 2, 0])
    batch = method(net, x, target, **keywords)
    single = torch.cat([method(net, x[i : i + 1], int(target[i]), **keywords) for i in range(4)])
    close(batch, single)


@pytest.mark.parametrize("name", METHODS)
def test_the_result_depends_on_the_seed_only_where_there_is_noise(name):
    method, keywords = METHODS[name]
    net, x = tanh_mlp(), normal(2, 6)
    first, again, other = (method(net, x, 0, seed=s, **keywords) for s in (1, 1, 2))
    assert torch.equal(first, again)
    still = "gradient gradient_x_input integrated_gradients idgi guided_integrated_gradients"
    assert torch.equal(first, other) == (name in still.split())
