"""Guided backpropagation, DeconvNet and LRP by hand, in all spellings, and beside captum."""

from copy import deepcopy

import captum.attr as peer
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tutorial_lib as tl
from tests.closed_forms import close, normal

TINY = 1e-12  # as epsilon: the formulas without it
TARGET = torch.tensor([2, 0])
RULES = {
    "epsilon": dict(rule="epsilon"),
    "alpha 1": dict(rule="alpha_beta"),
    "alpha 2": dict(rule="alpha_beta", alpha=2.0, beta=1.0),
    "flat, alpha 1": dict(rule="composite"),
    "flat, gamma": dict(rule="composite", gamma=0.25),
    "z-box, alpha 2": dict(rule="composite", alpha=2.0, beta=1.0, bounds=(-4.0, 5.0)),
    "z-box, gamma": dict(rule="composite", gamma=0.25, bounds=(-4.0, 5.0)),
}
METHODS = {
    "guided_backprop": (tl.guided_backprop, {}),
    "deconvnet": (tl.deconvnet, {}),
    **{f"lrp, {name}": (tl.lrp, keywords) for name, keywords in RULES.items()},
}
every_rule = pytest.mark.parametrize("keywords", RULES.values(), ids=RULES)
every_method = pytest.mark.parametrize("method, keywords", METHODS.values(), ids=METHODS)


def row(*values):
    return torch.tensor([values], dtype=torch.float64)


def dense(weight, bias=None):
    """A dense layer from a row of weights for each unit."""
    layer = nn.Linear(len(weight[0]), len(weight), bias=bias is not None).double()
    layer.weight.data = torch.tensor(weight).double()
    if bias is not None:
        layer.bias.data = torch.tensor(bias).double()
    return layer.eval()


def conv(weight, bias=None):
    """The same layer as a convolution of pictures of one pixel."""
    plain = dense(weight, bias)
    layer = nn.Conv2d(len(weight[0]), len(weight), 1, bias=bias is not None).double()
    layer.weight.data = plain.weight.data[..., None, None]
    if bias is not None:
        layer.bias.data = plain.bias.data
    return layer.eval()


