"""The book keeps its promises, and the functions that say so notice a broken one."""

import pytest

from tests.book import contract
from tests.built import ROOT, built_html, chapters, toc_pages

PAGES = toc_pages()
CHAPTERS = chapters()


def by_name(page) -> str:
    return page.stem


@pytest.mark.slow
def test_every_labelled_equation_is_checked_and_nothing_else_is():
    pages = [(ROOT / f"{page}.md").read_text("utf-8") for page in PAGES]
    tests = [p for p in (ROOT / "tests").rglob("test_*.py") if p.name != "test_contract.py"]
    labels = [label for page in pages for label in contract.labelled_equations(page)]
    checked = [label for page in pages for label in contract.checked_equations(page)]
    checked += [label for test in tests for label in contract.named(test.read_text("utf-8"))]
    assert len(labels) > 10
    assert contract.equation_problems(labels, checked) == []


@pytest.mark.parametrize("chapter", CHAPTERS, ids=by_name)
def test_the_chapter_keeps_the_page_contract(chapter):
    assert contract.source_problems(chapter.read_text("utf-8")) == []


@pytest.mark.parametrize("page", PAGES)
def test_every_cell_teaches_draws_or_checks(page):
    assert contract.cell_problems((ROOT / f"{page}.md").read_text("utf-8")) == []


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_built_page_has_alt_texts_and_captions_and_shows_no_errors(page):
    assert contract.built_problems(built_html(page)) == []


# From here on: the checks themselves notice what is wrong.

GOOD = """---
jupytext: {text_representation: {extension: .md, format_name: myst}}
kernelspec: {display_name: Python 3, language: python, name: python3}
---
# A page

```{admonition} You will learn
:class: tip
- one
- two
- three

**Before you start:** nothing.

**Time:** 5 minutes to read, 1 minute to run.
```
## The idea
## The mathematics

$$
a = b
$$ (eq-page-one)

```{code-cell} ipython3
---
tags: [hide-input]
mystnb:
  figure: {caption: A caption, name: fig-page}
  image: {alt: A line}
---
x = 1
```

```{code-cell} ipython3
:tags: [check]

# Both sides are the same.
# checks eq-page-one
assert a == b
```
## From scratch
## With the package
QUESTIONS
## What can go wrong
## Exercises
EXERCISES
## Summary
## Further reading
{cite}`somebody`
"""
EXERCISE = """
```{exercise-start} Title (easy, 5 minutes)
:label: ex-N
```
Do it.
```{exercise-end}
```

```{solution-start} ex-N
:class: dropdown
```
```{code-cell} ipython3
assert solved
```
```{solution-end}
```
"""
LONG = "```\n\n```{code-cell} ipython3\n" + "y = 2\n" * 13  # a cell in place of the check
LONG += "```\n\n```{code-cell} ipython3\n:tags: [check]"
QUESTION = """
:::{question} Which?
- [x] This.

  Yes.
- [ ] That.

  No.
:::
"""
GOOD = GOOD.replace("QUESTIONS", 4 * QUESTION)
GOOD = GOOD.replace("EXERCISES", "".join(EXERCISE.replace("ex-N", f"ex-{i}") for i in range(5)))


