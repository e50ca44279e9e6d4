"""Pictures of several classes: tiling, shares in cells, differences between classes."""

import pytest
import torch
from torch import nn

import tutorial_lib as tl
from tests.closed_forms import normal
from tutorial_lib.heatmaps import normalize


class Quarters(nn.Module):
    """Score k is the sum of squares in quarter k of the picture."""

    def forward(self, x):
        h, w = (n // 2 for n in x.shape[2:])
        cells = x.square().unflatten(2, (2, h)).unflatten(4, (2, w))
        return cells.sum((1, 3, 5)).flatten(1)


MODEL = Quarters().eval()


def test_tiling_puts_the_pictures_row_by_row():
    x = normal(9, 2, 4, 5)
    tiled = tl.metrics.tile(x)
    assert tiled.shape == (1, 2, 12, 15)
    assert torch.equal(tiled[0, :, 4:8, 10:15], x[5]) and torch.equal(tiled[0, :, :4, 5:10], x[1])


def test_the_share_in_a_cell_counts_positive_attribution_only():
    maps = -torch.ones(2, 4, 6)
    maps[0, 2:, :3], maps[0, 0, 5] = 1.0, 6.0
    assert [float(tl.metrics.share_in_cell(maps[:1], k)) for k in range(4)] == [0, 0.5, 0.5, 0]
    with pytest.raises(ValueError, match=r"^maps: .*positive somewhere.* \[1\] of 2"):
        tl.metrics.share_in_cell(maps, 0)


def test_the_pointing_game_names_the_picture_for_whose_class_nothing_is_positive():
    def method(model, x, target):
        return x.abs() * (-1) ** (target == 2)

    with pytest.raises(ValueError, match=r"^method: .* \[2\] of 4: put in other pictures"):
        tl.metrics.grid_pointing_game(MODEL, normal(4, 3, 6, 6), torch.arange(4), method=method)


@pytest.mark.parametrize("name, channels", [("attribution", slice(3)), ("heatmap", 0)])
def test_a_map_of_nan_makes_no_difference_of_classes(name, channels):
    def method(model, x, target):
        return x[:, channels] * (torch.nan if target == 1 else 1)

    with pytest.raises(ValueError, match=rf"^{name}: .* \[0, 1\] of 2"):
        tl.metrics.class_difference(MODEL, normal(2, 3, 6, 6), 0, 1, method=method)


def test_a_model_that_looks_at_the_right_cell_wins_the_pointing_game():
    pictures, targets = normal(4, 3, 6, 6), torch.arange(4)
    own = dict(method=tl.gradient_x_input)
    assert tl.metrics.grid_pointing_game(MODEL, pictures, targets, **own).tolist() == [1] * 4
    wrong = tl.metrics.grid_pointing_game(MODEL, pictures, targets.flip(0), **own)
    assert wrong.tolist() == [0] * 4


def test_a_map_of_noise_is_at_chance():
    def noise(model, x, target, *, seed=0):
        return normal(*x.shape, seed=int(target))

    shares = tl.metrics.grid_pointing_game(
        MODEL, normal(4, 1, 60, 60), torch.arange(4), method=noise
    )
    assert shares.tolist() == pytest.approx([0.25] * 4, abs=0.02)


def test_the_difference_of_classes_is_that_of_their_saliency_maps():
    x = normal(2, 3, 6, 6)
    found = tl.metrics.class_difference(MODEL, x, 0, 3, method=tl.gradient)
    maps = [tl.saliency_map(tl.gradient(MODEL, x, c)) for c in (0, 3)]
    assert torch.equal(found, maps[0] - maps[1])
    same = tl.metrics.class_difference(MODEL, x, 1, 1, method=tl.gradient)
    assert float(same.abs().max()) == 0


def test_maps_without_channels_are_compared_as_they_are():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 36, 4)).eval()
    x = normal(1, 3, 6, 6).float()
    maps = [tl.grad_cam(net, x, c, layer="0") for c in (0, 3)]
    found = tl.metrics.class_difference(net, x, 0, 3, method=tl.grad_cam, layer="0")
    assert torch.equal(found, normalize(maps[0]) - normalize(maps[1]))
    quarters = x.expand(4, -1, -1, -1)[:, :, :3, :3]
    game = dict(method=tl.grad_cam, layer="0")
    assert tl.metrics.grid_pointing_game(net, quarters, torch.arange(4), **game).shape == (4,)


@pytest.mark.parametrize(
    "name, call",
    [
        ("pictures", lambda: tl.metrics.tile(normal(3, 1, 4, 4))),
        ("pictures", lambda: tl.metrics.tile(normal(4, 4))),
        ("cell", lambda: tl.metrics.share_in_cell(normal(1, 4, 4), 4)),
        ("cell", lambda: tl.metrics.share_in_cell(normal(1, 4, 4), 0.5)),
        ("grid", lambda: tl.metrics.share_in_cell(normal(1, 4, 4), 0, grid=0)),
        (
            "attribution",
            lambda: tl.metrics.class_difference(
                MODEL, normal(1, 3, 4, 4), 0, 1, method=lambda *arguments: None
            ),
        ),
        ("maps", lambda: tl.metrics.share_in_cell(normal(1, 5, 4), 0)),
        ("maps", lambda: tl.metrics.share_in_cell(normal(4, 4), 0)),
        (
            "target",
            lambda: tl.metrics.grid_pointing_game(
                MODEL, normal(4, 1, 4, 4), torch.arange(3), method=tl.gradient
            ),
        ),
    ],
)
def test_bad_input_is_refused_by_an_error_that_names_the_argument(name, call):
    with pytest.raises((ValueError, TypeError), match=rf"(^|\W){name}\W"):
        call()
