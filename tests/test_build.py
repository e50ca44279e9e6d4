"""tools/build.py: what runs again and what does not, and where things lie on other machines."""

import ast
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.built import ROOT, make_targets
from tools import build

MODULES = ("venv", "pip", "sphinx", "tools.pdf")


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A small repository; `ran` has the names of the programs that the steps start there."""
    texts = {
        "pyproject.toml": "",
        "_config.yml": "",
        "_toc.yml": "root: book/10-one\nparts:\n  - file: book/20-two\n  # - file: book/30-out\n",
        "book/10-one.md": "---\nkernelspec:\n---\n",
        "book/20-two.md": "---\nkernelspec:\n---\n",
        "book/30-out.md": "---\nkernelspec:\n---\n",
        "book/plain.md": "no cells\n",
        "book/_static/custom.css": "",
        "book/_ext/404.html": "",
        "book/slides/10-one.md": "",
        "book/tutorial_book/results/rates.csv": "",
        "book/tutorial_book/results/make_rates.py": "",
        "tutorial_lib/averaging/engine.py": "",
        "tutorial_lib/fast/gradient_graph.py": "",
        "tools/playground.py": "",
        "tools/pdf.py": "",
        "web/package.json": "",
    }
    for name, text in texts.items():
        build.touch(tmp_path / name, text)
    ran, fails, meanwhile = [], set(), {}

    def run(command, env=None):
        name = Path(command[0]).name
        known = [c for c in command[1:] if c.endswith(".py") or c in MODULES]
        what = Path(known[0]).name if known and name == "python" else name
        ran.append(what)
        meanwhile.get(what, lambda: None)()
        makes = {"venv": build.python(), "fetch.py": str(build.VENDOR / "mathjax.js")}
        makes["playground.py"] = str(build.PLAYGROUND / "network.onnx")
        if what in makes:
            build.touch(Path(makes[what]))
            os.utime(Path(makes[what]).parent)  # a folder that is made anew is new
        return SimpleNamespace(returncode=int(what in fails))

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(build, "COMMAND", "make")
    monkeypatch.setattr(build.subprocess, "run", run)
    return SimpleNamespace(ran=ran, fails=fails, meanwhile=meanwhile)


def again(copy, *commands: str, changed: str = "") -> list[str]:
    """What these commands start, a hundred seconds later and after a file has changed."""
    copy.ran.clear()
    for path in [Path(), *Path().rglob("*")]:
        before = path.stat().st_mtime - 100
        os.utime(path, (before, before))
    if changed:
        between = time.time() - 50
        os.utime(changed, (between, between))
    assert build.main(*commands) == 0
    return [*copy.ran]


SITE = ["run_pages.py", "jupyter-book"]
BOOK = [*SITE, "sphinx"]  # with the slides


def test_a_step_runs_again_only_where_something_that_it_reads_has_changed(copy):
    assert again(copy, "book") == ["venv", "pip", "python", "fetch.py", "playground.py", *BOOK]
    assert again(copy, "book") == []
    of_the_site = "book/10-one.md book/plain.md book/_static/custom.css book/_ext/404.html _toc.yml"
    for changed in of_the_site.split():
        assert again(copy, "book", changed=changed) == BOOK, changed
    assert again(copy, "book", changed="book/tutorial_book/results/rates.csv") == BOOK
    assert again(copy, "book", changed="book/tutorial_book/results/make_rates.py") == []
    assert again(copy, "book", changed="book/slides/10-one.md") == ["sphinx"]
    assert again(copy, "book", changed="web/package.json") == ["fetch.py", "playground.py", *BOOK]
    for changed in ("tools/playground.py", "tutorial_lib/fast/gradient_graph.py"):
        assert again(copy, "book", changed=changed) == ["playground.py", *BOOK], changed
    build.touch(Path("_build/.jupyter_cache/global.db"))
    assert again(copy, "book", changed="_toc.yml") == BOOK
    assert Path("_build/.jupyter_cache").exists()
    assert again(copy, "book", changed="tutorial_lib/averaging/engine.py") == BOOK
    assert not Path("_build/.jupyter_cache").exists(), "outputs of old code stay in the book"
    installed_anew = ["pip", "python", "playground.py", *BOOK]
    assert again(copy, "book", changed="pyproject.toml") == installed_anew


@pytest.mark.parametrize("step", ["run_pages.py", "jupyter-book"])
def test_a_page_that_is_written_while_the_book_is_built_is_built_again(copy, step):
    assert again(copy, "book") != []
    page = Path("book/10-one.md")
    copy.meanwhile[step] = lambda: page.write_text(page.read_text() + "more\n")
    assert again(copy, "book", changed="_toc.yml") == BOOK
    copy.meanwhile.clear()
    assert again(copy, "book") == BOOK
    assert again(copy, "book") == []


def test_a_build_that_was_interrupted_is_not_taken_for_done(copy, capsys):
    assert again(copy, "book") != []

    def interrupt():
        raise KeyboardInterrupt

    for step in ("jupyter-book", "sphinx"):
        copy.meanwhile[step] = interrupt
        Path("_toc.yml").touch()
        assert build.main("book", "pdf") == 130
        assert capsys.readouterr().out.endswith(
            "make book was stopped; the next one goes on from here\n"
        )
        copy.meanwhile.clear()
        assert step in again(copy, "book")
        assert again(copy, "book") == []


def test_the_tests_run_each_time_and_look_at_the_run_that_the_site_shows(copy):
    always, checks = ["ruff", "ruff", "oxlint", "mypy"], ["run_pages.py", "pytest"]
    first = again(copy, "test")
    assert first == ["venv", "pip", "python", *always, "fetch.py", "playground.py", *BOOK, *checks]
    assert again(copy, "test") == [*always, *checks]
    assert again(copy, "test", changed="book/20-two.md") == [*always, *BOOK, *checks]


def test_the_files_on_paper_are_made_again_with_the_site(copy):
    made = [*BOOK, "tools.pdf"]
    assert again(copy, "pdf")[-len(made) :] == made
    assert again(copy, "pdf") == []
    assert again(copy, "pdf", changed="tools/pdf.py") == ["tools.pdf"]
    assert again(copy, "pdf", changed="book/plain.md") == made


def test_a_step_that_fails_is_named_with_what_helps_and_is_not_taken_for_done(copy, capsys):
    copy.fails.add("jupyter-book")
    assert build.main("book") == 1
    said = capsys.readouterr().out
    assert "== building the site" in said
    assert "FAILED: building the site. Sphinx's warnings above are errors here" in said
    assert said.endswith("make book FAILED: the line that says FAILED above names the step\n")
    copy.fails.clear()
    assert again(copy, "book") == BOOK
    copy.fails.add("pytest")
    assert build.main("test") == 1 and "FAILED: unit" in capsys.readouterr().out


def test_a_program_that_is_not_there_fails_like_one_that_fails(capsys):
    with pytest.raises(build.Failed):
        build.step("a step", ["no-such-program"], hint="Install it")
    assert "FAILED: a step. Install it" in capsys.readouterr().out


def test_a_page_that_is_left_out_of_the_table_of_contents_is_not_run(copy):
    assert build.pages() == [Path("book/10-one.md"), Path("book/20-two.md")]


def test_windows_and_conda_keep_their_programs_elsewhere(monkeypatch):
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    assert Path(build.python(windows=False)) == Path(".venv/bin/python")
    assert Path(build.python(windows=True)) == Path(".venv/Scripts/python.exe")
    assert Path(build.tool("ruff", windows=False)) == Path(".venv/bin/ruff")
    assert Path(build.tool("ruff", windows=True)) == Path(".venv/Scripts/ruff.exe")
    monkeypatch.setenv("CONDA_PREFIX", "envs/book")
    monkeypatch.setenv("CONDA_DEFAULT_ENV", "book")
    assert Path(build.python(windows=False)) == Path("envs/book/bin/python")
    assert Path(build.python(windows=True)) == Path("envs/book/python.exe")
    assert Path(build.tool("ruff", windows=True)) == Path("envs/book/Scripts/ruff.exe")
    monkeypatch.setenv("CONDA_DEFAULT_ENV", "base")
    assert Path(build.python(windows=True)) == Path(".venv/Scripts/python.exe")


def test_an_active_conda_environment_is_used_and_belongs_to_one_checkout(
    copy, monkeypatch, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("conda")
    monkeypatch.setenv("CONDA_PREFIX", str(folder))
    monkeypatch.setenv("CONDA_DEFAULT_ENV", "averaging-gradients")
    assert again(copy, "install") == ["pip", "python"]
    assert not Path(".venv").exists() and [*folder.iterdir()]
    assert again(copy, "install") == []
    (folder / "averaging-gradients-installed").write_text("another folder")
    assert again(copy, "install") == ["pip", "python"], "another checkout's package is used"


def test_make_and_the_program_have_the_same_commands(capsys):
    named = {command.__name__ for command in build.COMMANDS}
    assert make_targets() - {".venv/installed"} == named | {"help"}
    assert build.main() == 0
    listed = capsys.readouterr().out
    assert all(f" {name} " in listed for name in named), listed


def test_a_command_that_does_not_exist_is_named_with_those_that_do(capsys):
    assert build.main("boook") == 2
    assert "'boook'" in capsys.readouterr().out


def test_values_for_a_command_are_given_as_to_make(copy, monkeypatch):
    seen = []
    monkeypatch.setattr(build, "COMMANDS", [named := lambda: seen.append(os.environ["NAME"])])
    named.__name__ = "chapter"
    monkeypatch.setenv("NAME", "before")
    assert build.main("chapter", "NAME=12-mine") == 0 and seen == ["12-mine"]


def test_the_program_needs_only_the_standard_library_and_an_old_python_can_read_it():
    tree = ast.parse((ROOT / "tools/build.py").read_text("utf-8"), feature_version=(3, 8))
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    names = {n.module if isinstance(n, ast.ImportFrom) else n.names[0].name for n in imports}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


@pytest.mark.slow
def test_no_test_imports_at_the_top_what_windows_does_not_have():
    absent = {"resource", "fcntl", "pwd", "grp", "termios", "tty", "pty", "syslog"}
    folders = ("tests", "tools", "tutorial_lib", "benchmarks", "web", "book")
    for path in [p for folder in folders for p in (ROOT / folder).rglob("*.py")]:
        tops = ast.parse(
            path.read_text("utf-8")
        ).body  # what stands in try or def is not at the top
        names = {a.name for n in tops if isinstance(n, ast.Import) for a in n.names}
        names |= {n.module for n in tops if isinstance(n, ast.ImportFrom)}
        assert not names & absent, path.relative_to(ROOT)


def test_the_program_starts_without_an_environment():
    command = [sys.executable, "-S", "-E", str(ROOT / "tools/build.py")]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "book" in run.stdout and "Build the site" in run.stdout
