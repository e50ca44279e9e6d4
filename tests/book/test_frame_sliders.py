"""Sliders become plain figures: the signs in their texts, two on a page, other widgets."""

import json
from types import SimpleNamespace

import frame_sliders
import ipywidgets
import pytest
import torch
from bs4 import BeautifulSoup
from docutils import nodes
from docutils.utils import new_document

import tutorial_lib as tl

pytestmark = pytest.mark.slow  # importing Sphinx and MyST-NB takes a second

FRAMES = [torch.zeros(3, 8, 8), torch.ones(3, 8, 8)]
LABELS = ['5" <b>', "größer & 'mehr'"]
ALT = 'A map "{label}"\nwith <signs> > & more'


def slider(**options):
    options = dict(description="a < b", alt=ALT, caption='1 < 2 & "so"') | options
    return tl.widgets.slider(FRAMES, LABELS, **options)


@pytest.fixture
def read(tmp_path, monkeypatch):
    """What a page with these widgets becomes: its nodes, and the warnings."""

    def of(*widgets):
        state = ipywidgets.Widget.get_manager_state()
        files = {"ipywidgets_state": (None, {"body": json.dumps(state)}), "ipywidgets_0": ()}
        collector = SimpleNamespace(get_js_files=lambda env, page: files)
        monkeypatch.setattr(frame_sliders, "NbMetadataCollector", collector)
        said = []
        log = SimpleNamespace(warning=lambda text, location: said.append(text))
        monkeypatch.setattr(frame_sliders, "log", log)
        page, kind = new_document("page"), "application/vnd.jupyter.widget-view+json"
        for widget in widgets:
            view = json.dumps({"model_id": widget.model_id})
            text = f'<script type="{kind}">{view}</script>'
            page += nodes.raw("", text, format="html")
        env = SimpleNamespace(docname="page")
        app = SimpleNamespace(env=env, doctreedir=tmp_path / "trees", srcdir=tmp_path)
        frame_sliders.read_sliders(app, page)
        assert files == {}
        return page.children, said

    return of


def written(node) -> BeautifulSoup:
    images = {image["uri"]: f"{i}.png" for i, image in enumerate(node.children)}
    builder = SimpleNamespace(imgpath="../_images", images=images)
    visitor = SimpleNamespace(builder=builder, body=[])
    with pytest.raises(nodes.SkipNode):
        frame_sliders.visit_slider(visitor, node)
    return BeautifulSoup("".join(visitor.body), "html.parser")


def test_texts_with_quotes_and_signs_arrive_as_they_were_written(read):
    (node,), said = read(slider(index=1))
    html = written(node)
    assert said == [] and html.find("figcaption").get_text() == '1 < 2 & "so"'
    assert [i["alt"] for i in html.find_all("img")] == [ALT.replace("{label}", x) for x in LABELS]
    assert json.loads(html.find("input")["data-labels"]) == LABELS
    assert html.find("input")["aria-valuetext"] == html.select_one(".frame-label").string
    assert html.find("label").string == "a < b" and html.find("b") is None
    assert [i.has_attr("hidden") for i in html.find_all("img")] == [True, False]


def test_two_sliders_on_a_page_have_ids_of_their_own(read):
    (one, two), _ = read(slider(), slider())
    first, second = written(one), written(two)
    assert first.find("input")["id"] != second.find("input")["id"]
    assert second.find("label")["for"] == second.find("input")["id"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: ipywidgets.IntSlider(),
        lambda: ipywidgets.VBox([ipywidgets.IntSlider(), ipywidgets.Output()]),
        lambda: ipywidgets.VBox(
            [ipywidgets.SelectionSlider(options=["a"]), ipywidgets.Label("b"), ipywidgets.HTML("c")]
        ),
        lambda: SimpleNamespace(model_id="closed"),
    ],
    ids=["one", "interact", "alike", "closed"],
)
def test_a_widget_of_another_kind_is_named_and_the_sliders_beside_it_stay(read, make):
    found, said = read(make(), slider())
    assert [type(node) for node in found] == [frame_sliders.FrameSliderNode]
    assert said == ["a widget that tl.widgets.slider did not make: the site cannot show it"]
