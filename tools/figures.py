"""All figures of the book in one zip, with captions and the licence.

    python -m tools.figures             PNG, from the stored runs of the pages: seconds
    python -m tools.figures svg pdf     these formats too: runs the pages again, about ten minutes

Reads the built site for the captions and writes _build/teacher/figures.zip. A figure is called by
its name in the book, such as fig-sg-hook.
"""

import base64
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bs4 import BeautifulSoup
from jupyter_cache import get_cache
from myst_nb.core.read import myst_nb_reader_plugin
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

from tools.run_pages import AT_ONCE, CACHE

ROOT = Path(__file__).parents[1]

SITE = ROOT / "_build/html"
ZIP = ROOT / "_build/teacher/figures.zip"
KINDS = {"png": "image/png", "svg": "image/svg+xml", "pdf": "application/pdf"}
FIRST = "%config InlineBackend.figure_formats = {formats}"  # a cell before all others


def page_figures(notebook, kind: str) -> dict[str, bytes]:
    """The figures of a notebook that was run, by name; sliders are no figures."""
    found = {}
    for cell in notebook.cells:
        name = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
        for output in cell.get("outputs", []):
            data = output.get("data", {}).get(KINDS[kind])
            if name and data:
                text = kind == "svg"
                found[name] = data.encode() if text else base64.b64decode(data)
    return found


def stored(page: Path) -> dict[str, bytes]:
    """The figures of the page as they were drawn for the site."""
    try:
        _, ran = get_cache(CACHE).merge_match_into_notebook(myst_nb_reader_plugin(str(page)))
    except KeyError:
        raise SystemExit(f"{page}: its cells have not been run: run `make book`") from None
    return {f"{name}.png": data for name, data in page_figures(ran, "png").items()}


def drawn_again(page: Path, formats: list[str]) -> dict[str, bytes]:
    """The figures of the page in other formats: its cells are run again."""
    notebook = myst_nb_reader_plugin(str(page))
    notebook.cells.insert(0, new_code_cell(FIRST.format(formats=formats)))
    folder = {"metadata": {"path": str(page.parent)}}
    NotebookClient(notebook, timeout=300, record_timing=False, resources=folder).execute()
    print(f"{page.name} has run", flush=True)
    figures = {kind: page_figures(notebook, kind) for kind in formats}
    return {f"{name}.{kind}": data for kind, each in figures.items() for name, data in each.items()}


def captions(name: str) -> list[str]:
    """The captions of a built page, a line for each figure, beginning with its name."""
    page = SITE / f"book/{name}.html"
    if not page.exists():
        return []
    soup = BeautifulSoup(page.read_text("utf-8"), "html.parser")
    for link in soup.select(".headerlink"):
        link.decompose()
    figures = [f for f in soup.select("figure[id]") if f.find("figcaption")]
    return [f"{f['id']}: {' '.join(f.find('figcaption').get_text().split())}" for f in figures]


def write(files: dict[str, bytes], lines: list[str]) -> None:
    """Write the zip: files in folders of their formats, captions, licence."""
    ZIP.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(ZIP, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files.items()):
            archive.writestr(f"figures/{Path(name).suffix[1:]}/{name}", data)
        text = "\n\n".join(lines)
        archive.writestr("figures/captions.txt", text + "\n")
        archive.writestr("figures/LICENSE.txt", (ROOT / "LICENSE-TEXT").read_text("utf-8"))


def main(formats: list[str]) -> None:
    """Collect the figures of all pages that the site has."""
    wrong = {*formats} - {"svg", "pdf"}
    if wrong:
        raise SystemExit(
            f"{' '.join(sorted(wrong))}: expected svg, pdf or nothing (png is always in)"
        )
    pages = [
        p for p in sorted((ROOT / "book").glob("*.md")) if (SITE / f"book/{p.stem}.html").exists()
    ]
    pages = [p for p in pages if "\nkernelspec:" in p.read_text("utf-8")]
    files = {name: data for page in pages for name, data in stored(page).items()}
    if formats:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for found in pool.map(lambda page: drawn_again(page, formats), pages):
                files |= found
    write(files, [line for page in pages for line in captions(page.stem)])
    size = ZIP.stat().st_size / 1e6
    print(f"{len(files)} files with captions and licence, {size:.1f} MB: {ZIP}")


if __name__ == "__main__":
    main(sys.argv[1:])
