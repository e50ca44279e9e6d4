"""Grad-CAM++, LayerCAM and Score-CAM: by hand, by slow loops, beside pytorch-grad-cam; errors."""

import math
from contextlib import nullcontext, redirect_stderr
from copy import deepcopy
from functools import partial
from io import StringIO

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tutorial_lib as tl
from tests.cam.test_tokens import ERRORS, LAYOUT
from tests.cam.tokens import VIT
from tests.closed_forms import Call, close, normal

X, TARGET = normal(4, 3, 13, 16), torch.tensor([2, 0, 1, 2])
BY_GRADIENT = [tl.grad_cam_plus_plus, tl.layer_cam]
KIN = [*BY_GRADIENT, tl.score_cam]
TAIL = nn.AdaptiveAvgPool2d(1), nn.Flatten()
every = pytest.mark.parametrize("method", KIN, ids=lambda method: method.__name__)


def convnet(*behind):
    """Rectifiers overwrite what stands before them; the layers are "0" to "9"."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(6, 8, 3), nn.ReLU(True), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    layers += [nn.Linear(32, 10), nn.ReLU(), nn.Linear(10, 3)]
    return nn.Sequential(*layers, *behind).double().eval()


def read(score):
    """A network whose layer "0" is its input, and that has one score."""
    return nn.Sequential(nn.Identity(), Call(lambda z: score(z)[:, None])).eval()


def cells(*rows):
    """One picture with a channel of 1 x 2 cells for each pair."""
    return torch.tensor([[[row] for row in rows]], dtype=torch.float64)


def by_hand(method, score, *rows):
    return method(read(score), cells(*rows), 0, layer="0", channels="first")[0, 0]


# --- By hand ---


def test_plus_plus_of_a_sum_of_cells_is_each_channel_over_two_plus_its_part_of_the_score():
    """f = sum_k a_k S_k with S_k the sum of two cells: w_k = 2 max(0, a_k) / (2 + a_k S_k)."""
    a = torch.tensor([3.0, -1.0, 0.5], dtype=torch.float64)
    found = by_hand(
        tl.grad_cam_plus_plus, lambda z: (z.sum((2, 3)) * a).sum(1), (1, 3), (7, 2), (0, 4)
    )
    first, third = 2 * 3 / (2 + 3 * 4), 2 * 0.5 / (2 + 0.5 * 4)
    assert torch.allclose(found, torch.tensor([first * 1, first * 3 + third * 4]).double())


@pytest.mark.slow
def test_plus_plus_weighs_by_its_second_and_third_derivatives_of_the_exponential_of_the_score():
    """The formula with Y = exp(f) and autograd three times over, one cell at a time."""
    net, x = convnet(), X[:1]
    front, behind = net[:5], net[5:]
    a = front(x.clone()).detach()
    score = float(behind(a.clone())[0, 2].detach())
    wanted = torch.zeros_like(a[0, 0])
    for channel in range(8):
        w = 0.0
        for place in range(a[0, channel].numel()):
            index = 0, channel, place // a.shape[3], place % a.shape[3]
            cell = a[index].clone().requires_grad_()
            y, derivatives = behind(a.index_put(tuple(map(torch.tensor, index)), cell))[0, 2], []
            y = y.exp()
            for _ in range(3):
                (y,) = torch.autograd.grad(y, cell, create_graph=True)
                derivatives.append(float(y.detach()))
            one, two, three = derivatives
            if one > 0:
                w += two / (2 * two + float(a[0, channel].sum()) * three) * one / math.exp(score)
        wanted += w * a[0, channel]
    found = tl.grad_cam_plus_plus(net, x, 2, layer="4", upsample=None)
    assert close(found[0], wanted)


def test_layer_cam_keeps_each_positive_gradient_in_its_place():
    """f = sum A^2 / 2 has the gradient A: squares where A is positive, else nothing."""
    found = by_hand(tl.layer_cam, lambda z: (z**2).sum((1, 2, 3)) / 2, (3, -2), (-1, 4))
    assert found.tolist() == [9, 16]


def test_a_map_of_layer_cam_is_cut_where_channels_together_are_negative():
    found = by_hand(tl.layer_cam, lambda z: z.sum((1, 2, 3)), (3, 1), (-1, -4))
    assert found.tolist() == [2, 0]


def test_right_before_a_mean_and_a_dense_layer_layer_cam_is_grad_cam_of_what_speaks_for_it():
    torch.manual_seed(0)
    front, head = [nn.Conv2d(3, 4, 3), nn.ReLU()], nn.Linear(4, 2)
    net = nn.Sequential(*front, *TAIL, head).double().eval()
    found = tl.layer_cam(net, X, 1, layer="1", upsample=None)
    assert bool((head.weight[1] < 0).any())
    head.weight.data.clamp_(min=0)
    assert close(found, tl.grad_cam(net, X, 1, layer="1", upsample=None))


def test_score_cam_of_a_weighted_sum_covers_all_but_the_greatest_cells():
    """f = x . (2, 1), channels x and its mirror: the masks are (0, 1) and (1, 0)."""
    net = nn.Sequential(
        Call(lambda z: torch.cat([z, z.flip(3)], 1)),
        Call(lambda y: y[:, :1] @ torch.tensor([[2.0], [1.0]]).double()),
        nn.Flatten(),
    ).eval()
    found = tl.score_cam(net, cells((1, 3)), 0, layer="0", channels="first")[0, 0]
    w = torch.tensor([3.0, 2.0]).double().softmax(0)
    assert torch.allclose(found, w[0] * torch.tensor([1, 3]) + w[1] * torch.tensor([3, 1]))


def test_in_score_cam_a_number_that_is_added_to_all_scores_changes_nothing():
    call = dict(target=TARGET, layer="4")
    moved = convnet(Call(lambda scores: scores + 7))
    assert close(tl.score_cam(moved, X, **call), tl.score_cam(convnet(), X, **call))


def test_in_score_cam_a_constant_channel_covers_all():
    net = nn.Sequential(Call(lambda z: torch.cat([z, 0 * z + 5], 1)), Call(lambda y: y[:, 0]))
    net = nn.Sequential(net[0], net[1], nn.Flatten(), Call(lambda y: y.sum(1)[:, None])).eval()
    found = tl.score_cam(net, cells((0, 2)), 0, layer="0", channels="first")[0, 0]
    w = torch.tensor([2.0, 0.0]).double().softmax(0)  # f(x * 0) is 0
    assert torch.allclose(found, w[0] * torch.tensor([0, 2]) + w[1] * torch.tensor([5, 5]))


# --- Slow loops ---


def slow_plus_plus(a, g, score, size, eps=0.0):
    """Eq. 19 with powers, channel by channel and cell by cell, as the paper has it."""
    total = torch.zeros_like(a[0])
    for channel, slopes in zip(a, g, strict=True):
        w = 0.0
        for slope in slopes.flatten().tolist():
            if slope > 0:
                below = 2 * slope**2 + float(channel.sum()) * slope**3 + eps
                w += slope**2 / below * slope
        total += w * channel
    return total.clamp(min=0)


def slow_layer(a, g, score, size):
    total = torch.zeros_like(a[0])
    for channel, slopes in zip(a, g, strict=True):
        for i in range(len(channel)):
            for j in range(len(channel[0])):
                total[i, j] += max(0.0, float(slopes[i, j])) * channel[i, j]
    return total.clamp(min=0)


def slow_score(a, g, score, size):
    """score: from a mask of this size to the score of the picture behind it."""
    increases = []
    for channel in a:
        drawn = F.interpolate(channel[None, None], size, mode="bilinear")[0, 0]
        width = drawn.max() - drawn.min()
        mask = (drawn - drawn.min()) / width if width > 0 else 0 * drawn
        increases.append(score(mask) - score(0 * mask))
    total = sum(torch.exp(c) for c in increases)
    weighted = (torch.exp(c) / total * b for c, b in zip(increases, a, strict=True))
    return sum(weighted).clamp(min=0)


def slowly(rule, net, k, x, target):
    """A rule picture by picture, in a network cut behind layer k."""
    maps = []
    for picture, label in zip(x, target, strict=True):
        a = net[: k + 1](picture[None].clone()).detach().requires_grad_()
        (g,) = torch.autograd.grad(net[k + 1 :](a.clone())[0, label], a)

        def score(mask, picture=picture, label=label):
            return net((picture * mask)[None])[0, label].detach()

        maps.append(rule(a[0].detach(), g[0], score, x.shape[2:]))
    return torch.stack(maps)


RULES = [slow_plus_plus, slow_layer, slow_score]
pairs = pytest.mark.parametrize("method, rule", list(zip(KIN, RULES, strict=True)))


@pytest.mark.parametrize("k", [1, 2, 4])
@pairs
def test_a_map_is_what_a_loop_over_pictures_channels_and_cells_gives(method, rule, k):
    net, wanted = convnet(), slowly(rule, convnet(), k, X, TARGET)
    call = partial(method, layer=str(k), upsample=None)
    for size in (None, 1, 3):
        assert close(call(net, X, TARGET, batch_size=size), wanted)
    assert close(call(net, X[1:2], 0), wanted[1:2])
    assert torch.equal(method(net, X, TARGET, layer=net[k], upsample=None), call(net, X, TARGET))
    assert torch.equal(call(net, X, TARGET), call(net, X, TARGET))


@pytest.mark.parametrize("layer", ["blocks.0", "blocks.1.norm1"])
@pairs
def test_tokens_are_laid_out_row_by_row_without_the_class_token(method, rule, layer):
    x, target, kept = normal(2, 3, 8, 12), torch.tensor([1, 4]), []

    def keep(_, inputs, output):
        kept.append(output)
        output.retain_grad()

    handle = VIT.get_submodule(layer).register_forward_hook(keep)
    VIT(x).gather(1, target[:, None]).sum().backward()
    handle.remove()
    wanted = []
    for n in range(2):
        a, g = (v[n, 1:].T.reshape(8, 2, 3) for v in (kept[0].detach(), kept[0].grad))

        def score(mask, n=n):
            return VIT((x[n] * mask)[None])[0, target[n]].detach()

        wanted.append(rule(a, g, score, (8, 12)))
    found = method(VIT, x, target, layer=layer, upsample=None, **LAYOUT)
    assert close(found, torch.stack(wanted))
    assert method(VIT, x, target, layer=layer, **LAYOUT).shape == (2, 8, 12)


# --- What they share with Grad-CAM ---


@every
def test_maps_are_drawn_as_those_of_grad_cam_are(method):
    net, call = convnet(), dict(layer="3")
    small = method(net, X, TARGET, **call, upsample=None)
    spread = F.interpolate(small[:, None], (13, 16), mode="bilinear")[:, 0]
    assert small.shape == (4, 4, 6) and torch.equal(method(net, X, TARGET, **call), spread)
    fields = method(net, X, TARGET, **call, upsample="receptive_field")
    assert fields.shape == (4, 13, 16)
    if method is not tl.score_cam:  # whose masks are drawn at the fields, too
        places = tl.receptive.centres(net, X, "3")
        assert torch.equal(fields, tl.receptive.placed(small, places, (13, 16)))


def test_score_cam_draws_its_masks_at_the_receptive_fields_where_the_map_is():
    """Steps of 4 pixels from pixel 0: cells that spread evenly would lie 1.5 pixels further."""
    net = nn.Sequential(nn.MaxPool2d(1, stride=4), nn.Flatten(), nn.Linear(8, 1)).double().eval()
    x = normal(1, 2, 8, 8).abs()
    found = tl.score_cam(net, x, 0, layer="0", upsample="receptive_field")
    a = net[0](x)[0]
    drawn = tl.receptive.placed(a, ((0.0, 4.0), (0.0, 4.0)), (8, 8))
    masks = torch.stack([(d - d.min()) / (d.max() - d.min()) for d in drawn])
    w = net(x * masks[:, None])[:, 0].softmax(0).detach()
    wanted = tl.receptive.placed(
        (w[:, None, None] * a).sum(0).relu()[None], ((0, 4), (0, 4)), (8, 8)
    )
    assert close(found, wanted)


@pytest.mark.parametrize("context", [nullcontext, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("frozen", [False, True], ids=["unfrozen", "frozen"])
@every
def test_model_and_x_stay_and_gradients_may_be_switched_off(method, frozen, context):
    net, x, wanted = convnet(), X.clone().requires_grad_(), method(convnet(), X, TARGET, layer="3")
    net.requires_grad_(not frozen)
    with context():
        found = method(net, x, TARGET, layer="3")
        again = method(net, X.clone(), TARGET.clone(), layer="3")
    assert close(found, wanted) and close(again, wanted)
    assert not found.requires_grad and torch.equal(x, X) and x.grad is None
    assert all(p.grad is None and p.requires_grad != frozen for p in net.parameters())
    assert all(map(torch.equal, net.state_dict().values(), convnet().state_dict().values()))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@every
def test_the_map_has_the_dtype_of_x(method, dtype):
    found = method(convnet().to(dtype), X.to(dtype), TARGET, layer="4")
    wanted = method(convnet(), X, TARGET, layer="4")
    assert found.dtype == dtype and close(found.double(), wanted, 20 * torch.finfo(dtype).eps)


@every
def test_a_model_on_a_device_gives_the_map_there(method, device):
    found = method(convnet().to(device), X.to(device), TARGET, layer="3")
    assert found.device.type == device and close(
        found.cpu(), method(convnet(), X, TARGET, layer="3")
    )


@every
def test_a_model_that_takes_one_number_of_rows_gets_each_picture_in_its_own(method):
    net = convnet()
    gains = torch.tensor([1.0, -2.0, 3.0, 0.5]).double()[:, None]  # a row for each picture
    fixed = lambda z: net(z) * gains  # noqa: E731
    found = method(fixed, X, TARGET, layer=net[4], upsample=None)
    alone = [
        method(lambda z, n=n: net(z) * gains[n], X[n : n + 1], int(TARGET[n]), layer=net[4])
        for n in range(4)
    ]
    spread = F.interpolate(found[:, None], (13, 16), mode="bilinear")[:, 0]
    assert close(spread, torch.cat(alone))


@every
def test_channels_may_be_last(method):
    net = nn.Sequential(nn.Conv2d(3, 5, 4, 4), Call(lambda z: z.permute(0, 2, 3, 1)), nn.ReLU())
    net = nn.Sequential(*net, nn.Flatten(), nn.Linear(60, 3)).double().eval()
    first, last = (dict(layer=net[n], upsample=None) for n in (0, 1))
    found = method(net, X, TARGET, **last, channels="last")
    # The order of channels alone differs: both layers have the same numbers.
    assert close(found, method(net, X, TARGET, **first))


def test_score_cam_needs_no_gradient_at_the_layer():
    x = normal(2, 3, 8, 12)
    with pytest.raises(ValueError, match="no patch has a part"):
        tl.layer_cam(VIT, x, 1, layer="blocks.1", **LAYOUT)
    assert bool(tl.score_cam(VIT, x, 1, layer="blocks.1", **LAYOUT).any())


# --- Errors ---


BAD = {
    "name misspelt": (dict(layer="3.weight"), ValueError, "layer: .*no module '3.weight'"),
    "no layer": (dict(layer=None), TypeError, "layer: expected a module or its dotted name"),
    "layer of another model": (dict(layer=nn.ReLU()), ValueError, "layer: 'ReLU' does not run"),
    "a layer that flattens": (dict(layer="6"), ValueError, r"layer: '6' returns .*Layers with one"),
    "a name in a function": (dict(model=lambda z: z), TypeError, "layer: .*nn.Module as model"),
    "training mode": (dict(model=convnet(nn.Dropout()).train()), ValueError, "model: .*eval"),
    "x of three dimensions": (dict(x=X[0]), ValueError, r"x: .*\(B, C, H, W\)"),
    "upsample": (dict(upsample="nearest"), ValueError, "upsample: .*bilinear, receptive_field"),
    "channels": (dict(channels="middle"), ValueError, "channels: expected one of first, last"),
    "target": (dict(target=3), ValueError, "target: .*below C = 3"),
    "batch size": (dict(batch_size=0), ValueError, "batch_size: "),
    "seed": (dict(seed=-1), ValueError, "seed: "),
    "rows": (dict(model=convnet(Call(lambda s: s - s.mean(0)))), ValueError, "scores of a row ch"),
}


@pytest.mark.parametrize("given, error, message", BAD.values(), ids=BAD)
@every
def test_bad_input_is_refused_by_name(method, given, error, message):
    arguments = dict(model=convnet(), x=X, target=0, layer="3") | given
    with pytest.raises(error, match=message):
        method(**arguments)
    if isinstance(arguments["model"], nn.Module):
        assert not any(m._forward_hooks for m in arguments["model"].modules())


@pytest.mark.parametrize("given, error, message", ERRORS.values(), ids=ERRORS)
@every
def test_tokens_that_cannot_be_placed_are_refused(method, given, error, message):
    if method is tl.score_cam and "no patch" in message:
        pytest.skip("Score-CAM takes such a layer: it needs no gradient")
    with pytest.raises(error, match=message):
        method(VIT, normal(2, 3, 8, 12), 1, **dict(layer="blocks.0") | given)


def test_a_pole_of_plus_plus_is_an_error_that_says_which_layer_to_take():
    with pytest.raises(
        ValueError, match=r"layer: .*divides by 0; take the layer behind a rectifier"
    ):
        by_hand(tl.grad_cam_plus_plus, lambda z: z.sum((1, 2, 3)), (1, -3))


def test_a_layer_beside_the_way_to_the_scores_is_named():
    net = convnet()
    beside = nn.Conv2d(3, 2, 3).double()
    model = Call(lambda z: net(z) + 0 * beside(z).detach().sum())
    model.net, model.beside = net, beside
    for method in BY_GRADIENT:
        with pytest.raises(ValueError, match="layer: the scores do not depend on what 'beside'"):
            method(model.eval(), X, 0, layer="beside")


# --- pytorch-grad-cam ---


def stretched(small, size):
    """Cells as pytorch-grad-cam shows them: to [0, 1], then drawn, then to [0, 1] again."""

    def one(m):
        m = m - m.amin((1, 2), keepdim=True)
        return m / (1e-7 + m.amax((1, 2), keepdim=True))

    return one(F.interpolate(one(small)[:, None], size, mode="bilinear")[:, 0])


def theirs(name, net, layer, x, target):
    reason = "pytorch-grad-cam is a peer: pip install grad-cam"
    package = pytest.importorskip("pytorch_grad_cam", reason=reason)
    chosen = [package.utils.model_targets.ClassifierOutputTarget(int(c)) for c in target]
    with redirect_stderr(StringIO()):  # its progress bar
        peer = getattr(package, name)(net, [net.get_submodule(layer)])
        return torch.from_numpy(peer(x.clone().requires_grad_(), chosen))


def greatest(ours, theirs):
    return float((ours.float() - theirs).abs().max())


@pytest.fixture(scope="module")
def lite():
    model = tl.load_model(device="cpu")
    pictures = [model.preprocess(tl.load_image(name)) for name in ("chelsea", "coffee")]
    return model, torch.cat(pictures), torch.tensor([285, 967])


@pytest.mark.parametrize("layer", ["1", "3", "4"])
def test_pytorch_grad_cam_agrees_on_layer_cam_of_a_random_network(layer):
    net, x = convnet().float(), X.float()
    ours = stretched(tl.layer_cam(net, x, TARGET, layer=layer, upsample=None), (13, 16))
    assert greatest(ours, theirs("LayerCAM", net, layer, x, TARGET)) <= 1e-5


@pytest.mark.parametrize("layer", ["network.bn2", "network.blocks.4", "network.blocks.2"])
@pytest.mark.slow
def test_pytorch_grad_cam_agrees_on_layer_cam_of_efficientnet(lite, layer):
    net, x, target = lite
    ours = stretched(tl.layer_cam(net, x, target, layer=layer, upsample=None), (224, 224))
    assert greatest(ours, theirs("LayerCAM", net, layer, x, target)) <= 1e-5


class Times(nn.Module):
    """A network whose scores, and so its gradients, are larger."""

    def __init__(self, net, factor):
        super().__init__()
        self.net, self.factor = net, factor

    def forward(self, x):
        return self.factor * self.net(x)


def test_pytorch_grad_cam_agrees_on_plus_plus_where_gradients_are_far_from_its_small_number():
    net, x = Times(convnet(), 1e4).float().eval(), X.float()
    ours = stretched(tl.grad_cam_plus_plus(net, x, TARGET, layer="net.4", upsample=None), (13, 16))
    assert greatest(ours, theirs("GradCAMPlusPlus", net, "net.4", x, TARGET)) <= 1e-5


@pytest.mark.slow
def test_pytorch_grad_cam_agrees_on_plus_plus_of_efficientnet_where_gradients_are_large(lite):
    net, x, target = Times(lite[0], 1e4).eval(), *lite[1:]
    call = dict(layer="net.network.bn2", upsample=None)
    ours = stretched(tl.grad_cam_plus_plus(net, x, target, **call), (224, 224))
    assert greatest(ours, theirs("GradCAMPlusPlus", net, "net.network.bn2", x, target)) <= 1e-4


def test_the_small_number_that_pytorch_grad_cam_adds_is_all_that_differs_in_plus_plus():
    net, x = convnet().float(), X.float()
    with_eps = slowly(partial(slow_plus_plus, eps=1e-6), convnet(), 4, X, TARGET)
    peer = theirs("GradCAMPlusPlus", net, "4", x, TARGET)
    ours = tl.grad_cam_plus_plus(net, x, TARGET, layer="4", upsample=None)
    assert greatest(stretched(with_eps, (13, 16)), peer) <= 1e-5
    assert greatest(stretched(ours, (13, 16)), peer) > 1e-3


class AlignCentres:
    """Bilinear as in the paper's program, in the place of nn.UpsamplingBilinear2d."""

    def __init__(self, size):
        self.size = size

    def __call__(self, z):
        return F.interpolate(z, tuple(self.size), mode="bilinear")


