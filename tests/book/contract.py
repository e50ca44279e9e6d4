"""What every chapter promises, as functions from a page to a list of broken promises."""

import ast
import json
import re

from bs4 import BeautifulSoup

from book._ext.book_site import first_comment
from book._ext.reading_time import cells_of, reading_time

SECTIONS = ("The idea", "The mathematics", "From scratch", "With the package")
SECTIONS += ("What can go wrong", "Exercises", "Summary", "Further reading")
LABEL = re.compile(r"^\$\$ *\(([^)\s]+)\)|^:label: (eq-\S+)", re.MULTILINE)
CHECKS = re.compile(r"# checks(.*)")
NAME = re.compile(r"eq(?:-[a-z0-9]+)+")
WIDTH, LINES = 84, 12  # of a cell that is shown
SITTING = 40  # minutes, the longest main line of a page
QUESTIONS, EXERCISES = 4, 5  # the least that a chapter has
LEVELS = ("easy", "medium", "harder")
LEVEL = re.compile(rf"\(({'|'.join(LEVELS)}), \d+ minutes\)$")
SENTENCE = re.compile(r"[A-Z0-9`].*\.$")
DRAWS = re.compile(r"\btl\.(plots|figures|widgets)\.")
FENCE = r"^(`{3,}|:{3,})\{%s\} *(.*?)\n(.*?)^\1 *$"  # a directive: argument, body


def labelled_equations(page: str) -> list[str]:
    return [a or b for a, b in LABEL.findall(page)]


def checked_equations(page: str) -> list[str]:
    """The labels that the page's cells name in `# checks eq-...`, beside an assert."""
    return [name for cell in _code(page) if _asserts(cell.source) for name in named(cell.source)]


def named(source: str) -> list[str]:
    return [name for comment in CHECKS.findall(source) for name in NAME.findall(comment)]


def equation_problems(labels: list[str], checked: list[str]) -> list[str]:
    twice = {label for label in labels if labels.count(label) > 1}
    return [
        *(f"{x}: labelled twice" for x in sorted(twice)),
        *(f"{x}: no assert cell and no test names it" for x in sorted({*labels} - {*checked})),
        *(f"{x}: checked, but no equation has this label" for x in sorted({*checked} - {*labels})),
    ]


def source_problems(page: str) -> list[str]:
    """Broken promises of a chapter's source."""
    return [
        *_section_problems(page),
        *further_problems(page, QUESTIONS, EXERCISES),
    ]


def further_problems(page: str, questions: int = 1, exercises: int = 1) -> list[str]:
    """Broken promises of a page beside the chapters, which may have other sections."""
    return [
        *_learn_problems(page),
        *_time_problems(page),
        *_question_problems(page, questions),
        *_exercise_problems(page, exercises),
        *_figure_problems(page),
    ]


def cell_problems(page: str) -> list[str]:
    """Broken promises of a page's cells: each teaches, draws or checks, and none does two.

    A cell without a tag teaches: it is shown, short, and asserts nothing. One tagged `hide-input`
    shows what it draws or prints, and asserts nothing. One tagged `check` asserts, begins with
    a comment that says what in a sentence, and draws nothing. Solutions, which are folded as a
    whole, may do all of this; no line anywhere is wider than the page.
    """
    problems, in_solution = [], False
    for cell in cells_of(page):
        if cell.cell_type == "markdown":
            for word in re.findall(r"^`{3,}\{solution-(start|end)\}", cell.source, re.MULTILINE):
                in_solution = word == "start"
            continue
        if cell.cell_type == "code":
            found = _width_problems(cell.source)
            found += [] if in_solution else _kind_problems(cell)
            where = cell.source.partition("\n")[0][:60]
            problems += [f"{where}: {problem}" for problem in found]
    return problems


def built_problems(html: str) -> list[str]:
    """Broken promises of a built page: alt texts, captions, errors and warnings shown."""
    soup = BeautifulSoup(html, "html.parser")
    article = soup.find("article") or soup
    problems = []
    for image in article.find_all("img"):
        problems += _image_problems(image)
    for state in soup.find_all("script", type="application/vnd.jupyter.widget-state+json"):
        for model in json.loads(state.string)["state"].values():
            html = str(model["state"].get("value", ""))
            for image in BeautifulSoup(html, "html.parser").find_all("img"):
                if not image.get("alt", "").strip():
                    problems.append("a slider's frame has no alt text")
    for kind in ("stderr", "traceback"):
        for output in article.select(f".output.{kind}"):
            problems.append(f"a cell shows {kind}: {output.get_text()[:200].strip()}")
    return problems


def _image_problems(image) -> list[str]:
    name, alt = image.get("src", "")[-40:], image.get("alt", "").strip()
    problems = []
    if not alt or alt == image.get("src"):
        problems.append(f"image {name}: no alt text")
    caption = image.find_parent("figure") and image.find_parent("figure").find("figcaption")
    if caption is None or not caption.get_text(strip=True):
        problems.append(f"image {name} ({alt[:40]}): not in a figure with a caption")
    return problems


def _width_problems(source: str) -> list[str]:
    wide = [line for line in source.splitlines() if len(line) > WIDTH]
    return [f"{len(line)} columns, at most {WIDTH}: {line.strip()[:40]}" for line in wide]


