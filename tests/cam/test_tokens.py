"""Grad-CAM of layers that return tokens (N, T, K): where they lie, what is left out, and errors."""

import pytest
import torch
from torch.nn import functional as F

import tutorial_lib as tl
from tests.cam.tokens import VIT, vit
from tests.closed_forms import normal

X, TARGET = normal(2, 3, 8, 12), torch.tensor([1, 4])
LAYOUT = dict(grid=(2, 3), extra_tokens=1)


def by_a_loop(model, x, target, layer, extra):
    """Eq. 1 and 2 with the patches in a loop, row by row, from autograd at the layer."""
    kept = []

    def keep(_, inputs, output):
        kept.append(output)
        output.retain_grad()

    handle = model.get_submodule(layer).register_forward_hook(keep)
    model(x).gather(1, target[:, None]).sum().backward()
    handle.remove()
    tokens, slopes = kept[0].detach(), kept[0].grad  # (N, T, K)
    cells = torch.zeros(len(x), 2, 3, dtype=x.dtype)
    for n in range(len(x)):
        alpha = sum(slopes[n, extra + p] for p in range(6)) / 6
        for row in range(2):
            for column in range(3):
                cells[n, row, column] = (alpha * tokens[n, extra + 3 * row + column]).sum()
    return cells.clamp(min=0)


@pytest.mark.parametrize("layer", ["blocks.0", "blocks.1.norm1", "blocks.0.mlp"])
def test_a_map_of_tokens_is_laid_out_row_by_row_without_the_class_token(layer):
    wanted = by_a_loop(VIT, X, TARGET, layer, extra=1)
    found = tl.grad_cam(VIT, X, TARGET, layer=layer, upsample=None, **LAYOUT)
    assert torch.allclose(found, wanted) and bool(wanted.any())
    for size in (1, 2):
        again = tl.grad_cam(VIT, X, TARGET, layer=layer, upsample=None, batch_size=size, **LAYOUT)
        assert torch.allclose(again, wanted)


def test_a_map_of_tokens_is_upsampled_and_multiplies_guided_backpropagation():
    cells = tl.grad_cam(VIT, X, TARGET, layer="blocks.0", upsample=None, **LAYOUT)
    spread = F.interpolate(cells[:, None], (8, 12), mode="bilinear")[:, 0]
    found = tl.grad_cam(VIT, X, TARGET, layer="blocks.0", **LAYOUT)
    assert torch.allclose(found, spread)
    with pytest.warns(UserWarning, match="gradient of its operations"):
        guided = tl.guided_grad_cam(VIT, X, TARGET, layer="blocks.0", **LAYOUT)
        assert torch.allclose(guided, tl.guided_backprop(VIT, X, TARGET) * found[:, None])


def test_a_network_without_a_class_token_has_no_extra_tokens():
    model = vit(class_token=False)
    found = tl.grad_cam(model, X, TARGET, layer="blocks.1", upsample=None, grid=(2, 3))
    assert torch.allclose(found, by_a_loop(model, X, TARGET, "blocks.1", extra=0))


ERRORS = {
    "no grid": ({}, ValueError, r"layer: 'blocks.0' returns \(2, 7, 8\).*grid=\(2, 3\), extra_to"),
    "extra tokens alone": (
        dict(extra_tokens=1),
        ValueError,
        r"extra_tokens: it needs grid=\(h, w\)",
    ),
    "no extra tokens": (dict(grid=(2, 3)), ValueError, r"grid: .*T = 7 .*h \* w has to be 7"),
    "another grid": (dict(grid=(2, 2), extra_tokens=1), ValueError, r"grid: .*has to be 6"),
    "a grid of one number": (dict(grid=6), TypeError, r"grid: expected \(h, w\)"),
    "a grid of a fraction": (dict(grid=(2.5, 3)), TypeError, "grid: expected an int"),
    "negative": (dict(grid=(2, 3), extra_tokens=-1), ValueError, "extra_tokens: "),
    "fields": (LAYOUT | dict(upsample="receptive_field"), ValueError, "upsample: tokens have no"),
    "channels": (LAYOUT | dict(channels="first"), ValueError, "channels: tokens"),
    "a layer of maps": (LAYOUT | dict(layer="patch_embed.proj"), ValueError, "layer: .*T, K"),
    "the last block": (LAYOUT | dict(layer="blocks.1"), ValueError, "layer: .*no patch has a part"),
}


@pytest.mark.parametrize("given, error, message", ERRORS.values(), ids=ERRORS)
def test_tokens_that_cannot_be_placed_are_refused_and_what_to_write_is_said(given, error, message):
    with pytest.raises(error, match=message):
        tl.grad_cam(VIT, X, TARGET, **dict(layer="blocks.0") | given)
    assert not any(m._forward_hooks for m in VIT.modules())
