"""The notebooks that the site offers stand alone: they read well, and run anywhere."""

import ast
import builtins
import importlib.util
import re
import zipfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import downloads
import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup, SoupStrainer
from docutils import nodes
from docutils.core import publish_doctree
from IPython.core.inputtransformer2 import TransformerManager
from plain_markdown import Page

from tests.built import NO_SITE, ROOT, SITE, built_html, cells, is_notebook, toc_pages
from tools import run_away

pytestmark = pytest.mark.slow

FOLDER = SITE / "notebooks"
PAGES = [page for page in toc_pages() if is_notebook(ROOT / f"{page}.md")]
FILES = [f"{Path(page).name}{twin}.ipynb" for page in PAGES for twin in ("", "-student")]
MYST = {
    "role": r"\{[a-z][\w:-]*\}`",
    "directive": r"^\s*(`{3,}|:{3,}|~{3,})\s*\{",
    "option of a directive": r"^\s*:(label|class|name|alt|tags):",
    "label": r"^\s*\([\w-]+\)=",
    "label of an equation": r"\$\$\s*\([\w-]+\)\s*$",
    "comment": r"^%",
    "substitution": r"\{\{.*\}\}",
    "attribute": r"^\{[.#]",
}


def markdown(notebook) -> str:
    return "\n\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")


def code(notebook) -> list:
    return [c for c in notebook.cells if c.cell_type == "code"]


def is_twin(name: str) -> bool:
    return name.endswith("-student.ipynb")


def has_solutions(name: str) -> bool:
    page = name.removesuffix(".ipynb").removesuffix("-student")
    return "{solution-start}" in (ROOT / f"book/{page}.md").read_text("utf-8")


@pytest.fixture(params=[name for name in FILES if not is_twin(name) or has_solutions(name)])
def name(request) -> str:
    if not (SITE / ".complete").exists():
        pytest.skip(NO_SITE)
    return request.param


cells = cache(cells)


@cache
def read(name: str):
    return nbformat.read(FOLDER / name, 4)


@pytest.fixture
def notebook(name):
    """A download, as it lies in the built site."""
    return read(name)


@cache
def article(page: str) -> BeautifulSoup:
    """The text of a built page, without its scripts and its code, which are large."""
    large = r"<script.*?</script>|<pre.*?</pre>"
    html = re.sub(large, "", built_html(f"book/{page}"), flags=re.DOTALL)
    return BeautifulSoup(html, "html.parser", parse_only=SoupStrainer("article"))


@pytest.fixture
def page(name) -> Path:
    """The source of the page that the download is made from."""
    return ROOT / f"book/{name.removesuffix('.ipynb').removesuffix('-student')}.md"


def test_nothing_of_myst_is_left_in_the_text(notebook):
    found = {what: re.findall(form, markdown(notebook), re.M) for what, form in MYST.items()}
    assert {what: hits for what, hits in found.items() if hits} == {}


@pytest.mark.parametrize(
    "text",
    ["see {numref}`a <b>`", ":::{question} Q", "```{note}", "(chap-ig)=", "$$ (eq-a)", "% a"],
)
def test_the_search_for_myst_finds_it(text):
    assert any(re.search(form, text, re.M) for form in MYST.values())


def test_a_download_has_every_cell_of_its_page(name, notebook, page):
    first, *found = [c.source for c in code(notebook)]
    written = [c.source for c in cells(page) if c.cell_type == "code"]
    assert "%pip install" in first
    if is_twin(name):
        assert [s for s in found if s] == [s for s in written if s in found]
        assert found.count("") == page.read_text("utf-8").count("{solution-start}")
        assert "Solution" not in markdown(notebook)
    else:
        assert found == written


def test_numbers_are_those_of_the_site(name, notebook, page):
    soup = article(page.stem)
    solved = soup.select("div.solution .eqno") if is_twin(name) else []
    text = markdown(notebook)
    equations = [e.get_text().strip("()¶#\xa0 ") for e in soup.select(".eqno") if e not in solved]
    assert re.findall(r"\\tag\{(.*?)\}", text) == equations
    exercises = [e.get_text().strip() for e in soup.select("div.exercise .caption-number")]
    assert re.findall(r"^#+ (Exercise [\d.]+)", text, re.M) == exercises
    heading = soup.find("h1").get_text().strip("#¶ \n")
    assert f"\n# {heading}" in f"\n{text}".replace("\\", "").replace("`", "")


