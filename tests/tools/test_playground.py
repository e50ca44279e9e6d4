"""What the playground page loads is what the package computes with, and arrives whole."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

import tutorial_lib as tl
from tools import playground


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The files, with a few bytes in the place of the network, whose graph has tests of its own."""

    def export(model, x, path, *, layer):
        path.write_bytes(b"graph")
        assert x.shape == (1, 3, 224, 224) and layer == playground.LAYER

    monkeypatch.setattr(playground.tl, "export_gradient", export)
    engine = tmp_path / "static/vendor/onnxruntime" / playground.ENGINES["wasm"]
    engine.parent.mkdir(parents=True)
    engine.write_bytes(b"engine")
    (tmp_path / "static/playground").mkdir()
    (tmp_path / "static/playground/old.txt").touch()
    playground.main(tmp_path / "static/playground")
    assert sorted(p.name for p in (tmp_path / "static").iterdir()) == ["playground", "vendor"]
    return tmp_path / "static/playground"


@pytest.mark.slow
def test_the_files_say_what_the_package_knows(folder):
    model = tl.load_model(playground.MODEL, device="cpu")
    about = json.loads((folder / "settings.json").read_text("utf-8"))
    assert json.loads((folder / "classes.json").read_text("utf-8")) == model.categories
    assert about["classes"] == len(model.categories) == 1000 and about["size"] == 224
    for name, bound in zip(("black", "white"), model.bounds, strict=True):
        assert about["bounds"][name == "white"] == bound.flatten().tolist()
    assert about["range"] == pytest.approx(tl.sigma_from_level(1.0, model.bounds))
    assert about["grid"] == [1280, 7, 7], "the layer is not the one of the chapter on Grad-CAM"
    sizes = about["sizes"]
    assert (sizes["network"], sizes["wasm"], sizes["webgpu"]) == (5, 6, None)
    assert about["sha256"] == hashlib.sha256(b"graph").hexdigest()
    assert sizes["version"].endswith(playground.engine_version())
    for photograph in about["photographs"]:
        with Image.open(folder / photograph["file"]) as stored:
            assert not stored.info, "a browser may change the colours by a profile"
            assert np.array_equal(stored, tl.load_image(photograph["name"])), photograph["name"]
    said = (folder / "credits.txt").read_text("utf-8")
    assert all(photograph["credit"] in said for photograph in about["photographs"])
    for owner in ("ML Illustrated", "Apache License", "Soumith Chintala", "Microsoft", "AS IS"):
        assert owner in said
    named = {p["file"] for p in about["photographs"]}
    named |= {"network.onnx", "settings.json", "classes.json", "credits.txt"}
    assert {path.name for path in folder.iterdir()} == named


@pytest.mark.slow
def test_a_failure_leaves_the_earlier_files(folder, monkeypatch):
    def fail(*arguments, **options):
        raise NotImplementedError

    monkeypatch.setattr(playground.tl, "export_gradient", fail)
    with pytest.raises(NotImplementedError):
        playground.main(folder)
    assert (folder / "network.onnx").read_bytes() == b"graph"


def test_the_engines_are_files_that_the_site_serves():
    text = (playground.ROOT / "web/fetch.py").read_text("utf-8")
    for file in playground.ENGINES.values():
        assert f'"{file.removesuffix(".wasm")}"' in text
