"""Grad-CAM: what a layer's channels say for the target, and where.

Arguments and errors as in `averaging/methods.py`. x: pictures (B, C, H, W). layer: a module of the
model, or its dotted name, that runs once and returns maps (N, K, h, w), or (N, h, w, K). A name or
layer that will not do is a TypeError or ValueError that says what could be meant. Where the model
is a function, give the layer itself; under noise on the weights, which is put on a copy, its name.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from tutorial_lib import checks
from tutorial_lib.averaging.engine import gradient_at
from tutorial_lib.cam import layer_outputs, receptive_field
from tutorial_lib.fast.passes import Passes
from tutorial_lib.fast.precision_modes import precision_for
from tutorial_lib.rules.rectifiers import guided_backprop

UPSAMPLE = ("bilinear", "receptive_field")
CHANNELS = ("first", "last")


def grad_cam(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    layer: nn.Module | str,
    upsample: str | None = "bilinear",
    channels: str | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Where the channels of a layer speak for the target: (B, H, W), nowhere negative.

    alpha_k = 1/(h w) sum_ij d f / d A_kij             (Selvaraju et al., 2017, Eq. 1)
    L_ij = max(0, sum_k alpha_k A_kij)                 (Eq. 2), upsampled from h x w to H x W
    A: the layer's output at x. Units: score. Right before a global mean and a dense layer, the
    cells before the cut at 0 add up to the score without its bias.

    upsample: "bilinear" (the paper) spreads the cells evenly over the picture.
        "receptive_field" draws each cell at the centre of its receptive field, as the model's
        strides and padding have it (`tl.receptive.centres`); a trained network may have learned to
        look elsewhere. None: (B, h, w) as it is.

    channels: which dimension of the layer's output they are, "first" (N, K, h, w) or "last"
        (N, h, w, K), as in Swin transformers. None tells them by the layer and the shape of the
        map, which has the proportions of the picture, and is a ValueError where they do not say.

    It has no channels, so it cannot be smoothed; `guided_grad_cam` can.

    >>> tl.grad_cam(model, x, 285, layer="network.blocks.6").shape
    torch.Size([1, 224, 224])
    """
    checks.model(model)
    x, target = layer_outputs.pictures(x), checks.target(target, x)
    checks.seed(seed)
    if upsample is not None:
        checks.choice("upsample", upsample, UPSAMPLE)
    if channels is not None:
        checks.choice("channels", channels, CHANNELS)
    passes, module = Passes(batch_size, x), layer_outputs.found(model, layer, x)
    call, maps = partial(_cells, model, module, channels), []
    bar = tqdm(total=len(x), unit="gradient", disable=not progress)
    with bar, precision_for(x.device):
        with torch.no_grad():
            found = checks.examine(model, x)
        passes.rows = len(x) if found.fixed_rows else passes.rows
        for rows in passes.slices(len(x)):
            maps.append(passes.run(call, x[rows], target[rows]))
            bar.update(rows.stop - rows.start)
    cells = torch.cat(maps)  # (B, h, w)
    checks.result(cells)
    with torch.no_grad():
        checks.warn_if_saturated(found, cells, model, x, target)
    cells = cells.relu()
    if upsample == "bilinear":
        cells = F.interpolate(cells[:, None], x.shape[2:], mode="bilinear")[:, 0]  # (B, H, W)
    elif upsample:
        centres = receptive_field.centres(model, x, module)
        cells = receptive_field.placed(cells, centres, x.shape[2:])
    return cells.to(x)


def guided_grad_cam(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    layer: nn.Module | str,
    upsample: str = "bilinear",
    channels: str | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Guided backpropagation where Grad-CAM is: the shape of x, signed.

    A(x) = guided_backprop(x) * L, with L upsampled   (Selvaraju et al., 2017, Sec. 3.2).
    layer, upsample, channels: as in `grad_cam`.

    >>> tl.guided_grad_cam(model, x, 285, layer="network.blocks.6")
    """
    checks.choice("upsample", upsample, UPSAMPLE)
    call = dict(batch_size=batch_size, seed=seed, progress=progress)
    where = grad_cam(model, x, target, layer=layer, upsample=upsample, channels=channels, **call)
    return guided_backprop(model, x, target, **call) * where[:, None]


def _cells(
    model: Callable, module: nn.Module, channels: str | None, points: Tensor, target: Tensor
) -> Tensor:
    """The sum of Eq. 2 for one pass, before it is cut at 0: (N, h, w)."""
    taps = layer_outputs.tapped(module, _leaf)
    with torch.inference_mode(False), torch.enable_grad(), taps as outputs:
        scores = checks.scores(model(points.clone()), points, target)
        activation = layer_outputs.one_map(outputs, model, module, points)
        gradient = gradient_at(activation, scores, target.clone())  # none of inference mode
    if gradient is None:
        raise layer_outputs.unused(model, module)
    wide = checks.accumulator(activation.dtype)
    activation, gradient = activation.detach().to(wide), gradient.to(wide)
    if (channels or layer_outputs.channels(activation, model, module, points)) == "last":
        activation, gradient = activation.movedim(3, 1), gradient.movedim(3, 1)  # (N, K, h, w)
    alpha = gradient.mean((2, 3), keepdim=True)
    return (alpha * activation).sum(1)


def _leaf(output: Tensor) -> Tensor:
    """Where the graph begins: the scores are differentiated from the layer on only."""
    return output.detach().clone().requires_grad_()
