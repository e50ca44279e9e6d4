"""axe-core finds no barrier on any page, light and dark, on a wide screen and on a phone.

Formulas are MathJax's own and are not set here. What a page repeats, such as paragraphs of one
kind, is looked at once: axe takes a minute for a chapter otherwise.
"""

from pathlib import Path

import axe_playwright_python
import pytest

from tests.built import SITE, site_pages

pytestmark = pytest.mark.slow

AXE = Path(axe_playwright_python.__file__).parent / "axe.min.js"
KEEP_ONE_OF_A_KIND = r"""() => {
    const name = e => e.tagName + '.' + e.classList;
    const place = e => e.parentElement ? place(e.parentElement) + '>' + name(e) : name(e);
    document.querySelectorAll('details').forEach(e => { e.open = true; });
    const seen = new Set();
    for (const e of document.querySelectorAll('pre span')) {
        if (seen.has(name(e))) e.replaceWith(e.textContent); else seen.add(name(e));
    }
    document.body.normalize();
    for (const e of document.querySelectorAll('article :is(section > *, p, li, tr, dl), nav li')) {
        const kinds = [e, ...e.querySelectorAll('*')].map(place);
        if (kinds.every(k => seen.has(k)) && !e.matches('section')) e.remove();
        else if (!e.matches('section')) kinds.forEach(k => seen.add(k));
    }
}"""
SET_THEME = "theme => { document.documentElement.dataset.theme = theme; }"
RUN = """async rules => {
    const options = {resultTypes: ['violations'], preload: false};
    if (rules) options.runOnly = rules;
    const found = await axe.run(document, options);
    return found.violations.filter(v => ['serious', 'critical'].includes(v.impact))
        .flatMap(v => v.nodes.map(n => [v.id, n.html.slice(0, 300) + ' ' + n.failureSummary]));
}"""


@pytest.fixture(scope="module")
def visitor(browser, origins):
    """A page without MathJax, which can be sent to any page of the site."""
    context = browser.new_context()
    context.route("**/mathjax/**", lambda route: route.abort())
    page = context.new_page()
    page.set_default_timeout(120_000)
    yield lambda name: (page.goto(origins["http"] + name, wait_until="load"), page)[1]
    context.close()


def findings(page) -> set[tuple[str, str]]:
    """What axe finds in the page in each theme and width: (rule, element and reason)."""
    page.evaluate(KEEP_ONE_OF_A_KIND)
    page.add_script_tag(path=AXE)
    page.add_style_tag(content="* { transition: none !important; }")  # colours at once
    found = set()
    for width in (1300, 390):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(500)  # the theme makes boxes that scroll focusable a while later
        for theme in ("light", "dark"):
            page.evaluate(SET_THEME, theme)
            rules = None if theme == "light" else ["color-contrast"]  # a theme is its colours
            found |= {(r, f"{theme}, {width} px: {why}") for r, why in page.evaluate(RUN, rules)}
    return found


@pytest.mark.parametrize("name", [p.relative_to(SITE).as_posix() for p in site_pages()])
def test_axe_finds_no_serious_barrier(visitor, name):
    assert findings(visitor(name)) == set()


def test_axe_would_notice_a_barrier(visitor):
    page = visitor("book/30-smoothgrad.html")
    page.evaluate(
        """() => { const main = document.querySelector('article');
        main.insertAdjacentHTML('afterbegin', '<input type="range" class="unnamed">' +
            '<p style="color: #bbb; background: #fff">pale</p>'); }"""
    )
    assert {"label", "color-contrast"} <= {rule for rule, _ in findings(page)}
