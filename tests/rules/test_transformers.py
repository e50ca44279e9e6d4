"""Transformers and recurrent layers: by hand, by a slow oracle, by their sums, beside peers."""

import math
from functools import partial

import captum.attr as peer
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import tutorial_lib as tl
from tests.closed_forms import close, normal
from tests.rules import slow_transformer as slow
from tutorial_lib.rules.linear_steps import SOFTMAX
from tutorial_lib.rules.lrp_rules import Relevance
from tutorial_lib.rules.recorder import record
from tutorial_lib.rules.tape import one_hot, walk_back

pytestmark = pytest.mark.slow  # importing timm takes seconds

TINY = 1e-13  # as epsilon: the formulas without it
lrp = partial(tl.lrp, rule="transformer", epsilon=TINY)
TOKENS = normal(2, 4, 8)  # two rows of four tokens
CAUSAL = torch.ones(4, 4, dtype=torch.bool).triu(1)


class Block(nn.Module):
    """One block of a GPT: causal attention of one head, norms before it and before the MLP."""

    def __init__(self, bias: bool = True, rms: bool = False, gated: bool = False, width: int = 8):
        super().__init__()
        torch.manual_seed(0)
        make = partial(nn.Linear, bias=bias)
        self.norms = nn.ModuleList(
            nn.RMSNorm(width, eps=1e-5) if rms else nn.LayerNorm(width, bias=bias) for _ in range(2)
        )
        self.q, self.k, self.v, self.out = (make(width, width) for _ in range(4))
        self.up, self.gate, self.down = make(width, 12), make(width, 12), make(12, width)
        self.head, self.rms, self.gated = make(width, 3), rms, gated
        for p in self.parameters():
            nn.init.normal_(p, 1.0 if p.ndim == 1 and bias else 0.0, 0.5)
        self.double().eval()

    def forward(self, x):
        h = self.norms[0](x)
        x = x + self.out(
            F.scaled_dot_product_attention(self.q(h), self.k(h), self.v(h), is_causal=True)
        )
        h = self.norms[1](x)
        h = F.silu(self.gate(h)) * self.up(h) if self.gated else F.gelu(self.up(h))
        return self.head((x + self.down(h)).mean(1))

    def slowly(self, x, kind):
        norms = [
            partial(slow.norm, weight=n.weight, bias=getattr(n, "bias", None), rms=self.rms)
            for n in self.norms
        ]
        h = norms[0](x)
        x = x + self.out(slow.attention(self.q(h), self.k(h), self.v(h), kind, CAUSAL))
        h = norms[1](x)
        if self.gated:
            h = slow.halved(slow.gated(F.silu, self.gate(h)) * self.up(h))
        else:
            h = slow.gated(F.gelu, self.up(h))
        return self.head((x + self.down(h)).mean(1))


def vit(bias: bool = True, seed: int = 0, **options) -> nn.Module:
    """Two blocks of width 16 for pictures of 16 x 16, with weights that matter."""
    torch.manual_seed(seed)
    sizes = dict(img_size=16, patch_size=4, embed_dim=16, depth=2, num_heads=2, num_classes=5)
    model = VisionTransformer(**sizes, **options).double().eval()
    for name, p in model.named_parameters():
        if p.ndim > 1 and "pos_embed" not in name:
            nn.init.normal_(p, std=0.25)
        elif name.endswith("bias"):
            nn.init.normal_(p, std=0.2 if bias else 0.0)
    if not bias:
        model.pos_embed.data.zero_()
    return model


MEAN = dict(class_token=False, global_pool="avg")


def encoder(**options) -> nn.Module:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, **options)
    return nn.TransformerEncoder(layer, 2).double().eval()


def recurrent(kind, bias=True, **options) -> nn.Module:
    torch.manual_seed(0)
    return kind(8, 5, bias=bias, **{"batch_first": True} | options).double().eval()


ENCODER, LSTM, GRU = encoder(activation="gelu"), recurrent(nn.LSTM), recurrent(nn.GRU)
CELL, MHA = nn.GRUCell(8, 3).double(), nn.MultiheadAttention(8, 2, batch_first=True).double().eval()
MASK = nn.Transformer.generate_square_subsequent_mask(4).double()


