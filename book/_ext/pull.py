"""Directives of a deck of slides, which takes what it shows out of its chapter.

    :::{pull} fig-sg-samples       the picture that the cell drew, with its alt text
    :::{pull} eq-sg-error          the equation, with its number; `:steps:` shows it line by line
    :::{pull} question You double  the question whose text begins so, and its answer
    :::{pull} slider noise level   the frames of the slider, which arrow keys step through
    :::{pull} summary              the chapter's row in the table of methods

A deck has the file name of its chapter. The outputs are those of the last run, from the cache
that the site is built from.
"""

import base64
import html
import io
import re
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import questions
import yaml
from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from frame_sliders import is_slider, read_slider
from jupyter_cache import get_cache
from myst_nb.core.read import myst_nb_reader_plugin
from PIL import Image
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "_build/.jupyter_cache"
EQUATION = re.compile(r"^\$\$\n((?:(?!^\$\$).)*)^\$\$ *\(([\w-]+)\)$", re.MULTILINE | re.DOTALL)
QUESTION = re.compile(r"^(:{3,})\{question\} (.*?)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
SUMMARY = re.compile(r"^## Summary\n.*?^(\|.*?)\n\n", re.MULTILINE | re.DOTALL)
ROLE = re.compile(r"\{([\w:]+)\}`([^`]+)`")
SIGNS = {
    "alpha": "α", "beta": "β", "epsilon": "ε", "gamma": "γ", "lambda": "λ", "omega": "ω",
    "rho": "ρ", "sigma": "σ", "tau": "τ", "varepsilon": "ε", "Phi": "Φ", "nabla": "∇",
    "times": "×", "cdot": "·", "sqrt": "√", "le": "≤", "ge": "≥", "approx": "≈", "partial": "∂",
}  # fmt: skip


class Chapter(NamedTuple):
    """What a deck can pull out of a chapter."""

    number: int
    figures: dict[str, tuple[bytes, str]]  # PNG and alt text
    equations: dict[str, tuple[str, str]]  # TeX and number
    questions: dict[str, str]  # stem and source
    sliders: dict[str, list[tuple[str, bytes, str]]]  # label, PNG and alt text of the frames
    summary: str


@cache
def chapter_numbers() -> dict[str, int]:
    """The numbers of the chapters, by the name of their pages, in the order of _toc.yml."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
    parts = [part for part in toc["parts"] if part.get("numbered")]
    pages = [Path(c["file"]).name for part in parts for c in part["chapters"]]
    return {page: i for i, page in enumerate(pages, 1)}


@cache
def read_chapter(name: str) -> Chapter:
    """Read a chapter's source and its outputs."""
    page = ROOT / f"book/{name}.md"
    source, number = page.read_text("utf-8"), chapter_numbers()[name]
    _, notebook = get_cache(CACHE).merge_match_into_notebook(myst_nb_reader_plugin(str(page)))
    return Chapter(
        number,
        figures=_figures(notebook),
        equations=read_equations(source, number),
        questions={m[2]: m[0] for m in QUESTION.finditer(source)},
        sliders=_sliders(notebook),
        summary=SUMMARY.search(source)[1],
    )


def read_equations(source: str, number: int) -> dict[str, tuple[str, str]]:
    """The TeX and the numbers of a chapter's equations, by their labels."""
    found = enumerate(EQUATION.finditer(source), 1)
    return {m[2]: (m[1].strip().rstrip(" .,"), f"{number}.{i}") for i, m in found}


def _figures(notebook) -> dict[str, tuple[bytes, str]]:
    found = {}
    for cell in notebook.cells:
        settings = cell.metadata.get("mystnb", {})
        name = settings.get("figure", {}).get("name")
        pictures = [o.data for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
        if name and pictures:
            alt = " ".join(settings.get("image", {}).get("alt", "").split())
            found[name] = base64.b64decode(pictures[-1]["image/png"]), alt
    return found


def _sliders(notebook) -> dict[str, list[tuple[str, bytes, str]]]:
    """The frames of the sliders, from the state that the widgets were in at the end."""
    widgets = notebook.metadata.get("widgets", {})
    models = widgets.get("application/vnd.jupyter.widget-state+json", {}).get("state", {})
    boxes = [model["state"] for model in models.values() if is_slider(model["state"])]
    sliders = [read_slider(models, box) for box in boxes]
    return {slider.description: slider.frames for slider in sliders}


class Pull(SphinxDirective):
    """The directive `pull`."""

    required_arguments = 1
    final_argument_whitespace = True
    option_spec = {  # noqa: RUF012
        "chapter": directives.unchanged,  # where it is not the deck's own
        "height": directives.nonnegative_int,  # of a picture, in the pixels of a slide of 720
        "crop": directives.unchanged,  # left, top, right, bottom in per cent, such as 0 66 90 100
        "small": directives.flag,  # an equation that is too wide
        "break": directives.flag,  # an equation of two formulas: one below the other
        "columns": directives.unchanged,  # of the summary, such as 1 3
        "steps": directives.flag,  # an equation line by line
        "lines": directives.unchanged,  # of an equation in steps, such as 1-3
        "frames": directives.unchanged,  # labels of the frames of a slider, with commas
    }

    def run(self) -> list[nodes.Node]:
        """Find what the label names."""
        self.name_of_chapter = self.options.get("chapter", Path(self.env.docname).name)
        self.page = read_chapter(self.name_of_chapter)
        self.env.note_dependency(str(ROOT / f"book/{self.name_of_chapter}.md"))
        label = " ".join(self.arguments[0].split())
        if label == "summary":
            return self._parse(_columns(self.page.summary, self.options.get("columns", "")))
        if label in self.page.figures:
            return [self._picture(*self.page.figures[label])]
        if label in self.page.equations:
            return self._equation(*self.page.equations[label])
        kind, _, words = label.partition(" ")
        if kind == "slider" and words in self.page.sliders:
            return [self._slider(words)]
        begun = [q for q in self.page.questions if words and q.startswith(words)]
        if kind == "question" and len(begun) == 1:
            return self._question(self.page.questions[begun[0]])
        raise self.error(self._unknown(label))

    def _unknown(self, label: str) -> str:
        known = [*self.page.figures, *self.page.equations, "summary"]
        known += [f"slider {name}" for name in self.page.sliders]
        known += [f"question {' '.join(q.split()[:6])}" for q in self.page.questions]
        there = "\n  ".join(known)
        return f"pull: {self.name_of_chapter} has no {label!r}; it has\n  {there}"

    def _parse(self, text: str) -> list[nodes.Node]:
        """Read MyST of the chapter; its references become plain text."""
        body = nodes.container()
        lines = StringList(ROLE.sub(self._plain, text).splitlines(), self.name_of_chapter)
        self.state.nested_parse(lines, self.content_offset, body)
        return body.children

    def _plain(self, role: re.Match) -> str:
        """What a reference of the chapter says on a slide."""
        name, target = role[1], role[2]
        if name == "eq" and target in self.page.equations:
            return f"({self.page.equations[target][1]})"
        if name == "numref" and (found := re.fullmatch(r"(.*)%s <chap-.*>", target)):
            number = self._number_of(role[2].rpartition("<")[2].rstrip(">"))
            return f"{found[1]}{number}"
        if name == "cite":
            return ""
        raise self.error(f"pull: a slide cannot show the reference {role[0]} of the chapter")

    def _number_of(self, label: str) -> int:
        for page, number in chapter_numbers().items():
            if f"({label})=" in (ROOT / f"book/{page}.md").read_text("utf-8"):
                return number
        raise self.error(f"pull: no chapter has the label {label}")

    def _image(self, png: bytes, alt: str) -> str:
        """Write a picture beside the deck, and the element that shows it, when it is near."""
        picture, to = Image.open(io.BytesIO(png)).convert("RGB"), io.BytesIO()
        sides = picture.size * 2
        box = self.options.get("crop", "0 0 100 100").split()
        picture = picture.crop([int(b) * s // 100 for b, s in zip(box, sides, strict=True)])
        picture.save(to, "WEBP", quality=90)
        name = f"_images/{sha256(to.getvalue()).hexdigest()[:16]}.webp"
        path = Path(self.env.app.outdir) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(to.getvalue())
        height = self.options.get("height", 560)
        alt = html.escape(alt)
        return f'<img data-src="{name}" alt="{alt}" style="height: {height}px">'

    def _picture(self, png: bytes, alt: str) -> nodes.Node:
        return nodes.raw("", f'<p class="picture">{self._image(png, alt)}</p>', format="html")

    def _slider(self, name: str) -> nodes.Node:
        """The frames upon each other; each but the first is a fragment that covers those before."""
        frames = self.page.sliders[name]
        if "frames" in self.options:
            wanted = [label.strip() for label in self.options["frames"].split(",")]
            known = {label: (label, *rest) for label, *rest in frames}
            if missing := [label for label in wanted if label not in known]:
                raise self.error(f"pull: slider {name} has no {missing}; it has {[*known]}")
            frames = [known[label] for label in wanted]
        self.options.setdefault("height", 520)
        parts = []
        for i, (label, png, alt) in enumerate(frames):
            says = f"<p>{html.escape(name)}: <b>{html.escape(label)}</b></p>"
            inside = f"{says}{self._image(png, alt)}"
            parts.append(f'<div class="frame{" fragment" if i else ""}">{inside}</div>')
        text = f'<div class="r-stack frames">{"".join(parts)}</div>'
        return nodes.raw("", text, format="html")

    def _equation(self, tex: str, number: str) -> list[nodes.Node]:
        if "break" in self.options:
            lines = re.sub(r"\\qquad", r"\\\\[1ex]", tex)
            tex = rf"\begin{{gathered}} {lines} \end{{gathered}}"
        if "steps" not in self.options:
            tagged = _math(rf"{tex} \tag{{{number}}}")
            return [nodes.container("", tagged, classes=["small"] * ("small" in self.options))]
        body = re.fullmatch(r"\\begin\{aligned\}(.*)\\end\{aligned\}", tex, re.DOTALL)
        if not body:
            raise self.error("pull: `steps` wants an equation of lines, \\begin{aligned}...")
        rows = [_row(line) for line in re.split(r"\\\\(?:\[.*?\])?\s", body[1].strip())]
        if "lines" in self.options:
            first, _, last = self.options["lines"].partition("-")
            rows = rows[int(first) - 1 : int(last or first)]
        found = nodes.container(classes=["steps"])
        for i, (left, right, why) in enumerate(rows):
            if left:
                found += nodes.container("", _math(left), classes=["row"])
            row = nodes.container(classes=["row", "fragment"] if i or left else ["row"])
            row += _math("{} " + right)
            if why:
                row += nodes.container("", nodes.math(why, why), classes=["why"])
            found += row
        return [found]

    def _question(self, source: str) -> list[nodes.Node]:
        """The question with lettered options; the right one is marked by the next key."""
        (question,) = self._parse(source)
        found, said = nodes.container(classes=["vote"]), [nodes.strong("", "Answer. ")]
        options = [n for n in question if isinstance(n, questions.OptionNode)]
        found += [n for n in question if n not in options]
        for letter, option in zip("ABCDEF", options, strict=False):
            choice, *feedback = option.children
            right = "right" in option["classes"]
            line = nodes.container(classes=["option", *(["fragment", "right"] if right else [])])
            inline = isinstance(choice[0], nodes.Inline | nodes.Text)
            first = choice.children if inline else choice[0].children
            line += nodes.paragraph("", "", nodes.strong("", f"{letter}  "), *first)
            line += [] if inline else choice.children[1:]
            found += line
            words = " ".join(_speak(n) for n in feedback)
            said.append(nodes.Text(f"{letter}: {words} "))
        return [found, NotesNode("", nodes.paragraph("", "", *said))]


def _columns(table: str, wanted: str) -> str:
    """Some columns of a Markdown table; all where none is named."""
    rows = [[cell.strip() for cell in row.strip("| ").split("|")] for row in table.splitlines()]
    numbers = [int(n) - 1 for n in wanted.split()] or range(len(rows[0]))
    return "\n".join("| " + " | ".join(row[n] for n in numbers) + " |" for row in rows)


def _math(tex: str) -> nodes.math_block:
    """A displayed formula, which Sphinx leaves as it is."""
    tex = rf"\[ {tex} \]"
    return nodes.math_block(tex, tex, nowrap=True, number=None, label=None)


def _row(line: str) -> tuple[str, str, str]:
    """What stands left, right and beside, in a line of an aligned formula."""
    left, _, rest = line.strip().partition("&")
    right, _, why = rest.partition("&&")
    why = re.sub(r", see (below|above)", "", why)  # on a page, not on a slide
    return left.strip(), right.strip().rstrip(" ."), why.strip().rstrip(" .")


def _speak(node: nodes.Element) -> str:
    """The text of a node, with its formulas as plain text."""
    node = node.deepcopy()
    for formula in list(node.findall(nodes.math)):
        tex = re.sub(r"\\t?frac(\d|\{.*?\})(\d|\{.*?\})", r"\1/\2", formula.astext())
        tex = re.sub(r"\\([A-Za-z]+) ?", lambda m: SIGNS.get(m[1], f"{m[1]} "), tex)
        formula.replace_self(nodes.Text(re.sub(r"\\[,;!]|[{}]", "", tex)))
    return node.astext()


class NotesNode(nodes.container):
    """What only the speaker sees."""


class Notes(SphinxDirective):
    """The directive `notes`: its argument is the number of minutes that the slide takes."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Read the minutes and the text."""
        if not re.fullmatch(r"\d+(\.5)?", self.arguments[0]):
            raise self.error(f"notes: {self.arguments[0]!r} minutes, expected such as 2 or 1.5")
        body = nodes.container()
        self.state.nested_parse(self.content, self.content_offset, body)
        if not body.astext().strip() or list(body.findall(nodes.math)):
            raise self.error("notes: expected plain text, without formulas")
        minutes = float(self.arguments[0])
        says = f"{minutes:g} minute{'' if minutes == 1 else 's'}. "
        found = NotesNode("", minutes=minutes)
        found += nodes.paragraph("", "", nodes.strong("", says))
        found += body.children
        return [found]


class Decks(SphinxDirective):
    """The directive `decks`: links to all decks, with the titles of their chapters."""

    def run(self) -> list[nodes.Node]:
        """List the decks in the order of the chapters."""
        items = []
        for name, number in chapter_numbers().items():
            deck = Path(self.env.srcdir) / f"{name}.md"
            if deck.exists():
                title = re.search(r"^# (.*)$", deck.read_text("utf-8"), re.MULTILINE)[1]
                says = f"{number}. {html.escape(title)}"
                items.append(f'<li><a href="{name}.html">{says}</a></li>')
        text = f'<ul class="decks">{"".join(items)}</ul>'
        return [nodes.raw("", text, format="html")]


def _visit_notes(self, node):
    minutes = f' data-minutes="{node["minutes"]:g}"' if "minutes" in node else ""
    self.body.append(f'<aside class="notes"{minutes}>')


def _depart_notes(self, node):
    self.body.append("</aside>")


def setup(app):
    """Called by Sphinx."""
    for node in (questions.QuestionNode, questions.OptionNode, questions.ChoiceNode):
        app.add_node(node)
    app.add_node(NotesNode, html=(_visit_notes, _depart_notes))
    app.add_directive("question", questions.Question)
    app.add_directive("pull", Pull)
    app.add_directive("notes", Notes)
    app.add_directive("decks", Decks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
