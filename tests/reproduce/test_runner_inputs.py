"""Pictures, files and names that a run did not expect: it never mixes two runs, and never hangs."""

import io
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tracemalloc

import numpy as np
import pandas
import pytest
from PIL import Image
from torch import nn

from tests.reproduce.conftest import network
from tutorial_lib import pictures as photographs
from tutorial_lib.reproduce import pictures, runner, sources, tables
from tutorial_lib.reproduce.__main__ import main

pytestmark = pytest.mark.slow  # each test is quick, a hundred and fifty of them are not

TABLE = """
title = "Two maps"
source = "nobody"
measures = ["sparseness"]
rows = [
  { name = "gradient", method = "gradient" },
  { name = "SG", method = "smoothgrad", level = 0.1, samples = 2 },
]
"""
FOLDER = "small-efficientnet_lite0"


@pytest.fixture
def quick(small):
    """`small`, with a table of two rows."""
    small.table.write_text(TABLE)
    return small


@pytest.fixture
def alarm():
    """Ends a test that hangs."""

    def ring(number, frame):
        raise AssertionError("this takes for ever")

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(60)
    yield
    signal.alarm(0)


def picture(path, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format="png")


def read(folder):
    return (folder / "results.csv").read_bytes()


def skipped(folder):
    return dict(pandas.read_csv(folder / "skipped.csv").itertuples(index=False))


def part(start, out="a", worker=0):
    return start.tmp / out / FOLDER / f"parts/worker-{worker}.csv"


# Pictures that change.


@pytest.mark.filterwarnings("ignore:.*replaced since")
def test_a_picture_that_was_replaced_under_its_name_is_measured_again(quick):
    first = read(quick("a"))
    picture(quick.folder / "1.png", 8)
    found = read(quick("a"))
    assert found == read(quick("fresh")) != first
    assert found.count(b"\n") == 1 + 4 * 2 == part(quick).read_bytes().count(b"\n") - 2


def test_a_run_says_that_a_picture_was_replaced(quick):
    quick("a")
    picture(quick.folder / "1.png", 8)
    with pytest.warns(UserWarning, match=r"worker-0.csv: lines that do not count.*: 2 .*replaced"):
        quick("a")


@pytest.mark.filterwarnings("ignore:.*replaced since")
def test_a_picture_that_was_replaced_by_what_is_none_is_left_out_by_name(quick):
    quick("a")
    (quick.folder / "1.png").write_bytes(b"no picture")
    folder = quick("a")
    assert list(skipped(folder)) == ["1.png"] and b"1.png" not in read(folder)


@pytest.mark.filterwarnings("ignore:.*replaced since")
def test_pictures_of_the_same_names_in_another_folder_are_other_pictures(quick, monkeypatch):
    for place, seed in (("A", 0), ("B", 1)):
        (quick.tmp / place / "pics").mkdir(parents=True)
        picture(quick.tmp / place / "pics/x.png", seed)
    found = {}
    for place, out in (("A", "a"), ("B", "a"), ("B", "fresh"), ("A", "a")):
        monkeypatch.chdir(quick.tmp / place)
        found[place, out] = read(quick(out, images="pics"))
    assert found["B", "a"] == found["B", "fresh"] != found["A", "a"]


def test_a_folder_that_was_moved_has_the_same_pictures(quick):
    first = read(quick("a"))
    lines = part(quick).read_bytes()
    quick.folder.rename(quick.tmp / "moved")
    assert read(quick("a", images=quick.tmp / "moved")) == first
    assert part(quick).read_bytes() == lines


@pytest.mark.filterwarnings("ignore:.*replaced since")
def test_a_picture_that_is_replaced_during_a_run_is_measured_by_the_next(quick, monkeypatch):
    opened = sources.open_picture

    def replaced(images, name):
        if name == "2.png":
            picture(quick.folder / name, 9)
        return opened(images, name)

    with monkeypatch.context() as patched:
        patched.setattr(sources, "open_picture", replaced)
        folder = quick("a")
    assert skipped(folder) == {"2.png": "the file was replaced during the run; start the run again"}
    assert read(quick("a")) == read(quick("fresh")) and skipped(folder) == {}


