"""A model that cannot be explained row by row is refused, with a remedy; others are left alone."""

import dataclasses
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tutorial_lib as tl
from tests.closed_forms import Call, normal, tanh_mlp

X = normal(3, 6)
FUNCTIONS = {
    "gradient": lambda m, x: tl.gradient(m, x, 1),
    "smoothgrad": lambda m, x: tl.smoothgrad(m, x, 1, sigma=0.1, samples=3),
    "integrated_gradients": lambda m, x: tl.integrated_gradients(m, x, 1, steps=3),
    "idgi": lambda m, x: tl.idgi(m, x, 1, steps=3),
    "guided_integrated_gradients": lambda m, x: tl.guided_integrated_gradients(m, x, 1, steps=3),
    "deeplift": lambda m, x: tl.deeplift(m, x, 1),
    "lrp": lambda m, x: tl.lrp(m, x, 1),
    "deep_taylor": lambda m, x: tl.deep_taylor(m, x, 1),
    "smoothdiff": lambda m, x: tl.smoothdiff(m, x, 1, sigma=0.1, samples=3),
    "guided_backprop": lambda m, x: tl.guided_backprop(m, x, 1),
    "occlusion": lambda m, x: tl.occlusion(m, x, 1, window=2),
    "completeness_gap": lambda m, x: tl.metrics.completeness_gap(m, x, 1, torch.zeros_like(x)),
}


class Model(nn.Module):
    """A network with something before it."""

    def __init__(self, before):
        super().__init__()
        self.net, self.before = tanh_mlp(), before
        self.eval()

    def forward(self, z):
        return self.net(self.before(z))


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("rows", [1, 3])
def test_rows_that_influence_each_other_are_refused(name, rows):
    for before in (lambda z: z - z.mean(0), lambda z: z / len(z), lambda z: z.softmax(0)):
        with pytest.raises(ValueError, match=r"model: the scores of a row change.*mean\(1"):
            FUNCTIONS[name](Model(before), X[:rows])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_scores_that_change_from_call_to_call_are_refused(name):
    for before in (F.dropout, lambda z: z + 0.1 * torch.randn_like(z)):
        with pytest.raises(ValueError, match=r"model: its scores change.*training=self.training"):
            FUNCTIONS[name](Model(before), X)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_score_of_nan_or_an_offset_does_not_hide_rows_that_mix(rows):
    def offset(z):
        return 1000 + 0.1 * (z - z.mean(0))

    standardised = Model(lambda z: (z - z.mean(0)) / (z.std(0) + 1e-8))  # std of one row is NaN
    for net in (standardised, Model(lambda z: z / (z.var(0) + 1e-5).sqrt()), offset):
        with pytest.raises(ValueError, match="scores of a row change"):
            tl.gradient(net, X[:rows].float() if net is offset else X[:rows], 0)


def test_an_offset_does_not_hide_scores_that_change():
    with pytest.raises(ValueError, match="its scores change"):
        tl.gradient(lambda z: 300 + 0.02 * F.dropout(z), X.float(), 0)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_model_that_refuses_single_rows_is_examined(rows):
    norm = nn.BatchNorm1d(6, track_running_stats=False).double().eval()
    in_training = nn.BatchNorm1d(6).double()
    for before in (norm, in_training):
        net = Model(lambda z, norm=before: norm(z)).net
        function = lambda z, norm=before, net=net: net(norm(z))  # noqa: E731
        with pytest.raises(ValueError, match=r"scores of a row change.*eval\(\)"):
            tl.smoothgrad(function, X[:rows], 0, sigma=0.2, samples=5)


def test_a_function_is_examined_at_each_call_as_its_network_may_train_by_then():
    net = nn.Sequential(nn.Dropout(), tanh_mlp()).eval()

    def function(z):
        return net(z)

    tl.gradient(function, X, 0)
    net.train()
    with pytest.raises(ValueError, match=r"its scores change.*eval\(\)"):
        tl.gradient(function, X, 0)


def test_a_score_of_nan_is_refused_also_where_its_gradient_is_a_number():
    for explain in (tl.gradient, tl.integrated_gradients):
        with pytest.raises(
            ValueError, match=r"scores or gradients are NaN .* pictures \[0, 1, 2\]"
        ):
            explain(torch.log, -1 - X.abs(), 0)


def test_a_result_that_half_precision_cannot_hold_is_refused():
    x = torch.full((1, 2), 250.0, dtype=torch.float16)
    with pytest.raises(ValueError, match=r"infinite .* torch\.float16"):
        tl.gradient_x_input(lambda z: z * 300 - 60000, x, 0)


def test_pictures_that_are_zero_or_equal_do_not_hide_it():
    for x in (torch.zeros(1, 6).double(), X[:1].expand(3, -1), torch.ones(2, 6).double()):
        with pytest.raises(ValueError, match="scores of a row change"):
            tl.gradient(Model(lambda z: z - z.mean(0)), x, 0)


