"""For a lecturer: homework sheets without solutions, and the key to them.

    python -m tools.teacher [CHAPTER...]     such as 30-smoothgrad; all without a name

Reads the built site and writes into _build/teacher, of which nothing goes into the site:

- homework/CHAPTER.html and .ipynb: the exercises of a chapter, without solutions, to print or to
  work in;
- key/CHAPTER.html: the same with solutions and their outputs, and with answers to the exam
  questions.
"""

import base64
import html
import mimetypes
import re
import shutil
import sys
from pathlib import Path

import jupytext
import nbformat
from bs4 import BeautifulSoup, Tag
from markdown_it import MarkdownIt
from markdownify import markdownify
from mdit_py_plugins.dollarmath import dollarmath_plugin
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools.needed_cells import needed_cells

ROOT = Path(__file__).parents[1]
SITE = ROOT / "_build/html"
MATHJAX = SITE / "_static/vendor/mathjax"
OUT = ROOT / "_build/teacher"
ANSWERS = ROOT / "book/teach/exam_answers.md"
OF_THE_CHAPTER = "Variables, and the numbers of figures and equations, are those of the chapter."
LICENCE = "From Averaging Gradients, by the Averaging Gradients authors. CC BY 4.0."
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
<script defer src="{mathjax}"></script>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
<footer>{licence}</footer>
</body>
</html>
"""
STYLE = (ROOT / "tools/sheet.css").read_text("utf-8")


class Chapter:
    """A chapter of the built site: its title, its exercises and their solutions."""

    def __init__(self, name: str):
        self.name = name
        page = SITE / f"book/{name}.html"
        if not page.exists():
            raise SystemExit(f"{page} is not there: run `make book`, and look at the name {name!r}")
        self.soup = BeautifulSoup(page.read_text("utf-8"), "html.parser")
        _inline_images(self.soup, page.parent)
        self.title = _heading(self.soup.find("h1"))
        self.exercises = [Exercise(box, self.soup) for box in self.soup.select("div.exercise")]


class Exercise:
    """An exercise of a chapter: label, title, and the elements of its text and solutions."""

    def __init__(self, box: Tag, soup: BeautifulSoup):
        self.label = box["id"]
        self.title = _title(box)
        self.text = _body(box)
        links = soup.select(f'div.solution > .admonition-title a[href="#{self.label}"]')
        self.solutions = [_body(link.find_parent("div", class_="solution")) for link in links]


def _heading(heading: Tag) -> str:
    return heading.get_text().removesuffix("#").strip()


def _title(box: Tag) -> str:
    """Exercise 3.1: Half the error (easy, 5 minutes)."""
    text = box.select_one(".admonition-title").get_text(" ", strip=True)
    number, _, name = text.partition(" (")
    return f"{number.strip()}: {name.removesuffix(')')}" if name else text


def _body(box: Tag) -> Tag:
    """What stands in a box below its title, without links, which lead nowhere on paper."""
    body = BeautifulSoup(str(box), "html.parser").find()
    body.select_one(".admonition-title").decompose()
    for section in body.find_all("section"):
        section.unwrap()
    for link in body.find_all("a"):
        link.decompose() if "headerlink" in link.get("class", []) else link.unwrap()
    for element in body.find_all(id=True):
        del element["id"]
    del body["id"]
    body["class"] = ["solution" if "solution" in body["class"] else "exercise"]
    return body


def _inline_images(soup: BeautifulSoup, folder: Path) -> None:
    """Put the pictures into the page, so that it is one file."""
    for image in soup.find_all("img", src=True):
        path = folder / image["src"]
        if not image["src"].startswith("data:") and path.is_file():
            kind = mimetypes.guess_type(path.name)[0]
            data = base64.b64encode(path.read_bytes()).decode()
            image["src"] = f"data:{kind};base64,{data}"


def sheet_html(chapter: Chapter) -> str:
    """The exercises of a chapter, to be printed."""
    parts = ['<p>Name: <span class="name"></span></p>', f"<p>{OF_THE_CHAPTER}</p>"]
    for exercise in chapter.exercises:
        title = html.escape(exercise.title)
        parts.append(f'<h2>{title}</h2>\n{exercise.text}\n<div class="space"></div>')
    return _page(f"Homework: {chapter.title}", "\n".join(parts))


def sheet_notebook(chapter: Chapter, source: str):
    """The exercises of a chapter with empty cells, after what they need of the chapter's code."""
    cells = [new_markdown_cell(f"# Homework: {chapter.title}\n\n{LICENCE}")]
    needed = needed_cells(jupytext.reads(source, fmt="md:myst").cells)
    if needed:
        cells.append(new_markdown_cell("## From the chapter\n\nRun these cells first."))
        cells += [new_code_cell(cell) for cell in needed]
    for exercise in chapter.exercises:
        cells.append(new_markdown_cell(f"## {exercise.title}\n\n{to_markdown(exercise.text)}"))
        cells += [new_markdown_cell("*Your answer:*"), new_code_cell("")]
    for i, cell in enumerate(cells):
        cell["id"] = f"cell-{i}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def to_markdown(element: Tag) -> str:
    """Markdown of a part of a page, its formulas between dollar signs."""
    soup = BeautifulSoup(str(element), "html.parser")
    for number in soup.select(".eqno"):
        number.decompose()
    formulas = {}
    for math in soup.select(".math"):
        text = re.sub(r"^\\[([]|\\[)\]]$", "", math.get_text().strip())
        key = f"FORMULA{len(formulas)}END"  # letters, which nobody escapes
        shown = math.name == "div"
        formulas[key] = f"$$\n{text.strip()}\n$$" if shown else f"${text.strip()}$"
        math.replace_with(soup.new_string(f"\n\n{key}\n\n" if shown else key))
    text = markdownify(str(soup), heading_style="ATX", escape_underscores=False)
    for key, formula in formulas.items():
        text = text.replace(key, formula)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def key_html(chapter: Chapter, answers: list[str]) -> str:
    """The exercises with their solutions, and the exam questions with theirs."""
    parts = ["<p><strong>For teachers.</strong> Please do not put this page online.</p>"]
    for exercise in chapter.exercises:
        parts.append(f"<h2>{html.escape(exercise.title)}</h2>\n{exercise.text}")
        parts += map(str, exercise.solutions or ["<p>(no solution)</p>"])
    questions = exam_questions(chapter.name)
    if questions and len(questions) != len(answers):
        counts = f"{len(questions)} exam questions, and {len(answers)} answers in {ANSWERS.name}"
        raise SystemExit(f"{chapter.name}: {counts}: write an answer for each")
    parts += ["<h2>Exam questions</h2>"] if questions else []
    for i, (question, answer) in enumerate(zip(questions, answers, strict=False), 1):
        parts.append(f"<h3>Question {i}</h3>\n{question}")
        parts.append(f'<div class="solution">{_render(answer)}</div>')
    return _page(f"Key: {chapter.title}", "\n".join(parts))


