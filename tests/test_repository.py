"""What stands around the package is true: workflows, citation, changelog, README's example."""

import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch

import pytest
import yaml

import tutorial_lib as tl
from tests.built import ROOT, make_targets, python_blocks
from tools import addresses

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = PYPROJECT["project"]
README = (ROOT / "README.md").read_text("utf-8")
CHANGELOG = (ROOT / "CHANGELOG.md").read_text("utf-8")
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
NUMBERS = "Changes of numbers"  # the heading of the changelog for what changes a reader's figures
MADE = r"(\.venv|_build|dist)/"  # what a workflow makes itself


def loaded(name: str) -> dict:
    return yaml.safe_load((ROOT / name).read_text("utf-8"))


def steps(workflow: dict) -> list[dict]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def commands(workflow: dict) -> str:
    return "\n".join(step["run"] for step in steps(workflow) if "run" in step)


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.stem)
def workflow(request) -> dict:
    return yaml.safe_load(request.param.read_text("utf-8"))


def test_each_workflow_is_there():
    names = {"test", "book", "nightly", "pages", "weekly"}
    assert {path.stem for path in WORKFLOWS} == names


def test_a_workflow_may_only_read_and_ends_by_itself(workflow):
    assert workflow["permissions"] == {"contents": "read"}
    assert "group" in workflow["concurrency"]
    for name, job in workflow["jobs"].items():
        assert "timeout-minutes" in job, name
        # One job writes: it pushes the built site to its branch.
        assert job.get("permissions") == ({"contents": "write"} if name == "pages" else None)


def test_an_action_is_pinned_by_its_major_version(workflow):
    used = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert [name for name in used if not re.fullmatch(r"actions/[\w-]+@v\d+", name)] == []
    assert any(name.startswith("actions/checkout@") for name in used)


def test_a_workflow_calls_make_targets_that_exist(workflow):
    called = set(re.findall(r"^\s*make (\S+)", commands(workflow), re.MULTILINE))
    assert called <= make_targets()


def test_a_workflow_names_files_that_exist(workflow):
    text = commands(workflow)
    named = set(re.findall(r"(?<![\w/\"$.-])[\w.-]+(?:/[\w.*-]+)+", text))
    named |= set(re.findall(r"\b(?:tests|tutorial_lib|\w+\.(?:md|toml|yml|cff))\b", text))
    for step in steps(workflow):
        named.add(step.get("with", {}).get("cache-dependency-path", "pyproject.toml"))
    missing = [name for name in named if not re.match(MADE, name) and not (ROOT / name).exists()]
    assert missing == []


