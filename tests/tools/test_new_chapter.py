"""`make chapter` writes a page that passes, with a photograph and a network of one's own."""

import os
import shutil
import time

import pytest
import torch
from nbclient import NotebookClient
from PIL import Image

from tests.book import contract
from tests.built import ROOT, python_blocks
from tools import new_chapter, notebooks, run_pages


@pytest.fixture
def root(tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "book/90-fast.md").write_text("# Fast\n")
    shutil.copy(ROOT / "_toc.yml", tmp_path / "_toc.yml")
    return tmp_path


@pytest.fixture
def photo(tmp_path):
    """A photograph held upright: 40 wide and 60 high once it is turned."""
    picture, exif = Image.new("RGB", (60, 40), "teal"), Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "mine.jpg", exif=exif)
    return tmp_path / "mine.jpg"


def test_the_page_keeps_the_contract_of_chapters(root, photo):
    page = new_chapter.new_chapter(root, "my-topic", photo)
    text = page.read_text("utf-8")
    assert page.name == "95-my-topic.md"
    assert contract.source_problems(text) == contract.cell_problems(text) == []
    labels, checked = contract.labelled_equations(text), contract.checked_equations(text)
    assert contract.equation_problems(labels, checked) == [] != labels
    assert "NAME" not in text and "TITLE" not in text


def test_the_photograph_is_upright_and_the_page_stands_behind_the_last_chapter(root, photo):
    new_chapter.new_chapter(root, "my-topic", photo)
    assert Image.open(root / "book/photos/my-topic.jpg").size == (40, 60)
    lines = (root / "_toc.yml").read_text("utf-8").splitlines()
    old = (ROOT / "_toc.yml").read_text("utf-8").splitlines()
    assert [line for line in lines if line not in old] == ["      - file: book/95-my-topic"]
    assert lines[lines.index("      - file: book/95-my-topic") - 1] == "      - file: book/90-fast"


def test_a_second_page_gets_the_next_number(root):
    first = new_chapter.new_chapter(root, "one")
    assert first.name == "95-one.md"
    assert new_chapter.new_chapter(root, "two").name == "96-two.md"


@pytest.mark.parametrize(
    ("name", "photo", "said"),
    [
        ("My topic", None, "NAME: 'My topic' given, expected small letters"),
        ("", None, "NAME"),
        ("fast", None, "NAME: 'fast' is taken by book/90-fast.md"),
        ("new", "none.jpg", "PHOTO: there is no file none.jpg"),
    ],
)
def test_a_wrong_name_or_photograph_says_what_to_write(root, name, photo, said):
    before = sorted(root.rglob("*"))
    with pytest.raises(SystemExit, match=said):
        new_chapter.new_chapter(root, name, photo and root.joinpath(photo).relative_to(root))
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize("kind", ["no picture", "cut short", "label", "no chapter"])
def test_what_cannot_be_made_is_refused_before_anything_is_written(root, photo, kind):
    if kind == "no picture":
        photo.write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))  # a telephone's own format
    elif kind == "cut short":
        photo.write_bytes(photo.read_bytes()[:300])
    elif kind == "label":
        (root / "book/90-fast.md").write_text("(chap-my-topic)=\n# Fast\n")
    else:
        (root / "_toc.yml").write_text("format: jb-book\nroot: book/index\n")
    before = {p: p.is_file() and p.read_bytes() for p in root.rglob("*")}
    said = {"label": "NAME: .*chap-my-topic, which book/90-fast.md has", "no chapter": "_toc.yml"}
    with pytest.raises(SystemExit, match=said.get(kind, "PHOTO: .*mine.jpg")):
        new_chapter.new_chapter(root, "my-topic", photo)
    assert {p: p.is_file() and p.read_bytes() for p in root.rglob("*")} == before


def test_a_photograph_that_is_there_already_stays(root, photo):
    (root / "book/photos").mkdir()
    there = photo.rename(root / "book/photos/my-topic.jpg")
    before = there.read_bytes()
    new_chapter.new_chapter(root, "my-topic")
    assert there.read_bytes() == before


