"""The picture of the plane shows the network's own tiles, slopes and arrows."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

import tutorial_lib as tl
from tutorial_lib.show import plane_tiles as module

NETWORK = tl.toy.plane()
X = torch.tensor([[0.6, 0.35]], dtype=torch.float64)


def arrows(ax, colour=None) -> list[np.ndarray]:
    """Start and end of the arrows of a colour."""
    found = [p for p in ax.patches if hasattr(p, "_posA_posB")]
    if colour is not None:
        found = [p for p in found if to_hex(p.get_edgecolor()) == colour]
    return [np.array(p._posA_posB) for p in found]


@pytest.mark.slow
def test_an_arrow_is_the_gradient_to_scale_and_starts_at_its_point():
    points = torch.tensor([[0.0, 0.5], [-0.5, 0.2]]).double()
    slopes = tl.gradient(NETWORK, points, 0)
    look = dict(method="SmoothGrad", points=points, arrows=slopes, mean=slopes.mean(0))
    figure = tl.figures.tiles(NETWORK, X[0], look, slopes.mean(0), limit=1, ylabel="gradient")
    drawn = arrows(figure.axes[0], tl.plots.METHODS["smoothgrad"].lower())
    starts = np.concatenate([points, X])
    steps = np.concatenate([slopes, slopes.mean(0, keepdim=True)])
    assert np.allclose([start for start, _ in drawn], starts)
    assert np.allclose([end - start for start, end in drawn], module.ARROW * steps)


@pytest.mark.slow
def test_each_large_tile_has_the_arrow_of_its_own_gradient():
    figure = tl.figures.tile_strip(NETWORK, X[0], {"": dict(method="gradient")})
    drawn = arrows(figure.axes[0])
    assert len(drawn) > 10
    for start, end in drawn:
        middle = torch.from_numpy((start + end) / 2)[None]
        slope = tl.gradient(NETWORK, middle, 0)[0].numpy()
        assert np.allclose((end - start) / module.ARROW, slope)


@pytest.mark.slow
def test_the_lines_of_the_tangent_are_those_of_the_score_near_x():
    look = dict(method="gradient", tangent=True)
    figure = tl.figures.tile_strip(NETWORK, X[0], {"": look})
    score, tangent = figure.axes[0].collections[-2:]
    assert np.array_equal(score.levels, tangent.levels)
    slope = tl.gradient(NETWORK, X, 0)[0].numpy()
    height = float(NETWORK(X))
    for level, path in zip(tangent.levels, tangent.get_paths(), strict=True):
        for vertex in path.vertices[:1]:
            assert height + (vertex - X[0].numpy()) @ slope == pytest.approx(level, abs=1e-6)


@pytest.mark.slow
def test_the_path_the_box_and_the_place_of_x_are_drawn():
    looks = {
        "path": dict(method="integrated gradients", baseline=[-0.9, -0.9]),
        "box": dict(method="adaptgrad", box=(-1, 1), x=[0.0, 0.0]),
    }
    first, second = tl.figures.tile_strip(NETWORK, X[0], looks).axes
    assert [-0.9, 0.6] in [list(line.get_xdata()) for line in first.lines]
    assert second.lines[-1].get_xdata() == [0.0]
    box = next(p for p in second.patches if not hasattr(p, "_posA_posB"))
    assert (box.get_xy(), box.get_width(), box.get_height()) == ((-1, -1), 2, 2)


@pytest.mark.slow
def test_the_bars_are_the_map():
    figure = tl.figures.tiles(
        NETWORK, X[0], dict(method="lrp"), [0.4, -0.2], limit=1, ylabel="share", errors=[0.1, 0.1]
    )
    bars = figure.axes[1]
    assert [bar.get_height() for bar in bars.patches] == [0.4, -0.2]
    assert bars.get_ylim() == (-1, 1)
