"""The size of a pass: fixed, so that the same call gives the same bits; halved without memory."""

import pytest
import torch
from torch import nn

import tutorial_lib as tl
from tests.built import ROOT
from tests.closed_forms import normal
from tutorial_lib.fast.passes import NUMBERS_PER_PASS, Passes


@pytest.mark.slow
def test_the_size_of_a_pass_follows_from_the_picture_and_from_nothing_else():
    rows = NUMBERS_PER_PASS["cpu"] // (3 * 224 * 224)
    assert Passes(None, torch.zeros(1, 3, 224, 224)).rows == rows >= 4
    assert Passes(None, torch.zeros(7, 3, 2240, 2240)).rows == 1
    assert Passes(7, torch.zeros(1, 3, 224, 224)).rows == 7


def test_the_pages_say_how_large_a_pass_is():
    cpu, gpu = (NUMBERS_PER_PASS[kind] // (3 * 224 * 224) for kind in ("cpu", "cuda"))
    for page in ("api.md", "90-fast.md"):
        text = " ".join((ROOT / "book" / page).read_text("utf-8").split())
        assert f"{cpu} pictures of 224 x 224 on a CPU, {gpu} on a GPU" in text, page


def test_slices_cover_every_row_once():
    slices = [*Passes(4, torch.zeros(1, 2)).slices(10)]
    assert [(s.start, s.stop) for s in slices] == [(0, 4), (4, 8), (8, 10)]


@pytest.mark.slow
def test_the_same_call_makes_the_same_passes_and_gives_the_same_bits():
    sizes = []

    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))

        def forward(self, z):
            sizes.append(len(z))
            return self.net(z)

    net, x = Counted().eval(), normal(1, 3, 224, 224, dtype=torch.float32)
    runs = []
    for _ in range(4):
        sizes.clear()
        runs.append((tl.smoothgrad(net, x, 2, sigma=0.1, samples=20), sizes[-2:]))
    assert all(torch.equal(runs[0][0], other) for other, _ in runs)
    assert all(runs[0][1] == other for _, other in runs)


def full(limit, error):
    """A quadratic model that has room for `limit` rows."""
    sizes = []

    def model(x):
        sizes.append(len(x))
        if len(x) > limit:
            raise error
        return x.flatten(1) ** 2

    return model, sizes


ERRORS = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
]


@pytest.mark.parametrize("error", ERRORS)
def test_a_pass_without_memory_is_halved_with_the_same_result(error):
    x = normal(2, 3, 4)
    model, sizes = full(3, error)
    with tl.skip_model_check():
        given = tl.smoothgrad(model, x, 5, sigma=0.1, samples=11, batch_size=10)
    assert sizes[:4] == [10, 5, 2, 2] and max(sizes[1:]) <= 5  # and never so large again
    assert sum(s for s in sizes if s <= 3) == 22
    roomy, _ = full(99, error)
    assert torch.equal(given, tl.smoothgrad(roomy, x, 5, sigma=0.1, samples=11))
    curve = dict(bounds=(-1.0, 1.0), size=2, count=2, draws=7)
    picture = normal(1, 1, 6, 6)
    curves = [
        tl.metrics.perturbation_curve(net, picture, 5, picture[:, 0], batch_size=7, **curve)
        for net in (model, roomy)
    ]
    assert torch.equal(*curves)


def test_no_memory_for_one_row_and_other_errors_are_passed_on():
    for error, limit in ((ERRORS[0], 0), (RuntimeError("mat1 and mat2 cannot be multiplied"), 3)):
        model, sizes = full(limit, error)
        with tl.skip_model_check(), pytest.raises(type(error), match=str(error)[:10]):
            tl.smoothgrad(model, normal(2, 3, 4), 5, sigma=0.1, batch_size=8)
        assert sizes[-1] == (1 if limit == 0 else 8)