def exam_questions(name: str) -> list[str]:
    """The exam questions of a chapter's teaching page, as HTML; none where it has none."""
    page = SITE / f"book/teach/{name[3:]}.html"  # without the chapter's number
    if not page.exists():
        return []
    soup = BeautifulSoup(page.read_text("utf-8"), "html.parser")
    section = soup.find("section", id="exam-questions")
    if section is None:
        return []
    for link in section.find_all("a"):
        link.unwrap()
    return [item.decode_contents() for item in section.find("ol").find_all("li", recursive=False)]


def exam_answers(text: str) -> dict[str, list[str]]:
    """The answers of exam_answers.md, by chapter: its headings are their names."""
    parts = re.split(r"^## (\S+) *$", text, flags=re.MULTILINE)
    chapters = dict(zip(parts[1::2], parts[2::2], strict=True))
    return {
        name: [a.strip() for a in re.split(r"^\d+\. ", body, flags=re.MULTILINE)[1:]]
        for name, body in chapters.items()
    }


def _render(markdown: str) -> str:
    def formula(text: str, options: dict) -> str:
        left, right = ("\\[", "\\]") if options["display_mode"] else ("\\(", "\\)")
        return f"{left}{html.escape(text)}{right}"

    renderer = MarkdownIt("commonmark").enable("table")
    return renderer.use(dollarmath_plugin, renderer=formula).render(markdown)


def _page(title: str, body: str) -> str:
    title = html.escape(title)
    return PAGE.format(title=title, style=STYLE, body=body, licence=LICENCE, mathjax=_mathjax())


def _mathjax() -> str:
    """Where a sheet finds MathJax: beside it if the site has its own, else where the site does."""
    if MATHJAX.is_dir():
        return "../mathjax/tex-mml-chtml.js"
    page = (SITE / "book/index.html").read_text("utf-8")
    return re.search(r'src="(http[^"]*mathjax[^"]*)"', page, re.IGNORECASE)[1]


def write(name: str, answers: dict[str, list[str]]) -> None:
    """Write the sheet of a chapter, as a page and as a notebook, and its key."""
    chapter = Chapter(name)
    source = (ROOT / f"book/{name}.md").read_text("utf-8")
    (OUT / f"homework/{name}.html").write_text(sheet_html(chapter), "utf-8")
    nbformat.write(sheet_notebook(chapter, source), OUT / f"homework/{name}.ipynb")
    (OUT / f"key/{name}.html").write_text(key_html(chapter, answers.get(name, [])), "utf-8")


def chapters() -> list[str]:
    """The chapters of the built site; a page without a source only leads on from an old address."""
    built = sorted(path.stem for path in SITE.glob("book/[0-9][0-9]-*.html"))
    return [name for name in built if (ROOT / f"book/{name}.md").is_file()]


def main(names: list[str]) -> None:
    """Write what is asked for, and say where it is."""
    for folder in ("homework", "key"):
        (OUT / folder).mkdir(parents=True, exist_ok=True)
    if MATHJAX.is_dir():
        shutil.copytree(MATHJAX, OUT / "mathjax", dirs_exist_ok=True)
    answers = exam_answers(ANSWERS.read_text("utf-8"))
    names = names or chapters()
    for name in names:
        write(name, answers)
    print(f"{len(names)} homework sheets (.html to print, .ipynb to work in): {OUT / 'homework'}")
    print(f"{len(names)} keys, for you alone: {OUT / 'key'}")


if __name__ == "__main__":
    main(sys.argv[1:])
