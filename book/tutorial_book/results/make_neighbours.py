"""Training with a penalty on the change of derivatives between neighbouring pixels.

    python make_neighbours.py --seeds 5 --out neighbours.csv

The loss of an image x with label y, and its score f_y, is

    cross entropy + weight * sum over neighbouring pixels i, j of (df_y/dx_i - df_y/dx_j)^2

Networks, digits, seeds and the measured columns `accuracy`, `norm`, `gradient_tv` and
`gradient_far` are those of make_training.py; a `weight` of 0 is plain training. `roughness` is the
sum over neighbours divided by the squared length of the gradient, a mean over 100 held out digits.
Rows that are there already are left alone.
"""

import itertools

import torch
from make_training import NETWORKS, measured
from over_networks import measure
from torch.nn import functional as F

import tutorial_lib as tl

WEIGHTS = (0.0, 0.01, 0.1)
FIELDS = ["network", "weight", "seed", "accuracy", "norm", "roughness"]
FIELDS += ["gradient_tv", "gradient_far"]


def change(gradient):
    """Sum over neighbouring pixels of the squared difference: (N, 1, H, W) to (N,)."""
    squares = [gradient.diff(dim=axis).square().sum((1, 2, 3)) for axis in (2, 3)]
    return squares[0] + squares[1]


def loss(net, x, y, weight):
    """The loss above, as a mean over the images."""
    x = x.clone().requires_grad_()
    scores = net(x)
    own = scores.gather(1, y[:, None]).sum()
    (gradient,) = torch.autograd.grad(own, x, create_graph=True)
    return F.cross_entropy(scores, y) + weight * change(gradient).mean()


def train(digits, weight, seed, network, learning_rate, epochs):
    """The training of tl.mnist.train, with the loss above."""
    images, labels = digits
    order = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=learning_rate)
    for _ in range(epochs):
        for chosen in torch.randperm(len(images), generator=order).split(32):
            optimizer.zero_grad()
            loss(net, images[chosen], labels[chosen], weight).backward()
            optimizer.step()
    return net.eval().requires_grad_(False)


def row(net):
    """The numbers of one network."""
    accuracy, _, norm, tv, far, *_ = measured(net)
    images, labels = (part[::10] for part in tl.load_mnist("test"))
    gradient = tl.gradient(net, images, labels)
    rough = change(gradient) / gradient.square().sum((1, 2, 3))
    return accuracy, norm, float(rough.mean()), tv, far


def cases(seeds):
    """Network, weight and seed of every row."""
    for seed, name, weight in itertools.product(range(seeds), NETWORKS, WEIGHTS):
        yield name, weight, seed


def values(name, weight, seed):
    """The numbers of one row."""
    return row(train(tl.load_mnist("train"), weight, seed, **NETWORKS[name]))


if __name__ == "__main__":
    measure(__doc__, FIELDS, cases, values)
