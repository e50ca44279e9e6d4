"""DeepLIFT: known answers, the slow oracle, captum, the choice of rules, and bad input."""

from itertools import pairwise

import captum.attr as peer
import pytest
import torch
from torch import nn

import tutorial_lib as tl
from tests.closed_forms import differs_by, hinge, linear, normal, saturating, tanh_mlp
from tests.rules import slow_deeplift as slow

RULES = ("rescale", "reveal_cancel", "genomics")


def minimum(x):
    """min(i1, i2), written with one relu."""
    return x[:, :1] - (x[:, :1] - x[:, 1:]).relu()


def minimum_net():
    """The same as a network: i1 = relu(i1) for the inputs of the tests."""
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)).double().eval()
    weights = [[[1.0, 0.0], [1.0, -1.0]], [0.0, 0.0], [[1.0, -1.0]], [0.0]]
    with torch.no_grad():
        for parameter, weight in zip(net.parameters(), weights, strict=True):
            parameter.copy_(torch.tensor(weight))
    return net


# --- Known answers ---


@pytest.mark.parametrize("rule", RULES)
def test_a_linear_score_gives_each_input_its_weighted_difference(rule):
    weight, x, b = normal(3, 5), normal(4, 5, seed=1), normal(4, 5, seed=2)
    target = torch.tensor([0, 1, 2, 0])
    found = tl.deeplift(linear(weight), x, target, baseline=b, rule=rule)
    assert torch.allclose(found, (x - b) * weight[target])


@pytest.mark.parametrize("rule", RULES)
def test_a_hinge_gives_its_rise_where_its_gradient_would_jump(rule):
    x = torch.tensor([[9.0], [10.0], [10.5], [12.0], [-3.0]])
    assert torch.allclose(tl.deeplift(hinge, x, 0, rule=rule), (x - 10).clamp(min=0))


@pytest.mark.parametrize("rule", RULES)
def test_a_saturated_score_is_not_lost(rule):
    # 1 - relu(1 - x) is flat at 2, where its gradient is 0.
    x = torch.tensor([[2.0], [0.25]])
    assert torch.allclose(tl.deeplift(saturating, x, 0, rule=rule), torch.tensor([[1.0], [0.25]]))


@pytest.mark.parametrize("model", [minimum, minimum_net()], ids=["function", "network"])
@pytest.mark.parametrize(
    "rule, wanted",
    [
        ("rescale", [[0.0, 1.0], [1.0, 0.0], [2.0, 0.0]]),
        ("reveal_cancel", [[0.5, 0.5], [0.5, 0.5], [1.0, 1.0]]),
    ],
)
def test_a_minimum_is_shared_only_by_reveal_cancel(model, rule, wanted):
    x = torch.tensor([[3.0, 1.0], [1.0, 3.0], [2.0, 2.0]]).double()
    assert torch.allclose(tl.deeplift(model, x, 0, rule=rule), torch.tensor(wanted).double())


@pytest.mark.parametrize(
    "rule, wanted",
    [("rescale", [[3.0, -1.0], [3.0, 3.0]]), ("reveal_cancel", [[2.5, -0.5], [3.0, 3.0]])],
)
def test_a_sum_through_a_relu_is_shared_by_the_rule(rule, wanted):
    x = torch.tensor([[3.0, -1.0], [8.0, 8.0]])
    bias = torch.tensor([[0.0], [10.0]])  # one network a row
    for i in range(2):
        found = tl.deeplift(lambda z, i=i: (z.sum(1, True) - bias[i]).relu(), x[[i]], 0, rule=rule)
        assert torch.allclose(found, torch.tensor(wanted)[[i]])


def test_two_equal_functions_get_the_papers_two_answers():
    # Sundararajan et al. (2017), their Figure 7: DeepLIFT is not implementation invariant.
    def f(x):
        return (x[:, :1].relu() - 1 - x[:, 1:].relu()).relu()

    def g(x):
        return ((x[:, :1] - 1).relu() - x[:, 1:].relu()).relu()

    x = torch.tensor([[3.0, 1.0]])
    assert torch.equal(f(x), g(x))
    assert torch.allclose(tl.deeplift(f, x, 0), torch.tensor([[1.5, -0.5]]))
    assert torch.allclose(tl.deeplift(g, x, 0), torch.tensor([[2.0, -1.0]]))


