"""Occlusion: by hand, by a slow loop and beside captum; its windows; and its errors."""

from contextlib import nullcontext
from itertools import product

import captum.attr as peer
import pytest
import torch
from torch import nn

import tutorial_lib as tl
from tests.closed_forms import Call, close, linear, normal, tanh_mlp
from tutorial_lib.cam.covered_windows import covered

NET, X = tanh_mlp(), normal(3, 6)
TARGET = torch.tensor([2, 0, 1])


def convnet():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 6 * 5, 3)]
    return nn.Sequential(*layers).double().eval()


PICTURES = normal(2, 3, 8, 7)


# --- By hand ---


def test_of_a_linear_score_it_is_the_mean_part_of_the_windows_that_cover_an_entry():
    """Windows of 2 at 0, 1, 2, and w x = (1, 4, 9, 16): falls 5, 13, 25."""
    w, x = torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    assert tl.occlusion(linear(w), x, 0, window=2, stride=1).tolist() == [[5, 9, 19, 25]]


def test_single_entries_of_a_linear_score_have_their_own_part_for_any_baseline():
    w, b = normal(3, 6, seed=1), normal(1, 6, seed=2)
    found = tl.occlusion(linear(w), X, TARGET, window=1, baseline=b)
    assert close(found, w[TARGET] * (X - b))


def test_one_window_over_all_is_the_difference_to_the_baseline_everywhere():
    found = tl.occlusion(NET, X, TARGET, window=6, baseline=0.5)
    fall = (NET(X) - NET(torch.full_like(X, 0.5))).detach().gather(1, TARGET[:, None])
    assert close(found, fall.expand(3, 6))


def test_a_window_cut_off_at_the_end_counts_in_full():
    """Windows of 3 at 0, 2 and 4 of six entries: the last one covers two."""
    x = torch.tensor([[1.0, 1.0, 1.0, 1.0, 1.0, 10.0]])
    found = tl.occlusion(linear(torch.ones(1, 6)), x, 0, window=3, stride=2)
    assert found.tolist() == [[3, 3, 3, 3, (3 + 11) / 2, 11]]


def test_of_side_by_side_windows_the_entries_of_each_sum_to_its_size_times_its_fall():
    f = lambda z: (z[:, :3].sum(1) * z[:, 3:].prod(1))[:, None]  # noqa: E731
    x = torch.tensor([[1.0, 2.0, 3.0, 2.0, 2.0, 2.0]])
    assert tl.occlusion(f, x, 0, window=3).tolist() == [[48] * 6]  # either half takes all


# --- A slow loop ---


def slowly(model, x, target, window, stride, baseline):
    """One window at a time, with a list of falls at every entry."""
    shape, result = x.shape[1:], torch.zeros_like(x)
    starts = []
    for length, size, step in zip(shape, window, stride, strict=True):
        places = [0]
        while places[-1] + size < length:
            places.append(places[-1] + step)
        starts.append(places)
    for n in range(len(x)):
        falls = {entry: [] for entry in product(*map(range, shape))}
        for corner in product(*starts):
            z = x[n].clone()
            inside = [
                range(a, min(a + w, m)) for a, w, m in zip(corner, window, shape, strict=True)
            ]
            for entry in product(*inside):
                z[entry] = baseline
            fall = float((model(x[n : n + 1].clone()) - model(z[None]))[0, target[n]])
            for entry in product(*inside):
                falls[entry].append(fall)
        for entry, values in falls.items():
            result[n][entry] = sum(values) / len(values)
    return result


WINDOWS = [((3, 3, 3), (3, 2, 2)), ((1, 2, 7), (1, 2, 1)), ((2, 8, 4), (1, 5, 3))]


@pytest.mark.parametrize("window, stride", WINDOWS)
def test_it_is_what_a_loop_over_windows_and_entries_gives(window, stride):
    net, target = convnet(), torch.tensor([1, 2])
    with torch.no_grad():
        wanted = slowly(net, PICTURES, target, window, stride, 0.3)
    for size in (None, 1, 3, 100):
        call = dict(window=window, stride=stride, baseline=0.3, batch_size=size)
        found = tl.occlusion(net, PICTURES, target, **call)
        assert close(found, wanted)
        assert torch.equal(tl.occlusion(net, PICTURES, target, **call), found)
    assert close(tl.occlusion(net, PICTURES[1:], 2, **call), wanted[1:])


