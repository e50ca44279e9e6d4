"""The worked example of CONTRIBUTING.md, how a method is added, works as it stands."""

import doctest
import re
from collections.abc import Callable
from functools import partial
from inspect import getdoc

import pytest
import torch

import tutorial_lib as tl
from tests.built import ROOT, make_targets, python_blocks
from tutorial_lib import checks
from tutorial_lib.averaging import smoothing
from tutorial_lib.averaging.engine import Block, Probes, average

TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
PROBE, METHOD, ROW, TEST, MUTANT = python_blocks("CONTRIBUTING.md")
CHECK = "test_times_x_it_is_integrated_gradients_from_zero"


@pytest.fixture
def example(monkeypatch) -> dict:
    """A function from the code of the probe to the names that all of the example defines."""
    monkeypatch.setattr(smoothing, "PROBES", dict(smoothing.PROBES))

    def define(probe: str = PROBE) -> dict:
        names = dict(
            Callable=Callable, Tensor=torch.Tensor, torch=torch, tl=tl, partial=partial,
            checks=checks, Block=Block, Probes=Probes, average=average, MUTANTS={},
            PROBES=smoothing.PROBES,
        )  # fmt: skip
        for code in (probe, METHOD, ROW, TEST, MUTANT):
            exec(code, names)
        monkeypatch.setattr(tl, "fraction_gradient", names["fraction_gradient"], raising=False)
        return names

    return define


def test_its_test_passes_and_it_can_be_smoothed(example):
    names = example()
    names[CHECK]()
    x, method = torch.tensor([[1.0, 3.0]]), names["fraction_gradient"]
    found = tl.smoothgrad(lambda z: z**2, x, 1, sigma=0.0, samples=2, method=method, steps=3)
    assert torch.allclose(found, method(lambda z: z**2, x, 1, steps=3))


def test_the_example_of_its_docstring_runs(example):
    method = example()["fraction_gradient"]
    tests = doctest.DocTestFinder().find(method, globs=dict(tl=tl, torch=torch))
    assert sum(len(test.examples) for test in tests) == 1
    results = [doctest.DocTestRunner().run(test) for test in tests]
    assert all(result.failed == 0 for result in results)
    assert all(f"{part}:" in getdoc(method) for part in ("Args", "Returns", "Raises", "Example"))


def test_its_mutant_is_noticed(example):
    ((file, old, new),) = example()["MUTANTS"].values()
    assert file == "averaging/probes.py" and PROBE.count(old) == 1
    with pytest.raises(AssertionError):
        example(PROBE.replace(old, new))[CHECK]()


def test_the_commands_that_it_names_exist():
    targets = set(re.findall(r"`make (\w+)", TEXT))
    assert {"test", "mutants", "book"} <= targets <= make_targets()
