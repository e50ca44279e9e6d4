"""The API page has every public function, and every docstring has what the page shows."""

import importlib
import re
from inspect import getdoc, isclass, signature

import pytest

import tutorial_lib as tl
from tests.built import ROOT

PAGE = (ROOT / "book" / "api.md").read_text("utf-8")
SHOWN = re.findall(r"^\.\. auto\w+:: tutorial_lib\.(\S+)", PAGE, re.MULTILINE)
MODULES = [name for name in tl.__all__ if not callable(getattr(tl, name))]
PUBLIC = [name for name in tl.__all__ if callable(getattr(tl, name))]


def found(name: str) -> object:
    value = tl
    for part in name.split("."):
        value = getattr(value, part)
    return value


def members(module: str) -> list[str]:
    """The public functions and classes that a module of the package makes, or lists in __all__."""
    there = found(module)
    listed = getattr(there, "__all__", None)
    if listed is None:
        made = {n: v for n, v in vars(there).items() if callable(v) and n[0] != "_"}
        listed = [n for n, v in made.items() if getattr(v, "__module__", "") == there.__name__]
    return [name for name in listed if name not in tl.__all__ or module == "metrics"]


def test_the_page_and_the_package_name_the_same_functions():
    wanted = {*PUBLIC, *(f"{module}.{name}" for module in MODULES for name in members(module))}
    assert sorted(wanted) == sorted(SHOWN)
    assert len(SHOWN) == len(set(SHOWN))


@pytest.mark.parametrize("name", SHOWN)
def test_the_docstring_has_its_sections(name):
    value = found(name)
    text = getdoc(value)
    assert text and text.splitlines()[0].endswith("."), "a summary of one line, a full stop"
    if isclass(value):
        return
    expected = ["Args:"] * bool(signature(value).parameters) + ["Returns:", "Example:"]
    if name in PUBLIC and signature(value).parameters:  # what takes nothing refuses nothing
        expected.append("Raises:")
    for section in expected:
        assert re.search(rf"^{section}$", text, re.MULTILINE), f"tl.{name} has no {section}"
    args = re.search(r"^Args:$(.*?)(?=^\w+:$|\Z)", text, re.MULTILINE | re.DOTALL)
    for parameter in signature(value).parameters:
        assert args and re.search(rf"\b{parameter}\b", args[1]), f"tl.{name}: {parameter}"


def test_modules_that_are_imported_late_are_on_the_page():
    assert all(importlib.import_module(name) for name in tl._LATER.values())
    assert {"figures", "plots", "widgets"} <= set(MODULES)