def other_norms(x):
    """Group norm, instance norm, standardised tokens and GLU."""
    h = F.group_norm(x, 2) + F.instance_norm(x) + x / x.std(2, keepdim=True)
    return F.glu(torch.cat([h, x], 2), 2).mean(1)


def cell_by_cell(x):
    h = torch.zeros(len(x), 3, dtype=x.dtype)
    for moment in x.unbind(1):
        h = CELL(moment, h)
    return h


def by_hand(x):
    """A norm, GELU and attention as people write them out, and an unnormalised direction."""
    h = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    h = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6)
    h = 0.5 * h * (1 + torch.erf(h / math.sqrt(2)))
    scores = torch.einsum("nqd,nkd->nqk", h, h).masked_fill(CAUSAL, float("-inf"))
    return (F.normalize(scores.softmax(-1) @ h, dim=-1) + x).mean(1)


MODELS = {
    "ViT": (vit(), normal(2, 3, 16, 16)),
    "ViT of means": (vit(**MEAN), normal(2, 3, 16, 16)),
    "GPT block": (Block(), TOKENS),
    "LLaMA block": (Block(bias=False, rms=True, gated=True), TOKENS),
    "nn.TransformerEncoder": (lambda x: ENCODER(x).mean(1), TOKENS),
    "with a mask": (lambda x: ENCODER(x, mask=MASK).mean(1), TOKENS),
    "nn.MultiheadAttention": (lambda x: MHA(x, x, x, attn_mask=CAUSAL)[0].mean(1), TOKENS),
    "nn.LSTM": (lambda x: LSTM(x)[0][:, -1], TOKENS),
    "nn.GRU": (lambda x: GRU(x)[0][:, -1], TOKENS),
    "nn.GRUCell": (cell_by_cell, TOKENS),
    "by hand": (by_hand, TOKENS),
    "other norms": (other_norms, TOKENS),
}
every_model = pytest.mark.parametrize("model, x", MODELS.values(), ids=MODELS)


def row(*values):
    return torch.tensor([values], dtype=torch.float64)


def score(model, x, target=1):
    with torch.no_grad():
        return model(x)[:, target]


def missed(attribution, wanted):
    """How far sums of maps miss what they have to sum to, relative to it."""
    return float(((attribution.flatten(1).sum(1) - wanted) / wanted).abs().max())


# --- By hand: one head, two tokens of one number ---


def two_tokens(x):
    """The first token's output of attention with q = 2 x, k = x / 2, v = 3 x; x is (N, 2)."""
    q, k, v = 2 * x[..., None], x[..., None] / 2, 3 * x[..., None]  # (N, 2, 1)
    return F.scaled_dot_product_attention(q, k, v)[:, 0]


def test_lrp_of_attention_with_two_tokens_is_that_of_the_formulas():
    a, b = 0.8, -0.5
    z = [a * a, a * b]  # q k = 2 a * x / 2
    s = [math.exp(v) / (math.exp(z[0]) + math.exp(z[1])) for v in z]
    terms = [s[0] * 3 * a, s[1] * 3 * b]  # of the score, half of each to s and half to v
    to_z = [z[i] * (terms[i] / 2 - s[i] * sum(terms) / 2) for i in (0, 1)]
    # z_1 = a * a gives all to a, z_2 = a * b half to each
    wanted = [terms[0] / 2 + to_z[0] + to_z[1] / 2, terms[1] / 2 + to_z[1] / 2]
    x = row(a, b)
    assert torch.allclose(lrp(two_tokens, x, 0), row(*wanted), rtol=1e-9)
    # with softmax held fixed, the values take all
    assert torch.allclose(lrp(two_tokens, x, 0, biases=False), row(*terms))
    assert torch.allclose(x * tl.libragrad(two_tokens, x, 0), row(*terms))