def _kind_problems(cell) -> list[str]:
    tags, source = cell.metadata.get("tags", []), cell.source
    lines = [line for line in source.splitlines() if line.strip()]
    if "check" in tags:
        comment = first_comment(source)
        return [
            *([] if _asserts(source) else ["a check that asserts nothing"]),
            *(
                []
                if re.match(r"[A-Z0-9`].*\.$", comment)
                else ["a check whose comment is no sentence"]
            ),
            *(["a check that draws"] if "mystnb" in cell.metadata or DRAWS.search(source) else []),
            *(["tagged check and hide-input"] if "hide-input" in tags else []),
        ]
    problems = ["an assert outside of a check (tag: check)"] if _asserts(source) else []
    if not {"hide-input", "remove-input"} & {*tags}:
        if len(lines) > LINES:
            problems.append(f"{len(lines)} lines are shown, at most {LINES} (tag: hide-input)")
        if "mystnb" in cell.metadata:
            problems.append("draws, and shows its code (tag: hide-input)")
    return problems


def _section_problems(page: str) -> list[str]:
    titles = re.findall(r"^## (.*?) *$", page, re.MULTILINE)
    missing = [f"no section '{title}'" for title in SECTIONS if title not in titles]
    shown = [title for title in titles if title in SECTIONS]
    if not missing and shown != list(SECTIONS):
        missing.append(f"sections are in the order {shown}")
    if "{cite" not in page.partition("## Further reading")[2]:
        missing.append("'Further reading' cites nothing")
    return missing


def _learn_problems(page: str) -> list[str]:
    box = next((b for t, b in _directives(page, "admonition") if t == "You will learn"), None)
    if box is None:
        return ["no admonition 'You will learn'"]
    wanted = {
        "three outcomes": r"(^- [\s\S]*){3}",
        "prerequisites (**Before you start:**)": r"\*\*Before you start:\*\* *\S",
        "minutes to read": r"\d+ minutes? to read",
        "minutes to run": r"\d+ minutes? to run",
    }
    return [
        f"'You will learn' has no {what}"
        for what, pattern in wanted.items()
        if not re.search(pattern, box, re.MULTILINE)
    ]


def _time_problems(page: str) -> list[str]:
    minutes = reading_time(page).main
    promised = [int(m) for m in re.findall(r"(\d+) minutes? to read", page)]
    wrong = [m for m in promised if not m - 5 <= minutes <= m]
    return [
        *([] if minutes <= SITTING else [f"{minutes} minutes to read, at most {SITTING}"]),
        *(f"promises {m} minutes to read, and takes {minutes}" for m in wrong),
    ]


def _question_problems(page: str, least: int) -> list[str]:
    count = len(_directives(page, "question"))
    return [] if count >= least else [f"{count} questions, {least} wanted"]


def _exercise_problems(page: str, least: int) -> list[str]:
    labels = [
        label
        for _, body in _directives(page, "exercise-start")
        for label in re.findall(r":label: *(\S+)", body)
    ]
    count = f"{len(labels)} exercises with a label, {least} wanted"
    problems = [] if len(labels) >= least else [count]
    titles = [title for title, _ in _directives(page, "exercise-start")]
    problems += [f"{t}: no level and minutes" for t in titles if not LEVEL.search(t)]
    order = [LEVELS.index(found[1]) for found in map(LEVEL.search, titles) if found]
    problems += [] if order == sorted(order) else [f"exercises are not easiest first: {titles}"]
    solutions = dict(
        re.findall(r"^`{3,}\{solution-start\} *(\S+)\n(.*?)\{solution-end\}", page, re.M | re.S)
    )
    for label in labels:
        if label not in solutions:
            problems.append(f"{label}: no solution")
        elif "{code-cell}" not in solutions[label]:
            problems.append(f"{label}: the solution has no code cell")
        elif ":class: dropdown" not in solutions[label].partition("{code-cell}")[0]:
            problems.append(f"{label}: the solution is not hidden (:class: dropdown)")
    return problems + [f"{x}: a solution without exercise" for x in set(solutions) - set(labels)]


def _figure_problems(page: str) -> list[str]:
    problems = []
    for cell in _code(page):
        meta = cell.metadata.get("mystnb", {})
        if not meta:
            continue
        where = meta.get("figure", {}).get("name") or cell.source[:40]
        if not meta.get("figure", {}).get("caption", "").strip():
            problems.append(f"{where}: no caption (mystnb: figure: caption)")
        if not meta.get("image", {}).get("alt", "").strip():
            problems.append(f"{where}: no alt text (mystnb: image: alt)")
    for name, body in _directives(page, "figure"):
        if not re.search(r"^:alt: *\S", body, re.MULTILINE):
            problems.append(f"figure {name}: no :alt:")
        if not re.sub(r"^:.*$|^---.*?^---", "", body, flags=re.M | re.S).strip():
            problems.append(f"figure {name}: no caption")
    bare = re.findall(r"!\[.*?\]\(.*?\)|^`{3,}\{image\}.*$", _prose(page), re.MULTILINE)
    return problems + [f"{image}: use a figure directive, with a caption" for image in bare]


def _directives(page: str, name: str) -> list[tuple[str, str]]:
    return [m[1:] for m in re.findall(FENCE % name, page, re.MULTILINE | re.DOTALL)]


def _prose(page: str) -> str:
    cells = cells_of(page)
    return "\n".join(c.source for c in cells if c.cell_type == "markdown")


def _code(page: str) -> list:
    return [c for c in cells_of(page) if c.cell_type == "code"]


def _asserts(source: str) -> bool:
    """Whether a cell asserts something that can be false."""
    nodes = ast.walk(ast.parse(source))
    return any(isinstance(n, ast.Assert) and not isinstance(n.test, ast.Constant) for n in nodes)
