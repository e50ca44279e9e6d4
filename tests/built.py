"""Where the book's sources and its built site are, for the tests that read them."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
SITE = ROOT / "_build/html"
NO_SITE = "the site is not built: run `make book`"


def python_blocks(page: str) -> list[str]:
    """The Python code of a Markdown file of the repository, block by block."""
    text = (ROOT / page).read_text("utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def make_targets() -> set[str]:
    """The targets of the Makefile: the commands, and what a file's rule names."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    commands = " ".join(re.findall(r"^COMMANDS [:+]= (.*)$", makefile, re.MULTILINE))
    return {*commands.split(), *re.findall(r"^(\.?[a-z][\w./]+):", makefile, re.MULTILINE)}


def copy_package(to: Path) -> None:
    """Copy what the book's wheel is built from, without which a copy of the book does not build."""
    for name in ("pyproject.toml", "README.md", "LICENSE", "LICENSE-TEXT"):
        shutil.copy(ROOT / name, to)
    for name in ("tutorial_lib", "book/tutorial_book"):
        shutil.copytree(ROOT / name, to / name, dirs_exist_ok=True)


def toc_pages() -> list[str]:
    """The pages of _toc.yml, such as book/10-taylor."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    pages = [page for chapter in chapters for page in (chapter, *chapter.get("sections", ()))]
    return [toc["root"], *(page["file"] for page in pages)]


def chapters() -> list[Path]:
    """The sources of the chapters: the pages whose file names start with two digits."""
    pages = [ROOT / f"{page}.md" for page in toc_pages()]
    return [page for page in pages if re.match(r"\d\d-", page.name)]


def cells(page: Path) -> list:
    """The cells of a page; a page without cells is one Markdown cell."""
    from book._ext.reading_time import cells_of  # where mutants run there is no book

    return cells_of(page.read_text("utf-8"))


def is_notebook(page: Path) -> bool:
    return "\nkernelspec:" in page.read_text("utf-8")


def redirects() -> dict[str, str]:
    """The old addresses of pages, and where they lead."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))
    pages = config["sphinx"]["config"]["redirects"]
    return {f"{old}.html": f"book/{new}" for old, new in pages.items()}


def site_pages() -> list[Path]:
    """Every page of the book that was built, without slides and those that only lead elsewhere;
    none where the site is not finished."""
    if not (SITE / ".complete").exists():
        return []
    pages = {p for p in SITE.rglob("*.html") if "_static" not in p.parts}
    pages -= {*(SITE / "slides").glob("*.html")}
    return sorted(pages - {SITE / name for name in [*redirects(), "index.html", "404.html"]})


def built_html(page: str) -> str:
    """The built HTML of a page of _toc.yml; skips the test where the site is not built."""
    if not (SITE / ".complete").exists():
        pytest.skip(NO_SITE)
    return (SITE / f"{page}.html").read_text("utf-8")
