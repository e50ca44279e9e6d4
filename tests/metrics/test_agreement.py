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


def test_correlation_with_a_constant_map_is_nan_and_not_rounding():
    maps = torch.cat([torch.full((1, 1000), 0.1), normal(1, 1000)]).double()
    r = tl.correlation(maps, normal(2, 1000, seed=1))
    assert bool(r[0].isnan()) and abs(r[1]) < 0.2


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


def test_rank_correlation_of_a_constant_map_is_nan():
    r = tl.metrics.rank_correlation(
        torch.stack([torch.ones(50), normal(50).float()]), normal(2, 50)
    )
    assert r.isnan().tolist() == [True, False]


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


@pytest.mark.parametrize(
    "name, a, b",
    [
        ("a", None, normal(2, 3)),
        ("a", normal(3), normal(3)),
        ("b", normal(2, 3), [1.0]),
        ("b", normal(2, 3), normal(2, 4)),
    ],
)
def test_bad_input_is_refused_by_an_error_that_names_the_argument(name, a, b):
    for measure in (tl.metrics.correlation, tl.metrics.rank_correlation):
        with pytest.raises((ValueError, TypeError), match=rf"^{name}: "):
            measure(a, b)