@pytest.mark.parametrize("stride, padding, dilation", [(2, 0, 1), (1, 1, 1), (1, 1, 2), (3, 0, 1)])
def test_each_window_of_a_max_pool_pays_one_place(stride, padding, dilation):
    # Overlapping windows too, where captum counts a place once.
    x, b, weight = normal(1, 1, 11), normal(1, 1, 11, seed=1), normal(20, seed=2)

    def model(z):
        pooled = nn.functional.max_pool1d(z, 3, stride, padding, dilation)
        return (pooled[:, 0] * weight[: pooled.shape[2]]).sum(1, keepdim=True)

    wanted = torch.zeros(11).double()
    starts = range(-padding, 11 + padding - 2 * dilation, stride)
    for window, start in enumerate(starts):
        places = [i for i in range(start, start + 3 * dilation, dilation) if 0 <= i < 11]
        at, from_ = x[0, 0, places], b[0, 0, places]
        winner = at.argmax() if at.max() >= from_.max() else from_.argmax()
        wanted[places[winner]] += weight[window] * (at.max() - from_.max())
    assert torch.allclose(tl.deeplift(model, x, 0, baseline=b)[0, 0], wanted)


# --- The oracle ---


def mlp(*sizes, act=nn.ReLU, bias=True):
    """Dense layers with an activation between them."""
    layers = []
    for i, (a, b) in enumerate(pairwise(sizes)):
        layers += [act()] * (i > 0) + [nn.Linear(a, b, bias=bias)]
    return nn.Sequential(*layers)


def convnet(bias=True, norm=True):
    def normed(channels):
        return [nn.BatchNorm2d(channels)] * norm

    return nn.Sequential(
        *(nn.Conv2d(2, 3, 3, stride=2, padding=1, bias=bias), *normed(3), nn.ReLU()),
        *(nn.AvgPool2d(2, stride=1), nn.Conv2d(3, 4, 2, bias=bias), *normed(4), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(16, 9, bias=bias), nn.ReLU(), nn.Linear(9, 3, bias=bias)),
    )


NETS = {  # name: (how it is made, the shape of one input)
    "mlp": (lambda: mlp(6, 10, 7, 3), (6,)),
    "mlp without biases": (lambda: mlp(6, 10, 7, 3, bias=False), (6,)),
    "two hidden units": (lambda: mlp(2, 2, 2, 3, bias=False), (2,)),
    "three and four hidden units": (lambda: mlp(3, 3, 4, 3), (3,)),
    "tanh": (lambda: mlp(5, 6, 6, 3, act=nn.Tanh), (5,)),
    "sigmoid without biases": (lambda: mlp(5, 6, 6, 3, act=nn.Sigmoid, bias=False), (5,)),
    "leaky relu": (lambda: mlp(5, 6, 6, 3, act=lambda: nn.LeakyReLU(0.2), bias=False), (5,)),
    "relu6": (lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU6(), nn.Linear(6, 3)), (4,)),
    "activation first": (lambda: nn.Sequential(nn.ReLU(), *mlp(5, 6, 3)), (5,)),
    "activation last": (lambda: nn.Sequential(*mlp(5, 6, 3), nn.ReLU()), (5,)),
    "dense on dense": (lambda: nn.Sequential(nn.Linear(5, 4), *mlp(4, 6, 3)), (5,)),
    "batch norm first and within": (
        lambda: nn.Sequential(
            *(nn.BatchNorm1d(5), nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.BatchNorm1d(6)),
            *(nn.Tanh(), nn.Linear(6, 3)),
        ),
        (5,),
    ),
    "convnet": (convnet, (2, 7, 7)),
    "convnet without biases": (lambda: convnet(bias=False, norm=False), (2, 7, 7)),
    "max pools": (
        lambda: nn.Sequential(
            *(nn.MaxPool2d(2, stride=1), nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
            *(nn.Flatten(), nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 3)),
        ),
        (2, 7, 7),
    ),
    "pool first and last": (
        lambda: nn.Sequential(
            *(nn.AvgPool2d(2), nn.Conv2d(2, 4, 2, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 2)),
            *(nn.BatchNorm2d(3), nn.AvgPool2d(3), nn.Flatten()),
        ),
        (2, 6, 6),
    ),
    "sequences": (
        lambda: nn.Sequential(
            *(nn.Conv1d(4, 5, 3), nn.ReLU(), nn.Conv1d(5, 3, 3, stride=2), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 3)),
        ),
        (4, 9),
    ),
}


