"""From the book's pages (MyST Markdown) to the notebooks that nbval checks.

    python tools/notebooks.py convert PAGE NOTEBOOK   one page to one notebook
    python tools/notebooks.py outputs PAGE...         run pages, store their checked outputs

A cell tagged `nbval-check-output` is compared with the output stored in
tests/book/expected_outputs, found by the cell's source. All other cells have to run without an
error.
"""

import json
import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_output

TAG = "nbval-check-output"
EXPECTED = Path(__file__).parents[1] / "tests/book/expected_outputs"
MISSING = (
    "no expected output is stored for this cell: run `make outputs` and look at what changes\n"
)


def checked_cells(notebook) -> list:
    """The code cells whose outputs are compared."""
    return [c for c in notebook.cells if TAG in c.metadata.get("tags", [])]


def read_page(page: Path):
    """A page as a notebook, its cells with stable ids."""
    notebook = jupytext.read(page)
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{i}"
    return notebook


def convert(page: Path, to: Path, expected: Path = EXPECTED) -> None:
    """Write the page as a notebook, with the expected outputs in its checked cells."""
    stored = expected / f"{page.stem}.json"
    known = {}
    if stored.exists():
        known = {e["source"]: e["outputs"] for e in json.loads(stored.read_text("utf-8"))}
    notebook = read_page(page)
    missing = [{"output_type": "stream", "name": "stdout", "text": MISSING}]
    for cell in checked_cells(notebook):
        cell.outputs = [new_output(**o) for o in known.get(cell.source, missing)]
        cell.execution_count = 1  # nbval refuses outputs of a cell that never ran
    to.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, to)


def store_outputs(page: Path, expected: Path = EXPECTED) -> None:
    """Run the page and store what its checked cells print."""
    notebook = read_page(page)
    stored = expected / f"{page.stem}.json"
    if not checked_cells(notebook):
        stored.unlink(missing_ok=True)
        return
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": page.parent}}).execute()
    entries = [
        {"source": c.source, "outputs": [_text(o, page) for o in c.outputs]}
        for c in checked_cells(notebook)
    ]
    text = json.dumps(entries, indent=1, ensure_ascii=False)
    stored.write_text(text + "\n", "utf-8")


def _text(output, page: Path) -> dict:
    """An output as nbformat's plain dict, refused where it is more than text."""
    if output.output_type == "stream":
        return {"output_type": "stream", "name": output.name, "text": output.text}
    kinds = set(output.get("data", {}))
    if output.output_type == "error" or kinds != {"text/plain"}:
        raise SystemExit(f"{page}: a cell tagged {TAG} shows {kinds}; only text is compared")
    output.pop("execution_count", None)
    return dict(output)


def main(command: str, *paths: str) -> None:
    """The command line above."""
    if command == "convert":
        convert(*map(Path, paths))
    elif command == "outputs":
        for path in paths:
            print(f"running {path}", flush=True)
            store_outputs(Path(path))
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])