def test_the_hash_of_a_picture_stands_with_its_results(quick):
    table = tables.read(quick("a"))
    digests = pictures.find(quick.folder, None).digests
    assert dict(zip(table.picture, table.sha256, strict=True)) == digests
    assert len(set(digests.values())) == 4
    found = subprocess.run(["sha256sum", quick.folder / "1.png"], capture_output=True, text=True)
    assert found.stdout.startswith(digests["1.png"])


def test_photographs_of_the_package_have_hashes_too(monkeypatch, tmp_path):
    first = pictures.find("bundled", 2).digests
    monkeypatch.setattr(photographs, "_bundled_path", lambda file: tmp_path / "x.png")
    picture(tmp_path / "x.png", 3)
    second = pictures.find("bundled", 2).digests
    assert list(first) == list(second) and not set(first.values()) & set(second.values())


# run.json, and which run it is.


def test_two_runs_are_not_mixed_where_run_json_was_lost(quick):
    first = quick("a", limit=3)
    (first / "run.json").unlink()
    before = part(quick).read_bytes()
    for wrong in (dict(limit=4, seed=5), dict(limit=3)):
        with pytest.raises(
            ValueError, match=r"run.json is lost.*put it back, or give another --out"
        ):
            quick("a", **wrong)
    assert part(quick).read_bytes() == before and not (first / "run.json").exists()


@pytest.mark.parametrize("content", ["[]", "5", '{"earlier": 5}', "[" * 100_000, "{", "\0" * 9])
def test_a_damaged_run_json_is_named_and_not_to_be_deleted(quick, content):
    record = quick("a", limit=1) / "run.json"
    record.write_text(content)
    with pytest.raises(ValueError, match=r"run.json is damaged .*put it back, or give another"):
        quick("a", limit=1)
    assert record.read_text() == content


def test_an_edited_run_json_does_not_make_another_run_of_the_lines(quick):
    record = quick("a", limit=1) / "run.json"
    record.write_text(record.read_text().replace('"seed": 0', '"seed": 5'))
    with pytest.raises(ValueError, match="its first line is not this run's"):
        quick("a", limit=1, seed=5)


def test_another_network_of_the_same_name_is_another_run(quick, monkeypatch):
    quick("a", limit=1)
    other = network()
    other.network[0].weight.data += 0.1
    monkeypatch.setattr(sources, "load_model", lambda name, device: other)
    with pytest.raises(ValueError, match="holds a run with another network"):
        quick("a", limit=1)


# Lines that are torn, edited or foreign.

LINES = {
    "cut short": lambda line: line[:30] + b"\n",
    "with a field too many": lambda line: line.replace(b",", b",0.5,", 1),
    "with a digit changed": lambda line: re.sub(rb"(0\.\d)\d", rb"\g<1>7", line, count=1),
    "with a lone quote": lambda line: b'"' + line,
    "with a lone quote inside": lambda line: line.replace(b",SG", b',"SG'),
    "of zeros": lambda line: b"\0" * (len(line) - 1) + b"\n",
    "with bytes that are no text": lambda line: b"\xff" + line,
    "with a lone CR": lambda line: line.replace(b",", b"\r,", 1),
    "of one long field": lambda line: b"1.png," + b"x" * 200_000 + b"\n",
    "of another row": lambda line: line.replace(b",SG,", b",gradient,"),
    "that is empty": lambda line: b"\n",
}


@pytest.mark.parametrize("kind", LINES)
def test_a_line_that_is_not_whole_is_measured_again_and_the_others_are_kept(quick, kind):
    whole = read(quick("a", limit=2))
    lines = part(quick).read_bytes().splitlines(keepends=True)
    changed = LINES[kind](lines[2])
    assert changed != lines[2]
    damaged = b"".join([*lines[:2], changed, *lines[3:]])
    part(quick).write_bytes(damaged)
    with pytest.warns(UserWarning, match=r"lines that do not count.*: 1 \(torn, edited"):
        assert read(quick("a", limit=2)) == whole
    after = part(quick).read_bytes()
    assert after.startswith(damaged) and after[len(damaged) :].count(b"\n") == 1
    with pytest.warns(UserWarning, match="measured again: 1"):  # and once only
        quick("a", limit=2)
    assert part(quick).read_bytes() == after