def test_grad_cam_and_perturbation_ask_too():
    conv = nn.Conv2d(1, 4, 3).double()
    net = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3).double()).eval()
    x = normal(2, 1, 8, 8)
    mixed = lambda z: net(z - z.mean(0))  # noqa: E731
    with pytest.raises(ValueError, match="scores of a row change"):
        tl.grad_cam(mixed, x, 0, layer=conv)
    with pytest.raises(ValueError, match="scores of a row change"):
        tl.metrics.aupc(mixed, x, 0, x[:, 0], bounds=(-9.0, 9.0), size=2, count=2, draws=2)


def test_who_knows_may_switch_the_check_off():
    mixed = Model(lambda z: z - z.mean(0))
    with tl.skip_model_check():
        skipped = tl.gradient(mixed, X, 1)
        with pytest.raises(ZeroDivisionError), tl.skip_model_check():
            raise ZeroDivisionError
        assert torch.equal(tl.gradient(mixed, X, 1), skipped)
    with pytest.raises(ValueError, match="scores of a row change"):
        tl.gradient(mixed, X, 1)


def test_a_model_is_asked_once_for_each_shape():
    rows = []

    class Counted(Model):
        def forward(self, z):
            rows.append(len(z))
            return super().forward(z)

    net = Counted(lambda z: z)
    tl.gradient(net, X, 1)
    assert sum(rows) == 6 + 3  # the check, and the pictures
    rows.clear()
    tl.gradient(net, X, 1)
    assert rows == [3]
    tl.gradient(net, X[:2], 1)
    assert len(rows) > 2


def test_the_check_takes_no_random_numbers_and_leaves_x_alone():
    x, state = X.clone(), torch.get_rng_state()
    tl.gradient(Model(lambda z: z.mul_(2)), x, 1)
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(x, X)


def test_rounding_of_half_precision_is_no_influence():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 5)).eval()
    x = torch.randn(2, 64)
    for dtype in (torch.bfloat16, torch.float16):
        tl.gradient(net.to(dtype), x.to(dtype), 1)
    with tl.precision("bfloat16"):
        tl.gradient(net.float(), x, 1)


# --- A softmax or sigmoid that saturates ---