PEERS = {  # more of them, for captum, which is right about max pooling between linear layers only
    **{
        f"captum's {act.__name__}": (lambda act=act: mlp(6, 9, 7, 3, act=act), (6,))
        for act in (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.LeakyReLU, nn.ELU, nn.Softplus)
    },
    "captum's convnet": (convnet, (2, 7, 7)),
    "captum's max pools": (
        lambda: nn.Sequential(
            *(nn.Conv2d(2, 4, 3, padding=1), nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.ELU()),
            *(nn.Conv2d(4, 5, 3, stride=2, padding=2), nn.BatchNorm2d(5), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(5, 3)),
        ),
        (2, 7, 7),
    ),
}
MAKERS = NETS | PEERS


def made(name, seed):
    """A network in float64, its batch norms as if trained."""
    torch.manual_seed(seed)
    make, shape = MAKERS[name]
    net = make().double().eval()
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (norm.running_mean, norm.bias.data, norm.weight.data):
                tensor.normal_()
            norm.running_var.uniform_(0.5, 1.5)
    return net, shape


def pairs(shape, seed):
    """(x, baseline): dense, from zero, tied in places, one-hot, and nearly all equal."""
    x, b = normal(3, *shape, seed=seed), normal(3, *shape, seed=seed + 100)
    yield x, b
    yield x, torch.zeros_like(b[:1])
    yield x, torch.where(normal(3, *shape, seed=seed + 1) > 0, x, b)
    rare = (normal(3, *shape, seed=seed + 2) > 1).double()
    yield rare, torch.full_like(b[:1], 0.25)
    yield rare * x, torch.zeros_like(b[:1])


def by_the_oracle(net, x, b, target, rule):
    rows = zip(x.split(1), b.expand_as(x).split(1), target.tolist(), strict=True)
    return torch.cat([slow.contributions(net, *row, rule=rule) for row in rows])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", NETS)
@pytest.mark.slow
def test_no_network_gets_other_numbers_than_from_the_definitions(name, rule):
    target = torch.tensor([0, 1, 2])
    for seed in range(1 if len(NETS[name][1]) > 1 else 2):  # maps have many units, rows have few
        net, shape = made(name, seed)
        for kind, (x, b) in enumerate(pairs(shape, seed)):
            found = tl.deeplift(net, x, target, baseline=b, rule=rule)
            wanted = by_the_oracle(net, x, b, target, rule)
            assert differs_by(found, wanted) < 1e-9, (seed, kind)
            rise = (net(x) - net(b)).gather(1, target[:, None])[:, 0]
            assert torch.allclose(found.flatten(1).sum(1), rise, atol=1e-9), (seed, kind)


def test_the_three_rules_are_three_methods():
    net, shape = made("convnet without biases", 0)
    maps = [tl.deeplift(net, normal(2, *shape), 0, rule=rule) for rule in RULES]
    for i in range(3):
        assert differs_by(maps[i], maps[i - 1]) > 1e-3


