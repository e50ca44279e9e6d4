"""What is concluded: differences, verdicts on claims, printed beside measured numbers, orders."""

import math
from dataclasses import replace

import numpy as np
import pandas
import pytest
from scipy.stats import nct, norm, spearmanr, t

from tutorial_lib import reproduce
from tutorial_lib.reproduce import tables, verdicts


def results(measure="aupc", **values):
    """A table of results from row=[one value for each picture]."""
    lines = [
        {"picture": f"{i:03}", "row": row, measure: value}
        for row, column in values.items()
        for i, value in enumerate(column)
    ]
    return pandas.DataFrame(lines).sort_values("picture", kind="stable")


def own(claims=(), printed=None, measures=("aupc",), rows="ab"):
    """A configuration with these claims and printed numbers."""
    options = dict(claims=tuple(claims), printed=printed or {}, measures=tuple(measures))
    return replace(reproduce.load_config("zhou-fig1"), rows={row: {} for row in rows}, **options)


def test_a_summary_has_means_and_standard_errors_over_pictures():
    table = tables.summary(results(a=[1.0, 2.0, 6.0], b=[1.0, np.nan, 2.0]), ["aupc"])
    assert table.loc["a"].tolist() == pytest.approx([3.0, math.sqrt(7 / 3), 3])
    assert table.loc["b"].tolist() == pytest.approx([1.5, 0.5, 2])
    assert list(table.index) == ["a", "b"]


@pytest.mark.parametrize(
    ("mean", "error", "text"),
    [
        (12.3456, 0.789, "12.35 +- 0.79"),
        (0.01332, 0.000041, "0.013320 +- 0.000041"),
        (40.0, 6.23, "40.0 +- 6.2"),
        (0.159577, 0.0, "0.15958 +- 0"),
        (3.25, float("nan"), "3.25"),
    ],
)
def test_a_cell_shows_two_digits_of_its_error(mean, error, text):
    assert tables._cell(mean, error, 5, 5) == text
    assert tables._cell(mean, error, 3, 5) == text + " (n 3)"


def test_a_paired_difference_cancels_what_pictures_share():
    base = np.array([0.0, 100.0, 1000.0, -50.0])
    found = tables.differences(
        results(a=list(base + np.array([1, 2, 3, 2])), b=list(base)), "aupc", ["a"], ["b"]
    )
    half = 3.182446 * np.std([1, 2, 3, 2], ddof=1) / 2  # Student's t, 3 degrees of freedom
    assert found["difference"] == pytest.approx(2) and found["n"] == 4
    assert [found["low"], found["high"]] == pytest.approx([2 - half, 2 + half], rel=1e-6)
    one = tables.differences(results(a=[1.0], b=[3.0]), "aupc", ["a"], ["b"])
    assert one["difference"] == -2 and math.isnan(one["low"]) and math.isnan(one["detectable"])


@pytest.mark.parametrize("n", [10, 20, 100])
def test_the_detectable_difference_is_shown_four_times_in_five(n):
    d = np.random.default_rng(0).normal(size=n)
    found = tables.differences(results(a=list(d), b=[0.0] * n), "aupc", ["a"], ["b"])
    error = d.std(ddof=1) / math.sqrt(n)
    # With `detectable` for the true difference, mean / error has the noncentral t distribution.
    shown = nct.sf(t.ppf(0.975, n - 1), n - 1, found["detectable"] / error)
    assert abs(shown - 0.8) < 0.02
    large = (norm.ppf(0.975) + norm.ppf(0.8)) * error  # 2.80 standard errors for many pictures
    assert found["detectable"] / large == pytest.approx(1, abs=2 / n)


# Claims.


def claim(measure="aupc", better="a", worse="b"):
    return dict(says="a is better", measure=measure, better=[better], worse=[worse])


@pytest.mark.parametrize(
    ("shift", "verdict"),
    [(-5.0, "holds"), (5.0, "does not hold here"), (0.0, "not told apart")],
)
def test_a_claim_holds_where_the_whole_interval_is_on_its_side(shift, verdict):
    table = results(b=[0.0, 1.0, 2.0], a=[shift, shift + 1.5, shift + 1.7])
    table["sparseness"] = table.aupc
    made = own([claim(), claim("sparseness")], measures=("aupc", "sparseness"))
    found = reproduce.claims(table, made)
    assert found.verdict[0] == verdict  # lower is better for AUPC, higher for sparseness
    opposite = {"holds": "does not hold here", "does not hold here": "holds"}
    assert found.verdict[1] == opposite.get(verdict, verdict)


