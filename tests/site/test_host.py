"""The site below a sub-path of any server: links, addresses, weight, paper, no JavaScript."""

import re
import shutil
import subprocess
import threading
import urllib.request
from collections import Counter
from functools import partial
from html.parser import HTMLParser
from http.server import ThreadingHTTPServer
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.parse import unquote, urldefrag, urljoin

import pytest
import yaml
from bs4 import BeautifulSoup, SoupStrainer

from book._ext import addresses
from tests.built import (
    NO_SITE,
    ROOT,
    SITE,
    built_html,
    copy_package,
    redirects,
    site_pages,
    toc_pages,
)
from tests.site.conftest import ARGUMENTS, BROWSERS, Quiet, missing

pytestmark = pytest.mark.slow

PAGES = [p.relative_to(SITE).as_posix() for p in site_pages()]
PAPER = re.compile(r"https://(doi\.org/10\.|arxiv\.org/abs/)")
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))
NOT_SET = not CONFIG["repository"]["url"] and not CONFIG["html"]["baseurl"]
TITLED = "# Start & \\<end>\n\nThe first paragraph.\n"
WITHOUT_ADDRESS = {
    "hill2025smoothdiff",
    "davis1984methods",
    "cho2009kernel",
    "holm1979simple",
    "demsar2006statistical",
}


@pytest.fixture(scope="module")
def below(tmp_path_factory):
    """The address of the site in a folder of another site."""
    if not PAGES:
        missing(NO_SITE)
    root = tmp_path_factory.mktemp("host")
    (root / "~smith/teaching").mkdir(parents=True)
    (root / "~smith/teaching/xai").symlink_to(SITE, target_is_directory=True)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=root)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/~smith/teaching/xai/"
        server.shutdown()


class Page(HTMLParser):
    """All that a page links to or loads, and its anchors, without the cost of a tree."""

    def __init__(self, text: str):
        super().__init__()
        self.addresses, self.ids = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        for key, value in attributes:
            if key == "id":
                self.ids.append(value)
            if key in ("href", "src") and value and not value.startswith(("data:", "javascript:")):
                self.addresses.append(value)


def crawl(start: str) -> tuple[dict[str, Page], set[tuple[str, str]], list[str]]:
    """The pages that links lead to, the addresses outside with their page, and what is broken."""
    pages, outside, broken, todo, seen = {}, set(), [], [start], set()
    while todo:
        url = todo.pop()
        if url in seen:
            continue
        seen.add(url)
        try:
            kind, text = ask(url)
        except HTTPError as error:
            broken.append(f"{error.code} {url}")
            continue
        if kind == "text/html":
            pages[url] = Page(text.decode())
            for address in pages[url].addresses:
                to = urldefrag(urljoin(url, address)).url
                if to.startswith(start):
                    todo.append(to)
                else:
                    outside.add((url.removeprefix(start), address))
        if kind == "text/css":
            inside = re.findall(rb"url\([\"']?([^)\"']+)", text)
            todo += [urljoin(url, a.decode()) for a in inside if not a.startswith(b"data:")]
    return pages, outside, broken


def ask(url: str) -> tuple[str, bytes]:
    """The type of a file, and its text where it may name others."""
    with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=60) as answer:
        kind = answer.headers["Content-Type"]
    if kind not in ("text/html", "text/css"):
        return kind, b""
    with urllib.request.urlopen(url, timeout=60) as answer:
        return kind, answer.read()


@pytest.fixture(scope="module")
def crawled(below):
    return crawl(below)


def test_every_link_below_a_sub_path_leads_somewhere(below, crawled):
    pages, _, broken = crawled
    assert broken == []
    assert {url.removeprefix(below) for url in pages} >= {f"{page}.html" for page in toc_pages()}


def test_every_anchor_exists(below, crawled):
    pages, _, _ = crawled
    names = {url: set(page.ids) for url, page in pages.items()}
    missing_anchors = [
        f"{url.removeprefix(below)}: {address}"
        for url, page in pages.items()
        for address in page.addresses
        for to, anchor in [urldefrag(urljoin(url, address))]
        if anchor and to in names and unquote(anchor) not in names[to]
    ]
    assert missing_anchors == []


@pytest.mark.skipif(not NOT_SET, reason="_config.yml names the repository or the site")
def test_only_papers_are_linked_outside_where_no_address_is_set(crawled):
    _, outside, _ = crawled
    others = [(page, address) for page, address in outside if not PAPER.match(address)]
    assert others == []
    assert {page for page, _ in outside} == {"book/bibliography.html"}


