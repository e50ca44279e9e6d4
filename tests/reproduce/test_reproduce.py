"""Tables of the papers: what they say, what is measured, what is kept, and what is concluded."""

import json
import math
import os
from contextlib import closing

import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from torch import nn

import tutorial_lib as tl
from tests.reproduce.conftest import SMALL, network
from tutorial_lib.averaging.noise import IMAGENET_BOUNDS
from tutorial_lib.reproduce import (
    cases,
    config,
    drawings,
    measures,
    pictures,
    rows,
    runner,
    sources,
    store,
    tables,
)
from tutorial_lib.reproduce.__main__ import main
from tutorial_lib.reproduce.cost import gradients, passes

pytestmark = pytest.mark.slow

NAMES = config.list_configs()


def read(folder):
    return (folder / "results.csv").read_bytes()


# From a row to a map.


def test_sigma_is_scaled_from_the_papers_range_to_the_networks():
    row = dict(method="smooth_taylor", sigma=0.5)
    assert rows.keywords(row, IMAGENET_BOUNDS)[1]["sigma"] == pytest.approx(0.5, rel=1e-12)
    assert rows.keywords(row, (-1.0, 1.0))[1]["sigma"] == pytest.approx(0.5 / 4.757904 * 2, 1e-4)
    level = rows.keywords(dict(method="smoothgrad", level=0.2), (-1.0, 1.0))[1]
    assert level["sigma"] == pytest.approx(0.4)


def test_inner_keywords_go_to_the_smoothed_method_and_shared_ones_to_the_smoothing():
    row = dict(method="adaptgrad", inner="integrated_gradients", baseline="white", steps=7)
    method, given = rows.keywords(row | dict(samples=3, confidence=0.9), (-1.0, 2.0))
    assert method is tl.adaptgrad and given["samples"] == 3 and given["confidence"] == 0.9
    assert given["bounds"] == (-1.0, 2.0)
    assert given["method"].func is tl.integrated_gradients
    assert given["method"].keywords == dict(baseline=2.0, steps=7)


def test_the_programs_conventions_are_those_that_are_known_of_it():
    _, given = rows.keywords(dict(method="adaptgrad"), IMAGENET_BOUNDS, "zhou")
    assert given["confidence"] == pytest.approx(0.9)
    assert given["bounds"] == pytest.approx((-2.117904, 2.64), abs=1e-6)
    row = dict(method="integrated_gradients")
    ends = [
        rows.keywords(row | dict(baseline=b), (-1.0, 2.0), "zhou")[1] for b in ("black", "white")
    ]
    assert [e["baseline"] for e in ends] == [1.0, 0.0]


@pytest.mark.parametrize(
    "row",
    [dict(method="gradcam"), dict(method="gradient", steps=3)],
)
def test_a_method_or_keyword_that_there_is_not_is_named(row):
    with pytest.raises(ValueError, match=r"^(no method 'gradcam'|gradient takes no steps)"):
        rows.keywords(row, (0.0, 1.0))


class Counting(nn.Module):
    """A network with bounds that counts the rows it sees."""

    bounds = (torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1))

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 3, 1, 1))
        sizes = []  # shared with copies of the network, as a function is not copied
        self.count = lambda rows=0: sizes.append(rows) or sum(sizes)
        self.eval()

    @property
    def seen(self):
        return self.count()

    def forward(self, x):
        self.count(len(x))
        return (x * self.weight).square().flatten(1).sum(1, keepdim=True)


def case(row, model=None, x=None, program="", settings=None, seed=1):
    x = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)) if x is None else x
    own = dict(seed=seed, common_seed=2, batch_size=8, program=program)
    return cases.Case(model or Counting(), x, 0, row, settings or {}, **own)


