"""The files of a run: one line for each picture and row, written at once, never lost, never twice.

A run's folder holds `run.json` (the options of the run), `parts/worker-N.csv` (the lines of each
worker, in the order in which they were written, with times) and, at the end, `results.csv` (all
lines, sorted, without times) and `skipped.csv`.
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


class WorkerFile:
    """The file of one worker: columns `picture`, `row`, then `columns`, `note` and `seconds`.

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
        content, header = self.file.read(), _csv_line(self.columns)
        whole = content[: content.rfind(b"\n") + 1]
        if whole and not whole.startswith(header):
            raise ValueError(f"{self.path}: it has other columns than this run; give another --out")
        self.file.truncate(len(whole))
        if not whole:
            self._append(header)

    def add(self, values: dict) -> None:
        """Write one line, on the disk when this returns; an OSError leaves earlier lines whole."""
        self._append(_csv_line([_cell_text(values.get(c, "")) for c in self.columns]))

    def _append(self, line: bytes) -> None:
        """Write at the end of the file, the whole line or nothing."""
        end = self.file.seek(0, os.SEEK_END)
        try:
            if self.file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            os.fsync(self.file.fileno())
        except OSError:
            self.file.truncate(end)
            raise

    def close(self) -> None:
        """Close the file, so that another process may open it."""
        self.file.close()


def read_lines(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Read all whole lines: (picture, row) -> texts; the row of a skipped picture is "*"."""
    lines = {}
    for path in sorted((folder / "parts").glob("worker-*.csv")):
        whole = path.read_bytes().rpartition(b"\n")[0].decode("utf-8")
        for line in csv.DictReader(io.StringIO(whole)):
            lines[line["picture"], line["row"]] = line
    return lines


def write_record(folder: Path, record: dict, fixed: Iterable[str]) -> None:
    """Write run.json, or compare with the one in the folder: a folder holds one run.

    What differs outside `fixed` (more pictures, a newer package) is kept under "earlier".
    Raises ValueError that names the first entry of `fixed` in which the two differ.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.json"
    record = json.loads(json.dumps(record))
    if not path.exists():
        write_file(path, _pretty_json(record))  # workers that start together write the same
    try:
        stored = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it to go on") from error
    for key in fixed:
        if stored.get(key) != record[key]:
            raise ValueError(
                f"{folder} holds a run with another {key}: {_short_json(stored.get(key))}, now "
                f"{_short_json(record[key])}. The two do not belong together; give another --out"
            )
    earlier = stored.pop("earlier", [])
    if stored != record:
        earlier.append({k: v for k, v in stored.items() if record.get(k) != v})
        write_file(path, _pretty_json(record | {"earlier": earlier}))


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def csv_text(columns: list[str], lines: Iterable[dict]) -> str:
    """Write lines as CSV text with a header."""
    rows = [[_cell_text(line.get(c, "")) for c in columns] for line in lines]
    return b"".join(map(_csv_line, [columns, *rows])).decode("utf-8")


def _csv_line(values: list[str]) -> bytes:
    """Write one line of CSV, as bytes."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)
    text = buffer.getvalue()
    # A line break inside a value would make two lines of one.
    return (text[:-1].replace("\r", " ").replace("\n", " ") + "\n").encode("utf-8")


def _cell_text(value: object) -> str:
    """Write one value: a float in full, and NaN as nothing."""
    if isinstance(value, float):
        return "" if value != value else repr(value)  # the shortest text that gives it back
    return str(value)


def _pretty_json(record: dict) -> str:
    """Write a record as JSON with one entry a line."""
    return json.dumps(record, indent=1) + "\n"


def _short_json(value: object) -> str:
    """Write a value as JSON, in 80 characters at most."""
    text = json.dumps(value)
    return text if len(text) < 80 else text[:77] + "..."
