"""The built decks of slides, in a browser that has no internet."""

import re
import runpy
import sys

import pytest

from tests.built import ROOT, SITE, built_html, chapters

FOLDER = SITE / "slides"
DECKS = [c.stem for c in chapters() if (ROOT / f"book/slides/{c.name}").is_file()]
SHOW_ALL = """async i => {
    const slide = Reveal.getIndices(Reveal.getSlides()[i]);
    Reveal.slide(slide.h, slide.v);
    let keys = 0;
    while (Reveal.availableFragments().next && keys++ < 100) Reveal.nextFragment();
    await Promise.all([...Reveal.getCurrentSlide().querySelectorAll('img')].map(i => i.decode()));
}"""
OUTSIDE = """() => {
    const canvas = document.querySelector('.reveal .slides').getBoundingClientRect();
    return [...Reveal.getCurrentSlide().querySelectorAll('*')]
        .filter(e => !e.closest('aside, mjx-assistive-mml, mjx-stretchy-v'))
        .map(e => [e, e.getBoundingClientRect()])
        .filter(([e, box]) => box.width && (box.left < canvas.left - 2 ||
            box.right > canvas.right + 2 || box.bottom > canvas.bottom + 2))
        .map(([e, box]) => `${e.tagName}.${e.className} ${e.textContent.slice(0, 40)}`).slice(0, 3);
}"""
SMALL = """() => [...Reveal.getCurrentSlide().querySelectorAll('p, li, td, th, div.math')]
    .filter(e => !e.closest('aside') && e.textContent.trim())
    .filter(e => parseFloat(getComputedStyle(e).fontSize) < 28)
    .map(e => e.textContent.slice(0, 40))"""
NO_ALT = "() => [...document.querySelectorAll('.slides img')].filter(i => !i.alt).map(i => i.src)"


def open_deck(page, address: str) -> None:
    page.goto(address)
    page.wait_for_selector("html[data-ready]", state="attached")


@pytest.mark.slow
@pytest.mark.parametrize("deck", DECKS)
def test_a_deck_fits_its_slides_and_stays_on_the_site(browser, origins, deck):
    if not (FOLDER / ".complete").exists():
        pytest.skip("the slides are not built: run `make slides`")
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    page, wrong = context.new_page(), []
    page.on("request", lambda r: r.url.startswith(("file:", "data:", "blob:")) or wrong.append(r))
    page.on("requestfailed", lambda r: wrong.append(r.url))
    page.on("console", lambda m: m.type == "error" and wrong.append(m.text))
    open_deck(page, f"{origins['file']}slides/{deck}.html")
    assert page.locator("mjx-merror").all_text_contents() == []
    assert page.evaluate(NO_ALT) == [], "pictures without alt text"
    slides = page.evaluate("Reveal.getTotalSlides()")
    assert slides >= _planned(deck)
    for i in range(slides):
        page.evaluate(SHOW_ALL, i)
        if outside := page.evaluate(OUTSIDE):
            wrong.append(f"slide {i + 1} overflows: {outside}")
        if small := page.evaluate(SMALL):
            wrong.append(f"slide {i + 1} has small text: {small}")
    context.close()
    assert wrong == []


@pytest.mark.slow
def test_the_longest_deck_prints_to_as_many_pages_as_slides_or_more(browser, origins):
    """Printing is reveal.js's: it is the same for all decks, whose slides are counted above."""
    if not (FOLDER / ".complete").exists():
        pytest.skip("the slides are not built: run `make slides`")
    deck = max(DECKS, key=_planned)
    context = browser.new_context()
    page = context.new_page()
    open_deck(page, f"{origins['file']}slides/{deck}.html?print-pdf")
    page.wait_for_selector(".pdf-page")
    printed = page.pdf(prefer_css_page_size=True, print_background=True)
    pages = len(re.findall(rb"/Type\s*/Page\b", printed))
    assert pages >= _planned(deck) > 5
    context.close()


@pytest.mark.slow
@pytest.mark.parametrize("deck", DECKS)
def test_a_page_links_to_its_deck_and_both_number_equations_alike(deck):
    page = built_html(f"book/{deck}")
    assert f'href="../slides/{deck}.html"' in page
    sys.path.insert(0, str(ROOT / "book/_ext"))
    import pull

    source = (ROOT / f"book/{deck}.md").read_text("utf-8")
    equations = pull.read_equations(source, pull.chapter_numbers()[deck])
    assert equations
    for label, (_, number) in equations.items():
        assert re.search(rf'id="equation-{label}".*?\({number}\)<', page, re.DOTALL)
    assert label in page


def test_a_chapter_that_is_left_out_has_no_deck(tmp_path, monkeypatch):
    toc = (ROOT / "_toc.yml").read_text("utf-8")
    line = "      - file: book/30-smoothgrad\n"
    assert line in toc
    (tmp_path / "_toc.yml").write_text(toc.replace(line, ""))
    monkeypatch.syspath_prepend(str(ROOT / "book/_ext"))
    import pull

    pull.chapter_numbers.cache_clear()
    monkeypatch.setattr(pull, "ROOT", tmp_path)
    conf = runpy.run_path(str(ROOT / "book/slides/conf.py"))
    pull.chapter_numbers.cache_clear()
    assert conf["exclude_patterns"] == ["README.md", "30-smoothgrad.md"]


@pytest.mark.slow
def test_a_wrong_label_is_an_error_that_names_the_labels_there_are(tmp_path):
    from sphinx.testing.util import SphinxTestApp

    if not (SITE / ".complete").exists():
        pytest.skip("the chapters have not been run: run `make book`")
    conf = (ROOT / "book/slides/conf.py").read_text("utf-8")
    source = tmp_path / "book/slides"
    source.mkdir(parents=True)
    (source / "static").mkdir()
    folder = str(ROOT / "book/_ext")
    (source / "conf.py").write_text(
        conf.replace('str(Path(__file__).parents[1] / "_ext")', repr(folder))
    )
    (source / "index.md").write_text("# A\n\n:::{pull} fig-no\n:chapter: 30-smoothgrad\n:::\n")
    app = SphinxTestApp("revealjs", source, tmp_path / "out")
    app.build()
    said = app.warning.getvalue()
    app.cleanup()
    assert "30-smoothgrad has no 'fig-no'" in said
    for label in (
        "fig-sg-hook",
        "eq-sg-blur",
        "slider noise level",
        "question You double",
        "summary",
    ):
        assert label in said


def _planned(deck: str) -> int:
    """The slides of a deck that have notes with minutes, which each slide has."""
    html = (FOLDER / f"{deck}.html").read_text("utf-8")
    return len(re.findall(r'<aside class="notes" data-minutes', html))
