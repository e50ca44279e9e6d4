"""What `tl.scores` makes of networks as they are: the right map, or what to write."""

import copy
import functools
import types
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from captum.attr import IntegratedGradients
from torch import nn
from torch.nn import functional as F

import tutorial_lib as tl
from tests.closed_forms import close, normal, tanh_mlp

X = normal(3, 6)
EXACT = dict(steps=20, rule="gauss-legendre")


@dataclass
class Output:
    """As a library of transformers has it, with an attribute for each part."""

    logits: torch.Tensor
    loss: torch.Tensor | None = None
    hidden: torch.Tensor | None = None


@dataclass
class Slotted:
    __slots__ = ("features", "label")
    features: torch.Tensor
    label: str


class Named(NamedTuple):
    logits: torch.Tensor
    aux_logits: torch.Tensor


class Returns(nn.Module):
    """A network whose output is changed by a function."""

    def __init__(self, change):
        super().__init__()
        self.net, self.change = tanh_mlp(), change
        self.eval()

    def forward(self, z):
        return self.change(self.net(z))


class TwoInputs(nn.Module):
    """A picture and numbers beside it, which meet in the last layers."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.conv, self.meta = nn.Conv2d(1, 3, 3, padding=1), nn.Linear(2, 3)
        self.last = nn.Linear(6, 4)
        self.double().eval()

    def forward(self, image, numbers):
        seen = F.relu(self.conv(image)).mean((2, 3))
        return {"logits": self.last(torch.cat([seen, F.relu(self.meta(numbers))], 1)), "loss": None}


class Reader(nn.Module):
    """Token ids, positions, a mask from the ids and one that is given: a small BERT."""

    def __init__(self, vocabulary=20, width=8):
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(vocabulary, width, padding_idx=0)
        self.places = nn.Parameter(0.1 * torch.randn(1, 12, width))
        layer = nn.TransformerEncoderLayer(width, 2, 16, 0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.last = nn.Linear(width, 3)
        self.double().eval()

    def embed(self, ids):
        return self.words(ids)

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, padding=None):
        words = self.embed(input_ids) if inputs_embeds is None else inputs_embeds
        if padding is None:
            padding = input_ids == 0
        padding = padding | (attention_mask == 0)
        seen = self.encoder(words + self.places[:, : words.shape[1]], src_key_padding_mask=padding)
        return Output(self.last(seen[:, 0]), hidden=seen)


class Sentiment(nn.Module):
    """An LSTM on embeddings; one number a sentence, without a column."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.lstm = nn.Embedding(20, 5), nn.LSTM(5, 7, batch_first=True)
        self.last = nn.Linear(7, 1)
        self.double().eval()

    def forward(self, ids):
        return self.last(self.lstm(self.words(ids))[0][:, -1])[:, 0]


def segmenter(z):
    """The output of torchvision's segmentation networks, of pictures (N, 1, 6, 6)."""
    weight = torch.arange(5.0, dtype=z.dtype).view(5, 1, 1, 1)
    return {"out": F.conv2d(z, weight) ** 2, "aux": F.conv2d(z, weight)}


# --- What it returns

PICKED = {
    "a table": (None, lambda s: s),
    "an attribute": (None, lambda s: Output(s, loss=s.mean(), hidden=s)),
    "a property": (None, lambda s: torch.distributions.Categorical(logits=s.log_softmax(1))),
    "a key": (None, lambda s: {"loss": s.mean(), "logits": s}),
    "the only key with rows": (None, lambda s: {"loss": s.mean(), "scores": s}),
    "the only attribute with rows": (None, lambda s: Slotted(s, "name")),
    "the first of a tuple": (None, lambda s: (s, s * 2)),
    "a loss before the scores": (None, lambda s: (s.mean(), s)),
    "a named tuple": (None, lambda s: Named(s, 2 * s)),
    "a chosen key": ("out", lambda s: {"out": s, "aux": 2 * s}),
    "a chosen place": (1, lambda s: (2 * s, s)),
    "a chosen place from the end": (-1, lambda s: [2 * s, s]),
    "a chosen place of a dictionary": (0, lambda s: {"out": s, "aux": 2 * s}),
    "a chosen attribute": ("a", lambda s: types.SimpleNamespace(a=s, b=2 * s)),
    "a key whose part has logits": ("out", lambda s: {"out": Output(s), "aux": s}),
    "a function": (lambda y: y[1]["a"], lambda s: (0, {"a": s})),
    "a function to a dictionary": (lambda y: y[1], lambda s: (0, {"logits": s})),
}


