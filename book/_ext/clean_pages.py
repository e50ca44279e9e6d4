"""What the built pages need beside Jupyter Book: valid HTML and pictures that load quickly."""

import re
from functools import cache
from html import escape
from pathlib import Path

from docutils import nodes
from few_colours import few_colours
from PIL import Image

# sphinx-exercise gives all exercises of a page one id, and all solutions another.
REPEATED_IDS = {"exercise-content", "solution-content"}
SUMMARY = re.compile(r"<summary\b[^>]*>.*?</summary>", re.DOTALL)
DATAFRAME = re.compile(r'<table [^>]*class="dataframe".*?</table>', re.DOTALL)
EMPTY_HEADER = re.compile(r"<th\b[^>]*>\s*(?:<p>\s*</p>)?\s*</th>")  # the corner of a table
SCOPED_STYLE = re.compile(r"<style scoped>.*?</style>\s*", re.DOTALL)
# docutils writes roles for citations that do not fit together, one of them withdrawn by ARIA.
OLD_ROLE = re.compile(r' role="(?:list"(?= class="citation-list")|doc-biblioentry")')
# Sphinx lists the parameters of a long signature as definitions of no term.
PARAMETERS = re.compile(r'<dl>(?=\s*<dd><em class="sig-param")')
PICTURE = re.compile(r'<img (?P<rest>[^>]*?src="[^"]*_images/(?P<name>[^"]+)"[^>]*)>')
# A browser may break the line between a formula and the comma behind it.
FORMULA = re.compile(
    r"(?:(?<=[\s>])[(\[“])?"
    r'<span class="math notranslate nohighlight">[^<]*</span>'
    r"(?:[^\s<>&]{1,12}(?=[\s<]))?"
)
PER_CENT = re.compile(r"<(pre|code|script|style)\b.*?</\1>|<[^>]*>|(?<=\d) %", re.DOTALL)
EXERCISE_LINK = re.compile(r"(Solution to)(<a [^>]*>) ")  # the space was part of the link
LARGE = 60_000  # bytes: a smaller picture is left as it is


def repeat_no_id(app, doctree):
    """Name the parts that sphinx-exercise gives one id after the exercise that they are in."""
    for section in doctree.findall(nodes.section):
        if REPEATED_IDS & {*section["ids"]}:
            section["ids"] = [f"{section.parent['ids'][0]}-content"]


def clean(app, pagename, templatename, context, doctree):
    """Mend the HTML of a page."""
    if doctree is None:
        return
    body = SUMMARY.sub(_spans, context["body"])
    body = SCOPED_STYLE.sub("", body)
    body = EMPTY_HEADER.sub("<td></td>", body)
    body = DATAFRAME.sub(_table, body)
    body = OLD_ROLE.sub("", body)
    body = PARAMETERS.sub('<dl role="none">', body)
    body = keep_together(EXERCISE_LINK.sub(r"\1 \2", body))
    files = {name: path for path, name in app.builder.images.items()}
    seen = []
    context["body"] = PICTURE.sub(lambda found: _picture(app, found, files, seen), body)


def keep_together(body: str) -> str:
    """Let no line begin with the comma behind a formula or with the per cent sign of a number."""
    body = FORMULA.sub(r'<span class="keep">\g<0></span>', body)
    return PER_CENT.sub(lambda found: found[0] if "<" in found[0] else "&#160;%", body)


def _spans(summary: re.Match) -> str:
    """A summary may hold no paragraphs, and its own text says more than myst-nb's label."""
    text = summary[0].replace(' aria-label="Toggle hidden content"', "")
    return text.replace("<p ", "<span ").replace("<p>", "<span>").replace("</p>", "</span>")


def _table(found: re.Match) -> str:
    """In a pandas table, headers say what they head."""
    head, body = found[0].split("</thead>", 1)
    head = head.replace("<th>", '<th scope="col">')
    head = re.sub(r' (border="1"|style="text-align: right;")', "", head)
    return head + "</thead>" + body.replace("<th>", '<th scope="row">')


def _picture(app, found: re.Match, files: dict, seen: list) -> str:
    """Give a picture its size, so that the page does not jump, and load it when it comes near."""
    attributes = found["rest"].rstrip(" /")
    path = Path(app.srcdir) / files.get(found["name"], "")
    if path.suffix == ".png" and " width=" not in attributes and "style=" not in attributes:
        width, height = _size(path)
        attributes += f' width="{width}" height="{height}"'
    if seen:  # the first picture is what a reader waits for
        attributes += ' loading="lazy"'
    seen.append(found["name"])
    return f"<img {attributes}>"


@cache
def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def shrink_pictures(app, exception):
    """Write the large figures of the site with few colours. What the notebooks hold stays."""
    if exception is not None or app.builder.format != "html":
        return
    kept = Path(app.outdir).parent / "few_colours"
    for path in (Path(app.outdir) / "_images").glob("*.png"):
        if path.stat().st_size > LARGE:
            path.write_bytes(few_colours(path.read_bytes(), kept))


def write_start(app, exception):
    """Lead from the site's folder to the first page; Jupyter Book's own page is not valid HTML."""
    if exception is None and app.builder.format == "html" and app.config.root_doc != "index":
        target = escape(app.builder.get_target_uri(app.config.root_doc))
        template = (Path(__file__).parent / "redirect.html").read_text("utf-8")
        page = template.replace("${to_uri}", target)
        (Path(app.outdir) / "index.html").write_text(page, "utf-8")


def setup(app):
    """Called by Sphinx."""
    app.connect("doctree-read", repeat_no_id)
    app.connect("html-page-context", clean)
    app.connect("build-finished", shrink_pictures)
    app.connect("build-finished", write_start)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
