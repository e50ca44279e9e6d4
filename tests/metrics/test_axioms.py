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


def test_a_map_that_ignores_the_network_survives_randomisation():
    def edges(model, x, target, seed=0):
        return x.diff(dim=1, prepend=x[:, :1])

    found = tl.metrics.randomisation(tanh_mlp(), normal(3, 6), 1, method=edges)
    assert all(r.tolist() == pytest.approx([1] * 3) for _, r in found)
    with pytest.raises(TypeError, match="model: "):
        tl.metrics.randomisation(lambda x: x, normal(3, 6), 1, method=edges)
