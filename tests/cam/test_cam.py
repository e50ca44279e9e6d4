"""Grad-CAM by hand, by a slow loop and beside captum; where its cells lie; and its errors."""

from contextlib import nullcontext
from copy import deepcopy

import captum.attr as peer
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import tutorial_lib as tl
from tests.closed_forms import Call, close, normal

X, TARGET = normal(5, 3, 13, 16), torch.tensor([2, 0, 1, 1, 2])
BOTH = [tl.grad_cam, tl.guided_grad_cam]
TAIL = nn.AdaptiveAvgPool2d(1), nn.Flatten()
how = pytest.mark.parametrize("upsample", ["bilinear", "receptive_field"])
CONTEXTS = [nullcontext, torch.no_grad, torch.inference_mode]
KNOWN = [
    ("resnet18", "layer4", 0, 32),
    ("vgg16", "features.29", 7.5, 16),
    ("densenet121", "features", 14, 32),
    ("inception_v3", "Mixed_7c", 37, 32),
    ("efficientnet_lite0", "network.blocks.6", 31, 32),
]
LAYERS = [("resnet", n) for n in ("conv1", "bn1", "relu", "layer1", "layer2.0.bn2", "layer4")]
LAYERS += [("lite", f"network.{n}") for n in ("conv_stem", "blocks.2", "blocks.6", "bn2")]


