"""Runs of the command as processes: killed in the middle, and shared out by torchrun."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TABLE = """
title = "Maps that take a while"
source = "nobody"
measures = ["autvc", "sparseness"]
rows = [
  { name = "gradient", method = "gradient" },
  { name = "IG, noise", method = "integrated_gradients", baseline = "noise", steps = 4 },
  { name = "SmoothTaylor", method = "smooth_taylor", sigma = 0.5, roots = 6 },
  { name = "SmoothGrad", method = "smoothgrad", level = 0.1, samples = 6 },
]
"""
PICTURES = 2
FOLDER = "slow-efficientnet_lite0"


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("table") / "slow.toml"
    path.write_text(TABLE)
    return path


def start(table: Path, out: Path, *launcher: str) -> subprocess.Popen:
    command = [sys.executable, *launcher, "-m", "tutorial_lib.reproduce", str(table)]
    command += ["--limit", str(PICTURES), "--device", "cpu", "--out", str(out)]
    log = (table.parent / "log.txt").open("a")
    return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def lines(out: Path) -> int:
    """Measured lines on the disk, headers left out."""
    parts = [p.read_bytes().count(b"\n") for p in (out / FOLDER / "parts").glob("*.csv")]
    return sum(parts) - len(parts)


def until(condition, process: subprocess.Popen, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the process ended too early"
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def whole(table, tmp_path_factory) -> bytes:
    """The results of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole")
    assert start(table, out).wait(600) == 0, (table.parent / "log.txt").read_text()
    return (out / FOLDER / "results.csv").read_bytes()


def test_a_run_that_was_killed_goes_on_and_ends_with_the_same_bytes(table, whole, tmp_path):
    first = start(table, tmp_path)
    until(lambda: lines(tmp_path) >= 3, first)
    first.kill()
    first.wait(60)
    kept = lines(tmp_path)
    assert 3 <= kept < 4 * PICTURES and not (tmp_path / FOLDER / "results.csv").exists()
    part = tmp_path / FOLDER / "parts/worker-0.csv"
    before = part.read_bytes()
    before = before[: before.rfind(b"\n") + 1]
    assert start(table, tmp_path).wait(600) == 0
    assert part.read_bytes().startswith(before)  # with its times: nothing was measured again
    assert lines(tmp_path) == 4 * PICTURES
    assert (tmp_path / FOLDER / "results.csv").read_bytes() == whole


@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_two_workers_one_killed_and_restarted_give_the_bytes_of_one(table, whole, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    agent = start(table, tmp_path, *launcher, "--max-restarts", "1")
    until(lambda: lines(tmp_path) >= 3, agent)
    workers = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    assert len(workers) == 2
    os.kill(int(workers[1]), signal.SIGKILL)
    assert agent.wait(600) == 0, (table.parent / "log.txt").read_text()
    assert len(list((tmp_path / FOLDER / "parts").iterdir())) == 2
    assert lines(tmp_path) == 4 * PICTURES
    assert (tmp_path / FOLDER / "results.csv").read_bytes() == whole


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process without telling it")
def test_sigterm_stops_a_run_with_what_is_done_kept(table, tmp_path):
    process = start(table, tmp_path)
    until(lambda: lines(tmp_path) >= 1, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
    assert lines(tmp_path) >= 1