@pytest.mark.slow
def test_a_mapping_is_followed_by_name_by_module_and_by_the_nearest():
    net, shape = made("mlp", 0)
    nested = nn.Sequential(nn.Sequential(net[0], net[1]), nn.Sequential(*net[2:])).eval()
    x, b, target = normal(3, *shape), normal(1, *shape, seed=1), torch.tensor([0, 1, 2])
    reveal = "reveal_cancel"
    for rule, wanted in [
        ({"0": reveal}, {1: reveal}),
        ({nested[0]: reveal}, {1: reveal}),
        ({nested[1]: reveal}, {3: reveal}),
        ({"0.1": reveal, nested[1][1]: reveal}, {1: reveal, 3: reveal}),
        ({"1": reveal, "1.1": "rescale"}, {}),
        ({nested: reveal, "0": "rescale"}, {3: reveal}),
        ({"1": "genomics"}, {3: reveal}),
        ({}, {}),
    ]:
        found = tl.deeplift(nested, x, target, baseline=b, rule=rule)
        assert differs_by(found, by_the_oracle(net, x, b, target, wanted)) < 1e-9, rule


@pytest.mark.parametrize("rule", RULES)
def test_a_baseline_is_the_same_however_it_is_given(rule):
    net, shape = made("mlp", 0)
    x = normal(3, *shape)
    wanted = tl.deeplift(net, x, 1, baseline=torch.full_like(x, 0.25), rule=rule)
    for b in (0.25, torch.tensor(0.25), torch.full((1, 1), 0.25), torch.full((1, *shape), 0.25)):
        assert torch.allclose(tl.deeplift(net, x, 1, baseline=b, rule=rule), wanted)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("batch_size", [None, 1, 2])
def test_from_several_baselines_it_is_the_mean_of_the_maps_from_each(rule, batch_size):
    net, x, b = mlp(6, 9, 3).double().eval(), normal(3, 6), normal(3, 6, seed=1)
    each = [tl.deeplift(net, x, 1, baseline=one[None], rule=rule) for one in b]
    found = tl.deeplift(net, x, 1, baselines=b, rule=rule, batch_size=batch_size)
    assert torch.allclose(found, torch.stack(each).mean(0), atol=1e-12)
    rise = (net(x).detach() - net(b).detach().mean(0))[:, 1]
    assert torch.allclose(found.sum(1), rise, atol=1e-12)
    alone = tl.deeplift(net, x, 1, baselines=b[:1], rule=rule)
    assert torch.equal(alone, tl.deeplift(net, x, 1, baseline=b[:1], rule=rule))


def test_smoothed_each_noisy_copy_is_compared_with_all_baselines_however_many():
    net, x = mlp(6, 9, 3).double().eval(), normal(3, 6)
    for b in (normal(3, 6, seed=1), normal(2, 6, seed=1)):  # as many as pictures, and fewer
        options = dict(sigma=0.3, samples=4, method=tl.deeplift)
        each = [tl.smoothgrad(net, x, 1, baseline=one[None].expand(3, 6), **options) for one in b]
        found = tl.smoothgrad(net, x, 1, baselines=b, **options)
        assert torch.allclose(found, torch.stack(each).mean(0), atol=1e-12)


# --- captum ---


@pytest.mark.filterwarnings("ignore:.*hooks:UserWarning", "ignore:Setting forward")
def test_captum_agrees_on_several_baselines():
    net, target = mlp(6, 9, 7, 3).double().eval(), torch.tensor([0, 2, 1, 1])
    x, b = normal(4, 6), normal(5, 6, seed=1)
    theirs = peer.DeepLiftShap(net).attribute(x, b, target=target)
    assert differs_by(tl.deeplift(net, x, target, baselines=b), theirs) < 1e-9


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")
@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require")
@pytest.mark.parametrize("name", PEERS)
def test_captum_agrees_on_the_rescale_rule(name):
    target = torch.tensor([2, 0, 1])
    net, shape = made(name, seed=0)
    for kind, (x, b) in enumerate(pairs(shape, seed=0)):
        theirs = peer.DeepLift(net).attribute(x, b, target)
        assert differs_by(tl.deeplift(net, x, target, baseline=b), theirs) < 1e-10, kind


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")
@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require")
def test_captums_max_pool_after_an_activation_is_not_an_oracle():
    # It misses its own sum; if captum mends it, this fails and such networks join the peers.
    torch.manual_seed(0)
    layers = nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 1)
    net, x, b = nn.Sequential(*layers).double().eval(), *normal(2, 1, 2, 8, 8)
    rise = net(x) - net(b)
    assert abs(peer.DeepLift(net).attribute(x, b, 0).sum() - rise) > 0.1
    assert abs(tl.deeplift(net, x, 0, baseline=b).sum() - rise) < 1e-9