def test_deeplift_of_a_softmax_is_that_of_e_over_its_sum():
    z, z0 = [0.3, 1.2], [-0.4, 2.0]
    e, e0 = [*map(math.exp, z)], [*map(math.exp, z0)]
    mean_sum, mean_share = (sum(e) + sum(e0)) / 2, (e[0] / sum(e) + e0[0] / sum(e0)) / 2
    rise = [(e[i] - e0[i]) / mean_sum for i in (0, 1)]
    wanted, x, baseline = row(rise[0] * (1 - mean_share), -rise[1] * mean_share), row(*z), row(*z0)
    for shift in (0, 500):  # that leaves softmax as it is
        model = lambda x, shift=shift: (x + shift).softmax(1) * 1  # noqa: E731
        found = tl.deeplift(model, x, 0, baseline=baseline)
        assert torch.allclose(found, wanted, rtol=1e-6)
    assert math.isclose(float(wanted.sum()), e[0] / sum(e) - e0[0] / sum(e0))


def test_deeplift_of_a_norm_of_two_numbers_is_that_of_a_quotient():
    # c = (h, -h) with h = (a - b) / 2, s = sqrt(h^2 + eps), and the first output is h / s
    a, b, a0, b0, eps = 1.5, 0.25, -0.5, 0.75, 1e-2
    h, h0 = (a - b) / 2, (a0 - b0) / 2
    s, s0 = math.sqrt(h * h + eps), math.sqrt(h0 * h0 + eps)
    slope = (h + h0) / (s + s0)  # D s / D h
    rate = (1 - (h / s + h0 / s0) / 2 * slope) / ((s + s0) / 2)
    wanted = row(rate * (a - a0) / 2, -rate * (b - b0) / 2)
    model = lambda x: F.layer_norm(x, (2,), eps=eps)  # noqa: E731
    found = tl.deeplift(model, row(a, b), 0, baseline=row(a0, b0))
    assert torch.allclose(found, wanted) and math.isclose(float(wanted.sum()), h / s - h0 / s0)


@pytest.mark.parametrize("name", ["softmax", "layer norm", "matrix product", "quotient"])
def test_deeplift_close_to_the_baseline_is_the_gradient(name):
    model = {
        "softmax": lambda x: x.softmax(1) * 1,
        "layer norm": lambda x: F.layer_norm(x, (6,)),
        "matrix product": lambda x: (x.view(-1, 2, 3) @ x.view(-1, 3, 2)).flatten(1),
        "quotient": lambda x: x / (2 + x.square()),
    }[name]
    x = normal(2, 6)
    for step, tolerance in ((0.0, 1e-12), (1e-5, 1e-4)):
        found = tl.deeplift(model, x + step * normal(2, 6, seed=1), 1, baseline=x)
        wanted = tl.gradient(model, x, 1) * step * normal(2, 6, seed=1)
        assert torch.allclose(found, wanted, rtol=tolerance, atol=tolerance * step)


def test_a_quotient_whose_denominator_changes_its_sign_keeps_the_sum():
    model = lambda x: x[:, :1] / x[:, 1:]  # noqa: E731
    x, baseline = torch.tensor([[3.0, 2.0]]), torch.tensor([[1.0, -2.0]])
    found = tl.deeplift(model, x, 0, baseline=baseline)
    assert torch.allclose(found.sum(), torch.tensor(2.0))


# --- The slow oracle ---

