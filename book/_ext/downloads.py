"""Each page as a notebook that runs in any folder, beside the package's wheel.

    NAME.ipynb           the page with its outputs; solutions are folded
    NAME-student.ipynb   the same without solutions, with an empty cell in the place of each

They lie in the folder `notebooks` of the site. The builder `downloads` makes them alone.
"""

import base64
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urljoin

import nbformat
from docutils import nodes
from few_colours import few_colours
from jupyter_cache import get_cache
from myst_nb.core.read import myst_nb_reader_plugin
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from own_files import own_files
from plain_markdown import Page, Part
from pybtex.plugin import find_plugin
from sphinx.builders import Builder
from sphinx.errors import ExtensionError

COMPILED = shutil.ignore_patterns("__pycache__")
WIDGET = "application/vnd.jupyter.widget-view+json"
INTRODUCTION = """\
*This notebook is {page} of the book "Averaging Gradients"{twin}. What it shows was computed when
the book was built. The code of figures and checks is folded: click on the mark of a folded cell to
see it.*

**Before you run it, run the cell below.** Where the book's package is installed, it does nothing.
Elsewhere it installs the package, and what the package needs: up to 5 GB where there is no PyTorch.
It takes the package from {source}. On Colab, upload that file in the
panel behind the folder sign."""
FILE = (
    "the file `{wheel}`, which has to lie in the folder of this notebook; every page of the book "
    'offers it below its title, as "the package"'
)
INSTALL = """\
import sys
from importlib.util import find_spec
from pathlib import Path

if not (find_spec("tutorial_lib") and find_spec("tutorial_book")):
    wheel, package = Path("{wheel}").resolve(), "{elsewhere}"
    if wheel.exists():
        package = f"{{wheel}}[all]"
    if not package:
        raise FileNotFoundError(
            f"{{wheel.name}} is not in {{wheel.parent}}. Download it from a page of the book, "
            "put it there, and run this cell again."
        )
    %pip install --quiet "{{package}}"
if "google.colab" in sys.modules:  # its own sliders are those of ipywidgets 7
    from google.colab import output

    output.enable_custom_widget_manager()"""
LARGEST = 5_000_000  # bytes of a file that a notebook brings
BESIDE = "This page reads the file `{name}`. Put it below the folder of this notebook."
OWN = """\
# The files that this page reads, written where its cells look for them.
from base64 import b64decode
from pathlib import Path

files = {{
{files}}}
for name, data in files.items():
    if not Path(name).exists():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(b64decode(data))"""
OFFER = """\
<p class="notebook-download">This page as a notebook: {links}. \
Put <a href="{wheel}" download>the package</a> beside it.</p>"""


class Downloads(Builder):
    """Makes the notebooks and the wheel, and no pages."""

    name, format = "downloads", "notebook"

    def get_outdated_docs(self) -> set[str]:
        """All pages, as the files are small."""
        return self.env.found_docs

    def get_target_uri(self, docname: str, typ: str | None = None) -> str:
        """The address that a page has on the site."""
        return f"{docname}.html"

    def prepare_writing(self, docnames: set[str]) -> None:
        """Nothing to prepare."""

    def write_doc(self, docname: str, doctree: nodes.document) -> None:
        """Nothing more: `write_notebooks` has seen the page, as it does for the site."""


def write_notebooks(app, doctree, name):
    """Write a page that has cells as a notebook, and its twin if it has solutions."""
    if "kernelspec" not in app.env.metadata.get(name, {}) or not _is_for_readers(app):
        return
    parts = Page(doctree, app.env, name, lambda node: address(app, name, node)).parts()
    parts += references(app.env, doctree)
    notebook = executed(app, name)
    for cell in notebook.cells:
        lighten(app, cell)
    title = parts[0].text.partition("\n")[0].lstrip("# ")
    own = own_cells(Path(app.env.doc2path(name)).parent, notebook)
    to = _folder(app) / f"{Path(name).name}.ipynb"
    _write(to, [*first_cells(app, name, title), *own, *cells(parts, notebook)], notebook.metadata)
    if any(part.solution for part in parts):
        twin = to.with_stem(f"{to.stem}-student")
        first = first_cells(app, name, title, student=True)
        _write(twin, [*first, *own, *cells(parts, notebook, student=True)], notebook.metadata)


