"""Run downloaded notebooks as a reader does: in an empty folder, with the wheel beside them.

    python tools/run_away.py FOLDER [NOTEBOOK...]

FOLDER holds the notebooks and the wheel; without names all its notebooks are run. The environment
is new, and has what this one has but the repository: the first notebook's first cell installs the
wheel.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path
from tempfile import TemporaryDirectory

TIMEOUT = 600  # seconds a cell
RUN = f"""
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], 4)
notebook.cells.append(nbformat.v4.new_code_cell('''
import sys, tutorial_book, tutorial_lib
from pathlib import Path
for package in (tutorial_lib, tutorial_book):
    assert Path(package.__file__).is_relative_to(sys.prefix), package.__file__
'''))
NotebookClient(notebook, timeout={TIMEOUT}, kernel_name="python3").execute()
"""
# What the wheel needs is there, so that pip has nothing to fetch; an installed tutorial_lib, of
# which pip sees the name and Python does not see the code, is no reason to install nothing.
PIP = {"PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_IGNORE_INSTALLED": "1"}


def environment(folder: Path) -> Path:
    """Make an environment with this one's packages, without the repository; return its Python."""
    venv.create(folder, symlinks=os.name != "nt")
    own = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", "venv", own))
    # Folders named in a .pth file are searched, and no .pth file in them is read: the one that
    # leads to the repository has no effect.
    folders = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (packages / "elsewhere.pth").write_text("\n".join(folders), "utf-8")
    return Path(sysconfig.get_path("scripts", "venv", own)) / Path(sys.executable).name


def run(python: Path, notebook: Path) -> str:
    """Run a notebook in an empty folder with the wheel beside it; return what went wrong."""
    with TemporaryDirectory() as folder:
        for file in (notebook, *notebook.parent.glob("*.whl")):
            shutil.copy(file, folder)
        inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(
            [python, "-c", RUN, notebook.name],
            cwd=folder, env={**inherited, **PIP}, capture_output=True, text=True,
        )  # fmt: skip
    return done.stderr[-3000:] if done.returncode else ""


def main(folder: Path, names: list[str]) -> int:
    """Run the notebooks one after the other; return the number of those that failed."""
    failed = 0
    notebooks = [folder / name for name in names] or sorted(folder.glob("*.ipynb"))
    if not notebooks:
        raise SystemExit(f"{folder}: no notebooks are there; `make notebooks` makes them")
    with TemporaryDirectory() as place:
        python = environment(Path(place).resolve())
        for i, notebook in enumerate(notebooks, 1):
            begin = time.perf_counter()
            error = run(python, notebook)
            failed += bool(error)
            said = f"{time.perf_counter() - begin:.0f} s ({i} of {len(notebooks)})"
            print(
                f"{'FAILED: ' if error else ''}{notebook.name}, {said}\n{error}", end="", flush=True
            )
    return failed


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2:]))
