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

CONFIGS = Path(__file__).parent / "configs"
KINDS = ("table", "curves", "maps")
DATA = ("photographs", "digits")
EFFORTS = ("full", "reduced", "quick")
CONVENTIONS = ("paper", "program")
COUNTS = ("steps", "baselines", "samples", "roots", "weight_samples", "max_iterations")
COUNTS += ("search_roots", "perturbations", "epochs")


@dataclass(frozen=True)
class Config:
    """One table or figure of a paper, as `load_config` reads it.

    Attributes:
        name: Name of the file, such as goh-table1.
        title: What the table shows.
        source: The paper, and the number of the table or figure.
        kind: "table", "curves" or "maps".
        data: "photographs" or "digits".
        measures: Columns of the table.
        rows: Maps the name of a row to its method and keywords, with the counts of the effort.
        claims: The paper's claims, as comparisons of rows.
        printed: Maps the name of a row to the paper's numbers for it.
        settings: Counts that belong to all rows, such as "perturbations".
        effort: "full", "reduced" or "quick".
        conventions: "paper" or "program".
        program: Whose program's conventions are taken: "goh", "zhou", or "" for the paper's.
    """

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
    """Return the names of the tables and figures that come with the package.

    Returns:
        The names in alphabetical order.

    Example:
        >>> from tutorial_lib import reproduce
        >>> reproduce.list_configs()[:4]
        ['goh-fig1', 'goh-fig2', 'goh-fig3', 'goh-table1']
    """
    return sorted(path.stem for path in CONFIGS.glob("*.toml"))


def load_config(name: str | Path, *, effort: str = "full", conventions: str = "paper") -> Config:
    """Load the configuration of a table or figure.

    Args:
        name: A name of `list_configs`, or the path of another file (.toml).
        effort: "full" has the counts of the paper; "reduced" and "quick" cut each count down to
            what the file says.
        conventions: "paper" takes the printed equations; "program" takes what the authors'
            published program computes (see `rows.attribution_function` and `Case.order`).

    Returns:
        The configuration, a `Config`.

    Raises:
        ValueError: The name, effort or convention is unknown, the file is no TOML, or an entry of
            it is missing or unknown.

    Example:
        >>> from tutorial_lib import reproduce
        >>> reproduce.load_config("goh-table1").rows["IG, black"]["steps"]
        50
    """
    for argument, given, known in (
        ("effort", effort, EFFORTS),
        ("conventions", conventions, CONVENTIONS),
    ):
        if given not in known:
            raise ValueError(f"{argument}: {given!r} given, expected one of {', '.join(known)}")
    path = Path(name) if str(name).endswith(".toml") else CONFIGS / f"{name}.toml"
    if not path.is_file():
        names = list_configs()
        close = difflib.get_close_matches(str(name), names, n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise ValueError(
            f"name: no table {str(name)!r}{hint} There are: {', '.join(names)}; "
            "or give a .toml file"
        )
    try:
        entries = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name}: this is no TOML file: {error}") from error
    return _config(path.stem, entries, effort, conventions)


def _config(name: str, entries: dict, effort: str, conventions: str) -> Config:
    """Check the entries of a file, and make a Config from them."""
    kind, data = entries.pop("kind", "table"), entries.pop("data", "photographs")
    program = entries.pop("program", "")
    choices = (("kind", kind, KINDS), ("data", data, DATA), ("program", program, PROGRAMS))
    for key, value, known in choices:
        if value not in known:
            raise ValueError(f"{name}: {key} is {value!r}, expected one of {', '.join(known)}")
    if (kind, data) == ("maps", "digits"):
        raise ValueError(f"{name}: figures of maps are made of photographs")
    missing = [key for key in ("title", "source", "rows") if not entries.get(key)]
    if missing:
        raise ValueError(f"{name}: no {', '.join(missing)}")
    limits = {e: entries.pop(e, {}) for e in EFFORTS if e != "full"}.get(effort, {})
    title, source = entries.pop("title"), entries.pop("source")
    measures, claims = tuple(entries.pop("measures", ())), tuple(entries.pop("claims", ()))
    rows, printed = {}, {}
    for row in entries.pop("rows"):
        label = row.pop("name", None)
        if not label or label in rows or "method" not in row:
            raise ValueError(f"{name}: each row needs a name of its own and a method: {row}")
        printed[label] = row.pop("printed", {})
        rows[label] = _cap_counts(row, limits)
    _check_claims(name, claims, rows, measures)
    if unknown := set(entries) - set(COUNTS):
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
        settings=_cap_counts(entries, limits),
        effort=effort,
        conventions=conventions,
        program=program if conventions == "program" else "",
    )


def _check_claims(name: str, claims: tuple, rows: dict, measures: tuple) -> None:
    """Raise ValueError where a claim names a row or a measure that there is not."""
    for claim in claims:
        named = [*claim.get("better", []), *claim.get("worse", [])]
        unknown = [row for row in named if row not in rows]
        measure = claim.get("measure")
        if unknown or measure not in measures or measure not in DIRECTIONS:
            raise ValueError(f"{name}: a claim names what is not there: {claim}")


def _cap_counts(entries: dict, limits: dict) -> dict:
    """Cut the counts down to their limits, and keep everything else as it is."""
    if unknown := set(limits) - set(COUNTS):
        raise ValueError(f"{', '.join(sorted(unknown))}: no count; these are {', '.join(COUNTS)}")
    return {k: min(v, limits[k]) if k in limits else v for k, v in entries.items()}
