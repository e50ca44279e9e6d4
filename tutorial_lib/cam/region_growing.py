"""XRAI: regions of the picture, in the order in which they bring the most attribution a pixel."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from tutorial_lib import checks
from tutorial_lib.averaging.methods import integrated_gradients
from tutorial_lib.cam import layer_outputs

# The segmentation of the authors' program, for pictures of 224 x 224 with values from -1 to 1.
SIDE, SCALES, SIGMA, MIN_SIZE, RADIUS = 224, (50, 100, 150, 250, 500, 1200), 0.8, 150, 5


def xrai(
    model: Callable,
    x: Tensor,
    target: int | Tensor,
    *,
    attribution: Tensor | None = None,
    bounds: tuple | None = None,
    steps: int = 50,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Draw regions of the picture with the mean attribution that each of them added.

        s_t = the region s with the largest mean of A over s \\ M_t,    M_{t+1} = M_t u s_t
        map = mean of A over s_t \\ M_t, at the pixels of s_t \\ M_t

    Kapishnikov et al. (2019). M_t are the pixels that are covered already, none at
    first; A is the mean of Integrated Gradients from black and from white, and of its channels the
    largest. Regions are those of Felzenszwalb's segmentation at six scales, each widened by 5
    pixels to take in its edge, so they overlap: a region's mean may grow when another one takes
    its poor pixels, and the map need not fall from step to step. It sums to A.

    It is the variant "full" of the authors' program, `saliency` of PAIR, which also drops regions
    that would add fewer than 50 pixels, and gives what is left its own mean. Its "fast" ranks
    regions once, by their means without regard to overlap. For the segmentation, pictures are
    brought to 224 x 224 and to values from -1 to 1. The program widens regions at the size of the
    picture; here they are widened at 224 x 224, so that small pictures keep small regions.

    It takes 2 * steps gradients a picture, or none with a given attribution.

    Args:
        model: Callable from (N, ...) to scores (N, C), rows independent; a module in eval mode.
        x: (B, C, H, W) finite floating-point pictures.
        target: Class index, or LongTensor (B,) with one for each picture.
        attribution: A, a map of any method with signs, (B, C, H, W) or (B, H, W); model, bounds and
            steps then play no part. None takes Integrated Gradients.
        bounds: Pair (lower, upper), the inputs of black and white, such as model.bounds. None takes
            the least and the largest value of each picture, as the authors' program does.
        steps: Number of nodes of Integrated Gradients, for each of the two baselines.
        batch_size: Points in a forward pass; None chooses by the device and the size of x.
        seed: It changes nothing, as no noise is drawn; every method takes it.
        progress: Whether to show progress bars.

    Returns:
        (B, H, W) attributions with signs, in units of the score, or of the attribution given.

    Raises:
        TypeError: An argument has the wrong type; the message begins with its name.
        ValueError: A value or a shape does not fit, the rows of the model are not independent, or
            its gradients are not finite.
        ImportError: scikit-image is not installed; the message says which extra brings it.

    Example:
        Two halves, and an attribution that is noise around -1 in one and around 2 in the other:

        >>> halves = torch.zeros(1, 1, 32, 32)
        >>> halves[..., 16:] = 1.0
        >>> noisy = torch.where(halves > 0, 2.0, -1.0) + torch.tensor([-3.0, 3.0]).repeat(16)
        >>> found = tl.xrai(lambda z: z.flatten(1), halves, 0, attribution=noisy)
        >>> found.unique()
        tensor([-1.,  2.])
    """
    checks.model(model)
    x, target = layer_outputs.pictures(x), checks.target(target, x)
    checks.seed(seed)
    if attribution is None:
        ends = _black_and_white(x) if bounds is None else checks.bounds(bounds, x)
        options = dict(steps=steps, batch_size=batch_size, seed=seed, progress=progress)
        maps = [integrated_gradients(model, x, target, baseline=b, **options) for b in ends]
        attribution = (maps[0] + maps[1]) / 2
    a = _one_channel(attribution, x).double().cpu()  # (B, H, W)
    pictures = tqdm(x.double().cpu(), unit="picture", disable=not progress)
    grown_maps = [grown(a[n], regions(picture)) for n, picture in enumerate(pictures)]
    return torch.stack(grown_maps).to(x)