@pytest.mark.parametrize(
    "row",
    [
        dict(method="gradient"),
        dict(method="integrated_gradients", baseline="noise", baselines=3, steps=4),
        dict(method="smoothgrad", level=0.1, samples=5),
        dict(method="smooth_taylor", sigma=0.5, roots=7),
        dict(method="smoothgrad", inner="integrated_gradients", level=0.1, samples=5, steps=4),
        dict(method="noisegrad", inner="adaptgrad", weight_samples=3, samples=5),
    ],
)
def test_the_cost_of_a_row_is_the_number_of_gradients_that_it_takes(row):
    model = Counting()
    with tl.skip_model_check():
        assert case(row, model).attribution.shape == (1, 3, 4, 4)
    assert model.seen == gradients(row)


def test_the_cost_of_table_one_is_counted_row_by_row():
    table = passes(config.load_config("goh-table1"))
    assert table.loc["IG, noise, N = 20", "gradients"] == 1000
    assert table.loc["ST 0.7, R = 200", "forward passes"] == 30 * 50 + 1
    assert table.loc["ST, adaptive, AUTVC", "gradients"] == 150 * 41 + 150  # at most
    assert table.loc["a picture", "gradients"] == table["gradients"][:-1].sum()


def test_the_program_averages_the_map_at_the_picture_in_as_one_more():
    row = dict(method="smoothgrad", level=0.2, samples=4)
    plain, program = case(row).attribution, case(row, program="zhou").attribution
    clean = case(dict(method="gradient")).attribution
    assert torch.allclose(program, (4 * plain + clean) / 5, atol=1e-6)


def test_the_programs_integrated_gradients_weighs_both_ends():
    x = torch.ones(1, 3, 4, 4)

    class Cube(Counting):
        def forward(self, x):
            return (x**3).flatten(1).sum(1, keepdim=True)

    row = dict(method="integrated_gradients", baseline="white", steps=50)  # white is 0 there
    found = case(row, Cube(), x, program="zhou").attribution
    assert torch.allclose(found, torch.full_like(x, 1.01), atol=1e-5)  # 1 exactly, 1.0302 right


def test_a_search_starts_and_steps_in_the_papers_units_and_says_what_it_found():
    row = dict(method=rows.SEARCH, objective="autvc", search_roots=3, max_iterations=2)
    x = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    found = case(row, x=x)
    assert found.attribution.shape == x.shape
    unit = 1 / 4.757904
    steps = (found.extra["sigma"] * unit - float(x.mean())) / (0.1 * unit)
    assert abs(steps - round(steps)) < 0.35 and abs(steps) < 2.5  # a step may have shrunk to 0.9
    assert 3 <= found.extra["evaluations"] <= 5


def test_a_search_may_have_fewer_roots_than_the_map_that_it_finds_a_sigma_for():
    model = Counting()
    row = dict(method=rows.SEARCH, objective="autvc", roots=9, search_roots=2, max_iterations=1)
    one = case(row, model, torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0)))
    with tl.skip_model_check():
        assert one.attribution.shape == one.x.shape
    assert model.seen == 2 * one.extra["evaluations"] + 9 <= gradients(row)


def test_an_interrupt_inside_a_search_is_no_result():
    class Stops(Counting):
        def forward(self, x):
            if self.seen >= 6:
                raise KeyboardInterrupt
            return super().forward(x)

    row = dict(method=rows.SEARCH, objective="autvc", roots=3, max_iterations=4)
    x = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with pytest.raises(KeyboardInterrupt):
        case(row, Stops(), x).attribution  # noqa: B018


@pytest.mark.parametrize("label", ["IG, black", "IG, noise, N = 1", "ST 0.5, R = 150"])
def test_gohs_program_differs_in_the_measure_and_not_in_the_maps(label):
    row = config.load_config("goh-table1", effort="quick").rows[label]
    maps = [case(row, program=p).attribution for p in ("", "goh")]
    assert torch.equal(*maps)
    assert case(row, program="goh").order == "code" and case(row).order == "paper"


def test_seeds_follow_from_names_alone():
    seeds = [cases.seed_of(0, "a", "b"), cases.seed_of(0, "ab"), cases.seed_of(1, "a", "b")]
    assert len({*seeds, cases.seed_of(0, "a", "c")}) == 4
    assert cases.seed_of(0, "a", "b") == 2955315233511922901 and max(seeds) < 2**62


