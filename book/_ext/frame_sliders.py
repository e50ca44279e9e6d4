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

from docutils import nodes
from myst_nb.sphinx_ import NbMetadataCollector
from sphinx.util import logging

VIEW = re.compile(r'<script type="application/vnd\.jupyter\.widget-view\+json">(.*)</script>')
IMAGE = re.compile(r'<img alt="(?P<alt>.*?)" src="data:image/png;base64,(?P<data>.*?)"', re.DOTALL)
CAPTION = re.compile(r"<p>(.*)</p>", re.DOTALL)
log = logging.getLogger(__name__)


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
        if "tl-slider" in box.get("_dom_classes", ()):
            parts = [_state(models, child) for child in box["children"]]
            raw.replace_self(_slider(app, f"slider-{i}", models, *parts))
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


def _state(models: dict, reference: str) -> dict:
    return models[reference.removeprefix("IPY_MODEL_")]["state"]


def _slider(app, name: str, models: dict, control: dict, stack: dict, foot: dict):
    """The node of one slider, from the states of its parts."""
    node = FrameSliderNode(
        "",
        name=name,
        index=control["index"],
        labels=[*control["_options_labels"]],
        description=control["description"],
        caption=CAPTION.search(foot["value"])[1],
    )
    folder = Path(app.doctreedir).parent / "frames"
    folder.mkdir(parents=True, exist_ok=True)
    for child in stack["children"]:
        image = IMAGE.match(_state(models, child)["value"])
        data = b64decode(image["data"])
        path = folder / f"{sha256(data).hexdigest()}.png"
        path.write_bytes(data)
        uri = "/" + Path(os.path.relpath(path, app.srcdir)).as_posix()
        node += nodes.image(uri=uri, alt=html.unescape(image["alt"]))
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