def test_any_number_of_dimensions_may_be_covered():
    x = normal(2, 2, 3, 2, 3)
    w = normal(1, *x.shape[1:], seed=1)
    for size in (1, (1, 1, 1, 1)):
        single = tl.occlusion(linear(w), x, 0, window=(1, 1, 1, 1), stride=size)
        assert close(single, x * w)
    with torch.no_grad():
        wanted = slowly(linear(w), x, [0, 0], (2, 2, 1, 3), (1, 1, 1, 1), 0.0)
    assert close(tl.occlusion(linear(w), x, 0, window=(2, 1, 3), stride=1), wanted)


# --- Windows ---


@pytest.mark.parametrize(
    "short, full",
    [
        (dict(window=4), dict(window=(3, 4, 4), stride=(3, 4, 4))),
        (dict(window=4, stride=2), dict(window=(3, 4, 4), stride=(3, 2, 2))),
        (dict(window=(4, 2)), dict(window=(3, 4, 2), stride=(1, 4, 2))),
        (dict(window=(2, 4, 2), stride=(2, 1)), dict(window=(2, 4, 2), stride=(2, 2, 1))),
        (dict(window=(7,)), dict(window=(3, 8, 7), stride=(9, 9, 9))),
        (dict(window=[4, 2]), dict(window=torch.Size([3, 4, 2]))),
    ],
)
def test_sizes_are_for_the_last_dimensions_and_a_number_leaves_channels_whole(short, full):
    net = convnet()
    assert torch.equal(
        tl.occlusion(net, PICTURES, 0, **short), tl.occlusion(net, PICTURES, 0, **full)
    )


def test_a_window_covers_a_rectangle_and_no_more():
    x = torch.ones(1, 2, 4, 5)
    points = covered(x, window=(2, 3), stride=(1, 2), baseline=0.0).points()
    assert points.shape == (6, 1, 2, 4, 5)  # 3 places down times 2 across
    fourth = torch.ones(2, 4, 5)
    fourth[:, 1:3, 2:5] = 0  # rows 1 and 2, columns 2 to 4
    assert torch.equal(points[3, 0], fourth)


# --- captum ---


@pytest.mark.parametrize("window, stride", [*WINDOWS, ((3, 5, 5), (3, 1, 1)), ((3, 8, 7), 1)])
def test_captum_agrees_on_windows_and_averages(window, stride):
    net, target, b = convnet(), torch.tensor([1, 2]), normal(1, 3, 8, 7, seed=3)
    theirs = peer.Occlusion(net).attribute(
        PICTURES, window, strides=stride, target=target, baselines=b
    )
    ours = tl.occlusion(net, PICTURES, target, window=window, stride=stride, baseline=b)
    assert theirs.dtype == torch.float32 and ours.dtype == torch.float64  # captum rounds
    assert close(ours, theirs.double(), 1e-6)


@pytest.mark.slow
def test_captum_agrees_on_efficientnet():
    model = tl.load_model(device="cpu")
    x = model.preprocess(tl.load_image("chelsea"))
    theirs = peer.Occlusion(model).attribute(
        x, (3, 50, 40), strides=(3, 30, 40), target=285, perturbations_per_eval=4
    )
    ours = tl.occlusion(model, x, 285, window=(50, 40), stride=(30, 40))
    assert close(ours, theirs, 1e-5)


def test_captum_takes_steps_of_one_where_this_function_lays_windows_side_by_side():
    net = convnet()
    theirs = peer.Occlusion(net).attribute(PICTURES, (3, 4, 4), target=0).double()
    assert not close(tl.occlusion(net, PICTURES, 0, window=4), theirs, 1e-2)
    assert close(tl.occlusion(net, PICTURES, 0, window=4, stride=1), theirs, 1e-6)


# --- Models, dtypes, devices ---


