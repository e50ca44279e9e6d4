"""Preparing a network must change its speed and nothing else."""

import pytest
import torch
from torch import nn

import tutorial_lib as tl
from tests.closed_forms import normal
from tutorial_lib.fast.prepare_network import prepare


def norms(model):
    return sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())


def shaken(model):
    """Batch norms with statistics of their own: fresh ones would fold to the identity."""
    torch.manual_seed(0)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.1)
            m.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias)
    return model.double().eval()


@pytest.mark.parametrize("name, left", [("resnet18", 0), ("mobilenet_v2", 0), ("densenet121", 62)])
@pytest.mark.slow
def test_folding_changes_no_score_and_gradient_and_leaves_only_norms_that_follow_no_convolution(
    name, left
):
    # densenet normalises before its convolutions: half of its norms read concatenations.
    from torchvision.models import get_model

    model, x = shaken(get_model(name)), normal(2, 3, 32, 32)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fast = prepare(model, x)
    assert norms(fast) == left < norms(model)
    assert torch.allclose(fast(x), model(x), rtol=1e-9)
    slopes = [tl.gradient(net, x, torch.tensor([3, 500])) for net in (model, fast)]
    assert torch.allclose(*slopes, rtol=0, atol=1e-9 * float(slopes[0].abs().max()))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
    assert not any(p.requires_grad for p in fast.parameters())
    assert not any(m.training for m in fast.modules())
    assert not any(m._forward_hooks for m in [*fast.modules(), *model.modules()])


class Twice(nn.Module):
    """A convolution whose output is read beside its norm as well: folding would be wrong."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.conv(x)
        return (self.norm(y) + y).mean((2, 3))


def test_a_fold_that_would_change_the_scores_is_left_out():
    model, x = shaken(Twice()), normal(2, 3, 8, 8)
    fast = prepare(model, x)
    assert norms(fast) == 1 and torch.allclose(fast(x), model(x), rtol=1e-9)


def test_norms_after_dense_and_one_and_three_dimensional_layers_are_folded():
    torch.manual_seed(0)
    nets = {
        (5, 7): nn.Sequential(nn.Linear(7, 4), nn.BatchNorm1d(4), nn.ReLU()),
        (5, 3, 9): nn.Sequential(nn.Conv1d(3, 4, 3, bias=False), nn.BatchNorm1d(4)),
        (5, 3, 6, 6, 6): nn.Sequential(nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4)),
    }
    for shape, net in nets.items():
        net[1].running_mean.normal_()
        net[1].running_var.uniform_(0.5, 1.5)
        net, x = net.append(nn.Flatten()).double().eval(), normal(*shape)
        fast = prepare(net, x)
        assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in fast.modules())
        assert torch.allclose(fast(x), net(x), rtol=1e-9)


def test_a_norm_over_another_dimension_or_of_a_made_weight_stays():
    tokens = nn.Sequential(nn.Linear(7, 4), nn.BatchNorm1d(3), nn.Flatten()).double().eval()
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    nn.utils.parametrizations.weight_norm(made[0])
    for net, x in ((tokens, normal(2, 3, 7)), (made.double().eval(), normal(2, 3, 5, 5))):
        fast = prepare(net, x)
        assert torch.equal(fast(x), net(x)) and type(fast[1]) is type(net[1])


@pytest.mark.slow
def test_without_an_example_the_first_convolution_says_what_goes_in():
    net = shaken(nn.Sequential(nn.Conv2d(5, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1)))
    net.append(nn.Flatten()).eval()
    fast, x = tl.models.prepare(net.float()), normal(2, 5, 9, 9, dtype=torch.float32)
    assert norms(fast) == 0 and torch.allclose(fast(x), net(x), atol=1e-5)
    state = torch.get_rng_state()
    prepare(net)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match="x: a model without"):
        prepare(nn.Linear(3, 2).eval())
    with pytest.raises(ValueError, match=r"x: none was given.*\(1, 5, 224, 224\).*example"):
        prepare(nn.Sequential(*net[:2], nn.Flatten(), nn.Linear(7, 2)).eval())


class Viewed(nn.Module):
    """view() does not take pictures with channels last."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU6(True)

    def forward(self, x):
        y = self.act(self.norm(self.conv(x)))
        return y.view(len(y), -1)


class Rewritten(Viewed):
    """What comes out of the activation is written over, as its lean form cannot allow."""

    def forward(self, x):
        y = self.act(self.norm(self.conv(x)))
        y *= 2
        return y.flatten(1)


@pytest.mark.parametrize("kind", [Viewed, Rewritten])
def test_a_step_that_would_break_the_model_is_left_out_and_the_others_are_not(kind):
    net, x = shaken(kind()), normal(2, 3, 8, 8)
    fast, target = prepare(net, x), torch.tensor([2, 70])
    assert norms(fast) == 0 and torch.allclose(fast(x), net(x), rtol=1e-9)
    slopes = [tl.smoothgrad(n, x, target, sigma=0.1, samples=3) for n in (net, fast)]
    assert torch.allclose(*slopes, rtol=1e-9)
    last = fast.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert last == (kind is Rewritten) and (type(fast.act) is nn.ReLU6) == (kind is Rewritten)


