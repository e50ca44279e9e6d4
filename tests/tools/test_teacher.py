"""Homework sheets hold every exercise and no solution; the key holds both."""

import builtins
import re

import pytest
from bs4 import BeautifulSoup

from book._ext.reading_time import cells_of
from tests.built import NO_SITE, ROOT, SITE, chapters
from tools import teacher
from tools.needed_cells import names_of, needed_cells

PAGE = """<html><body><article><h1>3. A chapter<a class="headerlink">#</a></h1>
<div class="exercise admonition" id="ex-a"><p class="admonition-title"><span class="caption-number">
Exercise 3.1 </span> (Half of it (easy, 5 minutes))</p><section id="exercise-content">
<p>Compute <span class="math">\\(x_1 * x_2\\)</span> with <a href="#eq"><code>tl.gini</code></a>, by
<em>hand</em>, from <a href="#e">(3.1)</a>:</p>
<div class="math">\\[a_1 &lt; b\\]</div></section></div>
<div class="solution dropdown admonition" id="s"><p class="admonition-title">Solution to
<a href="#ex-a">Exercise 3.1</a></p><section><p>It is SECRET.</p><img alt="a" src="a.png"></section>
</div></article></body></html>
"""
CELLS = """---
kernelspec: {display_name: Python 3, language: python, name: python3}
---
```{code-cell} ipython3
import math
unused = 1
```
```{code-cell} ipython3
seen = []
```
```{code-cell} ipython3
def area(r):
    return math.pi * r**2
```
```{code-cell} ipython3
seen.append(area(2))
```
```{code-cell} ipython3
other = [r for r in range(3)]
```
```{solution-start} ex-a
```
```{code-cell} ipython3
r = 3
print(area(r), seen)
```
```{solution-end}
```
"""


@pytest.fixture
def chapter(tmp_path, monkeypatch):
    (tmp_path / "book/teach").mkdir(parents=True)
    (tmp_path / "book/30-a.html").write_text(PAGE)
    (tmp_path / "book/a.png").write_bytes(b"picture")
    exam = '<section id="exam-questions"><ol><li><p>Why <a href="#">so</a>?</p></li></ol></section>'
    (tmp_path / "book/teach/a.html").write_text(exam)
    monkeypatch.setattr(teacher, "SITE", tmp_path)
    monkeypatch.setattr(teacher, "MATHJAX", tmp_path)
    return teacher.Chapter("30-a")


def test_the_sheet_has_the_exercise_and_not_its_solution(chapter):
    sheet = teacher.sheet_html(chapter)
    assert "Exercise 3.1: Half of it (easy, 5 minutes)" in sheet
    assert "\\(x_1 * x_2\\)" in sheet and "<title>Homework: 3. A chapter</title>" in sheet
    assert "SECRET" not in sheet and "href" not in sheet and "CC BY 4.0" in sheet


def test_the_notebook_has_readable_text_an_empty_cell_and_no_solution(chapter):
    notebook = teacher.sheet_notebook(chapter, CELLS)
    text = "\n".join(cell.source for cell in notebook.cells)
    assert "Compute $x_1 * x_2$ with `tl.gini`, by\n*hand*, from (3.1):" in text
    assert "$$\na_1 < b\n$$" in text
    assert notebook.cells[-1].cell_type == "code" and notebook.cells[-1].source == ""
    assert "SECRET" not in text and "print(" not in text


def test_the_key_has_the_solution_its_picture_and_the_answers(chapter):
    key = teacher.key_html(chapter, ["Because $x < 1$."])
    assert "It is SECRET." in key and "data:image/png;base64,cGljdHVyZQ==" in key
    assert "<p>Why so?</p>" in key and "\\(x &lt; 1\\)" in key


def test_a_solution_that_names_another_exercise_is_not_that_ones(tmp_path, monkeypatch):
    boxes = """<h1>A</h1>
<div class="exercise" id="ex-a"><p class="admonition-title">A</p><p>a</p></div>
<div class="solution"><p class="admonition-title">Solution to <a href="#ex-a">A</a></p>
<p>See <a href="#ex-b">B</a>.</p></div>
<div class="exercise" id="ex-b"><p class="admonition-title">B</p><p>b</p></div>
<div class="solution"><p class="admonition-title">Solution to <a href="#ex-b">B</a></p>
<p>RIGHT</p></div>
<div class="solution"><p class="admonition-title">Solution to <a href="#ex-b">B</a></p>
<p>ANOTHER</p></div>"""
    (tmp_path / "book").mkdir()
    (tmp_path / "book/30-a.html").write_text(boxes)
    monkeypatch.setattr(teacher, "SITE", tmp_path)
    chapter = teacher.Chapter("30-a")
    assert len(chapter.exercises[0].solutions) == 1
    both = str(chapter.exercises[1].solutions)
    assert "RIGHT" in both and "ANOTHER" in both, "the second solution is missing"


