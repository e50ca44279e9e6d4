"""The size of a pass: measured, remembered, halved where memory is short."""

import gc
import os
import platform
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn

import tutorial_lib as tl
from tests.closed_forms import normal
from tutorial_lib import checks
from tutorial_lib.fast import passes as chunks
from tutorial_lib.fast import memory

PICTURE = (1, 2, 5)


class Timed:
    """A model whose passes take as long as `cost` says of a row, by a clock of its own.

    Four of its pictures are the first guess.
    """

    def __init__(self, cost, monkeypatch):
        self.cost, self.sizes, self.now = cost, [], 0.0
        monkeypatch.setattr(checks, "CPU_NUMBERS", 40)
        monkeypatch.setattr(chunks.time, "perf_counter", lambda: self.now)

    def __call__(self, x):
        self.sizes.append(len(x))
        self.now += len(x) * self.cost(len(x))
        return x.flatten(1)[:, :3]


def pictures(count=1, shape=PICTURE):
    return torch.zeros(count, *shape)


@pytest.mark.parametrize("best", [10, 8, 6, 4, 3, 2])
def test_the_fastest_size_is_found_on_the_passes_themselves_and_kept(best, monkeypatch):
    model = Timed(lambda rows: 1 + abs(rows - best) / 20, monkeypatch)
    tl.smoothgrad(model, pictures(), 0, sigma=0.1, samples=120)
    assert model.sizes[:3] == [10, 10, 8] and sum(model.sizes) == 120  # not one gradient more
    assert set(model.sizes[-4:]) <= {best, best - 1}
    model.sizes.clear()
    tl.integrated_gradients(model, pictures(), 0, steps=120)
    assert model.sizes == [best] * (120 // best)


def test_rows_go_into_passes_of_one_size_and_not_the_last_few_into_a_short_one(monkeypatch):
    model = Timed(lambda rows: 1 + abs(rows - 8) / 20, monkeypatch)
    tl.smoothgrad(model, pictures(), 0, sigma=0.1, samples=120)
    model.sizes.clear()
    tl.smoothgrad(model, pictures(), 0, sigma=0.1, samples=50)
    assert model.sizes == [8] + 6 * [7]
    model.sizes.clear()
    tl.smoothgrad(model, pictures(), 0, sigma=0.1, samples=50, batch_size=8)
    assert model.sizes == 6 * [8] + [2]  # as it was asked for


@pytest.mark.parametrize("gain, size", [(1.01, 4), (1.04, 10)])
def test_more_rows_must_be_worth_their_memory(gain, size, monkeypatch):
    model = Timed(lambda rows: {10: 1 / gain, 4: 1}.get(rows, 2), monkeypatch)
    tl.smoothgrad(model, pictures(), 0, sigma=0.1, samples=120)
    model.sizes.clear()
    tl.smoothgrad(model, pictures(), 0, sigma=0.1, samples=40)
    assert model.sizes == [size] * (40 // size)


def test_the_first_pass_of_a_size_warms_up_and_does_not_count(monkeypatch):
    met = set()

    def cost(rows):
        first = rows not in met
        met.add(rows)
        return (9 + rows if first else 1) if rows in (10, 8) else 2

    model = Timed(cost, monkeypatch)
    tl.smoothgrad(model, pictures(), 0, sigma=0.1, samples=120)
    model.sizes.clear()
    tl.smoothgrad(model, pictures(), 0, sigma=0.1, samples=24)
    assert model.sizes == 3 * [8]


def test_a_size_is_known_for_one_model_and_one_shape(monkeypatch):
    model = Timed(lambda rows: rows, monkeypatch)

    def first_size(model, x):
        model.sizes.clear()
        tl.smoothgrad(model, x, 0, sigma=0.1, samples=120)
        return model.sizes[0]

    assert first_size(model, pictures()) == 10 and first_size(model, pictures()) == 2
    assert first_size(model, pictures(1, (1, 2, 4))) == 12  # 5/2 of the guess again
    assert first_size(model, pictures().double()) == 10
    assert first_size(Timed(model.cost, monkeypatch), pictures()) == 10


def test_scores_are_measured_apart_from_gradients(monkeypatch):
    model = Timed(lambda rows: rows, monkeypatch)
    tl.smoothgrad(model, pictures(), 0, sigma=0.1, samples=120)
    model.sizes.clear()
    own = dict(bounds=(0.0, 1.0), size=1, count=2, draws=30)
    tl.metrics.perturbation_curve(model, pictures() + 1, 0, pictures()[:, 0], **own)
    assert model.sizes[:3] == [1, 10, 10]  # the picture itself, then the first measurements


def test_short_calls_go_on_measuring_where_the_last_one_stopped(monkeypatch):
    model = Timed(lambda rows: 1 / rows, monkeypatch)
    for _ in range(9):
        tl.smoothgrad(model, pictures(), 0, sigma=0.1, samples=10)
    assert model.sizes[:4] == [10, 10, 8, 2] and model.sizes[4:8] == [8, 2, 6, 4]
    assert model.sizes[-1] == 10


def test_small_inputs_and_given_sizes_are_not_measured(monkeypatch):
    model = Timed(lambda rows: rows, monkeypatch)
    tl.smoothgrad(model, pictures(), 0, sigma=0.1, samples=10, batch_size=5)
    monkeypatch.setattr(checks, "CPU_NUMBERS", 10 * (chunks.LARGEST + 1))
    tl.smoothgrad(model, pictures(), 0, sigma=0.1, samples=150)
    assert model.sizes == [5, 5, 65, 65, 20] and model not in chunks._tried


def test_a_model_that_cannot_be_remembered_is_measured_each_time(monkeypatch):
    class Slotted(Timed):
        __slots__ = ()
        __hash__ = None

    model = Slotted(lambda rows: rows, monkeypatch)
    for _ in range(2):
        model.sizes.clear()
        tl.smoothgrad(model, pictures(), 0, sigma=0.1, samples=20)
        assert model.sizes == [10, 10]


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
        with pytest.raises(type(error), match=str(error)[:10]):
            tl.smoothgrad(model, normal(2, 3, 4), 5, sigma=0.1, batch_size=8)
        assert sizes[-1] == (1 if limit == 0 else 8)


def test_a_row_keeps_what_its_backward_pass_needs():
    net = nn.Sequential(nn.Linear(10, 64), nn.Tanh(), nn.Linear(64, 3)).requires_grad_(False)
    x = normal(5, 10, dtype=torch.float32)
    assert chunks.held(net, x) == 4 * (64 + 10 + 3)  # not the weights, which are kept once
    assert chunks.held(net, x.repeat(3, 1)) == chunks.held(net, x)


def test_looking_at_what_a_row_keeps_keeps_nothing():
    gone = []

    def model(z):
        y = z.sigmoid()  # saves its output
        weakref.finalize(y, gone.append, 1)
        return y

    gc.disable()
    try:
        chunks.held(model, normal(1, 10))
        assert len(gone) == 2
    finally:
        gc.enable()


def test_what_a_row_keeps_can_be_asked_of_models_that_write_over_their_input():
    assert chunks.held(nn.Sequential(nn.ReLU(inplace=True)), normal(1, 10)) > 0
    with pytest.raises(TypeError, match="model: expected it to return"):
        chunks.held(lambda z: (z, z), normal(1, 10))


def test_a_size_without_memory_is_not_tried_in_later_calls(monkeypatch):
    monkeypatch.setattr(checks, "CPU_NUMBERS", 40)
    model, sizes = full(3, ERRORS[0])
    for _ in range(3):
        sizes.clear()
        tl.smoothgrad(model, normal(1, *PICTURE), 5, sigma=0.1, samples=24)
    assert max(sizes) <= 3


def test_rows_on_a_gpu_follow_the_free_memory_up_to_a_limit():
    assert chunks.fitting(50, 10**9, 10**7) == 40
    assert chunks.fitting(50, 10**11, 10**7) == 50
    assert chunks.fitting(50, 10**6, 10**7) == 1


def test_on_a_gpu_free_memory_is_asked_for(device, monkeypatch):
    if device == "cpu":
        pytest.skip("the CPU measures instead")
    net = nn.Sequential(nn.Flatten(), nn.Linear(10, 3)).eval().to(device)
    x = pictures().to(device)
    monkeypatch.setattr(chunks, "_free_memory", lambda device: 10 * chunks.held(net, x))
    assert chunks.Sizes(None, net, x, "gradients").next(100) == 4


def test_the_first_guess_is_by_the_size_of_a_picture():
    assert checks.batch_size(None, torch.zeros(1, 3, 224, 224)) == 4
    assert checks.batch_size(None, torch.zeros(1, 3, 600, 600)) == 1


FAULTS = """
import resource, torch
from tutorial_lib.fast import memory
from tutorial_lib.fast.passes import Sizes

x, label = torch.zeros(1, 3), torch.zeros(1, dtype=torch.long)
sizes, found = Sizes(1, lambda x: x, x), []
for _ in range(20):
    with memory.kept(x.device):
        sizes.run(lambda points, labels: torch.ones(16, 2**20).sum(), x, label)
    found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(sum(b - a > 8192 for a, b in zip(found[3:], found[4:])))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="memory is kept with glibc only")
def test_a_call_of_64_mb_takes_the_memory_of_the_one_before():
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    own = dict(env=clean, cwd=Path(tl.__file__).parents[1], capture_output=True, text=True)
    ran = subprocess.run([sys.executable, "-c", FAULTS], check=True, **own)
    assert int(ran.stdout) < 8  # of 16 calls; the heap may need a few to settle


def test_large_blocks_come_from_the_system_again_after_a_call_that_fails(monkeypatch):
    said = []
    monkeypatch.setattr(memory, "_setting", lambda: lambda name, value: said.append((name, value)))
    with pytest.raises(ZeroDivisionError), memory.kept(torch.device("cpu")):
        assert said == [(memory.TRIM_THRESHOLD, memory.KEEP), (memory.MMAP_MAX, 0)]
        raise ZeroDivisionError
    after = {memory.MMAP_MAX: 65_536, memory.MMAP_THRESHOLD: 2**25}
    assert dict(said[2:]) == after


def test_passes_on_a_gpu_leave_the_memory_of_the_cpu_alone(monkeypatch):
    monkeypatch.setattr(memory, "_setting", lambda: pytest.fail("asked for"))
    with memory.kept(torch.device("cuda")):
        pass


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_memory_is_left_alone_where_the_environment_has_settings_for_it(name, monkeypatch):
    monkeypatch.setenv(name, "1")
    assert memory._setting.__wrapped__() is None
