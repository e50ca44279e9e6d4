"""All steps of building and checking the book, for machines with make and without.

    python tools/build.py            lists the commands
    python tools/build.py book       as `make book`; the Makefile calls this

It needs nothing but Python's standard library, and runs on Linux, macOS and Windows. A step runs
again where something that it reads is newer than what it made. It works in .venv, which it makes,
or in a conda environment where one is active (other than base).
"""

from __future__ import annotations  # an older Python gets as far as the line that refuses it

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "make" if "MAKELEVEL" in os.environ else "python tools/build.py"
VENDOR = Path("_build/static/vendor")
PLAYGROUND = Path("_build/static/playground")
SITE = Path("_build/html/.complete")
SLIDES = Path("_build/html/slides/.complete")
PDF = Path("_build/html/pdf/.complete")
EXECUTED = Path("_build/executed-with")
EXTRAS = ".[book,test]"


class Failed(Exception):
    """A step that did not succeed, after it has said so."""


# ---------------------------------------------------------------- the environment


def conda() -> Path | None:
    """The conda environment that is active, unless it is conda's own."""
    prefix, name = os.environ.get("CONDA_PREFIX"), os.environ.get("CONDA_DEFAULT_ENV")
    return Path(prefix) if prefix and name != "base" else None


def environment() -> Path:
    """The folder of the environment that the steps run in."""
    return conda() or Path(".venv")


def python(windows: bool = os.name == "nt") -> str:
    """Python of that environment. Windows keeps a venv's in Scripts, conda's at the top."""
    folder = environment()
    if not windows:
        return str(folder / "bin" / "python")
    return str((folder if conda() else folder / "Scripts") / "python.exe")


def tool(name: str, windows: bool = os.name == "nt") -> str:
    """A command that a package brought, such as jupyter-book."""
    return str(environment() / ("Scripts" if windows else "bin") / name) + ".exe" * windows


# ---------------------------------------------------------------- steps


def files(*patterns: str) -> list[Path]:
    """The files of the repository that these patterns name."""
    return [path for pattern in patterns for path in sorted(Path().glob(pattern))]


def stale(made: Path, sources: Iterable[Path]) -> bool:
    """Whether what was made is missing or older than something that it was made from."""
    if not made.exists():
        return True
    return any(source.stat().st_mtime > made.stat().st_mtime for source in sources)


