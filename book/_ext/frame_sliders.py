"""The sliders of tl.widgets.slider as plain HTML, so that pages need no widget manager.

Jupyter keeps a slider as the state of linked widgets, with its frames inside. This reads the state
and writes a figure in its place: a control of the browser's own and one file for each frame, of
which only the one that is seen is loaded. Without JavaScript the first frame is seen, and
_static/frames.js makes the control move.
"""

import html
import json
import os
import posixpath
import re
from base64 import b64decode
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from docutils import nodes
from myst_nb.sphinx_ import NbMetadataCollector
from sphinx.util import logging

VIEW = re.compile(r'<script type="application/vnd\.jupyter\.widget-view\+json">(.*)</script>')
IMAGE = re.compile(r'<img alt="(?P<alt>.*?)" src="data:image/png;base64,(?P<data>.*?)"', re.DOTALL)
CAPTION = re.compile(r"<p>(.*)</p>", re.DOTALL)
log = logging.getLogger(__name__)


class Slider(NamedTuple):
    """What a slider of tl.widgets.slider shows."""

    description: str
    index: int  # of the frame that is shown first
    caption: str
    frames: list[tuple[str, bytes, str]]  # label, PNG and alt text


def is_slider(box: dict) -> bool:
    """Whether tl.widgets.slider made the widget with this state."""
    return "tl-slider" in box.get("_dom_classes", ())


def read_slider(models: dict, box: dict) -> Slider:
    """Read a slider from its own state and those of the widgets in it."""
    control, stack, foot = (_state(models, child) for child in box["children"])
    images = [IMAGE.match(_state(models, child)["value"]) for child in stack["children"]]
    frames = [
        (label, b64decode(image["data"]), html.unescape(image["alt"]))
        for label, image in zip(control["_options_labels"], images, strict=True)
    ]
    caption = CAPTION.search(foot["value"])[1]
    return Slider(control["description"], control["index"], caption, frames)


def _state(models: dict, reference: str) -> dict:
    return models[reference.removeprefix("IPY_MODEL_")]["state"]


class FrameSliderNode(nodes.container):
    """A slider; its children are its frames. Builders that know no sliders show them all."""


def read_sliders(app, doctree):
    """Put a FrameSliderNode in the place of each slider of a page."""
    page = app.env.docname
    files = NbMetadataCollector.get_js_files(app.env, page)
    if "ipywidgets_state" not in files:
        return
    models = json.loads(files["ipywidgets_state"][1]["body"])["state"]
    for i, (raw, view) in enumerate(_views(doctree)):
        box = models.get(view, {}).get("state", {})
        if is_slider(box):
            raw.replace_self(_node(app, f"slider-{i}", read_slider(models, box)))
        else:
            said = "a widget that tl.widgets.slider did not make: the site cannot show it"
            log.warning(said, location=page)
            raw.parent.remove(raw)
    for key in [key for key in files if key.startswith("ipywidgets_")]:
        del files[key]


def _views(doctree) -> list[tuple[nodes.raw, str]]:
    """The nodes that show a widget, each with the id of its widget."""
    found = [(node, VIEW.fullmatch(node.astext())) for node in doctree.findall(nodes.raw)]
    return [(node, json.loads(match[1])["model_id"]) for node, match in found if match]


def _node(app, name: str, slider: Slider) -> FrameSliderNode:
    """The node of a slider, whose frames are files of their own."""
    node = FrameSliderNode(
        "",
        name=name,
        index=slider.index,
        labels=[label for label, _, _ in slider.frames],
        description=slider.description,
        caption=slider.caption,
    )
    folder = Path(app.doctreedir).parent / "frames"
    folder.mkdir(parents=True, exist_ok=True)
    for _, data, alt in slider.frames:
        path = folder / f"{sha256(data).hexdigest()}.png"
        path.write_bytes(data)
        uri = "/" + Path(os.path.relpath(path, app.srcdir)).as_posix()
        node += nodes.image(uri=uri, alt=alt)
    return node


def visit_slider(self, node):
    """Write the control, the frames and the caption."""
    name, label = node["name"], html.escape(node["labels"][node["index"]])
    self.body.append(
        f'<figure class="frame-slider">\n<div class="frame-control pst-js-only">'
        f'<label for="{name}">{html.escape(node["description"])}</label> '
        f'<input type="range" id="{name}" autocomplete="off" min="0" max="{len(node) - 1}" '
        f'step="1" value="{node["index"]}" aria-valuetext="{label}" '
        f'data-labels="{html.escape(json.dumps(node["labels"], ensure_ascii=False))}"> '
        f'<span class="frame-label" aria-hidden="true">{label}</span></div>\n'
        "<noscript><p>The slider needs JavaScript; this is the picture it begins with.</p>"
        "</noscript>\n"
    )
    for i, image in enumerate(node.children):
        file = posixpath.join(self.builder.imgpath, self.builder.images[image["uri"]])
        hidden = "" if i == node["index"] else " hidden"
        self.body.append(f'<img alt="{html.escape(image["alt"])}" src="{file}"{hidden}>\n')
    self.body.append(f"<figcaption><p>{node['caption']}</p></figcaption>\n</figure>\n")
    raise nodes.SkipNode


def setup(app):
    """Called by Sphinx."""
    visitors = (visit_slider, None)
    app.add_node(FrameSliderNode, html=visitors, singlehtml=visitors)
    app.connect("doctree-read", read_sliders, priority=400)  # before Sphinx collects the images
    return {"parallel_read_safe": True, "parallel_write_safe": True}
