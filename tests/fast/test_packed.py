"""Packed weights must give the numbers of the layers as they are, and only within one call."""

import copy
import io

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

import tutorial_lib as tl
from tests.closed_forms import normal
from tutorial_lib import clip, convolve, engine, lean, packed
from tutorial_lib.prepare import prepare

pytestmark = pytest.mark.skipif(not packed._offered(), reason="PyTorch has no packed convolutions")

LAYERS = {
    "pointwise": nn.Conv2d(4, 6, 1),
    "without bias": nn.Conv2d(4, 6, 1, bias=False),
    "dense": nn.Conv2d(4, 6, 3, padding=1),
    "not padded": nn.Conv2d(4, 6, (3, 2)),
    "two paddings": nn.Conv2d(4, 6, (3, 5), padding=(0, 3)),
    "more padding than kernel": nn.Conv2d(4, 6, 2, padding=3),
    "strided": nn.Conv2d(4, 6, 3, stride=2, padding=1),
    "two strides": nn.Conv2d(4, 6, 3, stride=(2, 1), padding=1),
    "depthwise": nn.Conv2d(4, 4, 3, padding=1, groups=4),
    "grouped": nn.Conv2d(4, 6, 3, stride=2, groups=2),
    "two channels to one": nn.Conv2d(4, 2, 3, padding=1, groups=2),
    "one channel to two": nn.Conv2d(4, 8, 3, padding=1, groups=4),
    "depthwise, zeros after": Conv2dSame(4, 4, 3, stride=2, groups=4),
    "depthwise, even": Conv2dSame(4, 4, 4, groups=4),
    "first, zeros after": Conv2dSame(4, 6, 3, stride=2),
}


def chain(name, inplace=True):
    """A layer between two others, its output clipped."""
    torch.manual_seed(0)
    layer = copy.deepcopy(LAYERS[name])
    layer.reset_parameters()
    nn.init.normal_(layer.weight, 0, 3)
    parts = [nn.Conv2d(4, 4, 1), layer, nn.ReLU6(inplace), nn.Conv2d(layer.out_channels, 3, 1)]
    net = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return net.eval().requires_grad_(False)


def pictures(count=3, **own):
    return normal(count, 4, 8, 8, dtype=torch.float32, **own)


def slopes(net, x, target):
    """The gradient without the engine, where no layer is lean."""
    z = x.clone().requires_grad_()
    return torch.autograd.grad(net(z).gather(1, target[:, None]).sum(), z)[0]


TARGET = torch.tensor([0, 2, 1])


def a_pass(model, x):
    """The gradient in one pass of a call."""
    found = engine.gradients(model, x, TARGET)
    convolve.passed()
    return found


