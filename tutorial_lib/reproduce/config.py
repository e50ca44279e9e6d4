"""What a table or a figure of a paper measures: read from a small TOML file, and checked.

A file in `configs/` has these entries:

- `title`, and `source`: the paper, and the number of the table or figure.
- `program`: whose program's conventions `--program` takes, "goh" or "zhou".
- `kind`: "table", "curves", "maps" or "bells" (the share of a normal distribution that is out of
  range); `data`: "photographs" or "digits".
- `measures`: the columns.
- `rows`, each with a `name` and a `method`. Other entries of a row are the method's keywords,
  counts, levels and sigmas. What a paper does not say is marked in the file.
- `[printed.NETWORK.MEASURE]`: the paper's numbers, row = number. NETWORK is `any` or `none` for
  numbers that hold for every network, or need none.
- `[[claims]]` that the paper makes. `says` is ours; `quote` and `where` are the paper's words and
  their place. A claim of an order has `better` and `worse`, lists of rows whose means over the
  list are compared in `measure`. A claim of an equivalence has `equivalent` and `to`, and a
  `margin`, as a part of the value of `to`. In these lists `*` stands for any text.
- `[reduced]` and `[quick]`: the most of any count ("steps", "roots", ...) at those efforts.
- `columns`: how many maps a line of the figure has, if not all of them.
"""

import difflib
import fnmatch
import math
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

from tutorial_lib.averaging.noise import IMAGENET_BOUNDS
from tutorial_lib.reproduce.measures import (
    DIRECTIONS,
    OF_DIGITS,
    OF_INPUT_NOISE,
    POINTS,
    function_of,
    printed_name,
)
from tutorial_lib.reproduce.rows import COUNTS, PROGRAMS, check, check_entry, has_input_noise

CONFIGS = Path(__file__).parent / "configs"
KINDS = ("table", "curves", "maps", "bells")
DATA = ("photographs", "digits")
EFFORTS = ("full", "reduced", "quick")
CONVENTIONS = ("paper", "program")
ENTRIES = dict.fromkeys(("title", "source", "program", "kind", "data"), str)
ENTRIES |= dict.fromkeys(("measures", "rows", "claims"), list)
ENTRIES |= dict.fromkeys(("printed", "quick", "reduced"), dict)
ENTRIES |= dict.fromkeys((*COUNTS, "columns"), int)
KIND_NAMES = {str: "a text", list: "a list", dict: "a table", int: "a whole number"}
TEXTS_OF_CLAIM = ("says", "measure", "quote", "where")
LISTS_OF_CLAIM = ({"better", "worse"}, {"equivalent", "to"})


