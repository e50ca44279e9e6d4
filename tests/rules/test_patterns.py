"""PatternNet and PatternAttribution: closed forms, the same in loops, and what they refuse."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tutorial_lib as tl
from tests.closed_forms import close, normal
from tests.rules.test_backward import dense, normed, row

SIGNAL, DISTRACTOR, W = torch.tensor([[2.0, 1.0], [1.0, 1.0], [1.0, -1.0]]).double()
ESTIMATORS = ("two_component", "linear")
every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS)


def world(n=4000, seed=0):
    """Amounts y of the signal, and inputs with as much of the distractor, which W cancels."""
    y, other = normal(2, n, seed=seed)
    return y, y[:, None] * SIGNAL + other[:, None] * DISTRACTOR


def reader(*behind):
    """The unit that reads y, and what stands behind it."""
    return nn.Sequential(dense([W.tolist()]), *behind).eval()


# --- The loops ---


def slow_pattern(x, y, passes):
    """The pattern of one unit from its inputs (n, inputs), outputs and whether each passes."""
    mean_y = sum(float(v) for v in y) / len(y)
    q = torch.zeros(x.shape[1:]).double()
    for inputs, output, on in zip(x, y, passes, strict=True):
        if on:
            q += inputs * (output - mean_y)
    return q


def slow_patterns(weight, bias, x, rectified):
    """Patterns (units, ...) of a dense layer (units, inputs), or of patches (n, inputs) of one."""
    found = []
    for w, b in zip(weight, bias, strict=True):
        y = x @ w
        q = slow_pattern(x, y, [not rectified or v + b > 0 for v in y])
        found.append(q / (w @ q))
    return torch.stack(found)


# --- Closed forms ---


@every_estimator
def test_the_pattern_of_a_linear_unit_is_covariance_over_variance_and_the_weights_are_not(
    estimator,
):
    y, x = world()
    found = tl.fit_patterns(reader(), x, estimator=estimator)
    centred = x - x.mean(0)
    wanted = centred.T @ (y - y.mean()) / (y - y.mean()).square().sum()
    assert list(found) == ["0"] and close(found["0"][0], wanted)
    assert (found["0"][0] - SIGNAL).abs().max() < 4 / len(y) ** 0.5
    covariance = torch.cov(x.T)
    assert close(found["0"][0], covariance @ W / (W @ covariance @ W))


def test_a_constant_changes_the_linear_pattern_nowhere_and_the_other_by_who_passes():
    x = world()[1]
    for estimator, same in (("linear", True), ("two_component", False)):
        patterns = []
        for bias in (0.0, -1.0):
            net = nn.Sequential(dense([W.tolist()], [bias]), nn.ReLU(), dense([[1]])).eval()
            patterns.append(tl.fit_patterns(net, x, estimator=estimator)["0"])
        assert close(*patterns, 1e-9) == same


def test_at_one_unit_the_maps_are_the_signal_and_its_product_with_the_weights():
    patterns = {"0": SIGNAL[None]}
    point = (SIGNAL + DISTRACTOR)[None]  # (3, 2)
    assert torch.equal(tl.pattern_net(reader(), point, 0, patterns=patterns), row(2, 1))
    found = tl.pattern_attribution(reader(), point, 0, patterns=patterns)
    assert torch.equal(found, row(2, -1)) and torch.equal(found.sum(1), reader()(point)[:, 0])
    at_3 = 3 * SIGNAL[None] - 5 * DISTRACTOR
    assert torch.allclose(tl.pattern_net(reader(), at_3, 0, patterns=patterns), row(6, 3))


def test_a_unit_that_is_off_sends_nothing_back():
    net, point = reader(nn.ReLU(), dense([[2]])), -SIGNAL[None]
    patterns = {"0": SIGNAL[None], "2": row(0.5)}
    assert not tl.pattern_net(net, point, 0, patterns=patterns).any()


@every_estimator
def test_a_pattern_times_its_weights_sums_to_1(estimator):
    net, x = convnet(), normal(20, 2, 8, 8)
    for name, pattern in tl.fit_patterns(net, x, estimator=estimator).items():
        total = (pattern * net[int(name)].weight).flatten(1).sum(1)
        assert torch.allclose(total, torch.ones_like(total))


def test_a_unit_that_no_input_passes_has_a_pattern_of_zeros():
    net = nn.Sequential(dense([[1, 2], [3, 1]], [-1e6, 0]), nn.ReLU(), dense([[1, 1]])).eval()
    found = tl.fit_patterns(net, world()[1])
    assert not found["0"][0].any() and found["0"][1].all()
    assert found["2"].isfinite().all()


@every_estimator
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bias", [0.0, -0.1])
@pytest.mark.slow
def test_a_unit_whose_output_never_changes_has_a_pattern_of_zeros(estimator, dtype, bias):
    x = normal(60, 5).to(dtype)  # enough rows for rounding to differ
    x[:, :2] = 0.1
    # 0.3 * 0.1 + 0.7 * 0.1, 0.1 + 0.3 x2 - 0.3 x2, and one that does change
    weight = [[0.3, 0.7, 0, 0, 0], [1, 0, 0.3, -0.3, 0], [0, 1, 1, 0, 0]]
    x[:, 3] = x[:, 2]
    net = nn.Sequential(dense(weight, [bias, bias, 0]), nn.ReLU(), dense([[1, 1, 1]])).to(dtype)
    for size in (None, 1, 7, 59):
        found = tl.fit_patterns(net.eval(), x, estimator=estimator, batch_size=size)["0"]
        assert not found[:2].any() and found[2].any() and found.isfinite().all()


@every_estimator
def test_a_convolution_of_a_constant_picture_has_a_pattern_of_zeros(estimator):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)]
    net = nn.Sequential(*layers).double().eval().requires_grad_(False)
    for size in (None, 1, 3):
        found = tl.fit_patterns(
            net, torch.full((5, 3, 8, 8), 0.1).double(), estimator=estimator, batch_size=size
        )
        assert not found["0"].any() and not found["3"].any()


def test_an_output_that_hardly_changes_beside_its_mean_keeps_its_pattern():
    x = 1e-7 * world()[1] + torch.tensor([3.0, 1.0])
    found, x = tl.fit_patterns(reader(), x, estimator="linear")["0"][0], x - x.mean(0)
    assert close(found, x.T @ (x @ W) / (x @ W).square().sum(), 1e-6)


def test_with_weights_for_patterns_pattern_net_is_the_gradient_times_the_score():
    net, x, target = convnet(), normal(2, 2, 8, 8), torch.tensor([2, 0])
    weights = {name: net[int(name)].weight.detach() for name in ("0", "2", "6")}
    found = tl.pattern_net(net, x, target, patterns=weights)
    scores = net(x).gather(1, target[:, None]).detach().view(2, 1, 1, 1)
    assert close(found, scores * tl.gradient(net, x, target))


# --- The same in loops ---


@every_estimator
def test_patterns_of_dense_layers_in_loops(estimator):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).double().eval()
    net.requires_grad_(False)
    x = normal(40, 5) + 0.3
    found = tl.fit_patterns(net, x, estimator=estimator)
    rectified = estimator == "two_component"
    assert close(found["0"], slow_patterns(net[0].weight, net[0].bias, x, rectified))
    hidden = net[:2](x)
    assert close(found["2"], slow_patterns(net[2].weight, net[2].bias, hidden, False))


def convnet():
    """Padding, stride, groups, a ReLU6 and pooling, in float64."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3, padding=1, stride=2), nn.ReLU(), nn.Conv2d(4, 6, 3, groups=2)]
    layers += [nn.ReLU6(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6, 3)]
    layers[2].bias.data += 0.3  # so that every unit passes something
    return nn.Sequential(*layers).double().eval().requires_grad_(False)