@pytest.mark.parametrize("inplace", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_packed_weights_give_the_same_gradient_in_every_pass(name, inplace, monkeypatch):
    net, x = chain(name, inplace), pictures()
    fast, expected = prepare(net, x), slopes(net, x, TARGET)
    assert fast[1].clips == inplace and type(fast[1]) is not type(net[1])
    clipped, clip_ = [], lean.clip_
    monkeypatch.setattr(lean, "clip_", lambda z: clipped.append(1) or clip_(z))
    with packed.kept():
        for _ in range(3):
            found = a_pass(fast, x)
            assert torch.allclose(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
        assert len(packed.STORE.get().calls) == 3
    assert len(clipped) == inplace  # in the first pass; then the convolution clips


@pytest.mark.parametrize("name", LAYERS)
def test_scores_are_the_same_too(name):
    net, x = chain(name), pictures()
    fast = prepare(net, x)
    with packed.kept(), lean.layers(), torch.no_grad():
        for _ in range(3):
            assert torch.allclose(fast(x), net(x), rtol=1e-4, atol=1e-5)
            convolve.passed()
        assert all(call.there is not None for call in packed.STORE.get().calls.values())


@pytest.mark.parametrize("name", ["dense", "depthwise"])
def test_what_is_packed_is_used(name, monkeypatch):
    fast, used = prepare(chain(name), pictures()), []
    there = packed.convolve
    monkeypatch.setattr(packed, "convolve", lambda *a: used.append(len(a)) or there(*a))
    with packed.kept():
        a_pass(fast, pictures())
        assert not used  # the first pass shows which layers there are
        a_pass(fast, pictures())
    assert used == [7, 7, 7, 6, 6, 6]  # three layers, and three times back


def test_the_gradient_is_written_over_where_the_convolution_has_clipped(monkeypatch):
    fast, x, over, slope = prepare(chain("dense"), pictures()), pictures(), [], clip.slope

    def watched(up, y, held):
        found = slope(up, y, held)
        over.append(found.data_ptr() == up.data_ptr())
        return found

    monkeypatch.setattr(clip, "slope", watched)
    with packed.kept():
        for _ in range(2):
            a_pass(fast, x)
    assert over == [True, True] and clip.ALONE


def test_a_change_of_the_weights_between_two_calls_counts():
    net, x = chain("dense"), pictures()
    fast, own = prepare(net, x), dict(sigma=0.1, samples=20)
    before = tl.smoothgrad(fast, x, TARGET, **own)
    for model in (net, fast):
        model[1].weight.data.mul_(-0.5)
    expected = tl.smoothgrad(net, x, TARGET, **own)
    found = tl.smoothgrad(fast, x, TARGET, **own)
    assert torch.allclose(found, expected, atol=1e-4) and not torch.allclose(found, before)


@pytest.mark.parametrize("other", [nn.Softplus(), nn.Identity(), nn.ReLU6()])
def test_an_activation_that_was_exchanged_is_obeyed(other):
    net, x = chain("dense"), pictures()
    fast = prepare(net, x)
    net[2] = fast[2] = other
    expected = slopes(net, x, TARGET)
    with packed.kept():
        for _ in range(3):
            assert torch.allclose(a_pass(fast, x), expected, atol=1e-5)


class Aside(nn.Module):
    """Somebody reads the output of the convolution before it is clipped."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.act = nn.Conv2d(4, 4, 1), nn.ReLU6(inplace=True)

    def forward(self, x):
        y = self.conv(9 * x)
        return y.mean((2, 3)) + self.act(y).mean((2, 3))


def test_an_output_with_another_reader_is_not_clipped_early():
    net = Aside().eval().requires_grad_(False)
    fast = prepare(net, pictures())
    assert type(fast.conv) is lean.Conv2d and not fast.conv.clips
    own = dict(sigma=0.1, samples=20)
    expected = tl.smoothgrad(net, pictures(), TARGET, **own)
    assert torch.allclose(tl.smoothgrad(fast, pictures(), TARGET, **own), expected, atol=1e-5)


def test_noisy_weights_are_not_those_that_were_packed():
    net, x = chain("dense"), pictures()
    own = dict(weight_sigma=0.3, weight_samples=8)
    expected = tl.noisegrad(net, x, TARGET, **own)
    fast = prepare(net, x)
    assert torch.allclose(tl.noisegrad(fast, x, TARGET, **own), expected, atol=1e-4)
    noisy = [tl.noise.reweighted(model, sigma=0.3, seed=0) for model in (net, fast)]
    expected = slopes(noisy[0], x, TARGET)
    with packed.kept():
        a_pass(fast, x)
        packed_before = dict(packed.STORE.get().calls)
        for _ in range(2):
            found = a_pass(noisy[1], x)
            assert torch.allclose(found, expected, atol=1e-4)
        assert packed.STORE.get().calls == packed_before and len(packed_before) == 3


def test_weights_that_are_exchanged_within_a_call_count():
    fast, x = prepare(chain("dense"), pictures()), pictures()
    other = {"1.weight": fast[1].weight.detach() * -1}
    assert other["1.weight"]._version == fast[1].weight._version  # nothing but identity tells
    expected = torch.func.functional_call(fast, other, (x,))
    with packed.kept(), lean.layers():
        fast(x)
        convolve.passed()
        assert torch.allclose(torch.func.functional_call(fast, other, (x,)), expected, atol=1e-5)


def test_a_network_that_has_only_another_bias_is_another_network():
    fast, x = prepare(chain("dense"), pictures()), pictures()
    moved = {"1.bias": fast[1].bias + 2}
    expected = torch.func.functional_call(fast, moved, (x,))
    with packed.kept(), lean.layers():
        fast(x)
        convolve.passed()
        assert torch.allclose(torch.func.functional_call(fast, moved, (x,)), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["forward", "backward"])
def test_hooks_see_the_convolution_as_it_is(kind):
    net, x = chain("dense"), pictures()
    fast = prepare(net, x)
    seen = {}
    for key, model in (("plain", net), ("fast", fast)):
        rows = seen[key] = []
        if kind == "forward":
            model[1].register_forward_hook(lambda m, i, o, rows=rows: rows.append(o.clone()))
        else:
            model[2].inplace = False  # PyTorch has no hooks before an activation in place
            model[1].register_full_backward_hook(lambda m, i, o, r=rows: r.append(o[0].clone()))
    slopes(net, x, TARGET)
    with packed.kept():
        for _ in range(2):
            a_pass(fast, x)
    assert len(seen["fast"]) == 2
    assert all(torch.allclose(o, seen["plain"][0], atol=1e-5) for o in seen["fast"])


def test_few_rows_are_not_worth_it_and_afterwards_nothing_is_packed():
    with packed.kept(packed.ENOUGH - 1):
        assert packed.STORE.get() is None
    with packed.kept(packed.ENOUGH):
        assert packed.STORE.get() is not None
        with packed.kept(1):  # a call within a call
            assert packed.STORE.get() is None
        assert packed.STORE.get() is not None
    with pytest.raises(ZeroDivisionError), packed.kept():
        raise ZeroDivisionError
    assert packed.STORE.get() is None


@pytest.mark.parametrize("kind", ["float64", "weights that want gradients", "an autocast"])
def test_what_cannot_be_packed_goes_its_own_way(kind):
    net, x = chain("dense"), pictures()
    fast = prepare(net, x)
    if kind == "float64":
        net, fast, x = net.double(), fast.double(), x.double()
    if kind == "weights that want gradients":
        fast.requires_grad_()

    def model(f, z):
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == "an autocast"):
            return f(z)

    expected = slopes(lambda z: model(net, z), x, TARGET)
    with packed.kept():
        for _ in range(2):
            found = a_pass(lambda z: model(fast, z), x)
        assert torch.allclose(found, expected, atol=1e-5) and not packed.STORE.get().calls


def test_without_packed_convolutions_the_map_is_the_same(monkeypatch):
    fast, own = prepare(chain("dense"), pictures()), dict(sigma=0.1, samples=20, batch_size=3)
    expected = tl.smoothgrad(fast, pictures(), TARGET, **own)

    def missing(*given, **own):
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute")

    monkeypatch.setattr(packed, "convolve", missing)
    packed._offered.cache_clear()
    try:
        assert not packed._offered()
        found = tl.smoothgrad(fast, pictures(), TARGET, **own)
    finally:
        packed._offered.cache_clear()
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["dense", "strided", "depthwise"])
def test_a_score_may_itself_be_a_gradient(name):
    net, x = chain(name), pictures()

    def penalty(f, z):
        slope = torch.autograd.grad(f(z).square().sum(), z, create_graph=True)[0]
        return slope.flatten(1).square()[:, :3]

    expected = slopes(lambda z: penalty(net, z), x, TARGET)
    fast = prepare(net, x)
    with packed.kept():
        for _ in range(2):
            found = a_pass(lambda z: penalty(fast, z), x)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_a_network_can_be_copied_and_stored_after_a_call():
    fast, x = prepare(chain("dense"), pictures()), pictures()
    expected = tl.smoothgrad(fast, x, TARGET, sigma=0.1)
    file = io.BytesIO()
    torch.save(fast, file)
    file.seek(0)
    for other in (copy.deepcopy(fast), torch.load(file, weights_only=False)):
        assert torch.allclose(tl.smoothgrad(other, x, TARGET, sigma=0.1), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["dense", "depthwise, zeros after", "first, zeros after"])
def test_pictures_of_two_sizes_in_one_call_have_their_own_order(name):
    fast, net = prepare(chain(name), pictures()), chain(name)
    large = normal(3, 4, 11, 9, dtype=torch.float32)
    with packed.kept():
        for x in 2 * (pictures(), large) + (pictures(),):
            scores, expected = [], slopes(net, x, TARGET)
            found = a_pass(lambda z, seen=scores: seen.append(fast(z)) or seen[0], x)
            assert torch.allclose(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
            assert torch.allclose(scores[0], net(x), rtol=1e-4, atol=1e-5)


def test_a_pass_of_a_picture_without_a_batch_is_left_to_pytorch():
    conv = lean.lean(nn.Conv2d(4, 6, 3, stride=2)).requires_grad_(False)
    x = pictures(1)
    expected = conv(x)
    with packed.kept(), lean.layers():
        for _ in range(2):
            assert torch.equal(conv(x[0]), expected[0])
            convolve.passed()
        assert not packed.STORE.get().calls
    assert convolve.few(conv)


OWN = dict(sigma=0.1, samples=40, batch_size=3)
MAPS = {
    "smoothgrad": lambda f, x: tl.smoothgrad(f, x, TARGET, **OWN),
    "perturbation": lambda f, x: tl.metrics.perturbation_curve(
        f, x, TARGET, x[:, 0], size=3, count=2, draws=9, bounds=(-9.0, 9.0), softmax=True
    ),
}


@pytest.mark.parametrize("name", ["smoothgrad", "perturbation"])
def test_methods_and_metrics_use_it(name, monkeypatch):
    fast, used, there = prepare(chain("dense"), pictures()), [], packed.convolve
    monkeypatch.setattr(packed, "convolve", lambda *a: used.append(1) or there(*a))
    found = MAPS[name](fast, pictures())
    assert len(used) >= 6  # three layers; there and back, or in two windows
    monkeypatch.setattr(packed, "ENOUGH", 10**9)
    assert torch.allclose(MAPS[name](fast, pictures()), found, atol=1e-4)


def test_the_first_call_of_a_process_may_be_in_reduced_precision():
    fast = prepare(chain("dense"), pictures())
    packed._offered.cache_clear()
    with tl.precision("bfloat16"):
        assert tl.smoothgrad(fast, pictures(), TARGET, **OWN).isfinite().all()
    assert packed._offered()


def reader(f, z):
    """Reads the convolution's output itself, after it was clipped elsewhere."""
    return f(z) + f[1](f[0](z)).mean((2, 3))[:, :3]


def stored(f, z):
    """Keeps no activations, and computes them again on the way back."""
    return torch.utils.checkpoint.checkpoint(f, z, use_reentrant=False)


@pytest.mark.parametrize("model", [reader, stored])
def test_models_that_use_a_layer_twice_in_a_pass(model):
    net, x = chain("dense"), pictures()
    fast, expected = prepare(net, x), slopes(lambda z: model(net, z), x, TARGET)
    with packed.kept():
        for _ in range(3):
            assert torch.allclose(a_pass(lambda z: model(fast, z), x), expected, atol=1e-5)


def test_a_block_with_a_network_of_its_own_is_not_clipped_as_the_others_are():
    def shorter(model):
        return lambda z: model[1](model[0](z)).mean((2, 3))

    def places(x):
        z = torch.stack([x + 0.1 * k for k in range(20)])
        blocks = [engine.Block(z, shares=0.05), engine.Block(z, shares=0.05, network=shorter)]
        return engine.Probes(40, lambda: iter(blocks))

    net, x = chain("dense"), pictures()
    fast = prepare(net, x)
    maps = [engine.average(f, x, TARGET, places, batch_size=9) for f in (net, fast)]
    assert torch.allclose(*maps, atol=1e-5)


def test_a_hook_may_write_over_what_the_activation_reads():
    net, x = chain("dense"), pictures()
    fast = prepare(net, x)

    def half(layer, inputs):
        inputs[0].mul_(0.5)

    for model in (net, fast):
        model[2].register_forward_pre_hook(half)
    expected = slopes(net, x, TARGET)
    with packed.kept():
        for _ in range(3):
            assert torch.allclose(a_pass(fast, x), expected, atol=1e-5)


def test_weights_that_change_in_place_between_two_passes_count():
    net, x = chain("dense"), pictures()
    fast = prepare(net, x)
    with packed.kept():
        for factor in (1.0, 1.0, -0.5, 1.0):
            for model in (net, fast):
                with torch.no_grad():
                    model[1].weight.mul_(factor)
            assert torch.allclose(a_pass(fast, x), slopes(net, x, TARGET), atol=1e-5)


def test_a_dilation_that_was_set_later_is_obeyed():
    net, x = chain("dense"), pictures()
    fast = prepare(net, x)
    for model in (net, fast):
        model[1].dilation = model[1].padding = (2, 2)
    with packed.kept():
        for _ in range(2):
            assert torch.allclose(a_pass(fast, x), slopes(net, x, TARGET), atol=1e-5)


def test_several_slopes_at_once_are_left_to_pytorch():
    net, x = chain("dense"), pictures(1)
    fast = prepare(net, x)

    def jacobian(f, z):
        ones = torch.eye(3)[:, None]
        scores = f(z)
        slope = torch.autograd.grad(scores, z, ones, retain_graph=True, is_grads_batched=True)[0]
        return scores + 0 * slope.detach().sum()

    expected = slopes(lambda z: net(z), x, TARGET[:1])
    with packed.kept():
        for _ in range(2):
            found = engine.gradients(lambda z: fast(z) + 0 * jacobian(fast, z), x, TARGET[:1])
            convolve.passed()
    assert torch.allclose(found, expected, atol=1e-5)
