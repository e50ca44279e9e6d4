"""Every page of the built site in a browser that has no internet, over http and from disk."""

from contextlib import suppress
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import pytest

from tests.built import ROOT, SITE, redirects, site_pages

pytestmark = pytest.mark.slow

PAGES = [p.relative_to(SITE).as_posix() for p in site_pages()]
# Pages that are looked at from disk as closely as over http, with and without a slider, and of both
# folders. What other pages need from disk is asked for, and their formulas are not set again.
WHOLE_FROM_DISK = {"book/index.html", "book/30-smoothgrad.html", "book/teach/plans.html"}
READY = """() => document.fonts.ready.then(() =>
    !window.MathJax || (MathJax.startup && MathJax.startup.promise.then(() => true)))"""
SET_NOTHING = "MathJax.startup = {promise: Promise.resolve()};"
RAW_MATH = r"""() => {
    const found = document.querySelector('article') || document.createElement('article');
    const article = found.cloneNode(true);
    article.querySelectorAll('pre, code, mjx-container, script').forEach(e => e.remove());
    return article.textContent.match(/\$\$|\\\(|\\\[|\\begin\{/g) || [];
}"""
TOO_WIDE = """() => {
    const width = document.documentElement.clientWidth;
    const scrolls = e => e && (getComputedStyle(e).overflowX != 'visible' ||
        getComputedStyle(e).position == 'fixed' || scrolls(e.parentElement));
    return document.documentElement.scrollWidth <= width ? [] :
        [...document.querySelectorAll('main *')]
            .filter(e => e.getBoundingClientRect().right > width + 1 && !scrolls(e.parentElement))
            .map(e => `${e.tagName}.${e.className} ${e.textContent.trim().slice(0, 40)}`)
            .concat([`page ${document.documentElement.scrollWidth} px`]);
}"""
SHOWN = """figure => [...figure.querySelectorAll('img')].filter(i => i.checkVisibility())
    .map(i => i.src)"""


SCROLLS = """selector => [...document.querySelectorAll(selector)]
    .filter(e => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1)
    .map(e => `${e.scrollWidth - e.clientWidth} px: ${e.textContent.trim().slice(0, 60)}`)"""
INLINE = """() => [...new Set([...document.querySelectorAll('article span.math')]
    .map(e => getComputedStyle(e).overflowX))]"""
UNFOLD = "() => document.querySelectorAll('article details').forEach(e => { e.open = true; })"


class Visit:
    """A page that was opened, and what went wrong meanwhile."""

    def __init__(self, context, origin: str, name: str, *, formulas: bool = True):
        self.name, self.errors, self.failed, self.foreign = name, [], [], []
        self.formulas = formulas
        self.page = context.new_page()
        self.page.set_default_timeout(120_000)  # milliseconds; the machine may do other work
        self.origin = origin
        self.page.route("**/*", self._answer)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.on("requestfailed", lambda r: self.failed.append(f"{r.failure} {r.url[:200]}"))
        self.page.on("response", self._response)
        self.page.goto(origin + name, wait_until="load")
        self.page.wait_for_function(READY)

    def went_wrong(self) -> dict[str, list[str]]:
        """What failed until nothing more is asked for."""
        from playwright.sync_api import TimeoutError as StillBusy

        with suppress(StillBusy):  # a connection may stay open; what failed is recorded
            self.page.wait_for_load_state("networkidle", timeout=20_000)
        found = {
            "requests that leave the site": self.foreign,
            "failed requests": self.failed,
            "console errors": self.errors,
        }
        return {what: where for what, where in found.items() if where}

    def _answer(self, route):
        url = route.request.url
        if not url.startswith((self.origin, "data:", "blob:", "about:")):
            self.foreign.append(url)
            route.abort()
        elif (
            not self.formulas
            and "/mathjax/" in url
            and Path(url2pathname(urlparse(url).path)).exists()
        ):
            route.fulfill(body=SET_NOTHING, content_type="text/javascript")
        else:
            route.continue_()

    def _console(self, message):
        if message.type == "error":
            self.errors.append(message.text)

    def _response(self, response):
        if response.status >= 400:
            self.failed.append(f"{response.status} {response.url}")


@pytest.fixture(
    scope="module",
    params=[
        (origin, page)
        for page in PAGES or ["no page"]
        for origin in ("http", "file")
        if origin == "http" or page in WHOLE_FROM_DISK
    ],
    ids=str,
)
def visit(browser, origins, request):
    origin, name = request.param
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield Visit(context, origins[origin], name)
    context.close()


