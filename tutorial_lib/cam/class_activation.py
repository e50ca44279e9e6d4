"""Grad-CAM: what a layer's channels say for the target, and where.

The layer is a module of the model, or its dotted name. It runs once and returns a map of K channels
with h x w cells: (N, K, h, w), or (N, h, w, K). Of a transformer it returns tokens (N, T, K), which
are laid out as such a map.
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
    grid: tuple[int, int] | None = None,
    extra_tokens: int = 0,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Show where the channels of a layer speak for the target.

        alpha_k = 1/(h w) sum_ij d f / d A_kij
        L_ij = max(0, sum_k alpha_k A_kij)

    Selvaraju et al. (2017), Eqs. 1 and 2. A is the layer's output at x, and L is upsampled from
    h x w to H x W. If the layer stands right before a global mean and a dense layer, the cells
    before the cut at 0 add up to the score without its bias. The map has no channels, so it cannot
    be smoothed; that of `guided_grad_cam` can.

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
        x: (B, C, H, W) finite floating-point pictures.
        target: Class index, or LongTensor (B,) with one for each picture.
        layer: A module of the model, or its dotted name, that runs once and returns maps
            (N, K, h, w), or (N, h, w, K). Where the model is a function, give the module itself;
            under noise on the weights, which is put on a copy of the model, give the name.
        upsample: "bilinear" (the paper) spreads the cells evenly over the picture.
            "receptive_field" draws each cell at the centre of its receptive field, as the model's
            strides and padding have it (`tl.receptive.centres`); a trained network may have
            learned to look elsewhere. None leaves the map at (B, h, w).
        channels: Which dimension of the layer's output the channels are: "first" (N, K, h, w) or
            "last" (N, h, w, K), as in Swin transformers. None tells them by the kind of layer, and
            by the shape of the map, whose height and width have the proportions of the picture.
        grid: (h, w) for a layer that returns tokens (N, T, K), as in vision transformers: how many
            patches lie below and beside one another, row by row. None stands for a layer of maps.
        extra_tokens: With `grid`, how many tokens stand before the patches and have no place, such
            as 1 for a class token: T = extra_tokens + h w. They are left out, of the mean, too.
        batch_size: Pictures in a forward pass; None chooses by the device and the size of x.
        seed: It changes nothing, as no noise is drawn; every method takes it.
        progress: Whether to show a progress bar.

    Returns:
        (B, H, W) attributions, nowhere negative, in units of the score.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, the layer is not found (the message names
            layers that may be meant), does not run once, returns no map, or nothing tells where
            its channels are; the layer returns tokens and `grid` is missing or does not fit, or no
            patch behind it has a part in the scores; or the rows of the model are not independent,
            or the result is not finite.
        NotImplementedError: With "receptive_field", an operation that moves cells in a way that is
            not followed.

    Example:
        >>> net = nn.Sequential(nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
        >>> ramp = torch.arange(16.0).view(1, 1, 4, 4)
        >>> tl.grad_cam(net, ramp, 0, layer="0", upsample=None)
        tensor([[[0.6250, 1.1250],
                 [2.6250, 3.1250]]])
        >>> tl.grad_cam(model, x, 3, layer="0").shape
        torch.Size([2, 16, 16])

        Of a vision transformer of timm: `tl.grad_cam(vit, x, 285, layer="blocks.11.norm1",
        grid=(14, 14), extra_tokens=1)`.
    """
    checks.model(model)
    x, target = layer_outputs.pictures(x), checks.target(target, x)
    checks.seed(seed)
    if upsample is not None:
        checks.choice("upsample", upsample, UPSAMPLE)
    if channels is not None:
        checks.choice("channels", channels, CHANNELS)
    places = _token_places(grid, extra_tokens, upsample, channels)
    passes, module = Passes(batch_size, x), layer_outputs.found(model, layer, x)
    call, maps = partial(_cells, model, module, channels, places), []
    bar = tqdm(total=len(x), unit="gradient", disable=not progress)
    with bar, precision_for(x.device):
        with torch.no_grad():
            findings = checks.examine(model, x)
        passes.rows = len(x) if findings.fixed_rows else passes.rows
        for rows in passes.slices(len(x)):
            maps.append(passes.run(call, x[rows], target[rows]))
            bar.update(rows.stop - rows.start)
    cells = torch.cat(maps)  # (B, h, w)
    checks.result(cells)
    with torch.no_grad():
        checks.warn_if_saturated(findings, cells, model, x, target)
    cells = cells.relu()
    if upsample == "bilinear":
        cells = F.interpolate(cells[:, None], x.shape[2:], mode="bilinear")[:, 0]  # (B, H, W)
    elif upsample:
        centres = receptive_field.centres(model, x, module)
        cells = receptive_field.placed(cells, centres, x.shape[2:])  # (B, H, W)
    return cells.to(x)


