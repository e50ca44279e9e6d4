"""A table of three rows, pictures for it, and a small network."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tutorial_lib.networks.pretrained import Classifier
from tutorial_lib.reproduce import cases, runner, sources

SMALL = """
title = "Three maps"
source = "nobody"
measures = ["aupc", "autvc", "sparseness"]
perturbations = 3
rows = [
  { name = "gradient", method = "gradient" },
  { name = "IG, black", method = "integrated_gradients", baseline = "black", steps = 6 },
  { name = "SmoothTaylor", method = "smooth_taylor", sigma = 0.5, roots = 6 },
]
claims = [
  { says = "IG is sparser", measure = "sparseness", better = ["IG, black"], worse = ["gradient"] },
]
[printed.resnet152.aupc]
gradient = 12.5

[quick]
steps = 2
"""


def network() -> Classifier:
    """A small classifier of 128 x 128 pictures, whose scores are positive."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 6, 5, 3), nn.ReLU(), nn.Conv2d(6, 4, 3, 2), nn.Softplus(), nn.Flatten(1),
            nn.Linear(4 * 20 * 20, 5), nn.Softplus(),
        )  # fmt: skip
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]

    def transform(picture: Image.Image) -> torch.Tensor:
        pixels = np.asarray(picture.resize((128, 128)), dtype=np.float32) / 255
        x = (torch.from_numpy(pixels) - torch.tensor(mean)) / torch.tensor(std)
        return x.permute(2, 0, 1)  # (3, 128, 128)

    return Classifier(net, transform, mean, std, list("abcde"))


def starter(tmp_path, patch):
    """A table of three rows, four pictures and a small network: run(out, ...) -> folder."""
    table, folder = tmp_path / "small.toml", tmp_path / "pictures"
    table.write_text(SMALL)
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(4):
        pixels = rng.integers(0, 256, (100, 110, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{k}.png")
    patch.setattr(sources, "load_model", lambda name, device: network())
    patch.setattr(cases, "WINDOWS", 4)  # thirty would take most of a run's time

    def start(out="a", **keywords):
        keywords = dict(images=folder, device="cpu", progress=False) | keywords
        return runner.run(table, out=tmp_path / out, **keywords)

    start.folder, start.table, start.tmp = folder, table, tmp_path
    return start


@pytest.fixture
def small(tmp_path, monkeypatch):
    """`starter` in a folder of the test's own."""
    return starter(tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> bytes:
    """The results of `small` where nothing disturbs the run."""
    with pytest.MonkeyPatch.context() as patch:
        return (starter(tmp_path_factory.mktemp("whole"), patch)() / "results.csv").read_bytes()
