"""DeepLIFT on models as people write them: all spellings, products, real networks, refusals."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tutorial_lib as tl
from tests.closed_forms import Call, normal

pytestmark = pytest.mark.slow  # all together take six seconds

RULES = ("rescale", "reveal_cancel", "genomics")
TARGET = torch.tensor([0, 2, 1])
X, B = normal(3, 6), normal(3, 6, seed=1)


def net(middle=nn.Identity, width=12, seed=0):
    """Two dense layers in float64 around what a test is about."""
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Linear(6, width), middle(), nn.Linear(width, 3))
    return made.double().eval()


def explain(model, rule="rescale", target=TARGET, **keywords):
    return tl.deeplift(model, X, target, baseline=B, rule=rule, **keywords)


def gap(model, attribution, x=X, baseline=B, target=TARGET):
    """How far the sums miss the score's differences, relative to these."""
    with torch.no_grad():
        rise = (model(x) - model(baseline)).gather(1, target[:, None])[:, 0]
    missed = attribution.flatten(1).double().sum(1) - rise
    return float((missed.abs() / rise.abs()).max())


# --- One function, however it is spelled ---

SPELLINGS = {
    "F.relu": (nn.ReLU, F.relu),
    "the method relu": (nn.ReLU, lambda z: z.relu()),
    "clamp from 0": (nn.ReLU, lambda z: z.clamp(min=0)),
    "threshold": (nn.ReLU, lambda z: F.threshold(z, 0.0, 0.0)),
    "a relu in place": (nn.ReLU, nn.ReLU(inplace=True)),
    "F.relu in place": (nn.ReLU, lambda z: F.relu(z, inplace=True)),
    "relu_ whose result is not used": (nn.ReLU, lambda z: (z.relu_(), z)[1]),
    "relu_ of a view": (nn.ReLU, lambda z: z.view(-1).relu_().view(z.shape)),
    "F.relu6": (nn.ReLU6, F.relu6),
    "clamp from 0 to 6": (nn.ReLU6, lambda z: z.clamp(0, 6)),
    "hardtanh": (nn.ReLU6, lambda z: F.hardtanh(z, 0, 6)),
    "clamp_ in place": (nn.ReLU6, lambda z: z.clamp_(0, 6)),
    "sigmoid": (nn.Sigmoid, torch.sigmoid),
    "elu in place": (nn.ELU, lambda z: F.elu_(z)),
    "silu": (nn.SiLU, F.silu),
    "dropout in eval mode": (nn.ReLU, lambda z: F.dropout(z.relu(), 0.5, training=False)),
    "copies and new shapes": (
        nn.ReLU,
        lambda z: z.reshape(-1, 4, 3).transpose(1, 2).clone().relu().mT.flatten(1).contiguous(),
    ),
    "chunks": (nn.ReLU, lambda z: torch.cat([part.relu() for part in z.chunk(3, 1)], dim=1)),
    "a stack": (nn.ReLU, lambda z: torch.stack(list(z.relu().unbind(1)), dim=1)),
    "added zeros": (nn.ReLU, lambda z: (z + torch.zeros(12)).relu() * 1.0 - 0),
    "a half twice": (nn.ReLU, lambda z: z.relu() / 2 + 0.5 * z.relu()),
    "a guard": (nn.ReLU, lambda z: z.relu() if bool(z.isfinite().all()) else 1 / 0),
    "new axes in place": (nn.ReLU, lambda z: z.unsqueeze_(1).relu().squeeze_(1)),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_spelling_does_not_matter(spelling, rule):
    plain, function = SPELLINGS[spelling]
    wanted = explain(net(plain), rule)
    model, x = net(lambda: Call(function)), X.clone()
    found = tl.deeplift(model, x, TARGET, baseline=B, rule=rule)
    assert torch.allclose(found, wanted, rtol=1e-9, atol=1e-12)
    assert torch.equal(x, X)


def test_a_relu_in_place_leaves_x_and_the_baseline_alone():
    x, b = X.clone(), B.clone()
    model = nn.Sequential(nn.ReLU(inplace=True), net()).eval()
    found = tl.deeplift(model, x, TARGET, baseline=b)
    assert torch.equal(x, X)
    assert torch.equal(b, B)
    assert torch.allclose(found, explain(nn.Sequential(nn.ReLU(), net()).eval()))


@pytest.mark.parametrize("rule", RULES)
def test_a_module_used_twice_is_two_modules(rule):
    block, head = net(nn.ReLU)[:2], net()[2]
    again = nn.Linear(12, 6).double()
    shared = nn.Sequential(block, again, block, head).eval()
    apart = nn.Sequential(deepcopy(block), again, deepcopy(block), head).eval()
    assert torch.allclose(explain(shared, rule), explain(apart, rule), rtol=1e-9, atol=1e-12)


JOINS = {
    "x + y": lambda x, y: x + y,
    "x += y": lambda x, y: (x * 1).add_(y),
    "y in place": lambda x, y: y.add_(x),
    "torch.add": lambda x, y: torch.add(2 * y, x, alpha=2) / 2,
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("join", JOINS)
def test_a_residual_sum_is_the_sum_of_two_networks(join, rule):
    # The head's constant counts in neither: a sum of scores has the sum of the contributions.
    torch.manual_seed(0)
    block, head = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 6)), nn.Linear(6, 3)
    block, head = block.double().eval(), head.double().eval()
    found = explain(lambda z: head(JOINS[join](z, block(z))), rule)
    wanted = explain(head, rule) + explain(nn.Sequential(block, head).eval(), rule)
    assert torch.allclose(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_joined_branches_are_one_wide_layer(rule):
    whole = net(nn.ReLU)
    (w, bias), head = whole[0].parameters(), whole[2]

    def branches(x):
        parts = [F.linear(x, w[i : i + 4], bias[i : i + 4]).relu() for i in (0, 4, 8)]
        return head(torch.cat(parts, dim=1))

    assert torch.allclose(explain(branches, rule), explain(whole, rule), rtol=1e-9, atol=1e-12)


class Squeeze(nn.Module):
    """Pictures of 2 x 3, their channels weighed by a squeeze-and-excitation block."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 2, padding=1), nn.Linear(4, 3)
        self.down, self.up = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)

    def forward(self, x):
        x = self.first(x.view(-1, 1, 2, 3)).relu()
        scale = self.up(self.down(F.adaptive_avg_pool2d(x, 1)).relu()).sigmoid()
        return self.last((x * scale).mean((2, 3)))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("product", ["gate", "square", "two branches", "squeeze", "in place"])
def test_a_product_of_two_activations_keeps_the_sum(product, rule):
    torch.manual_seed(0)
    model = {
        "gate": net(lambda: Call(lambda z: z * z.sigmoid())),
        "square": net(lambda: Call(lambda z: z * z)),
        "two branches": net(lambda: Call(lambda z: z.relu() * z.flip(1).tanh())),
        "squeeze": Squeeze().double().eval(),
        "in place": net(lambda: Call(lambda z: (z * 1).mul_(z.sigmoid()))),
    }[product]
    assert gap(model, explain(model, rule)) < 1e-9


# --- The score that is explained ---


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "last",
    [
        nn.Softmax(1),
        nn.LogSoftmax(1),
        nn.Sigmoid(),
        *map(Call, (lambda z: z.softmax(-1), lambda z: F.log_softmax(z, 1), torch.sigmoid)),
    ],
    ids=["Softmax", "LogSoftmax", "Sigmoid", "softmax", "log_softmax", "sigmoid"],
)
def test_probabilities_are_explained_by_their_logits(last, rule):
    logits = net(nn.ReLU)
    whole = nn.Sequential(logits, last).eval()
    for normalize in (False, True):
        wanted = explain(logits, rule, normalize=normalize)
        assert torch.allclose(explain(whole, rule, normalize=normalize), wanted)


@pytest.mark.parametrize("rule", RULES)
def test_normalize_subtracts_the_mean_over_the_classes(rule):
    model = net(nn.ReLU)
    each = torch.stack([explain(model, rule, target=c) for c in range(3)])
    wanted = each[TARGET, torch.arange(3)] - each.mean(0)
    assert torch.allclose(explain(model, rule, normalize=True), wanted)
    assert not torch.allclose(explain(model, rule), wanted)


# --- Every operation keeps the sum or is refused ---

ONES = torch.ones(12).double()
torch.manual_seed(0)
RNN = nn.RNN(4, 4, batch_first=True).double().eval()
ATTENTION = nn.MultiheadAttention(12, 2, batch_first=True).double().eval()


def tail_in_place(z):
    z[:, 6:] *= 2
    return z


def first_column_lost(z):
    y = z.view(-1, 6, 2)
    y[:, 0] = 0
    return z


def through_a_buffer(z):
    buffer = torch.zeros_like(z)
    buffer[:, :6] = z[:, :6]
    return buffer


FUNCTIONS = "gelu mish hardswish hardsigmoid selu celu softsign tanhshrink logsigmoid normalize"
METHODS = "abs exp square round sign detach zeros_like ones_like"
OPERATIONS = {
    **{name: getattr(F, name) for name in FUNCTIONS.split()},
    **{name: lambda z, name=name: z + getattr(torch, name)(z) for name in METHODS.split()},
    "max of a group": lambda z: z.view(-1, 6, 2).amax(2).repeat(1, 2),
    "max with places": lambda z: z.view(-1, 6, 2).max(2)[0].repeat(1, 2),
    "maximum of two": lambda z: torch.maximum(z, z.flip(1)),
    "max pool": lambda z: F.max_pool1d(z[:, None], 3, 1, 1)[:, 0],
    "adaptive max pool": lambda z: F.adaptive_max_pool1d(z[:, None], 6)[:, 0].repeat(1, 2),
    "average pool": lambda z: F.avg_pool1d(z[:, None], 3, 1, 1)[:, 0],
    "layer norm": lambda z: F.layer_norm(z, (12,)),
    "instance norm": lambda z: F.instance_norm(z.view(-1, 3, 4)).flatten(1),
    "batch norm": lambda z: F.batch_norm(z, ONES, 2 * ONES, ONES * 3, ONES),
    "softmax": lambda z: z.softmax(1),
    "cumsum": lambda z: z.cumsum(1),
    "sort": lambda z: z.sort(1)[0],
    "where": lambda z: torch.where(z > 0, z, 0 * z),
    "times its mask": lambda z: z * (z > 0),
    "times its mask as numbers": lambda z: z * (z > 0).double(),
    "plus the place of its maximum": lambda z: z + F.one_hot(z.argmax(1), 12),
    "masked_fill": lambda z: z.masked_fill(z < 0, 0.0),
    "power": lambda z: z**3,
    "powers of two": lambda z: 2**z,
    "quotient of two": lambda z: z / (1 + z.abs()),
    "one over": lambda z: 1 / (z * z + 1),
    "mean taken away": lambda z: z - z.mean(1, keepdim=True),
    "a matrix with itself": lambda z: (z.view(-1, 4, 3) @ z.view(-1, 3, 4))[:, :3].flatten(1),
    "einsum of two": lambda z: torch.einsum("ni,ni,j->nj", z, z, ONES),
    "a matrix from the left": lambda z: (ONES.view(4, 3) @ z.view(-1, 3, 4))[:, :3].flatten(1),
    "attention": lambda z: ATTENTION(z[:, None], z[:, None], z[:, None])[0][:, 0],
    "padding": lambda z: F.pad(z, (1, 1), value=2.0)[:, 1:-1] + F.pad(z[:, 2:], (2, 0), value=1.0),
    "joined constants": lambda z: torch.cat([z[:, :6], ONES[:6].expand(len(z), 6)], 1),
    "chosen columns": lambda z: z[:, torch.tensor([1, 1, 0, *range(2, 11)])],
    "upsampling": lambda z: F.interpolate(z.view(-1, 1, 3, 4), scale_factor=2)[..., ::4].flatten(1),
    "transposed convolution": lambda z: F.conv_transpose1d(z[:, None], ONES.view(1, 1, 12))[
        :, 0, 6:18
    ],
    "grouped convolution": lambda z: F.conv1d(
        z.view(-1, 4, 3), ONES[:8].view(4, 2, 1), groups=2
    ).flatten(1),
    "sums with factors": lambda z: torch.sub(z, z.flip(1), alpha=0.3) + torch.rsub(z, 2.0),
    "prelu": lambda z: F.prelu(z, ONES[:1] / 5),
    "a number from it": lambda z: z * float(z.sum()),
    "a list of it": lambda z: z + torch.tensor(z.tolist()).double(),
    "numpy": lambda z: z + torch.from_numpy(z.numpy() ** 2),
    "random dropout": lambda z: F.dropout(z, 0.5, training=True),
    "tail in place": tail_in_place,
    "a column lost in place": first_column_lost,
    "a buffer": through_a_buffer,
    "rnn": lambda z: RNN(z.view(-1, 3, 4))[0].flatten(1),
}


@pytest.mark.parametrize("rule", RULES[:2])
@pytest.mark.parametrize("name", OPERATIONS)
def test_no_operation_breaks_the_sum_in_silence(name, rule):
    model = nn.Sequential(net(lambda: Call(OPERATIONS[name]))).eval()
    for b in (B, B[:1]):
        try:
            with tl.skip_model_check():  # some of these mix rows or draw numbers
                found = tl.deeplift(model, X, TARGET, baseline=b, rule=rule)
        except (NotImplementedError, ValueError) as error:
            assert "0.1" in str(error) or "test_deeplift" in str(error), f"where? {error}"
        else:
            assert gap(model, found, baseline=b.expand_as(X)) < 1e-9


def state(model):
    """All that a call could leave changed."""
    return [
        [(name, id(p), p.requires_grad, p.grad) for name, p in model.named_parameters()],
        [(name, m.training, list(m.__dict__)) for name, m in model.named_modules()],
        [list(v) for m in model.modules() for k, v in m.__dict__.items() if k.endswith("_hooks")],
    ]


@pytest.mark.parametrize(
    "name, operation",
    [
        *((name, name) for name in ("sort", "cumsum")),
        ("where", "where|gt"),
        ("a column lost in place", "addmm|fill_|select|view"),
        ("a buffer", "addmm|copy_|slice"),
        ("tail in place", "addmm|mul_|slice"),
    ],
)
def test_a_refused_operation_is_named_with_its_place_and_the_model_is_left_alone(name, operation):
    model = nn.Sequential(net(lambda: Call(OPERATIONS[name]))).eval()
    before, weights = state(model), deepcopy(model.state_dict())
    with pytest.raises((NotImplementedError, ValueError), match=rf"\b_?({operation})\b") as error:
        explain(model)
    assert "0.1" in str(error.value) or "test_deeplift_models.py" in str(error.value)
    assert state(model) == before
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())


# --- The call ---


@pytest.mark.parametrize("rule", RULES)
def test_a_call_leaves_the_model_and_its_arguments_as_they_were(rule):
    model, x, b = net(nn.ReLU), X.clone().requires_grad_(), B.clone()
    model[0].bias.requires_grad_(False)
    before, weights = state(model), deepcopy(model.state_dict())
    found = tl.deeplift(model, x, TARGET, baseline=b, rule=rule)
    assert not found.requires_grad
    assert found.shape == x.shape and found.dtype == x.dtype
    assert x.grad is None and torch.equal(x, X) and torch.equal(b, B)
    assert state(model) == before
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("rule", RULES)
def test_neither_chunks_nor_gradient_modes_nor_the_seed_change_the_result(rule):
    model = net(nn.ReLU)
    wanted = explain(model, rule)
    for size in (1, 2, 3, 7):
        assert torch.allclose(explain(model, rule, batch_size=size, seed=size), wanted)
    for i, target in enumerate(TARGET.tolist()):
        assert torch.allclose(explain(model, rule, target=target)[i], wanted[i])
    for mode in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with mode():
            assert torch.allclose(explain(model, rule), wanted), mode
            given = tl.deeplift(net(nn.ReLU), X * 1, TARGET, baseline=B * 1, rule=rule)
            assert torch.allclose(given, wanted), mode


# --- Real networks ---

# Small kin of the papers' networks, with the same steps: the side of the pictures, and options.
NETWORKS = {
    "resnet18": (32, {}),
    "alexnet": (64, {}),
    "DenseNet": (32, dict(block_config=(2, 2, 2, 2))),
    "mobilenet_v2": (32, {}),
    "inception_v3": (75, dict(init_weights=False)),
}


def network(name: str):
    """A network of torchvision's with random weights, and the side of its pictures."""
    from torchvision import models

    side, options = NETWORKS[name]
    return getattr(models, name)(**options).eval(), side


@pytest.fixture(scope="module")
def lite():
    """The bundled network, and the middle of a photograph."""
    model = tl.load_model("efficientnet_lite0", device="cpu")
    return model, model.preprocess(tl.load_image("coffee"))[..., 64:160, 64:160]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_sums_hold_on_torchvisions_networks(name):
    torch.manual_seed(0)
    model, side = network(name)
    for layer in model.modules():  # no signal fades or grows, and no batch norm does nothing
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.5, 1.5)
            layer.bias.data.normal_(0, 0.2)
    x, b = normal(2, 3, side, side, dtype=torch.float32).split(1)
    with torch.no_grad():
        rise = (model(x) - model(b)).abs()
    assert float(rise.max()) > 0.1
    target = rise.argmax(1)
    for rule, allowed in (("rescale", 1e-4), ("reveal_cancel", 1e-3)):
        found = tl.deeplift(model, x, target, baseline=b, rule=rule)
        assert gap(model, found, x, b, target) < allowed, rule


