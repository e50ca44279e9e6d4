"""What the examples in docstrings take for granted: pytest runs them (--doctest-modules)."""

import pytest


@pytest.fixture(autouse=True)
def _names(request):
    """`model`: a small network with 10 classes. `x`: two pictures of 16 x 16, from 0 to 1."""
    if not isinstance(request.node, pytest.DoctestItem):
        return
    import torch
    from torch import nn

    import tutorial_lib as tl

    if request.node.name.endswith("export_gradient") and torch.__version__ < "2.6":
        pytest.skip("PyTorch's exporter is from 2.6 on")
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 10)
    model, x = nn.Sequential(*layers).eval(), torch.rand(2, 3, 16, 16)
    names = request.getfixturevalue("doctest_namespace")
    names.update(tl=tl, torch=torch, nn=nn, model=model, x=x)