def test_a_teaching_page_may_have_no_exam_questions(chapter):
    (teacher.SITE / "book/teach/a.html").write_text("<h1>Plans</h1>")
    assert teacher.exam_questions("30-a") == []


def test_a_question_without_an_answer_says_so(chapter):
    with pytest.raises(SystemExit, match="30-a: 1 exam questions, and 0 answers"):
        teacher.key_html(chapter, [])


def test_a_chapter_that_is_not_built_says_what_to_do(chapter):
    with pytest.raises(SystemExit, match="run `make book`"):
        teacher.Chapter("31-none")


def test_an_old_address_of_a_chapter_gets_no_sheet(tmp_path, monkeypatch):
    monkeypatch.setattr(teacher, "SITE", tmp_path)
    (tmp_path / "book").mkdir()
    for name in ("01-taylor", "10-taylor"):  # the first only leads to the second
        (tmp_path / f"book/{name}.html").touch()
    assert teacher.chapters() == ["10-taylor"]


def test_a_notebook_begins_with_the_cells_that_the_solutions_need_and_no_others():
    found = needed_cells(cells_of(CELLS))
    assert [cell.partition("\n")[0] for cell in found] == [
        "import math",
        "seen = []",
        "def area(r):",
        "seen.append(area(2))",
    ]


@pytest.mark.parametrize(
    ("source", "free", "bound", "changed"),
    [
        ("x = x + 1", {"x"}, {"x"}, set()),
        ("for i in range(3):\n    i", {"range"}, {"i"}, set()),
        ("y = [i for i in z if i]", {"z"}, {"y"}, set()),
        ("def f(a, b=c):\n    d = a\n    return d + e", {"c", "e"}, {"f"}, set()),
        ("g = lambda a: a + h", {"h"}, {"g"}, set()),
        ("a.b[0] = c", {"a", "c"}, set(), {"a"}),
        ("n += 1", {"n"}, set(), {"n"}),
        ("a.weight.mul_(b)", {"a", "b"}, set(), {"a", "b"}),
        ("init.zeros_(a.weight)", {"init", "a"}, set(), {"init", "a"}),
        ("a.__len__()", {"a"}, set(), set()),
        ("import a.b as c, d.e", set(), {"c", "d"}, set()),
        ("with f() as g:\n    g", {"f"}, {"g"}, set()),
        ("%matplotlib inline\n!ls\na = b", {"get_ipython", "b"}, {"a"}, set()),
    ],
)
def test_the_names_of_a_cell(source, free, bound, changed):
    names = names_of(source)
    assert (names.free, names.bound, names.changed) == (free, bound, changed)


@pytest.mark.parametrize("page", chapters(), ids=lambda page: page.stem)
@pytest.mark.slow
def test_what_a_solution_reads_is_in_the_notebook_in_a_solution_or_built_in(page):
    cells = cells_of(page.read_text("utf-8"))
    known, in_solution, wanted = {*dir(builtins), "display"}, False, set()
    for source in needed_cells(cells):
        known |= names_of(source).bound
    for cell in cells:
        words = re.findall(r"^`{3,}\{solution-(start|end)\}", cell.source, re.MULTILINE)
        in_solution = words[-1] == "start" if words else in_solution
        if cell.cell_type == "code" and in_solution:
            names = names_of(cell.source)
            wanted |= names.free - known
            known |= names.bound
    assert wanted == set()


@pytest.mark.slow
@pytest.mark.parametrize("page", chapters(), ids=lambda page: page.stem)
def test_the_sheet_of_a_built_chapter_has_every_exercise_and_no_solution(page):
    if not (SITE / f"book/{page.stem}.html").exists():
        pytest.skip(NO_SITE)
    source = page.read_text("utf-8")
    chapter = teacher.Chapter(page.stem)
    labels = re.findall(r"^:label: *(ex-\S+)", source, re.MULTILINE)
    assert [exercise.label for exercise in chapter.exercises] == labels
    assert all(exercise.solutions for exercise in chapter.exercises)
    sheet = BeautifulSoup(teacher.sheet_html(chapter), "html.parser")
    assert sheet.select(".solution, .cell, .cell_output") == []
    notebook = teacher.sheet_notebook(chapter, source)
    text = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    assert "Solution to" not in text and not re.search(r"\{\w+(:\w)?\}`", text), "a raw role"


def test_nothing_of_the_key_is_in_the_site():
    if not SITE.is_dir():
        pytest.skip(NO_SITE)
    answers = teacher.exam_answers((ROOT / "book/teach/exam_answers.md").read_text("utf-8"))
    words = [answer[:40] for each in answers.values() for answer in each]
    assert len(words) > 40
    files = [p for p in SITE.rglob("*") if p.suffix in (".html", ".md", ".txt", ".js")]
    assert not [p for p in files if "exam_answers" in p.name]
    teach = [p.read_text("utf-8") for p in files if "teach" in p.parts]
    assert not [w for w in words for text in teach if w in text]
