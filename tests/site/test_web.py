"""Without the npm registry the build says so and goes on; an earlier copy is kept."""

import importlib.util
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.built import ROOT

pytestmark = pytest.mark.slow


def load(path: str):
    spec = importlib.util.spec_from_file_location("loaded", ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def unreachable(monkeypatch):
    fetch = load("web/fetch.py")

    def fail(work):
        raise subprocess.CalledProcessError(1, "npm", stderr="npm error\nFetchError: no route\n")

    monkeypatch.setattr(fetch, "install", fail)
    return fetch


def test_a_failed_fetch_says_why_and_names_the_consequence(unreachable, tmp_path, capsys):
    folder = tmp_path / "static/vendor"
    unreachable.main(folder)
    said = capsys.readouterr().out
    assert "FetchError: no route" in said and "CDN" in said and "need the internet" in said
    assert "engine is missing" in " ".join(said.split())
    assert not folder.exists() and folder.parent.is_dir()


def test_a_fetch_that_hangs_is_a_failed_fetch(tmp_path, monkeypatch, capsys):
    fetch = load("web/fetch.py")
    program = "import sys, time; print('npm error slow', file=sys.stderr, flush=True); "
    command = [sys.executable, "-c", program + "time.sleep(60)"]

    def hang(work):
        subprocess.run(command, check=True, timeout=1, capture_output=True, text=True)

    monkeypatch.setattr(fetch, "install", hang)
    fetch.main(tmp_path / "static/vendor")
    assert "npm error slow" in capsys.readouterr().out


def test_files_arrive_together_or_not_at_all(tmp_path):
    fetch, modules, folder = load("web/fetch.py"), tmp_path / "modules", tmp_path / "vendor"
    *names, last = fetch.FILES
    for name in names:
        (modules / name).mkdir(parents=True)
        (modules / name / "a.js").touch()
    with pytest.raises(FileNotFoundError, match=f"npm brought no {last}"):
        fetch.copy(modules, folder)
    assert not folder.exists()
    (modules / last).touch()
    fetch.copy(modules, folder)
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*")} >= {*fetch.FILES.values()}


def test_a_failed_fetch_keeps_the_copy_that_works(unreachable, tmp_path, capsys):
    folder = tmp_path / "static/vendor"
    folder.mkdir(parents=True)
    (folder / "tex.js").write_text("kept")
    unreachable.main(folder)
    assert "earlier copy is used" in capsys.readouterr().out
    assert (folder / "tex.js").read_text() == "kept"


def test_the_versions_are_fixed_and_the_lock_file_names_no_host():
    package, lock = (
        json.loads((ROOT / "web" / name).read_text("utf-8"))
        for name in ("package.json", "package-lock.json")
    )
    wanted = package["devDependencies"]
    assert {name.partition("/")[0] for name in load("web/fetch.py").FILES} == wanted.keys()
    locked = {name: lock["packages"][f"node_modules/{name}"]["version"] for name in wanted}
    assert locked == wanted and lock["packages"][""]["devDependencies"] == wanted
    assert "resolved" not in json.dumps(lock) and "http" not in json.dumps(lock)


@pytest.mark.parametrize("node", ["node.exe", "bin/node"])  # of Windows, of Linux and macOS
def test_node_is_found_in_the_wheels_of_all_systems(tmp_path, node):
    npm = tmp_path / "lib/node_modules/npm/bin/npm-cli.js"
    for file in (tmp_path / node, npm):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert load("web/fetch.py").npm_of_wheel(tmp_path) == [str(tmp_path / node), str(npm)]


def test_a_wheel_without_npm_is_a_failed_fetch(tmp_path, monkeypatch, capsys):
    fetch = load("web/fetch.py")
    monkeypatch.setattr(fetch, "npm", lambda: fetch.npm_of_wheel(tmp_path))
    fetch.main(tmp_path / "static/vendor")
    assert "brought no node and npm" in capsys.readouterr().out


@pytest.mark.parametrize("fetched", [True, False])
def test_the_pages_load_the_fetched_files_or_else_a_cdn(tmp_path, fetched):
    site = load("book/_ext/book_site.py")
    config = SimpleNamespace(mathjax_path="https://cdn/mathjax")
    if fetched:
        (tmp_path / "_build/static/vendor").mkdir(parents=True)
    site.serve_vendored(SimpleNamespace(srcdir=tmp_path), config)
    if fetched:
        assert config.mathjax_path == "vendor/mathjax/tex-mml-chtml.js"
    else:
        assert config.mathjax_path.startswith("https://")