@pytest.mark.parametrize("case", PICKED)
def test_the_scores_are_found_in_what_it_returns(case):
    pick, change = PICKED[case]
    plain, net = tanh_mlp(), Returns(change)
    if case == "a property":
        plain = nn.Sequential(plain, nn.LogSoftmax(1)).eval()
    adapted = tl.scores(net, pick)
    assert torch.equal(adapted(X), plain(X))
    assert torch.allclose(tl.gradient(adapted, X, 1), tl.gradient(plain, X, 1))
    assert torch.allclose(
        tl.integrated_gradients(adapted, X, 1, **EXACT),
        tl.integrated_gradients(plain, X, 1, **EXACT),
    )


@pytest.mark.parametrize("rows", [1, 3])
def test_one_number_a_row_gets_a_column(rows):
    x, net = X[:rows], Returns(lambda s: s[:, 0])
    assert tl.scores(net)(x).shape == (rows, 1)
    assert torch.allclose(tl.gradient(tl.scores(net), x, 0), tl.gradient(tanh_mlp(), x, 0))
    inside = tl.scores(Returns(lambda s: {"value": s[:, 0], "loss": s.mean()}))
    assert torch.allclose(tl.gradient(inside, x, 0), tl.gradient(tanh_mlp(), x, 0))


UNCLEAR = {
    "two keys": (None, lambda s: {"start": s, "end": s}, ["'start'", "'end'", 'pick="start"']),
    "a loss of one number before": (
        None,
        lambda s: (s.mean()[None], s),
        ["tl.scores(model, pick="],
    ),
    "a squeezed row": (None, lambda s: s[:, 0].squeeze(), ["pick=lambda y: y.reshape(-1, 1)"]),
    "a squeezed table": (None, lambda s: s.squeeze(), ["pick=lambda y: y.reshape(-1, 3)"]),
    "a segmentation": (
        None,
        lambda s: {"out": s[:, :, None, None].expand(-1, -1, 8, 6)},
        ['pick=lambda y: y["out"][:, :, 4, 3]'],
    ),
    "a picked segmentation": (
        "out",
        lambda s: {"out": s[:, :, None, None].expand(-1, -1, 8, 6), "aux": s},
        ['pick=lambda y: y["out"][:, :, 4, 3]'],
    ),
    "a sequence": (None, lambda s: s[:, None].expand(-1, 5, -1), ["pick=lambda y: y[:, 0]"]),
    "an LSTM": (
        None,
        lambda s: (s[:, None].expand(-1, 5, -1), (s[None], s[None])),
        ["pick=lambda y: y[0][:, 0]"],
    ),
    "classes": (None, lambda s: s.argmax(1), ["before an argmax"]),
    "a loss": (None, lambda s: s.mean(), ["tl.scores(model"]),
    "nothing": (None, lambda s: None, ["pick=lambda y: ..."]),
    "boxes": (None, lambda s: [{"scores": s[0], "boxes": s}], ['part["scores"].sum() for part']),
    "an array": (None, lambda s: s.detach().numpy(), ["NumPy"]),
    "a function that fails": (lambda y: y["out"], lambda s: {"logits": s}, ["pick: ", "'logits'"]),
    "an unknown key": ("logit", lambda s: {"logits": s}, ["pick: ", "'logits'"]),
    "a place too far": (2, lambda s: (s, s), ["pick: ", "0, 1"]),
    "a class for a place": (2, lambda s: s, ["pick: ", "target"]),
    "a key of a table": ("out", lambda s: s, ["pick: ", "Leave pick out"]),
    "a function to a picture": (
        lambda y: y["a"],
        lambda s: {"a": s[:, :, None, None].expand(-1, -1, 8, 6)},
        ["pick=lambda y: pick(y)[:, :, 4, 3]"],
    ),
}


