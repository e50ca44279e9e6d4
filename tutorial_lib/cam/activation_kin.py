"""Kin of Grad-CAM: other weights for a layer's channels, or for each of their cells.

All of them share with `class_activation.py` how a layer is found and read, and how its cells are
drawn at the size of the picture. They differ in the few lines that make a map of the layer's output
A and of g, the gradient of the score there.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from tutorial_lib import checks
from tutorial_lib.averaging.engine import target_scores
from tutorial_lib.cam.class_activation import Tap, activation_map, checked, drawing
from tutorial_lib.fast.passes import Passes
from tutorial_lib.fast.precision_modes import precision_for


def grad_cam_plus_plus(
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
    """Weigh a channel by its positive gradients, each by how much of the channel it speaks for.

        L_ij = max(0, sum_k w_k A_kij),    w_k = sum_ij alpha_kij max(0, g_kij)
        alpha_kij = Y''_kij / (2 Y''_kij + sum_ab A_kab Y'''_kij)
                  = g_kij^2 / (2 g_kij^2 + sum_ab A_kab g_kij^3)

    Chattopadhay et al. (2018). Y = exp(f), and f is the score that the
    model returns, a logit: Y'' and Y''' are its second and third derivatives with respect to the
    one cell A_kij. Of a network of rectifiers f is linear around a point, so they are exp(f) g^2
    and exp(f) g^3 with g = d f / d A, and exp(f) falls out of alpha. Where g is 0, alpha counts as
    0; elsewhere it is 1 / (2 + g_kij sum_ab A_kab).

    The first derivative of Y is exp(f) g, too. That factor, one number for a whole picture, is left
    out, so the map is in units of the score. pytorch-grad-cam leaves it out as well. It adds 1e-6
    to the denominator of alpha, which decides where g^2 is not far above 1e-6, as in most layers of
    the bundled network, and it stretches each map to [0, 1]. The authors' program divides the
    alphas of a channel by their sum.

    The formula is made for layers behind a rectifier, where A is nowhere negative. Elsewhere
    sum_ab A_kab g_kij may come near -2, and a cell near this pole outweighs all others.

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
        x: (B, C, H, W) finite floating-point pictures.
        target: Class index, or LongTensor (B,) with one for each picture.
        layer: A module of the model, or its dotted name, as in `grad_cam`.
        upsample: "bilinear", "receptive_field", or None for (B, h, w), as in `grad_cam`.
        channels: "first", "last" or None, as in `grad_cam`.
        grid: (h, w) for a layer that returns tokens, as in `grad_cam`.
        extra_tokens: How many tokens stand before the patches, as in `grad_cam`.
        batch_size: Pictures in a forward pass; None chooses by the device and the size of x.
        seed: It changes nothing, as no noise is drawn; every method takes it.
        progress: Whether to show a progress bar.

    Returns:
        (B, H, W) attributions, nowhere negative, in units of the score.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, the layer will not do, as in `grad_cam`,
            or a denominator is 0.
        NotImplementedError: With "receptive_field", an operation that moves cells in a way that is
            not followed.

    Example:
        One channel, f = 0.5 * (1 + 3): w = 2 cells * 0.5 / (2 + 0.5 * 4) = 0.25.

        >>> net = nn.Sequential(nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
        >>> pair = torch.tensor([[[[1.0, 3.0]]]])
        >>> tl.grad_cam_plus_plus(net, pair, 0, layer="0", channels="first")
        tensor([[[0.2500, 0.7500]]])
        >>> tl.grad_cam_plus_plus(model, x, 3, layer="1").shape
        torch.Size([2, 16, 16])
    """
    options = dict(layer=layer, upsample=upsample, channels=channels, grid=grid)
    options |= dict(extra_tokens=extra_tokens, batch_size=batch_size, seed=seed, progress=progress)
    return activation_map(model, x, target, _powers_of_gradients, **options)


def _powers_of_gradients(activation: Tensor, gradient: Tensor) -> Tensor:
    """sum_k w_k A_kij: (N, h, w)."""
    total = activation.sum((2, 3), keepdim=True)  # (N, K, 1, 1)
    denominator = 2 + total * gradient  # 1 / alpha, (N, K, h, w)
    if bool((denominator[gradient > 0] == 0).any()):
        raise ValueError(
            "layer: the sum of a channel's cells times a gradient is -2, where Grad-CAM++ divides "
            "by 0; take the layer behind a rectifier, whose output is nowhere negative, or grad_cam"
        )
    w = (gradient.relu() / denominator).where(gradient > 0, 0).sum((2, 3), keepdim=True)
    return (w * activation).sum(1)


def layer_cam(
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
    """Weigh every cell of a channel by its own gradient, where that is positive.

        L_ij = max(0, sum_k max(0, g_kij) A_kij),    g_kij = d f / d A_kij

    Jiang et al. (2021). With a weight for each cell it keeps the detail of early layers, where
    Grad-CAM's one weight for a channel averages gradients of both signs. Right before a global mean
    and a dense layer, whose gradients are alike in all cells, it is Grad-CAM without the channels
    that speak against the target. If the layer has no negative output, nothing is left to cut.

    Maps of early layers are small beside those of late ones; stretch them before you join several.
    pytorch-grad-cam and the authors' program stretch each map to [0, 1].

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
        x: (B, C, H, W) finite floating-point pictures.
        target: Class index, or LongTensor (B,) with one for each picture.
        layer: A module of the model, or its dotted name, as in `grad_cam`.
        upsample: "bilinear", "receptive_field", or None for (B, h, w), as in `grad_cam`.
        channels: "first", "last" or None, as in `grad_cam`.
        grid: (h, w) for a layer that returns tokens, as in `grad_cam`.
        extra_tokens: How many tokens stand before the patches, as in `grad_cam`.
        batch_size: Pictures in a forward pass; None chooses by the device and the size of x.
        seed: It changes nothing, as no noise is drawn; every method takes it.
        progress: Whether to show a progress bar.

    Returns:
        (B, H, W) attributions, nowhere negative, in units of the score.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, the layer will not do, as in `grad_cam`.
        NotImplementedError: With "receptive_field", an operation that moves cells in a way that is
            not followed.

    Example:
        The gradient of the square is 2 A:

        >>> net = nn.Sequential(nn.Identity(), tl.scores(lambda z: (z**2).sum((1, 2, 3)))).eval()
        >>> pair = torch.tensor([[[[1.0, 3.0]]]])
        >>> tl.layer_cam(net, pair, 0, layer="0", channels="first")
        tensor([[[ 2., 18.]]])
        >>> tl.layer_cam(model, x, 3, layer="1").shape
        torch.Size([2, 16, 16])
    """
    options = dict(layer=layer, upsample=upsample, channels=channels, grid=grid)
    options |= dict(extra_tokens=extra_tokens, batch_size=batch_size, seed=seed, progress=progress)
    return activation_map(model, x, target, _gradient_in_its_place, **options)


def _gradient_in_its_place(activation: Tensor, gradient: Tensor) -> Tensor:
    """sum_k max(0, g_kij) A_kij: (N, h, w)."""
    return (gradient.relu() * activation).sum(1)


def score_cam(
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
    """Weigh a channel by the score of the picture that shows through it; no gradient is taken.

        L_ij = max(0, sum_k w_k A_kij),    w = softmax over k of C_k
        C_k = f(x * H_k) - f(0 * x),       H_k = (U_k - min U_k) / (max U_k - min U_k)

    Wang et al. (2020). U_k is the channel A_k drawn at the size of the picture, so H_k is a mask
    from 0 to 1 that multiplies all colours of x; what is covered becomes 0 in the units of x. C_k
    is the increase of the score f that the model returns, a logit. The softmax does not change with
    f(0 * x), which all channels share, so it is not computed. The mask of a constant channel is 0,
    and so is its increase.

    Softmax of logits is near 1 for the best channel and near 0 for the rest if scores differ by
    more than a few units. pytorch-grad-cam has this formula; its masks are drawn with
    align_corners=True, it adds 1e-8 to the denominator, and stretches each map to [0, 1]. In the
    authors' program the weight is the probability of the class, without a softmax over channels,
    and constant channels are left out.

    It takes K forward passes a picture, one for each channel, and one more. The scores need not
    depend on the layer: of a transformer that reads its class token, the last block will do.

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
        x: (B, C, H, W) finite floating-point pictures.
        target: Class index, or LongTensor (B,) with one for each picture.
        layer: A module of the model, or its dotted name, as in `grad_cam`.
        upsample: "bilinear", "receptive_field", or None for (B, h, w), as in `grad_cam`. The masks
            are drawn in the same way, with None bilinearly.
        channels: "first", "last" or None, as in `grad_cam`.
        grid: (h, w) for a layer that returns tokens, as in `grad_cam`.
        extra_tokens: How many tokens stand before the patches, as in `grad_cam`.
        batch_size: Masked pictures in a forward pass; None chooses by the device and the size of x.
        seed: It changes nothing, as no noise is drawn; every method takes it.
        progress: Whether to show a progress bar.

    Returns:
        (B, H, W) attributions, nowhere negative, in units of the layer's output.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, the layer will not do, as in `grad_cam`.
        NotImplementedError: With "receptive_field", an operation that moves cells in a way that is
            not followed.

    Example:
        Two channels, and a score that is 3 times the sum of the first. Each mask covers the lesser
        cell of its channel, so C = (6, 3) and w = (0.95, 0.05).

        >>> net = nn.Sequential(nn.Identity(), tl.scores(lambda z: 3 * z[:, 0].sum((1, 2)))).eval()
        >>> two = torch.tensor([[[[1.0, 2.0]], [[4.0, 0.0]]]])
        >>> tl.score_cam(net, two, 0, layer="0", channels="first")
        tensor([[[1.1423, 1.9051]]])
        >>> tl.score_cam(model, x, 3, layer="1").shape
        torch.Size([2, 16, 16])
    """
    options = dict(channels=channels, grid=grid, extra_tokens=extra_tokens, seed=seed)
    x, target, tap = checked(model, x, target, layer, upsample=upsample, **options)
    passes, draw = Passes(batch_size, x), drawing(upsample or "bilinear", model, x, tap.module)
    with precision_for(x.device), torch.no_grad():
        passes.examine(model, x)
        slices = passes.slices(len(x))
        activation = torch.cat([passes.run(partial(_output, model, tap), x[s]) for s in slices])
        cells, scores = activation.transpose(0, 1).flatten(0, 1), []  # (K * B, h, w)
        call = partial(_score_behind_mask, model, draw)
        with tqdm(total=len(cells), unit="pass", disable=not progress) as bar:
            for rows in passes.slices(len(cells)):
                n = torch.arange(rows.start, rows.stop) % len(x)  # the picture of each row
                scores.append(passes.run(call, x[n], cells[rows], target[n]))
                bar.update(len(n))
    w = torch.cat(scores).unflatten(0, (-1, len(x))).softmax(0)  # (K, B)
    checks.result(w.T)
    maps = torch.einsum("kb,bkij->bij", w, activation).relu()
    return drawing(upsample, model, x, tap.module)(maps).to(x)


def _output(model: Callable, tap: Tap, points: Tensor) -> Tensor:
    """Return what the layer returns at the points: (N, K, h, w)."""
    _, output = tap.run(model, points)
    return tap.laid_out([output], model, points)[0]


def _score_behind_mask(
    model: Callable, draw: Callable, points: Tensor, cells: Tensor, target: Tensor
) -> Tensor:
    """Return the scores (N,) of pictures behind the masks H that the cells (N, h, w) make."""
    drawn = draw(cells)  # (N, H, W)
    low, high = drawn.amin((1, 2), keepdim=True), drawn.amax((1, 2), keepdim=True)
    masks = (drawn - low) / (high - low).where(high > low, 1)
    return target_scores(model, points * masks[:, None].to(points), target).to(cells)