@every_estimator
def test_patterns_of_convolutions_are_those_of_their_patches(estimator):
    net, x = convnet(), normal(6, 2, 8, 8)
    found = tl.fit_patterns(net, x, estimator=estimator)
    rectified = estimator == "two_component"
    patches = F.unfold(x, 3, padding=1, stride=2).transpose(1, 2).reshape(-1, 18)
    weight = net[0].weight.flatten(1)
    assert close(found["0"].flatten(1), slow_patterns(weight, net[0].bias, patches, rectified))
    hidden = net[:2](x)
    for group in (0, 1):
        patches = F.unfold(hidden[:, 2 * group : 2 * group + 2], 3).transpose(1, 2).reshape(-1, 18)
        units = slice(3 * group, 3 * group + 3)
        weight, bias = net[2].weight[units].flatten(1), net[2].bias[units]
        wanted = slow_patterns(weight, bias, patches, rectified)
        assert close(found["2"][units].flatten(1), wanted)


@pytest.mark.parametrize("method", [tl.pattern_net, tl.pattern_attribution])
def test_the_way_back_in_matrices(method):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).double().eval()
    net.requires_grad_(False)
    x, target = normal(6, 5), torch.arange(6) % 3
    patterns = {"0": normal(4, 5, seed=1), "2": normal(3, 4, seed=2)}
    first, last = patterns["0"], patterns["2"]
    if method is tl.pattern_attribution:
        first, last = first * net[0].weight, last * net[2].weight
    for i in range(6):
        score = net(x[i])[target[i]]
        back = score * last[target[i]] * (net[0](x[i]) > 0)
        found = method(net, x[[i]], int(target[i]), patterns=patterns)
        assert close(found[0], back @ first)
    whole = method(net, x, target, patterns=patterns)
    assert close(method(net, x, target, patterns=patterns, batch_size=4), whole)


