"""XRAI: how regions are grown, by hand and by a slow loop; where they come from; PAIR's program."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import morphology, segmentation

import tutorial_lib as tl
from tests.closed_forms import close, linear, normal
from tutorial_lib.cam import region_growing
from tutorial_lib.cam.region_growing import grown, regions


def masks(*rows):
    """Regions of a picture of one row, from words such as "##..": (S, 1, W)."""
    return torch.tensor([[[c == "#" for c in row]] for row in rows])


def row(*values):
    return torch.tensor([values], dtype=torch.float64)


# --- By hand ---


def test_regions_side_by_side_have_their_means():
    found = grown(row(1, 3, 10, 20), masks("##..", "..##"))
    assert found.tolist() == [[2, 2, 15, 15]]


def test_the_region_with_the_larger_mean_comes_first_and_the_other_has_what_is_left():
    """First the right one, mean 7; then two cells are left of the left one, mean 1."""
    assert grown(row(0, 2, 4, 10), masks("###.", "..##")).tolist() == [[1, 1, 7, 7]]


def test_a_region_whose_poor_pixels_are_taken_by_another_comes_in_above_it():
    """Means 4, 3: the first takes 9 and -1; then 7 is left of the second, above the first's 4."""
    assert grown(row(9, -1, 7), masks("##.", ".##")).tolist() == [[4, 4, 7]]


def test_a_region_inside_another_comes_first_where_it_is_better_and_brings_nothing_where_not():
    nested = masks("####", ".##.")
    assert grown(row(0, 6, 4, 2), nested).tolist() == [[1, 5, 5, 1]]
    assert grown(row(6, 0, 2, 4), nested).tolist() == [[3, 3, 3, 3]]  # the outer one takes all


def test_negative_means_and_zeros_are_ordered_as_numbers():
    assert grown(row(-5, -1, 0), masks("#..", ".##")).tolist() == [[-5, -0.5, -0.5]]


# --- A slow loop ---


def slowly(a, regions_of_pixels):
    """Algorithm 1 with sets of pixels, and the mean of what each step adds."""
    left = [set(map(tuple, region.nonzero().tolist())) for region in regions_of_pixels]
    covered, result = set(), torch.zeros_like(a)
    while any(region - covered for region in left):
        gains = [
            float(np.mean([float(a[p]) for p in region - covered])) if region - covered else -np.inf
            for region in left
        ]
        new = left[int(np.argmax(gains))] - covered
        for pixel in new:
            result[pixel] = max(gains)
        covered |= new
    return result


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(1, 5), st.integers(1, 6))
@pytest.mark.slow
def test_it_is_what_a_loop_over_sets_of_pixels_gives(seed, count, height, width):
    rng = torch.Generator().manual_seed(seed)
    a = torch.randn(height, width, generator=rng, dtype=torch.float64)
    some = torch.rand(count, height, width, generator=rng) < 0.5
    some[0] |= ~some.any(0)  # together they cover the picture
    found = grown(a, some)
    assert torch.allclose(found, slowly(a, some), rtol=1e-9, atol=1e-12)
    assert torch.allclose(found.sum(), a.sum(), atol=1e-9)


# --- Regions ---


def blocks(side=64):
    """Four flat squares with two channels."""
    x = torch.zeros(2, side, side, dtype=torch.float64)
    half = side // 2
    x[0, :half], x[1, :, :half] = 5.0, -3.0
    return x


@pytest.fixture(scope="module")
def squares():
    """The regions of four flat squares: each call of regions() takes a second or two."""
    return regions(blocks())


@pytest.mark.slow
def test_no_region_has_its_edge_inside_a_flat_square(squares):
    for down in (slice(0, 28), slice(36, 64)):
        for across in (slice(0, 28), slice(36, 64)):
            inner = squares[:, down, across].flatten(1)
            assert torch.equal(inner.all(1), inner.any(1))
            assert bool((inner.all(1) & ~squares.flatten(1).all(1)).any())  # and one is no whole


@pytest.mark.slow
def test_a_flat_picture_is_one_region():
    assert bool(regions(torch.full((3, 20, 30), 7.0).double()).all())


