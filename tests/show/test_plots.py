import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from PIL import Image

from tutorial_lib.show import plots
from tutorial_lib.show.plots import as_picture, bars, lines, overlay, picture_grid


def maps(fig):
    """(colour map, limits) of every drawn map."""
    drawn = [ax.images[0] for ax in fig.axes if ax.images]
    return [(i.get_cmap().name, i.get_clim()) for i in drawn if i.get_array().ndim == 2]


def colour_bars(fig):
    return [ax for ax in fig.axes if ax.get_label() == "<colorbar>"]


def noise(scale=1.0, size=40, seed=0):
    return scale * torch.randn(size, size, generator=torch.Generator().manual_seed(seed))


def shown_text(fig):
    fig.draw_without_rendering()
    return [t for t in fig.findobj(plt.Text) if t.get_text().strip() and t.get_visible()]


# Grids


def test_signed_maps_share_symmetric_limits_at_the_percentile_of_all_of_them():
    a, b = noise(1, seed=0), noise(3, seed=1)
    fig = picture_grid([a, b])
    top = np.percentile(torch.cat([a, b]).abs(), 99.5)
    for name, limits in maps(fig):
        assert name == plots.SIGNED and limits == pytest.approx((-top, top), rel=1e-6)


def test_the_neutral_colour_of_signed_maps_is_at_zero():
    colours = plt.get_cmap(plots.SIGNED)
    assert min(colours(0.5)[:3]) > 0.95


def test_magnitudes_run_from_zero_to_the_largest_of_all():
    fig = picture_grid([noise().abs(), torch.full((4, 4), 9.0)])
    assert maps(fig) == [(plots.MAGNITUDE, (0, 9))] * 2


def test_each_kind_of_map_has_its_own_limits_and_colour_bar():
    fig = picture_grid([noise(), noise(5).abs()])
    (signed, (low, high)), (magnitude, (zero, _)) = maps(fig)
    assert (signed, magnitude) == (plots.SIGNED, plots.MAGNITUDE)
    assert low == -high and zero == 0 and len(colour_bars(fig)) == 2


@pytest.mark.slow
def test_one_colour_bar_where_there_is_one_kind_and_none_for_pictures():
    assert len(colour_bars(picture_grid([noise()] * 6))) == 1
    assert not colour_bars(picture_grid([Image.new("RGB", (4, 4))]))
    assert not colour_bars(picture_grid([noise()], colorbar=False))


@pytest.mark.slow
def test_a_map_of_zeros_is_white_beside_signed_maps_and_black_beside_magnitudes():
    zeros = torch.zeros(4, 4)
    assert maps(picture_grid([noise(), zeros]))[1][0] == plots.SIGNED
    assert maps(picture_grid([noise().abs(), zeros]))[1][0] == plots.MAGNITUDE
    assert maps(picture_grid([zeros])) == [(plots.MAGNITUDE, (0, 1))]


@pytest.mark.slow
def test_a_map_that_is_zero_but_for_one_pixel_still_shows_it():
    one = torch.zeros(40, 40)
    one[3, 3] = -2
    assert maps(picture_grid([one])) == [(plots.SIGNED, (-2, 2))]


def test_separate_scales_are_said_in_the_figure():
    fig = picture_grid([noise(1), noise(3)], shared=False)
    (_, first), (_, second) = maps(fig)
    assert second[1] == pytest.approx(3 * first[1], rel=1e-5) and not colour_bars(fig)
    assert "each map on its own scale" in [t.get_text() for t in shown_text(fig)]


def test_signed_can_be_said_and_negative_values_are_never_hidden():
    assert maps(picture_grid([noise().abs()], signed=True))[0][0] == plots.SIGNED
    with pytest.raises(ValueError, match="signed: False"):
        picture_grid([noise()], signed=False)


def test_every_form_of_picture_gives_the_same_panel():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    forms = [Image.fromarray(pixels), pixels, pixels / 255, tensor, tensor / 255]
    for form in forms:
        assert np.allclose(as_picture(form), pixels / 255, atol=1e-6)


def test_three_by_three_pictures_are_read_as_their_kind_says():
    pixels = np.random.default_rng(0).random((3, 3, 3))
    assert np.allclose(as_picture(pixels), pixels)
    assert np.allclose(as_picture(torch.tensor(pixels)), pixels.transpose(1, 2, 0))


@pytest.mark.slow
def test_maps_may_have_one_channel_half_precision_and_a_graph():
    a = noise()[None].half().requires_grad_()
    assert len(maps(picture_grid([a, a[0].detach().bfloat16(), noise() > 0]))) == 3


def test_empty_panels_and_unfilled_places_stay_empty():
    fig = picture_grid([noise(), None, noise()], ["a", "", "c"], columns=2)
    assert len(maps(fig)) == 2 and len(fig.axes) == 5