@pytest.mark.filterwarnings("ignore:.*lines that do not count")
def test_lines_of_another_run_do_not_count(quick):
    whole = read(quick("a"))
    quick("b", seed=1)
    mine, theirs = (part(quick, out).read_bytes().splitlines(keepends=True) for out in "ab")
    part(quick).write_bytes(b"".join(mine[:3] + theirs[3:] + mine[:1] + mine[1:2] * 2))
    assert read(quick("a")) == whole


@pytest.mark.parametrize("first", ["", "picture,row,other,note,seconds\n", "row\n"])
def test_a_file_of_another_run_among_the_workers_files_is_named(quick, first):
    quick("a")
    quick("b", seed=1)
    theirs = part(quick, "b").read_text()
    content = theirs if not first else first + theirs.partition("\n")[2]
    part(quick, worker=9).write_text(content)
    with pytest.raises(ValueError, match=r"worker-9.csv: its first line is not this run's"):
        quick("a")
    assert part(quick, worker=9).read_text() == content


def test_files_of_the_version_without_checksums_are_kept_and_said_to_be_so(quick):
    quick("a", limit=1)
    old = b"picture,row,target,score,sparseness,note,seconds\n0.png,gradient,3,0.5,0.4,,0.10\n"
    part(quick).write_bytes(old)
    with pytest.raises(ValueError, match=r"an earlier version \(whose lines have no checksums\)"):
        quick("a", limit=1)
    record = part(quick).parents[1] / "run.json"
    record.write_text(re.sub(r' "network": .*\n', "", record.read_text()))
    with pytest.raises(ValueError, match="another network: none, as in earlier versions"):
        quick("a", limit=1)
    assert part(quick).read_bytes() == old


@pytest.mark.parametrize(
    "saved",
    [
        lambda content: content.replace(b"\n", b"\r"),
        lambda content: content.replace(b"\n", b"\r\n"),
        lambda content: b"\xef\xbb\xbf" + content,
        lambda content: content.replace(b",", b";"),
    ],
    ids=["CR only", "CRLF", "BOM", "semicolons"],
)
def test_a_file_that_another_program_saved_is_refused_and_left_as_it_is(quick, saved):
    quick("a", limit=2)
    content = saved(part(quick).read_bytes())
    part(quick).write_bytes(content)
    with pytest.raises(
        ValueError, match=r"worker-0.csv: its first line .*saved by another program"
    ):
        quick("a", limit=2)
    assert part(quick).read_bytes() == content


def test_a_worker_that_has_just_begun_to_write_disturbs_nobody(quick):
    whole = read(quick("a"))
    header = part(quick).read_bytes().splitlines(keepends=True)[0]
    for begun in (b"", header[:9], header, header + b"0.png,gradi"):
        part(quick, worker=1).write_bytes(begun)
        assert read(quick("a")) == whole and part(quick, worker=1).read_bytes() == begun


# Files that are no pictures, or have no end.


def test_what_is_no_file_or_too_large_is_named_and_the_rest_is_measured(quick, alarm):
    os.mkfifo(quick.folder / "5.jpg")
    (quick.folder / "6.jpg").symlink_to("/dev/zero")
    (quick.folder / "7.jpg").mkdir()
    with (quick.folder / "8.tif").open("wb") as file:
        file.truncate(7 * 2**30)  # a hole, which takes no room
    (quick.folder / "9.jpg").symlink_to("nowhere")
    folder = quick("a")
    reasons = skipped(folder)
    assert list(reasons) == ["5.jpg", "6.jpg", "7.jpg", "8.tif", "9.jpg"]
    assert all("is not a file" in reasons[f"{k}.jpg"] for k in (5, 6, 7))
    assert "too large: 7516192768 bytes" in reasons["8.tif"] and "no file" in reasons["9.jpg"]
    assert read(folder).count(b"\n") == 1 + 4 * 2


def test_a_large_file_is_hashed_in_blocks(tmp_path):
    with (tmp_path / "x.tif").open("wb") as file:
        file.truncate(2**27)
    tracemalloc.start()
    pictures.file_digest(tmp_path, "x.tif")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**23


