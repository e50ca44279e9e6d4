"""Training with noise or a gradient penalty: what it does to the maps of small MNIST networks.

    python make_training.py --seeds 5 --out training.csv

Every network is trained on the 4000 bundled digits and looked at on 100 held out ones. A row:
network, training, seed, `accuracy` on the 1000 held out digits, `noisy`, the same with noise of 0.3
on them, the mean norm of the score's gradient (`norm`), and for two methods, gradient and
SmoothGrad with sigma 0.3 and 25 samples, the total variation of the saliency map (`gradient_tv`,
`smoothgrad_tv`) and the share of the maps' magnitude, of all 100 together, farther than 2 pixels
from the digit's ink (`gradient_far`, `smoothgrad_far`). Rows that are there already are left alone.
"""

import itertools

import torch
from over_networks import measure
from torch.nn import functional as F

import tutorial_lib as tl

NETWORKS = {
    "convolutional": dict(network=tl.mnist.convolutional, learning_rate=0.2, epochs=5),
    "dense": dict(network=tl.mnist.dense, learning_rate=0.05, epochs=12),
}
TRAININGS = {"plain": {}, "noise 0.3": dict(noise=0.3)}
TRAININGS |= {f"penalty {v}": dict(penalty=v) for v in (0.1, 1.0)}
FIELDS = ["network", "training", "seed", "accuracy", "noisy", "norm"]
FIELDS += ["gradient_tv", "gradient_far", "smoothgrad_tv", "smoothgrad_far"]


def measured(net):
    """The numbers of one network."""
    images, labels = tl.load_mnist("test")
    noise = 0.3 * torch.randn(images.shape, generator=torch.Generator().manual_seed(5))
    right = [float((net(z).argmax(1) == labels).float().mean()) for z in (images, images + noise)]
    x, target = images[::10], labels[::10]
    near = F.max_pool2d((x > 0.1).float(), 5, 1, 2)
    slope = tl.gradient(net, x, target)
    yield from (*right, float(slope.flatten(1).norm(dim=1).mean()))
    for m in (slope, tl.smoothgrad(net, x, target, sigma=0.3, samples=25)):
        yield float(tl.metrics.average_total_variation(tl.saliency_map(m)).mean())
        yield float((m.abs() * (1 - near)).sum() / m.abs().sum())


def cases(seeds):
    """Network, training and seed of every row."""
    for seed in range(seeds):
        for name, training in itertools.product(NETWORKS, TRAININGS):
            yield name, training, seed


def values(name, training, seed):
    """The numbers of one row."""
    how = NETWORKS[name] | TRAININGS[training]
    return measured(tl.mnist.train(*tl.load_mnist("train"), seed=seed, **how))


if __name__ == "__main__":
    measure(__doc__, FIELDS, cases, values)