@pytest.mark.slow
def test_titles_stand_where_they_belong():
    panels = [noise(seed=i) for i in range(4)]
    fig = picture_grid(
        panels, list("abcd"), column_titles=["x", "y"], row_titles=["r", "s"], title="all"
    )
    axes = fig.axes[:4]
    assert [ax.get_title() for ax in axes] == ["x\na", "y\nb", "c", "d"]
    assert [ax.get_ylabel() for ax in axes] == ["r", "", "s", ""]
    assert fig.get_suptitle() == "all"


@pytest.mark.parametrize("count", [1, 3, 5, 8])
@pytest.mark.slow
def test_a_grid_fits_the_page_and_its_letters_are_readable(count):
    fig = picture_grid([noise()] * count, [str(i) for i in range(count)], columns=count)
    assert fig.get_figwidth() <= plots.WIDTH + 1e-9
    assert min(t.get_fontsize() for t in shown_text(fig)) >= 9


def test_a_tall_picture_does_not_make_an_endless_figure():
    assert picture_grid([torch.zeros(3, 900, 9)]).get_figheight() < 8


@pytest.mark.parametrize(
    "panel, error, text",
    [
        (torch.zeros(1, 3, 4, 4), ValueError, r"panels\[1\]: shape \(1, 3, 4, 4\).*batch"),
        (torch.zeros(2, 4, 4), ValueError, r"panels\[1\]: shape \(2, 4, 4\)"),
        (torch.zeros(0, 4), ValueError, r"panels\[1\]: shape \(0, 4\)"),
        (torch.tensor([[1.0, float("nan")]]), ValueError, r"panels\[1\]: holds NaN"),
        (torch.full((3, 4, 4), 2.0), ValueError, r"panels\[1\]: values in \[2, 2\]"),
        ("cat.png", TypeError, r"panels\[1\]: str"),
    ],
)
def test_a_panel_that_cannot_be_drawn_is_named(panel, error, text):
    with pytest.raises(error, match=text):
        picture_grid([noise(), panel])


@pytest.mark.parametrize("name", ["titles", "row_titles", "column_titles"])
def test_titles_of_another_number_are_refused(name):
    with pytest.raises(ValueError, match=f"{name}: 5 given, expected"):
        picture_grid([noise()] * 4, columns=2, **{name: list("abcde")})


def test_a_grid_of_nothing_is_refused():
    for panels in ([], [None]):
        with pytest.raises(ValueError, match="panels: "):
            picture_grid(panels)


# Lines, bars, overlays


def test_curves_differ_in_colour_marker_and_line_style():
    fig = lines([1, 2, 3], {c: [1, 2, i] for i, c in enumerate("abcd")}, xlabel="x", ylabel="y")
    drawn = fig.axes[0].lines
    for look in ("get_color", "get_marker", "get_linestyle"):
        assert len({getattr(line, look)() for line in drawn}) == 4
    assert [t.get_text() for t in fig.axes[0].get_legend().get_texts()] == list("abcd")


def test_colours_are_far_apart_also_for_dichromats():
    # Machado et al. 2009, full protanopia and deuteranopia, linear RGB
    protan = [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]
    deutan = [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]
    rgb = np.array([plt.matplotlib.colors.to_rgb(c) for c in plots.COLOURS[:4]]) ** 2.2
    for matrix in (protan, deutan):
        seen = (rgb @ np.array(matrix).T).clip(0, 1) ** (1 / 2.2)
        gaps = np.linalg.norm(seen[:, None] - seen[None], axis=-1)[np.triu_indices(4, 1)]
        assert gaps.min() > 0.15


def test_scales_bands_and_the_level_line_are_drawn():
    fig = lines(
        torch.tensor([1.0, 10.0]),
        {"a": torch.tensor([1.0, 2.0])},
        xlabel="x",
        ylabel="y",
        logx=True,
        logy=True,
        markers=False,
        bands={"a": [0.1, 0.1]},
        hline=1.5,
    )
    ax = fig.axes[0]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert len(ax.collections) == 1 and ax.lines[1].get_ydata()[0] == 1.5
    assert ax.lines[0].get_marker() in (None, "None") and ax.get_legend() is None


def test_a_gap_in_a_curve_may_be_marked_with_nan():
    fig = lines([1, 2, 3], {"a": [1, float("nan"), 3]}, xlabel="x", ylabel="y", logy=True)
    assert np.isnan(fig.axes[0].lines[0].get_ydata()[1])


@pytest.mark.parametrize(
    "change, text",
    [
        ({"curves": {"a": [1, 2]}}, r"curves\['a'\]: shape \(2,\)"),
        ({"curves": {"a": [1, 2, float("inf")]}}, r"curves\['a'\]: holds infinite"),
        ({"curves": {"a": [1, 0, 2]}, "logy": True}, r"curves\['a'\]: holds values <= 0"),
        ({"x": [0, 1, 2], "logx": True}, "x: holds values <= 0"),
        ({"x": [[1, 2, 3]]}, r"x: shape \(1, 3\)"),
        ({"bands": {"b": [1, 1, 1]}}, r"bands: \['b'\] are no curves"),
    ],
)
def test_curves_that_cannot_be_drawn_are_named(change, text):
    given = {"x": [1, 2, 3], "curves": {"a": [1, 2, 3]}, "xlabel": "x", "ylabel": "y"} | change
    with pytest.raises(ValueError, match=text):
        lines(given.pop("x"), given.pop("curves"), **given)


