"""The grammar of the page on words says who decides, and the reader reads as it is told."""

import pytest
import torch

from tutorial_book import words

SOME = words.reviews(200, seed=5)


def test_a_review_is_good_as_its_own_words_say():
    for sentence, is_good, deciding in SOME:
        subject = 3 if sentence[3] == sentence[0] else 9
        modifier, adjective = sentence[subject + 2 : subject + 4]
        assert is_good == ((adjective in words.GOOD) != (modifier in words.NO))
        negated = [subject + 2] if modifier in words.NO else []
        assert deciding == [*negated, subject + 3]
        assert len(sentence) == words.LENGTH and sentence[0] != sentence[12 - subject]


def test_reviews_have_both_answers_and_both_places():
    assert 0.3 < sum(review.is_good for review in SOME) / 200 < 0.7
    assert {review.deciding[-1] for review in SOME} == {6, 12}


@pytest.mark.slow
def test_training_follows_its_seed_and_leaves_the_random_state_alone():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, again = (words.train_once(SOME, seed=1, epochs=1) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    for p, q in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q) and not p.requires_grad


def test_training_begins_again_until_the_reader_reads(monkeypatch):
    def once(known, seed):
        return lambda ids: torch.tensor([float(r.is_good) - 0.5 for r in known]) * (seed > 1000)

    monkeypatch.setattr(words, "train_once", once)
    reader = words.train(SOME, seed=7)
    assert (reader(None) > 0).tolist() == [review.is_good for review in SOME]
    with pytest.raises(RuntimeError, match="known: no reader has learnt"):
        words.train(SOME, seed=7, attempts=1)


def test_a_map_of_words_has_a_number_for_each_and_sums_from_its_baseline():
    torch.manual_seed(0)
    net = words.Reader().eval().requires_grad_(False)
    ids = words.numbers([review.words for review in SOME[:3]])
    maps = words.word_maps(net, ids)
    assert {m.shape for m in maps.values()} == {(3, 13)}
    for token in ("[pad]", "[mask]"):
        start = net.opinions(words.every_word(net, token))[:, 0]
        assert torch.allclose(maps[f"IG, {token}"].sum(1), net(ids) - start, atol=0.05)
