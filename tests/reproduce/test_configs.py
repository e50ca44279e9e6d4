"""What the configurations say of the papers, and which mistakes in such a file are named."""

import hashlib
import json
import re
import tomllib
from functools import lru_cache

import pytest

from tests.built import ROOT
from tests.reproduce.conftest import SMALL
from tutorial_lib.reproduce import config, measures, runner

NAMES = config.list_configs()
loaded = lru_cache(maxsize=None)(config.load_config)  # to read from: it tries every row of a table
PROMISED = "goh-fig1 goh-fig2 goh-fig3 goh-table1 goh-table2 zhou-bounds zhou-fig1 zhou-fig2"
PROMISED += " zhou-fig3 zhou-fig4 zhou-fig5 zhou-fig6 zhou-table1 zhou-table2"
SOURCES = ROOT.parent / "shared" / "sources"  # the papers as text, which are not ours to publish
TEXTS = {"goh": "goh2020-smoothtaylor.txt", "zhou": "zhou2024-gradient-smooth-methods.txt"}
OURS = {"information_level": "information"}  # the name of a measure there: the name here

# SHA-256 (16 digits) of the printed numbers as JSON, and how many they are: so that they are
# guarded where the papers' texts are not at hand.
PRINTED = {
    "goh-table1": ("ea493191cb63d96f", 64),
    "goh-table2": ("299b42be666f2d91", 28),
    "zhou-bounds": ("eeda4f7e9c8fb5af", 2),
    "zhou-fig3": ("07c760ff2f0f2f80", 2),
    "zhou-table1": ("8ecbf2ed4a8b4bf3", 12),
    "zhou-table2": ("405aa8c1b2467c0b", 63),
}


def source(name: str) -> str:
    path = SOURCES / name
    if not path.is_file():
        pytest.skip(f"{path} is not there: the papers' texts do not come with the repository")
    return path.read_text("utf-8")


# What they say.


def test_every_table_and_figure_that_is_promised_has_a_configuration():
    assert PROMISED.split() == NAMES


EFFORTS = [pytest.param(e, marks=[pytest.mark.slow] * (e != "quick")) for e in config.EFFORTS]


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_names_only_what_there_is(name, effort):
    conventions = "program" if effort == "quick" else "paper"
    made = loaded(name, effort=effort, conventions=conventions)  # tries every row
    assert made.program == (name.partition("-")[0] if effort == "quick" else "")
    assert runner._columns(made)[: len(made.measures)] == list(made.measures)


@pytest.mark.slow
def test_table_one_has_the_papers_rows():
    listed = loaded("goh-table1").rows
    noise = [r["baselines"] for r in listed.values() if r.get("baseline") == "noise"]
    taylor = {(r["sigma"], r["roots"]) for r in listed.values() if r["method"] == "smooth_taylor"}
    assert noise == [1, 5, 10, 20]
    assert taylor == {(s, r) for s in (0.3, 0.5, 0.7) for r in (100, 150, 200)}
    objectives = [r["objective"] for r in listed.values() if "objective" in r]
    assert objectives == ["aupc", "autvc_program"]
    assert len(loaded("zhou-table2").rows) == 15


@pytest.mark.slow
def test_table_two_has_the_papers_seven_rows_and_figure_three_those_with_100_roots():
    listed = loaded("goh-table2").rows
    pairs = [(row["sigma"], row["roots"]) for row in listed.values()]
    assert pairs == [(0.5, 10), *((s, 100) for s in (1e-4, 1e-3, 1e-2, 0.1, 1, 2))]
    assert loaded("goh-table2", effort="reduced").rows == listed
    figure = loaded("goh-fig3")
    assert list(figure.rows.values()) == list(listed.values())[1:]
    assert figure.measures == loaded("goh-fig2").measures == ("aupc", "autvc_program")


@pytest.mark.slow
def test_the_figures_have_the_papers_panels():
    def given(name: str, entry: str) -> list:
        return [row.get(entry) for row in loaded(name).rows.values()]

    first = loaded("goh-fig1").rows
    assert list(first) == [
        *("gradient", "SmoothGrad", "IG, black", "IG, noise, N = 1", "ST 0.5, R = 150", "LRP")
    ]
    assert given("zhou-fig1", "method") == ["gradient", "smoothgrad", "adaptgrad"]
    assert given("zhou-fig2", "samples") == [None, 10, 20, 30, 50, 70, 100]
    assert given("zhou-fig2", "level") == [None] + [0.2] * 6
    assert given("zhou-fig4", "confidence") == [0.95, 0.99, 0.995, 0.999]
    assert given("zhou-fig5", "samples") == [10, 20, 30, 50, 70, 100] * 2
    grid = loaded("zhou-fig6")
    plain = ["GI", "IG, black", "IG, white", "NG"]
    assert list(grid.rows) == [prefix + name for prefix in ("", "S-", "A-") for name in plain]
    table = loaded("zhou-table2").rows
    assert all(table[name] == row for name, row in grid.rows.items()) and grid.columns == 4


