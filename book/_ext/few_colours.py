"""Pictures with 256 colours, a third of the bytes, for the site and for the downloads."""

import io
from hashlib import sha256
from pathlib import Path

from PIL import Image


def few_colours(png: bytes, kept: Path) -> bytes:
    """The picture with a palette, which takes a while, so it is kept in a folder for next time.

    The colours are the picture's own, to one or two levels of 255 in the mean. A picture that has a
    palette, is transparent or does not get smaller stays as it is.
    """
    with Image.open(io.BytesIO(png)) as picture:
        alpha = picture.getchannel("A").getextrema() if "A" in picture.getbands() else (255, 255)
        if picture.mode == "P" or alpha != (255, 255):
            return png
        small = kept / f"{sha256(png).hexdigest()}.png"
        if not small.exists():
            kept.mkdir(exist_ok=True)
            # Octrees are quicker, but turn white into grey and leave steps in colour bars.
            few = picture.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT)
            part = small.with_suffix(".part")  # an interrupted build leaves no half of a picture
            few.save(part, "PNG", optimize=True)
            part.replace(small)
    return min(png, small.read_bytes(), key=len)
