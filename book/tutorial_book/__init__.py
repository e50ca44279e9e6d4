"""What only the book needs: its stored results, and figures that no other page draws.

A small package beside tutorial_lib, in the same wheel, so that a notebook finds it anywhere. In the
repository pages find it in their own folder.
"""

import csv
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def load_results(name: str) -> list[dict]:
    """A table that the book has stored, as a list of rows: measurements too long for a chapter.

    results/NAME.csv, with numbers as floats and empty cells as NaN; the script make_NAME.py beside
    it in the repository made it, and its first lines say what the columns are. Raises
    FileNotFoundError, with the names that there are, for another name.

    >>> load_results("out_of_bounds")[0]["mean"]
    """
    path = RESULTS / f"{name}.csv"
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in RESULTS.glob("*.csv")))
        raise FileNotFoundError(f"name: no stored table {name!r}; there are: {names or 'none'}")

    def value(text: str) -> float | str:
        try:
            return float(text or "nan")
        except ValueError:
            return text

    with path.open(newline="", encoding="utf-8") as file:
        return [{key: value(text) for key, text in row.items()} for row in csv.DictReader(file)]