# Names.


def test_hidden_folders_hold_no_pictures_and_no_folder_is_named(quick):
    (quick.folder / ".cache/deep").mkdir(parents=True)
    picture(quick.folder / ".cache/deep/a.png", 7)
    assert list(pictures.find(quick.folder, None).digests) == [f"{k}.png" for k in range(4)]
    with pytest.raises(FileNotFoundError, match="--images: no folder ''"):
        quick("a", images="")


def test_every_name_that_is_text_is_measured(tmp_path):
    names = [
        "Shot 1.23.45\u202fPM.png",
        "a\u00a0b.png",
        "\U0001f469\u200d\U0001f52c.png",
        "a,'b.png",
    ]
    for k, name in enumerate(names):
        picture(tmp_path / name, k)
    for k, name in enumerate((b"\x1b[31m.png", b"a\rb.png", b"\xe2\x80\xa8.png", b"\xff.png")):
        picture(os.fsdecode(os.path.join(os.fsencode(tmp_path), name)), 10 + k)
    found = pictures.find(tmp_path, None)
    assert set(found.digests) == set(names)
    assert set(found.skipped) == {r"\x1b[31m.png", r"a\rb.png", r"\u2028.png", r"\udcff.png"}


def test_no_name_begins_like_a_formula_of_a_spreadsheet(quick, capsys):
    quick.table.write_text(TABLE.replace("title", 'kind = "maps"\ntitle'))
    for k, sign in enumerate("=+-@"):
        picture(quick.folder / f"{sign}cmd{k}.png", 20 + k)
    (quick.folder / "=bad.png").write_bytes(b"no picture")
    given = [str(quick.table), "--images", str(quick.folder), "--device", "cpu"]
    assert main([*given, "--out", str(quick.tmp / "c")]) == 0
    folder = quick.tmp / "c" / FOLDER
    cells = [
        c
        for name in ("results", "skipped")
        for line in (folder / f"{name}.csv").open()
        for c in line.split(",")
    ]
    assert [c for c in cells if c[:1] in "=+-@" and not re.match(r"-?[\d.]", c)] == []
    assert {"./=cmd0.png", "./+cmd1.png", "./-cmd2.png", "./@cmd3.png"} <= set(cells)
    assert list(skipped(folder)) == ["./=bad.png"]
    assert all(
        runner.map_path(folder, c).exists() for c in cells if c.startswith("./") and "bad" not in c
    )


@pytest.mark.parametrize("name", [r"a\nb", r"a\rb", "=1+1", "+x", "-x", "@x", r"\u001b[31m", "*"])
def test_a_row_that_cannot_be_written_down_is_named_before_anything_is_measured(quick, name):
    quick.table.write_text(TABLE.replace('"SG"', f'"{name}"'))
    with pytest.raises(ValueError, match=r"a row needs a name|row: a spreadsheet computes"):
        quick("a")
    assert not (quick.tmp / "a").exists()


@pytest.mark.parametrize("name", ["* a", "'\"'", "'a \"b\", c'", "'x,'"])
def test_a_row_may_have_any_other_name(quick, name):
    quick.table.write_text(TABLE.replace('"SG"', name if name[0] == "'" else f'"{name}"'))
    (quick.folder / "1.png").write_bytes(b"no picture")
    folder = quick("a")
    before = part(quick).read_bytes()
    assert list(skipped(folder)) == ["1.png"]
    table = tables.read(quick("a"))
    assert set(table.row) == {"gradient", name.strip("'")} and table.sparseness.notna().all()
    assert len(table) == 3 * 2 and set(table.picture) == {"0.png", "2.png", "3.png"}
    assert part(quick).read_bytes().startswith(before)
    assert part(quick).read_bytes().count(b"\n") == before.count(b"\n") + 1  # the bad one again


# Methods and maps.


class Cumulative(nn.Module):
    """A sum that LRP has no rule for."""

    def forward(self, x):
        return x.cumsum(1)