# --- Models as people write them ---


def test_a_batch_norm_behind_a_layer_is_part_of_it():
    net, x, data = normed(), normal(2, 3, 16, 16), normal(30, 3, 16, 16)
    plain = nn.Sequential(*net)
    for i in (0, 4):
        plain[i] = nn.utils.fuse_conv_bn_eval(net[i], net[i + 1])
        plain[i + 1] = nn.Identity()
    ours, wanted = tl.fit_patterns(net, data), tl.fit_patterns(plain.eval(), data)
    assert ours.keys() == wanted.keys() == {"0", "4", "8"}
    assert all(close(ours[name], wanted[name], 1e-8) for name in ours)
    for method in (tl.pattern_net, tl.pattern_attribution):
        maps = [method(f, x, 1, patterns=p) for f, p in ((net, ours), (plain, wanted))]
        assert close(*maps, 1e-8)


def test_a_function_and_a_layer_that_runs_twice_have_patterns_for_each_run():
    layer = dense([[1, 2], [-1, 1]])
    twice = nn.Sequential(layer, nn.ReLU(), layer).eval()
    apart = nn.Sequential(layer, nn.ReLU(), dense([[1, 2], [-1, 1]])).eval()
    x = world()[1]
    one, two = tl.fit_patterns(twice, x), tl.fit_patterns(apart, x)
    assert [*one] == ["0", "0:2"] and [*two] == ["0", "2"]
    assert torch.equal(one["0:2"], two["2"])
    assert torch.equal(
        tl.pattern_net(twice, x[:3], 1, patterns=one), tl.pattern_net(apart, x[:3], 1, patterns=two)
    )
    plain = tl.fit_patterns(lambda z: (z @ layer.weight.T).relu() @ layer.weight.T, x)
    assert [*plain] == ["layer", "layer:2"] and close(plain["layer:2"], two["2"])


def test_batch_size_changes_patterns_by_rounding_alone():
    net, x = convnet(), normal(11, 2, 8, 8)
    whole = tl.fit_patterns(net, x)
    for size in (1, 4):
        parts = tl.fit_patterns(net, x, batch_size=size)
        assert all(close(parts[name], whole[name], 1e-10) for name in whole)


def test_float32_keeps_the_digits_of_inputs_far_from_0():
    x = (world()[1] + 1000).float()
    found = tl.fit_patterns(reader().float(), x)["0"]
    exact = tl.fit_patterns(reader(), x.double())["0"]
    assert found.dtype == torch.float32 and close(found.double(), exact, 1e-6)


@pytest.mark.slow
def test_the_bundled_network_is_followed():
    model = tl.load_model("efficientnet_lite0", device="cpu")
    x = model.preprocess(tl.load_image("coffee"))[..., ::7, ::7].double()
    model = deepcopy(model).double()  # PatternNet's numbers grow beyond float32
    patterns = tl.fit_patterns(model, torch.cat([x, x.flip(-1)]))
    assert len(patterns) == 50
    for method in (tl.pattern_net, tl.pattern_attribution):
        assert method(model, x, 967, patterns=patterns).shape == x.shape


# --- What they refuse ---

