"""Print the built site: the whole book as one PDF, and a handout of each chapter.

    python -m tools.pdf SITE        SITE is _build/html; the files go to SITE/pdf

A browser prints each page, and tools/joined.py joins them. A handout has neither solutions nor
answers to questions; the book has them in an appendix. Pages of the site then link to the files.
"""

import html
import io
import re
import shutil
import sys
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urldefrag

import yaml
from pypdf import PdfReader

from tools.joined import Joined

ROOT = Path(__file__).parents[1]
SCRIPT = Path(__file__).with_name("paper.js").read_text("utf-8")
NAME = "averaging-gradients"
TITLE = "Averaging Gradients"
SUBTITLE = "Explaining neural networks from Taylor's theorem to AdaptGrad"
AUTHOR = "The Averaging Gradients authors"
RIGHTS = "Text and figures: CC BY 4.0. Code: MIT."
APPENDIX = "Answers and solutions"
CHAPTER = re.compile(r"\d\d-")  # how the file names of chapters begin
WIDTH = 658  # CSS pixels: A4 without the margins of print.css, so that what fits here fits there
MATH_READY = "() => !window.MathJax || (MathJax.startup && MathJax.startup.promise.then(() => 1))"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
NO_BROWSER = """no Chromium, Chrome or Edge was found, which prints the pages. Install one of them
(Debian and Ubuntu: apt install chromium), or let playwright fetch its own, about 150 MB:
    {python} -m playwright install chromium"""

FRONT = """<!doctype html><html lang="en"><style>
@page {{ size: A4; margin: 22mm 20mm }}
body {{ font: 11pt/1.45 sans-serif; margin: 0 }}
.title {{ break-after: page; padding-top: 35mm }}
.title h1 {{ font-size: 34pt; margin: 0 }}
.title img {{ margin: 18mm 0; width: 100% }}
h2 {{ break-after: avoid; font-size: 12pt; margin: 6mm 0 1mm }}
p.row {{ display: flex; margin: 0.6mm 0; gap: 8mm; justify-content: space-between }}
a {{ color: black; text-decoration: none }}
</style><div class="title"><h1>{title}</h1><p>{subtitle}</p>
<img src="{picture}" alt="One photograph of a cat and six maps of what speaks for it">
<p>{author}</p><p>{rights}</p></div><h1>Contents</h1>{rows}</html>"""
ROW = '<p class="row"><a href="{link}">{title}</a><span>{number}</span></p>'
FEET = """<!doctype html><html lang="en"><style>
@page {{ size: A4; margin: 0 }}
body {{ margin: 0 }}
div {{ box-sizing: border-box; break-after: page; color: #555; display: flex; height: 296mm;
  align-items: end; font: 8.5pt sans-serif; justify-content: space-between;
  padding: 0 18mm 10mm }}
</style>{rows}</html>"""
LINK = '<p class="pdf-download"><a href="{href}">{text}</a></p>'


class Page(NamedTuple):
    """A page of the site, printed; `part` is the caption above it in the contents."""

    name: str
    part: str
    title: str
    pdf: PdfReader
    answers: PdfReader | None = None


def contents(root: Path = ROOT) -> list[tuple[str, str]]:
    """The pages of _toc.yml in order, each with the caption of its part.

    Pages below another one, which are the lecturer's notes to a chapter, stay on the site alone.
    """
    toc = yaml.safe_load((root / "_toc.yml").read_text("utf-8"))
    pages = [(toc["root"], "")]
    return pages + [(c["file"], p["caption"]) for p in toc["parts"] for c in p["chapters"]]


def site_address(root: Path = ROOT) -> str:
    """Where the site lives, from _config.yml; empty where that is not said."""
    file = root / "_config.yml"
    config = yaml.safe_load(file.read_text("utf-8")) if file.exists() else {}
    address = config.get("html", {}).get("baseurl") or ""
    return address.rstrip("/") + "/" if address else ""


def launch(playwright):
    """Start a browser that is on this machine."""
    from playwright.sync_api import Error

    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    ways = [{"executable_path": path}] if path else []
    for way in [*ways, {"channel": "chrome"}, {"channel": "msedge"}, {}]:
        try:  # the sandbox refuses the administrator, whom containers run as
            return playwright.chromium.launch(args=["--no-sandbox", "--disable-gpu"], **way)
        except Error:
            continue
    raise SystemExit(NO_BROWSER.format(python=sys.executable))


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *args):
        """Leave the line out."""


