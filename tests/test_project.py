"""The project's lists agree with one another, and the package keeps the house style."""

import ast
import json
import re
import sys
import tomllib
from importlib import metadata

import pytest
import yaml

import tutorial_lib as tl

from .built import ROOT

PROJECT_TEXT = (ROOT / "pyproject.toml").read_text("utf-8")
PROJECT = tomllib.loads(PROJECT_TEXT)["project"]
PACKAGE = sorted((ROOT / "tutorial_lib").rglob("*.py"))
MAKEFILE = (ROOT / "Makefile").read_text("utf-8").replace("$(,)", ",")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\s<>=!\[;~]", name, maxsplit=1)[0]).lower()


def test_conda_installs_what_make_installs():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))["dependencies"]
    (pip,) = (entry["pip"] for entry in conda if isinstance(entry, dict))
    (made,) = re.findall(r"pip install .*?-e '(.*?)'", MAKEFILE)
    assert pip == [f"-e {made}"] == ["-e .[book,test]"]
    assert f"python{PROJECT['requires-python']}" in conda
    assert set(PROJECT["optional-dependencies"]) == {"book", "test"}


def test_every_import_of_the_package_is_a_declared_dependency():
    declared = {normal(entry) for entry in PROJECT["dependencies"]}
    makers = metadata.packages_distributions()
    for path in PACKAGE:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            for top in {name.split(".")[0] for name in names} - sys.stdlib_module_names:
                if top != "tutorial_lib":
                    makes = {normal(name) for name in makers.get(top, [top])}
                    assert makes & declared, f"{path.name} imports {top}, which is not declared"


def test_every_dependency_has_a_lower_bound_and_an_upper_bound_its_reason():
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    lines = PROJECT_TEXT.splitlines()
    for entry in (entry for entries in lists for entry in entries):
        assert ">=" in entry, f"{entry}: no lower bound"
        (i,) = (i for i, line in enumerate(lines) if f'"{entry}"' in line)
        if "<" in entry or "==" in entry:
            assert "#" in lines[i - 1] + lines[i], f"{entry}: no reason beside the upper bound"


def test_javascript_is_pinned_by_integrity_hashes_and_names_no_address():
    text = (ROOT / "web/package-lock.json").read_text("utf-8")
    packages = {k: v for k, v in json.loads(text)["packages"].items() if k}
    assert "://" not in text
    assert [k for k, v in packages.items() if "integrity" not in v or "resolved" in v] == []
    wanted = json.loads((ROOT / "web/package.json").read_text("utf-8"))["devDependencies"]
    assert [v for v in wanted.values() if not re.fullmatch(r"\d+\.\d+\.\d+", v)] == []


@pytest.mark.parametrize("path", PACKAGE, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_file_is_short_enough_to_be_read(path):
    assert len(path.read_text("utf-8").splitlines()) <= 300
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef):
            body = [n for n in node.body if not isinstance(getattr(n, "value", None), ast.Constant)]
            lines = node.end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= 50, f"{node.name} has {lines} lines"


def test_every_public_name_exists_and_is_documented():
    for name in tl.__all__:
        assert (getattr(tl, name).__doc__ or "").strip(), f"tl.{name} has no docstring"


def test_no_address_of_a_package_index_and_no_home_folder_in_the_files():
    files = [p for p in ROOT.iterdir() if p.is_file()] + [
        p
        for folder in ("book", "tests", "tutorial_lib", "web", ".ci")
        for p in (ROOT / folder).rglob("*")
        if p.is_file() and "vendor" not in p.parts and p.suffix != ".pyc"
    ]
    bad = re.compile(r"(index-url|registry=|/home/\w|/root/|/Users/\w)")
    for path in files:
        if path.name != "test_project.py":
            found = bad.findall(path.read_text("utf-8", errors="replace"))
            assert found == [], f"{path.relative_to(ROOT)}: {found}"
