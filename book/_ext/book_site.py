"""What this book adds to Jupyter Book: pages that need no internet, and notebook downloads."""

import shutil
from pathlib import Path

from sphinx.util import logging

MATHJAX = "vendor/mathjax/tex-mml-chtml.js"
# No crossorigin attribute: with one, a browser refuses scripts of a page opened from disk.
WIDGETS = {"vendor/require.js": {}, "vendor/embed-amd.js": {}}
log = logging.getLogger(__name__)


def serve_vendored(app, config):
    """Take MathJax and the widget manager from the site where they were fetched, else a CDN."""
    if (Path(app.srcdir) / "_build/static/vendor").is_dir():
        config.mathjax_path = MATHJAX
        config.nb_ipywidgets_js = WIDGETS
    else:
        log.info("NOTE: no vendored MathJax and widget manager: the pages will need the internet")


def switch_off_thebe(app, config):
    """Jupyter Book always loads sphinx-thebe, whose scripts point at a CDN: undo that."""
    for event in ("env-before-read-docs", "doctree-resolved"):
        for listener in list(app.events.listeners[event]):
            if listener.handler.__module__ == "sphinx_thebe":
                app.disconnect(listener.id)


def offer_notebook(app, pagename, templatename, context, doctree):
    """Link the page's notebook below its title and in the theme's download menu."""
    notebook = _notebooks(app) / f"{Path(pagename).name}.ipynb"
    if doctree is None or not notebook.exists():
        return
    context["ipynb_source"] = f"{pagename}.ipynb"  # the theme looks for it in _sources
    url = context["pathto"](f"_sources/{pagename}.ipynb", 1)
    link = (
        f'<p class="notebook-download"><a href="{url}" download>'
        f"Download this page as a notebook ({notebook.name})</a></p>"
    )
    context["body"] = context["body"].replace("</h1>", f"</h1>\n{link}", 1)


def publish_notebooks(app, exception):
    """Copy the converted notebooks beside the page sources, once the site is written."""
    for page in app.env.found_docs if exception is None else ():
        notebook = _notebooks(app) / f"{Path(page).name}.ipynb"
        if notebook.exists():
            to = Path(app.outdir) / "_sources" / f"{page}.ipynb"
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(notebook, to)


def _notebooks(app) -> Path:
    return Path(app.srcdir) / "_build/notebooks"


def setup(app):
    """Called by Sphinx."""
    app.connect("config-inited", serve_vendored)
    app.connect("config-inited", switch_off_thebe)
    app.connect("html-page-context", offer_notebook)
    app.connect("build-finished", publish_notebooks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