@pytest.mark.parametrize("ending", ["softmax", "sigmoid"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_saturated_probability_is_named(ending, wrapped):
    net = tanh_mlp()
    sharp = lambda z: getattr(net(z) * 1e4, ending)(*[1][: ending == "softmax"])  # noqa: E731
    model = Call(sharp).eval() if wrapped else sharp
    with pytest.warns(UserWarning, match=f"model: it ends in a {ending}.*logits"):
        assert tl.gradient(model, X, 0).abs().max() < 1e-6
    with pytest.warns(UserWarning, match=ending):
        tl.smoothgrad(model, X, 0, sigma=1e-6, samples=3)


def test_no_warning_where_a_probability_still_moves_or_logits_are_explained():
    net = tanh_mlp()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tl.gradient(lambda z: net(z).softmax(1), X, 0)
        tl.gradient(lambda z: (net(z) * 1e4).log_softmax(1), X, 0)
        tl.gradient(lambda z: net(z) * 0, X, 0)  # truly flat, and no probability


# --- Tensors with a row for each picture, inside the model ---


@pytest.mark.slow
def test_a_tensor_that_a_model_holds_stays_with_its_picture():
    net, held = tanh_mlp(), normal(3, 3, seed=5)
    model = lambda z: net(z) * held  # noqa: E731
    for name, function in FUNCTIONS.items():
        each = [function(lambda z, k=k: net(z) * held[k : k + 1], X[k : k + 1]) for k in range(3)]
        assert torch.allclose(function(model, X), torch.cat(each)), name
    given = tl.smoothgrad(model, X, 1, sigma=0.1, samples=4, batch_size=7)
    assert torch.allclose(given, tl.smoothgrad(model, X, 1, sigma=0.1, samples=4))


# --- What a model may return, and what to write where it does not ---


@dataclasses.dataclass
class Output:
    logits: torch.Tensor


RETURNED = {
    'tl.scores(model, pick="logits")': Output,
    "with 'loss' int 0, 'logits' shape (2, 3)": lambda s: {"loss": 0, "logits": s},
    'tl.scores(model, pick="out")': lambda s: {"out": s},
    "tl.scores(model, pick=0)": lambda s: (s, s),
    "Write tl.scores(model)": lambda s: s[:, 0],
    "pick=lambda y: y[:, :, 1, 2])": lambda s: s[:, :, None, None].expand(-1, -1, 3, 4),
    'pick=lambda y: y["out"][:, :, 1, 2])': lambda s: {
        "out": s[:, :, None, None].expand(-1, -1, 3, 4)
    },
    "pick=lambda y: y[:, 0])": lambda s: s[:, None].expand(-1, 2, -1),
    "pick=lambda y: y.flatten(1))": lambda s: s[:, None],
    "pick=lambda y: y.abs())": lambda s: s + 1j,
    "before an argmax": lambda s: s.argmax(1),
    "let it return one for each": lambda s: s.sum(),
    "pick=lambda y: ...)": lambda s: None,
}


@pytest.mark.parametrize("line", RETURNED)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_error_shows_the_line_that_makes_scores_of_it(name, line):
    net = tanh_mlp()
    with pytest.raises((TypeError, ValueError)) as error:
        FUNCTIONS[name](lambda z: RETURNED[line](net(z)), X)
    assert str(error.value).startswith("model: ") and line in str(error.value)


def test_a_model_that_normalises_in_place_is_explained_as_the_one_that_does_not():
    writes, not_so = Model(lambda z: z.sub_(0.4).div_(0.2)), Model(lambda z: (z - 0.4) / 0.2)
    for name, function in FUNCTIONS.items():
        x = X.clone()
        assert torch.allclose(function(writes, x), function(not_so, X)), name
        assert torch.equal(x, X), name


def test_pictures_with_channels_last_are_told_what_to_write():
    conv = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten()).eval()
    with pytest.raises(ValueError, match=r"^x: .*x\.permute\(0, 3, 1, 2\)"):
        tl.gradient(conv, torch.rand(1, 6, 5, 3), 0)


HINTS = [
    ([1, 1, 1], TypeError, "torch.as_tensor"),
    (torch.tensor(1), ValueError, "int(target)"),
    (torch.tensor([1, 0, 1], dtype=torch.int32), TypeError, "target.long()"),
    (torch.tensor([[1], [0], [1]]), ValueError, "target[:, 0]"),
    (torch.eye(3), TypeError, "argmax(1)"),
]


@pytest.mark.parametrize("target, kind, hint", HINTS)
def test_a_target_of_another_form_is_told_what_to_write(target, kind, hint):
    with pytest.raises(kind, match=r"^target: ") as error:
        tl.gradient(tanh_mlp(), X, target)
    assert hint in str(error.value)


@pytest.mark.slow
def test_exported_traced_and_parallel_modules_are_explained():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()
    x = normal(2, 1, 6, 6, dtype=torch.float32)
    others = [torch.export.export(net, (x,)).module(), nn.DataParallel(net).eval()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, that tracing is old
        others.append(torch.jit.trace(net, x))
    for other in others:
        for method in (tl.gradient, tl.deeplift, tl.lrp, tl.guided_backprop):
            assert torch.allclose(method(other, x, 1), method(net, x, 1), atol=1e-6)
        same = dict(sigma=0.1, samples=3)
        found = tl.smoothgrad(other, x, 1, **same)
        assert torch.allclose(found, tl.smoothgrad(net, x, 1, **same), atol=1e-6)


def test_an_input_that_a_model_does_not_take_is_told_what_to_write():
    torch.manual_seed(0)
    flat = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(5)).eval()
    x = normal(2, 3, 8, 8, dtype=torch.float32)
    flat(x)
    for dtype in (torch.float64, torch.bfloat16):
        with pytest.raises(TypeError, match=rf"^x: its dtype is {dtype}, .*x.to\(torch.float32\)"):
            tl.gradient(flat, x.to(dtype), 1)
    with pytest.raises(ValueError, match=r"^x: the model takes a batch .*\(3, 8, 8\); x\[None\]"):
        tl.gradient(flat, x[0], 1)


def test_models_that_take_no_single_row_are_looked_at_too():
    norm = nn.BatchNorm1d(6, track_running_stats=False).double()
    held = normal(3, 3, seed=5)
    net = tanh_mlp()
    models = {
        "scores of a row change": [
            Model(norm),
            lambda z: (net(z) * held).softmax(0),
        ],
        "scores change": [lambda z: net(z + torch.randn_like(z)) * held],
    }
    for message, found in models.items():
        for model in found:
            with pytest.raises(ValueError, match=message):
                tl.gradient(model, X, 1)


def test_influence_is_seen_beside_a_class_with_large_scores():
    net = tanh_mlp()

    def mixed(z):
        y = net(z)
        return torch.cat([y - y.mean(0), 1e6 * y[:, :1]], 1)

    with pytest.raises(ValueError, match="scores of a row change"):
        tl.gradient(mixed, X, 0)
    with pytest.raises(ValueError, match="scores of a row change"):
        tl.gradient(lambda z: (y := net(F.normalize(z))) - y.mean(0), X[:1], 0)


def test_a_map_that_is_flat_as_its_input_is_zero_is_no_saturation():
    net = tanh_mlp()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tl.gradient_x_input(lambda z: net(z).softmax(1), 0 * X, 0)
        tl.integrated_gradients(lambda z: net(z).softmax(1), 0 * X, 0, steps=3)
