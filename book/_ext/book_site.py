"""What this book adds to Jupyter Book: no internet needed, folded checks, API links."""

import re
from functools import cache
from itertools import takewhile
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.util import logging

MATHJAX = "vendor/mathjax/tex-mml-chtml.js"
API_PAGE = "book/api"
API_NAME = re.compile(r"\btl\.([a-z_]+(?:\.[A-Za-z_]+)?)")  # tl.smoothgrad, tl.metrics.gini
log = logging.getLogger(__name__)


def serve_vendored(app, config):
    """Take MathJax from the site where it was fetched, else from a CDN."""
    if (Path(app.srcdir) / "_build/static/vendor").is_dir():
        config.mathjax_path = MATHJAX
    else:
        log.info("NOTE: no vendored MathJax: the pages will need the internet")


def switch_off_thebe(app, config):
    """Jupyter Book always loads sphinx-thebe, whose scripts point at a CDN: undo that."""
    for event in ("env-before-read-docs", "doctree-resolved"):
        for listener in list(app.events.listeners[event]):
            if listener.handler.__module__ == "sphinx_thebe":
                app.disconnect(listener.id)


def offer_slides(app, pagename, templatename, context, doctree):
    """Link the deck of the page, which `make slides` builds into the site, below its title."""
    deck = Path(app.srcdir) / f"book/slides/{Path(pagename).name}.md"
    if doctree is not None and pagename.startswith("book/") and deck.exists():
        url = context["pathto"](f"slides/{deck.stem}.html", 1)
        what = "all chapters" if deck.stem == "index" else "this chapter"
        link = f'<p class="notebook-download"><a href="{url}">Slides of {what}</a></p>'
        context["body"] = context["body"].replace("</h1>", f"</h1>\n{link}", 1)


def formulas_are_literal(app, what, name, obj, options, lines):
    """An indented block of a docstring, before its first section, is a formula: keep its form."""
    above, found = " ", []  # the last line that is not empty
    for line in lines:
        begins = line.startswith("    ") and not above.startswith((" ", ":", ".. ", "-"))
        if begins and not found[-1].strip():
            found += [".. code-block:: text", ""]
        found.append(line)
        above = line if line.strip() else above
    lines[:] = found


def fold_checks(app, doctree):
    """A cell tagged `check` is folded under its first comment, which says what it checks.

    The page is only built where the cell ran, so that what it asserts is true.
    """
    for cell in doctree.findall(nodes.container):
        if "tag_check" in cell["classes"]:
            source = next(cell.findall(nodes.literal_block)).astext()
            cell["hide_mode"] = "all"
            cell["prompt_show"] = cell["prompt_hide"] = f"Checked: {first_comment(source)}"


def first_comment(source: str) -> str:
    """The comment that a cell begins with, as one line."""
    lines = takewhile(lambda line: line.startswith("#"), source.splitlines())
    return " ".join(line.lstrip("# ") for line in lines if not line.startswith("# checks "))


def link_to_the_api(app, doctree):
    """Code in the prose that names a function of the package links to it, and a page ends with all.

    A page names functions of the package in its cells as tl.NAME; its last section gets a list.
    """
    page = app.env.docname
    if page == API_PAGE or API_PAGE not in app.env.found_docs:
        return
    documented = _documented(app.srcdir)
    for literal in list(doctree.findall(nodes.literal)):
        found = API_NAME.match(literal.astext())
        if found and (name := _api_name(found[1], documented)):
            literal.replace_self(_api_link(page, name, literal.deepcopy()))
    cells = [block.astext() for block in doctree.findall(nodes.literal_block)]
    used = {_api_name(n, documented) for cell in cells for n in API_NAME.findall(cell)} - {None}
    sections = [s for s in doctree.findall(nodes.section) if isinstance(s.parent, nodes.section)]
    if used and sections:
        paragraph = nodes.paragraph("", "The functions of the package on this page: ")
        for i, name in enumerate(sorted(used)):
            paragraph += [nodes.Text(", ")] if i else []
            paragraph += _api_link(page, name, nodes.literal(text=f"tl.{name}"))
        paragraph += nodes.Text(".")
        sections[-1] += paragraph


@cache
def _documented(folder: str) -> set[str]:
    """The names that the API page documents, without the package's."""
    text = (Path(folder) / f"{API_PAGE}.md").read_text("utf-8")
    return set(re.findall(r"^\.\. auto\w+:: tutorial_lib\.(\S+)", text, re.MULTILINE))


def _api_name(name: str, documented: set[str]) -> str | None:
    """The documented name of tl.NAME: tl.noise.adaptive_sigma is tl.adaptive_sigma."""
    candidates = name, name.split(".")[-1], name.split(".")[0]
    return next((n for n in candidates if n in documented), None)


def _api_link(page: str, name: str, text: nodes.Node) -> pending_xref:
    target = dict(refdomain="py", reftype="obj", reftarget=f"tutorial_lib.{name}", refdoc=page)
    return pending_xref("", text, refexplicit=True, refwarn=True, **target)


def setup(app):
    """Called by Sphinx."""
    app.connect("config-inited", serve_vendored)
    app.connect("config-inited", switch_off_thebe)
    app.connect("autodoc-process-docstring", formulas_are_literal)
    app.connect("doctree-read", fold_checks)
    app.connect("doctree-read", link_to_the_api)
    app.connect("html-page-context", offer_slides)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
