"""Reliability and sampling until it is reached, on maps whose signal share is known."""

import math

import pytest
import torch

import tutorial_lib as tl
from tests.closed_forms import normal, tanh_mlp
from tutorial_lib.averaging.seeded_noise import child_seed

NET = tanh_mlp()
SIGNAL = normal(2, 20_000, seed=5)


def noisy_signal(model, x, target, *, seed, batch_size=None, progress=False, samples=1, spread=1.0):
    """A signal of variance 1 plus noise of variance spread^2 / samples."""
    rng = torch.Generator().manual_seed(seed)
    error = torch.randn(x.shape, generator=rng, dtype=torch.float64)
    return SIGNAL + spread / math.sqrt(samples) * error


@pytest.mark.parametrize("samples, spread", [(1, 1.0), (4, 1.0), (10, 3.0)])
def test_reliability_is_the_signals_share_of_the_variance(samples, spread):
    r = tl.reliability(NET, SIGNAL, 0, method=noisy_signal, samples=samples, spread=spread)
    assert r.shape == (2,)
    assert r.tolist() == pytest.approx([1 / (1 + spread**2 / samples)] * 2, abs=0.03)


def test_reliability_of_a_method_without_randomness_is_one():
    x = normal(3, 6)
    assert tl.reliability(NET, x, 0, method=tl.gradient).tolist() == pytest.approx([1] * 3)


@pytest.mark.slow
def test_reliability_grows_with_the_samples_of_a_real_method_as_spearman_and_brown_say():
    net, x = tanh_mlp(inputs=400), normal(1, 400)
    r = {
        n: torch.stack(
            [tl.reliability(net, x, 0, sigma=2.0, samples=n, seed=s)[0] for s in range(40)]
        ).mean()
        for n in (2, 8)
    }
    assert float(r[8]) == pytest.approx(float(4 * r[2] / (1 + 3 * r[2])), abs=0.05)
    assert 0.05 < float(r[2]) < float(r[8]) < 0.99


def test_the_view_decides_what_is_compared():
    def flip(model, x, target, *, seed, batch_size, progress):
        return SIGNAL * (-1) ** (seed % 2)

    r = {tl.reliability(NET, SIGNAL, 0, method=flip, seed=s)[0].item() for s in range(8)}
    assert {round(v) for v in r} == {-1, 1}
    size = tl.reliability(NET, SIGNAL, 0, method=flip, view=torch.abs, seed=1)
    assert size.tolist() == pytest.approx([1, 1])


def uneven(model, x, target, *, seed, batch_size=None):
    """Two pictures of unequal reliability: the second needs nine times the rounds."""
    return noisy_signal(model, x, target, seed=seed) + (
        torch.tensor([0.0, 2.0])[:, None] * normal(2, 20_000, seed=seed % 10**6)
    )


@pytest.mark.parametrize("wish", [dict(reliability=0.8), dict(standard_error=0.5)])
def test_sampling_goes_on_until_every_picture_is_good_enough(wish):
    result = tl.sample_until(NET, SIGNAL, 0, method=uneven, **wish)
    _, r, error = result.history[-1]
    assert bool((r >= wish.get("reliability", 0)).all())
    assert bool((error <= wish.get("standard_error", 9)).all())
    assert result.rounds >= 16


def test_the_view_decides_when_sampling_stops():
    # Magnitudes of this map repeat at once, its signs never.
    def flip(model, x, target, *, seed, batch_size):
        return SIGNAL * (-1) ** (seed % 2) + 0.01 * normal(2, 20_000, seed=seed % 10**6)

    result = tl.sample_until(NET, SIGNAL, 0, method=flip, reliability=0.99, view=torch.abs)
    blind = tl.sample_until(NET, SIGNAL, 0, method=flip, reliability=0.999, max_rounds=8)
    assert bool((result.reliability > 0.99).all())
    assert not torch.allclose(blind.reliability, result.reliability, atol=1e-3)


@pytest.mark.parametrize("bad", [None, SIGNAL[:1], SIGNAL[:, :5]])
def test_a_method_that_returns_another_shape_is_refused(bad):
    with pytest.raises(ValueError, match="method: expected it to return shape"):
        tl.sample_until(NET, SIGNAL, 0, method=lambda *a, **k: bad, reliability=0.5)


def test_sampling_stops_at_the_wanted_reliability_with_honest_figures():
    # K rounds of unit noise: reliability K / (K + spread^2).
    spread, wanted = 3.0, 0.8
    result = tl.sample_until(NET, SIGNAL, 0, method=noisy_signal, spread=spread, reliability=wanted)
    assert abs(result.rounds - 36) <= 2  # 36 / (36 + 9) = 0.8
    assert bool((result.reliability >= wanted).all())
    truth = [
        float(tl.correlation(result.attribution[i : i + 1], SIGNAL[i : i + 1])) ** 2 for i in (0, 1)
    ]
    assert result.reliability.tolist() == pytest.approx(truth, abs=0.02)
    error = (result.attribution - SIGNAL).square().mean().sqrt()
    assert float(result.standard_error.square().mean().sqrt()) == pytest.approx(
        float(error), rel=0.05
    )
    assert [n for n, _, _ in result.history] == list(range(2, result.rounds + 1, 2))