def convnet(bias, seed=0):
    """Padding, stride, both kinds of pooling and two dense layers, in float64."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=bias),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=bias),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=bias),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 10, bias=bias),
        nn.ReLU(),
        nn.Linear(10, 3, bias=bias),
    )
    return net.double().eval()


def pictures():
    return normal(2, 3, 16, 16).clamp(-3.9, 4.9)


def score(model, x, target=TARGET):
    with torch.no_grad():
        return model(x).gather(1, target[:, None])[:, 0]


# --- Guided backpropagation and DeconvNet by hand ---

UNITS = dense([[1, 1], [2, -1], [-1, -1]])  # 3, 0.75 and -3 at x = (1.25, 1.75)
THREE = nn.Sequential(UNITS, nn.ReLU(), dense([[2, -3, 5]])).eval()
AT = row(1.25, 1.75)


def test_guided_backprop_blocks_negative_signals_and_dead_units():
    # what comes back is 2, -3, 5; what went in 3, 0.75, -3: only the first unit has both above 0
    assert torch.equal(tl.guided_backprop(THREE, AT, 0), row(2, 2))
    assert torch.equal(tl.gradient(THREE, AT, 0), row(2 - 6, 2 + 3))


def test_deconvnet_blocks_negative_signals_whatever_went_in():
    # 2 and 5 pass, though the third unit was dead
    assert torch.equal(tl.deconvnet(THREE, AT, 0), row(2 - 5, 2 - 5))


def test_a_rectifier_with_an_upper_limit_is_treated_as_a_relu():
    net = nn.Sequential(nn.ReLU6(), dense([[1, 1, 1, -1]])).eval()
    x = row(3, 7, -1, 2)
    assert torch.equal(tl.guided_backprop(net, x, 0), row(1, 0, 0, 0))
    assert torch.equal(tl.deconvnet(net, x, 0), row(1, 1, 1, 0))


def test_deconvnet_hands_back_to_the_place_of_the_maximum():
    net = nn.Sequential(nn.ReLU(), nn.MaxPool1d(3), dense([[2]])).eval()
    assert torch.equal(tl.deconvnet(net, row(1, 5, 2), 0), row(0, 2, 0))


def test_an_activation_that_is_no_rectifier_keeps_its_gradient():
    for call in (torch.tanh, F.leaky_relu, F.silu, lambda z: z.clamp(-1, 1), lambda z: z.clamp(1)):
        model = lambda x, call=call: call(x @ normal(4, 5)) @ normal(5, 3)  # noqa: E731
        x = normal(2, 4)
        for method in (tl.guided_backprop, tl.deconvnet):
            assert close(method(model, x, TARGET), tl.gradient(model, x, TARGET))


# --- LRP by hand, one unit at a time ---


def test_lrp_epsilon_shares_by_the_terms_and_epsilon_has_the_sign_of_z():
    unit = dense([[3, -1]], [1])  # z = 3 - 2 + 1 = 2
    assert torch.allclose(tl.lrp(unit, row(1, 2), 0, epsilon=TINY), row(3, -2))
    assert torch.allclose(tl.lrp(unit, row(1, 2), 0, epsilon=2.0), row(3, -2) * 2 / 4)
    unit = dense([[-3, 1]], [-1])  # z = -2: epsilon has the sign of z
    assert torch.allclose(tl.lrp(unit, row(1, 2), 0, epsilon=2.0), row(-3, 2) * 2 / 4)


@pytest.mark.parametrize("inputs", ["positive", "of both signs"])
def test_lrp_epsilon_without_biases_is_gradient_times_input(inputs):
    net, x = convnet(bias=False), pictures()
    x = x.abs() if inputs == "positive" else x
    assert close(tl.lrp(net, x, TARGET, epsilon=TINY), tl.gradient_x_input(net, x, TARGET), 1e-8)


@pytest.mark.parametrize("layer", [dense, conv])
@pytest.mark.parametrize(
    "bias, wanted",
    [
        # terms 2, -2, -3 of z = bias - 3, in q = alpha c+ / (2 + b+) - beta c- / (-5 + b-)
        (4, (2 / 6 * 2, -2 / 5, -3 / 5)),
        (-1, (-4 * 2, 4 * 2 / 6, 4 * 3 / 6)),
        (None, (-3 * 2, 3 * 2 / 5, 3 * 3 / 5)),
    ],
)
def test_lrp_alpha_beta_shares_by_the_sign_of_terms_and_bias(layer, bias, wanted):
    unit, x = layer([[2, 1, -1]], None if bias is None else [bias]), row(1, -2, 3)
    if layer is conv:
        unit, x = nn.Sequential(unit, nn.Flatten()).eval(), x[..., None, None]
    found = tl.lrp(unit, x, 0, rule="alpha_beta", alpha=2, beta=1, epsilon=TINY)
    assert torch.allclose(found.flatten(1), row(*wanted))


def test_lrp_flat_shares_equally_whatever_weights_and_inputs_are():
    net = nn.Sequential(conv([[3, -1, 2]], [1]), nn.Flatten()).eval()
    x = row(1, 2, 3)[..., None, None]  # z = 3 - 2 + 6 + 1 = 8
    found = tl.lrp(net, x, 0, rule="composite", epsilon=TINY)
    assert torch.allclose(found.flatten(1), row(8, 8, 8) / 3)


def test_lrp_flat_gives_padding_no_share():
    net = nn.Sequential(nn.Conv1d(1, 1, 3, padding=1, bias=False), nn.Flatten(), dense([[1, 0]]))
    found = tl.lrp(net.double().eval(), row(2, 5)[:, None], 0, rule="composite", epsilon=TINY)
    assert torch.allclose(found, score(net, row(2, 5)[:, None], torch.tensor([0])) / 2)


def test_lrp_z_box_measures_terms_from_the_corners_of_the_box():
    # terms w x - low w+ - high w-: 1 + 1 * 2 = 3 and -1 + 2 = 1, of z = 1 - 1 + 1/2
    unit = dense([[2, -1]], [0.5])
    found = tl.lrp(unit, row(0.5, 1), 0, rule="composite", bounds=(-1.0, 2.0), epsilon=TINY)
    assert torch.allclose(found, row(3, 1) / 4 * 0.5)


def test_lrp_z_box_has_a_corner_for_each_channel():
    low, high = row(-1, 0)[..., None, None], row(2, 3)[..., None, None]
    net = nn.Sequential(conv([[2, -1]]), nn.Flatten()).eval()
    x = row(0.75, 1)[..., None, None]  # z = 0.5; terms 1.5 + 2 and -1 + 3
    found = tl.lrp(net, x, 0, rule="composite", bounds=(low, high), epsilon=TINY)
    assert torch.allclose(found.flatten(1), row(3.5, 2) / 5.5 * 0.5)


def through(*layers):
    """Layers behind a first one that changes nothing, where the rule of the input is spent."""
    first = nn.Conv2d(2, 2, 1, groups=2, bias=False).double()
    nn.init.ones_(first.weight)
    return nn.Sequential(first, *layers, nn.Flatten()).eval()


@pytest.mark.parametrize(
    "weight, bias, wanted",
    [
        # z = 2: c + c+ over z + (c+ + b+);  z = -4: c + c- over z + (c- + b-)
        ([[3, -1]], [1], (2 * 6 / 6, 2 * -2 / 6)),
        ([[1, -2]], [-1], (-4 * 1 / -9, -4 * -8 / -9)),
    ],
)
def test_lrp_gamma_favours_the_terms_that_have_the_sign_of_z(weight, bias, wanted):
    net, x = through(conv(weight, bias)), row(1, 2)[..., None, None]
    found = tl.lrp(net, x, 0, rule="composite", gamma=1.0, epsilon=TINY)
    assert torch.allclose(found.flatten(1), row(*wanted))
    none = tl.lrp(net, x, 0, rule="composite", gamma=0.0, epsilon=TINY)
    assert torch.allclose(none, tl.lrp(net, x, 0, epsilon=TINY))


def test_lrp_composite_chooses_its_rule_by_the_kind_of_layer():
    weights, x = [[3, -1], [-1, 2]], row(1, 2)[..., None, None]
    keywords = dict(alpha=2.0, beta=1.0, epsilon=0.5)
    found = tl.lrp(through(conv(weights, [1, -0.5])), x, 1, rule="composite", **keywords)
    # a convolution of pictures of one pixel is a dense layer, but not for the composite
    flat = 1 / 1.5  # what the first layer's flat rule hands on with epsilon = 0.5
    layer = nn.Sequential(nn.Flatten(), dense(weights, [1, -0.5])).eval()
    by_kind = tl.lrp(through(layer), x, 1, rule="composite", **keywords)
    assert torch.allclose(by_kind, tl.lrp(layer, x, 1, epsilon=0.5) * flat)
    plain = tl.lrp(layer, x, 1, rule="alpha_beta", **keywords)
    assert torch.allclose(found, plain * flat)
    assert not torch.allclose(found, by_kind)


def test_lrp_shares_a_skip_connection_by_its_two_terms():
    # x = (1, 2), h = (3 - 2, 1 + 2) = (1, 3), the score (1 + 1) + (2 + 3) = 7
    # x itself gets 1 and 2; h1 gives its 1 to x1, its one positive term; h2 gives 1 and 2
    v = row(3, -1).T, row(1, 1).T
    model = lambda x: (x + (x @ torch.cat(v, 1)).relu()) @ row(1, 1).T  # noqa: E731
    found = tl.lrp(model, row(1, 2), 0, rule="alpha_beta", epsilon=TINY)
    assert torch.allclose(found, row(1 + 1 + 1, 2 + 0 + 2))


# --- LRP: what is kept and what is lost ---


@every_rule
def test_lrp_without_biases_sums_to_the_score(keywords):
    net, x = convnet(bias=False), pictures()
    found = tl.lrp(net, x, TARGET, epsilon=TINY, **keywords)
    assert torch.allclose(found.sum((1, 2, 3)), score(net, x), rtol=1e-8)


def test_lrp_loses_exactly_the_share_of_the_biases():
    # terms 2, -2, -3 and the bias 4: z = 1
    unit, x = dense([[2, 1, -1]], [4]), row(1, -2, 3)
    for keywords, kept in (
        (dict(), 1 - 4 / 1),
        (dict(rule="alpha_beta"), 1 - 4 / 6),
        (dict(rule="alpha_beta", alpha=2.0, beta=1.0), 1 - 2 * 4 / 6),
        (dict(rule="composite"), 1),  # the flat rule knows no bias
        (dict(rule="composite", bounds=(-9.0, 9.0)), 1),
    ):
        assert float(tl.lrp(unit, x, 0, epsilon=TINY, **keywords).sum()) == pytest.approx(kept)


def test_lrp_that_leaves_biases_out_shares_by_the_terms_alone():
    # terms 2, -2, -3 and the bias 4: z = 1 is shared as if it were -3, or 2 and -5
    unit, x = dense([[2, 1, -1]], [4]), row(1, -2, 3)
    found = tl.lrp(unit, x, 0, biases=False, epsilon=TINY)
    assert torch.allclose(found, row(2, -2, -3) / -3)
    keywords = dict(rule="alpha_beta", alpha=2.0, beta=1.0)
    found = tl.lrp(unit, x, 0, biases=False, epsilon=TINY, **keywords)
    assert torch.allclose(found, row(2, -2 / 5, -3 / 5))


def test_lrp_alpha_beta_hands_down_alpha_times_where_all_terms_have_one_sign():
    # so that even without biases the sum is the score only where each unit has terms of both
    found = tl.lrp(dense([[2, 1]]), row(1, 2), 0, rule="alpha_beta", alpha=2, beta=1, epsilon=TINY)
    assert torch.allclose(found, 2 * row(2, 2))


@pytest.mark.parametrize("name", [name for name in RULES if "alpha 2" not in name])
def test_lrp_that_leaves_biases_out_sums_to_the_score(name):
    net, x, keywords = convnet(bias=True), pictures(), RULES[name]
    found = tl.lrp(net, x, TARGET, epsilon=TINY, biases=False, **keywords)
    assert torch.allclose(found.sum((1, 2, 3)), score(net, x), rtol=1e-6)


# --- Peers ---


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require")
@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU")
@pytest.mark.slow
def test_captum_agrees_on_guided_backprop_and_deconvnet():
    from torchvision.models import resnet18

    resnet = resnet18(weights=None).double().eval()  # skips, one ReLU used twice
    for net, x in ((convnet(bias=True), pictures()), (resnet, normal(2, 3, 32, 32))):
        for ours, theirs in (
            (tl.guided_backprop, peer.GuidedBackprop),
            (tl.deconvnet, peer.Deconvolution),
        ):
            theirs = theirs(deepcopy(net)).attribute(x, TARGET).detach()
            assert close(ours(net, x, TARGET), theirs, 1e-6)


# --- Models as people write them ---


def normed():
    """A network with batch norms that have statistics of their own."""
    torch.manual_seed(0)
    norms = nn.BatchNorm2d(4), nn.BatchNorm2d(5)
    for norm in norms:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.normal_(norm.bias)
    layers = [nn.Conv2d(3, 4, 3), norms[0], nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(4, 5, 3, bias=False), norms[1], nn.ReLU(inplace=True), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(5 * 25, 3)).double().eval()


@every_rule
def test_lrp_of_batch_norm_is_lrp_of_the_convolution_it_folds_into(keywords):
    net, x = normed(), pictures()
    plain = deepcopy(net)
    for i in (0, 4):
        plain[i] = nn.utils.fuse_conv_bn_eval(plain[i], plain[i + 1])
        plain[i + 1] = nn.Identity()
    assert close(tl.lrp(net, x, TARGET, **keywords), tl.lrp(plain.eval(), x, TARGET, **keywords))


@every_method
def test_the_model_and_the_input_are_left_alone(method, keywords):
    net, x = normed(), pictures()
    net[0].weight.requires_grad_(False)
    before, kept = deepcopy(net), x.clone()
    method(net, x, TARGET, **keywords)
    for ours, theirs in zip(net.modules(), before.modules(), strict=True):
        assert not ours._forward_hooks and not ours._backward_hooks and not ours._forward_pre_hooks
        assert ours.training == theirs.training
    for ours, theirs in zip(net.parameters(), before.parameters(), strict=True):
        assert ours.requires_grad == theirs.requires_grad
        assert ours.grad is None and ours.grad_fn is None
    after = net.state_dict()
    assert all(torch.equal(after[name], v) for name, v in before.state_dict().items())
    assert torch.equal(x, kept) and not x.requires_grad


SPELLINGS = {
    "F.relu": (nn.ReLU, F.relu),
    "in place": (nn.ReLU, nn.ReLU(inplace=True)),
    "F.relu in place": (nn.ReLU, lambda z: F.relu(z, inplace=True)),
    "relu_ whose result is not used": (nn.ReLU, lambda z: (z.relu_(), z)[1]),
    "clamp from 0": (nn.ReLU, lambda z: z.clamp(min=0)),
    "clamp_min": (nn.ReLU, lambda z: z.clamp_min(0)),
    "threshold": (nn.ReLU, lambda z: F.threshold(z, 0.0, 0.0)),
    "F.relu6": (nn.ReLU6, F.relu6),
    "hardtanh": (nn.ReLU6, lambda z: F.hardtanh(z, 0, 6)),
    "hardtanh in place": (nn.ReLU6, nn.Hardtanh(0, 6, inplace=True)),
    "clamp from 0 to 6": (nn.ReLU6, lambda z: z.clamp(0, 6)),
    "chunks": (nn.ReLU, lambda z: torch.cat([part.relu() for part in z.chunk(2, 1)], 1)),
    "an empty Sequential": (nn.ReLU, lambda z: nn.Sequential().eval()(z.relu())),
}


@every_method
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_spelling_does_not_matter(spelling, method, keywords):
    kind, function = SPELLINGS[spelling]
    torch.manual_seed(0)
    first, second, x = nn.Conv2d(3, 4, 3).double(), nn.Conv2d(4, 3, 3).double(), pictures()
    first.weight.data *= 9  # beyond the upper limit of 6
    plain = nn.Sequential(first, kind(), second, kind(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def spelled(x):
        return function(second(function(first(x)))).mean((2, 3))

    wanted = method(plain.eval(), x, TARGET, **keywords)
    assert close(method(spelled, x, TARGET, **keywords), wanted)


@every_method
def test_a_module_used_twice_is_two_modules(method, keywords):
    torch.manual_seed(0)
    layer, relu, head = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 16)
    shared = nn.Sequential(layer, relu, layer, relu, head, nn.Flatten()).double().eval()
    apart = nn.Sequential(*(deepcopy(m) for m in shared)).eval()
    x = pictures()
    assert torch.equal(method(shared, x, TARGET, **keywords), method(apart, x, TARGET, **keywords))


@pytest.mark.parametrize("last", [nn.Softmax(1), nn.LogSoftmax(1), nn.Sigmoid()])
def test_lrp_explains_the_logit_before_a_probability(last):
    net, x = convnet(bias=True), pictures()
    found = tl.lrp(nn.Sequential(net, last).eval(), x, TARGET)
    assert torch.equal(found, tl.lrp(net, x, TARGET))


def test_lrp_grows_with_the_logit():
    doubled = convnet(bias=True)
    single, x = tl.lrp(doubled, pictures(), TARGET), pictures()
    doubled[-1].weight.data *= 2
    doubled[-1].bias.data *= 2
    assert close(tl.lrp(doubled, x, TARGET), 2 * single, 1e-4)


@every_method
def test_pictures_of_one_batch_do_not_mix(method, keywords):
    net, x = convnet(bias=True), pictures()
    alone = torch.cat([method(net, x[i : i + 1], int(TARGET[i]), **keywords) for i in (0, 1)])
    for size in (1, 2, None):
        assert close(method(net, x, TARGET, batch_size=size, **keywords), alone, 1e-12)


@every_method
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_callers_grad_mode_does_not_matter(method, keywords, mode):
    net, x = normed(), pictures()
    wanted = method(net, x, TARGET, **keywords)
    with mode():
        found = method(net, x.clone(), TARGET, **keywords)
    assert torch.equal(found, wanted) and not found.requires_grad


def test_lrp_z_box_follows_a_first_step_that_turns_the_bounds_round():
    # 1 - x is in (0, 1) as x is: what reaches it must be the z-box of the network behind it
    net, x = nn.Sequential(conv([[2, -1]]), nn.Flatten()).eval(), row(0.25, 0.5)[..., None, None]
    keywords = dict(rule="composite", bounds=(0.0, 1.0), epsilon=TINY)
    behind = tl.lrp(net, 1 - x, 0, **keywords)
    assert torch.allclose(tl.lrp(lambda x: net(1 - x), x, 0, **keywords), behind * -x / (1 - x))


@pytest.mark.slow
def test_lrp_of_a_real_network_survives_float32():
    lite = tl.load_model("efficientnet_lite0", device="cpu")
    x, wide = lite.preprocess(tl.load_image("coffee"))[..., 64:160, 64:160], deepcopy(lite).double()
    for rule in ("epsilon", "composite"):
        exact = tl.lrp(wide, x.double(), 967, rule=rule)
        found = tl.lrp(lite, x, 967, rule=rule)
        assert found.dtype == torch.float32 and close(found.double(), exact, 1e-2), rule


# --- Bad input ---

BAD = {
    "rule unknown": ("rule", dict(rule="z-plus")),
    "rule None": ("rule", dict(rule=None)),
    "epsilon 0": ("epsilon", dict(epsilon=0)),
    "epsilon negative": ("epsilon", dict(epsilon=-1e-6)),
    "epsilon a word": ("epsilon", dict(epsilon="small")),
    "alpha - beta not 1": ("alpha", dict(rule="alpha_beta", alpha=2.0)),
    "alpha NaN": ("alpha", dict(rule="alpha_beta", alpha=float("nan"))),
    "alpha a word": ("alpha", dict(rule="alpha_beta", alpha="two")),
    "beta negative": ("beta", dict(rule="alpha_beta", alpha=0.0, beta=-1.0)),
    "gamma negative": ("gamma", dict(rule="composite", gamma=-0.25)),
    "gamma a word": ("gamma", dict(rule="composite", gamma="high")),
    "bounds reversed": ("bounds", dict(rule="composite", bounds=(1.0, 0.0))),
    "bounds not a pair": ("bounds", dict(rule="composite", bounds=1.0)),
    "x outside the bounds": ("x", dict(rule="composite", bounds=(0.0, 1.0))),
    "biases a word": ("biases", dict(biases="no")),
    "gamma that no layer would use": ("gamma", dict(rule="epsilon", gamma=0.25)),
    "alpha that no layer would use": ("alpha", dict(rule="epsilon", alpha=2.0, beta=1.0)),
    "alpha beside gamma": ("alpha", dict(rule="composite", alpha=2.0, beta=1.0, gamma=0.25)),
    "bounds that no layer would use": ("bounds", dict(rule="alpha_beta", bounds=(-4.0, 5.0))),
    "seed negative": ("seed", dict(seed=-1)),
    "batch_size 0": ("batch_size", dict(batch_size=0)),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_by_an_error_that_names_the_argument(case):
    name, given = BAD[case]
    with pytest.raises((ValueError, TypeError), match=rf"^{name}: "):
        tl.lrp(convnet(bias=True), pictures(), TARGET, **given)


@pytest.mark.slow
def test_bad_input_is_refused_by_every_method():
    training = nn.Sequential(nn.Flatten(), nn.Linear(768, 3)).double().train()
    for model, x, target, name in (
        (training, pictures(), 0, "model"),
        (convnet(bias=True), pictures(), 3, "target"),
        (convnet(bias=True), pictures() * float("nan"), 0, "x"),
        (lambda x: torch.zeros(2, 3), pictures(), 0, "model"),
        (lambda x: x.detach().flatten(1), pictures(), 0, "model"),
    ):
        for method in (tl.guided_backprop, tl.deconvnet, tl.lrp):
            with pytest.raises((ValueError, NotImplementedError), match=rf"^{name}: "):
                method(model, x, target)


NO_RULE = {
    "sort": lambda x: x.flatten(1).sort(1)[0],
    "mul": lambda x: (x * x).flatten(1),
    "native_layer_norm": lambda x: F.layer_norm(x.flatten(1), (768,)),
    "_softmax": lambda x: 2 * x.flatten(1).softmax(1),
}


@pytest.mark.parametrize("operation", NO_RULE)
def test_an_operation_without_rule_is_refused_by_its_name_and_place(operation):
    with pytest.raises(NotImplementedError) as error:
        tl.lrp(NO_RULE[operation], pictures(), TARGET)
    line = NO_RULE[operation].__code__.co_firstlineno
    assert f"operation {operation} at test_backward.py:{line}" in str(error.value)
    assert str(error.value).startswith("model: LRP")
    tl.guided_backprop(NO_RULE[operation], pictures(), TARGET)  # it has a gradient


# --- What stands behind a layer ---


def behind(kind: str) -> nn.Module:
    """Dense layers with batch norm behind them, as modules or as a plain function."""
    torch.manual_seed(3)
    dense, norm, last = nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)
    for v in (norm.weight, norm.bias, norm.running_mean):
        v.data.normal_()
    norm.running_var.uniform_(0.5, 2)
    net = nn.Sequential(dense, norm, nn.ReLU(), last).double().eval().requires_grad_(False)
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    weight, shift = dense.weight * scale[:, None], (dense.bias - norm.running_mean) * scale
    if kind == "folded":
        return lambda x: last((x @ weight.T + (shift + norm.bias)).relu())
    return net if kind == "module" else lambda x: net(x)


@pytest.mark.parametrize("rule", ["epsilon", "alpha_beta", "composite"])
@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("kind", ["module", "function"])
def test_a_batch_norm_behind_a_dense_layer_is_part_of_it_however_the_model_is_given(
    kind, biases, rule
):
    x = normal(2, 6)
    wanted = tl.lrp(behind("folded"), x, 1, rule=rule, biases=biases)
    assert close(tl.lrp(behind(kind), x, 1, rule=rule, biases=biases), wanted)


@pytest.mark.parametrize("rule", ["epsilon", "alpha_beta"])
def test_a_constant_added_behind_a_product_is_the_bias_of_a_layer(rule):
    layer, x = nn.Linear(6, 3).double().requires_grad_(False).eval(), normal(2, 6)
    spelled = tl.lrp(lambda z: z @ layer.weight.T + layer.bias, x, 1, rule=rule)
    assert close(spelled, tl.lrp(layer, x, 1, rule=rule))


def test_a_constant_that_widens_the_values_is_no_part_of_the_layer():
    weight, wide = normal(6, 1), torch.arange(1.0, 4, dtype=torch.float64)
    x = normal(2, 6, seed=1)
    found = tl.lrp(lambda z: z @ weight + wide, x, 1)
    whole = x @ weight + wide[1]
    assert close(found, x * weight.T, 1e-5) and float(whole.abs().min()) > 0.1


@pytest.mark.parametrize("method", [tl.lrp, tl.guided_backprop, tl.deconvnet])
@pytest.mark.slow
def test_a_device_gives_the_same_map(device, method):
    net, x = convnet(bias=True), pictures()
    wanted = method(net, x, 2)
    ours = method(net.to(device), x.to(device), 2)
    assert ours.device.type == device and close(ours.cpu(), wanted, 1e-8)
