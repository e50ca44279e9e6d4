"""The way out when jupyter-book 1.x ends: its conf.py, and plain Sphinx."""

import shutil
import subprocess
import sys

import pytest

from tests.built import ROOT, copy_package

pytestmark = pytest.mark.slow

TOC = """
format: jb-book
root: book/index
parts:
  - caption: One part
    numbered: true
    chapters: [{file: book/10-page}]
"""
PAGE = r"""---
jupytext: {text_representation: {extension: .md, format_name: myst}}
kernelspec: {display_name: Python 3, language: python, name: python3}
---

# A page

By {cite:t}`Simonyan2014`, and see {eq}`eq-one`.

$$ 1 + 1 = 2 $$ (eq-one)

```{code-cell} ipython3
:tags: [check]

# One and one is two.
assert 1 + 1 == 2
```

:::{question} Is one even?
- [ ] Yes.

  Two does not divide it.
- [x] No.

  It leaves a rest.
:::

```{exercise-start} Two (easy, 1 minute)
:label: ex-two
```
Is two even?
```{exercise-end}
```

```{bibliography}
```
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A book of two pages, with the project's settings."""
    root = tmp_path_factory.mktemp("plain")
    for name in ("book/_ext", "book/_static"):
        shutil.copytree(ROOT / name, root / name)
    copy_package(root)
    for name in ("_config.yml", "book/references.bib", "book/api.md"):
        shutil.copy(ROOT / name, root / name)
    (root / "_toc.yml").write_text(TOC)
    (root / "_build/static/vendor").mkdir(parents=True)
    (root / "_build/static/vendor/served.js").touch()
    (root / "book/10-page.md").write_text(PAGE.replace("Simonyan2014", first_key()))
    (root / "book/index.md").write_text("# The start\n\nThe page is {doc}`10-page`.\n")
    for command in (
        [str(ROOT / "tools/plain_sphinx.py")],
        ["-m", "sphinx", "-n", "--keep-going", ".", "_build/plain"],
    ):
        run = subprocess.run([sys.executable, *command], cwd=root, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr[-3000:]
    assert "WARNING" not in run.stderr, run.stderr
    assert "jupyter_book" not in sys.modules and (root / "conf.py").exists()
    return root / "_build/plain"


def first_key() -> str:
    bib = (ROOT / "book/references.bib").read_text("utf-8")
    return bib[bib.index("{") + 1 : bib.index(",")]


def test_a_page_has_what_the_extensions_give_it(site):
    page = (site / "book/10-page.html").read_text("utf-8")
    assert "Checked: One and one is two." in page
    assert 'class="question"' in page and "Exercise 1.1" in page
    assert 'href="#equation-eq-one"' in page


def test_styles_and_what_the_site_serves_itself_are_copied(site):
    assert (site / "_static/custom.css").exists() and (site / "_static/print.css").exists()
    assert (site / "_static/vendor/served.js").exists()


def test_the_start_leads_to_the_first_page(site):
    assert "book/index.html" in (site / "index.html").read_text("utf-8")
