"""Photographs: those that ship inside scikit-image, and any file of the reader's.

Every picture becomes an RGB image of Pillow, whatever its file holds; `to_rgb` says how.
"""

import os
import warnings
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# name -> (file inside scikit-image's wheel, credit and licence as scikit-image documents them)
BUNDLED = {
    "astronaut": ("astronaut.png", "Eileen Collins; NASA; public domain"),
    "brick": ("brick.png", "Brick wall; CC0Textures, adapted by scikit-image; CC0"),
    "camera": ("camera.png", "Man with a camera; Lav Varshney; CC0"),
    "chelsea": ("chelsea.png", "Chelsea the cat; Stefan van der Walt; CC0"),
    "clock": ("clock_motion.png", "Clock, camera moved; Stefan van der Walt; public domain"),
    "coffee": ("coffee.png", "Coffee cup, courtesy of Pikolo Espresso Bar; Rachel Michetti; CC0"),
    "coins": ("coins.png", "Coins from Pompeii; Brooklyn Museum; no known copyright restrictions"),
    "grass": ("grass.png", "Grass; linolafett on DeviantArt, adapted by scikit-image; CC0"),
    "gravel": ("gravel.png", "Gravel; CC0Textures, adapted by scikit-image; CC0"),
    "hubble_deep_field": (
        "hubble_deep_field.jpg",
        "Hubble eXtreme Deep Field; NASA, HubbleSite; public domain",
    ),
    "motorcycle": (
        "motorcycle_left.png",
        "Motorcycle, left view; Scharstein et al., Middlebury 2014 stereo benchmark, made smaller "
        "by scikit-image; no licence stated, cite the benchmark",
    ),
    "retina": ("retina.jpg", "Normal left retina; Mikael Häggström; CC0"),
    "rocket": ("rocket.jpg", "Launch of DSCOVR on Falcon 9; SpaceX; public domain"),
}
CREDITS = {name: credit for name, (_, credit) in BUNDLED.items()}
MAX_PIXELS = 89_478_485  # Pillow's own limit, which it only warns of
MAX_BYTES = 2**30  # more than as many pixels of four 16 bit numbers

__all__ = ["image_credit", "list_images", "load_image", "to_rgb"]


def list_images() -> list[str]:
    """List the photographs that `tl.load_image` knows by name: no download, all in scikit-image.

    Returns:
        Names in alphabetical order.

    Example:
        >>> "chelsea" in tl.list_images()
        True
    """
    return sorted(BUNDLED)


def image_credit(name: str) -> str:
    """Return title, source and licence of a bundled photograph, to print beside it.

    Args:
        name: One of `tl.list_images()`.

    Returns:
        One line of text.

    Raises:
        ValueError: name is another name.

    Example:
        >>> tl.data.image_credit("chelsea")
        'Chelsea the cat; Stefan van der Walt; CC0'
    """
    if name not in CREDITS:
        raise ValueError(f"name: {name!r} given, expected one of {', '.join(list_images())}")
    return CREDITS[name]


def load_image(name: str | os.PathLike) -> Image.Image:
    """Load a bundled photograph by its name, or the picture in a file by its path, in RGB.

    The first frame of an animation is taken. Orientation, transparency, colours and depth become
    upright 8 bit RGB as `tl.data.to_rgb` says.

    Args:
        name: One of `tl.list_images()`, or the path of a file. Sizes from 1 x 1 up to 89 million
            pixels are read.

    Returns:
        RGB image of Pillow.

    Raises:
        FileNotFoundError: No file has this path, and no bundled photograph this name.
        ImportError: A bundled photograph is wanted and scikit-image is not installed.
        TypeError: name is neither a string nor a path.
        ValueError: The file is no picture, is cut short, or has too many pixels or bytes.

    Example:
        >>> tl.load_image("chelsea").size
        (451, 300)
    """
    path = picture_file(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                _check_size(picture)
                return to_rgb(picture)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(f"name: {str(name)!r} is too large: {error}") from error
    except UnidentifiedImageError as error:
        raise ValueError(f"name: {str(name)!r} is not a picture that Pillow can read") from error
    except (OSError, SyntaxError, EOFError, ValueError) as error:
        raise ValueError(f"name: {str(name)!r} cannot be read: {error}") from error


def picture_file(name: str | os.PathLike) -> Path:
    """Return the path of a picture that may be opened: a file, and not too large.

    The arguments and errors are those of `load_image`. A folder, a pipe and a device, which may
    have no end, are refused.
    """
    if not isinstance(name, (str, os.PathLike)):
        raise TypeError(f"name: {type(name).__name__} given, expected a string or a path")
    path = Path(name)
    if name in BUNDLED:
        path = _bundled_path(BUNDLED[name][0])
    if not os.path.exists(path):  # no error for a name that is too long to be a path
        names = ", ".join(list_images())
        raise FileNotFoundError(f"name: no file {str(name)!r}; bundled photographs: {names}")
    if not path.is_file():
        raise ValueError(f"name: {str(name)!r} is not a file")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ValueError(f"name: {str(name)!r} is too large: {size} bytes, at most {MAX_BYTES}")
    return path


def to_rgb(picture: Image.Image) -> Image.Image:
    """Convert any image of Pillow to an upright 8 bit RGB image.

    The EXIF orientation is applied. Transparency, of RGBA, grey or palette, is laid on white.
    16 bit grey is divided by 257, so that 65535 becomes 255. Grey is repeated for the three
    colours; CMYK and other spaces are converted by Pillow.

    Args:
        picture: Image of Pillow.

    Returns:
        RGB image of Pillow.

    Raises:
        TypeError: picture is no image of Pillow.
        ValueError: picture is 32 bit grey, whose range only the reader knows, or has no pixels.

    Example:
        >>> from PIL import Image
        >>> tl.data.to_rgb(Image.new("L", (2, 2), 7)).getpixel((0, 0))
        (7, 7, 7)
    """
    if not isinstance(picture, Image.Image):
        raise TypeError(f"picture: {type(picture).__name__} given, expected a PIL image")
    if not picture.width * picture.height:
        raise ValueError(f"picture: size {picture.size} given, expected at least 1 x 1")
    # Pillow before 11 opens 16 bit PNG and PGM files as mode I, known by their format alone.
    is_16_bit = picture.mode == "I" and picture.format in ("PNG", "PPM")
    picture = ImageOps.exif_transpose(picture)
    if picture.mode == "La":  # premultiplied
        picture = picture.convert("LA")
    if is_16_bit or picture.mode.startswith("I;16"):
        grey = np.asarray(picture) / 257
        return Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        raise ValueError(
            f"picture: mode {picture.mode!r} (32 bit grey) has no known range; scale it to 0..255 "
            "and convert it to 8 bits first"
        )
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def _bundled_path(file: str) -> Path:
    """Return where scikit-image has put a photograph."""
    try:
        return Path(str(files("skimage") / "data" / file))
    except ImportError as error:
        need = "name: bundled photographs need scikit-image; pip install 'tutorial_lib[networks]'"
        raise ImportError(need) from error


def _check_size(picture: Image.Image) -> None:
    """Raise ValueError for a picture with too many pixels."""
    if picture.width * picture.height > MAX_PIXELS:
        raise ValueError(
            f"too large: {picture.width} x {picture.height} pixels, at most {MAX_PIXELS}"
        )
