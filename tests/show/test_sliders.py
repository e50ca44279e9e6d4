import base64
import io
import re

import ipywidgets
import numpy as np
import pytest
from ipywidgets.embed import dependency_state, embed_data, embed_minimal_html
from PIL import Image

from tutorial_lib.show import plots
from tutorial_lib.show import sliders as widgets
from tutorial_lib.show.sliders import slider

COLOURS = ["red", "lime", "blue"]


def frames(count=3, size=(40, 30)):
    return [Image.new("RGB", size, COLOURS[i % 3]) for i in range(count)]


def made(count=3, **changes):
    given = {
        "frames": frames(count),
        "labels": [str(i) for i in range(count)],
        "description": "samples",
        "alt": "a picture after {label} samples",
        "caption": "Noise falls.",
    } | changes
    return slider(given.pop("frames"), given.pop("labels"), **given)


def images(box):
    """(alt, picture) of every frame, read back from the HTML."""
    found = []
    for child in box.children[1].children:
        alt, data = re.fullmatch(
            r'<img alt="([^"]*)" src="data:image/png;base64,([^"]+)" style="max-width:100%;.*">',
            child.value,
        ).groups()
        found.append((alt, Image.open(io.BytesIO(base64.b64decode(data)))))
    return found


def page_state(box):
    """What a page needs of this slider alone."""
    return embed_data([box], state=dependency_state([box]))["manager_state"]["state"]


def models(box):
    """name -> states of that kind, as they are written into a page."""
    state = page_state(box)
    kinds = {}
    for model_id, model in state.items():
        kinds.setdefault(model["model_name"], []).append({"id": model_id, **model["state"]})
    return kinds


def test_every_frame_is_in_the_page_with_its_alt_text():
    found = images(made())
    assert [alt for alt, _ in found] == [f"a picture after {i} samples" for i in range(3)]
    for (_, picture), frame in zip(found, frames(), strict=True):
        assert picture.convert("RGB").getpixel((5, 5)) == frame.getpixel((5, 5))


def test_slider_and_frames_are_linked_in_the_browser_and_need_no_kernel():
    kinds = models(made(index=1))
    (control,), (stack,), (link,) = (
        kinds[k] for k in ("SelectionSliderModel", "StackModel", "LinkModel")
    )
    assert link["source"] == [f"IPY_MODEL_{control['id']}", "index"]
    assert link["target"] == [f"IPY_MODEL_{stack['id']}", "selected_index"]
    assert control["index"] == stack["selected_index"] == 1
    assert list(control["_options_labels"]) == ["0", "1", "2"] and len(stack["children"]) == 3


def test_only_stock_widgets_are_used_so_that_every_viewer_knows_them():
    modules = {m["model_module"] for m in page_state(made()).values()}
    assert modules == {"@jupyter-widgets/base", "@jupyter-widgets/controls"}


def test_a_page_saved_by_ipywidgets_holds_all_frames_and_the_link(tmp_path):
    box = made()
    state = dependency_state([box])
    embed_minimal_html(tmp_path / "page.html", views=[box], title="test", state=state)
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/png;base64,") == 3 and '"LinkModel"' in page


def test_the_link_lives_as_long_as_the_slider():
    box = made()
    assert isinstance(box.link, ipywidgets.widgets.widget_link.Link)


@pytest.mark.parametrize("kind", ["figure", "pil", "uint8", "float", "tensor"])
def test_frames_of_every_kind(kind):
    torch = pytest.importorskip("torch")
    pixels = np.zeros((30, 40, 3), dtype=np.uint8)
    pixels[..., 0] = 255
    given = {
        "figure": plots.lines([1, 2], {"a": [1, 2]}, xlabel="x", ylabel="y"),
        "pil": Image.fromarray(pixels),
        "uint8": pixels,
        "float": pixels / 255,
        "tensor": torch.tensor(pixels / 255).permute(2, 0, 1),
    }[kind]
    _, picture = images(made(1, frames=[given]))[0]
    if kind == "figure":
        assert picture.size == (640, 360)  # 6.4 x 3.6 inches at 100 dpi
    else:
        assert picture.size == (40, 30)
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 0, 0)


def test_alt_texts_and_captions_cannot_break_out_of_the_page():
    box = made(1, alt=['"><script>alert(1)</script>'], caption="a < b & <script>")
    assert "<script>" not in box.children[1].children[0].value
    assert "a &lt; b &amp; &lt;script&gt;" in box.children[2].value


