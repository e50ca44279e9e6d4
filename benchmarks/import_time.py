"""How long `import tutorial_lib` takes beside `import torch`, in turns, in fresh processes.

    python benchmarks/import_time.py [ROUNDS]

The package imports what only some functions need where it is needed; the ratio stays below 1.5.
"""

import statistics
import subprocess
import sys

TIMED = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def seconds(module: str) -> float:
    """The time of one import in a process of its own."""
    run = [sys.executable, "-c", TIMED.format(module)]
    return float(subprocess.run(run, capture_output=True, text=True, check=True).stdout)


def main(rounds: int = 9) -> None:
    """Print the medians and their ratio."""
    times = {"torch": [], "tutorial_lib": []}
    for turn in range(rounds + 1):
        for module, own in times.items():
            own.append(seconds(module))
            if turn == 0:  # which fills the disk's cache
                own.clear()
    ours, theirs = (statistics.median(times[m]) for m in ("tutorial_lib", "torch"))
    print(f"torch {theirs:.2f} s, tutorial_lib {ours:.2f} s, ratio {ours / theirs:.2f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
