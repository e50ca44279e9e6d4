"""Information curves: filling, sizes, and the curve against a slow version of its definition."""

import io
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.interpolate import LinearNDInterpolator
from torch import nn

import tutorial_lib as tl
from tests.closed_forms import normal
from tutorial_lib.metrics import information

BOUNDS = (0.0, 1.0)


class Brightness(nn.Module):
    """Two scores that move apart with the contrast of the picture's left half."""

    def forward(self, x):
        left = x[..., : x.shape[-1] // 2]
        score = 20 * left.flatten(1).std(1)
        return torch.stack([score, torch.full_like(score, 3.5)], 1)


MODEL = Brightness().eval()


def picture(seed=0, h=24, w=20):
    """A picture that compresses well when blurred: noise on the left, a ramp on the right."""
    x = torch.linspace(0, 1, w).expand(1, 3, h, w).clone()
    x[..., : w // 2] = normal(1, 3, h, w // 2, seed=seed).float().sigmoid()
    return (x * 255).round() / 255


def test_filling_leaves_known_pixels_and_is_linear_between_them():
    rows, columns = np.mgrid[0:9, 0:13]
    plane = np.stack([10 * rows + columns, 5 * columns, 200 - 3 * rows], 2).astype(np.uint8)
    known = np.zeros((9, 13), dtype=bool)
    known[4, 6] = True
    assert (information.fill(plane, known) == plane).all()  # the corners and a plane: exact
    random = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    filled = information.fill(random, known)
    assert (filled[4, 6] == random[4, 6]).all() and (filled[0, 0] == random[0, 0]).all()
    known[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    slow = LinearNDInterpolator(np.argwhere(known), random[known].astype(float))
    assert (filled[~known] == np.round(slow(np.argwhere(~known)))).all()


@pytest.mark.slow
def test_threads_change_the_number_of_blas_threads_one_after_another():
    second_is_inside = threading.Event()

    def second():
        with information._one_blas_thread():
            second_is_inside.set()

    caller = threading.Thread(target=second)
    with information._one_blas_thread():
        caller.start()
        assert not second_is_inside.wait(0.5)
    caller.join()
    assert second_is_inside.is_set()


def test_nothing_is_left_to_fill_where_all_is_known():
    random = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    assert (information.fill(random, np.ones((5, 6), dtype=bool)) == random).all()


def test_information_is_the_size_of_a_lossless_webp():
    flat, noise = np.zeros((32, 32, 3), np.uint8), np.random.default_rng(0).integers(
        0, 256, (32, 32, 3), dtype=np.uint8
    )  # fmt: skip
    assert information.size(flat) < information.size(noise)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format="webp", lossless=True, quality=100)
    assert information.size(noise) == len(buffer.getvalue())
    assert (np.asarray(Image.open(buffer)) == noise).all()


def slow_curve(x, saliency, known, thresholds, kind="sic", points=1001):
    pixels = (x[0].permute(1, 2, 0) * 255).round().byte().numpy()

    def performance(stage):
        scores = MODEL(torch.from_numpy(stage).permute(2, 0, 1)[None].float() / 255)[0]
        return float(scores.softmax(0)[0]) if kind == "sic" else float(scores.argmax() == 0)

    blurred = information.fill(pixels, known)
    low, high = information.size(blurred), information.size(pixels)
    worst, best = performance(blurred), performance(pixels)
    places, top = [], 0.0
    for t in thresholds:
        stage = information.fill(pixels, known | (saliency >= np.quantile(saliency, 1 - t)))
        share = np.clip((information.size(stage) - low) / (high - low), 0, 1)
        top = max(top, np.clip((performance(stage) - worst) / (best - worst), 0, 1))
        places.append((share, top))
    places = sorted([*places, (0.0, 0.0), (1.0, 1.0)], key=lambda place: place[0])
    curve = np.interp(np.linspace(0, 1, points), *zip(*places, strict=True))
    return curve


@pytest.mark.parametrize("kind", ["sic", "aic"])
@pytest.mark.slow
def test_the_curve_is_its_definition_for_every_batch_size(kind):
    x = torch.cat([picture(0), picture(1)])
    saliency = normal(2, 24, 20, seed=3)
    known = torch.rand(24, 20, generator=torch.Generator().manual_seed(0)) < 0.05
    thresholds = (0.1, 0.3, 0.6)
    own = dict(bounds=BOUNDS, kind=kind, thresholds=thresholds, mask=known)
    for batch_size in (1, 3, None):
        result = tl.metrics.information_curve(MODEL, x, 0, saliency, batch_size=batch_size, **own)
        for i in range(2):
            wanted = slow_curve(x[i : i + 1], saliency[i].numpy(), known.numpy(), thresholds, kind)
            assert result.performance[i].numpy() == pytest.approx(wanted, abs=1e-6)
            assert float(result.auc[i]) == pytest.approx(
                np.mean(wanted[1:] + wanted[:-1]) / 2, abs=1e-6
            )


def test_performance_may_only_grow_and_points_are_joined_by_lines():
    # Stages at 0, 1/4, 1/2 and 1 of the information, the third worse than the second.
    curve = information._curve([100, 150, 200, 300], np.array([0.1, 0.9, 0.5, 1.1]), points=9)
    assert curve == pytest.approx([0, 0.4, 0.8, 0.8, 0.8, 0.85, 0.9, 0.95, 1.0])


@pytest.mark.slow
def test_the_pixels_that_matter_give_a_larger_area():
    # Noise everywhere, of which the score sees the left half: half of the information is enough.
    x = (normal(1, 3, 24, 20, seed=4).float().sigmoid() * 255).round() / 255
    left = torch.zeros(1, 24, 20)
    left[..., :10] = torch.rand(24, 10, generator=torch.Generator().manual_seed(0)) + 1
    own = dict(bounds=BOUNDS, thresholds=(0.1, 0.2, 0.3, 0.4, 0.5))
    good, bad = (tl.metrics.information_curve(MODEL, x, 0, s, **own).auc for s in (left, -left))
    assert float(good) > float(bad) + 0.15


@pytest.mark.slow
def test_other_bounds_describe_the_same_picture():
    x, saliency = picture(), normal(1, 24, 20)
    moved = nn.Sequential(Scale(), MODEL).eval()
    a = tl.metrics.information_curve(MODEL, x, 0, saliency, bounds=BOUNDS)
    b = tl.metrics.information_curve(moved, 4 * x - 2, 0, saliency, bounds=(-2.0, 2.0))
    assert torch.allclose(a.performance, b.performance, atol=1e-5)


class Scale(nn.Module):
    def forward(self, x):
        return (x + 2) / 4


def test_pictures_without_anything_to_gain_are_named_before_a_map_costs_anything(monkeypatch):
    flat = torch.full((1, 3, 24, 20), 0.5)
    x, calls = torch.cat([flat, picture(), flat]), []
    filled = information._filled

    def counted(pixels, known):
        calls.append(bool(known.all()))
        return filled(pixels, known)

    monkeypatch.setattr(information, "_filled", counted)
    with pytest.raises(ValueError, match=r"^x: .*blurred.* \[0, 2\] of 3: leave them out"):
        tl.metrics.information_curve(MODEL, x, 0, normal(3, 24, 20), bounds=BOUNDS)
    # Two different pictures, blurred and as they are; nothing is revealed.
    assert sorted(calls) == [False, False, True, True]


@pytest.mark.parametrize("target", [0, 1])
def test_a_picture_never_or_always_recognised_has_no_curve_of_right_answers(target):
    def second(z):  # the second class, blurred or not
        return MODEL(z) + torch.tensor([0.0, 99.0])

    with pytest.raises(ValueError, match=r"^x: .* \[0\] of 1"):
        tl.metrics.information_curve(second, X, target, MAP, bounds=BOUNDS, kind="aic")


@pytest.mark.parametrize("kind", ["sic", "aic"])
@pytest.mark.parametrize("where", ["picture", "revealed"])
def test_scores_that_are_nan_are_refused_and_end_in_no_curve(kind, where):
    x = torch.cat([picture(1), X])

    def broken(z):  # the second picture, whole or with some pixels revealed
        whole = (z - X).flatten(1).abs().amax(1) < 1e-6
        bad = whole if where == "picture" else torch.full((len(z),), len(z) == 4)
        return torch.where(bad[:, None], torch.nan, MODEL(z))

    own = dict(bounds=BOUNDS, kind=kind, thresholds=(0.5, 0.9))  # 4 rows, and 2 of the ends
    number = 1 if where == "picture" else 0
    with tl.skip_model_check(), pytest.raises(ValueError, match=rf"^model: .*picture {number}"):
        tl.metrics.information_curve(broken, x, 0, normal(2, 24, 20), **own)


@pytest.mark.slow
def test_the_mask_depends_on_the_seed_and_is_shared_by_maps_of_a_picture():
    x, saliency = picture(), normal(1, 24, 20)
    same = [
        tl.metrics.information_curve(
            MODEL, x, 0, saliency, bounds=BOUNDS, seed=s, fraction=0.05
        ).auc
        for s in (1, 1, 2)
    ]
    assert float(same[0]) == float(same[1]) != float(same[2])


X, MAP = picture(), normal(1, 24, 20)


@pytest.mark.parametrize(
    "name, given",
    [
        ("saliency", dict(saliency=MAP[:, :5])),
        ("saliency", dict(saliency=MAP * float("nan"))),
        ("saliency", dict(x=X[:, :2])),
        ("kind", dict(kind="SIC")),
        ("thresholds", dict(thresholds=(0.5, 1.5))),
        ("thresholds", dict(thresholds=())),
        ("fraction", dict(fraction=2)),
        ("mask", dict(mask=torch.ones(3, 3, dtype=torch.bool))),
        ("mask", dict(mask=MAP[0])),
        ("bounds", dict(bounds=None)),
        ("points", dict(points=1)),
        ("target", dict(target=5)),
        ("seed", dict(seed=-1)),
    ],
)
def test_bad_input_is_refused_by_an_error_that_names_the_argument(name, given):
    arguments = {"x": X, "target": 0, "saliency": MAP, "bounds": BOUNDS, **given}
    x, target, saliency = (arguments.pop(k) for k in ("x", "target", "saliency"))
    with pytest.raises((ValueError, TypeError), match=rf"(^|\W){name}\W"):
        tl.metrics.information_curve(MODEL, x, target, saliency, **arguments)
