"""The files of a run: one line for each picture and row, written at once, never lost, never twice.

A run's folder holds `run.json` (the options of the run), `parts/worker-N.csv` (the lines of each
worker, in the order in which they were written, with times) and, at the end, `results.csv` (all
lines, sorted, without times) and `skipped.csv`.

Each line in `parts/` ends with a checksum of the line and of its file's header, whose last name is
a digest of the run's options. So a line that is torn, edited or of another run is told from a whole
one. A line also has the hash of the picture's file: it counts as long as the file is the same.
"""

import csv
import errno
import hashlib
import io
import json
import os
import re
import secrets
import warnings
from collections.abc import Iterable
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: two runs at once in one folder are not noticed there
    fcntl = None

SKIPPED = ""  # in place of a row's name: the whole picture was left out
# What a picture's name cannot have: it breaks a line, steers a terminal, or is no text.
UNWRITABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
FORMULA = ("=", "+", "-", "@")  # a spreadsheet computes a cell that begins so


class WorkerFile:
    """The lines of a run: one worker adds to its own file, and reads those of all.

    The columns are those of every run, with `columns` among them, and the checksum; `run` is what
    `write_record` returned. Opening the file drops a line that a kill or a full disk cut short.
    Raises BlockingIOError where another process has it open, and ValueError where it is a file
    of another run.
    """

    def __init__(self, folder: Path, worker: int, columns: Iterable[str], run: str):
        self.path = folder / "parts" / f"worker-{worker}.csv"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        named = ["picture", "row", "sha256", "target", "score"]
        self.columns = [*named, *columns, "note", "seconds"]
        self.header = _csv_line([*self.columns, f"checksum {run}"])
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
        whole = self._whole_lines(self.path, self.file.read())
        self.file.truncate(len(whole))
        if not whole:
            self._append(self.header)

    def add(self, values: dict) -> None:
        """Write one line, on the disk when this returns; an OSError leaves earlier lines whole."""
        text = _csv_line([_cell_text(values.get(c, "")) for c in self.columns])[:-1]
        self._append(b"%s,%s\n" % (text, self._checksum(text)))

    def read_lines(self, digests: dict[str, str]) -> dict[tuple[str, str], dict[str, str]]:
        """Read what all workers have of these pictures: (picture, row) -> texts.

        digests: picture -> hash of its file. Warns of lines that do not count.
        """
        lines = {}
        for path in sorted(self.path.parent.glob("worker-*.csv")):
            lost = 0
            for whole in self._whole_lines(path, path.read_bytes()).split(b"\n")[1:-1]:
                text, _, checksum = whole.rpartition(b",")
                if checksum != self._checksum(text):
                    lost += 1
                    continue
                values = next(csv.reader([text.decode("utf-8")]))
                line = dict(zip(self.columns, values, strict=True))
                if line["sha256"] == digests.get(line["picture"]):
                    lines[line["picture"], line["row"]] = line
                else:
                    lost += line["picture"] in digests
            if lost:
                why = "torn, edited, or about a picture that was replaced since"
                warnings.warn(
                    f"{path}: lines that do not count, and are measured again: {lost} ({why})",
                    stacklevel=3,
                )
        return lines

    def _whole_lines(self, path: Path, content: bytes) -> bytes:
        """Return a file up to its last line break; ValueError for one of another run."""
        if not (content.startswith(self.header) or self.header.startswith(content)):
            raise ValueError(
                f"{path}: its first line is not this run's. The file is of another run, of an "
                "earlier version (whose lines have no checksums), or was saved by another program; "
                "give another --out"
            )
        return content[: content.rfind(b"\n") + 1]

    def _checksum(self, text: bytes) -> bytes:
        """Return the checksum of a line of this run."""
        return digest([self.header, text]).encode()

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


def digest(parts: Iterable[bytes]) -> str:
    """Return the first 16 digits of the SHA-256 of these bytes, one after another."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part)
    return sha.hexdigest()[:16]


def write_record(folder: Path, record: dict, fixed: Iterable[str]) -> str:
    """Write run.json, or compare with the one in the folder: a folder holds one run.

    What differs outside `fixed` (more pictures, a newer package) is kept under "earlier". Returns a
    digest of the entries `fixed`. Raises ValueError that names the first of them in which the two
    differ, and where run.json is damaged or lost.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.json"
    record = json.loads(json.dumps(record))
    has_lines = any(folder.glob("parts/*"))  # looked at first: another worker may be writing both
    if not path.exists():
        if has_lines:
            raise ValueError(
                f"{path} is lost, so nobody knows which run the lines in {folder / 'parts'} are "
                "of; put it back, or give another --out"
            )
        write_file(path, _pretty_json(record))  # workers that start together write the same
    try:
        stored = json.loads(path.read_text("utf-8"))
        earlier = [*stored.pop("earlier", [])]
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged ({error}); put it back, or give another --out"
        ) from error
    for key in fixed:
        if stored.get(key) != record[key]:
            was = _short_json(stored[key]) if key in stored else "none, as in earlier versions"
            raise ValueError(
                f"{folder} holds a run with another {key}: {was}, now {_short_json(record[key])}. "
                "The two do not belong together; give another --out"
            )
    if stored != record:
        earlier.append({k: v for k, v in stored.items() if record.get(k) != v})
        write_file(path, _pretty_json(record | {"earlier": earlier}))
    return digest([json.dumps([record[key] for key in fixed], sort_keys=True).encode()])


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
