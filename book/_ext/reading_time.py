"""How long a page takes to read, by a rule: words, figures, equations and code that is shown.

The main line is what a reader sees with all folds closed, up to the exercises. Words of the prose
are read at 200 a minute; a figure or a displayed equation takes a minute, a line of shown code four
seconds. With the folds it is the whole page, without the solutions of exercises, which say their
own minutes.
"""

import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import jupytext

WORDS_A_MINUTE, FIGURE, EQUATION, CODE_LINE = 200, 1.0, 1.0, 4 / 60  # minutes each
FENCE = re.compile(r"^(?P<fence>`{3,}|:{3,})\{(?P<name>[\w-]+)\} *(?P<argument>.*)$")
OPTION = re.compile(r"^:[\w-]+:")
EXERCISE = re.compile(r"\{exercise-start\}.*?(\d+) minutes")
EQUATIONS = re.compile(r"^\$\$(.*?)^\$\$", re.MULTILINE | re.DOTALL)
FOLDED = {"hide-input", "check"}


class ReadingTime(NamedTuple):
    """Minutes, rounded: without folds, with them, and for the exercises."""

    main: int
    folds: int
    exercises: int


@lru_cache
def cells_of(page: str) -> list:
    """The cells of a page, from its MyST source. They are kept: change none of them."""
    return jupytext.reads(page, fmt="md:myst").cells


def reading_time(page: str) -> ReadingTime:
    """The times of a page, from its MyST source."""
    main = folds = 0.0
    solved = False
    for cell in cells_of(page):
        if cell.cell_type == "code":
            lines = sum(1 for line in cell.source.splitlines() if line.strip())
            tags = {*cell.metadata.get("tags", [])}
            if solved or "remove-input" in tags:
                continue
            main += FIGURE * ("mystnb" in cell.metadata or "tl.widgets.slider" in cell.source)
            if tags & FOLDED:
                folds += CODE_LINE * lines
            else:
                main += CODE_LINE * lines
        elif cell.cell_type == "markdown":
            shown, folded, solved = _split(cell.source, solved)
            main += _minutes(shown)
            folds += _minutes(folded)
    exercises = sum(int(minutes) for minutes in EXERCISE.findall(page))
    return ReadingTime(round(main), round(main + folds), exercises)


def _split(source: str, solved: bool) -> tuple[str, str, bool]:
    """The text that is shown and the text in folds; exercises and their solutions are neither."""
    shown, folded, fence, kind = [], [], "", ""
    for line in source.splitlines():
        found = FENCE.match(line)
        if found and found["name"] in ("exercise-start", "solution-start"):
            solved = True
        elif found and found["name"] in ("exercise-end", "solution-end"):
            solved, kind = False, "skip"
            fence = found["fence"]
        elif not fence and found:
            fence, kind = found["fence"], found["name"]
        elif fence and line.strip() == fence:
            fence = kind = ""
        elif fence and line.startswith(":class:") and "dropdown" in line:
            kind = "folded"
        elif not solved and not OPTION.match(line) and kind not in ("skip", "question", "figure"):
            (folded if kind == "folded" else shown).append(line)
    return "\n".join(shown), "\n".join(folded), solved


def _minutes(text: str) -> float:
    """Minutes for prose with displayed equations."""
    equations = EQUATIONS.findall(text)
    prose = re.sub(r"\$[^$]+\$", " x ", EQUATIONS.sub("", text))
    words = len(re.findall(r"[^\W\d_][\w'-]*", prose))
    return words / WORDS_A_MINUTE + EQUATION * len(equations)


def say_reading_time(app, pagename, templatename, context, doctree):
    """Print the times of a page with exercises or a summary below its title."""
    source = Path(app.srcdir) / f"{pagename}.md"
    if doctree is None or not source.exists():
        return
    page = source.read_text("utf-8")
    if "{admonition} You will learn" not in page:
        return
    main, folds, exercises = reading_time(page)
    text = f"About {main} minutes to read, {folds} with everything unfolded"
    text += f"; {exercises} more for the exercises." if exercises else "."
    line = f'<p class="reading-time">{text}</p>'
    context["body"] = context["body"].replace("</h1>", f"</h1>\n{line}", 1)


def setup(app):
    """Called by Sphinx."""
    app.connect("html-page-context", say_reading_time)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
