"""The chapters' own figures show the numbers that they were given."""

import pytest
import torch

from tutorial_lib.show import chapter_figures as figures


def test_riemann_draws_one_bar_a_step_and_says_the_gap():
    slope = torch.linspace(0, 4, 13)  # integral 2, right sum with 4 steps 2.5
    fig = figures.riemann(slope, 4, torch.zeros(5, 5), limit=1.0, change=2.0)
    left, right = fig.axes
    assert [bar.get_height() for bar in left.patches] == pytest.approx([1, 2, 3, 4])
    assert "bars 2.50, gap +0.50" in left.get_title()
    assert right.images[0].get_clim() == (-1, 1)
    with pytest.raises(ValueError, match="steps"):
        figures.riemann(slope, 5, torch.zeros(5, 5), limit=1.0, change=2.0)


def test_tangent_touches_the_curve_and_names_slope_and_scale():
    fig = figures.tangent([0, 1], [0.0, 2.0], 1.0, 2.0, 2.0, torch.full((5, 5), -3.0))
    left, right = fig.axes
    assert left.lines[1].get_slope() == 2.0 and left.lines[1].get_xy1() == (1.0, 2.0)
    assert "sum 2.00" in right.get_title() and right.images[0].get_clim() == (-3, 3)


def test_search_path_marks_the_first_evaluation_and_the_least_one():
    fig = figures.search_path([0, 1, 2], [4, 1, 0], [0.5, 1.5, 2.5], [2.2, 0.2, 0.3], ylabel="v")
    left, right = fig.axes
    marked = {line.get_label(): line.get_xydata().tolist() for line in left.lines}
    assert marked["start"] == [[0.5, 2.2]] and marked["best"] == [[1.5, 0.2]]
    assert marked["evaluations"] == [[0.5, 2.2], [1.5, 0.2], [2.5, 0.3]]
    assert right.lines[0].get_xydata().tolist() == [[1, 0.5], [2, 1.5], [3, 2.5]]


def test_perturbation_draws_the_first_curve_only_up_to_its_step():
    curves = {"map": [1.0, 0.7, 0.4], "random": [1.0, 0.9, 0.8]}
    right = figures.perturbation(torch.rand(3, 5, 5), curves, step=1).axes[1]
    shown = {line.get_label(): line.get_ydata().tolist() for line in right.lines}
    assert shown["map"] == [1.0, 0.7] and shown["random"] == [1.0, 0.9, 0.8]
    assert right.lines[1].get_xydata().tolist() == [[1, 0.7]]


def test_network_draws_every_weight_but_zero_and_dashes_negative_ones():
    fig = figures.network([["a", "b"], ["o"]], [[[2, 0]]], ["in", "out"])
    texts = [t.get_text() for t in fig.axes[0].texts if t.get_text()]
    assert {"a", "b", "o", "in", "out", "+2"} == set(texts)
    arrow = figures.network([["a"], ["o"]], [[[-1]]], ["in", "out"]).axes[0].texts[0].arrow_patch
    assert arrow.get_linestyle() == "--"


def test_chord_runs_from_the_reference_to_the_point_and_marks_every_contribution():
    fig = figures.chord([0, 1, 2], [0, 0, 3], {"chord": [0, 0, 3], "other": [0, 1, 6]}, 2, 5.0)
    left, right = fig.axes
    drawn = {line.get_label(): line for line in left.lines}
    assert drawn["chord"].get_xydata().tolist() == [[0, 0], [2, 3]]
    assert drawn["tangent"].get_slope() == 5.0 and drawn["tangent"].get_xy1() == (2.0, 3.0)
    marks = [line.get_xydata().tolist() for line in right.lines if len(line.get_xydata()) == 1]
    assert marks == [[[2, 3]], [[2, 6]]]


def test_dots_have_a_line_for_each_label_and_a_panel_for_each_measure():
    fig = figures.dots(["a", "b"], {"m": ([1, 2], [0.5, 0.1]), "n": ([3, 4], [1, 1])}, zero=True)
    left, right = fig.axes
    drawn = [c.lines[0].get_xydata().tolist() for c in left.containers]
    assert drawn == [[[1, 0]], [[2, 1]]]
    assert [t.get_text() for t in left.get_yticklabels()] == ["a", "b"]
    assert left.get_title() == "m" and right.get_title() == "n"
    ends = right.containers[0].lines[2][0].get_segments()[0]
    assert ends[:, 0].tolist() == [2, 4]


def test_bells_colours_what_is_out_of_range_and_says_how_much():
    fig = figures.bells(0.5, {"wide": 0.5, "narrow": 0.1}, (0.0, 1.0))
    assert [ax.get_title() for ax in fig.axes] == ["wide: 31.7% outside", "narrow: 0.0% outside"]
    red = [path.vertices for path in fig.axes[0].collections[0].get_paths()]
    assert len(red) == 2 and red[0][:, 0].max() <= 0 and red[1][:, 0].min() >= 1
    assert max(v[:, 1].max() for v in red) == pytest.approx(0.484, abs=1e-3)  # bell at 0 and 1