def convnet(*first):
    """Rectifiers overwrite what stands before them; the layers are "0" to "11"."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(True)]
    layers += [nn.Conv2d(8, 8, (3, 2), stride=2), nn.ReLU(True), nn.Flatten()]
    layers += [nn.Linear(64, 10), nn.ReLU(), nn.Linear(10, 3)]
    return nn.Sequential(*first, *layers).double().eval()


def pair(*values):
    """One picture with two channels of 1 x 2 cells."""
    return torch.tensor(values, dtype=torch.float64).reshape(1, 2, 1, 2)


SCORES = [
    (lambda z: z * pair(1, 3, -4, 2), [4, 0]),  # alpha = (2, -1): 6 - 2 and 2 - 5
    (lambda z: z**2 / 2, [6 + 7, 2 + 17.5]),  # alpha = (2, 3.5)
    (lambda z: z * pair(1, -1, -2, 2), [0, 0]),  # the gradient varies, and alpha = 0
]
OTHERS = [
    (nn.Upsample(scale_factor=2), "upsample_nearest2d"),
    (nn.ConvTranspose2d(3, 3, 2, stride=2), "convolution"),
    (Call(lambda z: z[:, :, ::2]), "slice"),
    (Call(lambda z: z.flip(3)), "flip"),
    (Call(lambda z: z.roll(1, 2)), "roll"),
    (Call(lambda z: z[..., :13].transpose(2, 3)), "slice"),
    (Call(lambda z: z[..., :13].permute(0, 3, 1, 2)[:, :3]), "slice"),
]


# --- By hand ---


@pytest.mark.parametrize("layer", ["0", "1"], ids=["before its ReLU", "behind its ReLU"])
def test_grad_cam_is_cam_where_a_mean_over_space_and_a_linear_layer_follow(layer):
    torch.manual_seed(0)
    front, head = [nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True)][: int(layer) + 1], nn.Linear(4, 2)
    head.weight.data[1] = -head.weight.data[0]  # so that both signs of class 0's map are seen
    net = nn.Sequential(*front, *TAIL, head).double().eval().requires_grad_(False)
    a = net[: len(front)](X)
    up, down = (tl.grad_cam(net, X, c, layer=layer, upsample=None) for c in (0, 1))
    cam = (head.weight[0, :, None, None] * a).sum(1) / a[0, 0].numel()
    assert torch.allclose(up - down, cam) and up.any() and down.any() and not (up * down).any()
    assert torch.allclose((up - down).sum((1, 2)) + head.bias[0], net(X)[:, 0])


@pytest.mark.parametrize("score, wanted", SCORES)
def test_a_channel_weighs_its_mean_gradient_and_negative_evidence_is_cut(score, wanted):
    model = nn.Sequential(nn.Identity(), Call(lambda z: score(z).sum((1, 2, 3))[:, None])).eval()
    found = tl.grad_cam(model, pair(3, 1, 2, 5), 0, layer="0", upsample=None)
    assert found.tolist() == [[wanted]]


def slowly(net, k, x, target):
    """Eq. 1 and 2 picture by picture, channel by channel, in a network cut behind layer k."""
    maps = []
    for picture, label in zip(x, target, strict=True):
        activation = net[: k + 1](picture[None].clone()).detach().requires_grad_()
        score = net[k + 1 :](activation.clone())[0, label]
        (slope,) = torch.autograd.grad(score, activation)
        weighted = (s.sum() / s.numel() * a for s, a in zip(slope[0], activation[0], strict=True))
        maps.append(sum(weighted).detach().clamp(min=0))
    return torch.stack(maps)


@pytest.mark.parametrize("k", range(8))
def test_grad_cam_is_what_a_loop_over_pictures_and_channels_gives(k):
    net, wanted = convnet(), slowly(convnet(), k, X, TARGET)
    call = lambda *args, **kw: tl.grad_cam(*args, upsample=None, **kw)  # noqa: E731
    for size in (None, 1, 2, 5):
        assert close(call(net, X, TARGET, layer=str(k), batch_size=size), wanted)
    assert torch.equal(call(net, X, TARGET, layer=net[k]), call(net, X, TARGET, layer=str(k)))
    assert close(call(lambda x: 2 * net(x), X, TARGET, layer=net[k]), 2 * wanted)
    assert close(call(net, X, 2, layer=net[k]), slowly(net, k, X, [2] * 5))


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("frozen", [False, True], ids=["unfrozen", "frozen"])
@pytest.mark.parametrize("method", BOTH)
def test_model_and_x_stay_and_gradients_may_be_switched_off(method, frozen, context):
    call = dict(target=TARGET, layer="3", upsample="receptive_field")
    net, x, wanted = convnet(), X.clone().requires_grad_(), method(convnet(), X, **call)
    net.requires_grad_(not frozen)
    with context():
        found, again = method(net, x, **call), method(net, X.clone(), **call)
    assert close(found, wanted) and close(again, wanted)
    assert not found.requires_grad and torch.equal(x, X) and x.grad is None
    assert all(p.grad is None and p.requires_grad != frozen for p in net.parameters())
    assert all(map(torch.equal, net.state_dict().values(), convnet().state_dict().values()))


@pytest.mark.parametrize("layer", ["1", "unknown"])
def test_a_model_that_writes_into_its_input_leaves_x_alone(layer):
    x = X.clone()
    try:
        tl.grad_cam(convnet(nn.ReLU(inplace=True)), x, TARGET, layer=layer)
    except ValueError:
        assert layer == "unknown"
    assert torch.equal(x, X)


@how
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_map_has_the_dtype_of_x(dtype, upsample):
    net, x, call = convnet().to(dtype), X.to(dtype), dict(layer="5", upsample=upsample)
    found, wanted = (tl.grad_cam(*at, TARGET, **call) for at in ((net, x), (convnet(), X)))
    assert found.dtype == dtype and close(found.double(), wanted, 20 * torch.finfo(dtype).eps)
    assert tl.guided_grad_cam(net, x, TARGET, **call).dtype == dtype


@how
@pytest.mark.parametrize("method", BOTH)
def test_a_model_on_a_device_gives_the_map_there(method, upsample, device):
    call = dict(target=TARGET, layer="3", upsample=upsample)
    found = method(convnet().to(device), X.to(device), **call)
    assert found.device.type == device and close(found.cpu(), method(convnet(), X, **call))


# --- Where the cells lie ---


def test_bilinear_spreads_the_cells_evenly_and_none_leaves_them():
    cells = tl.grad_cam(convnet(), X, TARGET, layer="6", upsample=None)
    spread = F.interpolate(cells[:, None], (13, 16), mode="bilinear", align_corners=False)
    assert cells.shape == (5, 2, 4)
    assert torch.equal(tl.grad_cam(convnet(), X, TARGET, layer="6"), spread[:, 0])


@st.composite
def windows(draw):
    """A layer that moves windows, and a linear one with windows of the same place."""
    pair = lambda least, most: draw(st.tuples(*[st.integers(least, most)] * 2))  # noqa: E731
    kind = draw(st.sampled_from(["conv", "avg", "max", "pad", "tiles"]))
    kernel, stride = pair(1, 5), pair(1, 3)
    padding, dilation = pair(0, 2), (1, 1) if kind == "avg" else pair(1, 2)
    if kind == "pad":
        pad = nn.ZeroPad2d(pair(-1, 3) + pair(-1, 3))
        return pad, pad
    if kind != "conv":
        padding = tuple(min(p, k // 2) for p, k in zip(padding, kernel, strict=True))
    if kind == "tiles":  # a pool that is given no stride
        kernel, padding, dilation = stride, 0, 1
    conv = nn.Conv2d(1, 1, kernel, stride, padding, dilation, bias=False)
    nn.init.ones_(conv.weight)
    if kind == "tiles":
        return Call(lambda z: F.avg_pool2d(z, kernel)), conv
    if kind == "avg":
        return nn.AvgPool2d(kernel, stride, padding), conv
    return (conv if kind == "conv" else nn.MaxPool2d(kernel, stride, padding, dilation)), conv


@settings(max_examples=40, deadline=None)
@given(st.lists(windows(), min_size=1, max_size=3))
@pytest.mark.slow
def test_a_centre_is_the_middle_of_what_a_cell_looks_at(layers):
    net = nn.Sequential(*[layer for layer, _ in layers], nn.Flatten()).double().eval()
    linear = nn.Sequential(*[like for _, like in layers]).double()
    x = torch.ones(1, 1, 230, 260, dtype=torch.float64, requires_grad=True)
    places, out = tl.receptive.centres(net, x, str(len(layers) - 1)), linear(x)[0, 0]
    assert len(net(x)[0]) == out.numel()
    for one in (0, 1):
        cell = [n // 2 + one for n in out.shape]
        (seen,) = torch.autograd.grad(out[tuple(cell)], x, retain_graph=True)
        for axis, (start, step) in enumerate(places):
            support = seen[0, 0].any(1 - axis).nonzero()
            assert support.min() > 0 and support.max() < x.shape[2 + axis] - 1  # not cut off
            assert start + step * cell[axis] == (support.min() + support.max()) / 2


@pytest.mark.parametrize("name, layer, start, step", KNOWN)
@pytest.mark.slow
def test_known_networks_have_centres_where_strides_and_padding_put_them(
    nets, name, layer, start, step
):
    from torchvision import models

    slow = dict(init_weights=False) if name in ("vgg16", "inception_v3") else {}
    lite = name == "efficientnet_lite0"  # its padding depends on the size
    net = nets["lite"][0] if lite else getattr(models, name)(**slow).eval()
    x = torch.zeros(1, 3, *(224, 224) if lite else (75, 75))
    assert tl.receptive.centres(net, x, layer) == ((start, step), (start, step))


def test_a_cell_is_drawn_at_its_centre_with_lines_between_and_a_constant_beyond():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, (3, 5), stride=(4, 2), padding=(0, 1))  # centres 1 + 4 i and 1 + 2 j
    net = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(84, 1)).double().eval()
    nn.init.uniform_(net[3].weight)
    cells = tl.grad_cam(net, X, 0, layer="1", upsample=None)
    drawn = tl.grad_cam(net, X, 0, layer="1", upsample="receptive_field")
    assert cells.shape == (5, 3, 7) and bool(cells.flatten(1).any(1).all())
    assert torch.allclose(drawn[:, 1:10:4, 1:14:2], cells)
    assert torch.equal(drawn[:, 0], drawn[:, 1]) and torch.equal(drawn[:, 9], drawn[:, 12])
    lines = cells.numpy()
    for axis, step, length in ((1, 4, 13), (2, 2, 16)):
        at = 1 + step * np.arange(lines.shape[axis])
        draw = lambda row, at=at, length=length: np.interp(range(length), at, row)  # noqa: E731
        lines = np.apply_along_axis(draw, axis, lines)
    assert close(drawn, torch.from_numpy(lines))


@how
def test_a_map_of_one_cell_has_its_value_everywhere(upsample):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 2, (13, 16)), nn.Flatten()).double().eval()
    found = tl.grad_cam(net, X, 0, layer="0", upsample=upsample)
    assert close(found, net(X)[:, 0].detach().clamp(min=0)[:, None, None].expand(5, 13, 16))


@pytest.mark.parametrize("module, name", OTHERS)
def test_an_operation_that_moves_cells_in_another_way_is_named_and_not_guessed(module, name):
    net = nn.Sequential(module, nn.Conv2d(3, 4, 3), *TAIL).double().eval()
    with pytest.raises(NotImplementedError, match=f"model: {name} at 0"):
        tl.grad_cam(net, X, 0, layer="1", upsample="receptive_field")
    assert tl.grad_cam(net, X, 0, layer="1").shape == (5, 13, 16)


STAY = {
    "a factor for each channel": lambda z: z * z.mean((2, 3), keepdim=True).sigmoid(),
    "channels taken apart": lambda z: torch.stack([z[:, 0], z[:, 2], z[:, 1]], 1),
    "channels shuffled": lambda z: z.unflatten(1, (3, 1)).transpose(1, 2).flatten(1, 2),
    "channels permuted twice": lambda z: z.permute(1, 0, 2, 3).permute(1, 0, 2, 3),
}


@pytest.mark.parametrize("call", STAY.values(), ids=STAY)
def test_what_happens_between_channels_moves_no_centre(call):
    net = nn.Sequential(nn.Conv2d(3, 3, 3, 2), Call(call), nn.Conv2d(3, 4, 3), *TAIL)
    assert tl.receptive.centres(net.double().eval(), X, "2") == ((3, 2), (3, 2))


def resampled(z):
    zoom = torch.eye(2, 3).double()[None] * 0.5
    grid = F.affine_grid(zoom, z[:1].shape, align_corners=False).expand(len(z), -1, -1, -1)
    return F.grid_sample(z, grid, align_corners=False)


WEIGHT = torch.ones(3, 3, 3, 3).double()
TURNED = {
    "transposed": lambda z: z.mT,
    "permuted": lambda z: z.permute(0, 1, 3, 2),
    "flipped": lambda z: z.flip(2),
    "picked": lambda z: z.index_select(3, torch.arange(12, -1, -1)),
    "sorted": lambda z: z.sort(3)[0],
    "resampled": resampled,
    "convolved with weights of its own": lambda z: F.conv2d(z, z.mean() * WEIGHT, padding=1),
}


@pytest.mark.parametrize("call", TURNED.values(), ids=TURNED)
@pytest.mark.parametrize("layer", ["0", "1"], ids=["the layer itself", "before the layer"])
def test_cells_of_a_square_map_that_move_are_noticed(call, layer):
    net = nn.Sequential(Call(call), nn.Conv2d(3, 4, 3), *TAIL).double().eval()
    with pytest.raises(NotImplementedError, match="at 0"):
        tl.receptive.centres(net, X[..., :13], layer)


def test_the_error_names_what_moved_the_cells_and_no_harmless_branch():
    gate = Call(STAY["a factor for each channel"])
    net = nn.Sequential(gate, nn.Upsample(scale_factor=2), nn.Conv2d(3, 4, 3), *TAIL)
    with pytest.raises(NotImplementedError, match="upsample_nearest2d at 1"):
        tl.receptive.centres(net.double().eval(), X, "2")


@pytest.mark.parametrize("pad", [nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d])
def test_padding_moves_centres_whatever_it_is_filled_with(pad):
    net = nn.Sequential(pad((1, 0, 2, 3)), nn.Conv2d(3, 4, 3), *TAIL).double().eval()
    assert tl.receptive.centres(net, X, "1") == ((-1, 1), (0, 1))


# --- Peers ---


@pytest.fixture(scope="module")
def nets():
    from torchvision.models import resnet18

    torch.manual_seed(0)
    resnet, lite = resnet18().eval(), tl.load_model(device="cpu")
    coffee = lite.preprocess(tl.load_image("coffee"))[..., 64:160, 64:160]
    return {"resnet": (resnet, normal(2, 3, 64, 64).float(), 1), "lite": (lite, coffee, 967)}


@pytest.mark.parametrize("name, layer", LAYERS)
@pytest.mark.slow
def test_captum_agrees_on_grad_cam_also_where_a_rectifier_overwrites_the_layer(nets, name, layer):
    net, x, target = nets[name]
    theirs = peer.LayerGradCam(net, net.get_submodule(layer))
    theirs = theirs.attribute(x, target, relu_attributions=True)[:, 0].detach()
    assert close(tl.grad_cam(net, x, target, layer=layer, upsample=None), theirs, 1e-4)


def capped(module):
    """ReLU6 in two steps: captum's guided backpropagation changes modules of type nn.ReLU only."""
    for name, child in module.named_children():
        split = nn.Sequential(nn.ReLU(), Call(lambda z: z.clamp(max=6)))
        setattr(module, name, split if isinstance(child, nn.ReLU6) else capped(child))
    return module


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require")
@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU")
@pytest.mark.parametrize("name, layer", [("resnet", "layer3"), ("lite", "network.blocks.6")])
@pytest.mark.slow
def test_captum_agrees_on_guided_grad_cam_once_it_sees_every_rectifier(nets, name, layer):
    net, x, target = nets[name]
    copy = capped(deepcopy(net))
    theirs = peer.GuidedGradCam(copy, copy.get_submodule(layer))
    theirs = theirs.attribute(x, target, interpolate_mode="bilinear").detach()
    ours = tl.guided_grad_cam(net, x, target, layer=layer)
    assert torch.equal(copy(x), net(x)) and close(ours, theirs, 1e-4)
    assert float((ours - theirs).abs().max()) <= 1e-4 * float(theirs.abs().max())