def test_captions_follow_the_figures(name, notebook, page):
    drawn = [c for c in cells(page) if c.metadata.get("mystnb", {}).get("figure")]
    shown = [c.source for c in code(notebook)]
    drawn = [c for c in drawn if c.source in shown]
    captions = re.findall(
        r"^\*\*Fig\. [\d.]+\*\* \S|^\*\*Fig\. [\d.]+\*\*$", markdown(notebook), re.M
    )
    assert len(captions) == len(drawn)


def test_outputs_are_there_and_the_file_is_small(name, notebook, page):
    drawn = {c.source for c in cells(page) if "figure" in c.metadata.get("mystnb", {})}
    for cell in code(notebook):
        kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
        if cell.source in drawn:
            assert "image/png" in kinds, cell.source[:80]
            assert all("alt" in o.metadata["image/png"] for o in cell.outputs if "data" in o)
        assert not any(o.output_type == "error" for o in cell.outputs)
    views = [o for c in code(notebook) for o in c.outputs if downloads.WIDGET in o.get("data", {})]
    assert bool(views) == ("widgets" in notebook.metadata)
    assert not (views and is_twin(name))
    assert (FOLDER / name).stat().st_size < 8e6


def test_solutions_and_the_code_of_figures_are_folded(name, notebook, page):
    text = page.read_text("utf-8")
    solved = "".join(re.findall(r"\{solution-start\}(.*?)\{solution-end\}", text, re.S))
    for cell in code(notebook)[1:]:
        jupyter = cell.metadata.get("jupyter", {})
        if cell.source and cell.source in solved:
            assert jupyter == {"source_hidden": True, "outputs_hidden": True}
        if {"hide-input", "check"} & {*cell.metadata.get("tags", [])}:
            assert jupyter["source_hidden"]
    if not is_twin(name):
        assert markdown(notebook).count("<details>") == markdown(notebook).count("</details>")
        begun = r"<summary><b>Solution</b></summary>|^\*Solution: in the folded cell below"
        assert len(re.findall(begun, markdown(notebook), re.M)) == text.count("{solution-start}")


NAMING = ast.arg, ast.FunctionDef, ast.ClassDef, ast.ExceptHandler


def names(source: str, context: type) -> set[str]:
    """The names that code reads (ast.Load), or writes (ast.Store), imports and definitions too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, context):
            found.add(node.id)
        elif context is ast.Store and isinstance(node, ast.alias):
            found.add((node.asname or node.name).partition(".")[0])
        elif context is ast.Store and isinstance(node, NAMING):
            found.add(node.arg if isinstance(node, ast.arg) else node.name)
    return found


def test_a_twin_needs_no_name_that_a_solution_defined(name, notebook, page):
    if not is_twin(name):
        return
    kept = [c.source for c in code(notebook)[1:]]
    cut = [c.source for c in cells(page) if c.cell_type == "code" and c.source not in kept]
    defined = {n for source in kept for n in names(source, ast.Store)}
    only_there = {n for source in cut for n in names(source, ast.Store)} - defined
    assert {n for source in kept for n in names(source, ast.Load)} & only_there == set()


def test_nothing_but_papers_is_linked_in_a_book_without_address(notebook):
    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))
    if config["html"].get("baseurl"):
        pytest.skip("the site has an address")
    text = markdown(notebook).partition("## References")[0]
    linked = re.findall(r"\]\((\S+?)\)|href=\"(.*?)\"", text)
    assert [link for pair in linked for link in pair if link and "doi.org" not in link] == []


def test_what_a_page_cites_is_listed_at_its_end(notebook, page):
    keys = re.findall(r"\{cite(?::t)?\}`(.*?)`", page.read_text("utf-8"), re.DOTALL)
    cited = {key.strip() for found in keys for key in found.split(",")}
    listed = markdown(notebook).partition("\n## References\n")[2].split("\n- ")[1:]
    assert len(listed) == len(cited)
    assert all(re.search(r"\b(19|20)\d\d\b", entry) for entry in listed)


def test_the_page_offers_its_notebooks_and_the_wheel(name, page):
    links = [a["href"] for a in article(page.stem).select(".notebook-download a")]
    assert f"../notebooks/{name}" in links
    assert all((SITE / "book" / link).resolve().is_file() for link in links)
    assert any(link.endswith(".whl") for link in links)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built anew."""
    folder = tmp_path_factory.mktemp("wheel")
    downloads.build_wheel(ROOT, folder)
    (wheel,) = folder.iterdir()
    assert wheel.name == downloads.wheel_name(ROOT)
    return wheel


