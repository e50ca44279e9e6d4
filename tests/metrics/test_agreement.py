"""Correlations against their definitions, and the maps of related networks."""

import copy
from functools import partial

import pytest
import torch
from scipy.stats import spearmanr

import tutorial_lib as tl
from tests.closed_forms import normal, tanh_mlp


def test_correlation_is_pearsons_and_refuses_other_shapes():
    a, b = normal(3, 4, 5), normal(3, 4, 5, seed=1)
    wanted = [
        float(torch.corrcoef(torch.stack([a[i].flatten(), b[i].flatten()]))[0, 1]) for i in range(3)
    ]
    assert tl.correlation(a, b).tolist() == pytest.approx(wanted)
    with pytest.raises(ValueError, match="b: "):
        tl.correlation(a, b[:2])


@pytest.mark.parametrize("measure", [tl.correlation, tl.metrics.rank_correlation])
def test_constant_maps_are_named_and_give_neither_nan_nor_rounding(measure):
    maps, others = normal(3, 1000), normal(3, 1000, seed=1)
    maps[0], maps[2] = 0.1, 0.0
    for name, pair in {"a": (maps, others), "b": (others, maps)}.items():
        with pytest.raises(ValueError, match=rf"^{name}: .*not constant.* \[0, 2\] of 3: leave"):
            measure(*pair)
    assert abs(float(measure(maps[1:2], others[1:2]))) < 0.2


@pytest.mark.parametrize("measure", [tl.correlation, tl.metrics.rank_correlation])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_maps_with_nan_or_infinity_are_named_and_not_ranked(measure, bad):
    maps = normal(3, 4, 4)
    maps[1, 0, 2] = bad
    with pytest.raises(ValueError, match=r"^b: expected finite maps.* \[1\] of 3"):
        measure(normal(3, 4, 4), maps)


def test_magnitudes_that_are_constant_are_refused_where_magnitudes_are_ranked():
    signs, b = normal(2, 50, seed=1).sign(), normal(2, 50)
    assert abs(float(tl.metrics.rank_correlation(signs, b)[0])) < 0.5
    with pytest.raises(ValueError, match=r"^a: .* \[0, 1\] of 2"):
        tl.metrics.rank_correlation(signs, b, absolute=True)


def test_correlation_does_not_see_scale_and_stays_within_one():
    a, b = normal(50, 7), normal(50, 7, seed=1)
    for scale in (1e-200, 1e200):
        assert torch.allclose(tl.correlation(a * scale, b * scale), tl.correlation(a, b))
    assert float(tl.correlation(a, -a).min()) >= -1 and float(tl.correlation(a, a).max()) <= 1


def test_rank_correlation_is_scipys_with_and_without_ties():
    rng = torch.Generator().manual_seed(0)
    smooth, tied = normal(3, 4, 50), torch.randint(-3, 4, (3, 4, 50), generator=rng).double()
    for a, b in ((smooth, normal(3, 4, 50, seed=1)), (smooth, tied), (tied, tied.roll(1, -1))):
        for absolute in (False, True):
            pairs = [(v.abs() if absolute else v).flatten(1).numpy() for v in (a, b)]
            wanted = [spearmanr(u, v).statistic for u, v in zip(*pairs, strict=True)]
            found = tl.metrics.rank_correlation(a, b, absolute=absolute)
            assert found.tolist() == pytest.approx(wanted, abs=1e-12)


def test_rank_correlation_sees_order_only():
    a = normal(2, 300)
    assert tl.metrics.rank_correlation(a, a.exp()).tolist() == pytest.approx([1, 1])
    assert tl.metrics.rank_correlation(a, -(a**3)).tolist() == pytest.approx([-1, -1])
    assert tl.metrics.rank_correlation(a, -a, absolute=True).tolist() == pytest.approx([1, 1])


def test_a_network_is_consistent_with_itself_and_not_with_another():
    net, other, x = tanh_mlp(inputs=200), tanh_mlp(inputs=200, seed=1), normal(4, 200)
    same = tl.metrics.consistency(net, net, x, 1, method=tl.gradient)
    assert same.tolist() == pytest.approx([1] * 4)
    r = tl.metrics.consistency(net, other, x, 1, method=tl.smoothgrad, sigma=0.1, samples=3)
    assert float(r.abs().max()) < 0.35


def shifted_twin(net, shift):
    """The same function of x + shift: the first bias takes the shift back."""
    twin = copy.deepcopy(net)
    twin[0].bias.data -= twin[0].weight.data.sum(1) * shift
    return twin


def test_invariance_holds_for_the_gradient_and_fails_for_gradient_times_input():
    net, x = tanh_mlp(inputs=50), normal(3, 50).clamp(-2, 2)
    twin = shifted_twin(net, 2.0)
    check = partial(tl.metrics.invariance, net, twin, x, 1, shift=2.0)
    assert check(method=tl.gradient).tolist() == pytest.approx([1] * 3)
    assert float(check(method=tl.gradient_x_input).max()) < 0.9
    own = dict(bounds=(-2.0, 2.0), samples=4)
    moved = check(method=tl.adaptgrad, shifted=dict(bounds=(0.0, 4.0)), **own)
    assert moved.tolist() == pytest.approx([1] * 3, abs=1e-9)
    with pytest.raises(ValueError, match=r"x: .*outside"):
        check(method=tl.adaptgrad, **own)  # the bounds must move with the inputs


def test_a_network_whose_map_is_constant_is_named_with_its_pictures():
    net, dead, good, x = *(tanh_mlp(seed=k) for k in range(3)), normal(3, 6)
    x[1] = 0  # where gradient x input is 0

    def method(model, x, target):
        if model is net:
            return tl.gradient_x_input(model, x, target)
        return torch.zeros_like(x) if model is dead else normal(*x.shape)

    def moved(a, b):
        return tl.metrics.invariance(a, b, x, 1, shift=1.0, method=method)

    def same(a, b):
        return tl.metrics.consistency(a, b, x, 1, method=method)

    for measure, other in ((same, "other"), (moved, "shifted_model")):
        with pytest.raises(ValueError, match=r"^model: .* \[1\] of 3"):
            measure(net, net)
        with pytest.raises(ValueError, match=rf"^{other}: .* \[0, 1, 2\] of 3"):
            measure(good, dead)


@pytest.mark.parametrize(
    "name, a, b",
    [
        ("a", None, normal(2, 3)),
        ("a", normal(3), normal(3)),
        ("a", normal(2, 0), normal(2, 0)),
        ("b", normal(2, 3), [1.0]),
        ("b", normal(2, 3), normal(2, 4)),
    ],
)
def test_bad_input_is_refused_by_an_error_that_names_the_argument(name, a, b):
    for measure in (tl.metrics.correlation, tl.metrics.rank_correlation):
        with pytest.raises((ValueError, TypeError), match=rf"^{name}: "):
            measure(a, b)
