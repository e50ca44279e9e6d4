"""The book on paper: links and bookmarks lead to the right page, and handouts keep the answers."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pypdf import PdfReader

from tests.built import ROOT, SITE, chapters, toc_pages
from tools import pdf

pytestmark = pytest.mark.slow

TOC = """
root: book/index
parts:
  - caption: The thread
    chapters: [{file: book/10-one}, {file: book/plain}]
"""
PAGE = """<!doctype html><html><head>
<link rel="stylesheet" href="../_static/print.css"></head><body>
<div class="bd-main"><div class="bd-content"><article class="bd-article">%s</article></div></div>
<script>addEventListener("beforeprint", () => {
  for (const option of document.querySelectorAll("details.option")) option.open = true;
});</script></body></html>"""
INDEX = """<section><h1>The start<a class="headerlink" href="#x">#</a></h1>
<p>Read <a href="10-one.html#place">the place</a>, <a href="10-one.html">the chapter</a>,
<a href="_sources/one.ipynb">its notebook</a> or
<a href="https://example.org/">a page elsewhere</a>.</p></section>"""
ONE = """<section><h1>One</h1>
<h2><span class="section-number">3.1. </span>Long</h2><div class="highlight"><pre>%s</pre></div>
<h2 id="place" style="break-before: page"><span class="section-number">3.2. </span>The place</h2>
<p>Back to <a href="#place">this place</a>.</p>
<figure class="frame-slider"><div class="frame-control"><label>level</label>
<input type="range" data-labels='["none", "half", "all"]'></div>
%s</figure>
<div class="question"><p class="stem">Is it even?</p><details class="option right">
<summary>Two</summary><p>THE-ANSWER</p></details></div>
<div class="exercise"><p>Do it.</p></div><div class="solution"><p>THE-SOLUTION</p></div>
</section>"""
FRAME = '<img width="300" height="100" alt="a" src="../_static/readme.png" hidden>'


def printed(site: Path, root: Path) -> None:
    """Print in a thread of its own: playwright allows one browser in each."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(pdf.main, site, root).result()


@pytest.fixture(scope="module")
def paper(tmp_path_factory) -> Path:
    """A site of three pages after `make pdf`, and then once more."""
    root = tmp_path_factory.mktemp("paper")
    (root / "_toc.yml").write_text(TOC)
    site = root / "html"
    (site / "book").mkdir(parents=True)
    shutil.copytree(ROOT / "book/_static", site / "_static")
    (site / "book/index.html").write_text(PAGE % INDEX)
    (site / "book/10-one.html").write_text(PAGE % (ONE % ("word " * 300, FRAME * 3)))
    row = " ".join(f"{k:5}.125" for k in range(11))  # 109 letters: wider than the column
    columns = f'<div class="cell_output"><pre>{row}\n{row}</pre></div>'
    (site / "book/plain.html").write_text(PAGE % f"<section><h1>Plain</h1>{columns}</section>")
    try:
        (root / "_config.yml").write_text("html: {baseurl: https://book.example/sub}")
        printed(site, root)
        shutil.copy(site / "pdf/averaging-gradients.pdf", site / "with-an-address.pdf")
        (root / "_config.yml").unlink()
        printed(site, root)
    except SystemExit as error:
        (pytest.fail if os.environ.get("REQUIRE_BROWSER") == "1" else pytest.skip)(str(error))
    return site


def text(path: Path) -> list[str]:
    return [page.extract_text() for page in PdfReader(path).pages]


def links(reader: PdfReader, page: int) -> list:
    """Where the links of a page lead: the number of a page, or an address."""
    found = [link.get_object() for link in reader.pages[page].get("/Annots", [])]
    numbers = {p.indirect_reference.idnum: i for i, p in enumerate(reader.pages)}
    return [numbers[a["/Dest"][0].idnum] if "/Dest" in a else str(a["/A"]["/URI"]) for a in found]


def test_the_files_have_their_names_and_say_what_they_are(paper):
    files = {path.name for path in (paper / "pdf").glob("*.pdf")}
    assert files == {"averaging-gradients.pdf", "averaging-gradients-10-one.pdf"}
    book = PdfReader(paper / "pdf/averaging-gradients.pdf")
    assert book.metadata.title == "Averaging Gradients"
    assert book.metadata.author == "The Averaging Gradients authors"


