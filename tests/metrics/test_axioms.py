"""The axioms as numbers: methods that keep them, methods that break them, and how."""

from functools import partial

import pytest
import torch

import tutorial_lib as tl
from tests.closed_forms import normal, tanh_mlp
from tutorial_lib.metrics import axioms

IG = partial(tl.integrated_gradients, rule="gauss-legendre")
CLEAN = 1e-9


def test_integrated_gradients_keeps_every_axiom():
    assert max(tl.metrics.axiom_gaps(IG).values()) < CLEAN


@pytest.mark.parametrize(
    "method, broken",
    [
        (tl.gradient, {"completeness", "sensitivity"}),
        (tl.gradient_x_input, {"completeness", "sensitivity"}),
        (partial(tl.smoothgrad, sigma=2.0), {"completeness"}),
        (partial(tl.smooth_taylor, sigma=2.0), {"completeness"}),
        (partial(tl.occlusion, window=1), {"completeness"}),
        (
            partial(tl.noisegrad),
            {"completeness", "sensitivity", "linearity", "implementation invariance"},
        ),
    ],
)
def test_each_method_breaks_the_axioms_that_it_should(method, broken):
    gaps = tl.metrics.axiom_gaps(method)
    assert {name for name, gap in gaps.items() if gap > CLEAN} == broken, gaps


def test_breaking_an_axiom_on_purpose_is_noticed():
    def leaky(model, x, target):  # gives something to every input
        return IG(model, x, target) + 0.01

    def squared(model, x, target):
        return IG(model, x, target) ** 2

    assert tl.metrics.axiom_gaps(leaky)["dummy"] > 1e-3
    assert tl.metrics.axiom_gaps(squared)["linearity"] > 0.1

    def counts_weights(model, x, target):  # depends on how the function is written
        return IG(model, x, target) * sum(p.numel() for p in model.parameters())

    assert tl.metrics.axiom_gaps(counts_weights)["implementation invariance"] > 0.1


def test_the_rewritten_network_is_the_same_function():
    net, x = axioms._network(torch.Generator().manual_seed(3)), normal(20, 6)
    assert torch.allclose(net(x), axioms._rewritten(net)(x), rtol=1e-12)


def test_randomisation_goes_from_the_top_and_leaves_the_model_alone():
    net, x = tanh_mlp(inputs=300), normal(3, 300)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    seen = []

    def first_layer(model, x, target, seed=0):  # reads the first layer's weights, nothing else
        seen.append(model[0].weight.detach().clone())
        return model[0].weight[target][None].expand_as(x)

    found = tl.metrics.randomisation(net, x, 1, method=first_layer)
    assert [name for name, _ in found] == ["2", "0"]
    assert found[0][1].tolist() == pytest.approx([1] * 3)  # only the last layer is shuffled yet
    assert float(found[1][1].abs().max()) < 0.3
    assert torch.equal(seen[1].flatten().sort().values, seen[0].flatten().sort().values)
    assert torch.equal(seen[2].flatten().sort().values, seen[0].flatten().sort().values)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_a_dead_network_keeps_nothing_of_a_map_and_the_other_layers_keep_their_results():
    net, x = tanh_mlp(inputs=300), normal(3, 300)
    first = net[0].weight.detach().clone()

    def method(model, x, target, seed=0):  # the second picture's map dies with the first layer
        found = tl.gradient(model, x, target)
        found[1] *= float(torch.equal(model[0].weight, first))
        return found

    (_, top), (_, both) = tl.metrics.randomisation(net, x, 1, method=method)
    assert float(top.abs().min()) > 0 and both[1] == 0 and float(both.abs().max()) < 0.3
    assert both[0] != 0 and both[2] != 0


def test_randomisation_names_the_pictures_without_a_map_and_the_layer_that_gives_nan():
    net, x = tanh_mlp(), normal(3, 6)
    x[2] = 0
    with pytest.raises(ValueError, match=r"^model: .*not constant.* \[2\] of 3"):
        tl.metrics.randomisation(net, x, 1, method=lambda model, x, target, seed: x)

    def breaks(model, x, target, seed):  # divides by 0 once the first layer has changed
        return x / torch.tensor(torch.equal(model[0].weight, net[0].weight))

    with pytest.raises(ValueError, match=r"^model: layer '0' shuffled: expected finite .* \[0, 1"):
        tl.metrics.randomisation(net, normal(3, 6), 1, method=breaks)


@pytest.mark.parametrize(
    "method",
    [
        lambda model, x, target: torch.full_like(x, torch.nan),
        lambda model, x, target: torch.zeros_like(x),
        lambda model, x, target: x / (x - 2),  # infinite where sensitivity is measured, only
        lambda model, x, target: None,
    ],
)
def test_a_method_without_a_map_has_no_gap_instead_of_keeping_an_axiom(method):
    with pytest.raises(ValueError, match=r"^method: "):
        tl.metrics.axiom_gaps(method)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_the_completeness_gap_names_pictures_whose_map_or_score_is_not_a_number(bad):
    net, x, a = tanh_mlp(), normal(3, 6), normal(3, 6)
    a[1, 2] = bad
    with pytest.raises(ValueError, match=r"^attribution: .* \[1\] of 3"):
        tl.metrics.completeness_gap(net, x, 0, a)

    def model(z):
        return torch.where(z[:, :1] == x[2, 0], bad, net(z))

    with pytest.raises(ValueError, match=r"^model: .* \[2\] of 3"):
        tl.metrics.completeness_gap(model, x, 0, x)
    with pytest.raises(TypeError, match=r"^attribution: "):
        tl.metrics.completeness_gap(net, x, 0, x.long())


def test_a_map_that_ignores_the_network_survives_randomisation():
    def edges(model, x, target, seed=0):
        return x.diff(dim=1, prepend=x[:, :1])

    found = tl.metrics.randomisation(tanh_mlp(), normal(3, 6), 1, method=edges)
    assert all(r.tolist() == pytest.approx([1] * 3) for _, r in found)
    with pytest.raises(TypeError, match="model: "):
        tl.metrics.randomisation(lambda x: x, normal(3, 6), 1, method=edges)