def test_scores_that_are_not_finite_are_refused():
    net = nn.Conv2d(1, 1, 1).eval()
    net.bias.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="finite"):
        prepare(net, normal(1, 1, 2, 2, dtype=torch.float32))


@pytest.mark.slow
def test_a_loaded_network_can_be_prepared_again_and_its_input_is_left_alone():
    model = tl.load_model("efficientnet_lite0", device="cpu")
    x = model.preprocess(tl.load_image("coffee"))[..., 64:160, 64:160]
    again, before = tl.models.prepare(model, x), x.clone()
    assert again.categories == model.categories and torch.equal(again(x), model(x))
    prepare(nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 2, 1)).eval(), x)
    assert torch.equal(x, before)


def test_training_mode_and_functions_are_refused():
    with pytest.raises(ValueError, match="training mode"):
        prepare(nn.Conv2d(3, 4, 3), normal(1, 3, 8, 8))
    with pytest.raises(TypeError, match="model"):
        prepare(torch.relu, normal(1, 3, 8, 8))


class Gate(nn.Module):
    """Rows of one kind skip the activation and the norm: independent, but a branch on values."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.act = nn.ReLU6(inplace=True)

    def forward(self, z):
        y = self.conv(20 * z)
        odd = z[:, 0, 0, 0] > 1.0
        if odd.any():
            y = torch.where(odd[:, None, None, None], y, self.norm(y).clamp(0, 6))
        else:
            y = self.act(self.norm(y))
        return y.mean((2, 3))


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("batch_size", [None, 1, 5])
def test_a_network_that_branches_on_its_values_is_the_same_when_it_is_prepared(seed, batch_size):
    net, x = shaken(Gate()), 0.3 * normal(1, 4, 6, 6, seed=seed)
    fast = prepare(net, x)
    options = dict(sigma=0.7, samples=50, batch_size=batch_size, seed=seed)
    maps = [tl.smoothgrad(n, x, 2, **options) for n in (net, fast)]
    assert torch.allclose(*maps, rtol=1e-9, atol=1e-12)
    assert norms(fast) == 1  # which another branch does not run


def test_what_is_left_out_is_logged_with_its_reason(caplog):
    with caplog.at_level("INFO", "tutorial_lib"):
        prepare(shaken(Gate()), normal(1, 4, 6, 6))
        prepare(shaken(Viewed()), normal(2, 3, 8, 8))
    assert "reads values" in caplog.text and "_channels_last: view size" in caplog.text


def test_a_model_that_takes_no_negative_numbers_is_prepared():
    class Root(nn.Module):
        def forward(self, z):
            if bool((z < 0).any()):
                raise ValueError("no negative numbers")
            return z.sqrt().flatten(1)

    x = normal(1, 3, 4, 4).abs()
    assert torch.equal(prepare(Root().eval(), x)(x), Root()(x))


BRANCHES = {
    "nonzero": lambda z: len((z > 6).nonzero()) == 0,
    "allclose": lambda z: torch.allclose(z, z.clamp(max=6)),
    "equal": lambda z: torch.equal(z, z.clamp(max=6)),
    "mask": lambda z: z[z > 6].numel() == 0,
}


@pytest.mark.parametrize("name", BRANCHES)
def test_other_ways_to_read_a_value_are_seen(name):
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, z):
            y = self.conv(z)
            return (self.norm(y) if BRANCHES[name](z) else y).mean((2, 3))

    net, x = shaken(Branch()), normal(1, 3, 6, 6) / 3
    fast = prepare(net, x)
    assert norms(fast) == 1 and torch.allclose(fast(9 * x), net(9 * x), rtol=1e-9)


def test_a_norm_of_an_output_that_was_written_over_is_not_folded():
    class Written(Viewed):
        def forward(self, x):
            y = self.conv(x)
            y.clamp_(-0.1, 0.1)
            return self.act(self.norm(y)).flatten(1)

    net, x = shaken(Written()), normal(2, 3, 8, 8)
    fast = prepare(net, x)
    assert norms(fast) == 1 and torch.allclose(fast(x), net(x), rtol=1e-9)


def test_a_module_that_keeps_a_tensor_of_a_call_can_be_prepared():
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, z):
            self.features = self.layer(z)
            return self.features

    net, x = Keeps().eval(), torch.randn(2, 6)
    scores = net(x)
    assert net.features.requires_grad and torch.allclose(tl.prepare(net, x)(x), scores)


READERS = {
    "where": lambda z: torch.where(z > 3)[0].numel() == 0,
    "in": lambda z: 3.5 not in z,
    "unique": lambda z: len(torch.unique_consecutive(z.round())) == 1,
    "format": lambda z: float(f"{z.max():.2f}") < 3,
}


@pytest.mark.parametrize("name", READERS)
def test_norms_are_not_folded_where_values_are_read_in_another_way(name):
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)

        def forward(self, z):
            y = self.a(z) if READERS[name](z) else self.a(-z)
            return self.b(y).mean((2, 3))

    prepared = tl.prepare(Branches().eval(), torch.rand(2, 1, 4, 4))
    assert isinstance(prepared.b, nn.BatchNorm2d)
