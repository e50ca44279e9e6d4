"""A table of three rows, pictures for it, and a small network."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms._presets import ImageClassification

from tutorial_lib.networks.pretrained import Classifier
from tutorial_lib.reproduce import runner, sources

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
    look = ImageClassification(crop_size=128, resize_size=128, mean=mean, std=std)
    return Classifier(net, look, mean, std, list("abcde"))


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A table of three rows, four pictures and a small network: run(out, ...) -> folder."""
    table, folder = tmp_path / "small.toml", tmp_path / "pictures"
    table.write_text(SMALL)
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(4):
        pixels = rng.integers(0, 256, (100, 110, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{k}.png")
    monkeypatch.setattr(sources, "load_model", lambda name, device: network())

    def start(out="a", **keywords):
        keywords = dict(images=folder, device="cpu", progress=False) | keywords
        return runner.run(table, out=tmp_path / out, **keywords)

    start.folder, start.table, start.tmp = folder, table, tmp_path
    return start
