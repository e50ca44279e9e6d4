"""Planted mistakes, and the command that runs the tests of the mathematics on each.

    python -m tests.mutants RESULTS.json 0 2      in a folder with copies of tutorial_lib and tests

0 and 2: the first of two processes, each of which takes every second mistake. The mistakes lie
beside their tests, in `mutants.py` of each folder. All runs of a process share it, so that torch is
imported once: this package is imported afresh.
"""

import importlib
import json
import sys
from pathlib import Path

FOLDERS = sorted(path.parent.name for path in Path(__file__).parent.glob("*/mutants.py"))
# file of the package: the tests that must notice a mistake in it
TESTS = {"heatmaps.py": ["test_heatmaps.py"]}
# name: (file, text that occurs once, what replaces it)
MUTANTS = {
    "sign before size": ("heatmaps.py", 'heatmap, "(B, H, W)").abs()', 'heatmap, "(B, H, W)")'),
    "median for 99th percentile": ("heatmaps.py", "position = 0.99 *", "position = 0.5 *"),
}
for folder in FOLDERS:
    beside = importlib.import_module(f"tests.{folder}.mutants")
    assert not MUTANTS.keys() & beside.MUTANTS.keys(), "two mutants have one name"
    TESTS |= beside.TESTS
    MUTANTS |= beside.MUTANTS
# A few tests take most of the time, so they run where the others notice nothing.
SLOW = "standard_error_matches or gaussian_blurred or memory or equals_unfolded or survives_float32"


def run_tests(names: list[str]) -> int:
    """pytest's exit code for this folder's tutorial_lib, as it is on disk now."""
    import pytest

    for name in [n for n in sys.modules if n.split(".")[0] in ("tests", "tutorial_lib")]:
        del sys.modules[name]
    importlib.invalidate_caches()
    tests = [f"tests/{name}" for name in names]
    options = ["-x", "-q", "-p", "no:cacheprovider", "--tb=line", "--durations=3", *tests]
    first = pytest.main([*options, "-k", f"not ({SLOW})"])
    return int(first or pytest.main([*options, "-k", SLOW]))


def main(results: Path, part: int, parts: int) -> None:
    """Write {name of the mutant: exit code}; the name "none" is the package as it is."""
    sys.dont_write_bytecode = True
    mutants = dict(list(MUTANTS.items())[part::parts])
    files = {file for file, _, _ in mutants.values()}
    codes = {"none": run_tests(sorted({name for file in files for name in TESTS[file]}))}
    imported = Path(sys.modules["tutorial_lib"].__file__).resolve()
    assert imported.is_relative_to(Path.cwd().resolve()), f"the tests imported {imported}"
    for name, (file, old, new) in mutants.items():
        path = Path("tutorial_lib") / file
        right = path.read_text("utf-8")
        print(f"\nmutant: {name}", flush=True)
        path.write_text(right.replace(old, new), "utf-8")
        codes[name] = run_tests(TESTS[file])
        path.write_text(right, "utf-8")
    results.write_text(json.dumps(codes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