def touch(path: Path, text: str = "", begun: float | None = None) -> None:
    """Mark a step as done: now, or when a long one began, as files may have changed since."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    if begun is not None:
        os.utime(path, (begun, begun))


def step(name: str, *commands: list[str], hint: str, pythonpath: str = "") -> None:
    """Say what runs and run it; where it fails, say so and what helps."""
    print(f"\n== {name}", flush=True)
    extra = {"PYTHONPATH": pythonpath} if pythonpath else {}
    for command in commands:
        try:
            failed = subprocess.run(command, env={**os.environ, **extra}).returncode
        except OSError as error:
            failed = print(error) or 1
        if failed:
            print(f"\nFAILED: {name}. {hint}", flush=True)
            raise Failed


def pages() -> list[Path]:
    """The pages of the book that have cells; one that is left out of _toc.yml is not run."""
    toc = Path("_toc.yml").read_text("utf-8")
    there = re.findall(r"^[^#\n]*\b(?:file|root): *[\"']?(book/[^\s\"'#]+)", toc, re.MULTILINE)
    found = [p for p in files("book/*.md") if p.with_suffix("").as_posix() in there]
    return [p for p in found if "\nkernelspec:" in p.read_text("utf-8")]


def book_lib() -> list[Path]:
    """What pages import beside the package."""
    return files("book/tutorial_book/*.py")


def results() -> list[Path]:
    """Measurements that pages read by their names."""
    return files("book/tutorial_book/results/*.csv", "book/tutorial_book/results/*/*")


def own_files() -> list[Path]:
    """Photographs and weights that pages of your own read."""
    return files("book/photos/*", "book/weights/*")


# ---------------------------------------------------------------- what others need


def install() -> None:
    """Make the environment and install; installing again is quick where nothing is missing."""
    done = _installed()
    if not stale(done, [Path("pyproject.toml")]) and done.read_text("utf-8") in ("", str(ROOT)):
        return
    if conda() is None and not Path(python()).exists():
        hint = "On Debian and Ubuntu: apt install python3-venv; then remove .venv"
        step("the environment .venv", [sys.executable, "-m", "venv", ".venv"], hint=hint)
    pip = [python(), "-m", "pip", "install", "--disable-pip-version-check", "-e", EXTRAS]
    size = "about 5 GB with CUDA on Linux, else 1 GB, where torch is new here"
    step(f"installing ({size})", pip, hint="pip's last lines say why")
    first = [python(), "-c", "import tutorial_lib, matplotlib.font_manager"]
    step("first import", first, hint=f"Remove {environment()} and try again")
    # Kernels of this environment say only what went wrong.
    quiet = environment() / "etc/ipython/ipython_kernel_config.py"
    touch(quiet, "c.IPKernelApp.log_level = 40\n")
    touch(done, str(ROOT) if conda() else "")


def _installed() -> Path:
    return environment() / ("averaging-gradients-installed" if conda() else "installed")


def executed() -> None:
    """Empty the cache of outputs where the code that pages import, or the environment, changed."""
    install()
    package = "tutorial_lib/*.py tutorial_lib/*/*.py tutorial_lib/reproduce/configs/*.toml"
    if stale(EXECUTED, [_installed(), *files(*package.split()), *book_lib()]):
        shutil.rmtree("_build/.jupyter_cache", ignore_errors=True)
        touch(EXECUTED)


def vendor() -> None:
    """What the pages load in the browser, so that the site serves it itself."""
    if stale(VENDOR, files("web/package.json", "web/package-lock.json", "web/fetch.py")):
        command = [python(), "web/fetch.py", str(VENDOR)]
        step("fetching MathJax and the playground's engine", command, hint="See above")


def playground() -> None:
    """What the playground page loads: the network as a graph, its classes, photographs."""
    package = files("tutorial_lib/*.py", "tutorial_lib/fast/*.py", "tutorial_lib/networks/*.py")
    made = [VENDOR] if VENDOR.exists() else []
    if stale(PLAYGROUND, [*package, Path("tools/playground.py"), _installed(), *made]):
        command = [python(), "tools/playground.py", str(PLAYGROUND)]
        step("the playground's network (a minute)", command, hint="The last line says why")


def run_pages() -> None:
    """Run the pages whose code has changed: nbval runs them, and the site shows what it saw."""
    run = [python(), "tools/run_pages.py", *map(str, pages())]
    step("running the chapters", run, hint="The cell above failed")


def site() -> None:
    """The site itself."""
    executed()
    vendor()
    playground()
    sources = files(
        *"_config.yml _toc.yml book/*.md book/teach/*.md book/*.bib".split(),
        *"book/_ext/*.* book/_static/* book/_static/playground/*".split(),
    )
    made = [PLAYGROUND, *([VENDOR] if VENDOR.exists() else [])]
    if not stale(SITE, [*sources, *results(), *made, EXECUTED, *book_lib(), *own_files()]):
        return
    begun = time.time()
    shutil.rmtree("_build/html", ignore_errors=True)
    shutil.rmtree("_build/.doctrees", ignore_errors=True)
    run_pages()
    build = [tool("jupyter-book"), "build", ".", "-W", "-n", "--keep-going"]
    step("building the site", build, hint="Sphinx's warnings above are errors here")
    touch(SITE, begun=begun)


def decks() -> None:
    """The slides, a Sphinx project of its own; its pictures come from the chapters' last run."""
    site()
    if stale(SLIDES, [SITE, *files("book/slides/*.*", "book/slides/static/*")]):
        begun = time.time()
        shutil.rmtree("_build/html/slides", ignore_errors=True)
        options = "-q -W --keep-going -E -b revealjs -d _build/.doctrees-slides".split()
        command = [python(), "-m", "sphinx", *options, "book/slides", "_build/html/slides"]
        step("building the slides", command, hint="Sphinx's warnings above are errors here")
        touch(SLIDES, begun=begun)