@pytest.mark.parametrize("layer", ["1", "2", "4"])
def test_pytorch_grad_cam_agrees_on_score_cam_but_for_how_masks_are_drawn(layer, monkeypatch):
    net, x = convnet().float(), X.float()
    ours = stretched(tl.score_cam(net, x, TARGET, layer=layer, upsample=None), (13, 16))
    corners = theirs("ScoreCAM", net, layer, x, TARGET)
    assert (greatest(ours, corners) <= 1e-5) == (layer == "1")  # whose map is as large as x
    monkeypatch.setattr(nn, "UpsamplingBilinear2d", AlignCentres)
    assert greatest(ours, theirs("ScoreCAM", net, layer, x, TARGET)) <= 1e-5


@pytest.mark.slow
def test_pytorch_grad_cam_agrees_on_score_cam_of_efficientnet(lite, monkeypatch):
    net, x, target = lite
    monkeypatch.setattr(nn, "UpsamplingBilinear2d", AlignCentres)
    ours = tl.score_cam(net, x, target, layer="network.blocks.2", upsample=None)
    peer = theirs("ScoreCAM", net, "network.blocks.2", x, target)
    assert greatest(stretched(ours, (224, 224)), peer) <= 1e-4


def test_the_models_of_these_tests_stay_as_they_are():
    before = deepcopy(VIT.state_dict())
    tl.score_cam(VIT, normal(1, 3, 8, 12), 1, layer="blocks.0", **LAYOUT)
    assert all(map(torch.equal, VIT.state_dict().values(), before.values()))