def test_formulas_are_rendered(visit):
    formulas = visit.page.locator("article .math").count()
    rendered = visit.page.locator("article mjx-container").count()
    assert rendered >= formulas, "formulas that MathJax did not render"
    assert visit.page.locator("mjx-merror, [data-mjx-error]").all_text_contents() == []
    assert visit.page.evaluate(RAW_MATH) == [], "formulas left as text"


def test_each_slider_changes_its_picture_and_says_its_value(visit):
    source = ROOT / visit.name.replace(".html", ".md")
    text = source.read_text("utf-8") if source.exists() else ""
    figures = visit.page.locator(".frame-slider")
    assert figures.count() == text.count("tl.widgets.slider(")
    for figure in figures.all():
        handle = figure.get_by_role("slider")
        assert figure.locator("label").inner_text().strip()
        before, value = figure.evaluate(SHOWN), handle.get_attribute("aria-valuetext")
        assert len(before) == 1, "one frame is seen"
        handle.press("ArrowRight")
        if figure.evaluate(SHOWN) == before:
            handle.press("ArrowLeft")
        assert figure.evaluate(SHOWN) != before, "the slider moved and its picture stayed"
        assert handle.get_attribute("aria-valuetext") != value
        assert figure.locator(".frame-label").inner_text() == handle.get_attribute("aria-valuetext")
        figure.locator("img:visible").evaluate("image => image.decode()")  # the file is there


def test_nothing_is_wider_than_a_phone(visit):
    visit.page.set_viewport_size({"width": 390, "height": 844})
    visit.page.wait_for_timeout(200)
    assert visit.page.evaluate(TOO_WIDE) == []


def test_code_and_formulas_fit_beside_the_sidebars(visit):
    visit.page.set_viewport_size({"width": 1300, "height": 900})
    visit.page.evaluate(UNFOLD)
    for selector in ("article .cell_input pre", "article div.math"):
        assert visit.page.evaluate(SCROLLS, selector) == [], f"{selector} scrolls sideways"
    assert visit.page.evaluate(INLINE) in ([], ["visible"]), "formulas in the text have scrollbars"


def test_nothing_has_failed_and_nothing_has_left_the_site(visit):
    """The last look at a visit, so that it sees what sliders and another width ask for, too."""
    assert visit.went_wrong() == {}


@pytest.mark.parametrize("name", [p for p in PAGES if p not in WHOLE_FROM_DISK])
def test_nothing_fails_from_disk(browser, origins, name):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    assert Visit(context, origins["file"], name, formulas=False).went_wrong() == {}
    context.close()


@pytest.mark.parametrize("origin", ["http", "file"])
def test_a_question_is_answered_with_the_keyboard_and_a_click_enlarges_a_figure(
    browser, origins, origin
):
    context = browser.new_context(viewport={"width": 1300, "height": 900})
    page = Visit(context, origins[origin], "book/10-taylor.html").page
    option = page.locator("details.option").first
    option.locator("summary").press("Enter")
    assert option.get_attribute("open") is not None
    assert option.locator("p").first.is_visible()
    figure = page.locator("article figure img").first
    before = figure.bounding_box()["width"]
    figure.click()
    large = page.locator("dialog.enlarged img")
    assert large.get_attribute("src") == figure.evaluate("image => image.src")
    assert large.bounding_box()["width"] > before
    page.keyboard.press("Escape")
    large.wait_for(state="hidden")
    figure.press("Enter")
    assert large.is_visible()
    context.close()


@pytest.mark.parametrize("origin", ["http", "file"])
def test_an_old_address_leads_to_the_page_and_to_its_place(browser, origins, origin):
    context = browser.new_context()
    page = context.new_page()
    for old, new in redirects().items():
        assert (SITE / new).exists()
        page.goto(f"{origins[origin]}{old}#the-idea", wait_until="commit")
        page.wait_for_url(f"{origins[origin]}{new}#the-idea", wait_until="commit")
    page.goto(f"{origins[origin]}index.html", wait_until="commit")
    page.wait_for_url(f"{origins[origin]}book/index.html", wait_until="commit")
    context.close()


@pytest.mark.parametrize("origin", ["http", "file"])
def test_search_finds_a_page_without_a_server(browser, origins, origin):
    context = browser.new_context()
    visit = Visit(context, origins[origin], "search.html?q=gradient")
    visit.page.locator("#search-results li a").first.wait_for()
    assert visit.went_wrong() == {}
    context.close()
