"""The photographs and weights of its own that a page reads: files below the page's folder."""

import re
from pathlib import Path

NAME = re.compile(r"[\"']((?:photos|weights)/[^\"']+)")


def code_of(notebook) -> str:
    """All code of a notebook."""
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")


def own_files(folder: Path, notebook) -> list[str]:
    """The files below a page's folder that its code names."""
    return sorted({name for name in NAME.findall(code_of(notebook)) if (folder / name).exists()})
