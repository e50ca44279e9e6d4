"""The command with the small network, which stands still after some maps until it is ended.

python -m tests.reproduce.standing_still 3 TABLE --images FOLDER ...
"""

import runpy
import sys
import time

from tests.reproduce.conftest import network
from tutorial_lib.reproduce import runner, sources

if __name__ == "__main__":
    maps, measure, measured = int(sys.argv.pop(1)), runner.compute_measures, []

    def measure_some(case, wanted):
        if len(measured) == maps:
            time.sleep(600)
        measured.append(case)
        return measure(case, wanted)

    sources.load_model = lambda name, device: network()
    runner.compute_measures = measure_some
    runpy.run_module("tutorial_lib.reproduce", run_name="__main__", alter_sys=True)
