"""The tape must hold what a model does, whatever the spelling, and a linear form its numbers."""

import gc
import weakref
from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules import module as hooks

import tutorial_lib as tl
from tests.closed_forms import Call, normal
from tutorial_lib.rules.linear_steps import bias, linear_form
from tutorial_lib.rules.recorder import record
from tutorial_lib.rules.tape import gradient, one_hot, walk_back

X, TARGET = normal(2, 12), torch.tensor([1, 0])
W, V = normal(12, 12, seed=1) / 3, normal(4, 3, seed=2)


def taped(model, x=X, target=TARGET):
    return record(model, x, target)


def backpropagated(model, x=X, target=TARGET):
    """The gradient, step by step along the tape."""
    tape = record(model, x, target)
    seed = one_hot(target, tape.values[tape.output])
    *_, (number, up) = walk_back(tape, partial(gradient, tape), seed)
    assert number == 0
    return up


def agrees(model, x=X):
    """Whether the walk back is autograd's gradient, on a model and an x that stay as they are."""
    kept = x.clone()
    with tl.skip_model_check():  # one of them reads a number out of all rows
        wanted = tl.gradient(model, x, TARGET)
    found = backpropagated(model, x)
    return torch.equal(x, kept) and torch.allclose(found, wanted, rtol=1e-9, atol=1e-12)


# --- The walk back by each step's own rule is backpropagation ---


def image(x):
    return x.view(-1, 3, 2, 2).repeat(1, 1, 3, 3)


def masked(x):
    y = x @ W
    y[y < 0] = 0
    return y


