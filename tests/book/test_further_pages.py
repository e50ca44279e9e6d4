"""The pages beside the chapters keep their promises, and what draws them is right."""

import numpy as np
import pytest

import tutorial_lib as tl
from book._ext.reading_time import cells_of
from tests.book import contract
from tests.built import ROOT, toc_pages
from tutorial_book import planes, tree

NAMES = ("shattering", "where-a-cell-looks", "training-with-noise", "noisegrad", "settling")
NAMES += ("papers-and-programs", "signal-and-distractor", "family", "own-model", "transformers")
NAMES += ("words", "what-noise-filters")
PAGES = {name: (ROOT / f"book/{name}.md").read_text("utf-8") for name in NAMES}


def code_cells(name: str) -> list:
    return [cell for cell in cells_of(PAGES[name]) if cell.cell_type == "code"]


@pytest.mark.parametrize("name", PAGES)
def test_a_further_page_is_in_the_contents_and_keeps_its_promises(name):
    assert f"book/{name}" in toc_pages()
    assert contract.further_problems(PAGES[name]) == []


def branches() -> dict:
    """The tree of the family page, as its cell writes it."""
    source = next(c.source for c in code_cells("family") if "branches = {" in c.source)
    return eval(source[source.index("{") : source.rindex("}") + 1])


def test_the_family_calls_built_what_the_package_has_and_nothing_else():
    functions = {
        "Gradient x input": "gradient_x_input",
        "Integrated Gradients": "integrated_gradients",
        "IG, noise baselines": "integrated_gradients",
        "SmoothTaylor": "smooth_taylor",
        "SmoothGrad": "smoothgrad",
        "AdaptGrad": "adaptgrad",
        "Adaptive noising": "adaptive_noise",
        "NoiseGrad, FusionGrad": "fusiongrad",
        "DeconvNet, guided": "guided_backprop",
        "DeepLIFT": "deeplift",
        "LRP, deep Taylor": "lrp",
        "Grad-CAM": "grad_cam",
        "Expected gradients": "expected_gradients",
        "Guided IG": "guided_integrated_gradients",
        "IDGI": "idgi",
        "XRAI": "xrai",
        "VarGrad, squared": "vargrad",
        "SmoothDiff": "smoothdiff",
        "LibraGrad": "libragrad",
        "PatternNet and kin": "pattern_net",
        "More CAMs": "layer_cam",
        "Deep SHAP": "deeplift",
        "Score-CAM": "score_cam",
        "Occlusion": "occlusion",
    }
    built = {name for methods in branches().values() for name, _, is_built in methods if is_built}
    assert built == {*functions}
    assert all(hasattr(tl, name) for name in functions.values())


def test_a_grey_name_of_the_tree_has_its_line_below():
    table = (
        PAGES["family"].partition("(sec-family-named)=")[2].replace("Iterated integrated", "IIA")
    )
    grey = [name for methods in branches().values() for name, _, built in methods if not built]
    assert grey
    for name in ", ".join(grey).split(", "):
        assert f"| {name}" in table, name


def test_the_tree_writes_every_name_and_brackets_what_is_not_built():
    figure = tree.family_tree("root", {"one": [("a", "b", True)], "two": [("c", "d", False)]})
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["root", "one", "a", "b", "two", "(c)", "d"]
    assert figure.get_size_inches()[0] < 5  # a phone scales wider figures until nobody can read


@pytest.mark.slow
def test_the_root_figure_draws_the_boundary_where_the_score_is_zero():
    bars = {"first": (1.0, 2.0), "second": (0.0, -1.0)}
    figure = planes.root_plane(lambda z: z[:, 0] - 1, (2, 0), {"r": (1, 0)}, bars, (-3, 3))
    plane, below = figure.axes
    edges = [p.vertices for c in plane.collections for p in c.get_paths() if len(c.levels) == 1]
    assert edges and all(np.allclose(e[:, 0], 1) for e in edges if len(e))
    assert [round(float(b.get_height()), 3) for b in below.patches] == [1, 0, 2, -1]


def test_the_signal_figure_names_its_arrows():
    arrows = {"signal": (1.0, 0.0), "gradient": (0.0, 1.0)}
    figure = planes.signal_plane(np.zeros((3, 2)), [0.0, 1.0, -1.0], arrows, limit=2)
    legend = figure.axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["signal", "gradient"]
