"""How much of a map of a review lies on the words that decide, for several networks.

    python make_words.py --seeds 8 --out words.csv

A row: method, seed of the network (`tutorial_book.words.train`); the share of all new reviews that
the network names rightly (`right`); of the first 100 of these, the share of answers that turn when
the asked adjective is exchanged for its opposite (`asked`), and when the other one is (`other`);
the mean share of a map's magnitude on the deciding words (`share`), and how often the asked
adjective has the sign of the score (`sign`); and the network's score for the baseline, where the
method has one (`start`). "equal" is a map of ones, and "hide one word" is by how much the score
changes when one word is replaced by [mask].
"""

from functools import cache

import torch
from over_networks import measure

from tutorial_book import words

FIELDS = ["method", "seed", "right", "asked", "other", "share", "sign", "start"]
METHODS = ["gradient x input", "SmoothGrad x input", "LRP", "IG, zero", "IG, [pad]", "IG, [mask]"]
METHODS += ["hide one word", "equal"]
COUNT = 100


@cache
def explained(seed):
    """The network, the share of new reviews that it names rightly, 100 of them and their maps."""
    known = words.reviews(6000, seed=0)
    seen = {tuple(review.words) for review in known}
    new = [r for r in words.reviews(700, seed=1) if tuple(r.words) not in seen]
    net = words.train(known, seed=seed)
    ids = words.numbers([review.words for review in new])
    right = (net(ids) > 0) == torch.tensor([review.is_good for review in new])
    chosen = [review for review, ok in zip(new, right, strict=True) if ok][:COUNT]
    ids = words.numbers([review.words for review in chosen])
    maps = words.word_maps(net, ids)
    maps |= {"equal": torch.ones(COUNT, words.LENGTH), "hide one word": hide(net, ids)}
    return net, float(right.float().mean()), chosen, maps


def hide(net, ids):
    """By how much the score changes when each word is replaced by [mask], (N, T)."""
    hidden = ids[:, None].repeat(1, words.LENGTH, 1)  # (N, T, T)
    hidden[:, range(words.LENGTH), range(words.LENGTH)] = words.NUMBER["[mask]"]
    return net(ids)[:, None] - net(hidden.flatten(0, 1)).view(len(ids), -1)


def turned(net, chosen, asked):
    """The share of answers that turn when an adjective is exchanged for its opposite."""
    exchanged = []
    for review in chosen:
        place = review.deciding[-1] if asked else 18 - review.deciding[-1]
        sentence = list(review.words)
        sentence[place] = words.OPPOSITE[sentence[place]]
        exchanged.append(sentence)
    before = net(words.numbers([review.words for review in chosen])) > 0
    return float(((net(words.numbers(exchanged)) > 0) != before).float().mean())


def numbers(method, seed):
    """The numbers of a row."""
    net, right, chosen, maps = explained(seed)
    decides, last = torch.zeros(COUNT, words.LENGTH), torch.zeros(COUNT, 1, dtype=torch.long)
    for row, review in enumerate(chosen):
        decides[row, review.deciding], last[row] = 1, review.deciding[-1]
    a = maps[method]
    share = float(((a.abs() * decides).sum(1) / a.abs().sum(1)).mean())
    score = net(words.numbers([review.words for review in chosen]))
    sign = float(((a.gather(1, last)[:, 0] > 0) == (score > 0)).float().mean())
    start = float("nan")
    if method.startswith("IG"):
        baseline = words.methods(net)[method][1]["baseline"]
        points = torch.zeros(1, words.LENGTH, net.words.embedding_dim) + baseline
        start = float(net.opinions(points)[0, 0])
    asked, other = (turned(net, chosen, which) for which in (True, False))
    return right, asked, other, share, sign, start


def cases(seeds):
    """All rows, network by network."""
    return [(method, seed) for seed in range(seeds) for method in METHODS]


if __name__ == "__main__":
    measure(__doc__, FIELDS, cases, numbers)
