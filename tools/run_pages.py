"""Run pages of the book under nbval, two at a time, and keep their outputs for jupyter-book.

    python tools/run_pages.py PAGE...            so that the site can be built
    python tools/run_pages.py --checked PAGE...  and fail where a checked output is another one

Each page is run once, as a test and for the site. It is not run again while its code is as it was
when the cache was emptied, unless a photograph of its own or a stored result that it names has
changed. With --checked a page is run again until its outputs are those that
tests/book/expected_outputs has.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from myst_nb.core.read import myst_nb_reader_plugin

sys.path.insert(0, str(Path(__file__).parents[1]))  # this is a program and a module of tools

from book._ext.own_files import code_of, own_files
from tools import notebooks

ROOT = Path(__file__).parents[1]
CACHE = ROOT / "_build/.jupyter_cache"
NOTEBOOKS = ROOT / "_build/notebooks"
RESULTS = ROOT / "book/tutorial_book/results"
AT_ONCE = 2  # kernels; each may take more than 1 GB
NBVAL = "-m pytest -c tests/book/nbval.ini -p tools.kept_outputs".split()


class Run(NamedTuple):
    """How a page ran."""

    seconds: float
    ran: bool  # every cell, without an error
    passed: bool  # and the checked outputs are as stored
    report: str  # of nbval


def code_cells(notebook) -> list:
    """The cells of a notebook that are run."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def is_kept(cache, page: Path, notebook, checked: str | None) -> bool:
    """Whether the cache has outputs of this code, younger than the files that it reads.

    `checked` is the hash of the notebook whose outputs they have to equal, if they have to.
    """
    try:
        record = cache.match_cache_notebook(notebook)
    except KeyError:
        return False
    ran = (Path(cache.path) / "executed" / record.hashkey / "base.ipynb").stat().st_mtime
    files = [page.parent / name for name in own_files(page.parent, notebook)]
    stored = [*RESULTS.rglob("*.csv"), *RESULTS.rglob("*.json")]
    named = [path for path in stored if re.search(rf"[\"'/]{path.stem}[\"'.]", code_of(notebook))]
    fresh = all(file.stat().st_mtime <= ran for file in [*files, *named])
    return fresh and checked in (None, (record.data or {}).get("passed"))


def convert(page: Path) -> tuple[Path, str]:
    """Write the notebook that nbval runs; return it with its hash."""
    made = NOTEBOOKS / f"{page.stem}.ipynb"
    notebooks.convert(page, made, notebooks.EXPECTED)
    return made, sha256(made.read_bytes()).hexdigest()


def run(page: Path, notebook, made: Path) -> Run:
    """Run a page as nbval's notebook and put what its cells show into `notebook`."""
    # nbval runs in the notebook's folder, not in the page's.
    for name in own_files(page.parent, notebook):
        (made.parent / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(page.parent / name, made.parent / name)
    kept = made.with_suffix(".kept")
    kept.unlink(missing_ok=True)
    begin = time.perf_counter()
    result = subprocess.run(
        [sys.executable, *NBVAL, f"--kept-outputs={kept}", str(made)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(page.parent)},  # pages import tutorial_book
        capture_output=True,
        encoding="utf-8",
    )
    seconds = time.perf_counter() - begin
    if kept.exists():
        with_outputs = nbformat.read(kept, as_version=4)
        notebook.metadata.update(widgets=with_outputs.metadata.get("widgets", {}))
        for cell, same in zip(code_cells(notebook), code_cells(with_outputs), strict=True):
            cell.outputs, cell.execution_count = same.outputs, same.execution_count
    return Run(seconds, kept.exists(), result.returncode == 0, result.stdout + result.stderr)


def main(pages: list[Path], checked: bool = False) -> int:
    """Run the pages; return the number of those that failed."""
    cache, failed = get_cache(CACHE), 0
    to_fill = {page: myst_nb_reader_plugin(str(page)) for page in pages}
    made = {page: convert(page) for page in pages}
    missing = [
        page
        for page, notebook in to_fill.items()
        if not is_kept(cache, page, notebook, made[page][1] if checked else None)
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        runs = {p: pool.submit(run, p, to_fill[p], made[p][0]) for p in missing}
        for i, (page, future) in enumerate(runs.items(), 1):
            how = future.result()
            if how.ran:
                data = {
                    "execution_seconds": how.seconds,
                    "passed": made[page][1] if how.passed else "",
                }
                bundle = CacheBundleIn(to_fill[page], str(page), data=data)
                cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
                print(f"{page} ran in {how.seconds:.0f} s ({i} of {len(runs)})", flush=True)
            if how.ran and not how.passed and not checked:
                print("  with other outputs than are stored for it: `make test` shows them")
            elif not how.passed:
                failed += 1
                print(f"FAILED: {page}\n{how.report}", flush=True)
    return failed


if __name__ == "__main__":
    paths = [Path(path).resolve() for path in sys.argv[1:] if path != "--checked"]
    sys.exit(main(paths, "--checked" in sys.argv))
