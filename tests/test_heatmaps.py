"""Saliency maps against the definition written again with numpy."""

import numpy as np
import pytest
import torch

import tutorial_lib as tl
from tests.closed_forms import normal
from tutorial_lib.heatmaps import normalize


def test_the_saliency_map_is_abs_of_the_channel_sum_clipped_at_p99_and_stretched():
    a = normal(2, 3, 20, 30)
    for picture, ours in zip(a.numpy(), tl.saliency_map(a), strict=True):
        size = np.abs(picture.sum(0))
        size = np.minimum(size, np.percentile(size, 99))
        slow = (size - size.min()) / (size.max() - size.min())
        assert np.allclose(ours, slow, atol=1e-6)


def test_a_constant_map_is_zero_and_not_nan():
    assert torch.equal(tl.saliency_map(torch.ones(1, 3, 4, 4)), torch.zeros(1, 4, 4))


def test_the_heatmap_keeps_the_sign():
    a = normal(2, 3, 4, 4)
    assert torch.equal(tl.heatmap(a), a[:, 0] + a[:, 1] + a[:, 2])
    assert bool((tl.heatmap(a) < 0).any())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_pictures_with_nan_or_infinity_are_named_and_not_drawn(bad):
    a = normal(4, 3, 5, 5)
    a[1, 0, 2, 2] = a[3, 1, 0, 0] = bad
    for draw in (tl.heatmap, tl.saliency_map):
        with pytest.raises(ValueError, match=r"^attribution: .* \[1, 3\] of 4 .*leave them out"):
            draw(a)
    with pytest.raises(ValueError, match=r"^heatmap: .* \[1, 3\] of 4 .*leave them out"):
        normalize(a.sum(1))


@pytest.mark.parametrize("bad", [None, torch.ones(1, 4, 4).long(), torch.ones(4, 4)])
def test_a_heatmap_is_a_batch_of_floats(bad):
    with pytest.raises((TypeError, ValueError), match=r"^heatmap: "):
        normalize(bad)


def test_half_precision_attributions_have_finite_maps():
    attribution = torch.tensor([40000.0, 10000.0], dtype=torch.float16).expand(1, 3, 1, 2)
    assert tl.heatmap(attribution).tolist() == [[[120000.0, 29994.0 + 6]]]
    assert tl.saliency_map(attribution).tolist() == [[[1.0, 0.0]]]