def test_the_oldest_versions_that_are_tried_are_those_of_pyproject():
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    oldest = {entry.split("#")[0].strip() for entries in lists for entry in entries}
    lines = (ROOT / ".github/oldest.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [pin for pin in pins if pin.replace("==", ">=").removesuffix(".*") not in oldest] == []
    assert {pin.split("==")[0] for pin in pins} == {"torch", "torchvision", "numpy"}
    matrix = loaded(".github/workflows/test.yml")["jobs"]["tests"]["strategy"]["matrix"]["include"]
    assert ".github/oldest.txt" in [row.get("constraints") for row in matrix]
    assert {row["python"] for row in matrix} == {"3.11", "3.13"}


def test_the_workflow_tries_the_readme_with_the_extras_that_it_names():
    (extras,) = re.findall(r"pip install '\.\[(.*)\]'", README)
    assert f"[{extras}]" in commands(loaded(".github/workflows/test.yml"))


@pytest.mark.parametrize("path", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")))
def test_an_issue_form_asks_something(path):
    form = yaml.safe_load(path.read_text("utf-8"))
    if path.stem == "config":
        assert form == {"blank_issues_enabled": True}
        return
    ids = [part["id"] for part in form["body"]]
    assert form["name"] and form["description"] and len(ids) == len(set(ids)) > 1
    assert all(part["attributes"]["label"] for part in form["body"])
    assert any(part.get("validations", {}).get("required") for part in form["body"])


def test_the_hooks_of_pre_commit_have_what_they_need():
    hooks = [h for repo in loaded(".pre-commit-config.yaml")["repos"] for h in repo["hooks"]]
    wanted = "ruff ruff-format check-toml check-yaml trailing-whitespace end-of-file-fixer"
    assert {hook["id"] for hook in hooks} == {*wanted.split(), "no-notebooks"}


def test_the_citation_is_valid_and_of_this_version():
    citation = loaded("CITATION.cff")
    assert {"cff-version", "message", "title", "authors", "version"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["keywords"] == PROJECT["keywords"]
    book = citation["preferred-citation"]
    assert (book["type"], book["title"]) == ("book", "Averaging Gradients")
    assert book["license"] in (ROOT / "LICENSE-TEXT").read_text("utf-8")
    assert citation["authors"] == book["authors"] == PROJECT["authors"]
    (author,) = (entry["name"] for entry in citation["authors"])
    holder = f"Copyright (c) {book['year']} {author[0].lower()}{author[1:]}"
    assert holder in (ROOT / "LICENSE").read_text("utf-8")


def test_the_addresses_are_those_of_the_configuration(capsys):
    assert addresses.main(check=True) == 0, capsys.readouterr().out


@pytest.mark.parametrize("both", [("", ""), ("https://github.com/o/n", "https://o.github.io/n/")])
def test_the_addresses_are_written_once_and_taken_away_again(both):
    cff, toml = ((ROOT / n).read_text("utf-8") for n in ("CITATION.cff", "pyproject.toml"))
    for _ in range(2):
        cff, toml = addresses.citation(cff, *both), addresses.project(toml, *both)
    repository, site = (address or None for address in both)
    loaded = yaml.safe_load(cff)
    assert (loaded.get("repository-code"), loaded.get("url")) == (repository, site)
    urls = tomllib.loads(toml)["project"].get("urls", {})
    assert (urls.get("Repository"), urls.get("Documentation")) == (repository, site)
    assert addresses.citation(cff, "", "") == addresses.citation(
        (ROOT / "CITATION.cff").read_text("utf-8"), "", ""
    )


@pytest.mark.parametrize("text", ["title: A", "repository:\nhtml:", "html: {baseurl: ''}"])
def test_no_address_is_a_configuration_too(text):
    assert addresses.addresses(text) == ("", "")


def test_the_address_of_a_repository_is_the_one_that_a_reader_opens():
    text = "repository: {url: 'https://github.com/o/n.git'}"
    assert addresses.addresses(text) == ("https://github.com/o/n", "")


def test_built_notebooks_under_docs_are_not_ignored():
    """`cp -r _build/html docs; git add docs` is one way to GitHub Pages."""
    names = ["docs/_sources/book/page.ipynb", "docs/_static/x.css", "book/page.ipynb", "_build/x"]
    run = subprocess.run(
        ["git", "check-ignore", "--no-index", *names], cwd=ROOT, capture_output=True, text=True
    )
    assert run.stdout.split() == ["book/page.ipynb", "_build/x"]


def test_the_package_knows_its_version():
    assert tl.__version__ == PROJECT["version"]
    assert "__version__" not in tl.__all__


def test_the_changelog_begins_with_what_comes_and_has_a_heading_for_numbers():
    releases = re.findall(r"^## \[(.*?)\]", CHANGELOG, re.MULTILINE)
    assert releases[0] in ("Unreleased", PROJECT["version"])
    newest = CHANGELOG.split("\n## ")[1]
    assert re.search(rf"^### {NUMBERS}$", newest, re.MULTILINE)
    assert f'"{NUMBERS}"' in (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert f'"{NUMBERS}"' in (ROOT / ".github/pull_request_template.md").read_text("utf-8")


def test_the_wheel_holds_every_file_that_the_package_needs():
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["tutorial_lib"]
    assert "py.typed" in patterns
    package = ROOT / "tutorial_lib"
    for path in package.rglob("*"):
        name = path.relative_to(package).as_posix()
        if path.is_file() and path.suffix not in (".py", ".pyc", ".md"):
            assert any(fnmatch(name, pattern) for pattern in patterns), name
    assert all([*package.glob(pattern)] for pattern in patterns)


@pytest.mark.slow
def test_the_example_of_the_readme_draws_its_map(tmp_path):
    (code,) = python_blocks("README.md")
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr[-3000:]
    (made,) = tmp_path.iterdir()
    assert made.read_bytes().startswith(b"\x89PNG")
