"""The Gini index against its definition and known cases."""

import pytest
import torch

import tutorial_lib as tl
from tests.closed_forms import normal


def test_gini_is_half_the_mean_absolute_difference_over_the_mean():
    a = normal(3, 4, 5)
    size = a.abs().flatten(1)
    pairs = (size[:, :, None] - size[:, None, :]).abs().mean((1, 2))
    assert torch.allclose(tl.metrics.gini(a), pairs / (2 * size.mean(1)), rtol=1e-12)


def test_gini_of_equal_entries_is_zero_and_of_a_single_one_the_most():
    a = torch.zeros(2, 10)
    a[0], a[1, 3] = -2.0, 5.0
    assert tl.metrics.gini(a).tolist() == pytest.approx([0, 0.9])


def test_gini_does_not_see_scale_sign_or_order():
    a = normal(2, 50)
    shuffled = a[:, torch.randperm(50, generator=torch.Generator().manual_seed(0))]
    for same in (1e-6 * a, -a, shuffled):
        assert torch.allclose(tl.metrics.gini(same), tl.metrics.gini(a), rtol=1e-9)


def test_gini_of_normal_numbers_is_known():
    # For |N(0, 1)|: sqrt(2) - 1.
    assert float(tl.metrics.gini(normal(1, 200_000))) == pytest.approx(2**0.5 - 1, abs=2e-3)


@pytest.mark.parametrize("bad, wanted", [(0.0, "0 everywhere"), (torch.nan, "finite")])
def test_maps_without_a_distribution_are_named_and_get_no_gini_index(bad, wanted):
    a = normal(4, 6)
    a[0], a[2] = bad, bad
    with pytest.raises(ValueError, match=rf"^attribution: .*{wanted}.* \[0, 2\] of 4: leave them"):
        tl.metrics.gini(a)
    assert bool((tl.metrics.gini(a[1::2]) > 0).all())


@pytest.mark.parametrize("bad", [None, torch.ones(3, 4).long(), torch.ones(4), torch.ones(0, 4)])
def test_gini_refuses_what_is_not_a_batch_of_maps(bad):
    with pytest.raises((TypeError, ValueError), match="attribution"):
        tl.metrics.gini(bad)
