"""What a table or a figure of a paper measures: read from a small TOML file, and checked.

A file in `configs/` has: `title`; `source` (paper and number); `program` (whose program's
conventions `--program` takes, "goh" or "zhou"); `kind` ("table", "curves" or "maps"); `data`
("photographs" or "digits"); `measures`; `rows`, each with a `name` and a `method`, whose other
entries are the method's keywords, counts, levels and sigmas as the paper has them; `claims` of the
paper, as comparisons of rows; and under `[quick]` and `[reduced]` the most of any count ("steps",
"roots", ...) at those efforts. `printed` in a row holds the paper's numbers for it.
"""

import difflib
import tomllib
from dataclasses import dataclass
from pathlib import Path

from tutorial_lib.reproduce.measures import DIRECTIONS
from tutorial_lib.reproduce.rows import PROGRAMS

FOLDER = Path(__file__).parent / "configs"
KINDS = ("table", "curves", "maps")
DATA = ("photographs", "digits")
EFFORTS = ("full", "reduced", "quick")
CONVENTIONS = ("paper", "program")
COUNTS = ("steps", "baselines", "samples", "roots", "weight_samples", "max_iterations")
COUNTS += ("search_roots", "perturbations", "epochs")


@dataclass(frozen=True)
class Config:
    """One table or figure. `rows`: name -> method and keywords, counts already at the effort."""

    name: str
    title: str
    source: str
    kind: str
    data: str
    measures: tuple[str, ...]
    rows: dict[str, dict]
    claims: tuple[dict, ...]
    printed: dict[str, dict[str, float]]
    settings: dict
    effort: str
    conventions: str
    program: str


def list_configs() -> list[str]:
    """The names of the tables and figures, such as goh-table1."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_config(name: str | Path, *, effort: str = "full", conventions: str = "paper") -> Config:
    """The configuration of a table by its name, or from the path of a file of one's own (.toml).

    effort: "full" as in the paper; "reduced" and "quick" cut each count down to what the file
    says. conventions: "paper" (the printed equations) or "program" (what the authors' published
    program computes: see `rows.attributed` and `Case.order`).
    Raises ValueError for an unknown name, effort or convention, and for a file with an entry that
    is missing or not known.

    >>> load_config("goh-table1").rows["IG, black"]["steps"]
    50
    """
    for what, given, known in (
        ("effort", effort, EFFORTS),
        ("conventions", conventions, CONVENTIONS),
    ):
        if given not in known:
            raise ValueError(f"{what}: {given!r} given, expected one of {', '.join(known)}")
    path = Path(name) if str(name).endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        names = list_configs()
        close = difflib.get_close_matches(str(name), names, n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise ValueError(
            f"name: no table {str(name)!r}{hint} There are: {', '.join(names)}; "
            "or give a .toml file"
        )
    try:
        text = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name}: this is no TOML file: {error}") from error
    return _config(path.stem, text, effort, conventions)


def _config(name: str, text: dict, effort: str, conventions: str) -> Config:
    kind, data = text.pop("kind", "table"), text.pop("data", "photographs")
    program = text.pop("program", "")
    given = (("kind", kind, KINDS), ("data", data, DATA), ("program", program, PROGRAMS))
    for what, value, known in given:
        if value not in known:
            raise ValueError(f"{name}: {what} is {value!r}, expected one of {', '.join(known)}")
    if (kind, data) == ("maps", "digits"):
        raise ValueError(f"{name}: figures of maps are made of photographs")
    missing = [key for key in ("title", "source", "rows") if not text.get(key)]
    if missing:
        raise ValueError(f"{name}: no {', '.join(missing)}")
    most = {e: text.pop(e, {}) for e in EFFORTS if e != "full"}.get(effort, {})
    title, source = text.pop("title"), text.pop("source")
    measures, claims = tuple(text.pop("measures", ())), tuple(text.pop("claims", ()))
    rows, printed = {}, {}
    for row in text.pop("rows"):
        label = row.pop("name", None)
        if not label or label in rows or "method" not in row:
            raise ValueError(f"{name}: each row needs a name of its own and a method: {row}")
        printed[label] = row.pop("printed", {})
        rows[label] = _at_most(row, most)
    _check_claims(name, claims, rows, measures)
    if unknown := set(text) - set(COUNTS):
        raise ValueError(f"{name}: {', '.join(sorted(unknown))} is not known in such a file")
    return Config(
        name=name,
        title=title,
        source=source,
        kind=kind,
        data=data,
        measures=measures,
        rows=rows,
        claims=claims,
        printed=printed,
        settings=_at_most(text, most),
        effort=effort,
        conventions=conventions,
        program=program if conventions == "program" else "",
    )


def _check_claims(name: str, claims: tuple, rows: dict, measures: tuple) -> None:
    for claim in claims:
        named = [*claim.get("better", []), *claim.get("worse", [])]
        unknown = [row for row in named if row not in rows]
        measure = claim.get("measure")
        if unknown or measure not in measures or measure not in DIRECTIONS:
            raise ValueError(f"{name}: a claim names what is not there: {claim}")


def _at_most(entries: dict, most: dict) -> dict:
    """The counts cut down, everything else as it is."""
    if unknown := set(most) - set(COUNTS):
        raise ValueError(f"{', '.join(sorted(unknown))}: no count; these are {', '.join(COUNTS)}")
    return {k: min(v, most[k]) if k in most else v for k, v in entries.items()}
