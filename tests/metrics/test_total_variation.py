"""Total variation against its definition, skimage's pyramid and known maps."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import simpson
from skimage.transform import pyramid_gaussian

import tutorial_lib as tl
from tests.closed_forms import normal

SIZES = [(224, 224), (30, 30), (45, 31), (101, 64), (97, 150)]


def shown(heatmap):
    """The saliency map of one heatmap in numpy, from its definition."""
    size = np.abs(heatmap)
    size = np.minimum(size, np.percentile(size, 99))
    return (size - size.min()) / (size.max() - size.min())


def levels(picture, min_size=30, downscale=1.5):
    for level in pyramid_gaussian(picture, downscale=downscale, max_layer=20):
        if min(level.shape) < min_size:
            return
        yield level


def slow_tv(s):
    h, w = s.shape
    across = sum(abs(s[i, j] - s[i, j + 1]) for i in range(h) for j in range(w - 1))
    down = sum(abs(s[i, j] - s[i + 1, j]) for i in range(h - 1) for j in range(w))
    return (across + down) / (h * w)


def test_total_variation_is_its_definition():
    s = normal(3, 7, 9).abs()
    wanted = [slow_tv(one.numpy()) for one in s]
    assert tl.metrics.average_total_variation(s).tolist() == pytest.approx(wanted, rel=1e-12)


def test_total_variation_of_known_maps():
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    board = ((rows + columns) % 2).double()
    ramp = columns.double() / 7
    values = tl.metrics.average_total_variation(torch.stack([board, ramp, torch.ones(8, 8)]))
    assert values.tolist() == pytest.approx([2 * 7 * 8 / 64, 8 / 64, 0])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.slow
def test_the_pyramid_is_skimages_in_both_orders(size, dtype, tolerance):
    heatmap = normal(2, *size, seed=sum(size))
    for order in ("paper", "code"):
        values = tl.metrics.multiscale_total_variation(heatmap.to(dtype), order=order)
        for one, row in zip(heatmap.numpy(), values, strict=True):
            if order == "paper":
                wanted = [slow_tv(level) for level in levels(shown(one))]
            else:
                wanted = [slow_tv(shown(level)) for level in levels(one)]
            assert row.tolist() == pytest.approx(wanted, rel=tolerance)


@pytest.mark.parametrize("downscale", [1.3, 2.0, 3.0])
def test_other_factors_follow_skimage_as_well(downscale):
    heatmap = normal(1, 90, 77)
    values = tl.metrics.multiscale_total_variation(heatmap, downscale, 12)[0]
    wanted = [slow_tv(level) for level in levels(shown(heatmap[0].numpy()), 12, downscale)]
    assert values.tolist() == pytest.approx(wanted, rel=1e-10)


def test_a_map_of_224_has_six_levels_and_one_of_30_a_single_one():
    assert tl.metrics.multiscale_total_variation(normal(1, 224, 224)).shape == (1, 6)
    assert tl.metrics.multiscale_total_variation(normal(1, 30, 40)).shape == (1, 1)


def test_autvc_is_scipys_simpson_over_the_levels():
    heatmap = normal(3, 160, 120)
    for order in ("paper", "code"):
        curve = tl.metrics.multiscale_total_variation(heatmap, order=order)
        wanted = simpson(curve.numpy(), dx=1.0, axis=1)
        assert tl.metrics.autvc(heatmap, order=order).tolist() == pytest.approx(wanted.tolist())


def test_the_orders_differ_as_the_authors_numbers_do():
    # White noise: blurred before the absolute value it stays rough at every level.
    heatmap = normal(2, 224, 224)
    paper, code = (tl.metrics.autvc(heatmap, order=order) for order in ("paper", "code"))
    assert bool((code > 2.5 * paper).all())


def test_blurring_lowers_the_total_variation_of_a_map():
    rough = normal(1, 64, 64)
    smooth = torch.nn.functional.avg_pool2d(rough[None], 5, 1, 2)[0]
    assert float(tl.metrics.autvc(smooth)) < float(tl.metrics.autvc(rough))


def test_constant_maps_have_no_variation_at_any_scale():
    maps = torch.stack([torch.zeros(64, 64), torch.full((64, 64), -3.0)])
    for order in ("paper", "code"):
        assert float(tl.metrics.autvc(maps[:1], order=order).abs()) == 0
    assert float(tl.metrics.autvc(maps[1:]).abs()) == 0


def test_maps_of_a_batch_do_not_meet():
    maps = normal(3, 64, 64) * torch.tensor([1.0, 1e-6, 1e6])[:, None, None]
    single = torch.cat([tl.metrics.autvc(m[None]) for m in maps])
    assert torch.allclose(tl.metrics.autvc(maps), single, rtol=1e-12)


GOOD = normal(1, 40, 40)


@pytest.mark.parametrize(
    "name, given",
    [
        ("heatmap", dict(heatmap=GOOD[0])),
        ("heatmap", dict(heatmap=GOOD * math.nan)),
        ("heatmap", dict(heatmap=GOOD.long())),
        ("heatmap", dict(heatmap=GOOD[:0])),
        ("heatmap", dict(heatmap=GOOD[:, :29])),
        ("heatmap", dict(heatmap=None)),
        ("downscale", dict(downscale=1.0)),
        ("downscale", dict(downscale="1.5")),
        ("min_size", dict(min_size=0)),
        ("order", dict(order="theirs")),
    ],
)
def test_bad_input_is_refused_by_an_error_that_names_the_argument(name, given):
    with pytest.raises((ValueError, TypeError), match=rf"(^|\W){name}\W"):
        tl.metrics.autvc(**{"heatmap": GOOD, **given})
