"""The sources of the decks of slides: their length, their notes and their numbers."""

import re

import pytest

from tests.built import ROOT, chapters

DECKS = [deck for c in chapters() if (deck := ROOT / f"book/slides/{c.name}").is_file()]
DIRECTIVE = re.compile(r"^(:{3,})\{(pull|notes)\}.*?^\1$", re.MULTILINE | re.DOTALL)
MINUTES = re.compile(r"^:::\{notes\} ([\d.]+)$", re.MULTILINE)
DERIVED = re.compile(r"^% derived: ([-+*/(). \d]+) = ([-\d.]+)$", re.MULTILINE)
NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?")

pytestmark = pytest.mark.parametrize("deck", DECKS, ids=lambda deck: deck.stem)


def slides(deck) -> list[str]:
    """The sources of the slides."""
    return re.split(r"^(?=##? )", deck.read_text("utf-8"), flags=re.MULTILINE)[1:]


def numbers(text: str) -> set[str]:
    return {found.replace(",", "") for found in NUMBER.findall(text.replace("{,}", ""))}


def test_a_deck_has_a_chapter_and_fills_a_lecture(deck):
    assert deck.stem in {chapter.stem for chapter in chapters()}
    assert 15 <= len(slides(deck)) <= 25
    minutes = [float(m) for m in MINUTES.findall(deck.read_text("utf-8"))]
    assert 40 <= sum(minutes) <= 45


def test_each_slide_has_notes(deck):
    bare = [slide.splitlines()[0] for slide in slides(deck) if len(MINUTES.findall(slide)) != 1]
    assert bare == [], "slides without notes, or with two"


def test_a_deck_has_all_that_a_lecture_needs(deck):
    pulled = re.findall(r"^:::\{pull\} (\S+)", deck.read_text("utf-8"), re.MULTILINE)
    assert pulled.count("question") >= 2, "questions to vote on"
    assert "\n## Discuss" in deck.read_text("utf-8"), "nothing to discuss"
    for kind in ("fig-", "eq-", "slider", "summary"):
        assert any(label.startswith(kind) for label in pulled), f"nothing pulled of {kind}"


def test_every_number_on_a_slide_is_the_chapters_or_worked_out(deck):
    text = deck.read_text("utf-8")
    known = numbers((ROOT / f"book/{deck.stem}.md").read_text("utf-8"))
    for expression, value in DERIVED.findall(text):
        result = eval(expression)  # digits and signs only
        digits = len(value.partition(".")[2])
        assert round(result, digits) == float(value), f"{expression} is {result}, not {value}"
        known |= numbers(f"{expression} {value}")
    shown = re.sub(r"^%.*$", "", DIRECTIVE.sub("", text), flags=re.MULTILINE)
    of_the_book = {str([c.stem for c in chapters()].index(deck.stem) + 1)}
    assert numbers(shown) - known - of_the_book == set()
