"""axe-core finds no barrier on any page, light and dark, on a wide screen and on a phone.

Formulas are MathJax's own and are not set here. What pages repeat, such as paragraphs of one kind,
is looked at once: axe takes a minute for a chapter otherwise.
"""

from pathlib import Path

import axe_playwright_python
import pytest

from tests.built import SITE, site_pages

pytestmark = pytest.mark.slow

AXE = Path(axe_playwright_python.__file__).parent / "axe.min.js"
# Two elements are of one kind where axe's rules cannot tell them apart: by their place, their
# attributes, whether there is text, what they refer to, and how they look in both themes.
KEEP_WHAT_IS_NEW = r"""known => {
    const numbers = new Map(JSON.parse(known)), first = new Set(), needed = new Set();
    const refers = /^(for|headers|aria-(labelledby|describedby|controls|owns|details))$/;
    const decides = /^(role|type|scope|lang|tabindex|aria-(?!label$|valuetext$).*)$/;
    const there = id => id && document.getElementById(id) ? 'there' : 'missing';
    const attribute = (e, {name, value}) => name == 'class' ? '' : name == 'style' ? [...e.style] :
        refers.test(name) ? name + value.split(/\s+/).map(there) :
        decides.test(name) ? name + value : value.trim() ? name : name + ' is empty';
    const attributes = e => [...e.attributes].map(a => attribute(e, a)).sort();
    const scrolls = e => e.scrollWidth > e.clientWidth || e.scrollHeight > e.clientHeight;
    const looks = new Map();
    const look = theme => {
        document.documentElement.dataset.theme = theme;
        for (const e of document.body.querySelectorAll('*')) {
            const s = getComputedStyle(e);
            looks.set(e, theme == 'dark' ? [s.color, s.backgroundColor] : [looks.get(e), s.color,
                s.backgroundColor, s.textDecorationLine, s.fontSize, s.fontWeight, s.opacity,
                s.display, s.visibility, s.overflow != 'visible' && scrolls(e)]);
        }
    };
    const hasText = new Set();
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const name = e => [e.tagName, e.classList, attributes(e), hasText.has(e),
        e.labels?.length, looks.get(e)].join();
    const kinds = new Map();
    const number = e => {
        if (!looks.has(e)) return '';
        if (!kinds.has(e)) {
            const place = e.matches('pre span') ? 'pre' : number(e.parentElement);
            const kind = place + '>' + name(e);
            if (!numbers.has(kind)) { numbers.set(kind, numbers.size); first.add(e); }
            kinds.set(e, numbers.get(kind));
        }
        return kinds.get(e);
    };
    document.querySelectorAll('details').forEach(e => { e.open = true; });
    document.querySelectorAll('.toggle-hidden').forEach(e => e.classList.remove('toggle-hidden'));
    document.querySelectorAll('.math').forEach(e => { e.textContent = 'x'; });
    ['dark', 'light'].forEach(look);
    for (let e; e = texts.nextNode()?.parentElement; ) {
        if (!/\S/.test(texts.currentNode.data)) continue;
        for (; e && !hasText.has(e); e = e.parentElement) hasText.add(e);
    }
    [...looks.keys()].forEach(number);
    for (let e of first) for (; e && !needed.has(e); e = e.parentElement) needed.add(e);
    for (const e of document.querySelectorAll('pre span')) {
        if (!needed.has(e)) e.replaceWith(e.textContent);
    }
    document.body.normalize();
    for (const e of document.querySelectorAll(`article :is(section > *, p, li, tr, dl),
            :is(nav, header, footer, aside), :is(nav, header, aside) li`)) {
        if (!needed.has(e) && !e.matches('section')) e.remove();
    }
    return JSON.stringify([...numbers]);
}"""
SET_THEME = "theme => { document.documentElement.dataset.theme = theme; }"
RUN = """async rules => {
    const options = {resultTypes: ['violations'], preload: false};
    if (rules) options.runOnly = rules;
    const found = await axe.run(document, options);
    return found.violations.filter(v => ['serious', 'critical'].includes(v.impact))
        .flatMap(v => v.nodes.map(n => [v.id, n.html.slice(0, 300) + ' ' + n.failureSummary]));
}"""


# The theme makes boxes that scroll focusable 300 ms after a change of the page or its width.
SETTLED = "() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 350)))"


@pytest.fixture(scope="module")
def visitor(browser, origins):
    """A page without MathJax, which can be sent to any page of the site."""
    page = browser.new_page()
    page.set_default_timeout(120_000)
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Network.setBlockedURLs", {"urls": ["*/mathjax/*"]})

    def visit(name: str):
        page.set_viewport_size({"width": 390, "height": 900})
        page.goto(origins["http"] + name, wait_until="load")
        return page

    yield visit
    page.context.close()


@pytest.fixture(scope="module")
def known() -> dict[str, str]:
    """The kinds of elements on pages that were found to be good."""
    return {"kinds": "[]"}


def findings(page, known) -> set[tuple[str, str]]:
    """What axe finds in the page in each theme and width: (rule, element and reason)."""
    page.add_style_tag(content="* { transition: none !important; }")  # colours at once
    kinds = page.evaluate(KEEP_WHAT_IS_NEW, known["kinds"])
    page.add_script_tag(path=AXE)
    found = set()
    for width in (390, 1300):
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate(SETTLED)
        for theme in ("light", "dark"):
            page.evaluate(SET_THEME, theme)
            rules = None if theme == "light" else ["color-contrast"]  # a theme is its colours
            found |= {(r, f"{theme}, {width} px: {why}") for r, why in page.evaluate(RUN, rules)}
    if not found:
        known["kinds"] = kinds
    return found


@pytest.mark.parametrize("name", [p.relative_to(SITE).as_posix() for p in site_pages()])
def test_axe_finds_no_serious_barrier(visitor, known, name):
    assert findings(visitor(name), known) == set()


BARRIERS = """() => {
    const last = selector => [...document.querySelectorAll('article ' + selector)].at(-1);
    last('p').insertAdjacentHTML('afterend', '<input type="range" class="unnamed">' +
        '<p style="color: #bbb; background: #fff">pale</p>');
    // and in elements of kinds that are known
    last('figure:not(.frame-slider) img').removeAttribute('alt');
    last('figure:not(.frame-slider) img').removeAttribute('title');
    last('p > a:not([title])').textContent = '';
    const {id} = last('section:has(> p)');
    document.head.insertAdjacentHTML('beforeend',
        `<style>html[data-theme=dark] #${id} > p { color: #444 !important; }</style>`);
}"""


def test_axe_would_notice_barriers_on_a_page_whose_kinds_are_known(visitor, known):
    name = "book/30-smoothgrad.html"
    assert findings(visitor(name), known) == set()
    page = visitor(name)
    page.evaluate(BARRIERS)
    found = findings(page, known)
    assert {"label", "color-contrast", "image-alt", "link-name"} <= {rule for rule, _ in found}
    for colour, theme in ("#bbbbbb", "light"), ("#444444", "dark"):
        assert {why.split(",")[0] for _, why in found if colour in why} == {theme}
