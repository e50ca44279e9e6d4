"""Run pages of the book, two at a time, and keep their outputs where jupyter-book finds them.

    python tools/run_pages.py PAGE...

A page whose code has been run since the cache was emptied is not run again, unless a photograph of
its own or a stored result that it names has changed.
"""

import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from myst_nb.core.read import myst_nb_reader_plugin
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError

ROOT = Path(__file__).parents[1]
CACHE = ROOT / "_build/.jupyter_cache"
RESULTS = ROOT / "book/tutorial_book/results"
AT_ONCE = 2  # kernels; each may take more than 1 GB
TIMEOUT = 300  # seconds a cell, as in _config.yml
OWN_FILE = re.compile(r"[\"']((?:photos|weights)/[^\"']+)")  # below the folder of the page


def is_kept(cache, page: Path, notebook) -> bool:
    """Whether the cache has outputs of this code, younger than the files that it reads."""
    try:
        record = cache.match_cache_notebook(notebook)
    except KeyError:
        return False
    ran = (Path(cache.path) / "executed" / record.hashkey / "base.ipynb").stat().st_mtime
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    files = [page.parent / name for name in OWN_FILE.findall(code)]
    stored = [*RESULTS.rglob("*.csv"), *RESULTS.rglob("*.json")]
    files += [path for path in stored if re.search(rf"[\"'/]{path.stem}[\"'.]", code)]
    return all(not file.exists() or file.stat().st_mtime <= ran for file in files)


def run(page: Path, notebook) -> float:
    """Run a notebook in the folder of its page and return the seconds that it took."""
    begin = time.perf_counter()
    folder = {"metadata": {"path": str(page.parent)}}
    client = NotebookClient(notebook, timeout=TIMEOUT, record_timing=False, resources=folder)
    client.execute()
    return time.perf_counter() - begin


def main(pages: list[Path]) -> int:
    """Run the pages; return the number of those that failed."""
    cache, failed = get_cache(CACHE), 0
    notebooks = {page: myst_nb_reader_plugin(str(page)) for page in pages}
    missing = {page: nb for page, nb in notebooks.items() if not is_kept(cache, page, nb)}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        runs = {page: pool.submit(run, page, notebook) for page, notebook in missing.items()}
        for i, (page, future) in enumerate(runs.items(), 1):
            try:
                seconds = future.result()
            except (CellExecutionError, CellTimeoutError) as error:
                failed += 1
                print(f"FAILED: {page}\n{error}", flush=True)
                continue
            bundle = CacheBundleIn(missing[page], str(page), data={"execution_seconds": seconds})
            cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
            print(f"{page} ran in {seconds:.0f} s ({i} of {len(runs)})", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main([Path(path).resolve() for path in sys.argv[1:]]))
