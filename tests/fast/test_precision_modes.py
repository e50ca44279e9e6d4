"""Precision is chosen, never met by accident, and put back."""

import pytest
import torch
from torch import nn

import tutorial_lib as tl
from tests.closed_forms import normal
from tutorial_lib.fast.precision_modes import precision_for

CUDA = torch.device("cuda")


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5)
    ).eval()


def maps(net, x):
    own = dict(bounds=(-4.0, 4.0), size=3, count=2, draws=4)
    return {
        "smoothgrad": tl.smoothgrad(net, x, 2, sigma=0.1, samples=6),
        "integrated gradients": tl.integrated_gradients(net, x, 2, steps=6),
        "grad_cam": tl.grad_cam(net, x, 2, layer="0", upsample=None),
        "curve": tl.metrics.perturbation_curve(net, x, 2, x[:, 0], softmax=True, **own),
    }


def test_bfloat16_rounds_every_method_and_metric_and_float32_is_the_default(net, device):
    net, x = net.to(device), normal(2, 3, 12, 12, dtype=torch.float32).to(device)
    exact = maps(net, x)
    with tl.precision("float32"):
        assert all(torch.equal(v, exact[name]) for name, v in maps(net, x).items())
    with tl.precision("bfloat16"):
        for name, value in maps(net, x).items():
            off = float((value - exact[name]).norm() / exact[name].norm())
            assert 2**-13 < off < 2**-4, name
            assert value.dtype == exact[name].dtype
    assert all(torch.equal(v, exact[name]) for name, v in maps(net, x).items())


def test_the_default_is_exact_on_every_device(net, device):
    net, x = net.to(device), normal(2, 3, 12, 12, dtype=torch.float32).to(device)
    wide = tl.smoothgrad(lambda z: net.double()(z.double()), x, 2, sigma=0.1, samples=6)
    given = tl.smoothgrad(net.float(), x, 2, sigma=0.1, samples=6)
    assert float((given - wide).norm() / wide.norm()) < 1e-5  # TF32 would be off by 1e-3


def test_methods_that_compare_numbers_stay_exact(net):
    net = net[:1].append(nn.ReLU()).append(nn.Flatten()).append(nn.Linear(800, 5)).eval()
    x = normal(1, 3, 12, 12, dtype=torch.float32)
    exact = [method(net, x, 2) for method in (tl.deeplift, tl.lrp, tl.guided_backprop)]
    with tl.precision("bfloat16"):
        again = [method(net, x, 2) for method in (tl.deeplift, tl.lrp, tl.guided_backprop)]
    assert all(map(torch.equal, exact, again))


def test_float64_networks_are_left_alone(net):
    double, x = nn.Sequential(nn.Flatten(), nn.Linear(9, 2)).double().eval(), normal(2, 9)
    exact = tl.smoothgrad(double, x, 1, sigma=0.1, samples=3)
    with tl.precision("bfloat16"):
        assert torch.equal(tl.smoothgrad(double, x, 1, sigma=0.1, samples=3), exact)


def test_an_unknown_name_and_a_device_without_tf32_are_refused(net):
    accepted = "precision: expected one of float32, tf32, bfloat16"
    with pytest.raises(ValueError, match=accepted), tl.precision("float16"):
        pass
    with pytest.raises(ValueError, match="precision: 'tf32' needs"), tl.precision("tf32"):
        tl.gradient(net.cpu(), normal(1, 3, 12, 12, dtype=torch.float32), 0)


def test_the_choice_ends_with_its_block_and_can_be_nested(net):
    x = normal(1, 3, 12, 12, dtype=torch.float32)
    exact = tl.gradient(net.cpu(), x, 0)
    with pytest.raises(ZeroDivisionError), tl.precision("bfloat16"):
        with tl.precision("float32"):
            assert torch.equal(tl.gradient(net, x, 0), exact)
        assert not torch.equal(tl.gradient(net, x, 0), exact)
        raise ZeroDivisionError
    assert torch.equal(tl.gradient(net, x, 0), exact)


def switches():
    backends = torch.backends
    found = [backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32]
    if hasattr(backends.cuda.matmul, "fp32_precision"):
        each = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
        found += [switch.fp32_precision for switch in each]
    return found


@pytest.mark.parametrize("users", [(False, True), (True, True), (False, False)])
def test_float32_on_a_gpu_switches_tf32_off_and_then_back(users):
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    first = matmul.allow_tf32, cudnn.allow_tf32
    try:
        matmul.allow_tf32, cudnn.allow_tf32 = users
        before = switches()
        with precision_for(CUDA):
            assert switches()[:2] == [False, False]
        assert switches() == before
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = first


@pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="PyTorch before 2.9"
)
def test_the_finer_switches_of_newer_pytorch_are_respected():
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    each = (matmul, cudnn.conv, cudnn.rnn)
    first = [switch.fp32_precision for switch in each]
    try:
        cudnn.conv.fp32_precision = "ieee"  # now the old switch of cuDNN cannot be read
        before = [switch.fp32_precision for switch in each]
        with precision_for(CUDA):
            assert {switch.fp32_precision for switch in each} == {"ieee"}
        assert [switch.fp32_precision for switch in each] == before
    finally:
        for switch, value in zip(each, first, strict=True):
            switch.fp32_precision = value


def test_the_medium_precision_of_matrix_products_is_put_back():
    first = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with precision_for(CUDA):
            assert not torch.backends.cuda.matmul.allow_tf32
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(first)


def test_tf32_is_switched_on_where_the_gpu_has_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    before = switches()
    with tl.precision("tf32"):
        with precision_for(CUDA):
            assert switches()[:2] == [True, True]
        with precision_for(CUDA, exact=True):
            assert switches()[:2] == [False, False]
    assert switches() == before
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(ValueError, match="capability"), tl.precision("tf32"), precision_for(CUDA):
        pass