def test_each_entry_of_the_bibliography_leads_to_its_paper():
    soup = BeautifulSoup(built_html("book/bibliography"), "html.parser")
    entries = soup.select("div.citation")
    without = [e for e in entries if not e.find("a", href=PAPER)]
    assert len(entries) > 50
    assert len(without) <= len(WITHOUT_ADDRESS), [e.get_text()[:80] for e in without]
    text = (ROOT / "book/references.bib").read_text("utf-8")
    known = {
        e.split(",")[0].split("{")[1] for e in text.split("\n@") if "doi =" in e or "eprint" in e
    }
    assert set(re.findall(r"^@\w+\{(\w+),", text, re.MULTILINE)) - known == WITHOUT_ADDRESS


@pytest.mark.parametrize("name", [*PAGES, *redirects(), "index.html", "404.html"])
def test_the_page_is_valid_where_it_is_ours(name):
    if not PAGES:
        missing(NO_SITE)
    text = (SITE / name).read_text("utf-8")
    parts = SoupStrainer(["title", "summary", "style", "thead"])
    soup = BeautifulSoup(text, "html.parser", parse_only=parts)
    assert text.lstrip().lower().startswith("<!doctype html>")
    assert soup.title and soup.title.get_text().strip()
    assert [i for i, times in Counter(Page(text).ids).items() if times > 1] == []
    assert [s.get_text() for s in soup.find_all("summary") if s.find(["p", "div"])] == []
    assert soup.find_all("style", scoped=True) == []
    assert [th for th in soup.select("thead th") if not th.get_text(strip=True)] == []


@pytest.mark.parametrize("page", toc_pages())
def test_the_head_says_what_the_page_is(page):
    head = BeautifulSoup(built_html(page).partition("<body")[0], "html.parser").head
    assert len(head.find("meta", attrs={"name": "description"})["content"]) > 20
    assert head.find("meta", property="og:title")["content"]
    assert head.find("link", rel="icon")["href"].endswith("favicon.svg")


def test_the_pictures_of_a_page_load_when_they_come_near_and_have_a_size():
    pictures = BeautifulSoup(built_html("book/30-smoothgrad"), "html.parser").select("article img")
    assert len(pictures) > 10
    assert all(p.get("loading") == "lazy" for p in pictures[1:])
    assert all(int(p["width"]) > 0 and int(p["height"]) > 0 for p in pictures)


def test_the_host_finds_its_files():
    if not PAGES:
        missing(NO_SITE)
    assert (SITE / ".nojekyll").exists()
    assert "Disallow:\n" in (SITE / "robots.txt").read_text("utf-8")
    assert (SITE / "sitemap.xml").exists() == bool(CONFIG["html"]["baseurl"])


@pytest.mark.parametrize("end", [("", ""), (".git/", "/")])
def test_an_address_may_have_an_end_or_none(end):
    options = {"repository_url": "https://github.com/o/n" + end[0]}
    config = SimpleNamespace(
        html_theme_options=options, html_baseurl="https://o.github.io/n" + end[1]
    )
    addresses.offer_repository(None, config)
    assert options == {
        "repository_url": "https://github.com/o/n",
        "use_repository_button": True,
        "use_edit_page_button": True,
        "use_issues_button": True,
    }
    assert config.html_baseurl == "https://o.github.io/n/"