# ---------------------------------------------------------------- the commands


def book() -> None:
    """Build the site (makes .venv first) and say where it is."""
    decks()
    print(f"\nThe book is built. Open this file in a browser:\n    {ROOT}/_build/html/index.html")
    print("or serve it, then open localhost:8000:")
    print(f"    {python()} -m http.server 8000 --bind 127.0.0.1 --directory _build/html")


def slides() -> None:
    """Build the decks of slides, into the site, and say where they are."""
    decks()
    print("\nThe slides are built. Open one of these files in a browser (S: speaker's notes):")
    for deck in ["index", *(path.stem for path in files("book/slides/[0-9]*.md"))]:
        print(f"    {ROOT}/_build/html/slides/{deck}.html")


def notebooks() -> None:
    """Build the downloads alone, without the site, and say where they are."""
    executed()
    run_pages()
    shutil.rmtree("_build/downloads", ignore_errors=True)  # pages and wheels of other names
    Path("_build/static").mkdir(parents=True, exist_ok=True)  # which _config.yml names
    options = "-W -n --keep-going --builder custom --custom-builder downloads".split()
    build = [tool("jupyter-book"), "build", ".", *options]
    step("making the notebooks", build, hint="Sphinx's warnings above are errors here")
    print(f"\nThe notebooks and the wheel that they need are here:\n    {ROOT}/_build/downloads")


def away() -> None:
    """Run every download in an empty folder, away from the repository. It takes long."""
    notebooks()
    command = [python(), "tools/run_away.py", "_build/downloads"]
    step("every notebook away from the repository", command, hint="The notebooks above failed")


def teacher() -> None:
    """Homework sheets without solutions, and the key to them."""
    decks()
    command = [python(), "-m", "tools.teacher"]
    step("homework sheets and the key", command, hint="The last line says why")


def figures() -> None:
    """All figures in one zip (FORMATS="svg pdf" draws them again, 10 minutes)."""
    decks()
    command = [python(), "-m", "tools.figures", *os.environ.get("FORMATS", "").split()]
    step("all figures", command, hint="The last line says why", pythonpath=f"{ROOT}/book")


def chapter() -> None:
    """A chapter of your own, to be filled: NAME=my-topic PHOTO=mine.jpg."""
    install()
    photo = os.environ.get("PHOTO")
    command = [python(), "-m", "tools.new_chapter", os.environ.get("NAME", "")]
    step("a chapter of your own", [*command, *([photo] if photo else [])], hint="See above")


def pdf() -> None:
    """Print the built site: the book as a PDF, and a handout of each chapter."""
    decks()
    if stale(PDF, [SITE, *files("tools/pdf.py", "tools/joined.py", "tools/paper.js")]):
        command = [python(), "-m", "tools.pdf", "_build/html"]
        step("printing the book and its chapters", command, hint="See above")
        touch(PDF)
    print(f"\nThe book and its handouts, which the site links to:\n    {ROOT}/_build/html/pdf")


def test() -> None:
    """Lint, unit tests, the site in a browser, every chapter run and checked."""
    lint()
    types()
    decks()
    nbval()
    unit()
    print(f"\n{COMMAND} test passed: lint, unit tests, site, {len(pages())} pages run and checked")


def lint() -> None:
    """Look for mistakes and for another style."""
    install()
    check, style = [tool("ruff"), "check", "."], [tool("ruff"), "format", "--check", "."]
    step("lint", check, style, hint=f"{COMMAND} format repairs most of it")
    scripts = [tool("oxlint"), "--config=web/oxlint.json", "--deny-warnings", "book/_static"]
    step("lint of the pages' JavaScript", scripts, hint="oxlint names the lines above")


