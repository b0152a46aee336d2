"""The built-in corpus: its exact entropy rate against independent computations, and its stability."""

import hashlib
import itertools
import math

import numpy as np
import pytest

from lm.data import synthetic
from lm.data.synthetic import GRAMMAR, WORDS, Chain, generate_splits, make_chain
from lm.data.text import TEXT8_ALPHABET

# sha256 of the texts of seed 0 and 20,000 characters.
DIGESTS = {
    "train": "a96d7a899bf17beb",
    "valid": "fe12f618494b360d",
    "test": "594bdff5b561266d",
}


@pytest.fixture(scope="module")
def chain():
    return make_chain(0)


def nats_of_words(chain, text):
    """-ln p of each whole word of a text except the first, from the transition table alone."""
    index = {word: i for i, word in enumerate(chain.words)}
    ids = [index[word] for word in text[: text.rindex(" ")].split(" ")]
    return [-math.log(chain.counts[pair] / 64) for pair in itertools.pairwise(ids)]


def test_words_are_distinct_and_of_the_alphabet():
    words = " ".join(WORDS.values()).split()
    assert len(set(words)) == len(words)
    assert set("".join(words)) <= set(TEXT8_ALPHABET) - {" "}


def test_probabilities_are_whole_64ths():
    for following in GRAMMAR.values():
        assert sum(sum(weights) for weights in following.values()) == 64


@pytest.mark.parametrize("seed", range(5))
def test_every_row_follows_the_grammar(seed):
    chain = make_chain(seed)
    group = {word: name for name, words in WORDS.items() for word in words.split()}
    assert (chain.counts.sum(axis=1) == 64).all()
    for word, row in zip(chain.words, chain.counts, strict=True):
        for name, weights in GRAMMAR[group[word]].items():
            given = [n for other, n in zip(chain.words, row, strict=True) if n and group[other] == name]
            assert sorted(given) == sorted(weights)


def test_stationary_distribution_by_brute_force(chain):
    """Long products of the transition matrix, averaged since the sentence structure is periodic."""
    share = np.zeros(len(chain.words))
    share[0] = 1.0
    total, steps = np.zeros_like(share), 20_000
    for _ in range(500):
        share = share @ chain.transition
    for _ in range(steps):
        share = share @ chain.transition
        total += share
    np.testing.assert_allclose(chain.stationary, total / steps, atol=1e-5)
    np.testing.assert_allclose(chain.stationary @ chain.transition, chain.stationary, atol=1e-13)
    assert chain.stationary.min() > 0
    assert chain.stationary.sum() == pytest.approx(1.0, abs=1e-12)


def test_the_floor_of_a_small_chain_by_hand():
    """a -> a or bb evenly, bb -> a: frequencies 2/3 and 1/3, ln 2 per a, (2 * 2 + 1 * 3) / 3 characters."""
    counts = np.array([[32, 32], [64, 0]])
    chain = Chain(("a", "bb"), counts, synthetic._stationary(counts / 64))
    np.testing.assert_allclose(chain.stationary, [2 / 3, 1 / 3], atol=1e-13)
    assert chain.floor_nats == pytest.approx((2 / 3 * math.log(2)) / (7 / 3), rel=1e-12)


def test_the_chain_itself_scores_the_floor_on_its_text(chain):
    text = chain.generate(1_000_000, "test", 0)
    nats = nats_of_words(chain, text)
    # Blocks of 1,000 words are nearly independent: their spread gives the standard error.
    blocks = np.array(nats[: len(nats) // 1000 * 1000]).reshape(-1, 1000).mean(axis=1)
    error = blocks.std(ddof=1) / math.sqrt(len(blocks)) / np.mean(nats)
    measured = sum(nats) / len(text)
    assert error < 0.003
    assert abs(measured / chain.floor_nats - 1) < 4 * error


def test_no_context_of_characters_predicts_better_than_the_floor(chain):
    """The conditional entropy of a character approaches the floor from above as its context grows."""
    text = chain.generate(300_000, "train", 0)

    def entropy(order):
        _, counts = np.unique([text[i : i + order] for i in range(len(text) - order)], return_counts=True)
        return -float(np.sum(counts / counts.sum() * np.log(counts / counts.sum())))

    conditional = [entropy(order) - entropy(order - 1) for order in (2, 4, 7)]
    assert conditional == sorted(conditional, reverse=True)
    assert conditional[-1] > chain.floor_nats


def test_perplexity_floor_leaves_something_to_learn():
    for seed in range(5):
        assert 1.25 < math.exp(make_chain(seed).floor_nats) < 1.4


def test_text_is_the_same_on_every_machine():
    texts, chain = generate_splits(20_000, 0)
    digests = {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in texts.items()}
    assert digests == DIGESTS
    assert chain.floor_nats == pytest.approx(0.26941572922636947, rel=1e-12)
    assert texts["train"].startswith("one dog brings another red lamp but every bear brings her red lamp ")


def test_sizes_and_independence_of_splits():
    texts, _ = generate_splits(100_003, 1)
    assert {name: len(text) for name, text in texts.items()} == {
        "train": 100_003,
        "valid": 5_000,
        "test": 5_000,
    }
    assert len({text[:200] for text in texts.values()}) == 3
    longer, _ = generate_splits(200_000, 1)
    assert longer["train"].startswith(texts["train"])  # the size decides the length only
    other, _ = generate_splits(100_003, 2)
    assert other["train"][:200] != texts["train"][:200]
    assert {len(text) for text in generate_splits(1, 0)[0].values()} == {1, 1000}


def test_chain_that_cannot_reach_a_word_is_drawn_again():
    assert synthetic._is_irreducible(np.array([[0, 1], [1, 0]]))
    assert not synthetic._is_irreducible(np.array([[1, 0], [1, 1]]))
    ring = np.roll(np.eye(99, dtype=int), 1, axis=1)
    assert synthetic._is_irreducible(ring)
