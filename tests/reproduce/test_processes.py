"""Runs of the command as processes that are ended in the middle: alone, and shared out by torchrun.

The processes stand still after some maps and wait for their end, so that no test has to be quick.
What they left is measured to the end here: a process spends most of its time on imports.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.built import ROOT

pytestmark = pytest.mark.slow

TABLE = """
title = "Maps with all kinds of noise"
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
FOLDER = "small-efficientnet_lite0"


@pytest.fixture
def noisy(small):
    """`small`, with a table of four rows and two pictures."""
    small.table.write_text(TABLE)
    return lambda out: (small(out, limit=PICTURES) / "results.csv").read_bytes()


def start(small, maps: int, *launcher: str) -> subprocess.Popen:
    """Start the command, which stands still after so many maps of a worker."""
    command = [sys.executable, *launcher, "-m", "tests.reproduce.standing_still", str(maps)]
    command += [str(small.table), "--images", str(small.folder), "--limit", str(PICTURES)]
    command += ["--device", "cpu", "--out", str(small.tmp / "ended")]
    log = (small.tmp / "log.txt").open("w")
    return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)


def parts(small) -> dict[str, bytes]:
    """The files of the workers."""
    folder = small.tmp / "ended" / FOLDER / "parts"
    return {path.name: path.read_bytes() for path in folder.glob("*.csv")}


def lines(small) -> int:
    """Measured lines on the disk, headers left out."""
    return sum(content.count(b"\n") - 1 for content in parts(small).values())


def until_there_are(wanted: int, small, process: subprocess.Popen, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while lines(small) < wanted:
        log = (small.tmp / "log.txt").read_text()
        assert process.poll() is None, f"the process ended too early:\n{log}"
        assert time.monotonic() < end, log
        time.sleep(0.05)


def goes_on_to_the_end(small, noisy) -> None:
    """Assert that what is there is kept, the rest is measured, and the table is that of one run."""
    before = parts(small)
    assert not (small.tmp / "ended" / FOLDER / "results.csv").exists()
    assert noisy("ended") == noisy("whole")
    after = parts(small)
    # With their times: nothing was measured again.
    assert all(after[name].startswith(content) for name, content in before.items())
    assert lines(small) == 4 * PICTURES


def test_a_run_that_is_told_to_end_says_so_and_goes_on_to_the_same_bytes(small, noisy):
    process = start(small, 3)
    until_there_are(3, small, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130 or os.name == "nt"  # Windows ends it without telling it
    assert lines(small) == 3
    goes_on_to_the_end(small, noisy)


@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_what_two_workers_left_of_which_one_was_killed_goes_on_to_the_bytes_of_one(small, noisy):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    agent = start(small, 2, *launcher)
    until_there_are(4, small, agent)
    workers = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    assert len(workers) == 2
    os.kill(int(workers[1]), signal.SIGKILL)
    assert agent.wait(120) != 0
    assert len(parts(small)) == 2 and lines(small) == 4
    goes_on_to_the_end(small, noisy)
