"""How much of a map lies on the truth: two digits for a transformer, two motifs in DNA.

    python make_known_truth.py --seeds 5 --out known_truth.csv

A row: task ("digits" or "motifs"), method, seed of a network; the share of all new inputs that the
network names rightly (`right`); and means over the first 200 of these (of the motifs those with
label 0 or 1). `share` is the share of the magnitude on the truth, `positive` that of the positive
part, both without maps of zeros, and `sum` what the map adds up to. Of digits, `asked`, `other` and
`mark` are the sums over the three parts of the picture. `score` is the mean score. The method
"exchange" is the network itself, without a map: `asked` and `other` are by how much the score falls
when a digit is exchanged for another picture's, `mark` when the mark is turned, and `share` is the
magnitude of the first over that of both. Of motifs, the difference of a baseline of 1/4 for each
letter is explained where a method's name ends in 1/4.
"""

from functools import cache, partial

import torch
from over_networks import measure

import tutorial_lib as tl

FIELDS = ["task", "method", "seed", "right", "share", "positive", "sum", "score"]
FIELDS += ["asked", "other", "mark"]
PATH = dict(steps=32, rule="midpoint")
NEW = 10**6  # seed of the new inputs, far from those of training


def times_input(method, net, x, target, **options):
    """Multiply a map by the input."""
    return x * method(net, x, target, **options)


def edges(net, x, target):
    """The length of the picture's own gradient, which knows no network."""
    return torch.stack(torch.gradient(x, dim=(2, 3))).square().sum(0).sqrt()


def random(net, x, target):
    """Numbers from 0 to 1."""
    return torch.rand(x.shape, generator=torch.Generator().manual_seed(0))


def token_cam(net, x, target):
    """Grad-CAM of the tokens before the last block's attention."""
    where = dict(layer="blocks.1.norm1", grid=(2, 5), extra_tokens=1)
    return tl.grad_cam(net, x, target, **where)[:, None]


DIGITS = {
    "gradient": tl.gradient,
    "gradient x input": tl.gradient_x_input,
    "Integrated Gradients": partial(tl.integrated_gradients, **PATH),
    "SmoothGrad": partial(tl.smoothgrad, sigma=0.1, samples=20),
    "LRP, epsilon 0.1": partial(tl.lrp, rule="transformer", epsilon=0.1),
    "LRP": partial(tl.lrp, rule="transformer"),
    "LRP, biases=False": partial(tl.lrp, rule="transformer", biases=False),
    "LibraGrad x input": partial(times_input, tl.libragrad),
    "DeepLIFT": tl.deeplift,
    "Grad-CAM": token_cam,
    "edges": edges,
    "random": random,
}
QUARTER = dict(baseline=0.25)
MOTIFS = {
    "gradient x input": tl.gradient_x_input,
    "SmoothGrad x input": partial(times_input, tl.smoothgrad, sigma=0.1, samples=20),
    "LRP": tl.lrp,
    "LRP, z+": partial(tl.lrp, rule="alpha_beta"),
    "random": partial(times_input, random),
    "Integrated Gradients": partial(tl.integrated_gradients, **PATH),
    "Integrated Gradients, 1/4": partial(tl.integrated_gradients, **PATH, **QUARTER),
    **{
        f"DeepLIFT, {rule}{end}": partial(tl.deeplift, rule=rule, **options)
        for rule in ("rescale", "reveal_cancel", "genomics")
        for end, options in (("", {}), (", 1/4", QUARTER))
    },
}


def scores(net, x, target):
    """The score of each input's class."""
    return net(x).gather(1, target[:, None])[:, 0]


@cache
def explained(task, seed):
    """The network of this seed, the share of new inputs that it gets right, and 200 of these."""
    make, draw, steps = {
        "digits": (tl.truth.transformer, tl.truth.two_digits, 400),
        "motifs": (tl.truth.motif_network, tl.truth.motifs, 600),
    }[task]
    net = tl.truth.train(make, draw, steps=steps, seed=seed)
    new = draw(1000, **({"split": "test"} if task == "digits" else {}), seed=NEW)
    right = net(new.x).argmax(1) == new.labels
    wanted = right if task == "digits" else right & (new.labels < 2)
    rows = wanted.nonzero()[:200, 0]
    return net, float(right.float().mean()), tl.truth.Task(*(part[rows] for part in new))


def exchange(net, task):
    """What the score itself says: how far it falls when a part of the picture is another's."""
    x, target = task.x, task.labels
    mark = ~(task.truth | task.other)
    before = scores(net, x, target)
    falls = []
    for part in (task.truth, task.other):
        changed = (torch.where(part, x.roll(k, 0), x) for k in range(1, 11))
        falls.append(torch.stack([before - scores(net, z, target) for z in changed]))
    falls.append(before - scores(net, torch.where(mark, x.flip(3), x), target))
    asked, other = (float(fall.abs().mean()) for fall in falls[:2])
    nothing = float("nan")
    means = [float(fall.mean()) for fall in falls]
    return asked / (asked + other), nothing, nothing, float(before.mean()), *means


def numbers(task, method, seed):
    """The numbers of a row."""
    net, right, inputs = explained(task, seed)
    if method == "exchange":
        return right, *exchange(net, inputs)
    target = inputs.labels
    a = {"digits": DIGITS, "motifs": MOTIFS}[task][method](net, inputs.x, target).detach()
    a = a.sum(1, keepdim=True)
    positive = a.clamp(min=0)
    shares = [float(tl.truth.share(m, inputs).nanmean()) for m in (a, positive)]
    score = float(scores(net, inputs.x, target).mean())
    parts = inputs.truth, inputs.other, ~(inputs.truth | inputs.other)
    sums = [float((a * part).sum() / len(a)) for part in parts]
    return right, *shares, float(a.sum() / len(a)), score, *sums


def cases(seeds):
    """All rows, network by network."""
    for seed in range(seeds):
        yield from (("digits", name, seed) for name in ["exchange", *DIGITS])
        yield from (("motifs", name, seed) for name in MOTIFS)


if __name__ == "__main__":
    measure(__doc__, FIELDS, cases, numbers)
