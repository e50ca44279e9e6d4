"""The zip of figures has each figure once, under its name, with its caption and the licence."""

import zipfile

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook, new_output

from tools import figures


def figure_cell(name: str, **data):
    cell = new_code_cell("draw()", outputs=[new_output("display_data", data=data)])
    cell.metadata["mystnb"] = {"figure": {"name": name, "caption": "A caption"}}
    return cell


def test_figures_are_found_by_their_names_and_other_outputs_are_none():
    png = {"image/png": "cGljdHVyZQ==", "text/plain": "<Figure>"}
    plain = new_code_cell("x", outputs=[new_output("display_data", data=png)])
    notebook = new_notebook(cells=[figure_cell("fig-a", **png), plain])
    assert figures.page_figures(notebook, "png") == {"fig-a": b"picture"}
    assert figures.page_figures(notebook, "svg") == {}
    drawn = new_notebook(cells=[figure_cell("fig-b", **{"image/svg+xml": "<svg/>"})])
    assert figures.page_figures(drawn, "svg") == {"fig-b": b"<svg/>"}


def test_the_zip_has_captions_and_the_licence(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "ZIP", tmp_path / "teacher/figures.zip")
    figures.write({"fig-a.png": b"a", "fig-a.svg": b"b"}, ["fig-a: Fig. 1 A &lt; b"])
    archive = zipfile.ZipFile(tmp_path / "teacher/figures.zip")
    wanted = {"png/fig-a.png", "svg/fig-a.svg", "captions.txt", "LICENSE.txt"}
    assert set(archive.namelist()) == {f"figures/{name}" for name in wanted}
    assert archive.read("figures/captions.txt").decode() == "fig-a: Fig. 1 A &lt; b\n"
    assert b"Creative Commons" in archive.read("figures/LICENSE.txt")


@pytest.mark.slow
def test_captions_come_from_the_built_page(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "SITE", tmp_path)
    (tmp_path / "book").mkdir()
    caption = (
        '<figcaption><p><span>Fig. 1.2 </span>A\n line<a class="headerlink">#</a></p></figcaption>'
    )
    (tmp_path / "book/a.html").write_text(f'<figure id="fig-a"><img>{caption}</figure>')
    assert figures.captions("a") == ["fig-a: Fig. 1.2 A line"]
    assert figures.captions("none") == []


def test_an_unknown_format_says_which_there_are():
    with pytest.raises(SystemExit, match="gif: expected svg, pdf or nothing"):
        figures.main(["gif"])


@pytest.mark.slow
def test_the_first_cell_makes_the_kernel_draw_in_the_formats(tmp_path):
    drawn = "import matplotlib.pyplot as plt\nfigure, ax = plt.subplots()\nax.plot([1, 2])\nfigure"
    cell = new_code_cell(drawn)
    cell.metadata["mystnb"] = {"figure": {"name": "fig-a"}}
    first = new_code_cell(figures.FIRST.format(formats=["svg", "pdf"]))
    notebook = nbformat.from_dict(new_notebook(cells=[first, cell]))
    NotebookClient(notebook, timeout=120).execute()
    assert b"<svg" in figures.page_figures(notebook, "svg")["fig-a"]
    assert figures.page_figures(notebook, "pdf")["fig-a"].startswith(b"%PDF")