def executed(app, name: str) -> nbformat.NotebookNode:
    """The page's notebook with its outputs; without, where the pages were not run."""
    notebook = myst_nb_reader_plugin(str(app.env.doc2path(name)))
    kept = app.env.mystnb_config.execution_cache_path or Path(app.outdir).parent / ".jupyter_cache"
    try:
        return get_cache(kept).merge_match_into_notebook(notebook)[1]
    except KeyError:
        return notebook


def references(env, doctree) -> list[Part]:
    """The works that a page cites, as the bibliography of the book has them."""
    cited = {node.get("refuri", "").partition("#")[2] for node in doctree.findall(nodes.reference)}
    markdown = find_plugin("pybtex.backends", "markdown")()
    entries = [
        "- " + " ".join(citation.formatted_entry.text.render(markdown).split())
        for citation in env.get_domain("cite").citations
        if citation.citation_id in cited
    ]
    text = "## References\n\n" + "\n".join(sorted(entries))
    return [Part(text, heading=True)] if entries else []


def address(app, name: str, node: nodes.reference) -> str:
    """Where a reference leads: outside, or to the site where its address is known."""
    to, site = node.get("refuri") or f"#{node.get('refid', '')}", app.config.html_baseurl
    if "://" in to or to.startswith("mailto:"):
        return to
    return urljoin(urljoin(f"{site.rstrip('/')}/", f"{name}.html"), to) if site else ""


def first_cells(app, name: str, title: str, student: bool = False) -> list:
    """What the notebook is, and the cell that installs the package where it is missing."""
    site, wheel = app.config.html_baseurl, wheel_name(app.srcdir)
    repository = app.config.html_theme_options.get("repository_url")
    elsewhere, source = "", FILE.format(wheel=wheel)
    if site:
        place = f"{site.rstrip('/')}/notebooks/{wheel}"
        elsewhere = f"tutorial_lib[all] @ {place}"
    elif repository:
        place = repository
        elsewhere = f"tutorial_lib[all] @ git+{repository}"
    if elsewhere:
        source = f"the file `{wheel}` in the folder of this notebook, or else from <{place}>"
    page = f"[{title}]({site.rstrip('/')}/{name}.html)" if site else f'the page "{title}"'
    twin = ", without the solutions of its exercises" if student else ""
    return [
        new_markdown_cell(INTRODUCTION.format(page=page, twin=twin, source=source)),
        new_code_cell(INSTALL.format(wheel=wheel, elsewhere=elsewhere)),
    ]


def own_cells(folder: Path, notebook) -> list:
    """A folded cell that writes the photographs and small weights which the page reads."""
    names = own_files(folder, notebook)
    small = [name for name in names if (folder / name).stat().st_size <= LARGEST]
    found = [new_markdown_cell(BESIDE.format(name=n)) for n in names if n not in small]
    if small:
        data = {name: base64.b64encode((folder / name).read_bytes()).decode() for name in small}
        lines = "".join(f"    {name!r}: {text!r},\n" for name, text in data.items())
        folded = {"jupyter": {"source_hidden": True}, "cellView": "form"}
        found.append(new_code_cell(OWN.format(files=lines), metadata=folded))
    return found


def cells(parts: list[Part], notebook, student: bool = False) -> list:
    """The cells of a notebook. Students get an empty cell in the place of each solution."""
    made, solved = [], ""
    for part in parts:
        if part.solution and student:
            if part.solution != solved:
                made.append(new_code_cell())
        elif part.cell is None:
            made.append(new_markdown_cell(part.text))
        else:
            made.append(code_cell(notebook.cells[part.cell], part))
            if student:
                _without_widgets(made[-1])
        solved = part.solution
    return made


def code_cell(cell, part: Part):
    """A cell of the page, folded where the site folds it."""
    metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
    if part.folded:
        metadata["jupyter"] = {"source_hidden": True}
        metadata["cellView"] = "form"  # the fold of Colab
    if part.solution:
        metadata["jupyter"]["outputs_hidden"] = True
    count = cell.get("execution_count")
    outputs = nbformat.from_dict(cell.outputs)
    return new_code_cell(cell.source, metadata=metadata, outputs=outputs, execution_count=count)


def lighten(app, cell) -> None:
    """Give the pictures of a cell few colours, and their texts."""
    alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt")
    for output in cell.get("outputs", []):
        if data := output.get("data", {}).get("image/png"):
            small = few_colours(base64.b64decode(data), Path(app.outdir).parent / "few_colours")
            output.data["image/png"] = base64.b64encode(small).decode()
            if alt:
                output.metadata["image/png"] = {"alt": " ".join(alt.split())}