@pytest.mark.parametrize("case", UNCLEAR)
def test_what_is_unclear_is_an_error_that_says_what_to_write(case):
    pick, change, hints = UNCLEAR[case]
    net = tl.scores(Returns(change), pick)
    for call in (lambda: net(X[:1]), lambda: tl.gradient(net, X[:1], 0)):
        with pytest.raises((ValueError, TypeError), match=r"^(model|pick): ") as error:
            call()
        assert all(hint in str(error.value) for hint in hints), str(error.value)


def test_the_line_that_an_error_shows_works():
    x = normal(2, 1, 6, 6)
    for net in (segmenter, tl.scores(segmenter, "out"), tl.scores(segmenter)):
        with pytest.raises(ValueError, match=r"tl\.scores") as error:
            tl.gradient(net, x, 1)
        line = str(error.value).partition("Write ")[2].partition(", or another")[0]
        net = eval(line, {"tl": tl, "model": segmenter})
        wanted = torch.zeros_like(x)
        wanted[:, :, 3, 3] = 2 * 2**2 * x[:, :, 3, 3]  # of (2 z)^2
        assert torch.allclose(tl.gradient(net, x, 2), wanted)


@pytest.mark.parametrize("pick", [1.5, True, ["logits"], X])
def test_a_pick_of_another_kind_is_refused(pick):
    with pytest.raises(TypeError, match=r"^pick: "):
        tl.scores(tanh_mlp(), pick)


# --- What it takes


def image_and_numbers(rows=2):
    return normal(rows, 1, 5, 4), normal(rows, 2, seed=1)


def test_two_inputs_get_the_maps_of_captum():
    net, (image, numbers) = TwoInputs(), image_and_numbers()
    bases = 0.1 * torch.ones_like(image), torch.zeros_like(numbers)
    peer = IntegratedGradients(lambda a, b: net(a, b)["logits"])
    wanted = peer.attribute((image, numbers), bases, target=1, n_steps=20, method="gausslegendre")
    for given, baseline in (
        ((image, numbers), (0.1, 0.0)),
        ([image, numbers], [0.1, bases[1]]),
        ({"image": image, "numbers": numbers}, {"numbers": 0.0, "image": bases[0][:1]}),
    ):
        adapted = tl.scores(net, inputs=given)
        maps = adapted.explain(tl.integrated_gradients, 1, baseline=baseline, **EXACT)
        assert isinstance(maps, tuple if isinstance(given, list | tuple) else dict)
        maps = list(maps.values()) if isinstance(maps, dict) else maps
        # captum makes its nodes in float32.
        assert all(close(ours, theirs, 1e-6) for ours, theirs in zip(maps, wanted, strict=True))
        joined = tl.integrated_gradients(
            adapted, adapted.x, 1, baseline=adapted.join(baseline), **EXACT
        )
        assert all(map(close, maps, _values(adapted.split(joined))))


def _values(maps):
    return list(maps.values()) if isinstance(maps, dict) else list(maps)