GOOD = {"0": SIGNAL[None]}
BAD = {
    "patterns a tensor": ("patterns", dict(patterns=SIGNAL[None])),
    "no pattern for a layer": ("patterns", dict(patterns={})),
    "a pattern too many": ("patterns", dict(patterns=GOOD | {"1": SIGNAL[None]})),
    "a pattern of another shape": ("patterns", dict(patterns={"0": SIGNAL[:, None]})),
    "no tensor": ("patterns", dict(patterns={"0": 1.0})),
    "an array": ("patterns", dict(patterns={"0": SIGNAL[None].numpy()})),
    "a pattern with NaN": ("patterns", dict(patterns={"0": SIGNAL[None] * float("nan")})),
    "a pattern with infinity": ("patterns", dict(patterns={"0": SIGNAL[None] / 0})),
    "a complex pattern": ("patterns", dict(patterns={"0": SIGNAL[None].cfloat()})),
    "a pattern of bools": ("patterns", dict(patterns={"0": SIGNAL[None] > 0})),
    "patterns a word": ("patterns", dict(patterns="linear")),
    "patterns a list": ("patterns", dict(patterns=[SIGNAL[None]])),
    "seed negative": ("seed", dict(seed=-1)),
    "target too large": ("target", dict(target=1)),
    "x a list": ("x", dict(x=[1.0])),
}


@pytest.mark.parametrize("method", [tl.pattern_net, tl.pattern_attribution])
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_by_an_error_that_names_the_argument(case, method):
    name, given = BAD[case]
    keywords = dict(x=world(5)[1], target=0, patterns=GOOD) | given
    with pytest.raises((ValueError, TypeError), match=rf"^{name}: "):
        method(reader(), **keywords)


def test_errors_about_patterns_say_what_to_write():
    for patterns, message in (
        ("linear", r"^patterns: .* str; write patterns=tl\.fit_patterns\(model, inputs\)"),
        ({"0": SIGNAL[None].numpy()}, r"^patterns: expected a tensor .*torch\.from_numpy\("),
    ):
        with pytest.raises(TypeError, match=message):
            tl.pattern_net(reader(), world(5)[1], 0, patterns=patterns)
    wide = {"0": SIGNAL[None] * 1e300}
    with pytest.raises(ValueError, match=r"^patterns: expected finite numbers in torch\.float32"):
        tl.pattern_net(reader().float(), world(5)[1].float(), 0, patterns=wide)


def test_fitting_refuses_bad_input():
    for name, given in (
        ("inputs", dict(inputs=[1.0])),
        ("inputs", dict(inputs=torch.ones(3, 2, dtype=torch.int64))),
        ("estimator", dict(estimator="both")),
        ("batch_size", dict(batch_size=0)),
        ("model", dict(model=3)),
    ):
        with pytest.raises((ValueError, TypeError), match=rf"^{name}: "):
            tl.fit_patterns(**dict(model=reader(), inputs=world(5)[1]) | given)


def test_fitting_refuses_rows_that_influence_each_other():
    net = reader()
    with pytest.raises(ValueError, match=r"^model: the scores of a row change"):
        tl.fit_patterns(lambda z: net(z - z.mean(0)), world(5)[1])


REFUSED = {
    "mul": lambda z: (z * z) @ torch.ones(4, 3),
    "_softmax": lambda z: z.softmax(1) @ torch.ones(4, 3),
    "native_layer_norm": lambda z: F.layer_norm(z, (4,)) @ torch.ones(4, 3),
}


@pytest.mark.parametrize("operation", REFUSED)
def test_an_operation_without_rule_is_an_error_that_names_it(operation):
    x, patterns = normal(2, 4, dtype=torch.float32), {"layer": torch.ones(3, 4)}
    message = rf"^model: pattern_net has no rule for the operation {operation} at test_patterns.py"
    with pytest.raises(NotImplementedError, match=message):
        tl.pattern_net(REFUSED[operation], x, 0, patterns=patterns)


def test_a_transposed_convolution_has_no_pattern():
    net = nn.Sequential(nn.ConvTranspose2d(1, 2, 2), nn.Flatten()).eval()
    with pytest.raises(
        NotImplementedError, match=r"^model: fit_patterns has no rule .*convolution"
    ):
        tl.fit_patterns(net, torch.rand(2, 1, 4, 4))
