"""Digits with and without torchvision's files, and the small networks trained on them."""

import struct
from pathlib import Path

import pytest
import torch

import tutorial_lib as tl
from tests.built import ROOT


@pytest.mark.slow
def test_the_bundled_digits_are_split_evenly_and_without_overlap():
    (images, labels), (held, held_labels) = tl.load_mnist(), tl.load_mnist("test")
    assert images.shape == (4000, 1, 28, 28) and held.shape == (1000, 1, 28, 28)
    assert images.dtype == torch.float32 and labels.dtype == torch.int64
    assert float(images.min()) == 0 and float(images.max()) == 1
    assert (
        labels.bincount().tolist() == [400] * 10 and held_labels.bincount().tolist() == [100] * 10
    )


def fake_mnist(root: Path, count=5):
    """The files of torchvision's MNIST with `count` made-up digits."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for split, n in (("train", count), ("t10k", count - 2)):
        pixels = bytes(i % 256 for i in range(n * 784))
        (folder / f"{split}-images-idx3-ubyte").write_bytes(
            struct.pack(">IIII", 2051, n, 28, 28) + pixels
        )
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(
            struct.pack(">II", 2049, n) + bytes(range(n))
        )


@pytest.mark.slow
def test_a_torchvision_folder_is_read_without_a_download(tmp_path):
    fake_mnist(tmp_path)
    images, labels = tl.load_mnist(root=tmp_path)
    assert images.shape == (5, 1, 28, 28) and labels.tolist() == [0, 1, 2, 3, 4]
    assert float(images[0, 0, 0, 27]) == pytest.approx(27 / 255)
    assert len(tl.load_mnist("test", root=tmp_path)[0]) == 3


def test_the_real_files_where_they_are():
    root = ROOT.parent / "shared" / "mnist"
    if not root.is_dir():
        pytest.skip("no MNIST beside this checkout")
    images, labels = tl.load_mnist("test", root=root)
    assert images.shape == (10_000, 1, 28, 28) and labels.bincount().min() > 800


def test_a_missing_folder_says_what_else_there_is(tmp_path, monkeypatch):
    def offline(*arguments, **keywords):
        raise RuntimeError("no network")

    monkeypatch.setattr("torchvision.datasets.MNIST", offline)
    with pytest.raises(FileNotFoundError, match=r"root: no MNIST that .*root=None takes"):
        tl.load_mnist(root=tmp_path)


DAMAGED = {
    "empty": b"",
    "garbage": b"no digits at all",
    "another kind of numbers": struct.pack(">IIII", 2563, 5, 28, 28) + bytes(3920),
    "fewer digits than it says": struct.pack(">IIII", 2051, 50, 28, 28) + bytes(3920),
}


@pytest.mark.parametrize("content", DAMAGED)
def test_damaged_files_of_digits_are_named(tmp_path, content):
    fake_mnist(tmp_path)
    (tmp_path / "MNIST/raw/train-images-idx3-ubyte").write_bytes(DAMAGED[content])
    with pytest.raises(FileNotFoundError, match=r"root: no MNIST that can be read in .*damaged"):
        tl.load_mnist(root=tmp_path)


@pytest.mark.parametrize("root", [5, "a\0b"])
def test_a_root_that_is_no_folder_is_named(root):
    with pytest.raises(FileNotFoundError, match="root: no MNIST that can be read in"):
        tl.load_mnist(root=root)


def test_pickled_digits_of_old_versions_do_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    (tmp_path / "MNIST/processed").mkdir(parents=True)
    for name in ("training.pt", "test.pt"):
        torch.save(Evil(), tmp_path / "MNIST/processed" / name)
    with pytest.raises(FileNotFoundError, match="root: no MNIST"):
        tl.load_mnist(root=tmp_path)
    assert not (tmp_path / "ran").exists()


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match=r"split: .*train, test"):
        tl.load_mnist("valid")


@pytest.mark.slow
def test_training_learns_is_repeatable_and_leaves_random_numbers_alone():
    images, labels = tl.load_mnist()
    few = slice(None, None, 4)
    before = torch.random.get_rng_state()
    net = tl.mnist.train(images[few], labels[few], epochs=10, learning_rate=0.05)
    first, again, other = (
        tl.mnist.train(images[:200], labels[:200], epochs=1, seed=s) for s in (0, 0, 1)
    )
    assert torch.equal(before, torch.random.get_rng_state())
    held, held_labels = tl.load_mnist("test")
    assert float((net(held).argmax(1) == held_labels).float().mean()) > 0.8
    assert torch.equal(first[1].weight, again[1].weight)
    assert not torch.equal(first[1].weight, other[1].weight)
    assert not net.training and not any(p.requires_grad for p in net.parameters())


def test_bad_numbers_are_refused():
    images, labels = torch.rand(4, 1, 28, 28), torch.arange(4)
    for name, given in (
        ("epochs", dict(epochs=0)),
        ("seed", dict(seed=-1)),
        ("noise", dict(noise=-1)),
        ("penalty", dict(penalty=-1)),
    ):
        with pytest.raises(ValueError, match=name):
            tl.mnist.train(images, labels, **given)


def test_noise_is_drawn_afresh_for_every_batch_with_the_wanted_size():
    images, seen = torch.zeros(64, 1, 28, 28), []

    def watched():
        net = tl.mnist.dense()
        net.register_forward_hook(lambda net, inputs, output: seen.append(inputs[0].detach()))
        return net

    tl.mnist.train(images, torch.zeros(64).long(), network=watched, epochs=3, noise=0.3)
    drawn = torch.cat(seen)
    assert len(drawn) == 192 and float(drawn.std()) == pytest.approx(0.3, rel=0.02)
    assert float(torch.corrcoef(drawn.flatten(1)).triu(1).abs().max()) < 0.25


def test_the_penalty_is_the_mean_squared_gradient_of_each_loss():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 4)).double()
    images, labels = torch.rand(5, 1, 3, 3).double(), torch.tensor([0, 1, 2, 3, 0])
    scores = net(images)
    off = scores.softmax(1) - torch.nn.functional.one_hot(labels, 4)  # d loss / d scores
    wanted = torch.nn.functional.cross_entropy(scores, labels)
    wanted = wanted + 0.7 * (off @ net[1].weight).square().sum(1).mean()
    found = tl.mnist.loss(net, images, labels, penalty=0.7)
    assert torch.allclose(found, wanted)
    assert torch.allclose(
        torch.autograd.grad(found, net[1].weight)[0], torch.autograd.grad(wanted, net[1].weight)[0]
    )


@pytest.mark.slow
def test_a_penalty_makes_gradients_smaller_and_other_networks_can_be_trained():
    images, labels = (v[::8] for v in tl.load_mnist())
    size = {}
    for penalty in (0.0, 3.0):
        how = dict(network=tl.mnist.convolutional, epochs=3, learning_rate=0.1, penalty=penalty)
        net = tl.mnist.train(images, labels, **how)
        size[penalty] = float(tl.gradient(net, images[:50], labels[:50]).norm())
    assert size[3.0] < 0.8 * size[0.0]


def test_training_a_network_with_randomness_of_its_own_is_repeatable():
    images, labels = torch.rand(40, 1, 28, 28), torch.arange(40) % 10
    random = lambda: torch.nn.Sequential(torch.nn.Dropout(), tl.mnist.dense())  # noqa: E731
    before = torch.random.get_rng_state()
    first, again = (tl.mnist.train(images, labels, network=random, epochs=2) for _ in range(2))
    assert torch.equal(first[1][1].weight, again[1][1].weight)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_network_in_the_place_of_a_function_that_makes_one_is_refused():
    with pytest.raises(TypeError, match="network: expected a function"):
        tl.mnist.train(torch.rand(4, 1, 28, 28), torch.arange(4), network=tl.mnist.dense())
