"""The noise of a row in closed form, its figure, maps in a grid, and what a search makes small."""

from dataclasses import replace

import numpy as np
import pandas
import pytest
import torch

import tutorial_lib as tl
from tests.reproduce.conftest import network
from tutorial_lib import reproduce
from tutorial_lib.reproduce import cases, drawings, measures, runner
from tutorial_lib.reproduce.cost import passes


def case(row, program="", size=128):
    x = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    model = network()
    lower, upper = model.bounds
    options = dict(seed=1, common_seed=2, batch_size=8, program=program)
    return cases.Case(model, lower + (upper - lower) * x, 0, row, {}, **options)


@pytest.mark.parametrize(
    ("label", "program", "wanted"),
    [
        ("SG, alpha = 0.2", "", 0.159577),  # printed: 0.1596
        ("AG, c = 0.95", "", 0.013353),  # printed: 0.01424
        ("AG, c = 0.95", "zhou", 0.027067),  # erfinv(c), as in the program
    ],
)
def test_the_inherent_noise_of_figure_three_is_that_of_the_closed_form(label, program, wanted):
    row = reproduce.load_config("zhou-fig3").rows[label]
    found = measures.inherent_noise(case(row, program, size=4))
    assert found["inherent_noise"] == pytest.approx(wanted, abs=1e-6)


def test_a_row_without_noise_has_no_share_of_it_out_of_range():
    found = measures.compute_measures(case(dict(method="gradient"), size=4), ("outside",))
    assert found == {"note": "gradient puts no noise on its input, or does not say how much"}


@pytest.mark.parametrize("error", [NotImplementedError, TypeError])
def test_a_method_without_a_rule_for_this_network_is_named_in_a_note(monkeypatch, error):
    def fails(model, x, target, **keywords):
        raise error("no rule for cumsum")

    monkeypatch.setattr(cases, "attribution_function", lambda *given: fails)
    found = measures.compute_measures(case(dict(method="lrp")), ("autvc", "sparseness"))
    assert found == {"note": "no rule for cumsum"}


def test_the_curves_of_total_variation_are_there_in_both_orders():
    one = case(dict(method="gradient"))
    found = measures.variation(one)
    for column, order in (("autvc", "paper"), ("autvc_program", "code")):
        curve = tl.metrics.multiscale_total_variation(one.heatmap, order=order)[0].tolist()
        points = [found[name] for name in measures.POINTS[column] if name in found]
        assert points == pytest.approx(curve) and len(points) == len(curve)


@pytest.mark.parametrize("objective", ["autvc", "autvc_program"])
def test_a_search_makes_small_the_total_variation_that_it_is_asked_for(objective):
    row = dict(method="adaptive_smooth_taylor", objective=objective, search_roots=2, roots=2)
    one = case(row)
    heat = tl.heatmap(tl.smooth_taylor(one.model, one.x, 0, sigma=0.3, roots=2, seed=5))
    order = {"autvc": "paper", "autvc_program": "code"}[objective]
    wanted = float(tl.metrics.autvc(heat, order=order))
    assert one._objective(0.3, 2, 5) == pytest.approx(wanted, rel=1e-5)


def test_the_programs_smoothing_of_a_smoothing_runs():
    row = dict(method="noisegrad", inner="smoothgrad", level=0.1, samples=2, weight_samples=2)
    assert case(row, "zhou").attribution.isfinite().all()


def test_bells_are_filled_where_they_are_out_of_range():
    made = reproduce.load_config("zhou-fig3")
    results = pandas.DataFrame({"picture": "a", "row": list(made.rows), "inherent_noise": [0.1, 0]})
    figure = drawings.bells(results, made)
    for ax, wanted in zip(figure.axes, (0.0668, 0.0125), strict=True):
        lower, upper = sorted(line.get_xdata()[0] for line in ax.lines[1:])
        t, density = (torch.as_tensor(values) for values in ax.lines[0].get_data())
        assert float(torch.trapezoid(density, t)) == pytest.approx(1, abs=0.01)
        outside = density * ((t < lower) | (t > upper))
        assert float(torch.trapezoid(outside, t)) == pytest.approx(wanted, abs=0.003)
        shown = float(ax.get_title().partition(": ")[2].partition(" here")[0])
        assert shown == pytest.approx(wanted, abs=5e-4) and ax.collections
    assert passes(made).loc["a picture"].tolist() == [0, 0]


@pytest.mark.slow
def test_maps_stand_in_a_grid_of_as_many_columns_as_are_asked_for(tmp_path):
    rng = np.random.default_rng(0)
    for name in "pq":
        for row in (None, "GI", "IG", "S-GI", "S-IG", "A-GI"):
            path = runner.map_path(tmp_path, name, row)
            path.parent.mkdir(exist_ok=True)
            np.save(path, rng.random((8, 8) if row else (8, 8, 3)).astype(np.float32))
    rows = {row: {} for row in ("GI", "IG", "S-GI", "S-IG", "A-GI")}
    made = replace(reproduce.load_config("zhou-fig6"), rows=rows, columns=2)
    results = pandas.DataFrame({"picture": ["p", "q"]})
    figure = drawings.maps(tmp_path, results, made)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["picture", "GI", "IG", "", "S-GI", "S-IG", "", "A-GI", ""] * 2
    assert [bool(ax.images) for ax in figure.axes] == [bool(title) for title in titles]
    flat = drawings.maps(tmp_path, results, replace(made, columns=0))
    assert len(flat.axes) == 2 * 6 and flat.axes[6].get_title() == ""
