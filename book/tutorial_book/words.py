"""Film reviews from a grammar, whose deciding words are known, and a small transformer for them."""

import random
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tutorial_lib as tl
from tutorial_lib.networks.known_truth import Block

LENGTH = 13
ASPECTS = "film story ending music cast acting".split()
GOOD = "good great fine bright funny clever".split()
BAD = "bad terrible poor dull boring silly".split()
NO = "not never".split()
OTHERS = "the was very quite and while :".split()
VOCABULARY = ["[pad]", "[mask]", *ASPECTS, *GOOD, *BAD, *NO, *OTHERS]
NUMBER = {word: i for i, word in enumerate(VOCABULARY)}
OPPOSITE = dict(zip(GOOD + BAD, BAD + GOOD, strict=True))


class Review(NamedTuple):
    """The words of a review, whether the asked opinion is good, and the places that decide."""

    words: list[str]
    is_good: bool
    deciding: list[int]  # the asked adjective is the last


def reviews(count: int, seed: int = 0) -> list[Review]:
    """Draw reviews: the question, ":", and two clauses, one of which is about the question."""
    pick = random.Random(seed).choice
    return [_review(pick) for _ in range(count)]


def _review(pick) -> Review:
    nouns, asked = (pick(ASPECTS[:3]), pick(ASPECTS[3:])), pick([0, 1])
    first, second = (
        ["the", noun, "was", pick([*NO, "very", "quite"]), pick(GOOD + BAD)] for noun in nouns
    )
    words = [nouns[asked], ":", *first, pick(["and", "while"]), *second]
    place = 6 + 6 * asked  # of the asked adjective; its modifier stands before it
    negated = words[place - 1] in NO
    deciding = [place - 1, place] if negated else [place]
    return Review(words, (words[place] in GOOD) != negated, deciding)


def numbers(sentences: list[list[str]]) -> Tensor:
    """The ids of sentences, (N, T)."""
    return torch.tensor([[NUMBER[word] for word in words] for words in sentences])


class Reader(nn.Module):
    """A transformer of two blocks, whose score for "good" is read at the first word."""

    def __init__(self, width: int = 24, heads: int = 2):
        super().__init__()
        self.words = nn.Embedding(len(VOCABULARY), width)
        self.places = nn.Parameter(torch.randn(LENGTH, width))
        self.blocks = nn.Sequential(Block(width, heads), Block(width, heads))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1)

    def opinions(self, embeddings: Tensor) -> Tensor:
        """Map embeddings (N, T, E) to a number at each word, (N, T)."""
        return self.head(self.norm(self.blocks(embeddings + self.places)))[..., 0]

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids (N, T) to scores (N,), above 0 for "good"."""
        return self.opinions(self.words(ids))[:, 0]


def train(known: list[Review], seed: int = 0, attempts: int = 5) -> Reader:
    """Train a `Reader`, and begin again from other weights if it has not learnt to read.

    From some seeds training ends at a reader that does not look for the asked noun.
    """
    ids = numbers([review.words for review in known])
    wanted = torch.tensor([review.is_good for review in known])
    for attempt in range(attempts):
        net = train_once(known, seed + 1000 * attempt)
        if ((net(ids) > 0) == wanted).float().mean() > 0.98:
            return net
    raise RuntimeError(f"known: no reader has learnt these reviews in {attempts} attempts")


def train_once(known: list[Review], seed: int, epochs: int = 12, batch_size: int = 60) -> Reader:
    """Train a `Reader` to say the asked opinion and, as a help, that of each clause at its noun.

    One word in fifty is hidden by [mask]. Adam, with a step size that grows and falls again.
    """
    ids = numbers([review.words for review in known])
    good, no = (torch.tensor([NUMBER[word] for word in words]) for words in (GOOD, NO))
    both = [torch.isin(ids[:, k], good) ^ torch.isin(ids[:, k - 1], no) for k in (6, 12)]
    asked = torch.tensor([review.is_good for review in known])
    wanted = torch.stack([asked, *both], 1).float()  # (N, 3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Reader()
        optimizer = torch.optim.Adam(net.parameters(), betas=(0.9, 0.98), fused=True)
        steps = epochs * len(ids.split(batch_size))
        rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.005, steps, pct_start=0.15)
        for _ in range(epochs):
            for rows in torch.randperm(len(ids)).split(batch_size):
                hidden = torch.rand(len(rows), LENGTH) < 0.02
                heard = ids[rows].masked_fill(hidden, NUMBER["[mask]"])
                found = net.opinions(net.words(heard))[:, [0, 3, 9]]  # (batch, 3)
                optimizer.zero_grad()
                F.binary_cross_entropy_with_logits(found, wanted[rows]).backward()
                optimizer.step()
                rates.step()
    return net.eval().requires_grad_(False)


def every_word(net: Reader, token: str) -> Tensor:
    """The embeddings (1, T, E) of a sentence that says this token at each place."""
    return net.words(torch.full((1, LENGTH), NUMBER[token]))


def methods(net: Reader) -> dict:
    """{name: (attribution function, its keywords)} for the embeddings of this network."""
    path = dict(steps=32, rule="midpoint")
    sigma = tl.sigma_from_level(0.1, (net.words.weight.min(), net.words.weight.max()))
    smooth = dict(method=tl.gradient_x_input, sigma=sigma, samples=32)
    found = {
        "gradient x input": (tl.gradient_x_input, {}),
        "SmoothGrad x input": (tl.smoothgrad, smooth),
        "LRP": (tl.lrp, dict(rule="transformer")),
        "IG, zero": (tl.integrated_gradients, dict(baseline=0.0, **path)),
    }
    for token in ("[pad]", "[mask]"):
        keywords = dict(baseline=every_word(net, token), **path)
        found[f"IG, {token}"] = tl.integrated_gradients, keywords
    return found


def word_maps(net: Reader, ids: Tensor) -> dict[str, Tensor]:
    """{name: (N, T) contributions of the words} of each method, for sentences (N, T)."""
    score = lambda embeddings: net.opinions(embeddings)[:, :1]  # noqa: E731
    x = net.words(ids)
    return {
        name: method(score, x, 0, **keywords).sum(-1)
        for name, (method, keywords) in methods(net).items()
    }