def test_pictures_and_rows_have_noise_of_their_own_and_a_pictures_rows_share_the_fills(small):
    made = config.load_config(small.table)
    options = dict(seed=0, batch_size=4, limit=None, spread=False)
    source = sources.Photographs(made, "any", small.folder, "cpu", options)
    found = [
        source.case(source.load(p), r)
        for p in list(source.digests)[:2]
        for r in list(made.rows)[:2]
    ]
    assert len({c.seed for c in found}) == 4
    assert [c.common_seed for c in found[:2]] == [found[0].common_seed] * 2
    assert found[2].common_seed != found[0].common_seed


# What is measured.


def test_measures_are_the_librarys_own_numbers():
    x = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    one = case(dict(method="gradient"), network(), x, settings=dict(perturbations=3))
    found = measures.compute_measures(one, ("aupc", "autvc", "autvc_program", "sparseness"))
    heat = tl.heatmap(tl.gradient(one.model, x, 0))
    own = dict(bounds=one.model.bounds, draws=3, seed=2, batch_size=8)
    assert found["aupc"] == pytest.approx(float(tl.metrics.aupc(one.model, x, 0, heat, **own)))
    for column, order in (("autvc", "paper"), ("autvc_program", "code")):
        wanted = float(tl.metrics.autvc(heat, order=order))
        assert found[column] == pytest.approx(wanted, rel=1e-5)
    assert found["sparseness"] == pytest.approx(float(tl.metrics.gini(heat)))
    assert found["perturbation 00"] == 1.0 and len([k for k in found if "perturbation" in k]) == 31


def test_noise_outside_the_range_is_counted_in_closed_form():
    x = torch.full((1, 3, 4, 4), 0.25)
    found = measures.outside(case(dict(method="smoothgrad", level=0.5), x=x))
    normal = torch.distributions.Normal(0.25, 0.5)
    p = float(normal.cdf(torch.tensor(0.0)) + 1 - normal.cdf(torch.tensor(1.0)))
    assert found["outside"] == pytest.approx(p, rel=1e-5)
    assert found["affected"] == pytest.approx(1 - (1 - p) ** 48)
    quiet = measures.outside(case(dict(method="adaptgrad"), x=x))
    assert quiet["outside"] == pytest.approx(0.0125, abs=1e-4)  # one bound is nearer


def test_digit_measures_are_one_for_the_same_network_and_its_twin():
    torch.manual_seed(0)
    net, twin = tl.mnist.dense().eval(), tl.mnist.dense().eval()
    twin.load_state_dict(net.state_dict())
    with torch.no_grad():
        twin[1].bias -= twin[1].weight.sum(1)
    nets = dict(network=net, shuffled=net, shifted=net, twin=twin)
    x = torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    for row in (dict(method="gradient"), dict(method="adaptgrad", samples=3)):
        one = cases.DigitCase(nets, x, 3, row, seed=0, batch_size=8)
        assert measures.consistency(one)["consistency"] == pytest.approx(1)
        found = measures.invariance(one)
        assert found["invariance_twin"] > 0.999 > found["invariance"]


def test_digit_maps_are_made_once_and_their_cost_is_counted():
    class Net(Counting):
        def forward(self, x):
            self.count(len(x))
            return x.square().flatten(1).sum(1, keepdim=True)

    nets = {name: Net() for name in ("network", "shuffled", "shifted", "twin")}
    x = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    one = cases.DigitCase(nets, x, 0, dict(method="gradient"), seed=0, batch_size=8)
    with tl.skip_model_check():
        measures.compute_measures(one, ("consistency", "consistency_abs", "invariance"))
    made = config.load_config("zhou-table1")
    assert sum(net.seen for net in nets.values()) == 4
    assert passes(made).loc["Grad", "gradients"] == 4


