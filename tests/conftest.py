"""Fixtures for all tests."""

import os

# The networks of most tests are tiny: a second thread only waits for the first, and for ever where
# another program is at work. Read by torch and numpy when they are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


@pytest.fixture(params=["cpu", "cuda"])
def device(request) -> str:
    """Every device of this machine; the absent ones are skipped with a reason."""
    if request.param not in DEVICES:
        pytest.skip(f"no {request.param} device on this machine")
    return request.param