def test_bars_have_the_given_heights_and_errors():
    fig = bars(["a", "b"], [1.0, -2.0], errors=[0.1, 0.2], ylabel="y")
    ax = fig.axes[0]
    assert [p.get_height() for p in ax.patches] == [1, -2]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "b"]
    ends = ax.containers[-1].errorbar.lines[2][0].get_segments()
    assert np.allclose([s[:, 1] for s in ends], [[0.9, 1.1], [-2.2, -1.8]])


def test_groups_of_bars_stand_side_by_side_and_differ_in_hatching_too():
    fig = bars(["a", "b"], {"u": [1, 2], "v": [3, 4]}, ylabel="y")
    patches = fig.axes[0].patches
    assert patches[0].get_x() + patches[0].get_width() == pytest.approx(patches[2].get_x())
    assert patches[0].get_hatch() != patches[2].get_hatch()
    assert to_hex(patches[0].get_facecolor()) != to_hex(patches[2].get_facecolor())


@pytest.mark.parametrize(
    "values, errors, text",
    [
        ([1], None, r"values\[''\]: shape \(1,\)"),
        ([1, 2], [1], r"errors\[''\]: shape \(1,\)"),
        ({"u": [1, 2]}, {"v": [1, 2]}, r"errors: series \['v'\]"),
    ],
)
def test_bars_of_other_lengths_are_refused(values, errors, text):
    with pytest.raises(ValueError, match=text):
        bars(["a", "b"], values, errors=errors)


def test_an_overlay_is_the_grey_picture_where_nothing_is_salient():
    picture = np.random.default_rng(0).random((4, 5, 3))
    out = overlay(picture, np.zeros((4, 5)))
    grey = picture @ [0.299, 0.587, 0.114]
    assert np.allclose(out, grey[..., None])
    assert np.abs(overlay(picture, np.ones((4, 5))) - out).max() > 0.3
    assert as_picture(out).shape == (4, 5, 3)


@pytest.mark.parametrize("saliency", [np.zeros((5, 4)), np.full((4, 5), 1.5), -np.ones((4, 5))])
def test_an_overlay_of_another_size_or_range_is_refused(saliency):
    with pytest.raises(ValueError, match=r"overlay: |saliency: "):
        overlay(np.zeros((4, 5, 3)), saliency)


# In a notebook


def test_figures_are_closed_and_so_not_shown_a_second_time():
    plt.close("all")
    picture_grid([noise()])
    lines([1, 2], {"a": [1, 2]}, xlabel="x", ylabel="y")
    bars(["a"], [1])
    assert plt.get_fignums() == []


@pytest.mark.slow
def test_a_figure_at_the_end_of_a_cell_is_shown_exactly_once():
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    source = (
        "from tutorial_lib import plots\nfig = plots.bars(['a'], [1])\n",
        "plots.lines([1, 2], {'a': [1, 2]}, xlabel='x', ylabel='y')",
        "fig",
    )
    cells = [nbformat.v4.new_code_cell(s) for s in source]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=120).execute()
    kinds = [[sorted(o.get("data", o)) for o in c.outputs] for c in notebook.cells]
    assert kinds == [[], [["image/png", "text/plain"]], [["image/png", "text/plain"]]]


def test_a_method_has_one_colour_in_every_figure():
    curves = {"random": [1, 2], "SmoothGrad 10 %": [1, 2], "SmoothGrad 20 %": [2, 1]}
    first, second = (
        {line.get_label(): line for line in lines([1, 2], c, xlabel="x", ylabel="y").axes[0].lines}
        for c in (curves, {"gradient": [0, 1], "smoothgrad, signed": [1, 1]})
    )
    orange = plots.METHODS["smoothgrad"]
    assert first["SmoothGrad 10 %"].get_color() == first["SmoothGrad 20 %"].get_color() == orange
    assert first["SmoothGrad 10 %"].get_linestyle() != first["SmoothGrad 20 %"].get_linestyle()
    assert second["smoothgrad, signed"].get_color() == orange
    assert first["random"].get_color() != orange
    bar = bars(["gradient x input", "SmoothGrad"], [1, 2]).axes[0].patches
    grey = plots.METHODS["gradient x input"]
    assert [to_hex(b.get_facecolor()).upper() for b in bar] == [grey, orange]


def test_panels_have_a_thin_frame_and_empty_ones_have_none():
    fig = picture_grid([np.ones((4, 4, 3)), None, np.eye(4)], columns=3)
    shown = [ax.spines["left"].get_visible() for ax in fig.axes[:3]]
    assert shown == [True, False, True]
