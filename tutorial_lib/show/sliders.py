"""Sliders over precomputed frames: they work live, on the static site and on paper.

Stock ipywidgets only, linked in the browser: no kernel is needed to move them.
"""

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from tutorial_lib import checks
from tutorial_lib.show import plots

ipywidgets = checks.extra("ipywidgets", "show")

STYLE = (
    "<style>.tl-slider .widget-label{text-align:left;width:100%}"
    ".tl-slider .widget-readout{max-width:60%}</style>"
)


class FrameSlider(ipywidgets.VBox):
    """A slider with its frames, which `slider` makes.

    Programs that show no widgets show a filmstrip of the frames in its place. The attribute
    `frames` holds the PIL images, `labels` the texts of the slider, and `text` one line that says
    what the slider shows.

    Example:
        >>> options = dict(description="picture", alt="A {label} square", caption="One square.")
        >>> tl.widgets.slider([torch.zeros(3, 8, 8)], ["black"], **options).text
        'Slider: picture (black). One square.'
    """

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)
        return {**bundle, "text/plain": self.text, "image/png": filmstrip(self.frames, self.labels)}


def slider(
    frames: Sequence,
    labels: Sequence[str],
    *,
    description: str,
    alt: str | Sequence[str],
    caption: str,
    index: int = 0,
) -> FrameSlider:
    """Make a slider that shows one of several precomputed frames, without a kernel.

    Each frame is stored as a PNG of 256 colours: 75 KB for three noisy maps in a row as wide as
    the page, less for smooth ones. In a PDF made by LaTeX the slider becomes a filmstrip of up to
    six frames; a printed page shows the frame that is chosen.

    Args:
        frames: Matplotlib Figures (drawn at 100 dpi), PIL images or arrays ((H, W, 3), uint8 or
            floats in [0, 1]). Give all the same size, or the page jumps.
        labels: One text for each frame, which the slider shows beside itself.
        description: What the slider changes.
        alt: One text for each frame, or one text with {label} in it.
        caption: Plain text beneath.
        index: Index of the frame that is shown first.

    Returns:
        The slider, a widget.

    Raises:
        ValueError: There are no frames, lengths differ, an alt text is empty or without {label},
            the caption is empty, `index` is out of range, or a frame has values outside [0, 1].
        TypeError: A label is no string, `index` is no int, or a frame is of another kind.

    Example:
        >>> frames = [torch.zeros(3, 8, 8), torch.ones(3, 8, 8)]
        >>> options = dict(description="picture", alt="A {label} square", caption="Two squares.")
        >>> box = tl.widgets.slider(frames, ["black", "white"], **options)
        >>> len(box.frames), box.labels
        (2, ['black', 'white'])
    """
    frames, labels = list(frames), list(labels)
    alt_texts = _checked_alt_texts(frames, labels, alt, caption, index)
    pictures = [_picture(frame, i) for i, frame in enumerate(frames)]
    layout = ipywidgets.Layout(width="100%", height="auto", flex_flow="row wrap")
    options = dict(options=labels, index=index, description=description, tooltip=description)
    style = {"description_width": "100%"}
    control = ipywidgets.SelectionSlider(**options, layout=layout, style=style)
    children = [ipywidgets.HTML(_img(p, t)) for p, t in zip(pictures, alt_texts, strict=True)]
    stack = ipywidgets.Stack(children, selected_index=index)
    link = ipywidgets.jslink((control, "index"), (stack, "selected_index"))
    foot = ipywidgets.HTML(f"{STYLE}<p>{html.escape(caption)}</p>")
    box = FrameSlider([control, stack, foot], layout=ipywidgets.Layout(width="100%"))
    box.add_class("tl-slider")
    box.frames, box.labels, box.link = pictures, labels, link
    box.text = f"Slider: {description} ({', '.join(labels)}). {caption}".strip()
    return box


def filmstrip(frames: Sequence[Image.Image], labels: Sequence[str], count: int = 6) -> bytes:
    """Draw evenly spaced frames with their labels side by side, for paper.

    Args:
        frames: PIL images of one size.
        labels: One text for each frame.
        count: Largest number of frames that are drawn.

    Returns:
        The bytes of a PNG file.

    Example:
        >>> from PIL import Image
        >>> frames = [Image.new("RGB", (8, 8), colour) for colour in ("black", "white")]
        >>> tl.widgets.filmstrip(frames, ["black", "white"])[:4]
        b'\\x89PNG'
    """
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int))
    width, height = frames[0].size
    columns = 3 if width < 1.5 * height else 2 if width < 2.5 * height else 1
    shown, titles = ([items[i] for i in chosen] for items in (frames, labels))
    size = plots.WIDTH / columns
    strip = plots.picture_grid(shown, titles, columns=min(columns, len(chosen)), size=size)
    return _png(_draw(strip, 150))


def _checked_alt_texts(frames: list, labels: list, alt, caption: str, index: int) -> list[str]:
    """Check the arguments, and return one alt text for each frame."""
    if not frames:
        raise ValueError("frames: none given, expected at least one")
    if len(labels) != len(frames):
        raise ValueError(f"labels: {len(labels)} given, expected {len(frames)}, one for each frame")
    if wrong := [v for v in labels if not isinstance(v, str)]:
        raise TypeError(f"labels: expected strings, got {wrong[0]!r}")
    if isinstance(alt, str):
        if "{label}" not in alt:
            raise ValueError(f"alt: {alt!r} has no {{label}}, so all frames would sound alike")
        alt = [alt.replace("{label}", label) for label in labels]
    if len(alt) != len(frames):
        raise ValueError(f"alt: {len(alt)} texts given, expected {len(frames)}, one for each frame")
    if not all(isinstance(text, str) and text.strip() for text in alt):
        raise ValueError("alt: every frame needs a text that is not empty")
    if not isinstance(caption, str) or not caption.strip():
        raise ValueError(f"caption: expected a text that is not empty, got {caption!r}")
    if isinstance(index, bool) or not isinstance(index, int):
        raise TypeError(f"index: expected an int, got {index!r}")
    if not 0 <= index < len(frames):
        raise ValueError(f"index: {index} given, expected 0 to {len(frames) - 1}")
    return list(alt)


def _picture(frame, i: int) -> Image.Image:
    """Turn one frame into a PIL image; errors name it as frames[i]."""
    if isinstance(frame, Figure):
        return _draw(frame, 100)
    picture = plots.as_panel(frame, f"frames[{i}]")
    if picture.ndim != 3:
        raise TypeError(f"frames[{i}]: a map; expected a Figure, a PIL image or an array (H, W, 3)")
    return Image.fromarray((picture * 255).round().astype(np.uint8))


def _draw(figure: Figure, dpi: int) -> Image.Image:
    """Draw a figure to a PIL image."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return Image.open(buffer).convert("RGB")


def _png(picture: Image.Image) -> bytes:
    """Write a PNG of 256 colours; octree is quick and keeps the ends of a colour bar."""
    buffer = io.BytesIO()
    few = picture.quantize(256, Image.Quantize.FASTOCTREE)
    palette, ground = few.getpalette(), 3 * few.getpixel((0, 0))
    palette[ground : ground + 3] = picture.getpixel((0, 0))  # octrees turn white into grey
    few.putpalette(palette)
    few = picture.quantize(palette=few, dither=Image.Dither.FLOYDSTEINBERG)  # no blotches, no steps
    few.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _img(picture: Image.Image, alt: str) -> str:
    """Write the HTML element that holds a picture and its alt text."""
    data = base64.b64encode(_png(picture)).decode()
    return (
        f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}" '
        'style="max-width:100%;height:auto">'
    )
