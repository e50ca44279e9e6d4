"""Grad-CAM: what a layer's channels say for the target, and where.

The layer is a module of the model, or its dotted name. It runs once and returns a map of K channels
with h x w cells: (N, K, h, w), or (N, h, w, K). Of a transformer it returns tokens (N, T, K), which
are laid out as such a map.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
    options = dict(layer=layer, upsample=upsample, channels=channels, grid=grid)
    options |= dict(extra_tokens=extra_tokens, batch_size=batch_size, seed=seed, progress=progress)
    return activation_map(model, x, target, _mean_gradient, **options)


def _mean_gradient(activation: Tensor, gradient: Tensor) -> Tensor:
    """The sum of Eq. 2, before it is cut at 0: (N, h, w)."""
    alpha = gradient.mean((2, 3), keepdim=True)  # (N, K, 1, 1)
    return (alpha * activation).sum(1)


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


def activation_map(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    combine: Callable[[Tensor, Tensor], Tensor],
    *,
    layer: nn.Module | str,
    upsample: str | None,
    batch_size: int | None,
    progress: bool,
    **options: Any,
) -> Tensor:
    """Make a map of what a layer returns and of its gradient: what Grad-CAM and its kin share.

    combine: function of the layer's output A and of the gradient at it, both (N, K, h, w), that
    returns (N, h, w), which is then cut at 0. The rest is as in `grad_cam`.
    """
    x, target, tap = checked(model, x, target, layer, upsample=upsample, **options)
    passes, maps = Passes(batch_size, x), []

    def one_pass(points: Tensor, target: Tensor) -> Tensor:
        return combine(*_with_gradient(model, tap, points, target))

    bar = tqdm(total=len(x), unit="gradient", disable=not progress)
    with bar, precision_for(x.device):
        with torch.no_grad():
            findings = passes.examine(model, x)
        for rows in passes.slices(len(x)):
            maps.append(passes.run(one_pass, x[rows], target[rows]))
            bar.update(rows.stop - rows.start)
    cells = torch.cat(maps)  # (B, h, w)
    checks.result(cells)
    with torch.no_grad():
        checks.warn_if_saturated(findings, cells, model, x, target)
    return drawing(upsample, model, x, tap.module)(cells.relu()).to(x)


@dataclass(frozen=True)
class Tap:
    """Where a map is read: a layer and how its output is laid out.

    module: the layer. channels: "first", "last", or None where its shape tells. places: ((h, w),
    extra tokens) of a layer of tokens, else None.
    """

    module: nn.Module
    channels: str | None
    places: tuple[tuple[int, int], int] | None

    def run(self, model: Callable, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores of a pass and the layer's output, where a new graph begins."""
        dimensions = 3 if self.places else 4
        tap = layer_outputs.tapped(self.module, _new_leaf, dimensions)
        with tap as outputs:
            scores = model(points.clone())
        return scores, layer_outputs.one_map(outputs, model, self.module, points, dimensions)

    def laid_out(self, values: list[Tensor], model: Callable, points: Tensor) -> list[Tensor]:
        """Return the layer's output, and what has its shape, as (N, K, h, w), to sum with."""
        values = [v.detach().to(checks.accumulator(v.dtype)) for v in values]
        if self.places:
            return [layer_outputs.token_cells(v, *self.places) for v in values]
        order = self.channels or layer_outputs.channels(values[0], model, self.module, points)
        return [v.movedim(3, 1) for v in values] if order == "last" else values


def checked(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    layer: nn.Module | str,
    *,
    upsample: str | None,
    channels: str | None,
    grid: tuple[int, int] | None,
    extra_tokens: int,
    seed: int,
) -> tuple[Tensor, Tensor, Tap]:
    """Check the arguments that all maps of a layer have; return (x, target, tap)."""
    checks.model(model)
    x, target = layer_outputs.pictures(x), checks.target(target, x)
    checks.seed(seed)
    if upsample is not None:
        checks.choice("upsample", upsample, UPSAMPLE)
    if channels is not None:
        checks.choice("channels", channels, CHANNELS)
    places = _token_places(grid, extra_tokens, upsample, channels)
    return x, target, Tap(layer_outputs.found(model, layer, x), channels, places)


def drawing(
    upsample: str | None, model: Callable, x: Tensor, module: nn.Module
) -> Callable[[Tensor], Tensor]:
    """Return the function from the cells of a layer, (N, h, w), to maps (N, H, W) of the pictures.

    With upsample=None it leaves the cells as they are.
    """
    size = x.shape[2:]
    if upsample == "receptive_field":
        places = receptive_field.centres(model, x, module)
        return lambda cells: receptive_field.placed(cells, places, size)
    if upsample == "bilinear":
        return lambda cells: F.interpolate(cells[:, None], size, mode="bilinear")[:, 0]
    return lambda cells: cells


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


def _with_gradient(model: Callable, tap: Tap, points: Tensor, target: Tensor) -> list[Tensor]:
    """Return what the layer returns at the points, and the gradient there: (N, K, h, w) each."""
    with torch.inference_mode(False), torch.enable_grad():
        scores, activation = tap.run(model, points)
        scores = checks.scores(scores, points, target)
        gradient = gradient_at(activation, scores, target.clone())  # none of inference mode
    if gradient is None:
        raise layer_outputs.unused(model, tap.module)
    activation, gradient = tap.laid_out([activation, gradient], model, points)
    if tap.places and not bool(gradient.any()):
        raise layer_outputs.unused_patches(model, tap.module)
    return [activation, gradient]


def _new_leaf(output: Tensor) -> Tensor:
    """A copy where a new graph begins: the scores are differentiated from the layer on only."""
    return output.detach().clone().requires_grad_()
