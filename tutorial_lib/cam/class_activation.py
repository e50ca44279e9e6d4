"""Grad-CAM: what a layer's channels say for the target, and where.

Arguments and errors as in `attribution.py`. x: pictures (B, C, H, W). layer: a module of the model,
or its dotted name, that runs once and returns maps (N, K, h, w), channels first. A name or layer
that will not do is a TypeError or ValueError that says what could be meant. Where the model is a
function, and under noise on the weights, give the layer itself.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from tutorial_lib import checks, layers, memory, receptive
from tutorial_lib.backward import guided_backprop
from tutorial_lib.chunks import Sizes
from tutorial_lib.engine import accumulator, slope_at
from tutorial_lib.precision import applied

UPSAMPLE = ("bilinear", "receptive_field")


def grad_cam(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    layer: nn.Module | str,
    upsample: str | None = "bilinear",
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
        strides and padding have it (`receptive.centres`); a trained network may have learned to
        look elsewhere. None: (B, h, w) as it is.

    It has no channels, so it cannot be smoothed; `guided_grad_cam` can.

    >>> tl.grad_cam(model, x, 285, layer="network.blocks.6").shape
    torch.Size([1, 224, 224])
    """
    checks.model(model)
    x, target, seed = layers.pictures(x), checks.target(target, x), checks.seed(seed)
    if upsample is not None:
        checks.choice("upsample", upsample, UPSAMPLE)
    sizes, module = Sizes(batch_size, model, x), layers.found(model, layer, x)
    call, maps = partial(_coarse, model, module), []
    bar = tqdm(total=len(x), unit="gradient", disable=not progress)
    with bar, applied(x.device), memory.kept(x.device):
        for rows in sizes.of(len(x)):
            maps.append(sizes.run(call, x[rows], target[rows]))
            bar.update(rows.stop - rows.start)
    cells = torch.cat(maps)
    checks.result(cells)
    cells = cells.relu()
    if upsample == "bilinear":
        cells = F.interpolate(cells[:, None], x.shape[2:], mode="bilinear")[:, 0]
    elif upsample:
        cells = receptive.placed(cells, receptive.centres(model, x, module), x.shape[2:])
    return cells.to(x)


def guided_grad_cam(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    layer: nn.Module | str,
    upsample: str = "bilinear",
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Guided backpropagation where Grad-CAM is: the shape of x, signed.

    A(x) = guided_backprop(x) * L, with L upsampled   (Selvaraju et al., 2017, Sec. 3.2).
    layer, upsample: as in `grad_cam`.

    >>> tl.guided_grad_cam(model, x, 285, layer="network.blocks.6")
    """
    checks.choice("upsample", upsample, UPSAMPLE)
    call = dict(batch_size=batch_size, seed=seed, progress=progress)
    where = grad_cam(model, x, target, layer=layer, upsample=upsample, **call)
    return guided_backprop(model, x, target, **call) * where[:, None]


def _coarse(model: Callable, module: nn.Module, points: Tensor, labels: Tensor) -> Tensor:
    """The sum of Eq. 2 for one chunk, before it is cut at 0: (N, h, w)."""
    with torch.inference_mode(False), torch.enable_grad(), layers.tapped(module, _leaf) as outputs:
        scores = checks.scores(model(points.clone()), points, labels)
        activation = layers.one_map(outputs, model, module, points)
        slope = slope_at(activation, scores, labels.clone())
    if slope is None:
        raise layers.unused(model, module)
    wide = accumulator(activation.dtype)
    alpha = slope.to(wide).mean((2, 3), keepdim=True)
    return (alpha * activation.detach().to(wide)).sum(1)


def _leaf(output: Tensor) -> Tensor:
    """Where the graph begins: the scores are differentiated from the layer on only."""
    return output.detach().clone().requires_grad_()
