"""LRP with a rule for each layer, its single rules, and deep Taylor, by hand."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tutorial_lib as tl
from tests.closed_forms import close, normal
from tests.rules.test_backward import TINY, conv, convnet, dense, pictures, row, score

TARGET = torch.tensor([2, 0])
BOUNDS = (-4.0, 5.0)


# --- Single rules by hand ---


def test_w_square_shares_by_squared_weights_whatever_inputs_and_bias_are():
    unit = dense([[3, -1, 2]], [1])  # z = 3 - 2 + 6 + 1 = 8, squares 9, 1, 4
    found = tl.lrp(unit, row(1, 2, 3), 0, rule="w_square", epsilon=TINY)
    assert torch.allclose(found, 8 * row(9, 1, 4) / 14)
    found = tl.lrp(unit, row(0, 8 / 3, 3), 0, rule="w_square", epsilon=TINY)
    assert torch.allclose(found, unit(row(0, 8 / 3, 3)).detach() * row(9, 1, 4) / 14)


def test_w_square_gives_padding_no_share():
    net = nn.Sequential(nn.Conv1d(1, 1, 3, padding=1, bias=False), nn.Flatten(), dense([[1, 0]]))
    net[0].weight.data = torch.tensor([[[7.0, 2.0, 1.0]]])
    net, x = net.double().eval(), row(2, 5)[:, None]  # the first place sees 0, 2, 5 by 7, 2, 1
    found = tl.lrp(net, x, 0, rule={"0": "w_square"}, epsilon=TINY)
    assert torch.allclose(found, 9 * row(4, 1)[:, None] / 5)
    unpadded = nn.Conv1d(1, 1, 3, bias=False).double()
    unpadded.weight.data = net[0].weight.data
    apart = nn.Sequential(nn.ConstantPad1d(1, 0.0), unpadded, *net[1:]).eval()
    again = tl.lrp(apart, x, 0, rule={"1": "w_square"}, epsilon=TINY)
    assert torch.allclose(again, found)


def test_flat_alone_shares_equally_in_all_layers():
    net = nn.Sequential(dense([[3, -1], [1, 2]]), nn.ReLU(), dense([[2, -5]])).eval()
    found = tl.lrp(net, row(1, 2), 0, rule="flat", epsilon=TINY)
    assert torch.allclose(found, net(row(1, 2)).detach() * row(1, 1) / 2)


def test_gamma_alone_is_in_dense_layers_too_and_its_default_is_a_quarter():
    unit, x = dense([[3, -1]], [1]), row(1, 2)  # z = 2: (c + c+ / 4) / (z + (3 + 1) / 4)
    found = tl.lrp(unit, x, 0, rule="gamma", epsilon=TINY)
    assert torch.allclose(found, 2 * row(3.75, -2) / 3)
    assert torch.equal(found, tl.lrp(unit, x, 0, rule="gamma", gamma=0.25, epsilon=TINY))
    assert torch.allclose(
        tl.lrp(unit, x, 0, rule="gamma", gamma=0.0, epsilon=TINY), tl.lrp(unit, x, 0, epsilon=TINY)
    )


def test_without_biases_gamma_takes_the_sign_of_z_without_the_bias():
    # terms 3 and -2 and the bias -4: z is 1 without it and -3 with it, the relevance is -3
    net, x = nn.Sequential(dense([[3, -1]], [-4])).eval(), row(1, 2)
    found = tl.lrp(net, x, 0, rule="gamma", gamma=1.0, biases=False, epsilon=TINY)
    assert torch.allclose(found, -3 * row(6, -2) / 4)


# --- A rule for each layer ---


def test_the_innermost_module_decides_and_a_name_goes_before_its_class():
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), inner, nn.ReLU(), nn.Linear(6, 3))
    net, x = net.double().eval(), normal(2, 6)
    keywords = dict(gamma=0.5, alpha=2.0, beta=1.0)
    every = {"0": "flat", "2.0": "gamma", "2.2": "alpha_beta", "4": "epsilon"}
    wanted = tl.lrp(net, x, TARGET, rule=every, **keywords)
    for rule in (
        {"2": "gamma", "0": "flat", "2.2": "alpha_beta"},
        {"2.2": "alpha_beta", net[0]: "flat", inner: "gamma"},
        {nn.Linear: "gamma", "2.2": "alpha_beta", "0": "flat", "4": "epsilon"},
        {"4": "epsilon", "2.2": "alpha_beta", "": "gamma", net[0]: "flat"},
    ):
        assert torch.equal(tl.lrp(net, x, TARGET, rule=rule, **keywords), wanted)
    assert not close(tl.lrp(net, x, TARGET, rule="gamma"), wanted, 1e-3)


def test_the_class_nearest_to_a_layers_own_decides_in_any_order():
    class Own(nn.Linear):
        pass

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), Own(6, 6), nn.ReLU(), nn.Linear(6, 3))
    net, x = net.double().eval(), normal(2, 6)
    wanted = tl.lrp(net, x, TARGET, rule={"0": "flat", "2": "gamma", "4": "flat"})
    rules = [(nn.Linear, "flat"), (nn.Module, "w_square"), (Own, "gamma")]
    for order in itertools.permutations(rules):
        assert torch.equal(tl.lrp(net, x, TARGET, rule=dict(order)), wanted)


def test_a_module_has_one_rule():
    net, x = convnet(bias=True), pictures()
    with pytest.raises(ValueError, match=r"^rule: expected one rule a module, .* has two"):
        tl.lrp(net, x, TARGET, rule={"0": "gamma", net[0]: "flat"})
    same = tl.lrp(net, x, TARGET, rule={"0": "gamma", net[0]: "gamma"})
    assert torch.equal(same, tl.lrp(net, x, TARGET, rule={"0": "gamma"}))


def test_a_mapping_can_write_the_composite():
    net, x = convnet(bias=True), pictures()
    wanted = tl.lrp(net, x, TARGET, rule="composite", gamma=0.25, bounds=BOUNDS)
    rule = {nn.Conv2d: "gamma", "0": "z_box"}
    assert torch.equal(tl.lrp(net, x, TARGET, rule=rule, bounds=BOUNDS), wanted)
    one_rule = {"": "alpha_beta"}
    wanted = tl.lrp(net, x, TARGET, rule="alpha_beta", alpha=2.0, beta=1.0)
    assert torch.equal(tl.lrp(net, x, TARGET, rule=one_rule, alpha=2.0, beta=1.0), wanted)


@pytest.mark.slow
def test_layers_of_a_transformer_can_have_rules_of_their_own():
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
    net = nn.Sequential(block, nn.Flatten(), nn.Linear(32, 3)).double().eval()
    x = normal(2, 4, 8)
    wanted = tl.lrp(net, x, TARGET, rule="transformer")
    assert torch.equal(tl.lrp(net, x, TARGET, rule={"": "transformer"}), wanted)
    found = tl.lrp(net, x, TARGET, rule={"": "transformer", nn.Linear: "gamma"})
    assert not close(found, wanted, 1e-3)
    none = {"": "transformer", nn.Linear: "gamma"}
    assert close(tl.lrp(net, x, TARGET, rule=none, gamma=0.0), wanted, 1e-9)
    with pytest.raises(NotImplementedError, match=r"^model: LRP has no rule"):
        tl.lrp(net, x, TARGET, rule={nn.Linear: "gamma"})


BAD = {
    "no such name": ("rule", dict(rule={"77": "flat"})),
    "no such module": ("rule", dict(rule={nn.ReLU(): "flat"})),
    "no such class": ("rule", dict(rule={nn.GELU: "flat"})),
    "a module without layers": ("rule", dict(rule={"1": "flat"})),
    "an unknown rule": ("rule", dict(rule={"0": "z+"})),
    "composite for a layer": ("rule", dict(rule={"0": "composite"})),
    "a number for a name": ("rule", dict(rule={0: "flat"})),
    "z_box without bounds": ("bounds", dict(rule={"0": "z_box"})),
    "z_box in a hidden layer": ("rule", dict(rule={"3": "z_box"}, bounds=BOUNDS)),
    "z_box in all layers": ("rule", dict(rule="z_box", bounds=BOUNDS)),
    "bounds without z_box": ("bounds", dict(rule={"0": "flat"}, bounds=BOUNDS)),
    "gamma without gamma": ("gamma", dict(rule={"0": "flat"}, gamma=0.5)),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_rule_is_refused_by_an_error_that_names_the_argument(case):
    name, given = BAD[case]
    with pytest.raises(ValueError, match=rf"^{name}: "):
        tl.lrp(convnet(bias=True), pictures(), TARGET, **given)


def test_a_mapping_needs_a_module():
    with pytest.raises(TypeError, match=r"^rule: "):
        tl.lrp(lambda x: x.flatten(1), pictures(), TARGET, rule={"0": "flat"})


# --- Deep Taylor ---


def test_deep_taylor_at_the_input_is_the_nearest_root_or_that_of_the_box():
    unit = dense([[1, -1]])  # the score of (3, 2) is 1
    assert torch.allclose(tl.deep_taylor(unit, row(3, 2), 0), row(0.5, 0.5))
    # z^B in (0, 4): terms 3 - 0 and -2 + 4
    assert torch.allclose(tl.deep_taylor(unit, row(3, 2), 0, bounds=(0.0, 4.0)), row(3, 2) / 5)


def test_deep_taylor_of_a_hidden_unit_is_z_plus_without_its_bias():
    # hidden (2, 3, 1), the score 2 * 2 - 3 + 1 - 1 = 1 of terms 4, -3, 1: 4/5 and 1/5 of it
    net = nn.Sequential(dense([[2, 0], [0, 3], [1, 0]]), nn.ReLU(), dense([[2, -1, 1]], [-1]))
    found = tl.deep_taylor(net.eval(), row(1, 1), 0)
    assert torch.allclose(found, row(1, 0))
    # z^B in (-1, 1): the terms of the first layer are 2 + 2, 3 + 3, 1 + 1
    assert torch.allclose(tl.deep_taylor(net, row(1, 1), 0, bounds=(-1.0, 1.0)), row(1, 0))


def test_deep_taylor_of_a_hidden_unit_is_the_taylor_term_at_a_root_without_negative_inputs():
    torch.manual_seed(0)
    unit = nn.Linear(5, 1).double().eval().requires_grad_(False)
    unit.weight.copy_(torch.tensor([[0.5, -0.3, 0.8, -0.2, 0.1]]))
    unit.bias.fill_(-0.05)
    a = normal(50, 5).abs()
    a, weight = a[unit(a)[:, 0] > 0], unit.weight[0]
    v = a * (weight > 0)  # the direction of the search: inputs with a positive weight shrink
    root = a - unit(a) / (v @ weight)[:, None] * v
    assert bool((root >= 0).all()) and torch.allclose(unit(root), torch.zeros(()).double())
    by_rule = tl.lrp(unit, a, 0, rule="alpha_beta", biases=False, epsilon=1e-9)
    assert len(a) > 10 and close((a - root) * weight, by_rule, 1e-6)
    first = nn.Linear(5, 5, bias=False).double()  # hands each input on as it is
    first.weight.data = torch.eye(5).double()
    net = nn.Sequential(first, nn.ReLU(), unit).eval()
    assert close(tl.deep_taylor(net, a, 0), (a - root) * weight, 1e-6)


def test_deep_taylor_shares_a_sum_by_its_positive_terms():
    # the terms are 3 and -2, of the score 1, and the mean's are 4, -1, 3 of 2
    model = lambda z: z @ row(1, 0).T + z @ row(0, -1).T  # noqa: E731
    assert torch.allclose(tl.deep_taylor(model, row(3, 2), 0), row(1, 0))
    mean = nn.Sequential(dense([[1, 0, 0], [0, 1, 0], [0, 0, 1]]), nn.AvgPool1d(3)).eval()
    found = tl.deep_taylor(lambda z: mean(z[:, None])[:, 0], row(4, -1, 3), 0)
    assert torch.allclose(found, 2 * row(4, 0, 3) / 7)


class Residual(nn.Module):
    """Two blocks with skip connections, batch norms and average pooling."""

    def __init__(self, bias):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 6, 3, bias=bias)
        self.convs = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1, bias=bias) for _ in range(4))
        self.head = nn.Linear(6, 3, bias=bias)

    def forward(self, z):
        z = self.stem(z).relu()
        for i in (0, 2):
            z = (z + self.convs[i + 1](self.convs[i](z).relu())).relu()
        return self.head(F.avg_pool2d(z, 2).mean((2, 3)))


@pytest.mark.parametrize("bounds", [None, BOUNDS])
@pytest.mark.parametrize("make", [convnet, Residual])
def test_deep_taylor_has_one_sign_and_sums_to_the_score(make, bounds):
    net, x = make(bias=False).double().eval(), pictures()
    scores = score(net, x)
    found = tl.deep_taylor(net, x, TARGET, bounds=bounds)
    assert torch.allclose(found.sum((1, 2, 3)), scores, rtol=1e-5)
    assert bool((found * scores.sign().view(2, 1, 1, 1) >= 0).all())


@pytest.mark.parametrize("bounds", [None, BOUNDS])
def test_deep_taylor_is_lrp_with_its_rules(bounds):
    net, x = convnet(bias=True), pictures()
    rule = {"": "alpha_beta", "0": "z_box" if bounds else "w_square"}
    wanted = tl.lrp(net, x, TARGET, rule=rule, bounds=bounds, biases=False, epsilon=1e-9)
    assert close(tl.deep_taylor(net, x, TARGET, bounds=bounds), wanted)


def test_deep_taylor_refuses_bad_input():
    net, x = convnet(bias=True), pictures()
    for given, name in ((dict(bounds=(0.0, 1.0)), "x"), (dict(bounds=3.0), "bounds")):
        with pytest.raises((ValueError, TypeError), match=rf"^{name}: "):
            tl.deep_taylor(net, x, TARGET, **given)
    with pytest.raises(NotImplementedError, match="has no rule for the operation _softmax"):
        tl.deep_taylor(lambda z: 2 * z.flatten(1).softmax(1), x, TARGET)


@pytest.mark.parametrize("layer", [conv, dense])
def test_a_norm_behind_a_layer_changes_no_share_by_weights(layer):
    plain, x = layer([[3, -1], [1, 2]], [1, -0.5]), row(1, 2)
    x = x[..., None, None] if layer is conv else x
    norm = (nn.BatchNorm2d if layer is conv else nn.BatchNorm1d)(2).double()
    norm.running_var.fill_(4.0)
    net = nn.Sequential(plain, norm, nn.Flatten()).eval()
    found = tl.lrp(net, x, 0, rule="w_square", epsilon=TINY).flatten(1)
    assert torch.allclose(found, net(x)[:, :1].detach() * row(9, 1) / 10)