@how
def test_guided_grad_cam_is_the_product_of_its_parts_and_can_be_smoothed(upsample):
    net, call = convnet(), dict(layer="3", upsample=upsample)
    guided = tl.guided_grad_cam(net, X, TARGET, **call)
    where = tl.grad_cam(net, X, TARGET, **call)
    assert close(guided, tl.guided_backprop(net, X, TARGET) * where[:, None])
    for sigma, same in ((0.0, True), (0.1, False)):
        call.update(method=tl.guided_grad_cam, sigma=sigma, samples=3)
        assert close(tl.smoothgrad(net, X, TARGET, **call), guided, 1e-3) == same


# --- Errors ---


class Odd(nn.Module):
    """Layers that run twice, never, beside the way to the scores, and not as a picture."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 4), nn.ReLU(inplace=True))
        self.twice, self.side, self.idle = (nn.Conv2d(4, 4, 1) for _ in range(3))
        self.two, self.whole = Call(lambda z: (z, z)), Call(lambda z: z.long())
        self.good, self.flat, self.head = nn.ReLU(), nn.Flatten(), nn.Linear(520, 3)
        self.again, self.behind = self.good, Call(lambda scores: scores)

    def forward(self, x):
        z = self.twice(self.twice(self.body(x)))
        self.side(z), self.whole(z)
        return self.behind(self.head(self.flat(self.good(self.two(z)[0]))))


ODD, GOOD = Odd().double().eval(), r"\. Layers with one map .*'good' \(10 x 13\)"
GUIDED = dict(method=tl.guided_grad_cam)
CENTRES = dict(method=lambda model, x, target, layer: tl.receptive.centres(model, x, layer))
CASES = {
    "name misspelt": (dict(layer="bodi"), "layer: .*'bodi' .did you mean 'body'.*" + GOOD),
    "layer a number": (dict(layer=3), "layer: .*int"),
    "layer of another model": (dict(layer=nn.Flatten()), "layer: 'Flatten' does not run.*" + GOOD),
    "layer that never runs": (dict(layer="idle"), "layer: 'idle' does not run.*" + GOOD),
    "layer that runs twice": (dict(layer="twice"), "layer: 'twice' runs 2 times.*" + GOOD),
    "layer that flattens": (dict(layer="flat"), r"layer: 'flat' returns \(1, 520\).*" + GOOD),
    "the model itself": (dict(layer=ODD), r"layer: 'Odd' returns \(1, 3\).*" + GOOD),
    "layer with two outputs": (dict(layer="two"), "layer: 'two' returns tuple.*" + GOOD),
    "layer beside the way": (dict(layer="side"), "layer: the scores do not depend on what 'side'"),
    "layer of whole numbers": (dict(layer="whole"), "layer: 'whole' returns .*int64"),
    "a name in a function": (dict(model=lambda x: ODD(x)), "layer: .*nn.Module as model.*function"),
    "model in training mode": (dict(model=Odd().double()), "model: .*training mode"),
    "x without a batch": (dict(x=X[0]), r"x: .*\(B, C, H, W\)"),
    "x without a batch, centres": (CENTRES | dict(x=X[0]), r"x: .*\(B, C, H, W\)"),
    "x of five dimensions": (dict(x=X[None]), r"x: .*\(B, C, H, W\)"),
    "upsample unknown": (dict(upsample="nearest"), "upsample: .*bilinear, receptive_field"),
    "upsample None, guided": (GUIDED | dict(upsample=None), "upsample: .*bilinear, receptive"),
    "layer beside the way, centres": (CENTRES | dict(layer="side"), "layer: .* not depend.*'side'"),
    "layer that runs twice, centres": (CENTRES | dict(layer="twice"), "layer: 'twice' runs 2"),
    "target out of range": (dict(target=3), "target: .*below C = 3"),
    "batch_size 0": (dict(batch_size=0), "batch_size: "),
    "seed negative": (dict(seed=-1), "seed: "),
}


def unhooked(model):
    """Whether nothing is left of any call, in the model and in PyTorch."""
    here = [h for m in model.modules() for h in (m._forward_hooks, m._forward_pre_hooks)]
    every = nn.modules.module
    return not any([*here, every._global_forward_hooks, every._global_forward_pre_hooks])


@pytest.mark.parametrize("given, message", CASES.values(), ids=CASES)
def test_bad_input_is_refused_by_name_and_leaves_no_hook(given, message):
    arguments, before = dict(model=ODD, x=X[:1], target=0, layer="body") | given, ODD(X)
    with pytest.raises((ValueError, TypeError), match=message):
        arguments.pop("method", tl.grad_cam)(**arguments)
    assert unhooked(ODD) and torch.equal(ODD(X), before)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("method", [*BOTH, tl.receptive.centres])
@pytest.mark.parametrize("layer", ["body", "unknown"])
def test_a_call_that_breaks_off_leaves_no_hook(method, layer, error):
    def fail(scores):
        raise error

    net = deepcopy(ODD)
    net.behind.function = fail
    raised = (error, ValueError) if layer == "unknown" else error  # the name is wrong in any case
    with pytest.raises(raised):
        method(net, X, layer=layer, **({} if method is tl.receptive.centres else dict(target=0)))
    net.behind.function = ODD.behind.function
    assert unhooked(net) and torch.equal(net(X), ODD(X))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_layer_that_the_model_runs_without_gradients_is_explained_too(context):
    net = convnet()

    class Frozen(nn.Module):
        def forward(self, x):
            with context():
                z = net[:6](x)
            return net[6:](z.clone())

    wanted = tl.grad_cam(net, X, TARGET, layer="5")
    assert torch.equal(tl.grad_cam(Frozen().eval(), X, TARGET, layer=net[5]), wanted)


def test_a_target_that_was_made_in_inference_mode_is_understood():
    net = convnet()
    with torch.inference_mode():
        found = tl.grad_cam(net, X, 2, layer="3")
    assert torch.equal(found, tl.grad_cam(net, X, 2, layer="3"))


def test_a_map_that_is_not_finite_is_refused_also_where_it_would_be_cut():
    burst = Call(lambda z: z.masked_fill(torch.arange(16) == 3, float("inf")))
    net = nn.Sequential(burst, Call(lambda z: -z.sum((1, 2, 3))[:, None])).eval()
    with pytest.raises(ValueError, match=r"model: .*infinite for pictures \[0, 1, 2, 3, 4\]"):
        tl.grad_cam(net, X, 0, layer="0")


def test_a_frozen_model_whose_scores_pass_the_layer_by_is_told_so():
    net = deepcopy(ODD).requires_grad_(False)
    with pytest.raises(ValueError, match="layer: the scores do not depend on what 'side'"):
        tl.grad_cam(net, X, 0, layer="side")


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_scripted_modules_are_refused_as_layers_and_left_out_of_the_list():
    scripted = torch.jit.script(nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3)))
    net = nn.Sequential(nn.Conv2d(3, 4, 3), scripted, *TAIL).double().eval()
    for layer, error in (("1", TypeError), ("none", ValueError)):
        with pytest.raises(error, match="layer: "):
            tl.grad_cam(net, X, 0, layer=layer)
        assert not any(m._forward_hooks for m in (net, net[0], net[2], net[3]))
    assert tl.grad_cam(net, X, 0, layer="0").shape == (5, 13, 16)


def test_a_layer_can_be_called_by_any_of_its_names():
    assert tl.grad_cam(ODD, X, 0, layer="again").equal(tl.grad_cam(ODD, X, 0, layer="good"))


class ChannelsLast(nn.Module):
    """Blocks as in a Swin transformer: maps (N, h, w, K), layer norm and dense layers."""

    def __init__(self, channels=24, patch=4):
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, channels, patch, stride=patch)
        self.block = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, channels), nn.GELU())
        self.head = nn.Linear(channels, 5)
        self.double().eval()

    def forward(self, x):
        y = self.block(self.patches(x).permute(0, 2, 3, 1))  # (N, h, w, K)
        return self.head(y.mean((1, 2)))


@pytest.mark.parametrize("size", [(32, 32), (32, 48)])
def test_a_map_with_its_channels_last_is_known_by_its_shape(size):
    net, x, target = ChannelsLast(), normal(2, 3, *size), torch.tensor([1, 4])
    y = net.block(net.patches(x).permute(0, 2, 3, 1)).detach().requires_grad_()
    scores = net.head(y.mean((1, 2))).gather(1, target[:, None]).sum()
    alpha = torch.autograd.grad(scores, y)[0].mean((1, 2), keepdim=True)
    expected = (alpha * y).sum(3).relu().detach()
    for channels in (None, "last"):
        found = tl.grad_cam(net, x, target, layer="block", upsample=None, channels=channels)
        assert torch.allclose(found, expected, rtol=1e-9) and bool(expected.any())
    other = tl.grad_cam(net, x, target, layer="block", upsample=None, channels="first")
    assert other.shape != found.shape


def test_where_nothing_tells_where_the_channels_are_one_has_to_say():
    net, x = ChannelsLast(channels=8), normal(1, 3, 32, 32)  # 8 x 8 cells of 8 channels
    with pytest.raises(ValueError, match=r"layer: 'block' returns \(1, 8, 8, 8\).*channels='last'"):
        tl.grad_cam(net, x, 1, layer="block")
    given = tl.grad_cam(net, x, 1, layer="block", channels="last")
    assert given.shape == (1, 32, 32)
    assert tl.grad_cam(net, x, 1, layer="patches").shape == (1, 32, 32)  # nn.Conv2d: first
    with pytest.raises(ValueError, match="channels: expected one of first, last"):
        tl.grad_cam(net, x, 1, layer="block", channels="middle")


def test_under_noise_on_the_weights_a_layer_is_found_by_its_name():
    torch.manual_seed(0)
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), *head).double().eval()
    x, noise = normal(1, 3, 9, 9), dict(weight_samples=2, method=tl.guided_grad_cam)
    assert tl.noisegrad(net, x, 1, **noise, layer="2").shape == x.shape
    with pytest.raises(ValueError, match=r"layer: 'Conv2d' does not run.*dotted name"):
        tl.noisegrad(net, x, 1, **noise, layer=net[2])