BLOCKS = {
    "biases": Block(),
    "no biases": Block(bias=False),
    "RMS norms and gates": Block(bias=False, rms=True, gated=True),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_lrp_of_a_block_is_autograd_with_what_the_rules_hold_fixed(name):
    block = BLOCKS[name]
    wanted = slow.times_gradient(partial(block.slowly, kind="attnlrp"), TOKENS, 1)
    assert close(lrp(block, TOKENS, 1), wanted, 1e-7)


@pytest.mark.parametrize("name", BLOCKS)
def test_libragrad_of_a_block_is_autograd_with_gates_and_attention_held_fixed(name):
    block = BLOCKS[name]
    wanted = slow.times_gradient(partial(block.slowly, kind="pruned"), TOKENS, 1)
    assert close(TOKENS * tl.libragrad(block, TOKENS, 1), wanted, 1e-9)


def test_without_biases_lrp_is_input_times_libragrad_where_softmax_is_held_fixed():
    model, x = vit(bias=False, **MEAN), normal(2, 3, 16, 16)
    assert close(lrp(model, x, 1, biases=False), x * tl.libragrad(model, x, 1), 1e-7)


# --- Sums ---


@pytest.mark.parametrize("rule", ["rescale", pytest.param("reveal_cancel", marks=pytest.mark.slow)])
@pytest.mark.parametrize("baseline", ["zeros", "normal"])
@every_model
def test_deeplift_sums_to_the_difference(model, x, baseline, rule):
    if baseline == "zeros" and model in (by_hand, other_norms):
        pytest.skip("a length of 0 has no direction")
    b = torch.zeros_like(x[:1]) if baseline == "zeros" else normal(*x[:1].shape, seed=7)
    found = tl.deeplift(model, x, 1, baseline=b, rule=rule)
    assert missed(found, score(model, x) - score(model, b)) < 1e-9


WITHOUT_BIASES = {
    "ViT of means": (vit(bias=False, **MEAN), normal(2, 3, 16, 16)),
    "GPT block": (Block(bias=False), TOKENS),
    "LLaMA block": (Block(bias=False, rms=True, gated=True), TOKENS),
    "other norms": (other_norms, TOKENS),
}


@pytest.mark.parametrize("model, x", WITHOUT_BIASES.values(), ids=WITHOUT_BIASES)
def test_without_biases_lrp_and_input_times_libragrad_sum_to_the_score(model, x):
    assert missed(lrp(model, x, 1, biases=False), score(model, x)) < 1e-6
    assert missed(x * tl.libragrad(model, x, 1), score(model, x)) < 1e-9


@pytest.mark.parametrize("name", ["ViT of means", "GPT block", "nn.TransformerEncoder"])
def test_lrp_that_leaves_biases_out_sums_to_the_score(name):
    model, x = MODELS[name]
    assert missed(lrp(model, x, 1, biases=False), score(model, x)) < 1e-6


@torch.no_grad()
def losses(model, x, biases=True):
    """Pairs (step, what it keeps of its relevance), the sum of the scores and that of the map."""
    target = torch.ones(len(x), dtype=torch.long)
    tape = record(model, x, target).logits().without_choices()
    rules = Relevance(tape, lambda step, reads_input: "transformer", TINY, biases=biases)
    kept = []

    def rule(step, relevance):
        shares = rules(step, relevance)
        kept.append((step, float(relevance.sum() - sum(r.sum() for r in shares if r is not None))))
        return shares

    scores = tape.values[tape.output]
    *_, (number, arrived) = walk_back(tape, rule, one_hot(target, scores) * scores)
    assert number == 0
    return kept, float(scores[:, 1].sum()), float(arrived.sum())


@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("name", ["ViT", "GPT block", "LLaMA block"])
def test_only_constants_and_softmax_keep_relevance_and_all_of_it_is_accounted_for(name, biases):
    kept, scores, arrived = losses(*MODELS[name], biases=biases)
    assert math.isclose(arrived + sum(loss for _, loss in kept), scores, rel_tol=1e-7)
    keepers = {"addmm", "add", "convolution", "cat", "native_layer_norm"} if biases else {"cat"}
    size = max(abs(loss) for _, loss in kept)
    for step, loss in kept:
        if step.name not in keepers | SOFTMAX:
            assert abs(loss) < 1e-7 * max(size, 1), step.name
    if name == "LLaMA block":  # no biases: softmax alone
        assert size > 1e-3 if biases else size < 1e-6


# --- Recurrent layers ---

LAYERS = {
    "two layers": dict(num_layers=2),
    "both directions": dict(bidirectional=True, num_layers=2),
    "no biases": dict(bias=False),
    "time first": dict(batch_first=False),
}


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("name", LAYERS)
def test_a_recurrent_layer_on_the_tape_has_the_values_of_pytorch(kind, name):
    layer = recurrent(kind, **LAYERS[name])
    first = layer.batch_first

    def model(x):
        out, last = layer(x if first else x.transpose(0, 1))
        last = last[0] * last[1] if isinstance(last, tuple) else last
        out = out if first else out.transpose(0, 1)
        return out.flatten(1) + last.transpose(0, 1).flatten(1).sum(1, keepdim=True)

    tape = record(model, TOKENS, torch.tensor([0, 0]))
    assert torch.allclose(tape.values[tape.output], model(TOKENS), rtol=1e-12)
    assert "tanh" in {step.name for step in tape.steps}


def test_projections_cells_and_one_row_without_a_batch_have_the_values_of_pytorch():
    torch.manual_seed(0)
    layer = nn.LSTM(8, 5, proj_size=3, batch_first=True).double().eval()
    relu = nn.RNN(8, 5, nonlinearity="relu").double().eval()
    cells = [nn.LSTMCell(8, 5).double(), nn.RNNCell(8, 5, nonlinearity="relu").double()]
    for model in (
        lambda x: layer(x)[0].flatten(1),
        lambda x: torch.stack([relu(row)[0] for row in x]).flatten(1),
        lambda x: cells[0](x[:, 0])[0] + cells[1](x[:, 1]),
    ):
        tape = record(model, TOKENS, torch.tensor([0, 0]))
        assert torch.allclose(tape.values[tape.output], model(TOKENS), rtol=1e-12)


def test_a_packed_sequence_is_refused_and_what_to_write_is_said():
    def model(x):
        packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([4, 4]), batch_first=True)
        return LSTM(packed)[1][0][0]

    with tl.skip_model_check(), pytest.raises(NotImplementedError, match=r"model: .*pad_packed"):
        lrp(model, TOKENS, 1)