def test_a_handout_has_no_answers_and_the_book_has_them_at_its_end(paper):
    handout = "".join(text(paper / "pdf/averaging-gradients-10-one.pdf"))
    assert "Is it even?" in handout and "Do it." in handout
    assert "THE-ANSWER" not in handout and "THE-SOLUTION" not in handout
    book = text(paper / "pdf/averaging-gradients.pdf")
    assert "THE-ANSWER" in book[-1] and "THE-SOLUTION" in book[-1]
    assert "THE-" not in "".join(book[:-1])


def test_the_contents_name_the_pages_that_the_feet_name(paper):
    book = text(paper / "pdf/averaging-gradients.pdf")
    rows = [line for line in book[1].splitlines() if line[-1:].isdigit()]
    assert len(rows) == 4, rows
    for row in rows:
        title, number = row.rstrip("0123456789").strip(), row.split()[-1].lstrip(". ")
        number = int("".join(c for c in row[len(title) :] if c.isdigit()))
        lines = book[1 + number].split()
        assert str(number) in lines and title.split()[-1] in lines


def test_links_lead_to_the_page_in_the_file_and_never_to_this_machine(paper):
    book = PdfReader(paper / "pdf/averaging-gradients.pdf")
    start = next(i for i, page in enumerate(book.pages) if "Read" in page.extract_text())
    place = next(i for i, p in enumerate(book.pages) if "Back to" in p.extract_text())
    assert links(book, start) == [place, start + 1, "https://example.org/"]
    assert place > start + 1 and links(book, place) == [place]
    assert links(book, 1)[:2] == [start, start + 1], "the contents lead elsewhere"
    handout = PdfReader(paper / "pdf/averaging-gradients-10-one.pdf")
    assert links(handout, len(handout.pages) - 1) == [len(handout.pages) - 1]
    for path in (paper / "pdf").glob("*.pdf"):
        assert b"127.0.0.1" not in path.read_bytes()


def test_with_an_address_links_to_what_the_file_lacks_lead_to_the_site(paper):
    book = PdfReader(paper / "with-an-address.pdf")
    start = next(i for i, page in enumerate(book.pages) if "Read" in page.extract_text())
    assert links(book, start)[2] == "https://book.example/sub/book/_sources/one.ipynb"


def test_the_bookmarks_are_parts_pages_and_sections(paper):
    book = PdfReader(paper / "pdf/averaging-gradients.pdf")
    assert [str(b.title) for b in book.outline if not isinstance(b, list)] == [
        "Title and contents",
        "The start",
        "The thread",
        "Answers and solutions",
    ]
    one, sections, plain = next(b for b in book.outline if isinstance(b, list))
    assert (str(one.title), str(plain.title)) == ("3. One", "Plain")
    assert [str(b.title) for b in sections] == ["3.1. Long", "3.2. The place"]
    assert book.get_destination_page_number(sections[1]) == 4


def test_long_lines_of_code_are_broken_and_not_cut(paper):
    lines = text(paper / "pdf/averaging-gradients-10-one.pdf")[0].splitlines()
    assert sum(line.count("word") for line in lines) == 300
    assert max(map(len, lines)) < 120


def test_columns_of_a_wide_output_stay_columns(paper):
    (page,) = [p for p in text(paper / "pdf/averaging-gradients.pdf") if "10.125" in p]
    rows = [line.split() for line in page.splitlines() if ".125" in line]
    assert [len(row) for row in rows] == [11, 11]


def test_a_slider_is_a_strip_of_frames_under_their_labels(paper):
    book = text(paper / "pdf/averaging-gradients-10-one.pdf")
    assert [label for label in ("none", "half", "all") if f"level: {label}" in "".join(book)] == [
        "none",
        "half",
        "all",
    ]


def test_the_site_links_to_each_file_once(paper):
    for page, file in (("index", "averaging-gradients"), ("10-one", "averaging-gradients-10-one")):
        source = (paper / f"book/{page}.html").read_text("utf-8")
        assert source.count(f'href="../pdf/{file}.pdf"') == 1 == source.count("pdf-download")
        assert " pages, " in source


def test_each_chapter_of_the_book_has_its_handout():
    if not (SITE / "pdf/.complete").exists():
        pytest.skip("nothing is printed: run `make pdf`")
    handouts = {path.name for path in (SITE / "pdf").glob("averaging-gradients-*.pdf")}
    assert handouts == {f"averaging-gradients-{page.stem}.pdf" for page in chapters()}
    book = PdfReader(SITE / "pdf/averaging-gradients.pdf")
    assert len(toc_pages()) <= len(list(book.pages))