@pytest.mark.parametrize("name", PRINTED)
def test_the_printed_numbers_are_those_that_were_read(name):
    printed = loaded(name).printed
    digest = hashlib.sha256(json.dumps(printed, sort_keys=True).encode()).hexdigest()
    count = sum(len(row) for columns in printed.values() for row in columns.values())
    assert (digest[:16], count) == PRINTED[name]


@pytest.mark.parametrize("name", PRINTED)
def test_the_printed_numbers_are_the_papers_cell_by_cell(name):
    there = tomllib.loads(source("printed.toml"))[name]
    wanted = {
        (network, OURS.get(measure, measure), row): number
        for network, columns in there.items()
        for measure, numbers in columns.items()
        for row, number in numbers.items()
        if number == number  # NaN: the paper has no number there
    }
    made = loaded(name)
    found = {
        (network, measure, row): number
        for network, columns in made.printed.items()
        for measure, numbers in columns.items()
        for row, number in numbers.items()
    }
    assert found == wanted
    named = {row for columns in there.values() for numbers in columns.values() for row in numbers}
    assert named <= set(made.rows)


def test_numbers_are_printed_for_tables_and_for_nothing_else():
    with_numbers = [name for name in NAMES if loaded(name).printed]
    assert with_numbers == sorted(PRINTED)
    made = loaded("goh-table1").printed
    assert made["densenet121"]["aupc"]["IG, black"] == 23.63
    assert made["resnet152"]["autvc"]["ST, adaptive, AUTVC"] == 0.85


def plain(text: str) -> str:
    """Text without the marks of its source: emphasis, mathematics, line breaks."""
    return re.sub(r"\s+", " ", re.sub(r"[*$]", "", text))


CLAIMS = [
    (name, claim)
    for name in NAMES
    for claim in tomllib.loads((config.CONFIGS / f"{name}.toml").read_text("utf-8")).get(
        "claims", []
    )
]


@pytest.mark.parametrize(("name", "claim"), CLAIMS)
def test_a_claim_is_quoted_from_its_paper_with_its_place(name, claim):
    assert 0 < len(claim["quote"].split()) < 30 and claim["says"]
    assert re.fullmatch(r"Abstract|Section [IVX\d]+([-.][A-Z\d.]+)?", claim["where"])
    assert plain(claim["quote"]) in plain(source(TEXTS[name.partition("-")[0]]))


def relative(numbers: dict, claim: dict) -> float:
    """The printed difference of an equivalence, as a part of what it is compared with."""
    one, other = (sum(numbers[r] for r in claim[k]) / len(claim[k]) for k in ("equivalent", "to"))
    return abs(one - other) / abs(other)


def test_a_margin_is_the_least_round_part_that_the_printed_numbers_stay_within():
    asked = {}
    for name in {name for name, claim in CLAIMS if "margin" in claim}:
        for claim in (c for c in loaded(name).claims if "margin" in c):
            asked.setdefault((name, claim["measure"], claim["margin"]), []).append(claim)
    for (name, measure, margin), alike in asked.items():
        printed = loaded(name).printed.values()
        widest = max(relative(columns[measure], claim) for columns in printed for claim in alike)
        assert margin == min(part for part in (0.01, 0.02, 0.05, 0.1, 0.2) if part >= widest)
    assert {measure: margin for _, measure, margin in asked} == {
        "aupc": 0.05,
        "consistency": 0.1,
        "invariance": 0.05,
    }


@pytest.mark.parametrize(("measure", "label"), [("aupc", "AUPC"), ("autvc", "AUTVC")])
def test_the_best_of_all_runs_is_asked_against_the_next_in_print(measure, label):
    made = loaded("goh-table1")
    claim = next(c for c in made.claims if c["says"].startswith(f"adaptive for {label} has the"))
    for columns in made.printed.values():
        ranked = sorted(columns[measure], key=columns[measure].get)
        assert claim["better"] == [f"ST, adaptive, {label}"] == ranked[:1]
        second = columns[measure][ranked[1]]
        assert columns[measure][claim["worse"][0]] == second