def test_the_sums_hold_on_a_trained_network(lite):
    (model, x), target, maps = lite, torch.tensor([967]), {}
    for rule, allowed in (("rescale", 1e-4), ("reveal_cancel", 1e-3), ("genomics", 1e-4)):
        maps[rule] = tl.deeplift(model, x, target, rule=rule)
        assert gap(model, maps[rule], x, torch.zeros_like(x), target) < allowed, rule
    assert float((maps["rescale"] - maps["reveal_cancel"]).norm()) > 0.01


def test_reveal_cancel_keeps_its_values_in_float32(lite):
    # Where a part is empty but for rounding its quotient is noise, though the sum stays right.
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU())
    for model, at, target in ((*lite, 967), (dense.eval(), torch.rand(3, 8), 3)):
        wide = deepcopy(model).double()
        exact = tl.deeplift(wide, at.double(), target, rule="reveal_cancel")
        ours = tl.deeplift(model, at, target, rule="reveal_cancel").double()
        assert float((ours - exact).norm() / exact.norm()) < 1e-3


def test_a_rule_for_a_module_without_an_activation_is_refused():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    with pytest.raises(ValueError, match=r"^rule: no activation runs inside"):
        tl.deeplift(net, torch.rand(2, 4), 0, rule={"0": "reveal_cancel"})


@pytest.mark.parametrize(
    "step",
    [
        lambda z: torch.cat([z[:, :3], torch.full((len(z), 1), float(z.max()))], 1),
        lambda z: F.pad(z, (0, 1), value=float(z.max())),
        lambda z: z.roll(int(z.sum()), 1),
        lambda z: z.sum(1, keepdim=True).long().float() * z,
    ],
)
def test_constants_that_the_values_make_are_refused(step):
    x = 3 * torch.rand(2, 4)
    with pytest.raises((ValueError, NotImplementedError), match=r"^model: "):
        tl.deeplift(lambda z: step(z).relu(), x, 0, baseline=torch.rand(1, 4))


@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
def test_a_device_gives_the_same_map(device, rule):
    torch.manual_seed(0)
    net = network("DenseNet")[0].double()
    x = normal(2, 3, 32, 32)
    wanted = tl.deeplift(net, x, 3, rule=rule, baseline=0.1)
    ours = tl.deeplift(net.to(device), x.to(device), 3, rule=rule, baseline=0.1)
    assert ours.device.type == device
    assert float((ours.cpu() - wanted).norm() / wanted.norm()) < 1e-8
