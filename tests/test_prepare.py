"""Preparing a network must change its speed and nothing else."""

import pytest
import torch
import torchvision
from torch import nn

from tests.closed_forms import normal
from tutorial_lib.prepare import prepare


def norms(model):
    return sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())


def shaken(model):
    """Batch norms with statistics of their own: fresh ones would fold to the identity."""
    torch.manual_seed(0)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.1)
            m.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias)
    return model.double().eval()


@pytest.mark.parametrize("name, left", [("resnet18", 0), ("mobilenet_v2", 0), ("densenet121", 62)])
def test_folding_changes_no_score_and_leaves_only_norms_that_do_not_follow_a_convolution(
    name, left
):
    # densenet normalises before its convolutions: half of its norms read concatenations.
    model, x = shaken(torchvision.models.get_model(name)), normal(2, 3, 64, 64)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fast = prepare(model, x)
    assert norms(fast) == left < norms(model)
    assert torch.allclose(fast(x), model(x), rtol=1e-9)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
    assert not any(p.requires_grad for p in fast.parameters())
    assert not any(m.training for m in fast.modules())
    assert not any(m._forward_hooks for m in [*fast.modules(), *model.modules()])


class Twice(nn.Module):
    """A convolution whose output is read beside its norm as well: folding would be wrong."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.conv(x)
        return (self.norm(y) + y).mean((2, 3))


def test_a_fold_that_would_change_the_scores_is_left_out():
    model, x = shaken(Twice()), normal(2, 3, 8, 8)
    fast = prepare(model, x)
    assert norms(fast) == 1 and torch.allclose(fast(x), model(x), rtol=1e-9)


def test_training_mode_and_functions_are_refused():
    with pytest.raises(ValueError, match="training mode"):
        prepare(nn.Conv2d(3, 4, 3), normal(1, 3, 8, 8))
    with pytest.raises(TypeError, match="model"):
        prepare(torch.relu, normal(1, 3, 8, 8))
