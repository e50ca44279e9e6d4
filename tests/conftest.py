"""Fixtures for all tests."""

import gc
import os
import re

# The networks of most tests are tiny: a second thread only waits for the first, and for ever where
# another program is at work. Read by torch and numpy when they are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


@pytest.fixture(params=["cpu", "cuda"])
def device(request) -> str:
    """Every device of this machine; the absent ones are skipped with a reason."""
    import torch  # here, as pytest's first process runs no test

    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip(f"no {request.param} device on this machine")
    return request.param


def pytest_ignore_collect(collection_path, config) -> bool | None:
    """Leave files in which all is slow unread by -m "not slow": importing them takes seconds."""
    if config.option.markexpr == "not slow" and collection_path.suffix == ".py":
        text = collection_path.read_text("utf-8")
        if re.search(r"^pytestmark = (\[\s*)?pytest\.mark\.slow\b", text, re.MULTILINE):
            return True
    return None


def pytest_collection_finish() -> None:
    """Take what was imported out of the garbage collector's rounds, of half a second each."""
    gc.unfreeze()  # of an earlier run in this process
    gc.collect()
    gc.freeze()