def equal(margin, says="like"):
    return dict(says=says, measure="aupc", equivalent=["a"], to=["b"], margin=margin)


@pytest.mark.parametrize(
    ("margin", "verdict"), [(0.5, "holds"), (0.05, "undecided"), (0.004, "does not hold here")]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_an_equivalence_holds_where_the_whole_interval_is_inside_its_margin(margin, verdict, sign):
    base, d = np.array([9.0, 10.0, 11.0, 10.0]), np.array([0.2, 0.5, 0.3, 0.4])
    found = reproduce.claims(results(b=list(base), a=list(base + sign * d)), own([equal(margin)]))
    line = found.iloc[0]
    assert line.verdict == verdict and line.margin == pytest.approx(10 * margin)
    assert (max(abs(line.low), abs(line.high)) < line.margin) == (verdict == "holds")


@pytest.mark.slow
def test_a_margin_as_large_as_is_detectable_shows_a_true_equality_in_three_runs_of_five():
    n, shown = 20, []
    for d in np.random.default_rng(0).normal(size=(2000, n)):
        error = d.std(ddof=1) / math.sqrt(n)
        half, more = (float(t.ppf(q, n - 1)) * error for q in (0.975, 0.8))
        found = dict(low=d.mean() - half, high=d.mean() + half, n=n)
        shown.append(verdicts._verdict("aupc", found, half + more) == "holds")
    assert abs(np.mean(shown) - 0.6) < 0.04


def test_a_claim_about_rows_that_were_not_measured_cannot_be_tested():
    made = own([claim(worse="c"), claim(), equal(0.1)], {"x": {"aupc": {"a": 1.0, "c": 2.0}}})
    found = reproduce.claims(results(a=[1.0], b=[2.0]), made)
    assert set(found.verdict) == {"cannot be tested here"}
    assert found.n.tolist() == [0, 1, 1] and found.printed.tolist() == ["x: yes", "", ""]
    assert list(reproduce.claims(results(a=[1.0]), own())) == []


def test_what_the_paper_prints_is_judged_network_by_network():
    numbers = {
        "one": {"aupc": {"a": 1.0, "b": 2.0}},
        "two": {"aupc": {"a": 2.0, "b": 2.0}},
        "three": {"aupc": {"a": 1.0}},
        "any": {"aupc": {"a": 2.1, "b": 2.0}},
    }
    made = own([claim(), equal(0.06), equal(0.04)], numbers)
    found = reproduce.claims(results(a=[1.0, 1.0], b=[1.0, 1.0]), made)
    like = "one: no, two: yes, "
    assert found.printed.tolist() == ["one: yes, two: no, no", like + "yes", like + "no"]


@pytest.mark.slow
def test_the_papers_own_tables_are_against_some_of_its_sentences():
    empty = pandas.DataFrame({"picture": [], "row": []})
    neither = "densenet121: no, resnet152: no"
    last = "vgg16: yes, inception_v3: yes, resnet50: no"
    for name, against in {
        "goh-table1": {
            "beyond N = 5 more noise baselines gain less AUPC": "densenet121: no, resnet152: yes",
            "sigma 0.7 is noisier than 0.3": neither,
            "adaptive for AUTVC beats constant noise in AUPC, too": neither,
        },
        "goh-table2": {},
        "zhou-table1": {},
        "zhou-table2": {
            "A-IG, black is sparser than IG, black": last,
            "A-IG, black has more information than S-IG, black": last,
        },
    }.items():
        found = reproduce.claims(empty, reproduce.load_config(name))
        no = found[found["printed"].str.contains("no")]
        assert dict(zip(no["claim"], no["printed"], strict=True)) == against
        assert found["printed"].str.contains("yes|no").all()


# Printed beside measured.


def test_printed_numbers_stand_beside_measured_ones_and_once_for_two_ways_of_measuring():
    printed = {"net": {"autvc": {"a": 1.5, "b": 1.25, "c": 1.75}}}
    made = own(measures=("autvc", "autvc_program"), printed=printed, rows="abc")
    table = results("autvc", a=[1.0, 2.0], b=[3.0, 3.0])
    table["autvc_program"] = 2 * table["autvc"]
    found = reproduce.beside(table, made)
    assert found.loc["a", "autvc_program"].to_dict() == dict(here=3.0, n=2, net=1.5) | {"s.e.": 1}
    assert found.loc["b", ("autvc", "net")] == 1.25 and found.loc["c"].isna().sum() == 6
    assert reproduce.text(table, made).splitlines() == [
        "          autvc  autvc_program   net",
        "a  1.50 +- 0.50     3.0 +- 1.0  1.50",
        "b   3.0000 +- 0    6.0000 +- 0  1.25",
        "c             -              -  1.75",
        "printed in the paper: net",
        "lower is better: autvc, autvc_program",
    ]


def test_printed_numbers_keep_the_digits_of_the_paper():
    numbers = pandas.Series([21.2, 21.34, 0.99, np.nan])
    assert tables._printed_cells(numbers) == ["21.20", "21.34", "0.99", ""]
    assert tables._printed_cells(pandas.Series([0.1596, 0.01424])) == ["0.1596", "0.01424"]


# Orders.


@pytest.mark.slow
def test_the_rank_correlation_is_spearmans_and_its_interval_comes_from_pictures():
    rng = np.random.default_rng(1)
    rows = "abcdef"
    wanted = dict(zip(rows, [3.0, 1.0, 1.0, 2.0, 5.0, 4.0], strict=True))  # with a tie
    level = {row: number + rng.normal(0, 3, size=40) for row, number in wanted.items()}
    made = own(printed={"one": {"aupc": wanted}, "two": {"aupc": {**wanted, "a": 9.0}}}, rows=rows)
    table = results(**{row: list(values) for row, values in level.items()})
    found = reproduce.rank_agreement(table, made)
    means = [level[row].mean() for row in rows]
    line = found.iloc[0]
    assert line.rho == pytest.approx(spearmanr(means, list(wanted.values()))[0])
    assert line.low <= line.rho <= line.high and -1 <= line.low < line.high <= 1
    assert (line.rows, line.pictures, line["with"]) == (6, 40, "here")
    pair = found.iloc[2]
    assert (pair.printed, pair["with"]) == ("one", "two") and math.isnan(pair.low)
    assert pair.rho == pytest.approx(spearmanr([3, 1, 1, 2, 5, 4], [9, 1, 1, 2, 5, 4])[0])
    assert found.equals(reproduce.rank_agreement(table, made))  # seeded
    wider = reproduce.rank_agreement(table, made, confidence=0.99).iloc[0]
    assert wider.low <= line.low and line.high <= wider.high


def test_orders_of_two_rows_or_of_one_picture_say_nothing():
    printed = {"one": {"aupc": {"a": 1.0, "b": 2.0}}}
    table = results(a=[1.0, 2.0], b=[1.0, 4.0])
    assert reproduce.rank_agreement(table, own(printed=printed)).empty
    made = own(printed={"one": {"aupc": {"a": 1.0, "b": 2.0, "c": 3.0}}}, rows="abc")
    found = reproduce.rank_agreement(results(a=[1.0], b=[2.0], c=[3.0]), made).iloc[0]
    assert found.rho == 1 and math.isnan(found.low)
    assert reproduce.rank_agreement(results(a=[1.0]), made).empty
    flat = reproduce.rank_agreement(results(a=[1.0, 1], b=[1.0, 1], c=[1.0, 1]), made).iloc[0]
    assert math.isnan(flat.rho)


def test_the_papers_networks_agree_on_the_order_of_their_rows():
    empty = pandas.DataFrame({"picture": [], "row": []})
    found = reproduce.rank_agreement(empty, reproduce.load_config("goh-table1"))
    assert found.set_index("measure").rho.round(2).to_dict() == {
        "aupc": 0.82,
        "autvc": 0.99,
        "autvc_program": 0.99,
    }
    assert (found["with"] == "resnet152").all() and (found["rows"] == 16).all()


def test_a_verdict_is_written_with_what_it_rests_on():
    from tutorial_lib.reproduce.__main__ import _line

    made = own([claim(), equal(0.5)], {"x": {"aupc": {"a": 1.0, "b": 2.0}}})
    found = reproduce.claims(results(a=[1.0, 2.0], b=[2.0, 2.5]), made).to_dict("records")
    assert _line(found[0]) == (
        "- a is better: not told apart (aupc -0.75, -3.93 to +2.43, detectable 3.5); "
        "in print: x: yes"
    )
    assert ", margin 1.1)" in _line(found[1])
    assert verdicts._groups(made.claims[1]) == (["a"], ["b"])