def test_with_addresses_set_everything_follows(tmp_path):
    """A book of one page, with both addresses: buttons, canonical link, sitemap, OpenGraph."""
    site = "https://o.github.io/n"
    config = CONFIG | {"repository": {"url": "https://github.com/o/n.git/", "branch": "main"}}
    config["html"] = CONFIG["html"] | {"baseurl": site + "/"}
    (tmp_path / "_config.yml").write_text(yaml.safe_dump(config), "utf-8")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/index\n", "utf-8")
    shutil.copytree(ROOT / "book/_ext", tmp_path / "book/_ext")
    shutil.copytree(ROOT / "book/_static", tmp_path / "book/_static")
    shutil.copy(ROOT / "book/references.bib", tmp_path / "book")
    (tmp_path / "_build/static").mkdir(parents=True)
    kernel = "---\nkernelspec: {name: python3, display_name: Python 3}\n---\n"
    (tmp_path / "book/index.md").write_text(kernel + TITLED, "utf-8")
    (tmp_path / "book/api.md").write_text("# API\n", "utf-8")
    copy_package(tmp_path)
    builder = [shutil.which("jupyter-book") or str(ROOT / ".venv/bin/jupyter-book"), "build"]
    run = subprocess.run([*builder, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    built = tmp_path / "_build/html"
    text = (built / "book/index.html").read_text("utf-8")
    soup = BeautifulSoup(text, "html.parser")
    page = f"{site}/book/index.html"
    notebook = "notebooks/index.ipynb"
    assert soup.find("link", rel="canonical")["href"] == page
    assert soup.find("meta", property="og:url")["content"] == page
    assert soup.find("meta", property="og:title")["content"] == "Start & <end>"
    picture = soup.find("meta", property="og:image")["content"]
    assert picture.startswith(f"{site}/") and (built / picture.removeprefix(f"{site}/")).exists()
    links = {a["href"] for a in soup.find_all("a", href=True)}
    assert "https://github.com/o/n/edit/main/book/index.md" in links
    assert "https://github.com/o/n" in links and not [a for a in links if ".git/" in a]
    assert f"https://colab.research.google.com/github/o/n/blob/gh-pages/{notebook}" in links
    assert any(a.startswith("https://mybinder.org/v2/gh/o/n/gh-pages?labpath=") for a in links)
    assert f"<loc>{page}</loc>" in (built / "sitemap.xml").read_text("utf-8")
    assert f"Sitemap: {site}/sitemap.xml" in (built / "robots.txt").read_text("utf-8")


def test_no_formula_has_a_scroll_bar_where_scroll_bars_take_room(origins):
    """Chrome on Windows and Linux, and every printed page; playwright hides them by default."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None or not PAGES:
        missing("no browser, or no site")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=ARGUMENTS, ignore_default_args=["--hide-scrollbars"]
        )
        page = browser.new_page(viewport={"width": 1300, "height": 900})
        page.set_default_timeout(120_000)
        for name in ("book/20-integrated-gradients.html", "book/30-smoothgrad.html"):
            page.goto(origins["http"] + name, wait_until="load")
            page.wait_for_function("() => MathJax.startup.promise.then(() => true)")
            assert page.evaluate(
                "() => { const e = document.createElement('div'); e.style.overflow = 'scroll';"
                "document.body.append(e); return e.offsetHeight - e.clientHeight; }"
            ), "this browser shows no scroll bars, so that the test could not fail"
            barred = page.evaluate(
                """() => [...document.querySelectorAll('article .math, article mjx-container')]
                    .filter(e => e.offsetHeight - e.clientHeight > 3 &&
                        getComputedStyle(e).display != 'inline')
                    .map(e => e.textContent.slice(0, 60))"""
            )
            assert barred == []
        browser.close()


def test_without_javascript_a_slider_shows_its_first_frame(browser, origins):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(origins["http"] + "book/index.html", wait_until="load")
    figure = page.locator(".frame-slider").first
    shown = [image for image in figure.locator("img").all() if image.is_visible()]
    assert len(shown) == 1
    assert shown[0].bounding_box()["width"] > 200
    assert not figure.locator("input").is_visible()
    assert "needs JavaScript" in figure.inner_text()
    context.close()


def transfer(context, url: str) -> SimpleNamespace:
    """The megabytes of a page when it opens, and when a reader has seen all of it."""
    page = context.new_page()
    page.set_default_timeout(120_000)
    session, sizes = context.new_cdp_session(page), []
    session.send("Network.enable")
    session.on("Network.loadingFinished", lambda e: sizes.append(e["encodedDataLength"] / 1e6))
    page.goto(url, wait_until="networkidle")
    opened = sum(sizes)
    page.evaluate(
        """async () => { for (let y = 0; y < document.body.scrollHeight; y += 700) {
            scrollTo(0, y); await new Promise(done => setTimeout(done, 20)); } }"""
    )
    page.wait_for_load_state("networkidle")
    page.close()
    return SimpleNamespace(opened=opened, whole=sum(sizes))


def test_the_heaviest_chapter_opens_with_five_megabytes_without_compression(browser, origins):
    context = browser.new_context(viewport={"width": 1300, "height": 900})
    weight = transfer(context, origins["http"] + "book/30-smoothgrad.html")
    context.close()
    assert 1 < weight.opened < 5
    assert weight.whole < 8  # every figure scrolled past, no slider moved