METHODS = {
    "gradient": (tl.gradient, {}),
    "gradient_x_input": (tl.gradient_x_input, {}),
    "integrated_gradients": (tl.integrated_gradients, dict(baseline=(0.5, 0.0), steps=3)),
    "smoothgrad": (tl.smoothgrad, dict(sigma=(0.3, 0.0), samples=4)),
    "smooth_taylor": (tl.smooth_taylor, dict(sigma=(0.3, 0.2), roots=4)),
    "adaptgrad": (tl.adaptgrad, dict(bounds=((-5.0, -9.0), (5.0, 9.0)), samples=4)),
    "noisegrad": (tl.noisegrad, dict(weight_samples=3)),
    "deeplift": (tl.deeplift, dict(baseline=(0.5, 0.0))),
    "lrp": (tl.lrp, dict(rule="composite", bounds=((-5.0, -9.0), (5.0, 9.0)))),
    "deep_taylor": (tl.deep_taylor, dict(bounds=((-5.0, -9.0), (5.0, 9.0)))),
    "smoothdiff": (tl.smoothdiff, dict(sigma=(0.3, 0.0), samples=4)),
    "guided_backprop": (tl.guided_backprop, {}),
    "occlusion": (tl.occlusion, dict(window=2, stride=1)),
    "smoothgrad of deeplift": (
        tl.smoothgrad,
        dict(method=tl.deeplift, sigma=(0.1, 0.1), samples=2, baseline=(0.0, 1.0)),
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_gives_a_map_of_each_input(name):
    method, keywords = METHODS[name]
    net, (image, numbers) = TwoInputs(), image_and_numbers()

    class Joined(nn.Module):
        """The same network, written by hand for (N, 22)."""

        def __init__(self):
            super().__init__()
            self.net = net
            self.eval()

        def forward(self, z):
            return self.net(z[:, :20].reshape(-1, 1, 5, 4), z[:, 20:])["logits"]

    adapted = tl.scores(net, inputs=(image, numbers))
    x = torch.cat([image.flatten(1), numbers], 1)
    by_hand = {}
    for key, value in keywords.items():
        if isinstance(value, tuple):
            pairs = value if key == "bounds" else (value,)
            rows = [torch.tensor([[a] * 20 + [b] * 2], dtype=x.dtype) for a, b in pairs]
            value = tuple(rows) if key == "bounds" else rows[0]
        by_hand[key] = value
    wanted = method(Joined(), x, 1, **by_hand)
    maps = adapted.explain(method, 1, **keywords)
    assert [m.shape for m in maps] == [image.shape, numbers.shape]
    assert close(torch.cat([m.flatten(1) for m in maps], 1), wanted)
    if name == "deeplift":
        gap = (
            net(image, numbers)["logits"] - net(torch.full_like(image, 0.5), 0 * numbers)["logits"]
        )
        assert torch.allclose(sum(m.flatten(1).sum(1) for m in maps), gap[:, 1])


def test_one_input_is_explained_and_another_is_held():
    net, (image, numbers) = TwoInputs(), image_and_numbers(1)
    both = tl.scores(net, inputs=(image, numbers)).explain(tl.gradient, 2)
    held = tl.scores(net, numbers=numbers)
    assert close(tl.gradient(held, image, 2), both[0])
    first_held = tl.scores(net, inputs={"numbers": numbers}, image=image)
    assert close(first_held.explain(tl.gradient, 2)["numbers"], both[1])
    # Passes of many rows, of many pictures.
    several = normal(3, 1, 5, 4, seed=3)
    maps = tl.smoothgrad(held, several, 2, sigma=0.2, samples=5, batch_size=4)
    for i in range(3):
        alone = tl.smoothgrad(held, several[i : i + 1], 2, sigma=0.2, samples=5)
        assert close(maps[i : i + 1], alone)
    hand = tl.grad_cam(lambda z: net(z, numbers)["logits"], image, 2, layer=net.conv)
    assert close(tl.grad_cam(held, image, 2, layer="conv"), hand)
    areas = tl.metrics.aupc(
        tl.scores(lambda a, b: net(a, b)["logits"].exp(), b=numbers),
        several,
        2,
        several[:, 0],
        bounds=(-3.0, 3.0),
        size=2,
        count=2,
        draws=2,
    )
    assert areas.shape == (3,)


def test_what_is_held_keeps_to_its_row():
    net, numbers = TwoInputs(), image_and_numbers(2)[1]
    with pytest.raises(ValueError, match=r"^numbers: .*numbers\[i : i \+ 1\].*partial"):
        tl.scores(net, numbers=numbers)
    scale = normal(3)
    partial = functools.partial(lambda z, scale: tanh_mlp()(z) * scale, scale=scale)
    assert close(tl.gradient(tl.scores(partial), X, 1), scale[1] * tl.gradient(tanh_mlp(), X, 1))


def test_numbers_without_a_dimension_and_other_things_are_passed_on():
    net = tanh_mlp()

    def model(z, power, names=(), scale=None):
        assert names == ("a", "b") and scale.ndim == 0
        return net(z) ** power * scale

    adapted = tl.scores(model, power=2, names=("a", "b"), scale=torch.tensor(3.0))
    assert close(tl.gradient(adapted, X, 0), tl.gradient(lambda z: 3 * net(z) ** 2, X, 0))


TAKEN = {
    "an input too few": (lambda m, a, b: tl.scores(m), "model: .*missing.*inputs=.*name=value"),
    "a wrong name": (lambda m, a, b: tl.scores(m, meta=b[:1]), "model: .*it takes.*numbers"),
    "a wrong key": (
        lambda m, a, b: tl.scores(m, inputs={"picture": a, "numbers": b}),
        r"it takes \(image, numbers\)",
    ),
    "twice": (
        lambda m, a, b: tl.scores(m, inputs={"image": a}, image=a[:1]),
        "^image: .*leave one",
    ),
    "other rows": (lambda m, a, b: tl.scores(m, inputs=(a, b[:1])), "^inputs: .*got 2, 1"),
    "other dtypes": (lambda m, a, b: tl.scores(m, inputs=(a, b.float())), "^inputs: .*one dtype"),
    "whole numbers": (lambda m, a, b: tl.scores(m, inputs=(a, b.long())), r"^inputs\[1\]: .*Hold"),
    "no tensor": (lambda m, a, b: tl.scores(m, inputs=(a, [1.0])), r"^inputs\[1\]: "),
    "NaN": (lambda m, a, b: tl.scores(m, inputs=(a, b / 0)), "finite"),
    "none": (lambda m, a, b: tl.scores(m, inputs=()), "^inputs: "),
    "the wrong order": (lambda m, a, b: tl.scores(m, inputs=(b, a)), "^inputs: the model does not"),
    "a number": (lambda m, a, b: tl.scores(m, inputs=3), "^inputs: "),
    "training": (lambda m, a, b: tl.scores(m.train(), inputs=(a, b)), r"model: .*eval\(\)"),
    "no model": (lambda m, a, b: tl.scores(m.state_dict()), r"model: .*tl\.scores"),
    "one x for two": (lambda m, a, b: tl.gradient(tl.scores(m, inputs=(a, b)), a, 0), "net.x"),
    "a tuple for x": (lambda m, a, b: tl.gradient(m, (a, b), 0), r"tl\.scores\(model, inputs=x\)"),
    "a plain model": (lambda m, a, b: tl.gradient(m, a, 0), "it needs numbers .*numbers=numbers"),
    "a short join": (lambda m, a, b: tl.scores(m, inputs=(a, b)).join((0.0,)), "^join: .*got 1"),
    "a join of one": (lambda m, a, b: tl.scores(m, inputs=(a, b)).join(0.0), "^join: "),
    "a join by name": (
        lambda m, a, b: tl.scores(m, inputs={"image": a, "numbers": b}).join({"image": 0.0}),
        "^join: .*numbers",
    ),
    "a part of another shape": (
        lambda m, a, b: tl.scores(m, inputs=(a, b)).join((a, b[:, :1].expand(-1, 7))),
        r"^join: inputs\[1\]: ",
    ),
    "a tuple for a baseline": (
        lambda m, a, b: tl.integrated_gradients(tanh_mlp(), X, 0, baseline=(a, b)),
        r"^baseline: .*net\.join\(baseline\)",
    ),
    "a map of another": (lambda m, a, b: tl.scores(m, inputs=(a, b)).split(a), "^split: "),
    "explain without inputs": (
        lambda m, a, b: tl.scores(m, numbers=b[:1]).explain(tl.gradient, 0),
        "^inputs: explain",
    ),
    "join without inputs": (lambda m, a, b: tl.scores(m, numbers=b[:1]).join((a, b)), "^join: "),
}


@pytest.mark.parametrize("case", TAKEN)
def test_inputs_that_do_not_fit_are_told_what_to_write(case):
    call, match = TAKEN[case]
    with pytest.raises((ValueError, TypeError), match=match):
        call(TwoInputs(), *image_and_numbers())


def test_an_input_of_one_number_a_row_keeps_its_shape():
    def model(age, z):
        return tanh_mlp()(z) * age[:, None]

    age = normal(3, seed=4)
    of_age, of_x = tl.scores(model, inputs=(age, X)).explain(tl.gradient, 1)
    assert close(of_age, tanh_mlp()(X)[:, 1]) and of_age.shape == (3,)
    assert close(of_x, age[:, None] * tl.gradient(tanh_mlp(), X, 1))
    alone = tl.scores(lambda z: z**2, inputs=age)
    assert close(alone.explain(tl.gradient, 0), 2 * age)


# --- Token ids

IDS = torch.tensor([[3, 7, 7, 1, 0, 0]])
MASK = torch.tensor([[1, 1, 0, 1, 1, 1]])


@pytest.mark.parametrize("embedding", ["words", Reader.__init__])
@pytest.mark.slow
def test_token_embeddings_are_explained_as_if_the_model_took_them(embedding):
    net = Reader()
    layer = embedding if isinstance(embedding, str) else net.words
    adapted = tl.scores(net, inputs=IDS, embedding=layer, attention_mask=MASK)
    words = net.words(IDS).detach()
    assert torch.equal(adapted.x, words)

    def by_hand(z):
        mask = MASK.expand(len(z), -1)
        return net(inputs_embeds=z, attention_mask=mask, padding=IDS.expand(len(z), -1) == 0).logits

    pad = net.words(torch.zeros_like(IDS)).detach()
    assert torch.allclose(adapted(words), by_hand(words))
    for method, keywords in (
        (tl.gradient, {}),
        (tl.gradient_x_input, {}),
        (tl.integrated_gradients, dict(baseline=pad, steps=7, batch_size=3)),
        (tl.smoothgrad, dict(sigma=0.1, samples=5)),
        (tl.smooth_taylor, dict(sigma=0.1, roots=5)),
        (tl.adaptgrad, dict(bounds=(-9.0, 9.0), samples=5)),
    ):
        ours = adapted.explain(method, 2, **keywords)
        assert ours.shape == words.shape and close(ours, method(by_hand, words, 2, **keywords))
        assert not ours[0, [2, 4, 5]].any()  # what is masked has no say
    by_name = tl.scores(net, inputs={"input_ids": IDS}, embedding=layer, attention_mask=MASK)
    assert close(by_name.explain(tl.gradient, 2)["input_ids"], tl.gradient(by_hand, words, 2))
    gap = (by_hand(words) - by_hand(pad))[0, 2]
    exact = adapted.explain(tl.integrated_gradients, 2, baseline=pad, steps=400, rule="midpoint")
    assert torch.allclose(exact.sum(-1).sum(), gap, rtol=5e-3)


def test_a_model_with_embeddings_of_its_own_needs_no_layer():
    net, words = Reader(), Reader().words(IDS).detach()
    adapted = tl.scores(net, inputs={"inputs_embeds": words}, attention_mask=MASK, padding=IDS == 0)
    wanted = tl.scores(net, inputs=IDS, embedding="words", attention_mask=MASK)
    ours = adapted.explain(tl.gradient, 0)["inputs_embeds"]
    assert close(ours, wanted.explain(tl.gradient, 0))


def test_an_lstm_without_a_column_on_token_ids():
    net = Sentiment()
    adapted = tl.scores(net, inputs=IDS, embedding="words")
    words = net.words(IDS).detach()
    hand = lambda z: net.last(net.lstm(z)[0][:, -1])  # noqa: E731
    ours = adapted.explain(tl.integrated_gradients, 0, steps=9)
    assert close(ours, tl.integrated_gradients(hand, words, 0, steps=9))
    assert not net.words._forward_hooks and not net.training
    noisy = adapted.explain(tl.noisegrad, 0, weight_samples=2)
    assert noisy.shape == words.shape and not close(noisy, adapted.explain(tl.gradient, 0))


def test_rules_follow_a_replaced_embedding():
    torch.manual_seed(0)
    words, hidden = nn.Embedding(9, 4), nn.Linear(24, 8)
    layers = words, nn.Flatten(), hidden, nn.ReLU(), nn.Linear(8, 3)
    net = nn.Sequential(*layers).double().eval()
    adapted, z = tl.scores(net, inputs=IDS, embedding="0"), words(IDS).detach()
    rest = net[1:].eval()
    for method in (tl.deeplift, tl.lrp, tl.guided_backprop, tl.deconvnet):
        assert close(adapted.explain(method, 1), method(rest, z, 1)), method
    gap = rest(z) - rest(0 * z)
    assert torch.allclose(adapted.explain(tl.deeplift, 1).sum(), gap[0, 1])


TOKENS = {
    "two sentences": (dict(inputs=IDS.repeat(2, 1), embedding="words"), r"\[i : i \+ 1\]"),
    "no ids": (dict(embedding="words"), "^inputs: "),
    "numbers": (dict(inputs=IDS.double(), embedding="words"), "^inputs: .*LongTensor"),
    "no embedding": (dict(inputs=IDS), "embedding="),
    "an unknown layer": (dict(inputs=IDS, embedding="word"), "did you mean 'words'"),
    "a number as layer": (dict(inputs=IDS, embedding=3), "^embedding: "),
    "a layer of another": (dict(inputs=IDS, embedding=nn.Embedding(9, 8)), "not in it"),
    "a layer that does not run": (dict(inputs=IDS, embedding="encoder.layers.0.dropout1"), "runs?"),
    "more than the ids": (
        dict(inputs={"input_ids": IDS, "attention_mask": MASK}, embedding="words"),
        "attention_mask=",
    ),
    "ids out of range": (dict(inputs=IDS + 50, embedding="words"), "^inputs: .*out of range"),
}


@pytest.mark.parametrize("case", TOKENS)
def test_tokens_that_do_not_fit_are_told_what_to_write(case):
    keywords, match = TOKENS[case]
    if case == "a layer that does not run":
        net = Sentiment()
        net.idle = nn.Embedding(3, 3).eval()
        with pytest.raises(ValueError, match=r"^embedding: .*ran 0 times"):
            tl.scores(net, inputs=IDS, embedding="idle")
        return
    if case != "more than the ids":
        keywords = dict(attention_mask=MASK) | keywords
    with pytest.raises((ValueError, TypeError), match=match):
        tl.scores(Reader(), **keywords)


def test_a_layer_that_runs_twice_is_refused():
    net = Sentiment()
    with pytest.raises(ValueError, match=r"^embedding: .*ran 2 times"):
        tl.scores(lambda ids: net(ids) + net(ids), inputs=IDS, embedding=net.words)


def test_ids_without_the_adapter_meet_its_line():
    for x in (IDS, IDS.double()):
        with pytest.raises(TypeError, match=r"tl\.scores\(model, inputs=.*embedding="):
            tl.gradient(Sentiment(), x, 0)


# --- It is a module like the model


def test_the_layers_keep_their_names_and_the_model_its_state():
    net = TwoInputs().train()
    before = {name: p.clone() for name, p in net.named_parameters()}
    net.eval()
    adapted = tl.scores(net, inputs=image_and_numbers())
    names = [name for name, _ in net.named_modules()]
    assert [n for n, _ in adapted.named_modules()] == ["", *names]
    assert dict(adapted.named_parameters()).keys() == before.keys()
    assert adapted.get_submodule("conv") is net.conv
    with pytest.raises(AttributeError, match="no layer 'nothing'"):
        adapted.get_submodule("nothing")
    adapted.explain(tl.noisegrad, 0, weight_samples=2)
    assert all(torch.equal(p, before[n]) for n, p in net.named_parameters())
    net.train()
    assert not adapted.training
    with pytest.raises(ValueError, match=r"training mode.*eval\(\)"):
        adapted.explain(tl.gradient, 0)
    assert net.training  # and is left so


def test_noise_on_weights_reaches_the_model_and_a_pick_with_weights():
    net, head = Returns(lambda s: (0, s)), nn.Linear(3, 2).double().eval()
    head_of = nn.Sequential(head).eval()

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.head = net.net, head_of
            self.eval()

        def forward(self, z):
            return self.head(self.net(z))

    plain = Returns(lambda s: s)
    ours = tl.noisegrad(tl.scores(net, 1), X, 0, weight_samples=3)
    assert close(ours, tl.noisegrad(plain, X, 0, weight_samples=3))
    plain.change = head_of
    ours = tl.noisegrad(tl.scores(plain.net, pick=head_of), X, 0, weight_samples=3)
    assert close(ours, tl.noisegrad(Whole(), X, 0, weight_samples=3))
    bound = tl.noisegrad(tl.scores(plain.net.forward), X, 0, weight_samples=3)
    assert close(bound, tl.noisegrad(plain.net, X, 0, weight_samples=3))
    with pytest.raises(TypeError, match=r"weights.*tl\.scores\(network"):
        tl.noisegrad(tl.scores(lambda z: plain.net(z)), X, 0)


def test_a_copy_of_the_adapter_has_layers_of_its_own():
    net = Sentiment()
    adapted = tl.scores(net, inputs=IDS, embedding="words")
    other = copy.deepcopy(adapted)
    other.get_submodule("last").weight.data.zero_()
    assert other(other.x).item() == pytest.approx(net.last.bias.item())
    assert adapted(adapted.x).item() == pytest.approx(float(net(IDS)))


def test_prepare_takes_the_adapter_and_speeds_the_model_inside():
    torch.manual_seed(0)
    conv = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    conv[1].running_mean.normal_()

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.features, self.last = conv, nn.Linear(4 * 16, 3)
            self.eval()

        def forward(self, z):
            return Output(self.last(self.features(z)))

    adapted, x = tl.scores(Net()), normal(2, 1, 6, 6).float()
    fast = tl.prepare(adapted, x)
    assert isinstance(fast.get_submodule("features.1"), nn.Identity)
    assert torch.allclose(fast(x), adapted(x), atol=1e-5)
    assert isinstance(conv[1], nn.BatchNorm2d)


def test_rows_that_mix_are_refused_inside_it_too():
    mixing = tl.scores(lambda z: {"logits": tanh_mlp()(z - z.mean(0))})
    with pytest.raises(ValueError, match="scores of a row change"):
        tl.gradient(mixing, X, 0)


@pytest.mark.slow
def test_scripted_traced_and_compiled_models():
    x = X.float()
    net = tanh_mlp().float()
    wanted = tl.gradient(net, x, 1)
    for model in (
        torch.jit.script(net),
        torch.jit.trace(net, x),
        torch.compile(net, backend="eager"),
    ):
        assert torch.allclose(tl.gradient(tl.scores(model), x, 1), wanted, atol=1e-6)
    scripted = torch.jit.script(Sentiment())
    with pytest.raises(TypeError, match=r"^embedding: .*scripted"):
        tl.scores(scripted, inputs=IDS, embedding="words")


def test_the_metrics_take_it():
    adapted = tl.scores(Returns(Output))
    plain = tanh_mlp()
    a = tl.gradient_x_input(plain, X, 1)
    gap = tl.metrics.completeness_gap(adapted, X, 1, a)
    assert torch.allclose(gap, tl.metrics.completeness_gap(plain, X, 1, a))
    found = tl.metrics.randomisation(adapted, X, 1, method=tl.gradient)
    assert [name for name, _ in found] == ["net.2", "net.0"]


@pytest.mark.parametrize("method", [tl.expected_gradients, tl.deeplift])
def test_several_inputs_have_points_of_their_own_to_be_compared_with(method):
    one, other = torch.rand(2, 3).double(), torch.rand(2, 4).double()
    inputs = one, other
    net = tl.scores(lambda a, b: a.sum(1, keepdim=True) + 2 * b.sum(1, keepdim=True), inputs=inputs)
    points = torch.rand(5, 3).double(), torch.rand(5, 4).double()
    many = dict(samples=4000) if method is tl.expected_gradients else {}
    found = net.explain(method, 0, baselines=points, **many)
    assert torch.allclose(found[0], one - points[0].mean(0), atol=0.05)
    assert torch.allclose(found[1], 2 * (other - points[1].mean(0)), atol=0.05)
    with pytest.raises(ValueError, match="baselines: expected equally many points"):
        net.explain(method, 0, baselines=(points[0], points[1][:2]))
    with pytest.raises(ValueError, match=r"baselines: expected K points \(K, 4\)"):
        net.explain(method, 0, baselines=(points[0], points[0]))