def grown(attribution: Tensor, masks: Tensor) -> Tensor:
    """Cover a picture region by region, always the one with the largest mean of what is uncovered.

    Args:
        attribution: (H, W) map.
        masks: (S, H, W), True where a region is; together they cover the picture.

    Returns:
        (H, W) map, at each pixel the mean of the pixels that were covered with it.

    Example:
        >>> from tutorial_lib.cam.region_growing import grown
        >>> masks = torch.tensor([[[True, True, False]], [[False, True, True]]])
        >>> grown(torch.tensor([[5.0, 1.0, 3.0]]), masks)
        tensor([[3., 3., 3.]])
    """
    a, masks = attribution.flatten(), masks.flatten(1)  # (P,), (S, P)
    density, covered = torch.zeros_like(a), torch.zeros_like(masks[0])
    areas = masks.sum(1)  # (S,), of what is uncovered, like the sums
    sums = torch.stack([a[mask].sum() for mask in masks])
    while bool(areas.any()):
        best = int((sums / areas).where(areas > 0, -torch.inf).argmax())
        new = masks[best] & ~covered  # (P,)
        density[new] = a[new].mean()
        covered |= new
        sums -= (masks[:, new] * a[new]).sum(1)
        areas -= masks[:, new].sum(1)
    return density.view_as(attribution)


def regions(picture: Tensor) -> Tensor:
    """Find regions of a picture by Felzenszwalb's segmentation, coarse and fine ones.

    Args:
        picture: (C, H, W) float64 picture on the CPU.

    Returns:
        (S, H, W), True where a region is. Each scale covers the picture, and regions overlap.

    Raises:
        ImportError: scikit-image is not installed; the message says which extra brings it.

    Example:
        >>> from tutorial_lib.cam.region_growing import regions
        >>> bool(regions(torch.rand(3, 20, 30).double()).any(0).all())
        True
    """
    segmentation = checks.extra("skimage.segmentation", "networks")
    low, high = picture.aminmax()
    picture_range = (high - low).clamp(min=torch.finfo(picture.dtype).tiny)
    scaled = 2 * (picture - low) / picture_range - 1
    options = dict(mode="bilinear", antialias=True)
    image = F.interpolate(scaled[None], (SIDE, SIDE), **options)[0].movedim(0, 2).numpy()
    offsets = torch.arange(-RADIUS, RADIUS + 1)
    disk = (offsets**2 + offsets[:, None] ** 2 <= RADIUS**2).float()
    found = []
    for scale in SCALES:
        labels = segmentation.felzenszwalb(image, scale=scale, sigma=SIGMA, min_size=MIN_SIZE)
        masks = F.one_hot(torch.from_numpy(labels)).movedim(2, 0)[None].float()  # (1, S, h, w)
        disks = disk.expand(masks.shape[1], 1, -1, -1)
        widened = (F.conv2d(masks, disks, padding=RADIUS, groups=len(disks)) > 0).float()
        found.append(F.interpolate(widened, picture.shape[1:], mode="nearest-exact")[0] > 0)
    return torch.cat(found)  # (S, H, W)


def _black_and_white(x: Tensor) -> list[Tensor]:
    """The least and the largest value of each picture, (B, 1, 1, 1) each."""
    return [v.view(-1, 1, 1, 1) for v in x.flatten(1).aminmax(dim=1)]


def _one_channel(attribution: object, x: Tensor) -> Tensor:
    """Check an attribution of x, and take the largest of its channels: (B, H, W)."""
    sizes = x.shape, torch.Size([len(x), *x.shape[2:]])
    if isinstance(attribution, Tensor) and attribution.shape not in sizes:
        raise ValueError(
            f"attribution: expected the shape of x, {tuple(x.shape)}, or that without the "
            f"channels, got {tuple(attribution.shape)}"
        )
    real = isinstance(attribution, Tensor) and attribution.is_floating_point()
    several = real and attribution.ndim == x.ndim
    return checks.maps("attribution", attribution.amax(1) if several else attribution)