def types() -> None:
    """Check the type hints of tutorial_lib/averaging."""
    install()
    step("types", [tool("mypy")], hint="mypy names the lines above")


def unit() -> None:
    """Run the unit tests, the tests of the site and the examples of docstrings."""
    install()
    # A file's tests stay together. In order, so that no long file is left for the end.
    options = "-n 2 --dist loadscope --no-loadscope-reorder".split()
    options += "--doctest-modules tests tutorial_lib".split()
    command = [tool("pytest"), *options, "--ignore", "tests/test_mutants.py"]
    name = "unit and site tests and the examples of docstrings"
    step(name, command, hint="pytest names the tests above")


def nbval() -> None:
    """Run pages, unless the site's run has shown that every checked output is as stored."""
    executed()
    run = [python(), "tools/run_pages.py", "--checked", *map(str, pages())]
    hint = f"Where only stored outputs differ: {COMMAND} outputs"
    step("nbval: every cell of every page", run, hint=hint)


def mutants() -> None:
    """Plant mistakes in a copy of the package: a test must notice each. It takes long."""
    install()
    command = [tool("pytest"), "tests/test_mutants.py"]
    step("planted mistakes", command, hint="A mutant that no test notices is named above")


def format() -> None:
    """Repair what the linter and formatter can repair."""
    install()
    subprocess.run([tool("ruff"), "check", "--fix", "."])
    subprocess.run([tool("ruff"), "format", "."])


def outputs() -> None:
    """Run the chapters and store the outputs that tests compare."""
    install()
    command = [python(), "tools/notebooks.py", "outputs", *map(str, pages())]
    hint = "The cell above failed"
    step("storing the checked outputs", command, hint=hint, pythonpath=f"{ROOT}/book")


def clean() -> None:
    """Remove everything built (the environment stays)."""
    for folder in "_build .pytest_cache .ruff_cache .hypothesis".split():
        shutil.rmtree(folder, ignore_errors=True)


COMMANDS: list[Callable[[], None]] = [
    book,
    slides,
    pdf,
    notebooks,
    away,
    teacher,
    figures,
    chapter,
    test,
    lint,
    types,
    unit,
    mutants,
    format,
    outputs,
    install,
    clean,
]


def show_help() -> None:
    """List the commands."""
    for command in COMMANDS:
        first = command.__doc__.partition("\n")[0]
        print(f"{COMMAND} {command.__name__:9s} {first}")


def main(*arguments: str) -> int:
    """Run the commands that are named, one after the other; NAME=value sets a variable for them."""
    set_here = dict(a.split("=", 1) for a in arguments if "=" in a)
    if "PHOTO" in set_here:  # as seen from the folder in which the command was given
        set_here["PHOTO"] = str(Path(set_here["PHOTO"]).resolve())
    os.chdir(ROOT)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // 2)))
    os.environ.setdefault("PYTHONUTF8", "1")  # Windows reads files in an older code otherwise
    known = {command.__name__: command for command in COMMANDS} | {"help": show_help}
    names = [a for a in arguments if "=" not in a] or ["help"]
    os.environ |= set_here
    for name in names:
        if name not in known:
            print(f"there is no command {name!r}; the commands are {', '.join(known)}")
            return 2
        try:
            known[name]()
        except Failed:
            print(f"\n{COMMAND} {name} FAILED: the line that says FAILED above names the step")
            return 1
        except KeyboardInterrupt:
            print(f"\n{COMMAND} {name} was stopped; the next one goes on from here")
            return 130
    return 0


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036  an older one may have started it
        sys.exit(
            "FAILED: Python 3.11 or newer. Run this with one, or: make PYTHON=/path/to/python ..."
        )
    sys.exit(main(*sys.argv[1:]))