def test_one_measure_that_fails_leaves_the_others():
    x = torch.rand(
        1, 3, 64, 64, generator=torch.Generator().manual_seed(1)
    )  # 30 windows do not fit
    found = measures.compute_measures(case(dict(method="gradient"), x=x), ("aupc", "autvc"))
    assert "aupc" not in found and found["autvc"] > 0 and "windows of 15 x 15 fit" in found["note"]
    flat = case(dict(method="gradient"), x=torch.zeros(1, 3, 64, 64))
    assert measures.compute_measures(flat, ("sparseness",))["note"].startswith("attribution")


def test_a_measure_that_there_is_not_is_named():
    with pytest.raises(ValueError, match="measures: no 'beauty'"):
        measures.function_of("beauty")


# Which pictures.


def test_pictures_come_by_name_and_twins_are_named(tmp_path):
    for name in ("b.png", "a.jpg", "sub/c.PNG", ".hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (9, 9), (name[0].replace(".", "x") == "b" and "red") or "blue").save(
            tmp_path / name, format="png"
        )
    (tmp_path / "notes.txt").write_text("no picture")
    found = pictures.find(tmp_path, None)
    assert list(found.digests) == ["a.jpg", "b.png"]
    assert found.skipped == {"sub/c.PNG": "the same file as a.jpg"}
    assert list(pictures.find(tmp_path, 1).digests) == ["a.jpg"]


def test_spread_takes_pictures_at_even_distances():
    names = tl.list_images()
    found = [
        list(pictures.find("bundled", *given).digests) for given in ((3, True), (3,), (99, True))
    ]
    assert found == [[names[0], names[4], names[8]], names[:3], names]


def test_a_name_that_is_no_text_is_skipped_and_shown(tmp_path):
    for name in (b"bad\xff.png", b"two\nlines.png", b"good.png"):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            Image.new("RGB", (9, 9), "red").save(file, format="png")
    found = pictures.find(tmp_path, None)
    assert list(found.digests) == ["good.png"]
    assert set(found.skipped) == {r"bad\udcff.png", r"two\nlines.png"}


def test_a_folder_that_is_not_there_or_empty_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="--images: no folder"):
        pictures.find(tmp_path / "none", None)
    with pytest.raises(ValueError, match="holds no picture"):
        pictures.find(tmp_path, None)


# What is kept.


def open_part(folder, columns=("value",), run="a", worker=0):
    return store.WorkerFile(folder, worker, columns, run)


def stored(folder, **pictures):
    """What a run has of these pictures (name -> hash) in its files."""
    with closing(open_part(folder)) as part:
        return part.read_lines(pictures)


def test_a_line_that_was_cut_short_is_dropped_and_the_rest_is_kept(tmp_path):
    with closing(open_part(tmp_path)) as part:
        part.add(dict(picture="a", row="r", sha256="1", value=0.1))
    whole = part.path.read_bytes()
    for torn in (b"b,r,0.", b'c,"r', b"d"):
        part.path.write_bytes(whole + torn)
        assert stored(tmp_path, a="1")["a", "r"]["value"] == "0.1"
        assert part.path.read_bytes() == whole