@pytest.mark.parametrize("context", [nullcontext, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("frozen", [False, True], ids=["unfrozen", "frozen"])
def test_model_and_x_stay_and_gradients_may_be_switched_off(context, frozen):
    first = nn.ReLU(inplace=True)  # which writes into its input
    net, x = nn.Sequential(first, *convnet()).eval(), PICTURES.clone()
    net.requires_grad_(not frozen)
    wanted = tl.occlusion(net, x.clone(), 1, window=3)
    with context():
        found = tl.occlusion(net, x, 1, window=3)
    assert close(found, wanted) and torch.equal(x, PICTURES)
    assert not found.requires_grad and all(p.grad is None for p in net.parameters())


def test_a_network_that_has_no_gradient_is_explained():
    steps = lambda z: (z > 0).double().cumsum(1)  # noqa: E731
    x = torch.tensor([[1.0, -1.0, 2.0]]).double()
    assert tl.occlusion(steps, x, 2, window=1).tolist() == [[1, 0, 1]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_attribution_has_the_dtype_of_x(dtype):
    found = tl.occlusion(convnet().to(dtype), PICTURES.to(dtype), 1, window=3)
    wanted = tl.occlusion(convnet(), PICTURES, 1, window=3)
    assert found.dtype == dtype and close(found.double(), wanted, 50 * torch.finfo(dtype).eps)


def test_a_model_on_a_device_gives_the_attribution_there(device):
    found = tl.occlusion(convnet().to(device), PICTURES.to(device), 1, window=3)
    assert found.device.type == device
    assert close(found.cpu(), tl.occlusion(convnet(), PICTURES, 1, window=3))


def test_a_model_that_takes_one_number_of_rows_gets_each_input_in_its_own():
    gains = torch.tensor([1.0, -2.0, 3.0]).double()[:, None]
    found = tl.occlusion(lambda z: NET(z) * gains, X, TARGET, window=2, stride=1)
    free = tl.occlusion(NET, X, TARGET, window=2, stride=1)
    assert close(found, free * gains)


def test_it_can_be_smoothed_as_any_method():
    call = dict(sigma=0.1, samples=3, method=tl.occlusion, window=2)
    assert tl.smoothgrad(NET, X, TARGET, **call).shape == X.shape


# --- Errors ---


BAD = {
    "window too large": (
        dict(window=(9, 2)),
        ValueError,
        r"window: .*\(3, 8, 7\), got \(3, 9, 2\)",
    ),
    "a number too large": (dict(window=8), ValueError, r"window: .*\(3, 8, 7\), got \(3, 8, 8\)"),
    "window of four": (dict(window=(1, 1, 1, 1)), ValueError, "window: .*tuple of 1 to 3.*got 4"),
    "no window": (dict(window=()), ValueError, "window: .*tuple of 1 to 3.*got 0"),
    "window 0": (dict(window=0), ValueError, "window: expected an int from 1"),
    "window of a fraction": (dict(window=2.5), TypeError, "window: .*int or a tuple.*2.5"),
    "window with a fraction": (dict(window=(2, 2.5)), TypeError, "window: expected an int"),
    "window None": (dict(window=None), TypeError, "window: .*int or a tuple"),
    "window a bool": (dict(window=True), TypeError, "window: expected an int"),
    "stride 0": (dict(stride=0), ValueError, "stride: expected an int from 1"),
    "stride negative": (dict(stride=(1, -1)), ValueError, "stride: expected an int from 1"),
    "stride too large": (
        dict(stride=3),
        ValueError,
        r"stride: .*\(3, 2, 2\), got \(3, 3, 3\).*side",
    ),
    "stride of four": (dict(stride=(1, 1, 1, 1)), ValueError, "stride: .*1 to 3"),
    "stride a word": (dict(stride="half"), TypeError, "stride: .*int or a tuple"),
    "baseline a word": (dict(baseline="black"), TypeError, "baseline: expected a number"),
    "baseline of another shape": (
        dict(baseline=torch.zeros(8, 7)),
        ValueError,
        "baseline: .*shape",
    ),
    "target": (dict(target=3), ValueError, "target: .*below C = 3"),
    "seed": (dict(seed=-1), ValueError, "seed: "),
    "batch size": (dict(batch_size=0), ValueError, "batch_size: "),
    "training": (dict(model=nn.Dropout()), ValueError, "model: .*training mode"),
    "x of whole numbers": (dict(x=PICTURES.long()), TypeError, "x: "),
    "rows": (dict(model=lambda z: convnet()(z - z.mean(0))), ValueError, "scores of a row change"),
    "NaN": (dict(model=lambda z: convnet()(z) / 0 * 0), ValueError, "model: .*NaN or infinite"),
}


@pytest.mark.parametrize("given, error, message", BAD.values(), ids=BAD)
def test_bad_input_is_refused_by_name(given, error, message):
    arguments = dict(model=convnet(), x=PICTURES, target=0, window=2) | given
    with pytest.raises(error, match=message):
        tl.occlusion(**arguments)


def test_a_window_is_refused_before_the_model_runs():
    def never(z):
        raise AssertionError("the model ran")

    with pytest.raises(ValueError, match="window: "):
        tl.occlusion(Call(never).eval(), PICTURES, 0, window=9)


@pytest.mark.filterwarnings("error")
def test_a_small_probability_is_no_reason_to_warn():
    net = lambda z: torch.stack([-30 * z[:, 0], 0 * z[:, 0]], 1).softmax(1)  # noqa: E731
    found = tl.occlusion(net, torch.ones(1, 3), 0, window=1)
    assert torch.allclose(found, torch.tensor([[-0.5, 0.0, 0.0]]), atol=1e-6)