@contextmanager
def served(folder: Path):
    """The address of a folder, served as long as the block runs."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def linked_anchors(site: Path, names: list[str]) -> dict[str, set[str]]:
    """For each page, the ids in it that pages of the book link to."""
    found = {name: set() for name in names}
    for name in names:
        page = site / f"{name}.html"
        for href in re.findall(r'href="([^":]*#[^"]+)"', page.read_text("utf-8")):
            path, anchor = urldefrag(html.unescape(href))
            to = ((page.parent / path) if path else page).resolve()
            if to.is_relative_to(site.resolve()):
                to = to.relative_to(site.resolve()).with_suffix("").as_posix()
                found.get(to, set()).add(unquote(anchor))
    return found


def print_page(browser, origin: str, name: str, part: str, anchors: set[str]) -> Page:
    """Print a page of the site, and what the appendix keeps of it."""
    tab = browser.new_page(viewport={"width": WIDTH, "height": 930})
    tab.set_default_timeout(180_000)  # milliseconds; the machine may do other work
    tab.emulate_media(media="print", color_scheme="light")
    tab.goto(f"{origin}{name}.html", wait_until="load")
    tab.wait_for_function(MATH_READY)
    tab.evaluate(SCRIPT + "window.paper = {prepare, fit, keepAnswers, titleOfPage}")
    title = tab.evaluate("paper.titleOfPage()")
    tab.evaluate("anchors => paper.prepare(anchors)", sorted(anchors))
    printed = [_on_paper(tab, name)]
    if tab.evaluate("paper.keepAnswers()"):
        printed.append(_on_paper(tab, name))
    tab.close()
    return Page(name, part, title, *printed)


def _on_paper(tab, name: str) -> PdfReader:
    for text in tab.evaluate("paper.fit()")[:5]:
        print(f"  {name}: wider than the paper: {text}", flush=True)
    # Without tags the browser makes no bookmarks.
    options = dict(prefer_css_page_size=True, outline=True, tagged=True)
    return PdfReader(io.BytesIO(tab.pdf(**options)))


def _on_paper_from(browser, text: str) -> PdfReader:
    tab = browser.new_page()
    tab.set_content(text, wait_until="load")
    printed = tab.pdf(prefer_css_page_size=True, print_background=True)
    tab.close()
    return PdfReader(io.BytesIO(printed))


def front(browser, origin: str, entries: list[tuple[str, str, str, int]]) -> PdfReader:
    """The title page and the contents, from (part, name, title, page number) for each page."""
    rows, above = [], ""
    for part, name, title, number in entries:
        if part != above:
            rows.append(f"<h2>{html.escape(part)}</h2>")
        link = f"{origin}{name}.html"
        rows.append(ROW.format(link=link, title=html.escape(title), number=number))
        above = part
    about = dict(title=TITLE, subtitle=SUBTITLE, author=AUTHOR, rights=RIGHTS)
    picture = f"{origin}_static/readme.png"
    return _on_paper_from(browser, FRONT.format(**about, picture=picture, rows="\n".join(rows)))


def feet(browser, titles: list[str]) -> list:
    """For each page, a sheet with its title and number at the foot."""
    rows = [
        f"<div><span>{html.escape(title)}</span><span>{number}</span></div>"
        for number, title in enumerate(titles, 1)
    ]
    return list(_on_paper_from(browser, FEET.format(rows="\n".join(rows))).pages)[: len(titles)]


def whole_book(browser, origin: str, address: str, pages: list[Page]) -> bytes:
    """The title page, the contents, all pages and the appendix of answers."""
    answers = [p._replace(pdf=p.answers, part=APPENDIX) for p in pages if p.answers]
    titles, entries = [], []
    for page in [*pages, *answers]:
        shown = f"Answers: {page.title}" if page.part == APPENDIX else page.title
        name = f"answers/{page.name}" if page.part == APPENDIX else page.name
        entries.append((page.part, name, shown, len(titles) + 1))
        titles += [shown] * len(page.pdf.pages)
    book, opening = Joined(origin, address), front(browser, origin, entries)
    book.add("contents", opening, "Title and contents")
    for page, (part, name, shown, _) in zip([*pages, *answers], entries, strict=True):
        book.add(page.name, page.pdf, shown, part)
        book.places.setdefault((name, ""), book.place(len(book.names) - len(page.pdf.pages)))
    return book.finish(about(TITLE), [None] * len(opening.pages) + feet(browser, titles))


def handout(browser, origin: str, address: str, page: Page) -> bytes:
    """One chapter, without answers."""
    book = Joined(origin, address)
    book.add(page.name, page.pdf, page.title)
    foot = f"{TITLE}: {page.title}"
    return book.finish(about(foot), feet(browser, [foot] * len(page.pdf.pages)))


def about(title: str) -> dict[str, str]:
    """What a file says about itself."""
    return {"/Title": title, "/Author": AUTHOR, "/Subject": f"{SUBTITLE}. {RIGHTS}"}


def link(page: Path, href: str, text: str) -> None:
    """Let a page of the site link to a file below its title, once."""
    source = page.read_text("utf-8")
    source = re.sub(r'\n<p class="pdf-download">.*?</p>', "", source)
    line = LINK.format(href=href, text=html.escape(text))
    page.write_text(source.replace("</h1>", f"</h1>\n{line}", 1), "utf-8")


def publish(site: Path, name: str, href: str, text: str, file: bytes) -> None:
    """Write a file and link to it from the page of this name."""
    to = (site / name).parent / href
    to.parent.mkdir(exist_ok=True)
    to.write_bytes(file)
    length = len(PdfReader(io.BytesIO(file)).pages)
    size = f"{length} pages, {len(file) / 1e6:.1f} MB"
    link(site / f"{name}.html", href, f"{text} ({size})")
    print(f"{to.name}: {size}", flush=True)


def main(site: Path, root: Path = ROOT) -> None:
    """Print everything."""
    from playwright.sync_api import sync_playwright

    listed, address = contents(root), site_address(root)
    anchors = linked_anchors(site, [name for name, _ in listed])
    with sync_playwright() as playwright, served(site) as origin:
        browser = launch(playwright)
        pages = []
        for name, part in listed:
            pages.append(print_page(browser, origin, name, part, anchors[name]))
            print(f"printed {name}: {len(pages[-1].pdf.pages)} pages", flush=True)
        for page in pages:
            stem = page.name.rpartition("/")[2]
            if CHAPTER.match(stem):
                file = handout(browser, origin, address, page)
                href = f"../pdf/{NAME}-{stem}.pdf"
                publish(site, page.name, href, "This chapter on paper, without solutions", file)
        text = "The whole book on paper, with solutions at the end"
        file = whole_book(browser, origin, address, pages)
        publish(site, listed[0][0], f"../pdf/{NAME}.pdf", text, file)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