def test_a_header_that_was_cut_short_is_written_again(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/worker-0.csv").write_bytes(b"picture,ro")
    open_part(tmp_path).close()
    header = (tmp_path / "parts/worker-0.csv").read_text()
    assert header == "picture,row,sha256,target,score,value,note,seconds,checksum a\n"


def test_two_runs_do_not_write_into_one_file(tmp_path):
    pytest.importorskip("fcntl")
    with closing(open_part(tmp_path)), pytest.raises(BlockingIOError, match="another process"):
        open_part(tmp_path)


def test_numbers_come_back_bit_for_bit(tmp_path):
    values = [0.1, 1e-300, math.pi, 1 / 3, -0.0, float("nan")]
    text = store.csv_text(["v", "w"], [{"v": v, "w": 1} for v in values])
    back = [float(line.partition(",")[0] or "nan") for line in text.splitlines()[1:]]
    assert np.array(back[:5]).tobytes() == np.array(values[:5]).tobytes() and math.isnan(back[5])


def test_a_line_break_inside_a_note_does_not_break_the_line(tmp_path):
    with closing(open_part(tmp_path)) as part:
        part.add(dict(picture="a", row="r", sha256="1", note='first\nsecond, "third"'))
    assert stored(tmp_path, a="1")["a", "r"]["note"] == 'first second, "third"'


# A run.


def test_a_run_writes_every_picture_and_row_once_in_order(small):
    folder = small()
    table = pandas.read_csv(folder / "results.csv")
    assert list(table.picture) == [f"{k}.png" for k in range(4) for _ in range(3)]
    assert list(table.row[:3]) == ["gradient", "IG, black", "SmoothTaylor"]
    assert table[["aupc", "autvc", "sparseness"]].notna().all(axis=None)
    record = json.loads((folder / "run.json").read_text())
    assert record["seed"] == 0 and record["device"] == "cpu" and record["versions"]["torch"]
    assert {"commit", "machine", "rows", "settings", "images"} <= set(record)


def test_a_run_names_the_kind_of_device_that_made_it(small, device):
    record = json.loads((small("d", device=device, limit=1) / "run.json").read_text())
    assert record["device"] == device and record["batch_size"] == (4 if device == "cpu" else 50)


@pytest.mark.parametrize("after", [0, 1, 4, 11])
def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(small, whole, monkeypatch, after):
    asked, calls = measures.compute_measures, []

    def counting(case, wanted):
        calls.append((case.seed, case.row["method"]))
        if len(calls) == after + 1:
            raise KeyboardInterrupt
        return asked(case, wanted)

    monkeypatch.setattr(runner, "compute_measures", counting)
    with pytest.raises(KeyboardInterrupt):
        small("cut")
    part = small.tmp / "cut/small-efficientnet_lite0/parts/worker-0.csv"
    assert part.read_bytes().count(b"\n") == 1 + after
    assert read(small("cut")) == whole
    assert len(calls) == 12 + 1  # nothing is measured twice


def test_workers_share_the_pictures_and_the_result_is_one_workers(small, whole, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for worker in ("1", "0"):
        monkeypatch.setenv("RANK", worker)
        folder = small("two")
        assert runner.finished(folder) == (worker == "0")
    assert read(folder) == whole
    assert len(list((folder / "parts").iterdir())) == 2


def test_a_lost_workers_pictures_are_done_by_a_restart_with_another_number_of_workers(
    small, whole, monkeypatch
):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "1")
    assert not runner.finished(small("lost"))
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    assert read(small("lost")) == whole


def test_more_pictures_are_added_to_what_is_there(small, whole):
    folder = small("grown", limit=2)
    first = (folder / "parts/worker-0.csv").read_bytes()
    assert read(small("grown")) == whole
    assert (folder / "parts/worker-0.csv").read_bytes().startswith(first)
    assert json.loads((folder / "run.json").read_text())["limit"] is None


def test_the_size_of_a_pass_changes_rounding_and_nothing_else(small):
    one, other = (
        pandas.read_csv(small(out, batch_size=size) / "results.csv")
        for out, size in (("a", 1), ("b", 7))
    )
    numbers = ["aupc", "autvc", "sparseness"]
    assert np.allclose(one[numbers], other[numbers], rtol=1e-4)


def test_a_mistake_in_the_command_leaves_no_trace(small):
    (small.tmp / "empty").mkdir()
    for wrong in (
        dict(images=small.tmp / "none"),
        dict(device="tpu"),
        dict(images=small.tmp / "empty"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=r"--images|--device"):
            small("a", **wrong)
        assert not (small.tmp / "a").exists()
    small("a")


def test_a_row_that_cannot_be_computed_stops_before_anything_is_measured(small):
    for wrong in ('objective = "atuvc"', "roots = 3, foo = 1", 'objective = "aupc", sigma = 1'):
        row = f'{{ name = "x", method = "{rows.SEARCH}", {wrong} }},'
        small.table.write_text(SMALL.replace("rows = [", f"rows = [{row}"))
        with pytest.raises(ValueError, match="row 'x': adaptive_smooth_taylor takes"):
            small("a")
    small.table.write_text(SMALL.replace("perturbations = 3", "pertubations = 3"))
    with pytest.raises(ValueError, match="pertubations is not known"):
        small("a")
    assert not (small.tmp / "a").exists()


def test_a_worker_number_out_of_range_is_named(small, monkeypatch):
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"RANK: expected .* WORLD_SIZE - 1, got '2' of '2'"):
        small("a")


def test_an_old_table_is_gone_while_more_pictures_are_measured(small, monkeypatch):
    small("grown", limit=2)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")  # whose picture is there already
    folder = small("grown")
    assert not runner.finished(folder)


def test_pictures_that_cannot_be_read_at_all_are_said_so(small, capsys):
    for path in small.folder.glob("*.png"):
        path.write_bytes(b"no picture " + path.name.encode())
    given = [str(small.table), "--images", str(small.folder), "--out", str(small.tmp / "c")]
    assert main([*given, "--device", "cpu"]) == 0
    assert "no picture could be read" in capsys.readouterr().out


def test_what_a_run_was_earlier_is_not_forgotten(small, monkeypatch):
    small("a", limit=2)
    monkeypatch.setattr(runner, "_commit", lambda: "another")
    record = json.loads((small("a") / "run.json").read_text())
    assert record["commit"] == "another" and record["earlier"][0]["limit"] == 2
    assert record["earlier"][0]["commit"] != "another"


def test_another_seed_is_another_run_and_is_refused_in_the_same_folder(small):
    first = read(small("a"))
    with pytest.raises(ValueError, match=r"another seed: 0, now 1\. .*another --out"):
        small("a", seed=1)
    assert read(small("a")) == first != read(small("b", seed=1))


def test_bad_pictures_are_named_and_left_out_and_tried_again(small, whole):
    good = (small.folder / "1.png").read_bytes()
    (small.folder / "1.png").write_bytes(good[:200])
    (small.folder / "9.png").write_bytes((small.folder / "0.png").read_bytes())
    folder = small("some")
    skipped = (folder / "skipped.csv").read_text()
    assert "1.png" in skipped and "9.png,the same file as 0.png" in skipped
    assert b"1.png" not in read(folder) and read(folder).count(b"\n") == 1 + 3 * 3
    (small.folder / "1.png").write_bytes(good)
    assert read(small("some")) == whole
    assert "1.png" not in (folder / "skipped.csv").read_text()


def test_a_picture_that_goes_away_is_named(small, monkeypatch):
    opened = pictures.open_picture

    def gone(images, name):
        (small.folder / "2.png").unlink(missing_ok=True)
        return opened(images, name)

    monkeypatch.setattr(sources, "open_picture", gone)
    folder = small("gone")
    assert "2.png" in (folder / "skipped.csv").read_text()
    assert read(folder).count(b"\n") == 1 + 3 * 3


def test_a_measure_that_says_nothing_leaves_its_cell_empty_with_a_note(small, monkeypatch):
    asked = measures.perturbation

    def fails(case):
        if case.row["method"] == "gradient":
            raise ValueError("model: no score\nto divide by")
        return asked(case)

    monkeypatch.setitem(measures.FUNCTIONS, "aupc", fails)
    table = tables.read(small("notes"))
    empty = table[table.row == "gradient"]
    assert (
        empty.aupc.isna().all()
        and empty.autvc.notna().all()
        and (empty.note == "model: no score to divide by").all()
    )
    assert "-" in tables.text(table, config.load_config(small.table)).splitlines()[1]


def test_a_full_disk_stops_the_run_and_what_is_done_is_kept(small, whole):
    resource = pytest.importorskip("resource", reason="Windows cannot limit a file's size")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (small("first", limit=1) / "run.json").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, hard))
    try:
        with pytest.raises(OSError, match=r"large|space"):
            for k in range(100):  # run.json fits, so the lines of the pictures must not
                small("full", limit=None if k == 0 else 4)
                (small.tmp / "filler").write_bytes(b"x" * (size + 200))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read(small("full")) == whole