@pytest.mark.slow
def test_an_effort_cuts_counts_down_and_leaves_the_rest():
    full, quick = (loaded("goh-table1", effort=e) for e in ("full", "quick"))
    assert full.rows["IG, noise, N = 20"]["baselines"] == 20
    assert quick.rows["IG, noise, N = 20"]["baselines"] == 2
    assert quick.rows["IG, noise, N = 1"]["baselines"] == 1
    assert (full.settings["perturbations"], quick.settings["perturbations"]) == (50, 2)
    assert quick.rows["ST 0.5, R = 150"]["sigma"] == 0.5


# Mistakes.


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (dict(name="goh-tabel1"), "did you mean goh-table1"),
        (dict(name="goh-table1", effort="slow"), "effort: 'slow'"),
        (dict(name="goh-table1", conventions="mine"), "conventions: 'mine'"),
    ],
)
def test_a_name_that_there_is_not_is_named_with_those_that_there_are(given, problem):
    with pytest.raises(ValueError, match=problem):
        config.load_config(**given)


GRADIENT = '{ name = "gradient", method = "gradient" }'
IG = 'method = "integrated_gradients", baseline = "black", steps = 6 }'
TAYLOR = 'method = "smooth_taylor", sigma = 0.5, roots = 6 }'
MEASURES = 'measures = ["aupc", "autvc", "sparseness"]'
CLAIM = '{ says = "IG is sparser", measure = "sparseness",'
SIDES = 'better = ["IG, black"], worse = ["gradient"] }'
EQUAL = 'equivalent = ["IG, black"], to = ["gradient"]'
NUMBER = "[printed.resnet152.aupc]\ngradient = 12.5"
MISTAKES = {  # what is replaced: [(by what, what is said)]
    'source = "nobody"': [("", "no source"), ("source = 5", "source is 5, expected a text")],
    'title = "Three maps"': [
        ('title = "a"\nkind = "drawing"', "kind is 'drawing'"),
        ('title = "a\\u001b[31m"', "title is .*, expected one line of text"),
        ('title = "a"\nkind = "bells"', "give nothing to show in bells"),
        ('title = "a"\nkind = ["maps"]', r"kind is \['maps'\], expected a text"),
        ('title = "a"\ncolour = "red"', "colour is not known"),
        ('title = "a"\ndata = "digits"', "measures: aupc is not for digits"),
        ('title = "a"\nreduced = 5', "reduced is 5, expected a table"),
        ("title = " + "[" * 3000, "no TOML file"),
    ],
    "perturbations = 3": [
        ('perturbations = "x"', "perturbations is 'x', expected a whole number"),
        ("perturbations = 0", "perturbations: expected a whole number from 1"),
        ("perturbations = true", "perturbations is True"),
    ],
    MEASURES: [
        ("measures = 5", "measures is 5, expected a list"),
        ('measures = [["aupc"]]', "measures: expected different names"),
        ('measures = ["aupc", "aupc"]', "measures: expected different names"),
        ('measures = ["beauty"]', "measures: no 'beauty'"),
        ('measures = ["invariance"]', "invariance is not for photographs"),
        ('measures = ["outside"]', "outside needs rows with noise, 'gradient' has none"),
        ("", "give nothing to show in table"),
    ],
    "rows = [": [
        ("rows = [[", "no TOML file"),
        ("rows = [1,", "rows: expected tables"),
        ('rows = [{ name = "a" },', "a name of its own and a method"),
        ('rows = [{ name = 5, method = "gradient" },', "a row needs a name"),
        ('rows = [{ name = "*", method = "gradient" },', "a row needs a name"),
        ('rows = [{ name = "a\\nb", method = "gradient" },', "a row needs a name"),
        ('rows = [{ name = "a", method = ["gradient"] },', "row 'a': method: expected"),
        ('rows = [{ name = "a", method = "gradcam" },', "row 'a': no method 'gradcam'"),
        ('rows = [{ name = "a", method = "gradient", layer = "x" },', "takes no layer"),
        ('rows = [{ name = "a", method = "smoothgrad" },', "needs a sigma or a level"),
        ('rows = [{ name = "a", method = "lrp", rule = "evil" },', "row 'a': rule: .*got 'evil'"),
    ],
    GRADIENT: [(GRADIENT.replace("}", ", day = 2026-01-01 }"), "row 'gradient': day: expected")],
    'name = "IG, black"': [('name = "gradient"', "a name of its own")],
    IG: [
        (IG.replace("6", '"two"'), "steps: expected a whole number from 1 .*got 'two'"),
        (IG.replace("6", "2.5"), "steps: expected a whole number from 1 .*got 2.5"),
        (IG.replace("6", "-1"), "steps: .*got -1"),
        (IG.replace("6", "10000000000000000000"), "steps: .*got 10000000000000000000"),
        (IG.replace("6 }", '6, rule = "evil" }'), "row 'IG, black': rule: .*evil"),
        (IG.replace('"black"', '"foo"'), "row 'IG, black': baseline: .*foo"),
        *(
            (IG.replace("}", f", {name} = 1 }}"), f"'IG, black': {name} is given by the run")
            for name in ("model", "x", "target", "keywords", "seed", "progress", "bounds")
        ),
    ],
    TAYLOR: [
        (TAYLOR.replace("0.5", "[1]"), r"row 'SmoothTaylor': sigma: .*got \[1\]"),
        (TAYLOR.replace("0.5", '"x"'), "row 'SmoothTaylor': sigma: expected a number"),
        (TAYLOR.replace("sigma", 'level = "x", sigma'), "a sigma and a level"),
        (TAYLOR.replace("sigma", "level = 0.1, sigma"), "a sigma and a level"),
    ],
    CLAIM: [
        (CLAIM.replace('says = "IG is sparser", ', ""), "a claim has says"),
        (CLAIM.replace('"IG is sparser"', "5"), "something else for a line of text"),
        (CLAIM.replace('"sparseness"', '"information"'), "a claim is about 'information'"),
        ("1, " + CLAIM, "a claim has says"),
    ],
    SIDES: [
        (SIDES.replace('worse = ["gradient"]', "worse = []"), r"lists of rows, got \[\]"),
        (SIDES.replace('"IG, black"', '"IG"'), "a claim names what is not there: 'IG'"),
        (SIDES.replace('["IG, black"]', '"IG, black"'), "lists of rows, got 'IG, black'"),
        (SIDES.replace('"IG, black"', "5"), "a claim names what is not there: 5"),
        (SIDES.replace('"IG, black"', '"*"'), "compares a row with itself"),
        (SIDES.replace("}", ", magin = 1 }"), "a claim has says"),
        (SIDES.replace("}", ", margin = 1 }"), "a claim has says"),
        (EQUAL + " }", "a claim has says"),
        (EQUAL + ", margin = -1 }", "margin: expected a number above 0"),
        (EQUAL + ', margin = "a" }', "margin: expected a number above 0"),
    ],
    NUMBER: [
        ("[printed]\nresnet152 = 5", "printed: expected .*NETWORK"),
        ("[printed.resnet152]\naupc = 5", "printed: expected .*NETWORK"),
        (NUMBER.replace("aupc", "beauty"), "printed: expected .*'beauty'"),
        (NUMBER.replace("gradient", "grad"), "no row 'grad'"),
        (NUMBER.replace("12.5", '"x"'), "no number: 'x'"),
    ],
    "steps = 2\n": [
        ("stepps = 2\n", "stepps: no count"),
        ('steps = "2"\n', "steps: expected a whole number"),
    ],
}


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [(old, *mistake) for old, mistakes in MISTAKES.items() for mistake in mistakes],
)
def test_a_mistake_is_named_when_the_file_is_read(tmp_path, old, new, problem):
    path = tmp_path / "own.toml"
    assert SMALL.count(old) >= 1
    path.write_text(SMALL.replace(old, new))
    with pytest.raises(ValueError, match=rf"^own(\.toml)?: .*(?s:{problem})"):
        config.load_config(path)


def test_a_star_in_a_claim_stands_for_any_text_and_other_signs_for_themselves(tmp_path):
    path = tmp_path / "own.toml"
    text = SMALL.replace('"gradient"', '"g[r]?"').replace('method = "g[r]?"', 'method = "gradient"')
    path.write_text(text.replace("gradient = 12.5", '"g[r]?" = 12.5'))
    assert config.load_config(path).claims[0]["worse"] == ["g[r]?"]
    path.write_text(SMALL.replace(SIDES, 'better = ["*T*", "IG*"], worse = ["*ent"] }'))
    claim = config.load_config(path).claims[0]
    assert claim["better"] == ["SmoothTaylor", "IG, black"] and claim["worse"] == ["gradient"]


def test_every_measure_is_for_one_kind_of_data_and_claims_of_order_need_a_side():
    assert set(measures.DIRECTIONS) <= set(measures.FUNCTIONS)
    undirected = set(measures.FUNCTIONS) - set(measures.DIRECTIONS)
    of_digits = {c for c, f in measures.FUNCTIONS.items() if f in measures.OF_DIGITS}
    assert undirected == of_digits | {"affected"}
