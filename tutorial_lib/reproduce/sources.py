"""Where the cases of a run come from: photographs and their classifier, or digits and networks.

A source says what a run is about: `digests`, name -> hash of a picture, in order; `skipped`, name
-> reason for a picture left out; and `network`, a hash of the weights or of what they learn from.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tutorial_lib.networks import digits as mnist
from tutorial_lib.networks.pretrained import load_model
from tutorial_lib.reproduce.cases import Case, DigitCase, seed_of
from tutorial_lib.reproduce.config import Config
from tutorial_lib.reproduce.pictures import digits, file_digest, find, open_picture
from tutorial_lib.reproduce.store import digest


class LoadedPicture(NamedTuple):
    """A picture as the network takes it, the class that it predicts, and that class's score."""

    name: str
    x: Tensor
    target: int
    score: float


class Photographs:
    """The pictures of a folder, or those of the package, and an ImageNet classifier."""

    def __init__(self, config: Config, model: str, images, device, options: dict):
        self.digests, self.skipped = find(images, options["limit"], options["spread"])
        self.config, self.images, self.options = config, images, options
        self.model = load_model(model, device=device)
        self.network = digest(map(_bytes, self.model.state_dict().values()))

    def load(self, name: str) -> LoadedPicture:
        """Load one picture; OSError or ValueError where it cannot be read."""
        x = self.model.preprocess(open_picture(self.images, name))
        if file_digest(self.images, name) != self.digests[name]:
            raise ValueError("the file was replaced during the run; start the run again")
        return _predict(self.model, name, x)

    def case(self, loaded: LoadedPicture, label: str) -> Case:
        """Make the case of one picture and one row."""
        seed = self.options["seed"]
        return Case(
            self.model,
            loaded.x,
            loaded.target,
            self.config.rows[label],
            self.config.settings,
            seed=seed_of(seed, loaded.name, label),
            common_seed=seed_of(seed, loaded.name),
            batch_size=self.options["batch_size"],
            program=self.config.program,
        )


class DigitSet:
    """Digits, and the four small networks of `DigitCase`, which the constructor trains."""

    def __init__(self, config: Config, model: str, images, device, options: dict):
        if model != "mlp":
            raise ValueError(
                f"--model: {config.name} is about a small network for digits (mlp), got {model!r}"
            )
        self.config, self.options = config, options
        if options["spread"]:
            raise ValueError("--spread: digits are in a random order anyway")
        data = digits(images, options["limit"])
        self.digits, self.skipped, self.device = data.explained, {}, device
        self.digests = {name: digest([_bytes(x)]) for name, x in data.explained.items()}
        self.network = digest(map(_bytes, data[:2]))
        epochs, seed = config.settings.get("epochs", 20), options["seed"]
        pixels, labels = data.images.to(self.device), data.labels.to(self.device)
        rng = torch.Generator().manual_seed(seed)
        shuffled_labels = labels[torch.randperm(len(labels), generator=rng).to(self.device)]

        def fit(images: Tensor, labels: Tensor, number: int) -> nn.Module:
            # Each network begins with other weights: what they share is what they learnt.
            network_seed = seed_of(seed, f"network {number}") % 2**32
            return mnist.train(images, labels, epochs=epochs, seed=network_seed)

        network, shuffled = fit(pixels, labels, 0), fit(pixels, shuffled_labels, 1)
        twin = mnist.dense().to(self.device).eval().requires_grad_(False)
        twin.load_state_dict(network.state_dict())
        twin[1].bias -= twin[1].weight.sum(1)  # W (x + 1) + b - W 1 = W x + b
        shifted = fit(pixels + 1, labels, 2)
        self.networks = dict(network=network, shuffled=shuffled, shifted=shifted, twin=twin)

    def load(self, name: str) -> LoadedPicture:
        """Load one digit."""
        return _predict(self.networks["network"], name, self.digits[name].to(self.device))

    def case(self, loaded: LoadedPicture, label: str) -> DigitCase:
        """Make the case of one digit and one row."""
        return DigitCase(
            self.networks,
            loaded.x,
            loaded.target,
            self.config.rows[label],
            seed=seed_of(self.options["seed"], loaded.name, label),
            batch_size=self.options["batch_size"],
            program=self.config.program,
        )


def _bytes(values: Tensor) -> bytes:
    """Return the numbers of a tensor as bytes."""
    return values.cpu().numpy().tobytes()


SOURCES = {"photographs": Photographs, "digits": DigitSet}


def _predict(model: Callable, name: str, x: Tensor) -> LoadedPicture:
    """Add the class that the network predicts, and its score."""
    with torch.no_grad():
        score, target = model(x)[0].max(0)
    return LoadedPicture(name, x, int(target), float(score))
