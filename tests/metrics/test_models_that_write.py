"""A model may write into its input: each measure hands it a copy, so nothing changes."""

import pytest
import torch
from torch import nn

import tutorial_lib as tl
from tests.closed_forms import normal


class Scaled(nn.Module):
    """Two scores of the scaled picture, which grow with its contrast and its mean."""

    def __init__(self, in_place):
        super().__init__()
        self.in_place = in_place

    def forward(self, v):
        v = v.sub_(0.45).div_(0.22) if self.in_place else v.sub(0.45).div(0.22)
        return torch.stack([5 + v.flatten(1).std(1), 6 + v.flatten(1).mean(1)], 1)


PICTURES = (normal(2, 3, 12, 14).sigmoid() * 255).round() / 255
MAPS = normal(2, 12, 14, seed=1)
WINDOWS = dict(bounds=(0.0, 1.0), size=3, count=2, draws=3, batch_size=2)
MEASURES = {
    "perturbation_curve": lambda f, x: tl.metrics.perturbation_curve(f, x, 0, MAPS, **WINDOWS),
    "aupc": lambda f, x: tl.metrics.aupc(f, x, 0, MAPS, **WINDOWS),
    "aupc of probabilities": lambda f, x: tl.metrics.aupc(f, x, 0, MAPS, softmax=True, **WINDOWS),
    "information_curve": lambda f, x: (
        tl.metrics.information_curve(f, x, 0, MAPS, bounds=(0.0, 1.0), fraction=0.05).performance
    ),
    "completeness_gap": lambda f, x: tl.metrics.completeness_gap(f, x, 1, normal(*x.shape), 0.1),
    "completeness_gap from a picture": lambda f, x: tl.metrics.completeness_gap(
        f, x, 0, normal(*x.shape), x.flip(0)
    ),
}


@pytest.mark.parametrize("name", MEASURES)
def test_a_model_that_writes_into_its_input_is_measured_as_one_that_does_not(name):
    x = PICTURES.clone()
    found = MEASURES[name](Scaled(True).eval(), x)
    assert torch.equal(x, PICTURES)
    assert torch.equal(found, MEASURES[name](Scaled(False).eval(), x))


def test_adaptive_noise_leaves_the_pictures_of_such_a_model_alone():
    x = PICTURES[:1].clone()
    own = dict(metric=tl.metrics.gini, roots=2, max_iterations=2)
    found, wanted = (tl.adaptive_noise(Scaled(w).eval(), x, 0, **own) for w in (True, False))
    assert torch.equal(x, PICTURES[:1]) and torch.equal(found.value, wanted.value)
