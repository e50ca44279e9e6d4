"""What the scripts about trained networks share: a table that is kept row by row."""

import argparse
import csv
from collections.abc import Callable, Iterable
from pathlib import Path

from tqdm import tqdm


def measure(text: str, fields: list[str], cases: Callable, values: Callable) -> None:
    """Read --seeds and --out, and write the rows that the table does not have yet.

    `cases(seeds)` lists tuples, which are the first columns of a row; `values(*case)` makes the
    numbers of the others. `text` is the script's docstring.
    """
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if not options.out.exists():
        options.out.write_text(",".join(fields) + "\n")
    with options.out.open(newline="") as file:
        _, *rows = csv.reader(file)
    wanted: Iterable[tuple] = cases(options.seeds)
    for case in tqdm(list(wanted), unit="network"):
        if [str(part) for part in case] in [row[: len(case)] for row in rows]:
            continue
        numbers = [f"{v:.4f}" for v in values(*case)]
        with options.out.open("a", newline="") as file:
            csv.writer(file).writerow([*case, *numbers])