def test_the_wheel_has_the_stored_results_and_all_that_pages_import(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    book = ROOT / "book/tutorial_book"
    wanted = [*book.glob("*.py"), *book.rglob("*.csv"), *book.rglob("*.json")]
    assert {path.relative_to(book.parent).as_posix() for path in wanted} <= names
    assert not any(re.search(r"make_|/tests/|\.pyc", name) for name in names)


SITE_ADDRESS, REPOSITORY = "https://a.example/xai", "https://b.example/o/n"


def fake_app(site: str = "", repository: str = ""):
    config = SimpleNamespace(html_baseurl=site, html_theme_options={"repository_url": repository})
    return SimpleNamespace(config=config, srcdir=ROOT)


def run_first_cell(app, monkeypatch) -> list[str]:
    """What pip is asked for where the package is missing."""
    asked = []
    shell = SimpleNamespace(run_line_magic=lambda name, line: asked.append(line))
    monkeypatch.setattr(builtins, "get_ipython", lambda: shell, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    source = downloads.first_cells(app, "book/20-x", "2. X")[1].source
    exec(TransformerManager().transform_cell(source), names := {})
    return [line.removeprefix("install ").replace("{package}", names["package"]) for line in asked]


def test_the_first_cell_takes_the_wheel_beside_it_or_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    name = downloads.wheel_name(ROOT)
    with pytest.raises(FileNotFoundError, match=f"{re.escape(name)} is not in .* Download it"):
        run_first_cell(fake_app(), monkeypatch)
    Path(name).touch()
    for app in (fake_app(), fake_app(SITE_ADDRESS, REPOSITORY)):
        assert run_first_cell(app, monkeypatch) == [f'--quiet "{tmp_path / name}[all]"']


def test_the_first_cell_knows_the_addresses_that_are_set(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    wheel = f"{SITE_ADDRESS}/notebooks/{downloads.wheel_name(ROOT)}"
    asked = run_first_cell(fake_app(SITE_ADDRESS, REPOSITORY), monkeypatch)
    assert asked == [f'--quiet "tutorial_lib[all] @ {wheel}"']
    asked = run_first_cell(fake_app("", REPOSITORY), monkeypatch)
    assert asked == [f'--quiet "tutorial_lib[all] @ git+{REPOSITORY}"']
    said = downloads.first_cells(fake_app(SITE_ADDRESS + "/"), "book/20-x", "2. X")[0].source
    assert f"[2. X]({SITE_ADDRESS}/book/20-x.html)" in said and wheel in said


def test_the_first_cell_does_nothing_where_the_package_is(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    source = downloads.first_cells(fake_app(), "book/20-x", "2. X")[1].source
    exec(TransformerManager().transform_cell(source), {})  # calls no shell, as there is none


@pytest.mark.parametrize(
    ("to", "with_site"),
    [
        ("glossary.html#term", "https://a.example/xai/book/glossary.html#term"),
        ("", "https://a.example/xai/book/20-x.html#here"),
        ("https://doi.org/1", "https://doi.org/1"),
    ],
)
def test_a_reference_becomes_a_link_where_the_site_has_an_address(to, with_site):
    node = nodes.reference(refuri=to) if to else nodes.reference(refid="here")
    assert downloads.address(fake_app(SITE_ADDRESS), "book/20-x", node) == with_site
    without = with_site if "doi" in to else ""
    assert downloads.address(fake_app(), "book/20-x", node) == without


def plain(rst: str) -> str:
    """The Markdown of a page, written here in the markup that docutils has."""
    env = SimpleNamespace(toc_secnumbers={}, toc_fignumbers={})
    page = Page(publish_doctree(rst), env, "a", lambda node: node.get("refuri", ""))
    return "\n\n".join(part.text for part in page.parts())


@pytest.mark.parametrize(
    ("rst", "expected"),
    [
        ("a * b_c [d] $5 x", r"a \* b\_c \[d\] \$5 x"),
        ("**a** *b* ``c|d`` :math:`x_1`", "**a** *b* `c|d` $x_1$"),
        ("`t <https://doi.org/1>`__", "[t](https://doi.org/1)"),
        ("- a\n- b", "- a\n- b"),
        ("1. a\n\n   b\n2. c", "1. a\n\n   b\n\n2. c"),
        (".. note:: a\n\n   b", "> **Note**\n>\n> a\n>\n> b"),
        (".. warning::\n\n   .. math::\n\n      x\n      + y", "> **Warning**\n>\n> $$x + y$$"),
        (".. math::\n\n   a \\\\ b", "$$\n\\begin{aligned}\na \\\\ b\n\\end{aligned}\n$$"),
    ],
)
def test_a_block_becomes_plain_markdown(rst, expected):
    assert expected in plain(rst)


def test_a_bar_in_a_formula_does_not_end_the_cell_of_a_table():
    rule = f"{'=' * 12} ="
    table = plain(f"{rule}\n{'a':12} b\n{rule}\n:math:`|x|`  c\n{rule}")
    assert table.splitlines() == ["| a | b |", "|---|---|", r"| $\vert x\vert $ | c |"]


def test_two_downloads_run_in_an_empty_folder_after_their_first_cell(tmp_path):
    """The first installs the wheel, the second finds it; `make away` runs all of them."""
    if not (SITE / ".complete").exists():
        pytest.skip(NO_SITE)
    python = run_away.environment(tmp_path.resolve())
    for name in ("cluster.ipynb", "where-a-cell-looks-student.ipynb"):
        assert run_away.run(python, FOLDER / name) == ""


def test_a_notebook_that_fails_away_from_the_repository_is_noticed(tmp_path):
    python = run_away.environment((tmp_path / "environment").resolve())
    source = "from book._ext import questions  # there is no repository here"
    bad = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbformat.write(bad, tmp_path / "bad.ipynb")
    assert "No module named 'book'" in run_away.run(python, tmp_path / "bad.ipynb")


def test_a_folder_without_notebooks_is_no_success(tmp_path):
    with pytest.raises(SystemExit, match="no notebooks are there"):
        run_away.main(tmp_path, [])


def test_a_page_brings_the_photographs_that_it_reads_and_names_what_is_too_large(
    tmp_path, monkeypatch
):
    book, away = tmp_path / "book", tmp_path / "away"
    for name, size in (("photos/mine.jpg", 3), ("weights/mine.pt", downloads.LARGEST + 1)):
        (book / name).parent.mkdir(parents=True)
        (book / name).write_bytes(bytes(size))
    source = 'open("photos/mine.jpg"), load("weights/mine.pt"), open("photos/none.jpg")'
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    beside, cell = downloads.own_cells(book, page)
    assert "`weights/mine.pt`" in beside.source and "none" not in cell.source + beside.source
    away.mkdir()
    monkeypatch.chdir(away)
    exec(cell.source, {})
    assert (away / "photos/mine.jpg").read_bytes() == bytes(3)
    (away / "photos/mine.jpg").write_bytes(b"the reader's own")
    exec(cell.source, {})
    assert (away / "photos/mine.jpg").read_bytes() == b"the reader's own"
    assert downloads.own_cells(book, nbformat.v4.new_notebook()) == []
