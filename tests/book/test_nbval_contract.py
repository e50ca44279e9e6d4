"""nbval, run as `make test` runs it, fails where a page is wrong."""

import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from tests.built import ROOT, cells, is_notebook, toc_pages
from tools import notebooks

pytestmark = pytest.mark.slow

NBVAL = ["-m", "pytest", "-c", str(ROOT / "tests/book/nbval.ini")]
SHELL = ("!", "%pip", "%conda", "%%bash", "%%sh", "%%script", "%system", "%%system", "%sx")


def nbval(folder, source: str, *extra: str, stored: str | None = None):
    """Run a one-cell notebook; `stored` makes it a checked cell with that expected output."""
    cell = new_code_cell(source)
    if stored is not None:
        cell.metadata["tags"] = [notebooks.TAG]
        cell.outputs = [new_output("stream", text=stored)]
        cell.execution_count = 1
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = folder / "page.ipynb"
    nbformat.write(new_notebook(cells=[cell], metadata={"kernelspec": kernel}), path)
    command = [sys.executable, *NBVAL, *extra, str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize(
    ("source", "stored"), [("assert 1 + 1 == 2", None), ("print(3)", "3\n"), ("print(4)", None)]
)
def test_a_right_cell_passes(tmp_path, source, stored):
    result = nbval(tmp_path, source, stored=stored)
    assert result.returncode == 0, result.stdout


def test_a_changed_output_of_a_checked_cell_fails(tmp_path):
    result = nbval(tmp_path, "print(4)", stored="3\n")
    assert result.returncode == 1, result.stdout
    assert "mismatch" in result.stdout


def test_a_false_assert_fails(tmp_path):
    result = nbval(tmp_path, "assert 1 + 1 == 3, 'wrong sum'")
    assert result.returncode == 1, result.stdout
    assert "wrong sum" in result.stdout


def test_a_hung_cell_fails_at_the_timeout(tmp_path):
    result = nbval(tmp_path, "import time; time.sleep(60)", "--nbval-cell-timeout=2")
    assert result.returncode == 1, result.stdout
    assert "Timeout" in result.stdout


def test_the_timeout_is_set_where_the_build_reads_it():
    assert "--nbval-cell-timeout=" in (ROOT / "tests/book/nbval.ini").read_text("utf-8")
    assert '"-c", "tests/book/nbval.ini"' in (ROOT / "tools/build.py").read_text("utf-8")


PAGE = """---
kernelspec: {display_name: Python 3, language: python, name: python3}
---
# Page

```{code-cell} ipython3
:tags: [nbval-check-output]

print(1 + 1)
```
"""


def test_stored_outputs_reach_the_checked_cell_and_a_missing_one_says_so(tmp_path):
    page, to = tmp_path / "01-page.md", tmp_path / "01-page.ipynb"
    page.write_text(PAGE)
    notebooks.convert(page, to, tmp_path)
    assert "make outputs" in nbformat.read(to, 4).cells[1].outputs[0].text
    notebooks.store_outputs(page, tmp_path)
    notebooks.convert(page, to, tmp_path)
    assert nbformat.read(to, 4).cells[1].outputs[0].text == "2\n"


def test_no_page_runs_shell_commands():
    pages = [ROOT / f"{page}.md" for page in toc_pages()]
    lines = [
        f"{page.name}: {line}"
        for page in pages
        if is_notebook(page)
        for cell in cells(page)
        if cell.cell_type == "code"
        for line in cell.source.splitlines()
        if line.lstrip().startswith(SHELL)
    ]
    assert lines == []