def test_a_method_without_a_rule_is_named_in_the_table_and_the_rest_goes_on(
    quick, monkeypatch, capsys
):
    net = network()
    net.network.append(Cumulative().eval())
    monkeypatch.setattr(sources, "load_model", lambda name, device: net)
    row = '{ name = "LRP", method = "lrp" },'
    quick.table.write_text(TABLE.replace("rows = [", f"rows = [{row}"))
    given = [str(quick.table), "--images", str(quick.folder), "--device", "cpu"]
    assert main([*given, "--out", str(quick.tmp / "a")]) == 0
    table = tables.read(quick.tmp / "a" / FOLDER)
    without = table[table.row == "LRP"]
    assert without.note.str.contains("cumsum").all() and len(without) == 4
    assert without.sparseness.isna().all() and table[table.row != "LRP"].sparseness.notna().all()
    out = capsys.readouterr().out
    assert "4 of 12 lines lack a number" in out and "cumsum" in out
    lines = part(quick).read_bytes()
    quick("a")
    assert part(quick).read_bytes() == lines  # an answer, too: it is not asked again


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", None, "another"])
@pytest.mark.parametrize("row", [None, "gradient"])
def test_a_map_that_was_lost_or_damaged_is_made_again(quick, content, row):
    quick.table.write_text(TABLE.replace("title", 'kind = "maps"\ntitle'))
    folder = quick("a", limit=2)
    whole, path = read(folder), runner.map_path(folder, "0.png", row)
    before = path.read_bytes()
    if content is None:
        path.unlink()
    elif content == "another":
        shutil.copy(runner.map_path(folder, "1.png", row), path)
    else:
        path.write_bytes(content)
    assert read(quick("a", limit=2)) == whole and path.read_bytes() == before


@pytest.mark.filterwarnings("ignore:.*replaced since")
def test_a_map_that_cannot_be_made_leaves_none_of_an_earlier_picture(quick, monkeypatch):
    quick.table.write_text(TABLE.replace("title", 'kind = "maps"\ntitle'))
    path = runner.map_path(quick("a", limit=1), "0.png", "gradient")
    assert path.exists()
    picture(quick.folder / "0.png", 8)

    def fails(model, x, target, **keywords):
        raise NotImplementedError("no rule")

    monkeypatch.setattr("tutorial_lib.reproduce.cases.attribution_function", lambda *given: fails)
    assert (tables.read(quick("a", limit=1)).note == "no rule").all() and not path.exists()


# Options.


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (dict(device="meta"), "--device: 'meta' cannot be used"),
        (dict(threads=100_000), "threads: expected an int from 1 to 256, got 100000"),
        (dict(threads=0), "threads: "),
        (dict(batch_size=10**19), "batch_size: "),
        (dict(limit=0), "limit: "),
        (dict(seed=10**30), "seed: "),
        (dict(seed=-1), "seed: "),
    ],
)
def test_options_that_cannot_be_are_named(quick, given, problem):
    with pytest.raises(ValueError, match=problem):
        quick("a", **given)
    assert not (quick.tmp / "a").exists()


@pytest.mark.parametrize(
    ("rank", "size"), [("x", "2"), ("", "2"), ("0", ""), ("-1", "2"), ("0", "0")]
)
def test_a_worker_number_that_is_none_is_named(quick, monkeypatch, rank, size):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(ValueError, match=f"RANK: expected .*got {rank!r} of {size!r}"):
        quick("a")


def test_a_terminal_that_knows_ascii_alone_gets_its_table(quick, monkeypatch):
    table = TABLE.replace("Two maps", "Größe").replace("SG", "Σ").replace("nobody", "–")
    quick.table.write_text(table, "utf-8")
    command = ["reproduce", str(quick.table), "--images", str(quick.folder), "--limit", "1"]
    monkeypatch.setattr(sys, "argv", [*command, "--device", "cpu", "--out", str(quick.tmp)])
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(signal, "signal", lambda *given: None)  # it would stay for other tests
    monkeypatch.delitem(sys.modules, "tutorial_lib.reproduce.__main__")  # it is run afresh
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("tutorial_lib.reproduce", run_name="__main__")
    terminal.flush()
    said = terminal.buffer.getvalue().decode("ascii")
    assert ended.value.code == 0 and r"Gr\xf6\xdfe" in said and "table.txt" in said