# --- Bad input ---

X, NET = normal(3, 6), tanh_mlp()
BAD = {
    "baseline of another shape": ("baseline", dict(baseline=torch.zeros(1, 5))),
    "baseline of two rows for three": ("baseline", dict(baseline=torch.zeros(2, 6))),
    "baseline without a batch": ("baseline", dict(baseline=torch.zeros(6))),
    "baseline NaN": ("baseline", dict(baseline=float("nan"))),
    "baseline a word": ("baseline", dict(baseline="black")),
    "baseline None": ("baseline", dict(baseline=None)),
    "baseline beside baselines": ("baseline", dict(baseline=1.0, baselines=torch.zeros(2, 6))),
    "baselines of another shape": ("baselines", dict(baselines=torch.zeros(2, 5))),
    "baselines a number": ("baselines", dict(baselines=3)),
    "rule unknown": ("rule", dict(rule="rescal")),
    "rule None": ("rule", dict(rule=None)),
    "rule of a name that is not there": ("rule", dict(rule={"7": "rescale"})),
    "rule of a module elsewhere": ("rule", dict(rule={nn.ReLU(): "rescale"})),
    "rule of a module for a function": ("rule", dict(model=lambda x: x, rule={NET: "rescale"})),
    "rule unknown in a mapping": ("rule", dict(rule={"1": "linear"})),
    "rule no word in a mapping": ("rule", dict(rule={"1": 1})),
    "rule of a number": ("rule", dict(rule={1: "rescale"})),
    "normalize with one class": (
        "normalize",
        dict(model=lambda x: x.sum(1, keepdim=True), normalize=True),
    ),
    "target out of range": ("target", dict(target=3)),
    "x of integers": ("x", dict(x=torch.ones(3, 6).long())),
    "x with NaN": ("x", dict(x=X * float("nan"))),
    "model in training mode": ("model", dict(model=tanh_mlp().train())),
    "model of one number a row": ("model", dict(model=lambda x: x.sum(1))),
    "model that ignores x": ("model", dict(model=lambda x: torch.zeros(3, 3))),
    "model that detaches x": ("model", dict(model=lambda x: x.detach() * 2)),
    "batch_size 0": ("batch_size", dict(batch_size=0)),
    "seed negative": ("seed", dict(seed=-1)),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_by_an_error_that_names_the_argument(case):
    name, given = BAD[case]
    arguments = {"model": NET, "x": X, "target": 0, **given}
    model, x, target = (arguments.pop(key) for key in ("model", "x", "target"))
    with pytest.raises((ValueError, TypeError, NotImplementedError), match=rf"(^|\W){name}\W"):
        tl.deeplift(model, x, target, **arguments)


# --- Three small rules ---


def test_a_difference_below_the_threshold_gets_the_slope_at_the_reference():
    kink = torch.tensor([[5e-8, -5e-8, 2e-7]], dtype=torch.float64)
    found = tl.deeplift(lambda x: x.relu().sum(1, keepdim=True), kink, 0)
    assert found.tolist() == [[0, 0, 2e-7]]  # relu'(0) = 0, though the chord has slope 1


def test_a_product_gives_each_factor_half_of_both_orders():
    x, b = torch.tensor([[3.0, 2.0]]).double(), torch.ones(1, 2).double()
    for rule in ("rescale", "reveal_cancel"):
        found = tl.deeplift(lambda z: z[:, :1] * z[:, 1:], x, 0, baseline=b, rule=rule)
        assert torch.allclose(found, torch.tensor([[2 * 1.5, 1 * 2.0]]).double()), rule


def test_normalize_subtracts_the_mean_over_classes():
    weight = normal(3, 4, seed=5)
    x = normal(2, 4, seed=6)
    found = tl.deeplift(lambda z: z @ weight.T, x, 1, normalize=True)
    assert torch.allclose(found, x * (weight[1] - weight.mean(0)))
