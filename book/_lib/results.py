"""The measurements that the book has stored, for its pages."""

import csv
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "results"


def load_results(name: str) -> list[dict]:
    """A table that the book has stored, as a list of rows: measurements too long for a chapter.

    book/results/NAME.csv, with numbers as floats and empty cells as NaN; the script make_NAME.py
    beside it made it, and its first lines say what the columns are. Raises FileNotFoundError, with
    the names that there are, for another name or where the files are not on this machine.

    >>> load_results("out_of_bounds")[0]["mean"]
    """
    path = RESULTS / f"{name}.csv"
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in RESULTS.glob("*.csv")))
        raise FileNotFoundError(
            f"name: no stored table {name!r}; there are: {names or 'none, as the book is not here'}"
        )

    def value(text: str) -> float | str:
        try:
            return float(text or "nan")
        except ValueError:
            return text

    with path.open(newline="", encoding="utf-8") as file:
        return [{key: value(text) for key, text in row.items()} for row in csv.DictReader(file)]
