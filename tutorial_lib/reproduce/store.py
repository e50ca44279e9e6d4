"""What is done is kept: one line a picture and row, written as it comes, never lost, never twice.

A run's folder holds `run.json` (what it was), `parts/worker-N.csv` (what each worker did, in the
order in which it came, with times) and, at the end, `results.csv` (all of it, sorted, without
times) and `skipped.csv`.
"""

import csv
import errno
import io
import json
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: two runs at once in one folder are not noticed there
    fcntl = None

SKIPPED = "*"  # in place of a row's name: the whole picture was left out


class Part:
    """The lines of one worker: `picture`, `row`, then `columns`, then `note` and `seconds`.

    Opening it drops a line that a kill or a full disk cut short. Raises BlockingIOError where
    another process has it open.
    """

    def __init__(self, folder: Path, worker: int, columns: Iterable[str]):
        self.path = folder / "parts" / f"worker-{worker}.csv"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.columns = ["picture", "row", *columns, "note", "seconds"]
        self.file = self.path.open("ab+", buffering=0)
        if fcntl is not None:
            try:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BlockingIOError(
                    f"{self.path}: another process is writing there; wait for it, or give this "
                    "run another --out"
                ) from error
            except OSError:  # a file system that has no locks
                pass
        self.file.seek(0)
        there, header = self.file.read(), _line(self.columns)
        whole = there[: there.rfind(b"\n") + 1]
        if whole and not whole.startswith(header):
            raise ValueError(f"{self.path}: it has other columns than this run; give another --out")
        self.file.truncate(len(whole))
        if not whole:
            self._append(header)

    def add(self, values: dict) -> None:
        """One line, on the disk when this returns. An OSError leaves the lines before it whole."""
        self._append(_line([_text(values.get(c, "")) for c in self.columns]))

    def _append(self, line: bytes) -> None:
        before = self.file.seek(0, os.SEEK_END)
        try:
            if self.file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            os.fsync(self.file.fileno())
        except OSError:
            self.file.truncate(before)
            raise

    def close(self) -> None:
        """Let go of the file."""
        self.file.close()


def done(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    """All whole lines of all workers: (picture, row) -> texts. Skipped pictures have row "*"."""
    lines = {}
    for path in sorted((folder / "parts").glob("worker-*.csv")):
        whole = path.read_bytes().rpartition(b"\n")[0].decode("utf-8")
        for line in csv.DictReader(io.StringIO(whole)):
            lines[line["picture"], line["row"]] = line
    return lines


def remember(folder: Path, record: dict, binding: Iterable[str]) -> None:
    """Write run.json, or compare with the one there: a folder holds one run.

    What differs outside `binding` (more pictures, a newer package) is kept under "earlier".
    Raises ValueError that names the first entry of `binding` in which the two differ.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.json"
    here = json.loads(json.dumps(record))
    if not path.exists():
        replace(path, _pretty(here))  # workers that start together write the same
    try:
        there = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it to go on") from error
    for key in binding:
        if there.get(key) != here[key]:
            raise ValueError(
                f"{folder} holds a run with another {key}: {_short(there.get(key))}, now "
                f"{_short(here[key])}. The two do not belong together; give another --out"
            )
    earlier = there.pop("earlier", [])
    if there != here:
        earlier.append({k: v for k, v in there.items() if here.get(k) != v})
        replace(path, _pretty(here | {"earlier": earlier}))


def replace(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all."""
    mine = path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}")
    try:
        with mine.open("wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(mine, path)
    finally:
        mine.unlink(missing_ok=True)


def table(columns: list[str], lines: Iterable[dict]) -> str:
    """CSV text with a header."""
    return b"".join(
        [_line(columns), *(_line([_text(line.get(c, "")) for c in columns]) for line in lines)]
    ).decode("utf-8")


def _line(values: list[str]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)
    text = buffer.getvalue()
    # A line break inside a value would make two lines of one.
    return (text[:-1].replace("\r", " ").replace("\n", " ") + "\n").encode("utf-8")


def _text(value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else repr(value)  # the shortest text that gives it back
    return str(value)


def _pretty(record: dict) -> str:
    return json.dumps(record, indent=1) + "\n"


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) < 80 else text[:77] + "..."