def test_sampling_stops_at_the_wanted_standard_error():
    result = tl.sample_until(NET, SIGNAL, 0, method=noisy_signal, standard_error=0.25)
    assert abs(result.rounds - 16) <= 2
    assert float(result.history[-1][2].max()) <= 0.25 < float(result.history[-2][2].max())


def test_both_wishes_are_met_and_max_rounds_ends_it_in_any_case():
    both = dict(method=noisy_signal, reliability=0.5, standard_error=0.3)
    result = tl.sample_until(NET, SIGNAL, 0, **both)
    assert result.rounds >= 12
    short = tl.sample_until(NET, SIGNAL, 0, max_rounds=5, **both)
    assert short.rounds == 4 and float(short.history[-1][2].max()) > 0.3


def test_the_mean_of_the_rounds_and_its_error_are_the_textbooks():
    x = normal(2, 6)
    result = tl.sample_until(NET, x, 1, sigma=0.4, samples=3, reliability=0.9999999, max_rounds=6)
    maps = [tl.smoothgrad(NET, x, 1, sigma=0.4, samples=3, seed=child_seed(0, k)) for k in range(6)]
    maps = torch.stack(maps)
    assert result.rounds == 6 and torch.allclose(result.attribution, maps.mean(0), rtol=1e-12)
    assert torch.allclose(result.standard_error, maps.std(0) / math.sqrt(6), rtol=1e-9)
    r = tl.correlation(maps[::2].mean(0), maps[1::2].mean(0))
    assert torch.allclose(result.reliability, 2 * r / (1 + r))


def test_a_method_without_randomness_is_done_after_two_rounds():
    result = tl.sample_until(NET, normal(2, 6), 0, method=tl.gradient, reliability=0.99)
    assert result.rounds == 2 and float(result.standard_error.abs().max()) == 0


@pytest.mark.parametrize("bad", [0.0, 3.0, math.nan, math.inf])
def test_pictures_whose_map_cannot_repeat_are_named_after_two_maps(bad):
    calls = []

    def method(*arguments, **keywords):
        calls.append(1)
        found = noisy_signal(*arguments, **keywords)
        found[1] = bad
        return found

    with pytest.raises(ValueError, match=r"^method: .* \[1\] of 2: leave them out"):
        tl.reliability(NET, SIGNAL, 0, method=method)
    for wish in (dict(reliability=0.5), dict(standard_error=0.5)):
        calls.clear()
        with pytest.raises(ValueError, match=r"^method: .* \[1\] of 2: leave them out"):
            tl.sample_until(NET, SIGNAL, 0, method=method, **wish)
        assert len(calls) == 2


def test_a_view_that_is_no_function_is_named():
    with pytest.raises(
        TypeError, match=r"^view: expected a function such as tl\.heatmap, got 'map'"
    ):
        tl.reliability(NET, SIGNAL, 0, method=noisy_signal, view="map")


def test_a_view_that_is_constant_is_named():
    with pytest.raises(ValueError, match=r"^view: .* \[0, 1\] of 2"):
        tl.reliability(NET, SIGNAL, 0, method=noisy_signal, view=torch.zeros_like)


def test_maps_that_change_sign_with_every_round_are_never_called_reliable():
    # Where rounding took r below -1, 2 r / (1 + r) was huge and positive.
    for seed in range(20):
        x, signs = normal(1, 50, seed=seed), [1, -1] * 2

        def flip(model, x, target, *, seed, batch_size, signs=signs):
            return x * signs.pop()

        found = tl.sample_until(NET, x, 0, method=flip, reliability=0.5, max_rounds=4)
        assert found.rounds == 4 and float(found.reliability) < 0


def test_an_interrupt_returns_the_rounds_so_far():
    calls = []

    def stopped(*arguments, **keywords):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return noisy_signal(*arguments, **keywords)

    with pytest.warns(RuntimeWarning, match="interrupted after 5 rounds"):
        result = tl.sample_until(NET, SIGNAL, 0, method=stopped, reliability=0.999)
    assert result.rounds == 5


@pytest.mark.parametrize(
    "name, given",
    [
        ("reliability", {}),
        ("reliability", dict(reliability=1.0)),
        ("reliability", dict(reliability="high")),
        ("standard_error", dict(standard_error=0.0)),
        ("max_rounds", dict(reliability=0.5, max_rounds=1)),
        ("sigma", dict(reliability=0.5, sigma=-1.0)),
        ("seed", dict(reliability=0.5, seed=-1)),
        ("seed", dict(reliability=0.5, seed="a")),
    ],
)
def test_bad_input_is_refused_by_an_error_that_names_the_argument(name, given):
    with pytest.raises((ValueError, TypeError), match=rf"(^|\W){name}\W"):
        tl.sample_until(NET, normal(2, 6), 0, **{"sigma": 0.1, **given})