def test_a_list_of_alt_texts_is_taken_as_it_is():
    texts = ["one {label}", "two", "three"]
    assert [alt for alt, _ in images(made(alt=texts))] == texts


@pytest.mark.slow
def test_a_figure_of_maps_stays_small():
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (14, 14, 3), dtype=np.uint8)).resize((224, 224))
    values = np.asarray(Image.fromarray(rng.normal(size=(56, 56))).resize((224, 224)))
    fig = plots.picture_grid([picture, values, abs(values)], ["picture", "signed", "size"])
    data = made(1, frames=[fig]).children[1].children[0].value
    assert len(data) < 95_000 * 4 / 3 + 200


@pytest.mark.slow
def test_the_ends_of_a_colour_bar_keep_their_colours_in_a_small_palette():
    noise = np.random.default_rng(0).normal(size=(224, 224))
    drawn = widgets._draw(plots.picture_grid([noise], size=5), 100)
    kept = Image.open(io.BytesIO(widgets._png(drawn))).convert("RGB")
    gap = np.abs(np.asarray(drawn).astype(float) - np.asarray(kept))
    assert gap.mean() < 6 and np.percentile(gap, 99.9) < 60


@pytest.mark.slow
def test_readers_without_widgets_get_a_filmstrip_and_a_text():
    bundle = made(caption="Noise falls.")._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    strip = Image.open(io.BytesIO(bundle["image/png"])).convert("RGB")
    seen = np.array([colour for _, colour in strip.getcolors(strip.width * strip.height)])
    for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255)):  # but for the palette of 256
        assert np.abs(seen.astype(int) - colour).max(1).min() < 30
    assert bundle["text/plain"] == "Slider: samples (0, 1, 2). Noise falls."


@pytest.mark.parametrize("count, shown", [(1, [0]), (4, [0, 1, 2, 3]), (21, [0, 4, 8, 12, 16, 20])])
@pytest.mark.slow
def test_the_filmstrip_shows_at_most_six_evenly_spaced_frames(monkeypatch, count, shown):
    titles = []
    grid = plots.picture_grid

    def spy(panels, given, **options):
        titles.extend(given)
        return grid(panels, given, **options)

    monkeypatch.setattr(plots, "picture_grid", spy)
    made(count)._repr_mimebundle_()
    assert titles == [str(i) for i in shown]


@pytest.mark.slow
def test_books_prefer_the_widget_and_paper_gets_the_filmstrip():
    pytest.importorskip("myst_nb")
    from myst_nb.core.render import base_render_priority

    priority = base_render_priority()
    html, latex = priority["html"], priority["latex"]
    widget = "application/vnd.jupyter.widget-view+json"
    assert html[widget] < html["image/png"] and "image/png" in latex and widget not in latex


@pytest.mark.parametrize(
    "changes, error, text",
    [
        ({"frames": [], "labels": []}, ValueError, "frames: none given"),
        ({"labels": ["a"]}, ValueError, "labels: 1 given, expected 3"),
        ({"labels": [1, 2, 3]}, TypeError, "labels: expected strings, got 1"),
        ({"alt": "a cat"}, ValueError, "alt: 'a cat' has no {label}"),
        ({"alt": ["a", "b"]}, ValueError, "alt: 2 texts given, expected 3"),
        ({"alt": ["a", " ", "c"]}, ValueError, "alt: every frame needs a text"),
        ({"index": 3}, ValueError, "index: 3 given, expected 0 to 2"),
        ({"index": -1}, ValueError, "index: -1 given"),
        ({"index": 1.0}, TypeError, "index: expected an int"),
        ({"caption": " "}, ValueError, "caption: expected a text"),
        ({"frames": ["a.png"] * 3}, TypeError, r"frames\[0\]: str"),
        ({"frames": [np.full((4, 4, 3), 2.0)] * 3}, ValueError, r"frames\[0\]: values in \[2, 2\]"),
        ({"frames": [np.full((4, 4, 3), np.nan)] * 3}, ValueError, r"frames\[0\]: holds NaN"),
    ],
)
def test_what_cannot_be_a_slider_is_named(changes, error, text):
    with pytest.raises(error, match=text):
        made(**changes)
