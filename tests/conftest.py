"""Fixtures for all tests."""

import pytest
import torch

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


@pytest.fixture(params=["cpu", "cuda"])
def device(request) -> str:
    """Every device of this machine; the absent ones are skipped with a reason."""
    if request.param not in DEVICES:
        pytest.skip(f"no {request.param} device on this machine")
    return request.param
