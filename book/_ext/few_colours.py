"""Pictures with 256 colours, a third of the bytes, for the site and for the downloads."""

import io
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

FLAT = 96  # of the 256 colours, so many are for what is drawn flat: colour bars, lines, letters
RUN = 8  # so many equal pixels beside each other are flat


def few_colours(png: bytes, kept: Path) -> bytes:
    """The picture with a palette, which takes a while, so it is kept in a folder for next time.

    The colours are the picture's own, to one or two levels of 255 in the mean. A picture that has a
    palette, is transparent or does not get smaller stays as it is.
    """
    with Image.open(io.BytesIO(png)) as picture:
        alpha = picture.getchannel("A").getextrema() if "A" in picture.getbands() else (255, 255)
        if picture.mode == "P" or alpha != (255, 255):
            return png
        small = kept / f"{sha256(png + bytes([FLAT])).hexdigest()}.png"
        if not small.exists():
            kept.mkdir(exist_ok=True)
            few = _with_palette(picture.convert("RGB"))
            part = small.with_suffix(".part")  # an interrupted build leaves no half of a picture
            few.save(part, "PNG", optimize=True)
            part.replace(small)
    return min(png, small.read_bytes(), key=len)


def _with_palette(picture: Image.Image) -> Image.Image:
    """Give each pixel the nearest of 256 colours. Pillow looks only near it, and tints white."""
    codes = (np.asarray(picture, np.uint32) << np.array([16, 8, 0], np.uint32)).sum(-1)
    palette = _palette(picture, codes)
    found, places = np.unique(codes, return_inverse=True)
    seen = _colours(found).astype(np.float32)
    size = (palette**2).sum(-1) / 2  # |s - p|^2 is least where |p|^2 / 2 - s p is
    nearest = [(size - part @ palette.T).argmin(-1) for part in np.array_split(seen, 16)]
    few = Image.fromarray(np.concatenate(nearest).astype(np.uint8)[places].reshape(codes.shape))
    few.putpalette(palette.astype(np.uint8).ravel().tolist())  # makes it a picture with a palette
    return few


def _colours(codes: np.ndarray) -> np.ndarray:
    """Red, green and blue of colours that are one number each."""
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], -1).astype(np.uint8)


def _palette(picture: Image.Image, codes: np.ndarray) -> np.ndarray:
    """256 colours by median cut. Octrees are quicker, and turn white into grey.

    A colour bar has few pixels. Beside a photograph it would get few colours and be seen as steps.
    So flat places have colours of their own, and black and white are among them.
    """
    same = codes[:, 1:] == codes[:, :-1]
    ends = same.shape[1] - RUN
    runs = np.logical_and.reduce([same[:, k : ends + k] for k in range(RUN)])
    flat = _colours(np.unique(codes[:, :ends][runs]))
    colours = [0, 0, 0, 255, 255, 255]
    for part, most in ((Image.fromarray(flat[None]), FLAT - 2), (picture, 256 - FLAT)):
        few = part.quantize(most, Image.Quantize.MEDIANCUT)
        colours += few.getpalette()[: 3 * most]
    return np.array(colours, np.float32).reshape(-1, 3)