# The command.


def test_the_command_prints_the_table_beside_what_the_paper_prints(small, capsys):
    given = [str(small.table), "--images", str(small.folder), "--out", str(small.tmp / "c")]
    assert main([*given, "--quick", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "4 pictures" in out and "quick: large counts cut down" in out and "12.5" in out
    assert "- IG is sparser: " in out
    assert (small.tmp / "c/small-efficientnet_lite0-quick/table.txt").exists()


def test_the_command_lists_the_tables_says_costs_and_names_mistakes(small, capsys):
    assert main([]) == 0
    assert all(name in capsys.readouterr().out for name in ["goh-table1"])
    assert main(["goh-table1", "--cost"]) == 0
    assert "a picture" in capsys.readouterr().out
    assert main(["goh-table1", "--images", str(small.tmp / "none"), "--out", str(small.tmp)]) == 1
    assert "--images: no folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["goh-table1", "--limit", "0"])


def test_an_interrupt_of_the_command_says_that_all_is_kept(small, monkeypatch, capsys):
    monkeypatch.setattr(
        "tutorial_lib.reproduce.__main__.run",
        lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt),
    )
    assert main([str(small.table)]) == 130
    assert "what is done is kept" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["maps", "curves"])
def test_figures_are_drawn_from_what_was_kept(small, monkeypatch, kind):
    own = SMALL.replace('title = "Three maps"', f'title = "Three maps"\nkind = "{kind}"')
    small.table.write_text(own.replace('"sparseness"]', '"autvc_program", "sparseness"]'))
    monkeypatch.setattr(cases, "WINDOWS", 30)  # a stored curve has a column for each
    given = [str(small.table), "--images", str(small.folder), "--limit", "2", "--device", "cpu"]
    assert main([*given, "--out", str(small.tmp / kind)]) == 0
    folder = small.tmp / kind / "small-efficientnet_lite0"
    curves = {"aupc.png", "autvc.png", "autvc_program.png"}
    wanted = {"maps": {"small.png"}, "curves": curves}[kind]
    assert len(list(folder.glob("maps/*"))) == (2 * 4 if kind == "maps" else 0)
    assert {p.name for p in folder.glob("*.png")} == wanted
    for path in folder.glob("*.png"):
        assert np.asarray(Image.open(path)).std() > 10


