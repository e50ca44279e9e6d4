"""The truth of the tasks is where they say, and the networks and the trainer do as they promise."""

import pytest
import torch
from torch import nn

from tutorial_lib.networks import known_truth as truth


def letters(x):
    return "".join(truth.LETTERS[int(code)] for code in x.argmax(0))


@pytest.mark.slow
def test_the_asked_digit_alone_has_the_label():
    task = truth.two_digits(200, "test", seed=3)
    images, labels = truth.load_mnist("test")
    x = task.x
    assert x.shape == (200, 1, 28, 70) and x.min() >= 0 and x.max() <= 1
    for picture, label, where in zip(x, task.labels, task.truth, strict=True):
        digit = picture[where].view(28, 28)
        (found,) = (images[:, 0] == digit).all((1, 2)).nonzero()[:, 0][:1]
        assert labels[found] == label


@pytest.mark.slow
def test_the_mark_points_at_the_asked_digit_and_both_sides_are_asked():
    task = truth.two_digits(200, seed=1)
    is_right = task.truth[:, 0, 0, -1]
    assert 60 < int(is_right.sum()) < 140
    mark = task.x[:, 0, :, 28:42]  # (N, 28, 14)
    assert not (task.truth | task.other)[..., 28:42].any() and not (task.truth & task.other).any()
    broad_left = mark[:, :, :7].sum((1, 2)) > mark[:, :, 7:].sum((1, 2))
    assert torch.equal(broad_left, is_right)  # the tip is the thin end


def test_two_digits_are_drawn_independently():
    task = truth.two_digits(500, seed=2)
    left, right = task.x[..., :28], task.x[..., -28:]
    same = (left == right).flatten(1).all(1)
    assert same.sum() <= 2 and len(task.labels.unique()) == 10


def test_the_sequences_hold_what_their_labels_say():
    task = truth.motifs(400, seed=5)
    first, second = truth.MOTIFS
    assert torch.equal(task.x.sum(1), torch.ones(400, 60))
    for x, label, where in zip(task.x, task.labels, task.truth, strict=True):
        seen = letters(x[:, where[0]])
        one = (first, second)
        assert seen in {0: {first + second}, 1: {second + first}, 2: one, 3: {""}}[int(label)]
    assert task.labels.bincount().tolist() == [100] * 4


def test_each_motif_alone_is_seen_as_often_and_places_vary():
    task = truth.motifs(800, seed=0)
    alone = [letters(x[:, t[0]]) for x, t in zip(task.x[2::4], task.truth[2::4], strict=True)]
    assert [alone.count(word) for word in truth.MOTIFS] == [100, 100]
    assert task.truth[:, 0].float().mean(0).min() > 0.02  # no place is never in a motif


def test_share_adds_channels_before_it_takes_the_magnitude():
    where = torch.tensor([[[True, False, False]]])
    task = truth.Task(torch.zeros(1, 2, 3), torch.zeros(1), where, torch.tensor([[[0, 1, 0]]]) > 0)
    map_ = torch.tensor([[[3.0, -1.0, 9.0], [0.0, 0.0, 9.0]]])
    assert truth.share(map_, task).tolist() == [0.75]  # the last place is in neither
    map_ = torch.tensor([[[3.0, -1.0, 9.0], [-3.0, 0.0, 9.0]]])
    assert truth.share(map_, task).tolist() == [0.0]


def test_attention_is_that_of_pytorch():
    torch.manual_seed(0)
    block = truth.Block(8, 2).double().eval()
    peer = nn.MultiheadAttention(8, 2, batch_first=True).double().eval()
    peer.in_proj_weight.data = block.query_key_value.weight.data
    peer.in_proj_bias.data = block.query_key_value.bias.data
    peer.out_proj.load_state_dict(block.mix.state_dict())
    tokens = torch.randn(3, 5, 8).double()
    z = block.norm1(tokens)
    tokens_seen = tokens + peer(z, z, z)[0]
    wanted = tokens_seen + block.dense(block.norm2(tokens_seen))
    assert torch.allclose(block(tokens), wanted, rtol=1e-12)


def test_patches_are_tokens_row_by_row():
    net = truth.transformer().eval()
    net.position.data.zero_()
    x = torch.zeros(1, 1, 28, 70)
    x[..., 14:, 28:42] = 1  # the lower patch of the mark is number 7
    tokens = []
    net.blocks.register_forward_pre_hook(lambda module, given: tokens.append(given[0]))
    net(x)
    assert tokens[0].shape == (1, 11, 32)
    patches = tokens[0][0, 1:]
    differs = (patches != patches[0]).any(1)
    assert differs.nonzero()[:, 0].tolist() == [7]


@pytest.mark.slow
def test_training_repeats_to_the_last_bit_and_learns():
    options = dict(steps=150, seed=1)
    net, again = (truth.train(truth.motif_network, truth.motifs, **options) for _ in range(2))
    assert all(map(torch.equal, net.parameters(), again.parameters()))
    assert not net.training and not any(p.requires_grad for p in net.parameters())
    new = truth.motifs(400, seed=10**6)
    assert (net(new.x).argmax(1) == new.labels).float().mean() > 0.5  # 0.25 by chance
    before = torch.get_rng_state()
    truth.train(truth.motif_network, truth.motifs, steps=1)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("wrong", [dict(steps=0), dict(batch_size=0), dict(learning_rate=0.0)])
def test_a_wrong_number_names_its_argument(wrong):
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))}:"):
        truth.train(truth.motif_network, truth.motifs, **wrong)


def test_wrong_draws_name_their_argument():
    with pytest.raises(ValueError, match=r"^split:"):
        truth.two_digits(3, "tests")
    for draw in (truth.two_digits, truth.motifs):
        with pytest.raises(ValueError, match=r"^count:"):
            draw(0)
        with pytest.raises(ValueError, match=r"^seed:"):
            draw(3, seed=-1)
