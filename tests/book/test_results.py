"""The tables that the book has stored are whole, and read as they were written."""

import json

import pytest

import tutorial_book as stored
from tests.built import ROOT
from tutorial_lib.reproduce import load_config


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "RESULTS", tmp_path)
    return tmp_path


def test_a_stored_table_comes_as_rows_with_numbers(results):
    (results / "some.csv").write_text('method,R,value\n"a, b",10,0.5\nc,20,\n')
    first, second = stored.load_results("some")
    assert first == {"method": "a, b", "R": 10.0, "value": 0.5}
    assert second["value"] != second["value"]  # NaN where nothing was measured


def test_a_missing_table_names_those_that_there_are(results):
    with pytest.raises(FileNotFoundError, match=r"name: no stored table 'x'; there are: none"):
        stored.load_results("x")
    (results / "some.csv").write_text("a\n1\n")
    with pytest.raises(FileNotFoundError, match="there are: some"):
        stored.load_results("x")


@pytest.mark.parametrize("path", sorted(stored.RESULTS.glob("*.csv")), ids=lambda p: p.stem)
def test_every_stored_table_has_the_script_that_made_it_and_is_whole(path):
    places = path.with_name(f"make_{path.stem}.py"), ROOT / "benchmarks" / f"{path.stem}.py"
    script = next(place for place in places if place.is_file()).read_text("utf-8")
    rows = stored.load_results(path.stem)
    assert all(f'"{column}"' in script for column in rows[0])
    assert all(set(row) == set(rows[0]) for row in rows) and None not in rows[0]


REPRODUCED = sorted((stored.RESULTS / "reproduced").glob("*.csv"))


@pytest.mark.parametrize("path", REPRODUCED, ids=lambda p: p.stem)
def test_every_reproduced_table_has_its_record_and_all_its_rows(path):
    record = json.loads(path.with_suffix(".json").read_text("utf-8"))
    assert path.stem.startswith(record["table"])  # zhou-table1-60000 is another run of zhou-table1
    made = load_config(record["table"], effort=record["effort"], conventions=record["conventions"])
    assert record["rows"] == made.rows and record["settings"] == made.settings
    assert not record["images"].startswith("/") and not record["commit"].endswith("+")
    rows = stored.load_results(f"reproduced/{path.stem}")
    names = list(dict.fromkeys(row["picture"] for row in rows))
    assert [(r["picture"], r["row"]) for r in rows] == [(n, r) for n in names for r in made.rows]
    assert len(names) >= 20