def test_a_map_that_was_lost_is_made_again_and_one_that_fails_leaves_a_gap(small, monkeypatch):
    small.table.write_text(SMALL.replace('source = "nobody"', 'source = "nobody"\nkind = "maps"'))
    folder = small("maps", limit=1)
    lost = runner.map_path(folder, "0.png", "gradient")
    before = lost.read_bytes()
    lost.unlink()
    small("maps", limit=1)
    assert lost.read_bytes() == before

    def fails(model, x, target, **keywords):
        raise ValueError("no rule for this network")

    monkeypatch.setattr(cases, "attribution_function", lambda *given: fails)
    table = tables.read(small("broken", limit=1))
    assert (table.note == "no rule for this network").all()
    figure = drawings.maps(small.tmp / "broken/small-efficientnet_lite0", table, made(small))
    assert sum(bool(ax.images) for ax in figure.axes) == 1  # the picture


def made(small):
    return config.load_config(small.table)


def test_names_that_look_alike_have_maps_of_their_own(tmp_path):
    names = [("a b.png", "r"), ("a/b.png", "r"), ("a/b.png", None), ("x" * 300, "r")]
    paths = {runner.map_path(tmp_path, *name) for name in names}
    assert len(paths) == 4 and all(len(p.name) < 100 for p in paths)
