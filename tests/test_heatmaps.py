"""Saliency maps against the definition written again with numpy."""

import numpy as np
import torch

import tutorial_lib as tl
from tests.closed_forms import normal


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