@pytest.mark.parametrize("size", [(28, 28), (64, 40)])
@pytest.mark.slow
def test_regions_of_pictures_of_any_size_cover_them(size):
    found = regions(normal(3, *size))
    assert found.shape[1:] == size and bool(found.any(0).all())


@pytest.mark.slow
def test_regions_do_not_change_with_the_range_of_the_picture(squares):
    assert torch.equal(regions(3 * blocks() + 7), squares)


@pytest.mark.slow
def test_regions_are_felzenszwalbs_at_six_scales_widened_by_a_disk():
    photograph = np.array(tl.load_image("chelsea").resize((224, 224)))
    picture = torch.from_numpy(photograph).movedim(2, 0).double()  # (3, 224, 224)
    low, high = picture.min(), picture.max()
    image = ((picture - low) / (high - low) * 2 - 1).permute(1, 2, 0).numpy()
    wanted = []
    for scale in (50, 100, 150, 250, 500, 1200):
        labels = segmentation.felzenszwalb(image, scale=scale, sigma=0.8, min_size=150)
        for label in range(labels.max() + 1):
            wanted.append(morphology.isotropic_dilation(labels == label, radius=5))
    assert np.array_equal(regions(picture).numpy(), np.stack(wanted))


# --- The method ---


def score(z):
    """f is linear, so Integrated Gradients is exact: w (x - b)."""
    return linear(normal(2, 2, 32, 32, seed=4))(z)


X = blocks(32)[None] + 0.1 * normal(2, 2, 32, 32, seed=5)


@pytest.fixture
def quick(monkeypatch):
    """Regions in no time: the four squares, and the one of what is positive."""

    def squares(picture):
        cells = torch.arange(2).repeat_interleave(16)
        found = [(cells[:, None] == i) & (cells == j) for i in (0, 1) for j in (0, 1)]
        return torch.stack([*found, picture[0] > 0])

    monkeypatch.setattr(region_growing, "regions", squares)
    return squares


@pytest.mark.slow
def test_the_regions_are_those_of_the_picture():
    a = normal(2, 2, 32, 32, seed=6)
    found = tl.xrai(score, X, 1, attribution=a)
    assert close(found, torch.stack([grown(a[n].amax(0), regions(X[n])) for n in range(2)]))


def test_the_attribution_is_the_mean_of_integrated_gradients_from_black_and_from_white(quick):
    w = normal(2, 2, 32, 32, seed=4)[1]
    ends = X.flatten(1).amin(1), X.flatten(1).amax(1)
    middle = ((ends[0] + ends[1]) / 2).view(-1, 1, 1, 1)
    a = (w * (X - middle)).amax(1)
    found = tl.xrai(score, X, 1, steps=2)
    assert close(found, torch.stack([grown(a[n], quick(X[n])) for n in range(2)]))
    assert torch.allclose(found.sum((1, 2)), a.sum((1, 2)))
    a = (w * (X - 0.5)).amax(1)
    assert close(
        tl.xrai(score, X, 1, steps=2, bounds=(-4.0, 5.0)), tl.xrai(score, X, 1, attribution=a)
    )


@pytest.mark.parametrize("channels", [True, False])
def test_a_given_attribution_is_grown_as_it_is_with_the_largest_of_its_channels(quick, channels):
    a = normal(2, 2, 32, 32, seed=6)
    given_map = a if channels else a.amax(1)
    found = tl.xrai(score, X, torch.tensor([0, 1]), attribution=given_map, bounds=None, steps=1)
    assert close(found, torch.stack([grown(a[n].amax(0), quick(X[n])) for n in range(2)]))
    assert torch.equal(tl.xrai(score, X[1:], 0, attribution=given_map[1:]), found[1:])


