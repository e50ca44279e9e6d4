"""The tests of the mathematics notice a flipped sign, a dropped weight and other mistakes."""

import json
import shutil
import subprocess
import sys

import pytest

from tests.built import ROOT
from tests.mutants import MUTANTS

pytestmark = pytest.mark.slow
PASSED, FAILED = 0, 1  # pytest's exit codes; others are errors outside the tests
PROCESSES = 2


@pytest.fixture(scope="module")
def codes(tmp_path_factory) -> dict[str, int]:
    """The exit codes of the tests, run on copies of the package with each mutant."""
    runs, codes = [], {"none": PASSED}
    for part in range(PROCESSES):
        folder = tmp_path_factory.mktemp("mutants")
        for name in ("tutorial_lib", "tests"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        command = [sys.executable, "-m", "tests.mutants", "results.json", f"{part}", f"{PROCESSES}"]
        with (folder / "output.txt").open("w") as output:
            process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
        runs.append((folder, process))
    for folder, process in runs:
        assert process.wait(2400) == 0, (folder / "output.txt").read_text()[-5000:]
        found = json.loads((folder / "results.json").read_text())
        codes |= found | {"none": max(codes["none"], found["none"])}
    return codes


def test_the_package_as_it_is_passes(codes):
    assert codes["none"] == PASSED


@pytest.mark.parametrize("name", MUTANTS)
def test_the_mutant_is_still_a_mutant(name):
    file, old, new = MUTANTS[name]
    source = (ROOT / "tutorial_lib" / file).read_text("utf-8")
    assert source.count(old) == 1, f"{file}: the text to be changed, {old!r}, occurs once no more"
    assert old != new


@pytest.mark.parametrize("name", MUTANTS)
def test_the_mutant_is_noticed(codes, name):
    assert codes[name] == FAILED, f"no test failed with the mutant {MUTANTS[name]}"