@dataclass(frozen=True)
class Config:
    """One table or figure of a paper, as `load_config` reads it.

    Attributes:
        name: Name of the file, such as goh-table1.
        title: What the table shows.
        source: The paper, and the number of the table or figure.
        kind: "table", "curves", "maps" or "bells".
        data: "photographs" or "digits".
        measures: Columns of the table.
        rows: Maps the name of a row to its method and keywords, with the counts of the effort.
        claims: The paper's claims, as comparisons of rows.
        printed: Maps a network to a measure to the name of a row to the paper's number.
        settings: Counts that belong to all rows, such as "perturbations".
        columns: How many maps a line of the figure has; 0 means all.
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
    printed: dict[str, dict[str, dict[str, float]]]
    settings: dict
    columns: int
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

    Each row is tried on a toy network, so that a mistake in it is named here.

    Args:
        name: A name of `list_configs`, or the path of another file (.toml).
        effort: "full" has the counts of the paper, or of its program where the paper prints none;
            "reduced" and "quick" cut each count down to what the file says.
        conventions: "paper" takes the printed equations (with bounds for each channel, where
            Zhou et al. have one range for all); "program" takes what the authors'
            published program computes (see `rows.attribution_function` and `Case.order`).

    Returns:
        The configuration, a `Config`.

    Raises:
        ValueError: The name, effort or convention is unknown, the file is no TOML, or an entry of
            it is missing, unknown or of another kind.

    Example:
        >>> from tutorial_lib import reproduce
        >>> config = reproduce.load_config("goh-table1")
        >>> config.rows["IG, black"]["steps"]
        50
        >>> config.printed["densenet121"]["aupc"]["IG, black"]
        23.63
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
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path.name}: this is no TOML file: {error}") from error
    try:
        return _config(path.stem, entries, effort, conventions)
    except ValueError as error:
        raise ValueError(f"{path.stem}: {error}") from error


def _config(name: str, entries: dict, effort: str, conventions: str) -> Config:
    """Check the entries of a file, and make a Config from them."""
    _check_entries(entries)
    limits = {e: entries.pop(e, {}) for e in EFFORTS if e != "full"}.get(effort, {})
    program, claims = entries.pop("program", ""), entries.pop("claims", [])
    config = Config(
        name=name,
        title=entries.pop("title"),
        source=entries.pop("source"),
        kind=entries.pop("kind", "table"),
        data=entries.pop("data", "photographs"),
        measures=tuple(entries.pop("measures", ())),
        rows=_read_rows(entries.pop("rows"), limits),
        claims=(),
        printed=entries.pop("printed", {}),
        columns=entries.pop("columns", 0),
        settings=_cap_counts(entries, limits),
        effort=effort,
        conventions=conventions,
        program=program if conventions == "program" else "",
    )
    _check_measures(config)
    bounds = (0.0, 1.0) if config.data == "digits" else IMAGENET_BOUNDS
    for label, row in config.rows.items():
        try:
            check(row, bounds, config.program)
        except ValueError as error:
            raise ValueError(f"row {label!r}: {error}") from error
    _check_printed(config)
    return replace(config, claims=_read_claims(claims, config))


def _check_entries(entries: dict) -> None:
    """Raise ValueError where an entry is missing, unknown, of another kind or none of those."""
    for key, value in entries.items():
        if key not in ENTRIES:
            raise ValueError(f"{key} is not known in such a file; these are: {', '.join(ENTRIES)}")
        if type(value) is not ENTRIES[key]:
            raise ValueError(f"{key} is {value!r}, expected {KIND_NAMES[ENTRIES[key]]}")
        if isinstance(value, str) and not value.isprintable():
            raise ValueError(f"{key} is {value!r}, expected one line of text")
    if missing := [key for key in ("title", "source", "rows") if not entries.get(key)]:
        raise ValueError(f"no {', '.join(missing)}")
    choices = {"kind": KINDS, "data": DATA, "program": PROGRAMS}
    for key, known in choices.items():
        if entries.get(key, known[0]) not in known:
            raise ValueError(f"{key} is {entries[key]!r}, expected one of {', '.join(known)}")
    counts = {k: v for k, v in entries.items() if k in COUNTS}
    for table in (counts, entries.get("quick", {}), entries.get("reduced", {})):
        if unknown := set(table) - set(COUNTS):
            names = ", ".join(sorted(unknown))
            raise ValueError(f"{names}: no count; these are {', '.join(COUNTS)}")
        for key, value in table.items():
            check_entry(key, value)


def _read_rows(given: list, limits: dict) -> dict[str, dict]:
    """Return name -> row, with counts within the limits; ValueError for a row without a name."""
    rows = {}
    for row in given:
        if not isinstance(row, dict):
            raise ValueError(f"rows: expected tables with a name and a method, got {row!r}")
        label = row.get("name")
        if not isinstance(label, str) or not label.isprintable() or not label.strip(" *"):
            raise ValueError(f"a row needs a name, a text on one line: {row}")
        if label in rows or "method" not in row:
            raise ValueError(f"each row needs a name of its own and a method: {row}")
        rows[label] = _cap_counts({k: v for k, v in row.items() if k != "name"}, limits)
    return rows


def _cap_counts(entries: dict, limits: dict) -> dict:
    """Cut the counts down to their limits, and keep everything else as it is."""
    for key in limits.keys() & entries.keys():
        check_entry(key, entries[key])
    return {k: min(v, limits[k]) if k in limits else v for k, v in entries.items()}


def _check_measures(config: Config) -> None:
    """Raise ValueError for a measure that there is not, or not for this kind, data or row."""
    for column in config.measures:
        if not isinstance(column, str) or config.measures.count(column) > 1:
            raise ValueError(f"measures: expected different names, got {column!r}")
        function = function_of(column)
        if (function in OF_DIGITS) != (config.data == "digits"):
            raise ValueError(f"measures: {column} is not for {config.data}")
        silent = [label for label, row in config.rows.items() if not has_input_noise(row)]
        if function in OF_INPUT_NOISE and silent:
            raise ValueError(f"measures: {column} needs rows with noise, {silent[0]!r} has none")
    wanted = {"table": config.measures, "bells": "inherent_noise" in config.measures}
    wanted["curves"] = set(POINTS) & set(config.measures)
    if not wanted.get(config.kind, True):
        raise ValueError(f"measures: {config.measures} give nothing to show in {config.kind}")
    if config.kind != "table" and config.data == "digits":
        raise ValueError("figures are made of photographs, and not of digits")


def _check_printed(config: Config) -> None:
    """Raise ValueError unless `printed` is network -> measure -> row -> number."""
    known = {printed_name(column) for column in config.measures}
    for network, columns in config.printed.items():
        for column, numbers in columns.items() if isinstance(columns, dict) else [("", columns)]:
            if column not in known or not isinstance(numbers, dict):
                raise ValueError(
                    f"printed: expected [printed.NETWORK.MEASURE] with {', '.join(sorted(known))} "
                    f"for a measure, and a table; got {network}, {column!r}, {numbers!r}"
                )
            for row, number in numbers.items():
                if row not in config.rows or type(number) not in (int, float):
                    raise ValueError(
                        f"printed: {network}, {column}: no row {row!r}, or no number: {number!r}"
                    )


def _read_claims(given: list, config: Config) -> tuple[dict, ...]:
    """Return the claims, with the names of rows for their `*`; ValueError for one without sense."""
    claims = []
    for claim in given:
        keys = set(claim) if isinstance(claim, dict) else set()
        lists = next((names for names in LISTS_OF_CLAIM if names <= keys), ())
        needed = {"says", "measure", *lists, *(["margin"] if "to" in lists else [])}
        if not lists or not needed <= keys <= needed | {"quote", "where"}:
            raise ValueError(
                "a claim has says, measure, better and worse, or says, measure, equivalent, to and "
                f"margin; besides quote and where; got {claim}"
            )
        measure = claim["measure"]
        if measure not in config.measures or ("better" in claim and measure not in DIRECTIONS):
            raise ValueError(f"a claim is about {measure!r}, which is not measured or has no side")
        texts = [claim.get(key, "") for key in TEXTS_OF_CLAIM]
        if not all(isinstance(text, str) and text.isprintable() for text in texts):
            raise ValueError(f"a claim has something else for a line of text: {claim}")
        margin = claim.get("margin", 0.1)
        if type(margin) not in (int, float) or not 0 < margin < math.inf:
            raise ValueError(f"margin: expected a number above 0, got {margin!r}")
        named = {key: _named_rows(claim[key], config.rows) for key in lists}
        if set.intersection(*map(set, named.values())):
            raise ValueError(f"a claim compares a row with itself: {claim}")
        claims.append(claim | named)
    return tuple(claims)


def _named_rows(patterns: object, rows: dict) -> list[str]:
    """Return the rows that a list of names means, where `*` stands for any text."""
    if not isinstance(patterns, list) or not patterns:
        raise ValueError(f"a claim has lists of rows, got {patterns!r}")
    names = []
    for pattern in patterns:
        text = str(pattern).replace("[", "[[]").replace("?", "[?]")
        found = [row for row in rows if fnmatch.fnmatchcase(row, text)]
        if not found or not isinstance(pattern, str):
            raise ValueError(f"a claim names what is not there: {pattern!r}")
        names += found
    return list(dict.fromkeys(names))