def test_passes_of_another_size_give_the_same_map_and_the_model_may_be_frozen(quick):
    torch.manual_seed(0)
    layers = [
        torch.nn.Conv2d(2, 3, 3),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(2700, 2),
    ]
    net = torch.nn.Sequential(*layers).double().eval().requires_grad_(False)
    found = tl.xrai(net, X, 1, steps=3)
    with torch.inference_mode():
        assert close(tl.xrai(net, X, 1, steps=3, batch_size=2), found)
    assert torch.equal(tl.xrai(net, X, 1, steps=3), found)
    assert close(tl.xrai(net, X[1:], 1, steps=3), found[1:])
    small = tl.xrai(net.float(), X.float(), 1, steps=3)
    assert small.dtype == torch.float32 and small.shape == (2, 32, 32)


BAD = {
    "x of three dimensions": (dict(x=X[0]), ValueError, r"x: .*\(B, C, H, W\)"),
    "attribution of another size": (
        dict(attribution=torch.ones(2, 16, 16)),
        ValueError,
        r"attribution: expected the shape of x, \(2, 2, 32, 32\), or that without the channels",
    ),
    "attribution of one picture": (dict(attribution=torch.ones(1, 32, 32)), ValueError, "attrib"),
    "attribution without a batch": (dict(attribution=torch.ones(32, 32)), ValueError, "attrib"),
    "attribution of other channels": (
        dict(attribution=torch.ones(2, 3, 32, 32)),
        ValueError,
        "attribution: ",
    ),
    "attribution a name": (dict(attribution="gradient"), TypeError, "attribution: "),
    "attribution a function": (dict(attribution=tl.gradient), TypeError, "attribution: "),
    "attribution complex": (dict(attribution=X.cfloat()), TypeError, "attribution: .*complex64"),
    "attribution complex, without channels": (
        dict(attribution=X[:, 0].cfloat()),
        TypeError,
        "attribution: .*complex64",
    ),
    "attribution NaN": (dict(attribution=X * float("nan")), ValueError, "attribution: .*finite"),
    "bounds": (dict(bounds=(1.0, 0.0)), ValueError, "bounds: "),
    "bounds a number": (dict(bounds=1.0), TypeError, "bounds: expected a pair"),
    "steps": (dict(steps=0), ValueError, "steps: "),
    "target": (dict(target=2), ValueError, "target: .*below C = 2"),
    "seed": (dict(seed=-1), ValueError, "seed: "),
    "batch size": (dict(batch_size=0), ValueError, "batch_size: "),
    "training": (dict(model=torch.nn.Dropout()), ValueError, "model: .*training mode"),
}


@pytest.mark.parametrize("given_wrong, error, message", BAD.values(), ids=BAD)
def test_bad_input_is_refused_by_name(given_wrong, error, message):
    with pytest.raises(error, match=message):
        tl.xrai(**dict(model=score, x=X, target=0) | given_wrong)


# --- PAIR's program ---


@pytest.fixture(scope="module")
def cat():
    """A picture, an attribution of it, and what PAIR's program makes of both."""
    peer = pytest.importorskip("saliency.core", reason="PAIR's saliency is a peer: pip install it")
    model = tl.load_model(device="cpu")
    x = model.preprocess(tl.load_image("chelsea"))
    a = tl.integrated_gradients(model, x, 285, steps=8)

    def theirs(kind, least):
        options = peer.XRAIParameters(algorithm=kind)
        options.experimental_params["min_pixel_diff"] = least
        image, base = (v[0].movedim(0, 2).double().numpy() for v in (x, a))
        call = dict(base_attribution=base, extra_parameters=options)
        return torch.from_numpy(peer.XRAI().GetMask(image, None, **call))[None]

    return theirs, tl.xrai(model, x, 285, attribution=a).double()


@pytest.mark.slow
def test_pair_agrees_in_full_where_it_drops_no_small_regions(cat):
    theirs, ours = cat
    assert close(ours, theirs("full", 1), 1e-6)


@pytest.mark.slow
def test_small_regions_that_pair_drops_matter_little_and_its_fast_variant_is_another_map(cat):
    theirs, ours = cat
    full, fast = (float(tl.correlation(ours, theirs(kind, 50))) for kind in ("full", "fast"))
    assert 0.97 < full < 1 - 1e-6 and fast < full