def test_a_good_page_has_no_problems():
    assert contract.source_problems(GOOD) == contract.cell_problems(GOOD) == []
    assert contract.labelled_equations(GOOD) == contract.checked_equations(GOOD) == ["eq-page-one"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("You will learn", "You may learn", "no admonition 'You will learn'"),
        ("- three\n", "", "no three outcomes"),
        ("**Before you start:** nothing.", "", "no prerequisites"),
        ("5 minutes to read", "soon", "no minutes to read"),
        ("1 minute to run", "soon", "no minutes to run"),
        ("## What can go wrong\n", "", "no section 'What can go wrong'"),
        ("## Summary\n", "", "no section 'Summary'"),
        ("{cite}`somebody`", "a book", "cites nothing"),
        (":label: ex-2", "", "4 exercises"),
        ("Title (easy, 5 minutes)\n:label: ex-1", "Title\n:label: ex-1", "no level and minutes"),
        ("Title (easy, 5 minutes)\n:label: ex-1", "T (harder, 9 minutes)\n:label: ex-1", "easiest"),
        (QUESTION, "", "0 questions, 4 wanted"),
        ("5 minutes to read", "9 minutes to read", "promises 9 minutes to read, and takes"),
        ("## From scratch", "word " * 9000 + "\n\n## From scratch", "minutes to read, at most 40"),
        ("{solution-start} ex-1", "{solution-start} ex-7", "ex-1: no solution"),
        ("```{code-cell} ipython3\nassert solved\n```\n", "", "the solution has no code cell"),
        (":class: dropdown\n", "", "is not hidden"),
        ("{caption: A caption, name: fig-page}", "{name: fig-page}", "fig-page: no caption"),
        ("{alt: A line}", "{width: 3}", "fig-page: no alt text"),
        ("## The idea", "## The idea\n![alt](a.png)", "use a figure directive"),
        ("## The idea", "## The idea\n```{figure} a.png\nA caption\n```", "no :alt:"),
        ("## The idea", "## The idea\n```{figure} a.png\n:alt: a\n```", "a.png: no caption"),
        ("## From scratch\n## With the package", "## With the package\n## From scratch", "order"),
    ],
)
def test_a_broken_promise_of_a_page_is_noticed(old, new, problem):
    assert old in GOOD
    problems = contract.source_problems(GOOD.replace(old, new))
    assert any(problem in p for p in problems), problems


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("x = 1", "assert x == 1", "an assert outside of a check"),
        ("tags: [hide-input]\n", "", "draws, and shows its code"),
        ("tags: [hide-input]\nmystnb", "mystnb", "draws, and shows its code"),
        ("tags: [hide-input]", "tags: [check]", "a check that draws"),
        (":tags: [check]\n", "", "an assert outside of a check"),
        ("assert a == b", "a == b", "a check that asserts nothing"),
        ("# Both sides are the same.\n", "", "comment is no sentence"),
        ("# Both sides are the same.", "# both sides", "comment is no sentence"),
        ("assert a == b", "tl.plots.lines(a)\nassert a == b", "a check that draws"),
        ("assert a == b", f"assert a == {'b' * 80}", "92 columns, at most 84"),
        ("assert solved", f"assert {'b' * 80}", "87 columns, at most 84"),
        ("```\n\n```{code-cell} ipython3\n:tags: [check]", LONG, "13 lines are shown"),
    ],
)
def test_a_cell_that_does_two_things_or_shows_too_much_is_noticed(old, new, problem):
    assert old in GOOD
    problems = contract.cell_problems(GOOD.replace(old, new))
    assert any(problem in p for p in problems), problems


@pytest.mark.parametrize(
    ("labels", "checked", "problem"),
    [
        (["eq-a"], [], "eq-a: no assert cell"),
        ([], ["eq-a"], "eq-a: checked, but"),
        (["eq-a", "eq-a"], ["eq-a"], "eq-a: labelled twice"),
    ],
)
def test_an_equation_without_its_check_is_noticed(labels, checked, problem):
    assert problem in contract.equation_problems(labels, checked)[0]


@pytest.mark.parametrize("source", ["a == b", "assert True", "# assert a == b"])
def test_a_cell_that_asserts_nothing_checks_no_equation(source):
    assert contract.checked_equations(GOOD.replace("assert a == b", source)) == []


FIGURE = '<figure><img src="a.png" alt="A line"><figcaption>A caption</figcaption></figure>'
STATE = '<script type="application/vnd.jupyter.widget-state+json">{"state": {"1": {"state": %s}}}'


@pytest.mark.parametrize(
    ("html", "problem"),
    [
        (FIGURE.replace("A line", ""), "no alt text"),
        (FIGURE.replace("A line", "a.png"), "no alt text"),
        (FIGURE.replace("A caption", ""), "with a caption"),
        ('<img src="a.png" alt="A line">', "with a caption"),
        (STATE % '{"value": "<img src=a>"}' + "</script>", "a slider's frame"),
        ('<div class="output stderr">Warning</div>', "shows stderr: Warning"),
    ],
)
def test_a_broken_promise_of_a_built_page_is_noticed(html, problem):
    assert contract.built_problems(FIGURE) == []
    problems = contract.built_problems(html)
    assert any(problem in p for p in problems), problems