def _without_widgets(cell) -> None:
    """Leave a slider's filmstrip, and drop the slider, which comes when the cell is run."""
    for output in cell.outputs:
        if len(output.get("data", {})) > 1:
            output.data.pop(WIDGET, None)


def _write(to: Path, made: list, metadata) -> None:
    for i, cell in enumerate(made):
        cell["id"] = f"cell-{i}"
    kept = {key: metadata[key] for key in ("kernelspec", "language_info") if key in metadata}
    if any(WIDGET in o.get("data", {}) for cell in made for o in cell.get("outputs", [])):
        kept["widgets"] = metadata["widgets"]
    to.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=made, metadata=kept), to)


def offer_notebooks(app, pagename, templatename, context, doctree):
    """Link the page's notebooks below its title, and the first in the theme's download menu."""
    links = []
    for suffix, words in (("", "with solutions"), ("-student", "for students, without solutions")):
        notebook = _folder(app) / f"{Path(pagename).name}{suffix}.ipynb"
        if doctree is not None and notebook.exists():
            url = context["pathto"](f"notebooks/{notebook.name}", 1)
            links.append(f'<a href="{url}" download>{words}</a>')
    if not links:
        return
    if len(links) == 1:
        links = [links[0].replace("with solutions", "download")]
    wheel = context["pathto"](f"notebooks/{wheel_name(app.srcdir)}", 1)
    offer = OFFER.format(links=", ".join(links), wheel=wheel)
    context["body"] = context["body"].replace("</h1>", f"</h1>\n{offer}", 1)
    # The theme looks for it in _sources.
    context["ipynb_source"] = f"../notebooks/{Path(pagename).name}.ipynb"


def publish_wheel(app, exception):
    """Build the wheel beside the notebooks, once all else is written."""
    if exception is None and _is_for_readers(app):
        build_wheel(Path(app.srcdir), _folder(app))
        if app.builder.name == Downloads.name:  # what other extensions copy for pages
            shutil.rmtree(Path(app.outdir, "_static"), ignore_errors=True)


def build_wheel(root: Path, to: Path) -> None:
    """Build the wheel from a copy, so that setuptools leaves nothing in the repository."""
    to.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        for name in ("pyproject.toml", "README.md", "LICENSE", "LICENSE-TEXT"):
            shutil.copy(root / name, folder)
        for name in ("tutorial_lib", "book/tutorial_book"):
            shutil.copytree(root / name, Path(folder, name), ignore=COMPILED)
        command = [sys.executable, "-c", "from setuptools import build_meta as b; import sys;"]
        command[-1] += "b.build_wheel(sys.argv[1])"
        # The oldest time that a wheel may have: the same files make the same wheel.
        environment = {**os.environ, "SOURCE_DATE_EPOCH": "315532800"}
        run = subprocess.run(
            [*command, str(to)], cwd=folder, env=environment, capture_output=True, text=True
        )
    if run.returncode:
        raise ExtensionError(f"the package's wheel was not built:\n{run.stderr[-3000:]}")


def wheel_name(root: str | Path) -> str:
    """The name of the wheel, known before it is built."""
    project = tomllib.loads((Path(root) / "pyproject.toml").read_text("utf-8"))["project"]
    return f"{project['name']}-{project['version']}-py3-none-any.whl"


def _folder(app) -> Path:
    return Path(app.outdir) / ("" if app.builder.name == Downloads.name else "notebooks")


def _is_for_readers(app) -> bool:
    """Whether this build makes the site or the downloads, and not slides or paper."""
    return app.builder.name in ("html", Downloads.name)


def no_mime_types(app, config):
    """The builder writes no outputs into pages; myst-nb wants to know which it would take."""
    config.nb_mime_priority_overrides = [
        *config.nb_mime_priority_overrides,
        *((Downloads.name, kind, 1) for kind in (WIDGET, "image/png", "text/html", "text/plain")),
    ]


def setup(app):
    """Called by Sphinx."""
    app.add_builder(Downloads)
    app.connect("config-inited", no_mime_types)
    app.connect("doctree-resolved", write_notebooks, priority=900)  # after all that change it
    app.connect("html-page-context", offer_notebooks)
    app.connect("build-finished", publish_wheel)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