# --- Masks ---


def test_where_hands_relevance_to_what_it_has_chosen_under_every_rule():
    x = torch.tensor([[2.0, -1.0]], dtype=torch.float64)
    model = lambda x: torch.where(x > 0, 3 * x, x / 2).sum(1, keepdim=True)  # noqa: E731
    wanted = torch.tensor([[6.0, -0.5]], dtype=torch.float64)
    for rule in ("epsilon", "alpha_beta", "composite", "transformer"):
        assert torch.allclose(
            tl.lrp(lambda x: torch.where(x > 0, 3 * x, x / 2), x, 0, rule=rule),
            torch.tensor([[6.0, 0.0]]).double(),
        )
    assert torch.allclose(tl.lrp(model, x, 0, epsilon=TINY), wanted)
    assert torch.allclose(tl.deeplift(model, x, 0, baseline=x / 2), wanted / 2)
    for mask in (lambda x: x * (x > 0), lambda x: x.masked_fill(x < 0, 0.0)):
        found = tl.lrp(lambda x, mask=mask: mask(x).sum(1, keepdim=True), x, 0, epsilon=TINY)
        assert torch.allclose(found, x.relu())


def test_a_mask_that_is_another_one_at_the_baseline_is_refused_and_what_to_write_is_said():
    x = torch.tensor([[2.0, -1.0]])
    with pytest.raises(
        ValueError, match=r"test_transformers.*(gt|where).*Write a ReLU as nn\.ReLU"
    ):
        tl.deeplift(lambda x: torch.where(x > 0, x, 0 * x), x, 0, baseline=-x)


# --- Refusals ---


@pytest.mark.parametrize("rule", ["epsilon", "alpha_beta", "composite"])
@pytest.mark.parametrize("name", ["ViT", "GPT block", "nn.LSTM"])
def test_the_other_rules_of_lrp_refuse_a_transformer_and_name_the_one_that_takes_it(name, rule):
    with pytest.raises(NotImplementedError, match=r'model: LRP.*Write rule="transformer"'):
        tl.lrp(*MODELS[name], 1, rule=rule)


def test_attention_that_stays_fused_is_refused_by_its_name():
    def model(x):
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None]).flatten(1)

    for method in (tl.deeplift, lrp):
        with pytest.raises(NotImplementedError, match=r"attention.* Let PyTorch open it"):
            method(model, TOKENS, 1)


def test_attention_of_higher_order_is_refused_by_its_name():
    flex = pytest.importorskip("torch.nn.attention.flex_attention", reason="from PyTorch 2.5 on")

    def model(x):
        z = x[:, None]
        with torch.no_grad():  # its gradient wants a device of its own
            return flex.flex_attention(z, z, z).flatten(1)

    with tl.skip_model_check(), pytest.raises(NotImplementedError, match=r"model: flex_att.*Write"):
        lrp(model, TOKENS.float(), 1)


@pytest.mark.parametrize("method", [tl.deeplift, lrp])
def test_the_largest_of_some_is_refused_and_what_to_write_is_said(method):
    with pytest.raises(NotImplementedError, match=r"operation max at .*adaptive_max_pool1d"):
        method(lambda x: x.max(1).values, TOKENS, 1)
    assert method(lambda x: F.adaptive_max_pool1d(x.mT, 1)[..., 0], TOKENS, 1).any()


