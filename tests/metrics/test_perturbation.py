"""Salient windows and the perturbation curve against slow definitions and known scores."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import tutorial_lib as tl
from tests.closed_forms import normal

BOUNDS = (-1.0, 2.0)


def slow_regions(heatmap, size, count):
    """The definition: rank all windows, take the best that overlaps none taken before."""
    h, w = heatmap.shape
    sums = {
        (r, c): float(heatmap[r : r + size, c : c + size].double().abs().sum())
        for r in range(h - size + 1)
        for c in range(w - size + 1)
    }
    taken = []
    for r, c in sorted(sums, key=lambda place: (-sums[place], place)):
        if all(abs(r - a) >= size or abs(c - b) >= size for a, b in taken):
            taken.append((r, c))
    return taken[:count]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(8, 20), st.integers(8, 20))
@pytest.mark.slow
def test_windows_are_those_of_the_slow_definition_ties_included(seed, size, h, w):
    rng = torch.Generator().manual_seed(seed)
    heatmap = torch.randint(-2, 3, (2, h, w), generator=rng).float()  # full of ties
    wanted = [slow_regions(one, size, 3) for one in heatmap]
    count = min(len(one) for one in wanted)
    found = tl.metrics.salient_regions(heatmap, size, count)
    assert [[tuple(p) for p in one] for one in found.tolist()] == [w[:count] for w in wanted]


def test_windows_of_a_real_size_are_those_of_the_slow_definition():
    heatmap = normal(1, 60, 70)
    found = tl.metrics.salient_regions(heatmap, 15, 6)[0].tolist()
    assert [tuple(p) for p in found] == slow_regions(heatmap[0], 15, 6)


def test_the_last_row_and_column_of_windows_are_offered():
    heatmap = torch.zeros(1, 20, 30)
    heatmap[0, 19, 29] = 1
    assert tl.metrics.salient_regions(heatmap, 5, 1).tolist() == [[[15, 25]]]


def test_equal_windows_come_from_the_top_left():
    assert tl.metrics.salient_regions(torch.ones(1, 6, 9), 3, 6)[0].tolist() == [
        [0, 0], [0, 3], [0, 6], [3, 0], [3, 3], [3, 6],
    ]  # fmt: skip


def test_more_windows_than_fit_are_refused_with_the_number_that_fits():
    with pytest.raises(ValueError, match="count: only 6 windows of 3 x 3 fit"):
        tl.metrics.salient_regions(torch.ones(1, 6, 9), 3, 7)


class Mean(nn.Module):
    """Two scores: 3 + the mean of x, and 5."""

    def forward(self, x):
        first = 3 + x.flatten(1).mean(1)
        return torch.stack([first, torch.full_like(first, 5.0)], 1)


def curve(x, heatmap, target=0, **keywords):
    own = dict(bounds=BOUNDS, size=4, count=3, draws=7)
    return tl.metrics.perturbation_curve(Mean().eval(), x, target, heatmap, **{**own, **keywords})


def naive(x, heatmap, seed=0, size=4, count=3, draws=7):
    """The curve of `Mean` for one picture, score 0, from its definition."""
    rng = torch.Generator().manual_seed(seed)
    model, x = Mean(), x.clone()
    values = [float(model(x)[0, 0])]
    for r, c in slow_regions(heatmap[0], size, count):
        u = torch.rand(draws, x.shape[1], size, size, generator=rng).to(x)
        copies = x.repeat(draws, 1, 1, 1)
        copies[:, :, r : r + size, c : c + size] = BOUNDS[0] + (BOUNDS[1] - BOUNDS[0]) * u
        scores = model(copies)[:, 0]
        values.append(float(scores.mean()))
        x = copies[(scores - scores.median()).abs().argmin()][None]
    return torch.tensor(values) / values[0]


@pytest.mark.parametrize("batch_size", [1, 3, 5, 100, None])
def test_the_curve_is_its_definition_for_every_batch_size(batch_size):
    x, heatmap = normal(3, 2, 12, 14), normal(3, 12, 14, seed=1)
    found = curve(x, heatmap, batch_size=batch_size)
    assert found.shape == (3, 4) and found[:, 0].tolist() == [1, 1, 1]
    for i in range(3):
        assert found[i].tolist() == pytest.approx(naive(x[i : i + 1], heatmap[i : i + 1]).tolist())


def test_the_median_draw_stays_and_not_the_luckiest():
    # With draws of 1 there is no choice; with many, the picture keeps a middling one.
    x, heatmap = torch.full((1, 1, 8, 8), 2.0), torch.ones(1, 8, 8)
    model = Mean()
    many = tl.metrics.perturbation_curve(
        model.eval(), x, 0, heatmap, bounds=BOUNDS, size=4, count=4, draws=101
    )
    # Each window replaced takes a quarter of the way from the mean 2 to the mean 0.5.
    wanted = [(3 + 2 - 1.5 * k / 4) / 5 for k in range(5)]
    assert many[0].tolist() == pytest.approx(wanted, abs=0.02)


def test_even_draws_keep_the_first_of_the_two_next_to_the_median():
    x, heatmap = normal(1, 2, 12, 14), normal(1, 12, 14, seed=1)
    found = curve(x, heatmap, draws=4, count=2)
    rng = torch.Generator().manual_seed(0)
    (r, c), (a, b) = slow_regions(heatmap[0], 4, 2)
    fill = lambda: -1 + 3 * torch.rand(4, 2, 4, 4, generator=rng).to(x)  # noqa: E731
    copies = x.repeat(4, 1, 1, 1)
    copies[:, :, r : r + 4, c : c + 4] = fill()
    scores = Mean()(copies)[:, 0]
    middle = scores.sort().values[1:3].mean()
    kept = copies[(scores - middle).abs().argmin()].repeat(4, 1, 1, 1)
    kept[:, :, a : a + 4, b : b + 4] = fill()
    assert float(found[0, 2]) == pytest.approx(float(Mean()(kept)[:, 0].mean() / Mean()(x)[0, 0]))


def test_probabilities_are_an_option():
    x, heatmap = normal(1, 2, 12, 14), normal(1, 12, 14, seed=1)
    a, b = curve(x, heatmap), curve(x, heatmap, softmax=True)
    assert a.tolist() != b.tolist() and float(b[0, 0]) == 1


def test_aupc_is_scipys_simpson_over_the_curve():
    from scipy.integrate import simpson

    x, heatmap = normal(2, 2, 12, 14), normal(2, 12, 14, seed=1)
    own = dict(bounds=BOUNDS, size=4, count=3, draws=7)
    area = tl.metrics.aupc(Mean().eval(), x, 0, heatmap, **own)
    assert area.tolist() == pytest.approx(simpson(curve(x, heatmap).numpy(), dx=1.0).tolist())


def gain(x, heatmap, **keywords):
    own = dict(bounds=BOUNDS, size=4, count=3, draws=7)
    model = Mean().eval()
    return tl.metrics.symmetric_relevance_gain(model, x, 0, heatmap, **{**own, **keywords})


def test_the_gain_is_the_area_between_the_curves_of_both_orders():
    # Of magnitudes from 0 to 1, with both among them, the other order is that of 1 - map.
    x, heatmap = normal(2, 2, 12, 14), normal(2, 12, 14, seed=1)
    low, high = heatmap.amin((1, 2), keepdim=True), heatmap.amax((1, 2), keepdim=True)
    heatmap = (heatmap - low) / (high - low)
    own = dict(bounds=BOUNDS, size=4, count=3, draws=7)
    most, least = (tl.metrics.aupc(Mean().eval(), x, 0, h, **own) for h in (heatmap, 1 - heatmap))
    assert gain(x, heatmap).tolist() == pytest.approx((least - most).tolist())


def test_the_gain_orders_by_sign_and_a_negated_map_has_the_negative_gain():
    x, heatmap = normal(3, 2, 12, 14), normal(3, 12, 14, seed=1)
    found = gain(x, heatmap)
    assert torch.equal(gain(x, -heatmap), -found) and bool(found.any())
    moved = gain(x, 5 + 2 * heatmap)
    assert moved.tolist() == pytest.approx(found.tolist())


def test_the_gain_of_a_linear_model_with_its_own_terms_is_the_sum_of_their_differences():
    # Windows of one pixel are set to 0. The curves are 1 - (the k largest terms) / f, and
    # 1 - (the k smallest) / f; with two windows Simpson's rule weighs 1/3, 4/3, 1/3.
    x, weight = normal(2, 1, 4, 5).abs() + 1, normal(4, 5, seed=1).abs() + 1
    terms = weight * x[:, 0]
    options = dict(bounds=(0.0, 1e-12), size=1, count=2, draws=1)
    model = lambda z: (weight * z).flatten(1).sum(1, keepdim=True)  # noqa: E731
    found = tl.metrics.symmetric_relevance_gain(model, x, 0, terms, **options)
    order = terms.flatten(1).sort(1).values
    removed = (order.flip(1).cumsum(1) - order.cumsum(1))[:, :2]  # after 1 and 2 windows
    wanted = removed @ torch.tensor([4 / 3, 1 / 3], dtype=torch.float64) / terms.sum((1, 2))
    assert found.tolist() == pytest.approx(wanted.tolist(), rel=1e-9)


@pytest.mark.slow
def test_the_gain_of_random_maps_is_0_within_its_standard_error():
    x = normal(1, 1, 6, 6).repeat(300, 1, 1, 1).abs()
    maps = torch.rand(300, 6, 6, generator=torch.Generator().manual_seed(0))
    found = gain(x, maps, size=2, count=3, draws=2)
    error = float(found.std()) / 300**0.5
    assert abs(float(found.mean())) < 4.5 * error and error < 0.01


def test_the_given_picture_is_left_as_it_was():
    x, heatmap = normal(1, 2, 12, 14), normal(1, 12, 14, seed=1)
    before = x.clone()
    curve(x, heatmap)
    assert torch.equal(x, before)


def test_no_forward_pass_is_larger_than_batch_size_and_their_number_is_the_documented_one():
    rows = []

    class Watched(Mean):
        def forward(self, x):
            rows.append(len(x))
            return super().forward(x)

    x, heatmap = normal(2, 2, 12, 14), normal(2, 12, 14, seed=1)
    own = dict(bounds=BOUNDS, size=4, count=3, draws=7, batch_size=5)
    with tl.skip_model_check():
        tl.metrics.perturbation_curve(Watched().eval(), x, 0, heatmap, **own)
    assert max(rows) == 5 and sum(rows) == 2 * (3 * 7 + 1)


def test_pictures_without_a_score_to_divide_by_are_named_with_the_way_out():
    x = normal(3, 2, 12, 14)
    x[1] -= 4
    with pytest.raises(ValueError, match=r"^model: .*1e-06.* \[1\] of 3: .*softmax=True"):
        curve(x, normal(3, 12, 14))
    assert curve(x, normal(3, 12, 14), softmax=True).shape == (3, 4)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_scores_that_are_no_numbers_on_the_way_are_refused_and_do_not_stay_in_the_curve(bad):
    class Breaks(Mean):
        def forward(self, x):  # where noise has come into a picture that begins with 1
            broken = (x[:, 0, 0, 0] == 1) & (x.flatten(1).amin(1) < 0.9)
            return torch.where(broken[:, None], bad, super().forward(x))

    x, heatmap = torch.ones(3, 2, 12, 14), torch.zeros(3, 12, 14)
    x[0, 0, 0, 0], x[1:] = 0.95, 1
    heatmap[:, 6:, 6:] = 1
    own = dict(bounds=(0.0, 1.0), size=4, count=1, draws=7)
    with tl.skip_model_check(), pytest.raises(ValueError, match=r"^model: .* \[1, 2\] of 3"):
        tl.metrics.perturbation_curve(Breaks().eval(), x, 0, heatmap, **own)


X, MAP = normal(2, 2, 12, 14), normal(2, 12, 14, seed=1)


@pytest.mark.parametrize(
    "name, given",
    [
        ("heatmap", dict(heatmap=MAP[:1])),
        ("heatmap", dict(heatmap=X)),
        ("heatmap", dict(heatmap=MAP * float("inf"))),
        ("heatmap", dict(x=X[:, 0])),
        ("size", dict(size=13)),
        ("size", dict(size=0)),
        ("count", dict(count=0)),
        ("count", dict(count=50)),
        ("draws", dict(draws=0)),
        ("bounds", dict(bounds=(1.0, 0.0))),
        ("bounds", dict(bounds=None)),
        ("seed", dict(seed=-1)),
        ("target", dict(target=2)),
        ("batch_size", dict(batch_size=0)),
        ("model", dict(x=X - 4)),
    ],
)
def test_bad_input_is_refused_by_an_error_that_names_the_argument(name, given):
    arguments = {"x": X, "heatmap": MAP, **given}
    with pytest.raises((ValueError, TypeError), match=rf"(^|\W){name}\W"):
        curve(arguments.pop("x"), arguments.pop("heatmap"), **arguments)


def test_a_tensor_that_a_model_holds_stays_with_its_picture():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 3).double())
    x, held = normal(3, 1, 6, 6), torch.tensor([[1.0], [2.0], [3.0]]).double()
    options = dict(bounds=(-1.0, 1.0), size=2, count=3, draws=4, softmax=True)
    found = tl.metrics.perturbation_curve(lambda z: net(z) * held, x, 1, x[:, 0], **options)
    for k in range(3):
        one = lambda z, k=k: net(z) * held[k]  # noqa: E731
        alone = tl.metrics.perturbation_curve(one, x[k : k + 1], 1, x[k : k + 1, 0], **options)
        assert torch.allclose(found[k : k + 1], alone)