def guided_grad_cam(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    layer: nn.Module | str,
    upsample: str = "bilinear",
    channels: str | None = None,
    grid: tuple[int, int] | None = None,
    extra_tokens: int = 0,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Multiply guided backpropagation by Grad-CAM: the detail of the one, where the other is.

        A(x) = guided_backprop(x) * L

    Selvaraju et al. (2017), Sec. 3.2. L is the map of `grad_cam`, upsampled. The map is signed.

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
        x: (B, C, H, W) finite floating-point pictures.
        target: Class index, or LongTensor (B,) with one for each picture.
        layer: A module of the model, or its dotted name, as in `grad_cam`.
        upsample: "bilinear" or "receptive_field", as in `grad_cam`.
        channels: "first", "last" or None, as in `grad_cam`.
        grid: (h, w) for a layer that returns tokens, as in `grad_cam`.
        extra_tokens: How many tokens stand before the patches, as in `grad_cam`.
        batch_size: Pictures in a forward pass; None chooses by the device and the size of x.
        seed: It changes nothing, as no noise is drawn; every method takes it.
        progress: Whether to show a progress bar.

    Returns:
        (B, C, H, W) attributions, in units of the score squared per unit of input.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, or the layer will not do, as in `grad_cam`.
        NotImplementedError: An operation has no rule, as in `guided_backprop`, or moves cells in a
            way that is not followed, as in `grad_cam`.

    Example:
        >>> tl.guided_grad_cam(model, x, 3, layer="0").shape
        torch.Size([2, 3, 16, 16])
    """
    checks.choice("upsample", upsample, UPSAMPLE)
    options = dict(batch_size=batch_size, seed=seed, progress=progress)
    where = dict(upsample=upsample, channels=channels, grid=grid, extra_tokens=extra_tokens)
    cam = grad_cam(model, x, target, layer=layer, **where, **options)
    return guided_backprop(model, x, target, **options) * cam[:, None]


def _token_places(
    grid: object, extra_tokens: int, upsample: str | None, channels: str | None
) -> tuple[tuple[int, int], int] | None:
    """Check `grid` and what goes with it; return ((h, w), extra tokens), None without a grid."""
    extra = checks.count("extra_tokens", extra_tokens, least=0)
    if grid is None:
        if extra:
            raise ValueError(f"extra_tokens: it needs grid=(h, w), got {extra} and no grid")
        return None
    if not isinstance(grid, tuple | list) or len(grid) != 2:
        raise TypeError(f"grid: expected (h, w), two whole numbers, got {grid!r}")
    height, width = (checks.count("grid", n) for n in grid)
    if upsample == "receptive_field":
        raise ValueError("upsample: tokens have no receptive fields; write 'bilinear' or None")
    if channels == "first":
        raise ValueError("channels: tokens (N, T, K) have them last; leave it out, or take no grid")
    return (height, width), extra


def _cells(
    model: Callable,
    module: nn.Module,
    channels: str | None,
    places: tuple[tuple[int, int], int] | None,
    points: Tensor,
    target: Tensor,
) -> Tensor:
    """The sum of Eq. 2 for the pictures of one pass, before it is cut at 0: (N, h, w)."""
    dimensions = 3 if places else 4
    tap = layer_outputs.tapped(module, _new_leaf, dimensions)
    with torch.inference_mode(False), torch.enable_grad(), tap as outputs:
        scores = checks.scores(model(points.clone()), points, target)
        activation = layer_outputs.one_map(outputs, model, module, points, dimensions)
        gradient = gradient_at(activation, scores, target.clone())  # none of inference mode
    if gradient is None:
        raise layer_outputs.unused(model, module)
    dtype = checks.accumulator(activation.dtype)
    activation, gradient = activation.detach().to(dtype), gradient.to(dtype)
    if places:
        activation, gradient = (
            layer_outputs.token_cells(v, *places) for v in (activation, gradient)
        )
        if not bool(gradient.any()):
            raise layer_outputs.unused_patches(model, module)
    elif (channels or layer_outputs.channels(activation, model, module, points)) == "last":
        activation, gradient = activation.movedim(3, 1), gradient.movedim(3, 1)  # (N, K, h, w)
    alpha = gradient.mean((2, 3), keepdim=True)  # (N, K, 1, 1)
    return (alpha * activation).sum(1)


def _new_leaf(output: Tensor) -> Tensor:
    """A copy where a new graph begins: the scores are differentiated from the layer on only."""
    return output.detach().clone().requires_grad_()
