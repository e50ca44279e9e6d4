"""Noise: AdaptGrad's sigma, inherent noise, units, against the papers' figures."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import tutorial_lib as tl
from tests.closed_forms import normal

RANGE = (-2.12, 2.64)
SPAN = RANGE[1] - RANGE[0]


def erfinv(p):
    return float(torch.erfinv(torch.tensor(p, dtype=torch.float64)))


def uniform_over_the_range(n=200_000):
    """Midpoints: their mean is the integral over the range to many digits."""
    return RANGE[0] + SPAN * (torch.arange(n, dtype=torch.float64)[:, None] + 0.5) / n


def test_adaptive_sigma_is_equation_13_in_every_entry():
    x = normal(4, 3, 5, 5).clamp(-2, 2)
    for c in (0.5, 0.9, 0.95, 0.999):
        wanted = torch.minimum((x + 2.5).abs(), (x - 2.1).abs()) / (
            math.sqrt(2) * erfinv((1 + c) / 2)
        )
        assert torch.allclose(tl.adaptive_sigma(x, (-2.5, 2.1), c), wanted, rtol=1e-12)


def test_the_divisor_is_the_papers_and_twice_c_minus_one_gives_the_programs():
    x = torch.ones(1, 1, dtype=torch.float64)
    assert 1 / float(tl.adaptive_sigma(x, (0.0, 9.0))) == pytest.approx(2.24140, abs=5e-6)
    assert 1 / float(tl.adaptive_sigma(x, (0.0, 9.0), 2 * 0.95 - 1)) == pytest.approx(
        1.95996, abs=5e-6
    )


def test_bounds_of_each_channel_are_used():
    x = torch.zeros(1, 3, 2, 2, dtype=torch.float64)
    lower, upper = tl.noise.IMAGENET_BOUNDS
    sigma = tl.adaptive_sigma(x, (lower, upper))
    nearer = torch.minimum(-lower, upper).double().expand_as(x)
    assert torch.allclose(sigma, nearer / 2.2414027, rtol=1e-6)
    assert len(sigma.unique()) == 3


def test_inherent_noise_reproduces_the_papers_figures_to_four_digits():
    # Uniform x on [-2.12, 2.64]; the paper prints 0.1596 and, for AdaptGrad, 0.01424.
    x = uniform_over_the_range()
    smooth = tl.inherent_noise(x, 0.2 * SPAN, RANGE).mean()
    assert float(smooth) == pytest.approx(0.159577, abs=5e-7)
    for confidence, figure in ((0.95, 0.0133526), (0.9, 0.0270671)):  # Eq. 13; the program
        sigma = tl.adaptive_sigma(x, RANGE, confidence)
        assert float(tl.inherent_noise(x, sigma, RANGE).mean()) == pytest.approx(figure, abs=5e-7)


def test_the_mean_inherent_noise_of_smoothgrad_has_its_own_closed_form():
    # 1 - erf(1 / (a sqrt 2)) + a sqrt(2 / pi) (1 - exp(-1 / (2 a^2))) for sigma = a * range.
    for a in (0.05, 0.2, 0.7):
        form = 1 - math.erf(1 / (a * math.sqrt(2)))
        form += a * math.sqrt(2 / math.pi) * (1 - math.exp(-1 / (2 * a**2)))
        mean = float(tl.inherent_noise(uniform_over_the_range(), a * SPAN, RANGE).mean())
        assert mean == pytest.approx(form, abs=1e-9)


def test_inherent_noise_is_the_share_of_draws_out_of_range():
    x = torch.tensor([-2.12, -1.0, 0.3, 2.5], dtype=torch.float64)
    n = 100_000
    draws = x + 0.8 * torch.randn(n, 4, generator=torch.Generator().manual_seed(0)).double()
    share = ((draws < RANGE[0]) | (draws > RANGE[1])).double().mean(0)
    p = tl.inherent_noise(x, 0.8, RANGE)
    assert bool(((share - p).abs() < 4.5 * (p * (1 - p) / n).sqrt()).all())


def test_inherent_noise_without_noise_is_zero_inside_half_is_for_the_bound_with_noise():
    x = torch.tensor([-2.12, 0.0, 2.64, 2.65], dtype=torch.float64)
    assert tl.inherent_noise(x, 0.0, RANGE).tolist() == [0, 0, 0, 1]
    assert tl.inherent_noise(x, 1e-9, RANGE).tolist() == [0.5, 0, 0.5, 1]
    assert 0 < float(tl.inherent_noise(x[1:2], 0.2, RANGE)) < 1e-20  # no cancellation


@settings(deadline=None, max_examples=50)
@given(st.floats(0.01, 0.99), st.floats(0, 1))
@pytest.mark.slow
def test_adaptgrad_keeps_half_of_the_promise_and_the_program_keeps_it_exactly(c, place):
    # The nearer bound takes (1 - c) / 4 and the other at most as much: (1 - c) / 2 in all.
    x = torch.tensor([[RANGE[0] + place * SPAN]], dtype=torch.float64)
    x = x.clamp(*RANGE)
    p = float(tl.inherent_noise(x, tl.adaptive_sigma(x, RANGE, c), RANGE))
    assert p <= (1 - c) / 2 + 1e-9
    if c > 0.5:
        p = float(tl.inherent_noise(x, tl.adaptive_sigma(x, RANGE, 2 * c - 1), RANGE))
        assert p <= 1 - c + 1e-9


def test_a_pixel_on_a_bound_gets_no_noise_and_rounding_is_forgiven():
    x = torch.tensor([[-2.12, 2.64, 2.64, -2.12]])
    x[0, 2], x[0, 3] = x[0, 2].nextafter(torch.tensor(9.0)), x[0, 3].nextafter(torch.tensor(-9.0))
    assert x[0, 2] > 2.64 and x[0, 3] < -2.12
    sigma = tl.adaptive_sigma(x, RANGE)
    assert sigma.tolist() == [[0, 0, 0, 0]]
    a = tl.adaptgrad(lambda z: z**2, x, 1, bounds=RANGE)
    assert bool(a.isfinite().all()) and float(a[0, 1]) == pytest.approx(2 * 2.64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_an_input_beyond_the_bounds_is_refused_with_the_distance(dtype):
    x = torch.tensor([[0.0, 3.0, -2.5]], dtype=dtype)
    with pytest.raises(ValueError, match=r"x: .*2 of 3 outside, the farthest by 0\.3[78]"):
        tl.adaptgrad(lambda z: z**2, x, 1, bounds=RANGE)


def test_bounds_are_tight_in_half_precision():
    x = torch.tensor([[-2.2]], dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="1 of 1 outside"):
        tl.adaptive_sigma(x, RANGE)


def test_levels_take_bounds_of_several_forms_and_refuse_bad_numbers():
    assert tl.sigma_from_level(0.1, (torch.tensor([[0]]), torch.tensor([[2.64]]))) == pytest.approx(
        0.264
    )
    assert tl.sigma_from_level(0.5, (0.0, torch.ones(1, 3, 1, 1))) == 0.5
    for bad in (-0.1, float("nan"), "a"):
        with pytest.raises((ValueError, TypeError), match="level"):
            tl.sigma_from_level(bad, RANGE)
        with pytest.raises((ValueError, TypeError), match="sigma"):
            tl.level_from_sigma(bad, RANGE)


@pytest.mark.slow
def test_real_preprocessed_pictures_lie_within_the_bounds_of_their_network():
    model = tl.load_model(device="cpu")
    x = model.preprocess([tl.load_image(name) for name in tl.list_images()])
    assert bool(tl.adaptive_sigma(x, model.bounds).isfinite().all())


def test_the_papers_sigmas_convert_to_another_normalisation():
    assert tl.level_from_sigma(0.5, tl.noise.IMAGENET_BOUNDS) == pytest.approx(0.105, abs=1e-4)
    level = tl.level_from_sigma(0.5, tl.noise.IMAGENET_BOUNDS)
    assert tl.sigma_from_level(level, (0.0, 1.0)) == pytest.approx(level)
    low, high = tl.noise.IMAGENET_BOUNDS
    assert low.flatten().tolist() == pytest.approx([-2.118, -2.036, -1.804], abs=1e-3)
    assert high.flatten().tolist() == pytest.approx([2.249, 2.429, 2.640], abs=1e-3)


def test_complex_weights_get_real_factors():
    net = nn.Module()
    net.weight = nn.Parameter(torch.randn(4, dtype=torch.cfloat))
    factor = tl.noise.reweighted(net.eval(), sigma=0.5, seed=0).weight / net.weight
    assert factor.real.std() > 0.1 and factor.imag.abs().max() < 1e-6
