"""The ONNX graph gives the scores and gradients of PyTorch, and its file is whole or not there."""

import re

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

import tutorial_lib as tl
from tests.closed_forms import differs_by
from tutorial_lib.fast import gradient_graph

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.__version__ < "2.6", reason="PyTorch's exporter is from 2.6 on"),
]
# Rounding. Where the network has kinks, a unit within rounding of one may land on its other side
# and move every pixel behind it: then norms are within some 1e-2, and single pixels need not be.
ROUNDING, KINK = 1e-5, 2e-2


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def run(path, x, class_weights, outputs=None):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options)
    feeds = {"picture": x.numpy(), "class_weights": class_weights.numpy()}
    return [torch.from_numpy(found) for found in session.run(outputs, feeds)]


def errors(path, model, x, seed=1):
    """The distances of scores and gradients from PyTorch's, for random weights of the classes."""
    x = x.clone().requires_grad_()
    scores = model(x)
    class_weights = normal(*scores.shape, seed=seed)
    (gradient,) = torch.autograd.grad(scores, x, class_weights)
    found = run(path, x.detach(), class_weights)
    return [differs_by(a, b) for a, b in zip(found, (scores, gradient), strict=True)]


def mlp(*activations):
    torch.manual_seed(0)
    layers = [nn.Linear(6, 16)]
    for activation in activations:
        layers += [activation, nn.Linear(16, 16)]
    return nn.Sequential(*layers).eval()


