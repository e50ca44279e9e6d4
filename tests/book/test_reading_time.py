"""The time that a page takes is that of its rule, counted by hand on small pages."""

import pytest

from book._ext.reading_time import reading_time

HEAD = """---
jupytext: {text_representation: {extension: .md, format_name: myst}}
kernelspec: {display_name: Python 3, language: python, name: python3}
---
"""
WORDS = "word " * 200 + "\n\n"  # one minute
CODE = "```{code-cell} ipython3\n%s" + "y = 2\n" * 60 + "```\n\n"  # four minutes
FIGURE = "```{code-cell} ipython3\n---\ntags: [hide-input]\nmystnb: {figure: {caption: c}}\n---\n"
FIGURE += "y = 2\n```\n\n"


@pytest.mark.parametrize(
    ("page", "main", "folds"),
    [
        (5 * WORDS, 5, 5),
        (WORDS + "$$\na = b\n$$ (eq-a)\n\n$$\nc = d\n$$\n\n", 3, 3),
        (CODE % "", 4, 4),
        (CODE % ":tags: [hide-input]\n\n", 0, 4),
        (CODE % ":tags: [check]\n\n", 0, 4),
        (FIGURE, 1, 1),
        ("```{code-cell} ipython3\n:tags: [hide-input]\n\ntl.widgets.slider([])\n```\n", 1, 1),
        ("```{figure} a.png\n:alt: a b c\n\n" + WORDS + "```\n", 0, 0),
        ("```{admonition} Deeper\n:class: dropdown\n" + 2 * WORDS + "```\n\n" + WORDS, 1, 3),
        ("```{admonition} Predict\n" + 2 * WORDS + "```\n\n" + WORDS, 3, 3),
        (":::{question} Which?\n- [x] This\n\n  " + 3 * WORDS + ":::\n\n" + WORDS, 1, 1),
        ("a $x^2 + y^2$ " * 100, 1, 1),
    ],
)
def test_the_rule_counts_what_is_shown_and_what_is_folded(page, main, folds):
    assert reading_time(HEAD + page)[:2] == (main, folds)


def test_exercises_say_their_own_minutes_and_their_solutions_are_not_read():
    exercise = "```{exercise-start} One (easy, 5 minutes)\n:label: ex-a\n```\n" + 3 * WORDS
    exercise += "```{exercise-end}\n```\n\n```{solution-start} ex-a\n:class: dropdown\n```\n"
    exercise += 3 * WORDS + CODE % "" + "```{solution-end}\n```\n\n"
    found = reading_time(HEAD + WORDS + exercise + exercise.replace("5 min", "10 min") + WORDS)
    assert found == (2, 2, 15)
