"""The book builds when pages are left out, and a wrong label is still an error."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

from book._ext import left_out
from tests.built import ROOT, copy_package

OUT = """(chap-out)=
# The page that is left out

(sec-out)=
## A section

$$
a = b
$$ (eq-out)

```{figure} a.png
:name: fig-out
A figure
```

```{math}
:label: eq-of-directive
a = c
```

```{exercise-start} An exercise
:label: ex-out
```

```{code-cell} ipython3
---
mystnb: {figure: {caption: A figure}}
name: "fig-in-quotes"
---
```
"""
LABELS = [
    ("{ref}`chap-out`", "The page that is left out"),
    ("{ref}`some text <chap-out>`", "some text"),
    ("{numref}`Chapter %s <chap-out>`", "The page that is left out"),
    ("{ref}`sec-out`", "A section"),
    ("{eq}`eq-out`", "an equation of The page that is left out"),
    ("{numref}`fig-out`", "a figure of The page that is left out"),
    ("{doc}`out`", "The page that is left out"),
    ("{ref}`the exercise <ex-out>`", "the exercise"),
    ("{numref}`Fig. {number} <fig-out>`", "a figure of The page that is left out"),
    ("{eq}`eq-of-directive`", "an equation of The page that is left out"),
    ("{numref}`fig-in-quotes`", "a figure of The page that is left out"),
]


def built(tmp_path, page: str, **config) -> tuple[str, str]:
    """The page as text, and Sphinx's warnings, of a book in which book/out.md is left out."""
    source = tmp_path / "source"
    (source / "book").mkdir(parents=True)
    (source / "book/out.md").write_text(OUT)
    (source / "book/index.md").write_text(f"# Index\n\n{page}\n")
    (source / "conf.py").write_text("")
    settings = dict(extensions=["myst_parser", "left_out"], root_doc="book/index", numfig=True)
    settings |= dict(exclude_patterns=["book/out.md"], myst_enable_extensions=["dollarmath"])
    places = (source, source, tmp_path / "out", tmp_path / "trees", "text")
    warnings = tmp_path / "warnings"
    with warnings.open("w") as stream, docutils_namespace():
        app = Sphinx(*places, settings | config, status=None, warning=stream)
        app.build()
    return (tmp_path / "out/book/index.txt").read_text("utf-8"), warnings.read_text()


@pytest.fixture(autouse=True)
def extensions(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book/_ext"))


@pytest.mark.slow
def test_a_reference_to_a_page_that_is_left_out_is_its_title(tmp_path):
    page = "\n\n".join(f"See {role}." for role, _ in LABELS)
    text, warnings = built(tmp_path, page)
    assert warnings == ""
    for _, wanted in LABELS:
        assert f"See {wanted}." in " ".join(text.replace("*", "").split())


@pytest.mark.parametrize("role", ["{ref}`chap-none`", "{eq}`eq-none`", "{numref}`fig-none`"])
def test_a_label_that_no_page_has_is_an_error(tmp_path, role):
    _, warnings = built(tmp_path, f"See {role}.", nitpicky=True)
    assert "none" in warnings


def test_a_label_of_a_page_that_is_built_stays_a_link(tmp_path):
    text, warnings = built(tmp_path, "(here)=\n## Here\n\nSee {ref}`here`.")
    assert "See Here." in text and warnings == ""


def test_every_label_of_the_chapters_is_known():
    page = (ROOT / "book/30-smoothgrad.md").read_text("utf-8")
    found = left_out.labels_of(page)
    assert found["chap-smoothgrad"].title.startswith("SmoothGrad")
    assert found["sg-levels"] == left_out.Place("", "How much noise?")
    assert found["eq-sg-stein"].what == "an equation of "
    assert found["fig-sg-hook"].what == "a figure of "
    assert found["ex-sg-halve"].what == "an exercise of "


@pytest.mark.slow
def test_a_chapter_alone_builds_without_a_warning(tmp_path):
    """All other chapters are left out. Cells are not run, so the page's own figures are missing."""
    shutil.copytree(ROOT / "book", tmp_path / "book")
    copy_package(tmp_path)
    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))
    config["execute"] = {"execute_notebooks": "off"}
    (tmp_path / "_config.yml").write_text(yaml.safe_dump(config, sort_keys=False))
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
    toc["parts"] = [part for part in toc["parts"] if part["caption"] in ("The thread", "Reference")]
    thread, reference = toc["parts"]
    thread["chapters"] = [{"file": "book/40-smoothtaylor"}]
    reference["chapters"] = [{"file": "book/bibliography"}]  # the API's pages import the package
    (tmp_path / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False))
    (tmp_path / "_build/static").mkdir(parents=True)
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", ".", "-n"]
    path = f"{tmp_path}:{tmp_path / 'book'}"
    run = subprocess.run(
        [*command, "--keep-going"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    own = left_out.labels_of((ROOT / "book/40-smoothtaylor.md").read_text("utf-8"))
    missing = re.compile(r"undefined label: '(fig-[\w-]+)'")
    warnings = [line for line in run.stderr.splitlines() if "WARNING" in line]
    labels = [missing.search(line) for line in warnings]
    assert [w for w, found in zip(warnings, labels, strict=True) if not found] == []
    assert {found[1] for found in labels} <= own.keys()
    html = (tmp_path / "_build/html/book/40-smoothtaylor.html").read_text("utf-8")
    assert "<em>SmoothGrad: the gradient of a blurred network</em>" in html