def test_token_ids_are_refused_and_what_to_write_is_said():
    table = nn.Embedding(10, 8).double()
    model = lambda x: Block()(table(x.long()))  # noqa: E731
    ids = torch.tensor([[1, 2, 3, 4]])
    for method in (lrp, tl.deeplift, tl.libragrad):
        with pytest.raises(TypeError, match=r"x: .*token ids.*embedding="):
            method(model, ids, 1)
    with pytest.raises((ValueError, NotImplementedError), match=r"model: "):
        lrp(model, ids.double(), 1)


def test_softmax_held_fixed_with_nothing_to_weigh_is_refused():
    model = lambda x: x.softmax(1) @ normal(6, 3)  # noqa: E731
    assert lrp(model, normal(2, 6), 1).any()
    with pytest.raises(NotImplementedError, match=r"_softmax at .*biases=True"):
        lrp(model, normal(2, 6), 1, biases=False)


def test_rounding_is_refused_by_libragrad():
    with pytest.raises(NotImplementedError, match=r"model: round at .*libragrad would be 0"):
        tl.libragrad(lambda x: x.round() + x, normal(2, 3), 1)


# --- LibraGrad ---


def test_libragrad_of_a_network_of_relus_is_the_gradient():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3)).double().eval()
    assert close(tl.libragrad(net, normal(2, 6), 1), tl.gradient(net, normal(2, 6), 1))


GATED = {
    "GELU": (F.gelu, lambda z: 0.5 * z * (1 + torch.erf(z / math.sqrt(2)))),
    "SiLU": (F.silu, lambda z: z * z.sigmoid()),
    "GELU with tanh": (
        partial(F.gelu, approximate="tanh"),
        lambda z: 0.5 * z * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))),
    ),
}


@pytest.mark.parametrize("name", GATED)
def test_a_gate_that_is_written_out_is_held_fixed_too(name):
    function, written = GATED[name]
    x = normal(2, 6)
    for call in (function, written):
        assert close(tl.libragrad(call, x, 1), (function(x) / x) * F.one_hot(torch.tensor(1), 6))


# --- Peers ---


@every_model
def test_captum_agrees_on_the_gradient_and_the_tape_has_it(model, x):
    theirs = peer.InputXGradient(model).attribute(x.clone().requires_grad_(), 1).detach()
    assert close(tl.gradient_x_input(model, x, 1), theirs)
    with pytest.warns(UserWarning, match="gradient of its operations"):
        assert close(x * tl.guided_backprop(model, x, 1), theirs)


def test_lxt_agrees_on_a_block_up_to_the_sign_of_its_epsilon():
    lf = pytest.importorskip("lxt.explicit.functional", reason="lxt is a peer: pip install lxt")
    block = Block()

    def theirs(x):
        dense = lambda z, layer: lf.linear_epsilon(z, layer.weight, layer.bias, TINY)  # noqa: E731
        norm = lambda z, n: lf.layer_norm_grad_fn.apply(z, n.weight, n.bias, n.eps, TINY)  # noqa: E731
        h = norm(x, block.norms[0])
        q, k, v = (dense(h, layer) for layer in (block.q, block.k, block.v))
        scores = lf.mul2(lf.matmul(q, k.mT, False, TINY), torch.tensor(8**-0.5))
        weights = lf.softmax(scores.masked_fill(CAUSAL, float("-inf")), -1)
        x = lf.add2(x, dense(lf.matmul(weights, v, False, TINY), block.out), False, TINY)
        h = dense(norm(x, block.norms[1]), block.up)
        h = dense(h + (F.gelu(h) - h).detach(), block.down)  # the identity rule
        return dense(lf.mean(lf.add2(x, h, False, TINY), 1, False, TINY), block.head)

    x = TOKENS.clone().requires_grad_()
    out = theirs(x)
    (wanted,) = torch.autograd.grad(out[:, 1], x, out[:, 1].detach())
    assert torch.allclose(out, block(TOKENS))
    assert close(lrp(block, TOKENS, 1), wanted, 1e-6)