@pytest.mark.parametrize("mode", ["CMYK", "RGBA", "I;16", "L", "P"])
def test_a_photograph_of_any_kind_and_name_becomes_a_jpeg(root, tmp_path, mode):
    photo = tmp_path / ("Größe 1.tif" if mode in ("CMYK", "I;16") else "mein Bild é.png")
    Image.new(mode, (2000, 30)).save(photo)
    new_chapter.new_chapter(root, "my-topic", photo)
    written = Image.open(root / "book/photos/my-topic.jpg")
    assert (written.format, written.mode, written.width) == ("JPEG", "RGB", 1600)


@pytest.mark.slow
def test_the_page_runs_with_a_network_of_ones_own(root, monkeypatch):
    """The lines of the page that says how take the place of the template's network."""
    page = new_chapter.new_chapter(root, "my-topic")
    (own,) = [b for b in python_blocks("book/teach/own-chapter.md") if "Classifier(" in b]
    text = page.read_text("utf-8")
    theirs = 'model = tl.load_model("efficientnet_lite0")\n'
    assert theirs in text
    text = text.replace(theirs, own).replace("steps=100", "steps=10").replace("4, 8, 16", "4")
    page.write_text(text, "utf-8")
    from torchvision.models import resnet18

    torch.manual_seed(0)
    (root / "book/weights").mkdir()
    torch.save(resnet18(num_classes=2).state_dict(), root / "book/weights/mine.pt")
    notebook = notebooks.read_page(page)
    folder = {"metadata": {"path": root / "book"}}
    NotebookClient(notebook, timeout=300, resources=folder).execute()
    printed = [o.get("text", "") for c in notebook.cells for o in c.get("outputs", [])]
    assert any("The network says: cat" in t or "The network says: dog" in t for t in printed)


def pretend(ran: list):
    """A run that only notes which page it was."""
    return lambda page, notebook, made: ran.append(page) or run_pages.Run(0.0, True, True, "")


@pytest.mark.slow
def test_a_photograph_that_changes_has_its_page_run_again(root, monkeypatch):
    page = new_chapter.new_chapter(root, "my-topic")
    page.write_text(
        "---\nkernelspec: {display_name: Python 3, language: python, name: python3}\n---\n"
        '# Page\n\n```{code-cell} ipython3\nopen("photos/my-topic.jpg", "rb").read(2)\n```\n'
    )
    monkeypatch.setattr(run_pages, "CACHE", root / "cache")
    ran = []
    monkeypatch.setattr(run_pages, "NOTEBOOKS", root / "notebooks")
    monkeypatch.setattr(run_pages, "run", pretend(ran))
    for _ in range(2):
        assert run_pages.main([page]) == 0
    assert ran == [page], "a page whose photograph is as it was is not run again"
    later = time.time() + 60
    os.utime(root / "book/photos/my-topic.jpg", (later, later))
    assert run_pages.main([page]) == 0
    assert ran == [page, page]


@pytest.mark.slow
def test_a_stored_result_that_changes_has_the_pages_that_name_it_run_again(root, monkeypatch):
    head = "---\nkernelspec: {display_name: Python 3, language: python, name: python3}\n---\n"
    pages = [root / "book/a.md", root / "book/b.md"]
    for page, name in zip(pages, ("rates", "other/rates-2"), strict=True):
        page.write_text(f'{head}# A\n\n```{{code-cell}} python\nload_results("{name}")\n```\n')
    (root / "results/other").mkdir(parents=True)
    monkeypatch.setattr(run_pages, "RESULTS", root / "results")
    monkeypatch.setattr(run_pages, "CACHE", root / "cache")
    ran = []
    monkeypatch.setattr(run_pages, "NOTEBOOKS", root / "notebooks")
    monkeypatch.setattr(run_pages, "run", pretend(ran))
    for i, name in enumerate(("rates.csv", "other/rates-2.json"), 1):
        (root / "results" / name).touch()
        later = time.time() + 60 * i
        run_pages.main(pages)
        os.utime(root / "results" / name, (later, later))
        ran.clear()
        run_pages.main(pages)
        assert ran == [pages[i - 1]]
        os.utime(root / "results" / name, (0, 0))
