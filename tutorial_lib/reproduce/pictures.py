"""Which pictures a run is about: a folder of any pictures, those that come along, or digits."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from tutorial_lib.networks.digits import load_mnist
from tutorial_lib.pictures import list_images, load_image

ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}


class Found(NamedTuple):
    """names: of the pictures, in order. skipped: name -> why a picture will not be measured."""

    names: list[str]
    skipped: dict[str, str]


def find(images: str | os.PathLike, limit: int | None, spread: bool = False) -> Found:
    """The first `limit` pictures of a folder by name, subfolders included; or "bundled".

    spread: `limit` pictures at even distances instead (a folder may be sorted by class).
    A file that holds the same bytes as one before it is skipped, and named. Whether a picture can
    be read shows when it is its turn. Raises FileNotFoundError for a folder that is not there and
    ValueError for one without pictures.
    """
    if images == "bundled":
        return Found(_chosen(list_images(), limit, spread), {})
    folder = Path(images)
    if not folder.is_dir():
        raise FileNotFoundError(f"--images: no folder {str(images)!r}; or say: --images bundled")
    paths = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in ENDINGS and not path.name.startswith(".")
    )
    if not paths:
        raise ValueError(
            f"--images: {str(images)!r} holds no picture ({', '.join(sorted(ENDINGS))})"
        )
    names, skipped, first = [], {}, {}
    for name in _chosen(paths, limit, spread):
        if not name.isprintable():  # bytes that are no text, line breaks
            plain = name.encode("utf-8", "backslashreplace").decode("utf-8")
            skipped[plain.replace("\n", "\\n")] = "its name cannot be written down"
            continue
        try:
            digest = hashlib.sha256((folder / name).read_bytes()).digest()
        except OSError:
            names.append(name)  # it is named again, with the reason, when it is its turn
            continue
        if digest in first:
            skipped[name] = f"the same file as {first[digest]}"
        else:
            first[digest] = name
            names.append(name)
    return Found(names, skipped)


def _chosen(names: list[str], limit: int | None, spread: bool) -> list[str]:
    count = min(len(names), len(names) if limit is None else limit)
    return [names[i * len(names) // count] for i in range(count)] if spread else names[:count]


def open_picture(images: str | os.PathLike, name: str) -> Image.Image:
    """One picture of `find`, in RGB. Raises FileNotFoundError or ValueError where it cannot be."""
    return load_image(name if images == "bundled" else Path(images) / name)


class Digits(NamedTuple):
    """Digits to train on, and a few to explain, by name."""

    images: Tensor
    labels: Tensor
    shown: dict[str, Tensor]


def digits(images: str | os.PathLike, limit: int | None) -> Digits:
    """MNIST: the 5000 digits that come along ("bundled"), or a folder with torchvision's MNIST.

    The digits to explain are `limit` of the test split, in an order that is drawn once and for
    all; by default 100.
    """
    root = None if images == "bundled" else images
    train, labels = load_mnist("train", root=root)
    test, _ = load_mnist("test", root=root)
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))
    chosen = sorted(order[: 100 if limit is None else limit].tolist())
    return Digits(train, labels, {f"digit {i:05d}": test[i : i + 1] for i in chosen})
