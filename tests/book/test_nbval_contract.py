"""nbval, run as the book runs it, fails where a page is wrong, and keeps what it saw."""

import json
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tests.built import ROOT, cells, is_notebook, toc_pages
from tools import notebooks, run_pages

pytestmark = pytest.mark.slow

SHELL = ("!", "%pip", "%conda", "%%bash", "%%sh", "%%script", "%system", "%%system", "%sx")


def test_a_hung_cell_fails_at_the_timeout(tmp_path):
    path = tmp_path / "page.ipynb"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    hung = new_code_cell("import time; time.sleep(60)")
    nbformat.write(new_notebook(cells=[hung], metadata={"kernelspec": kernel}), path)
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "tests/book/nbval.ini")]
    command += ["--nbval-cell-timeout=2", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert result.returncode == 1, result.stdout
    assert "Timeout" in result.stdout


def test_the_timeout_is_set_where_the_build_reads_it():
    assert "--nbval-cell-timeout=" in (ROOT / "tests/book/nbval.ini").read_text("utf-8")
    assert "tests/book/nbval.ini" in run_pages.NBVAL


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


HEAD = "---\nkernelspec: {display_name: Python 3, language: python, name: python3}\n---\n# Page\n"
CHECKED = ":tags: [nbval-check-output]\n\n"
SLIDER = """
import ipywidgets
print("first")
ipywidgets.IntSlider(7, description="seven")
"""


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Run one page of these cells as a book would, with what is stored for its checked cells."""
    for name in ("CACHE", "NOTEBOOKS", "RESULTS"):
        monkeypatch.setattr(run_pages, name, tmp_path / name)
    monkeypatch.setattr(notebooks, "EXPECTED", tmp_path)

    def run(*cells: str, stored: dict | None = None, checked: bool = False):
        page = tmp_path / "page.md"
        page.write_text(HEAD + "".join(f"```{{code-cell}} python\n{c}\n```\n\n" for c in cells))
        entries = [
            {"source": k, "outputs": [{"output_type": "stream", "name": "stdout", "text": v}]}
            for k, v in (stored or {}).items()
        ]
        (tmp_path / "page.json").write_text(json.dumps(entries))
        failed = run_pages.main([page], checked)
        notebook = run_pages.myst_nb_reader_plugin(str(page))
        try:
            _, found = run_pages.get_cache(run_pages.CACHE).merge_match_into_notebook(notebook)
        except KeyError:
            return failed, None
        return failed, found

    return run


def test_the_site_shows_what_nbval_saw(small, capfd):
    printing = "import sys, time\nprint(1, flush=True)\ntime.sleep(0.3)\nprint(1, flush=True)\n2"
    failed, found = small(printing, SLIDER)
    assert failed == 0
    first, second = run_pages.code_cells(found)
    assert [o.output_type for o in first.outputs] == ["stream", "execute_result"]
    assert first.outputs[0].text == "1\n1\n"
    assert first.outputs[1].data["text/plain"] == "2" and second.execution_count == 2
    view = second.outputs[1].data["application/vnd.jupyter.widget-view+json"]
    state = found.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    assert state[view["model_id"]]["state"]["description"] == "seven"
    assert "(1 of 1)" in capfd.readouterr().out
    small(printing, SLIDER, checked=True)
    assert capfd.readouterr().out == "", "a page that has passed is run a second time"


def test_another_output_than_is_stored_is_built_and_does_not_pass(small, capfd):
    cell = CHECKED + "print(4)"
    failed, found = small(cell, stored={"print(4)": "3\n"})
    assert failed == 0 and run_pages.code_cells(found)[0].outputs[0].text == "4\n"
    assert "make test" in capfd.readouterr().out
    assert small(cell, stored={"print(4)": "3\n"}, checked=True)[0] == 1
    assert "mismatch" in capfd.readouterr().out
    assert small(cell, stored={"print(4)": "4\n"}, checked=True)[0] == 0


def test_a_page_with_an_error_is_not_built(small, capfd):
    failed, found = small("print(1)", "assert 1 + 1 == 3, 'wrong sum'", "print(2)")
    assert failed == 1 and found is None
    assert "wrong sum" in capfd.readouterr().out
