"""Guided backpropagation and DeconvNet say where they have nothing to change."""

import warnings

import pytest
import torch
from torch import nn

import tutorial_lib as tl
from tests.closed_forms import normal

X = normal(2, 1, 6, 6, dtype=torch.float32)
METHODS = {"guided_backprop": tl.guided_backprop, "deconvnet": tl.deconvnet}


def network(*middle):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), *middle, nn.Flatten(), nn.LazyLinear(3)).eval()


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rows, self.head = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, z):
        return self.head(self.rows(z[:, 0])[0][:, -1])


@pytest.mark.parametrize("name", METHODS)
def test_without_a_rectifier_the_map_is_the_gradient_and_a_warning_says_so(name):
    for net in (network(nn.GELU()), network(), Recurrent().eval()):
        net(X)
        with pytest.warns(
            UserWarning, match=f"model: {name} changes.*the gradient of its operations"
        ):
            found = METHODS[name](net, X, 1)
        assert torch.allclose(found, tl.gradient(net, X, 1), atol=1e-7)


@pytest.mark.parametrize("name", METHODS)
def test_with_a_rectifier_there_is_no_warning(name):
    for act in (nn.ReLU(), nn.ReLU6(inplace=True)):
        net = network(act)
        net(X)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            METHODS[name](net, X, 1)


class HalfWritten(nn.Module):
    """One ReLU of PyTorch's, and one that is written with where."""

    def __init__(self):
        super().__init__()
        self.first, self.head = network(nn.ReLU(), nn.Flatten(), nn.LazyLinear(8)), nn.LazyLinear(3)

    def forward(self, z):
        h = self.first(z)
        return self.head(torch.where(h > 0, h, 0.0))


@pytest.mark.parametrize("name", METHODS)
def test_a_rectifier_written_with_where_beside_others_is_named(name):
    net = HalfWritten().eval()
    net(X)
    with pytest.warns(UserWarning, match=f"{name} passes gradients unchanged through the where"):
        METHODS[name](net, X, 1)


class Straight(torch.autograd.Function):
    """Rounding whose backward pass lets gradients through."""

    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, up):
        return up


@pytest.mark.parametrize("name", METHODS)
def test_a_straight_through_function_is_no_silent_zero(name):
    net = network(nn.ReLU())
    net(X)
    assert bool(tl.gradient(lambda z: net(Straight.apply(4 * z)), X, 1).any())
    with pytest.raises(NotImplementedError, match=f"model: round at .*{name} would be 0.*tl.grad"):
        METHODS[name](lambda z: net(Straight.apply(4 * z)), X, 1)


def test_a_model_that_fills_a_buffer_of_its_own_at_random_is_followed():
    net = network(nn.ReLU())
    net(X)

    def model(z):
        noise = torch.empty(6, 6)
        torch.rand(6, 6, out=noise, generator=torch.Generator().manual_seed(0))
        return net(z + noise)

    for method in (tl.deeplift, tl.lrp, tl.guided_backprop):
        assert method(model, X, 1).shape == X.shape


@pytest.mark.parametrize("name", METHODS)
def test_rectifiers_are_known_in_every_spelling(name):
    zero = torch.tensor(0.0, dtype=X.dtype)
    spellings = (
        lambda z: z.clamp(min=zero),
        lambda z: z.fmax(zero),
        lambda z: nn.functional.leaky_relu(z, 0.0),
    )
    net = network(nn.Identity())
    wanted = METHODS[name](Spelled(net, torch.relu), X, 1)
    for spelling in spellings:
        assert torch.equal(METHODS[name](Spelled(net, spelling), X, 1), wanted)


class Spelled(nn.Module):
    """A network whose rectifier is a function."""

    def __init__(self, net, rectifier):
        super().__init__()
        self.net, self.rectifier = net, rectifier
        self.eval()(X)

    def forward(self, z):
        for layer in self.net:
            z = self.rectifier(z) if isinstance(layer, nn.Identity) else layer(z)
        return z


@pytest.mark.parametrize("name", METHODS)
def test_a_path_of_complex_numbers_keeps_its_gradient(name):
    def spectrum(z):
        return torch.fft.rfft(z.flatten(1)).abs()

    with pytest.warns(UserWarning, match="gradient of its operations"):
        found = METHODS[name](spectrum, X, 1)
    assert torch.allclose(found, tl.gradient(spectrum, X, 1), atol=1e-7)


class StraightThrough(torch.autograd.Function):
    """0 or 1, whose backward pass is that of the identity."""

    @staticmethod
    def forward(context, z):
        return (z > 0).to(z)

    @staticmethod
    def backward(context, grad_output):
        return grad_output


@pytest.mark.parametrize("name", METHODS)
def test_a_backward_pass_of_the_models_own_is_named(name):
    def binary(z):
        return StraightThrough.apply(z.flatten(1)) + z.flatten(1).relu()

    with pytest.warns(UserWarning, match="StraightThrough .* backward pass of its own"):
        METHODS[name](binary, X, 1)
