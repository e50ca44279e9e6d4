"""Questions become options that open without a script, and a malformed one is refused."""

import subprocess
import sys

import pytest
from bs4 import BeautifulSoup

from tests.built import ROOT

pytestmark = pytest.mark.slow

CONF = """
import sys
sys.path.insert(0, {folder!r})
extensions = ["myst_parser", "questions"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
"""
GOOD = """# A page

:::{question} Which of $3$ and $4$ is even?
Think of two.

- [ ] $3$

  Two does not divide it.
- [x] four, that is $4$

  It is *twice* two.

  And a second paragraph.
:::
"""


def built(tmp_path, page: str):
    """The page's HTML, and what Sphinx complained about."""
    (tmp_path / "conf.py").write_text(CONF.format(folder=str(ROOT / "book/_ext")))
    (tmp_path / "index.md").write_text(page)
    command = [sys.executable, "-m", "sphinx", "-q", str(tmp_path), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    html = (tmp_path / "out/index.html").read_text("utf-8")
    return BeautifulSoup(html, "html.parser"), done.stderr


def test_each_option_opens_on_what_is_said_to_those_who_choose_it(tmp_path):
    soup, said = built(tmp_path, GOOD)
    assert said == ""
    stem = soup.select_one(".question p.stem")
    assert stem.get_text() == r"Which of \(3\) and \(4\) is even?"
    wrong, right = soup.select(".question details.option")
    assert (wrong["class"], right["class"]) == (["option", "wrong"], ["option", "right"])
    assert wrong.summary.get_text().strip() == r"\(3\)"
    assert right.summary.get_text() == r"four, that is \(4\)"
    assert wrong.p.get_text() == "No. Two does not divide it."
    assert [p.get_text() for p in right.find_all("p")][1] == "And a second paragraph."
    assert not wrong.has_attr("open") and "Think of two." in soup.get_text()


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("[x]", "[ ]", "exactly one [x]"),
        ("[ ]", "[x]", "exactly one [x]"),
        ("[ ] $3$", "$3$", "expected [x] or [ ]"),
        ("\n\n  Two does not divide it.", "", "says nothing to those who choose it"),
        ("- [ ]", "[ ]", "expected two options or more"),
    ],
)
def test_a_malformed_question_is_refused(tmp_path, old, new, text):
    assert old in GOOD
    assert text in built(tmp_path, GOOD.replace(old, new))[1]
