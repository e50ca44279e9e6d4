"""The book builds when pages are left out: take a page's line out of _toc.yml, and that is all.

Other pages still refer to the labels of a page that is left out. Such a reference becomes plain
text, the title of what it names, without a warning. A label that no page of the book has stays an
error, and so does one on a page that is in _toc.yml.
"""

import re
from pathlib import Path
from typing import NamedTuple

from docutils import nodes
from sphinx.util import docname_join

TITLE = re.compile(r"^# (.+?) *$", re.MULTILINE)
SECTION = re.compile(r"^\(([^)\s]+)\)=\s*^#+ (.+?) *$", re.MULTILINE)
OTHERS = {  # what is referred to -> how its label is written
    "an equation": re.compile(r"^\$\$ *\(([^)\s]+)\)|^:label: *(eq-\S+)", re.MULTILINE),
    "an exercise": re.compile(r"^:label: *(ex-\S+)", re.MULTILINE),
    "a figure": re.compile(r"^ *:?name: *[\"']?([^\s,}\"']+)|\bname: *([^\s,}]+)}", re.MULTILINE),
    "a part": re.compile(r"^\(([^)\s]+)\)=", re.MULTILINE),  # one that stands before no title
}
NO_PAGES = ("README", "exam_answers")  # beside the pages, and never one of them


class Place(NamedTuple):
    """What a label of a page that is left out names: `what` of the page, or a title alone."""

    what: str
    title: str


def labels_of(page: str) -> dict[str, Place]:
    """The labels of a page's MyST source."""
    found = TITLE.search(page)
    if found is None:
        return {}
    places = {}
    for what, pattern in OTHERS.items():
        for names in pattern.findall(page):
            label = "".join(names)
            places[label] = Place(f"{what} of ", found[1])
    return places | {label: Place("", title) for label, title in SECTION.findall(page)}


def find_pages_left_out(app, env, docnames):
    """Before pages are read: collect what pages beside _toc.yml have, and drop old addresses."""
    folder, out = Path(app.srcdir), {}
    for path in (*folder.glob("book/*.md"), *folder.glob("book/teach/*.md")):
        if path.stem in NO_PAGES:
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name not in env.found_docs:
            out[name] = path.read_text("utf-8")
    titles = {name: TITLE.search(page) for name, page in out.items()}
    app.left_out_pages = {name: found[1] for name, found in titles.items() if found}
    app.left_out_labels = {}
    for page in out.values():
        app.left_out_labels |= labels_of(page)
    there = getattr(app.config, "redirects", {})
    for old, new in list(there.items()):
        if docname_join(old, new.removesuffix(".html")) in app.left_out_pages:
            del there[old]


def write_as_text(app, env, node, contnode):
    """A reference that nobody could resolve: the title, where it leads to a page left out."""
    target = node.get("reftarget", "")
    if node.get("reftype") == "doc":
        title = app.left_out_pages.get(docname_join(node["refdoc"], target))
        place = title and Place("", title)
    else:
        place = app.left_out_labels.get(target)
    if not place:
        return None
    own = node.get("refexplicit") and not re.search("%s|{number}|{name}", node.astext())
    if own:
        return nodes.inline("", contnode.astext(), classes=["left-out"])
    text = nodes.inline("", place.what, classes=["left-out"])
    text += nodes.emphasis("", place.title)
    return text


def setup(app):
    """Called by Sphinx."""
    app.left_out_pages, app.left_out_labels = {}, {}
    app.connect("env-before-read-docs", find_pages_left_out)
    app.connect("missing-reference", write_as_text)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
