"""SmoothDiff: closed forms, SmoothGrad where nothing is neglected, loops, and what it refuses."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tutorial_lib as tl
from tests.closed_forms import Call, close, normal
from tests.rules import slow_smoothdiff as slow
from tutorial_book import load_results

NOISE = dict(sigma=0.7, samples=9, seed=3)


def mlp(*activations, width=7, seed=0):
    """Dense layers with these activations between them, in float64."""
    torch.manual_seed(seed)
    sizes = [6, *[width] * len(activations), 3]
    layers = []
    for i, activation in enumerate(activations):
        layers += [nn.Linear(sizes[i], sizes[i + 1]), activation]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], 3)).double().eval()


def convnet(seed=0):
    """Batch norm, a skip connection, cat, both kinds of pooling and dropout, in float64."""
    torch.manual_seed(seed)
    net = Mixed().double().eval()
    net.norm.running_mean.normal_()
    net.norm.running_var.uniform_(0.5, 2)
    return net.requires_grad_(False)


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second, self.head = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(8 * 4, 3)

    def forward(self, z):
        z = F.relu6(self.norm(self.first(z)))
        z = z + F.silu(self.second(z), inplace=True)
        z = torch.cat([F.max_pool2d(z, 3, 2, 1), F.avg_pool2d(z, 2)], 1)  # (N, 8, 4, 4)
        return self.head(F.dropout(F.max_pool2d(z, 2).flatten(1), training=False))


def Phi(z):
    return 0.5 * (1 + math.erf(z / 2**0.5))


# --- Closed forms ---


@pytest.mark.slow
def test_the_slope_of_a_relu_is_the_chance_to_be_above_0():
    x = torch.tensor([[0.3, -0.8, 2.0]], dtype=torch.float64)
    n, sigma = 2000, 0.9
    found = tl.smoothdiff(lambda z: z.relu().sum(1, keepdim=True), x, 0, sigma=sigma, samples=n)
    p = torch.tensor([[Phi(float(v) / sigma) for v in x[0]]], dtype=torch.float64)
    assert ((found - p).abs() < 4 * (p * (1 - p) / n).sqrt() + 1e-9).all()


@pytest.mark.slow
def test_two_relus_in_a_row_have_the_square_of_the_chance_and_the_smoothed_gradient_has_not():
    x, n = torch.tensor([[0.2]], dtype=torch.float64), 2000
    twice = lambda z: z.relu().relu()  # noqa: E731
    p = Phi(0.2 / 0.5)
    error = 4 * 2 * (p * (1 - p) / n) ** 0.5
    smooth = float(tl.smoothdiff(twice, x, 0, sigma=0.5, samples=n))
    assert abs(smooth - p**2) < error
    assert abs(float(tl.smoothgrad(twice, x, 0, sigma=0.5, samples=n)) - p) < error
    assert p - p**2 > 0.2  # what is neglected is a covariance


def test_a_linear_model_keeps_its_gradient_whatever_the_noise():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).double().eval()
    x = normal(2, 3, 2, 2)
    assert close(tl.smoothdiff(net, x, 1, sigma=5.0), tl.gradient(net, x, 1))


ACTIVATIONS = [nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Sigmoid, nn.Tanh, nn.PReLU, nn.Hardswish]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_with_one_layer_of_activations_it_is_smoothgrad_of_the_same_draws(activation):
    net, x = mlp(activation()), normal(3, 6)
    assert close(tl.smoothdiff(net, x, 2, **NOISE), tl.smoothgrad(net, x, 2, **NOISE))


POOLS = {
    "plain": nn.MaxPool2d(2),
    "overlapping": nn.MaxPool2d(3, 2, 1),
    "ceil": nn.MaxPool2d(2, 2, ceil_mode=True),
    "dilated": nn.MaxPool2d(2, 1, dilation=2),
    "oblong": nn.MaxPool2d((3, 2), (1, 2), (1, 0)),
    "to one place": nn.AdaptiveMaxPool2d(1),
    "to thirds": nn.AdaptiveMaxPool2d(3),
    "one dimension": Call(lambda z: F.max_pool1d(z.flatten(2), 4, 3)),
    "three dimensions": Call(lambda z: F.max_pool3d(z, 2)),
}


@pytest.mark.parametrize("name", POOLS)
def test_with_one_max_pooling_it_is_smoothgrad_of_the_same_draws(name):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 2), POOLS[name], nn.Flatten(), nn.LazyLinear(3)).double()
    x = normal(2, 3, 10, 10)
    net.eval()(x)
    assert close(tl.smoothdiff(net, x, 1, **NOISE), tl.smoothgrad(net, x, 1, **NOISE))


def test_one_draw_is_the_gradient_there_and_no_noise_is_the_gradient_at_x():
    net, x = convnet(), normal(2, 3, 8, 8)
    one = dict(sigma=0.5, samples=1, seed=4)
    assert close(tl.smoothdiff(net, x, 1, **one), tl.smoothgrad(net, x, 1, **one))
    assert close(tl.smoothdiff(net, x, 1, sigma=0.0, samples=3), tl.gradient(net, x, 1))


# --- The same in loops ---


def test_a_deep_network_of_dense_layers_is_the_product_of_mean_slopes():
    net, x = mlp(nn.ReLU(), nn.SiLU(), nn.ReLU6(), nn.Tanh()), normal(2, 6)
    found = tl.smoothdiff(net, x, 2, **NOISE)
    assert close(found, slow.dense_map(net, x, 2, **NOISE))
    assert not close(found, tl.smoothgrad(net, x, 2, **NOISE), 1e-3)


@pytest.mark.parametrize("kernel, stride, padding", [(2, 2, 0), (3, 2, 1), (3, 1, 1)])
def test_max_pooling_hands_back_by_how_often_each_place_is_the_largest(kernel, stride, padding):
    x, rectifier = normal(1, 1, 6, 6), nn.ReLU()
    pool = nn.MaxPool2d(kernel, stride, padding)
    net = nn.Sequential(pool, nn.Flatten(), nn.LazyLinear(3)).double().eval()
    net(x)
    copies = slow.draws(x, **NOISE)[:, 0, 0]
    shares = slow.pool_shares(rectifier(copies), kernel, stride, padding)
    slopes = (copies > 0).double().mean(0)
    wanted = slopes * torch.einsum("w,whv->hv", net[-1].weight[1].detach(), shares)
    found = tl.smoothdiff(nn.Sequential(rectifier, net).eval(), x, 1, **NOISE)
    assert close(found[0, 0], wanted)


# --- What holds for every method ---


@pytest.mark.slow
def test_rows_do_not_mix_and_batch_size_does_not_matter():
    net, x, target = convnet(), normal(3, 3, 8, 8), torch.tensor([2, 0, 1])
    sigma = torch.tensor([0.1, 0.5, 0.9]).double().view(3, 1, 1, 1)
    options = dict(samples=5, seed=1)
    whole = tl.smoothdiff(net, x, target, sigma=sigma, **options)
    for i in range(3):
        alone = tl.smoothdiff(net, x[[i]], int(target[i]), sigma=float(sigma[i]), **options)
        assert close(whole[[i]], alone, 1e-12)
    for size in (1, 2):
        again = tl.smoothdiff(net, x, target, sigma=sigma, batch_size=size, **options)
        assert close(again, whole, 1e-12)
    again = tl.smoothdiff(net, x, target, sigma=sigma, **options)
    assert torch.equal(again, whole)
    other = tl.smoothdiff(net, x, target, sigma=sigma, samples=5, seed=2)
    assert not close(other, whole, 1e-3)


@pytest.mark.parametrize("last", [nn.Softmax(1), nn.LogSoftmax(1), nn.Sigmoid()])
@pytest.mark.slow
def test_the_map_is_of_the_logit_before_a_probability(last):
    net, x = convnet(), normal(1, 3, 8, 8)
    found = tl.smoothdiff(nn.Sequential(net, last).eval(), x, 1, **NOISE)
    assert torch.equal(found, tl.smoothdiff(net, x, 1, **NOISE))


@pytest.mark.slow
def test_the_bundled_network_is_followed_and_left_as_it_was():
    model = tl.load_model("efficientnet_lite0", device="cpu")
    x = model.preprocess(tl.load_image("coffee"))[..., ::4, ::4]
    before = {name: v.clone() for name, v in model.state_dict().items()}
    one = dict(sigma=0.2, samples=1, seed=1)
    found = tl.smoothdiff(model, x, 967, **one)
    assert close(found, tl.smoothgrad(model, x, 967, **one), 1e-4)
    assert all(torch.equal(before[name], v) for name, v in model.state_dict().items())


def test_the_docstring_has_the_stored_numbers():
    rows = load_results("smoothdiff")
    found = {}
    for method, column in (
        ("SmoothDiff", "bias"),
        ("SmoothDiff", "error"),
        ("SmoothGrad", "error"),
    ):
        values = torch.tensor([row[column] for row in rows if row["method"] == method])
        assert len(values) == 10 and float(values.std() / 10**0.5) < 0.06 * float(values.mean())
        found[f"{float(values.mean()):.2f}"] = method, column
    words = " ".join(tl.smoothdiff.__doc__.split())
    assert [*found] == ["0.32", "0.43", "0.87"] and all(number in words for number in found)


# --- What it refuses ---

REFUSED = {
    "mul": lambda z: (z * z).flatten(1),
    "_softmax": lambda z: 2 * z.flatten(1).softmax(1),
    "native_layer_norm": lambda z: F.layer_norm(z.flatten(1), (12,)),
    "gt": lambda z: torch.where(z > 0, z, 0.0).flatten(1),
    "maximum": lambda z: torch.maximum(z, 2 * z).flatten(1),
    "sort": lambda z: z.flatten(1).sort(1)[0],
    "round": lambda z: z.round().flatten(1),
    "adaptive_max_pool2d": lambda z: F.adaptive_max_pool2d(z, (2, 1)).flatten(1),
}


@pytest.mark.parametrize("operation", REFUSED)
def test_an_operation_without_rule_is_an_error_that_names_it_and_no_plain_gradient(operation):
    with pytest.raises(NotImplementedError) as error:
        tl.smoothdiff(REFUSED[operation], normal(2, 2, 3, 2), 1, **NOISE)
    line = REFUSED[operation].__code__.co_firstlineno
    message = f"model: SmoothDiff has no rule for the operation {operation} at"
    assert str(error.value).startswith(f"{message} test_smoothdiff.py:{line}")


def test_a_model_that_goes_another_way_on_noisy_inputs_is_refused():
    def branches(z):
        return z.relu() if float(z.detach().sum()) > 0 else z

    with pytest.raises(ValueError, match=r"^model: it runs other operations on noisy inputs"):
        tl.smoothdiff(branches, torch.full((1, 4), 0.01), 1, sigma=1.0, samples=20)


BAD = {
    "sigma negative": ("sigma", dict(sigma=-1.0)),
    "sigma a word": ("sigma", dict(sigma="much")),
    "samples 0": ("samples", dict(samples=0)),
    "seed negative": ("seed", dict(seed=-1)),
    "batch_size 0": ("batch_size", dict(batch_size=0)),
    "target too large": ("target", dict(target=9)),
    "x a list": ("x", dict(x=[1.0])),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_by_an_error_that_names_the_argument(case):
    name, given = BAD[case]
    keywords = dict(x=normal(2, 6), target=1, **NOISE) | given
    with pytest.raises((ValueError, TypeError), match=rf"^{name}: "):
        tl.smoothdiff(mlp(nn.ReLU()), **keywords)