SPELLINGS = {
    "nothing": lambda x: x,
    "F.relu": lambda x: F.relu(x @ W),
    "relu in place": lambda x: F.relu(x @ W, inplace=True),
    "relu_ whose result is not used": lambda x: (y := x @ W, y.relu_(), y * 2)[2],
    "the input in place": lambda x: x.relu_() @ W,
    "the input's own sum in place": lambda x: x.add_(x @ W),
    "x += y": lambda x: (x @ W).add_(x.sigmoid()),
    "y -= x": lambda x: (x @ W).sub_(x).mul_(x),
    "in place, read before": lambda x: (y := x @ W, z := y.sigmoid(), y.tanh_(), y * z)[3],
    "written through a view": lambda x: (x @ W).view(-1).mul_(x.view(-1)).view(2, 12) * 2,
    "new axes in place": lambda x: (x @ W).unsqueeze_(1).mul(x[:, None]).squeeze_(1),
    "cat": lambda x: torch.cat([x @ W, x, torch.ones(2, 1)], 1),
    "chunk": lambda x: torch.cat([c * k for k, c in enumerate(x.chunk(3, 1))], 1),
    "split": lambda x: x.split([2, 7, 3], 1)[1] * x.split(7, 1)[0],
    "unbind and stack": lambda x: torch.stack([r * r for r in x.unbind(1)[1:]], 1),
    "slices": lambda x: x[:, 1::2] * x[:, :6] + x[:, -1:],
    "an index": lambda x: x[:, [3, 0, 3]].exp(),
    "sort": lambda x: x.sort(1)[0] * W[0],
    "maximum": lambda x: x.max(1, keepdim=True)[0] * x,
    "einsum": lambda x: torch.einsum("ni,ij,nj->nj", x, W, x),
    "bmm of two values": lambda x: (x.view(2, 3, 4) @ x.view(2, 4, 3)).flatten(1),
    "products": lambda x: x * x.sigmoid() / (1 + x * x),
    "a value twice": lambda x: torch.add(x, x, alpha=3),
    "softmax": lambda x: (x @ W).softmax(1),
    "layer norm": lambda x: F.layer_norm(x, (12,), W[0], W[1]),
    "transposes": lambda x: (x.view(2, 3, 4).mT @ W[:3, :3]).permute(0, 2, 1).reshape(2, -1),
    "dense layer with more dimensions": lambda x: F.linear(x.view(2, 3, 4), V.T, V[0]).flatten(1),
    "zeros of its kind": lambda x: torch.cat([torch.zeros_like(x), x.new_ones(2, 1), x * 2], 1),
    "dropout in eval mode": lambda x: F.dropout(x @ W, training=False),
    "a mask": lambda x: x * (x > 0),
    "a mask as a number": lambda x: x * (x > 0).double(),
    "where": lambda x: torch.where(x > 0, x, 0.1 * x),
    "masked_fill": lambda x: x.masked_fill(x < 0, 0.5) @ W,
    "masked_fill_": lambda x: (y := x @ W, y.masked_fill_(y < 0, 0.5))[1],
    "an index put": masked,
    "gather": lambda x: x.gather(1, x.argsort(1)[:, :5]),
    "a number read out": lambda x: x / float(x.detach().abs().max()),
    "a guard": lambda x: x @ W if bool(x.isfinite().all()) else 1 / 0,
    "an empty Sequential": lambda x: nn.Sequential().eval()(x @ W) * 2,
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_walk_back_is_backpropagation(spelling):
    assert agrees(SPELLINGS[spelling])


class Block(nn.Module):
    """A residual block with one ReLU, used twice and in place."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)
        self.norm, self.relu = nn.BatchNorm2d(3), nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.relu(self.norm(self.first(x)))
        y = self.second(y)
        y += x
        return self.relu(y)


LAYERS = {
    "grouped convolution": lambda: nn.Conv2d(3, 6, 3, groups=3),
    "dilated convolution": lambda: nn.Conv2d(3, 4, 2, dilation=2, padding=1, stride=2),
    "padding that reflects": lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
    "transposed convolution": lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, output_padding=1),
    "convolution of a line": lambda: nn.Sequential(nn.Flatten(2), nn.Conv1d(3, 4, 3)),
    "convolution of a volume": lambda: nn.Sequential(
        nn.Unflatten(2, (2, 3)), nn.Conv3d(3, 4, 2), nn.MaxPool3d((1, 2, 2))
    ),
    "max pooling": lambda: nn.MaxPool2d(3, 2, 1),
    "max pooling of a line": lambda: nn.Sequential(nn.Flatten(2), nn.MaxPool1d(3)),
    "mean pooling": lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "adaptive pooling": lambda: nn.Sequential(nn.AdaptiveMaxPool2d(4), nn.AdaptiveAvgPool2d(3)),
    "global pooling": lambda: nn.AdaptiveAvgPool2d(1),
    "batch norm": lambda: nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(inplace=True)),
    "batch norm of a line": lambda: nn.Sequential(nn.Flatten(2), nn.BatchNorm1d(3)),
    "group norm": lambda: nn.GroupNorm(3, 3),
    "a residual block": Block,
    "a block twice": lambda: nn.Sequential(*[Block()] * 2),
    "upsampling": lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
    "pixel shuffle": lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.PixelShuffle(2)),
    "prelu": lambda: nn.PReLU(3),
    "attention": lambda: nn.Sequential(
        nn.Flatten(2), nn.TransformerEncoderLayer(36, 2, 8, batch_first=True)
    ),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_on_the_tape_has_its_gradient_and_stays_as_it_is(layer):
    torch.manual_seed(0)
    net = nn.Sequential(LAYERS[layer](), nn.Flatten()).double().eval()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2)
    before = deepcopy(net.state_dict())
    assert agrees(net, image(X) + normal(2, 3, 6, 6))
    assert all(torch.equal(v, before[name]) for name, v in net.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


# --- What is on the tape ---


def names(tape):
    return [step.name for step in tape.steps]


def test_constants_are_no_steps():
    def model(x):
        weight = (W.exp() + 1).t().contiguous().relu_()
        return x @ weight + torch.ones(12) * 3

    assert names(taped(model)) == ["mm", "add"]


def test_steps_that_the_output_does_not_depend_on_are_dropped():
    def model(x):
        y = x.exp()
        x.sin().cos()
        (y * 2).tanh_()
        return y + 1

    tape = taped(model)
    assert names(tape) == ["exp", "add"]
    assert set(tape.values) == {0, tape.steps[0].output, tape.steps[1].output}


def test_the_last_step_is_dropped_only_where_it_makes_probabilities():
    for last in (torch.softmax, torch.log_softmax):
        assert names(taped(lambda x, last=last: last(x @ W, 1)).logits()) == ["mm"]
    assert names(taped(lambda x: (x @ W).sigmoid()).logits()) == ["mm"]
    assert names(taped(lambda x: (x @ W).tanh()).logits()) == ["mm", "tanh"]
    assert names(taped(lambda x: x.softmax(1) @ W).logits()) == ["_softmax", "mm"]
    assert names(taped(lambda x: x).logits()) == []


def test_a_step_can_be_run_again_on_other_values():
    tape = taped(lambda x: torch.cat([x.chunk(3, 1)[1].exp(), torch.zeros(2, 1)], 1) * 2 - X[:, :5])
    other = {0: normal(2, 12, seed=9)}
    for step in tape.steps:
        again = step(*tape.values_read_by(step))
        assert torch.equal(again, tape.values[step.output])
        other[step.output] = step(*(other[i] for i in step.inputs))
    wanted = torch.cat([other[0][:, 4:8].exp(), torch.zeros(2, 1)], 1) * 2 - X[:, :5]
    assert torch.equal(other[tape.output], wanted)


def test_values_stay_as_they_were_when_they_were_read():
    def model(x):
        y = x @ W
        part = y[:, :3]
        square = y**2 + part.sum(1, keepdim=True)
        y.mul_(2)
        part = square[:, :2]
        cube = square**3
        part.zero_()
        return cube + y

    clean = lambda x: (y := x @ W, ((y**2 + y[:, :3].sum(1, keepdim=True)) ** 3) + 2 * y)[1]  # noqa: E731
    assert torch.allclose(backpropagated(model), tl.gradient(clean, X, TARGET))


class Named(nn.Module):
    """Two layers inside a module inside a module, and an operation in its own forward."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(12, 5), nn.Sequential(nn.ReLU()))
        self.double()

    def forward(self, x):
        return self.body(x) * 2


def line_of(function, offset=0):
    return f"test_tape.py:{function.__code__.co_firstlineno + offset}"


def test_a_step_says_in_which_module_and_line_it_stands():
    net = Named().eval()
    tape = taped(net)
    line = line_of(Named.forward, 1)
    places = {step.name: step.location for step in tape.steps}
    assert places["addmm"] == f"body.0 ({line})"
    assert places["relu"] == f"body.1.0 ({line})"
    assert places["mul"] == f"Named ({line})"
    assert [step.module for step in tape.steps if step.name == "relu"] == ["body.1.0"]
    inside = {step.name: step.modules for step in tape.steps}
    assert inside["relu"] == (net, net.body, net.body[1], net.body[1][0])
    assert inside["mul"] == (net,)
    function = lambda x: x * 2  # noqa: E731
    assert taped(function).steps[0].location == line_of(function)


@pytest.mark.slow
def test_a_step_of_another_package_says_where_it_stands_there():
    from torchvision.models import resnet18

    net = resnet18(weights=None).double().eval()
    tape = taped(net, normal(2, 3, 32, 32))
    places = {step.location for step in tape.steps if step.name == "add"}
    assert len(places) == 8 and all("(resnet.py:" in where for where in places), places


def test_hooks_and_recorder_are_gone_after_an_error():
    def model(x):
        raise KeyError("from the model")

    before = [dict(h) for h in (hooks._global_forward_hooks, hooks._global_forward_pre_hooks)]
    with pytest.raises(KeyError, match="from the model"):
        taped(nn.Sequential(nn.Identity(), nn.Sequential(Call(model))).eval())
    after = [dict(h) for h in (hooks._global_forward_hooks, hooks._global_forward_pre_hooks)]
    assert before == after
    assert not torch.utils._python_dispatch._get_current_dispatch_mode_stack()


def test_a_module_that_fails_and_is_caught_is_not_running_any_more():
    def fails(x):
        raise KeyError

    class Careful(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = Call(fails)

        def forward(self, x):
            try:
                return self.part(x)
            except KeyError:
                return x * 2

    net = Careful().eval()
    assert taped(net).steps[0].modules == (net,)


@pytest.mark.slow
def test_nothing_of_a_tape_stays_in_the_model():
    net = Named().eval()
    tape = taped(net)
    held = [weakref.ref(tape.values[step.output]) for step in tape.steps]
    assert all(ref() is not None for ref in held)
    del tape
    gc.collect()
    assert all(ref() is None for ref in held)


# --- Refusals ---


def through_a_view(x):
    y = x @ W
    y[:, 0] = x[:, 1]
    return y * 2


def through_the_base(x):
    y = x @ W
    part = y[:, :3]
    y.mul_(2)
    return part * 2


def into_a_buffer(x):
    buffer = torch.zeros(2, 12, dtype=torch.float64)
    buffer[:, :1] = x[:, :1]
    return buffer * 2


def a_constant_between_two_reads(x):
    scale = torch.ones(12, dtype=torch.float64)
    y = x * scale
    scale += 1
    return y * scale


def through_data(x):
    y = x @ W
    y.data.mul_(2)
    return y * 2


@pytest.mark.parametrize("model", [through_a_view, through_the_base, into_a_buffer])
def test_a_write_that_cannot_be_followed_is_refused_at_the_line_that_reads_it(model):
    lines = model.__code__.co_positions()
    last = max(line for line, *_ in lines if line)
    with pytest.raises(NotImplementedError, match=rf"^model: \w+ at test_tape\.py:{last}\b"):
        taped(model)


@pytest.mark.parametrize("model", [a_constant_between_two_reads, through_data])
def test_a_write_behind_the_tape_is_refused(model):
    with pytest.raises(NotImplementedError, match=r"^model: \w+ at test_tape\.py:\d+"):
        taped(model)


@pytest.mark.parametrize("model", [through_a_view, through_the_base])
def test_a_write_that_only_the_caller_would_see_is_refused(model):
    def returned(x):
        y = x @ W
        part = y[:, :3]
        (part if model is through_a_view else y).mul_(2)
        return y if model is through_a_view else part

    with pytest.raises(NotImplementedError, match=r"^model: "):
        taped(returned)


def test_out_is_refused():
    with pytest.raises(NotImplementedError, match=r"^model: mul at test_tape\.py:\d+"):
        taped(lambda x: torch.mul(x, 2, out=torch.empty_like(x)))


@pytest.mark.parametrize(
    "model",
    [
        lambda x: torch.ones(2, 3),
        lambda x: torch.zeros_like(x),
        lambda x: x.detach() * 2,
        lambda x: x.data @ W,
        lambda x: torch.from_numpy(x.numpy() * 2),
        lambda x: (x > 0).double(),
    ],
)
def test_an_output_that_does_not_depend_on_the_input_is_refused(model):
    for method in (tl.guided_backprop, tl.deconvnet, tl.lrp):
        with pytest.raises((ValueError, NotImplementedError), match=r"^model: .*(depend|detach)"):
            method(model, X, TARGET)


@pytest.mark.parametrize(
    "model, error",
    [
        (lambda x: (x, x), TypeError),
        (lambda x: x.tolist(), TypeError),
        (lambda x: x.sum(1), ValueError),
        (lambda x: x[:1], ValueError),
        (lambda x: x.long(), ValueError),
    ],
)
def test_a_model_that_returns_no_scores_is_refused_by_name(model, error):
    with pytest.raises(error, match=r"^model: "):
        taped(model)


# --- Linear steps ---


def conv(kind, *args, **options):
    torch.manual_seed(0)
    return kind(*args, **options).double().eval()


def norm(affine):
    layer = nn.BatchNorm2d(3, affine=affine).double().eval()
    layer.running_mean.normal_()
    layer.running_var.uniform_(0.5, 2)
    if affine:
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
    return layer


SIGNED, HALF = normal(12, seed=3), normal(2, 4, seed=4)
LINEAR = {
    "dense": conv(nn.Linear, 12, 5),
    "dense in more dimensions": lambda x: F.linear(x.view(2, 3, 4), V.T, V[0]),
    "dense without bias": lambda x: x @ W,
    "addmm": lambda x: torch.addmm(SIGNED, x, W, beta=0.5, alpha=-2),
    "weights on the left": lambda x: W @ x.T,
    "bmm": lambda x: torch.bmm(x.view(2, 3, 4), V.expand(2, 4, 3)),
    "bmm, weights on the left": lambda x: torch.bmm(V.expand(2, 4, 3), x.view(2, 3, 4)),
    "einsum": lambda x: torch.einsum("ni,ij->nj", x, W),
    "convolution": lambda x: conv(nn.Conv2d, 3, 4, 2, padding=1)(x.view(2, 3, 2, 2)),
    "grouped": lambda x: conv(nn.Conv2d, 3, 6, 2, groups=3)(x.view(2, 3, 2, 2)),
    "transposed": lambda x: conv(nn.ConvTranspose2d, 3, 4, 2, stride=2)(x.view(2, 3, 2, 2)),
    "a line": lambda x: conv(nn.Conv1d, 3, 4, 3, dilation=2, padding=2)(x.view(2, 3, 4)),
    "batch norm": lambda x: norm(True)(x.view(2, 3, 2, 2)),
    "batch norm without weights": lambda x: norm(False)(x.view(2, 3, 2, 2)),
    "mean pooling": lambda x: F.avg_pool2d(x.view(2, 3, 2, 2), 2, 1, 1),
    "adaptive pooling": lambda x: F.adaptive_avg_pool2d(x.view(2, 3, 2, 2), 1),
    "means and sums": lambda x: x.view(2, 3, 4).mean(1) + x.view(2, 3, 4).sum(1),
    "cat with a constant": lambda x: torch.cat([x, SIGNED.expand(2, 12), x[:, :3]], 1),
    "stack with a constant": lambda x: torch.stack([SIGNED.expand(2, 12), x], 1),
    "padding": lambda x: F.pad(x, (2, -1), value=3.0),
    "slices": lambda x: x[:, ::2].flip(1).roll(1, 1).repeat(1, 2)[:, None].expand(2, 3, 12),
    "x + y": lambda x: x[:, :4].add(x[:, 4:8], alpha=-2),
    "x + x": lambda x: x + x,
    "x + constant": lambda x: x[:, :1] + SIGNED,
    "constant + x": lambda x: torch.add(SIGNED, x, alpha=-3),
    "constant + x, smaller": lambda x: HALF + x[:1, :4].sum(1, keepdim=True),
    "x - y": lambda x: torch.sub(x[:, :6], x[:, 6:], alpha=2),
    "constant - x": lambda x: SIGNED - x,
    "number - x": lambda x: 1 - x,
    "rsub": lambda x: torch.rsub(x, SIGNED, alpha=-2),
    "rsub of two": lambda x: torch.rsub(x[:, :6], x[:, 6:], alpha=2),
    "minus": lambda x: -x,
    "x * constant": lambda x: x * SIGNED,
    "number * x": lambda x: -2 * x,
    "x * constant, larger": lambda x: x[:, :1] * SIGNED,
    "x * mask": lambda x: x * (SIGNED > 0),
    "x / constant": lambda x: x / SIGNED,
    "x / number": lambda x: x / -4,
    "float32 and float64": lambda x: x.float().double() + x.float() * -0.1,
}
MIXING = {"addmm", "mm", "bmm", "convolution"}


def matrix(call, values, place):
    """Columns: what the call makes of each unit vector at one place, of zeros elsewhere."""
    columns = []
    for unit in torch.eye(values[place].numel(), dtype=values[place].dtype):
        given = [torch.zeros_like(v) for v in values]
        given[place] = unit.view_as(values[place])
        columns.append(call(*given).flatten())
    return torch.stack(columns, 1)


def linear_steps(model):
    tape = taped(lambda x: model(x).reshape(2, -1))
    for step in tape.steps:
        form, values = linear_form(step), tape.values_read_by(step)
        assert form is not None, step.name
        yield step, form, values, tape.values[step.output]


@pytest.mark.parametrize("name", LINEAR)
def test_a_linear_step_is_its_coefficients_times_its_values_and_a_constant(name):
    for step, form, values, out in linear_steps(LINEAR[name]):
        assert torch.allclose(form.function()(*values) + bias(step, values), out), step.name
        assert form.has_weights == (step.name in MIXING), step.name


@pytest.mark.parametrize("name", LINEAR)
def test_absolute_coefficients_are_those_of_the_dense_matrix(name):
    for step, form, values, out in linear_steps(LINEAR[name]):
        constant = bias(step, values)
        wanted = torch.zeros_like(out.flatten())
        for place, value in enumerate(values):
            dense = matrix(lambda *v, s=step, c=constant: s(*v) - c, values, place)
            wanted = wanted + dense.abs() @ value.to(dense).flatten()
        found = form.function(torch.abs)(*values)
        assert found.shape == out.shape, step.name
        assert torch.allclose(found.flatten(), wanted.to(found), rtol=1e-6), step.name


@pytest.mark.parametrize("change", [None, torch.abs], ids=["as they are", "absolute"])
@pytest.mark.parametrize("name", LINEAR)
def test_the_way_back_is_the_transpose(name, change):
    for step, form, values, out in linear_steps(LINEAR[name]):
        up = normal(*out.shape, seed=5).to(out)
        for place, found in enumerate(form.transpose(values, up, change)):
            wanted = matrix(form.function(change), values, place).T @ up.flatten()
            assert found.shape == values[place].shape
            assert torch.allclose(found.flatten(), wanted.to(found), rtol=1e-6), step.name


NOT_LINEAR = {
    "a product of two values": lambda x: x * x,
    "a quotient of two values": lambda x: x / (x + 9),
    "a number over values": lambda x: 1 / (x + 9),
    "division with rounding": lambda x: torch.div(x, 2, rounding_mode="floor"),
    "a matrix product of two values": lambda x: x @ x.T,
    "weights made of the values": lambda x: F.conv1d(x[:1, None], x[:1, None, :3]),
    "values as the constant of addmm": lambda x: torch.addmm(x, W[:2], W),
    "an activation": lambda x: x.relu(),
    "max pooling": lambda x: F.max_pool2d(x.view(2, 3, 2, 2), 2),
}


@pytest.mark.parametrize("name", NOT_LINEAR)
def test_a_step_with_no_fixed_coefficients_is_not_linear(name):
    tape = taped(lambda x: x + NOT_LINEAR[name](x).sum())
    assert any(linear_form(step) is None for step in tape.steps)


def test_batch_statistics_are_no_fixed_coefficients():
    tape = taped(lambda x: F.batch_norm(x, None, None, training=True))
    assert [linear_form(step) for step in tape.steps if "batch_norm" in step.name] == [None]