def every_convolution():
    """Strides, groups, dilation, a transposed one, more padding than kernel, a residual, pools."""
    torch.manual_seed(0)
    shortcut = nn.Sequential(nn.Conv2d(8, 8, 1, stride=2), nn.BatchNorm2d(8))
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU6(inplace=True),  # writes over the layer whose activation is asked for
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.MaxPool2d(3, 2, 1),
        BasicBlock(8, 8, stride=2, downsample=shortcut),
        nn.Conv2d(8, 12, 3, padding=2, dilation=2, groups=4),
        nn.Hardtanh(-2.0, 1.0),
        nn.Conv2d(12, 6, (1, 3), stride=(1, 2), padding=(2, 1)),
        nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1),
        nn.AvgPool2d(3, 2, 1),
        nn.MaxPool2d(2, 1),
        nn.AdaptiveAvgPool2d((2, 3)),
        nn.Flatten(),
        nn.Linear(24, 5),
    )
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):  # fresh statistics would change nothing
            norm.running_mean.normal_(0, 0.2)
            norm.running_var.uniform_(0.5, 1.5)
    return net.eval()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A network with a layer, its input, and its file."""
    model, x = every_convolution(), normal(2, 3, 24, 36)
    path = tmp_path_factory.mktemp("graph") / "network.onnx"
    tl.export_gradient(model, x, path, layer=model[1])
    return model, x, path


def test_the_graph_has_the_scores_and_the_gradient_of_every_kind_of_convolution(written):
    model, x, path = written
    for seed, at in enumerate((x, x / 2, -x)):  # not only where it was compared
        at = at.clone().requires_grad_()
        scores = model(at)
        weights = normal(2, 5, seed=seed)
        (gradient,) = torch.autograd.grad(scores, at, weights)
        found = run(path, at.detach(), weights, ["scores", "gradient"])
        assert differs_by(found[0], scores) < ROUNDING
        assert differs_by(found[1], gradient) < ROUNDING


def test_weights_of_two_classes_give_the_gradient_of_their_difference_for_each_row(written):
    model, x, path = written
    weights = torch.tensor([[1.0, 0, 0, 0, -1], [0, 0, 1, 0, 0]])
    (gradient,) = run(path, x, weights, ["gradient"])
    first = tl.gradient(model, x[:1], 0) - tl.gradient(model, x[:1], 4)
    assert differs_by(gradient[:1], first) < ROUNDING
    assert differs_by(gradient[1:], tl.gradient(model, x[1:], 2)) < ROUNDING


def test_a_layer_that_is_written_over_and_its_gradient_give_grad_cam(written):
    model, x, path = written
    weights = torch.eye(5)[[3, 1]]
    layer, slope = run(path, x, weights, ["activation", "activation_gradient"])
    assert differs_by(layer, model[:2](x)) < ROUNDING
    cells = (slope.mean((2, 3), keepdim=True) * layer).sum(1).relu()
    wanted = tl.grad_cam(model, x, torch.tensor([3, 1]), layer="1", upsample=None)
    assert wanted.any() and differs_by(cells, wanted) < ROUNDING


def test_a_function_with_any_activation_is_exported_and_its_file_is_the_same_each_time(tmp_path):
    model, x = mlp(nn.ReLU(), nn.GELU(), nn.Tanh()), normal(3, 6)
    files = [tmp_path / "first.onnx", tmp_path / "second.onnx"]
    for path in files:
        tl.export_gradient(lambda z: model(z) ** 2, x, path)
    assert max(errors(files[0], lambda z: model(z) ** 2, x)) < ROUNDING
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    "pool",
    [
        nn.AdaptiveAvgPool2d((2, 3)),
        nn.AvgPool2d(3, 2, 1),
        nn.AvgPool2d((3, 2), padding=(1, 0), count_include_pad=False),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True),
        nn.AvgPool2d(2, divisor_override=3),
    ],
    ids=str,
)
def test_means_over_windows_of_any_kind_have_their_gradient(pool):
    """The formulas alone, as the exporter lacks some of the forward operators."""
    x = normal(2, 3, 7, 8).requires_grad_()
    output = pool(x)
    grad_output = normal(*output.shape, seed=1)
    (wanted,) = torch.autograd.grad(output, x, grad_output)
    if isinstance(pool, nn.AdaptiveAvgPool2d):
        found = gradient_graph._adaptive_avg_pool_backward(grad_output, x)
    else:
        sides = [[n] * 2 if isinstance(n, int) else [*n] for n in (pool.kernel_size, pool.stride)]
        sides.append([pool.padding] * 2 if isinstance(pool.padding, int) else [*pool.padding])
        options = pool.ceil_mode, pool.count_include_pad, pool.divisor_override
        found = gradient_graph._avg_pool_backward(grad_output, x, *sides, *options)
    assert differs_by(found, wanted) < ROUNDING


def test_the_file_is_small_and_names_no_folder(written):
    path = written[2]
    graph = onnx.load(path)
    onnx.checker.check_model(graph, full_check=True)
    assert [(o.domain, o.version) for o in graph.opset_import] == [("", 18)]
    assert [i.name for i in graph.graph.input] == ["picture", "class_weights"]
    wanted = ["scores", "gradient", "activation", "activation_gradient"]
    assert [o.name for o in graph.graph.output] == wanted
    assert not re.search(rb"site-packages|tutorial_lib|\.py", path.read_bytes())


def test_model_and_input_stay_as_they_are(written):
    model, x, path = written
    fresh = every_convolution()
    assert torch.equal(x, normal(*x.shape)) and not x.requires_grad
    assert all(map(torch.equal, model.state_dict().values(), fresh.state_dict().values()))
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m.training for m in model.modules())
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_network_of_the_book_has_its_gradient_at_a_photograph(tmp_path):
    """The first blocks of each stage: the others are alike, and each takes a second to export.

    The whole network is compared when the playground is built, and by its tests in a browser.
    """
    model, path = tl.load_model("efficientnet_lite0", device="cpu"), tmp_path / "lite0.onnx"
    blocks = model.network.blocks
    for stage in range(len(blocks)):
        blocks[stage] = blocks[stage][: 1 + (stage == 1)].eval()  # one of them with a residual
    photographs = [tl.load_image(name) for name in ("chelsea", "coffee")]
    inputs = model.preprocess(photographs)[..., 64:160, 64:160]
    tl.export_gradient(model, inputs[:1], path, layer="network.bn2")
    weights, label = torch.zeros(1, 1000), 273  # which has a map of Grad-CAM at both
    weights[0, label] = 1
    for x in inputs.split(1):
        scores, gradient, layer, slope = run(path, x, weights)
        assert differs_by(scores, model(x)) < ROUNDING
        assert differs_by(gradient, tl.gradient(model, x, label)) < KINK  # ReLU6; mostly 1e-6
        cells = (slope.mean((2, 3))[..., None, None] * layer).sum(1).relu()
        wanted = tl.grad_cam(model, x, label, layer="network.bn2", upsample=None)
        assert wanted.any() and differs_by(cells, wanted) < ROUNDING
    last = dict(memory_format=torch.channels_last)
    assert model.network.conv_stem.weight.is_contiguous(**last), "the model was changed"
    weights_of = sum(p.nbytes for p in model.parameters())
    assert path.stat().st_size < 1.02 * weights_of, "weights are in the file twice"


def test_a_transformer_is_exported(tmp_path):
    block = pytest.importorskip("timm.models.vision_transformer").Block
    torch.manual_seed(0)
    model = nn.Sequential(block(8, num_heads=2), nn.Flatten(), nn.Linear(40, 4)).eval()
    x = normal(2, 5, 8)  # tokens
    tl.export_gradient(model, x, tmp_path / "vit.onnx")
    assert max(errors(tmp_path / "vit.onnx", model, x)) < ROUNDING


class Chooses(nn.Module):
    """Its layers follow from the values of its input."""

    def forward(self, z):
        return z * 2 if z.sum() > 0 else z * 3


class Resizes(nn.Module):
    """The backward pass of a resized picture is an operator that nothing decomposes."""

    def forward(self, z):
        return nn.functional.interpolate(z, size=(5, 5), mode="bilinear").flatten(1)


class Inverse(nn.Module):
    """ONNX has no inverse of the error function."""

    def forward(self, z):
        return torch.erfinv(z.tanh())


@pytest.mark.parametrize(
    "model, x, said",
    [
        (Chooses(), normal(1, 3), "cannot be recorded"),
        (Resizes(), normal(1, 1, 3, 3), "aten.upsample_bilinear2d_backward"),
        (Inverse(), normal(1, 3), r"prims\.erf_inv cannot"),
    ],
    ids=["chooses", "resizes", "inverse"],
)
def test_what_cannot_be_exported_is_named_and_leaves_an_earlier_file(tmp_path, model, x, said):
    path = tmp_path / "kept.onnx"
    path.write_bytes(b"earlier")
    with pytest.raises(NotImplementedError, match=f"^model: .*{said}"):
        tl.export_gradient(model.eval(), x, path)
    assert path.read_bytes() == b"earlier" and [*tmp_path.iterdir()] == [path]


class Twice(nn.Module):
    """One layer, two runs."""

    def __init__(self):
        super().__init__()
        self.dense, self.idle = nn.Linear(3, 3), nn.Linear(3, 3)
        self.beside = nn.Linear(3, 3)

    def forward(self, z):
        self.beside(z)
        return self.dense(self.dense(z))


@pytest.mark.parametrize(
    "change, kind, said",
    [
        (dict(x=normal(1, 6).double()), TypeError, "x: expected torch.float32.*x.float()"),
        (dict(x=[1.0]), TypeError, "x: "),
        (dict(model=mlp().train()), ValueError, "model: .*eval"),
        (dict(model=3), TypeError, "model: "),
        (dict(model=torch.jit.script(mlp())), TypeError, "model: a scripted"),
        (dict(model=lambda z: z.sum()), ValueError, "model: "),
        (dict(model=lambda z: torch.zeros(len(z), 2)), ValueError, "model: .*does not depend"),
        (dict(path=3), TypeError, "path: .*int"),
        (dict(path="no/such/folder/n.onnx"), FileNotFoundError, "path: no folder .*mkdir"),
        (dict(path="."), ValueError, "path: .*is a folder"),
        (dict(layer="7"), ValueError, "layer: .*'7'.*named_modules"),
        (dict(layer=nn.Linear(1, 1)), ValueError, "layer: .*'Linear'"),
        (dict(layer=5), ValueError, "layer: .*'int'"),
        (dict(model=lambda z: z, layer="0"), TypeError, "layer: .*'0'.*itself"),
        (dict(model=Twice().eval(), x=normal(1, 3), layer="dense"), ValueError, "layer: .*once"),
        (dict(model=Twice().eval(), x=normal(1, 3), layer="idle"), ValueError, "layer: .*runs"),
        (dict(model=Twice().eval(), x=normal(1, 3), layer="beside"), ValueError, "layer: .*scores"),
    ],
)
def test_an_argument_that_does_not_fit_is_named(tmp_path, monkeypatch, change, kind, said):
    monkeypatch.chdir(tmp_path)
    arguments = dict(model=mlp(), x=normal(1, 6), path="n.onnx") | change
    with pytest.raises(kind, match=f"^{said}"):
        tl.export_gradient(**arguments)
    assert not [*tmp_path.iterdir()]


def test_a_graph_that_is_wrong_is_not_written(written, tmp_path, monkeypatch):
    model, x, path = written
    monkeypatch.setattr(gradient_graph, "_onnx", lambda *_: path.read_bytes())
    with pytest.raises(RuntimeError, match=r"model: the gradient .* differs by"):
        # the scores of the graph, and twice its gradient
        tl.export_gradient(lambda z: 2 * model(z) - model(z).detach(), x, tmp_path / "wrong.onnx")
    assert not [*tmp_path.iterdir()]


def test_an_older_pytorch_is_refused_with_what_helps(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    with pytest.raises(ImportError, match=r"torch 2.6 .* 2.5.1.*pip install"):
        tl.export_gradient(mlp(), normal(1, 6), tmp_path / "n.onnx")
