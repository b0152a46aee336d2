"""The built-in corpus: generated English-like text whose entropy per character is known exactly.

A Markov chain over 99 words generates text such as "the old king finds a red stone near our river and every fox keeps
some key". The class of a word determines which classes may follow it (GRAMMAR). The seed determines which few words of
those classes follow each word, and their probabilities.

Every word is followed by a space, and all words are distinct. So a text can be split into words in only one way, and
its probability is the product of its transition probabilities:

    entropy rate per character = entropy(next word | word) / mean(characters of a word, space included),

both under the chain's stationary distribution (Cover & Thomas 2006, section 4.2). No model can have a lower expected
loss in nats per character; exp(entropy rate) is the perplexity floor.

The text depends only on the seed. All draws are raw 64-bit outputs of PCG64, whose stream NumPy never changes, and all
probabilities are multiples of 1/64, so there is no rounding.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

CHILD_SEEDS = {"chain": 0, "train": 1, "valid": 2, "test": 3}
_SLOTS = 64  # probabilities are multiples of 1 / _SLOTS

WORDS = {
    "article": "the every that one",
    "trait": "old young brave quiet clever hungry proud lonely",
    "creature": "king fox girl dog sailor queen bear wizard boy farmer owl wolf",
    "habit": "often never always gladly",
    "action": "finds keeps wants sees carries steals brings hides makes loves paints sells",
    "determiner": "a some her his this another",
    "look": "red small golden broken heavy green strange bright",
    "thing": "stone lamp book ring apple crown knife drum mirror coin cake key",
    "position": "near under behind inside beyond above",
    "owner": "my our your their its",
    "place": "house river forest garden tower bridge hill cave village market valley mill",
    "time": "today again tonight soon",
    "link": "and but while because so when",
}

# Class -> {class that may follow: probability, in 64ths, of each successor that a word has in it}. A row sums to 64.
GRAMMAR = {
    "article": {"trait": (10, 8, 6), "creature": (14, 12, 8, 6)},
    "trait": {"creature": (24, 18, 14, 8)},
    "creature": {"action": (18, 14, 10, 8), "habit": (8, 6)},
    "habit": {"action": (24, 18, 14, 8)},
    "action": {"determiner": (28, 20, 16)},
    "determiner": {"look": (10, 8, 6), "thing": (14, 12, 8, 6)},
    "look": {"thing": (24, 18, 14, 8)},
    "thing": {"position": (16, 14, 10), "link": (10, 6), "time": (8,)},
    "position": {"owner": (28, 20, 16)},
    "owner": {"place": (20, 18, 14, 12)},
    "place": {"link": (20, 14, 8), "time": (12, 10)},
    "time": {"link": (30, 20, 14)},
    "link": {"article": (26, 22, 16)},
}


@dataclass(frozen=True)
class Chain:
    """A Markov chain over S words.

    counts: counts[i, j] / 64 is the probability of word j after word i
    stationary: the long-run frequency of each word
    """

    words: tuple[str, ...]
    counts: Int[np.ndarray, "S S"]
    stationary: Float[np.ndarray, " S"]

    @property
    def transition(self) -> Float[np.ndarray, "S S"]:
        """Row i is the distribution of the word after word i."""
        return self.counts / _SLOTS

    @property
    def floor_nats(self) -> float:
        """Entropy rate in nats per character, a lower bound on any model's loss."""
        probability = self.transition
        nats = -np.log(probability, out=np.zeros_like(probability), where=probability > 0)
        per_word = float(self.stationary @ (probability * nats).sum(axis=1))
        characters = float(self.stationary @ np.array([len(word) + 1 for word in self.words]))
        return per_word / characters

    def generate(self, size: int, stream: str, seed: int) -> str:
        """Generates exactly `size` characters; the last word may be cut. stream: a key of CHILD_SEEDS."""
        successors = [np.repeat(np.arange(len(self.words)), row).tolist() for row in self.counts]
        bits = _bits(seed, stream)
        articles = len(WORDS["article"].split())  # first in `words`; a text begins with an article
        word = int(bits.random_raw() >> 58) * articles // _SLOTS
        spelled = [f"{word} " for word in self.words]
        parts, length = [spelled[word]], len(spelled[word])
        while length < size:
            # The 6 highest bits, the most random ones of PCG64, select one of 64 slots.
            for slot in (bits.random_raw(1 + (size - length) // 4) >> 58).tolist():
                word = successors[word][slot]
                parts.append(spelled[word])
                length += len(spelled[word])
                if length >= size:
                    break
        return "".join(parts)[:size]


def make_chain(seed: int) -> Chain:
    """Draws chains until one is irreducible: every word can be reached from every other."""
    words = tuple(word for group in WORDS.values() for word in group.split())
    groups = {name: [words.index(word) for word in group.split()] for name, group in WORDS.items()}
    bits = _bits(seed, "chain")
    while True:
        counts = np.zeros((len(words), len(words)), np.int64)
        for name, following in GRAMMAR.items():
            for other, weights in following.items():
                _connect(counts, groups[name], groups[other], weights, bits)
        if _is_irreducible(counts):
            return Chain(words, counts, _stationary(counts / _SLOTS))


def _connect(counts, starts, targets, weights, bits):
    """Gives each word in `starts` len(weights) random successors among `targets`.

    Deals the targets like cards, so that all are used about equally often.
    """
    deck = []
    for word in starts:
        chosen = []
        while len(chosen) < len(weights):
            card = next((card for card in deck if card not in chosen), None)
            if card is None:  # no card is left, or all that are left are chosen already
                deck += _shuffled(targets, bits)
            else:
                deck.remove(card)
                chosen.append(card)
        counts[word, _shuffled(chosen, bits)] += np.array(weights)


def _shuffled(items, bits) -> list:
    """Shuffles by random 64-bit sort keys: NumPy's own shuffle may change between versions."""
    return [items[i] for i in np.argsort(bits.random_raw(len(items)), kind="stable").tolist()]


def _bits(seed: int, stream: str) -> np.random.PCG64:
    """Returns the bit generator of an independent stream of `seed`. stream: a key of CHILD_SEEDS"""
    return np.random.PCG64(np.random.SeedSequence([seed, CHILD_SEEDS[stream]]))


def _is_irreducible(counts) -> bool:
    """True if every word can be reached from every other."""
    from scipy.sparse.csgraph import connected_components  # slow to import

    return connected_components(counts, connection="strong", return_labels=False) == 1


def _stationary(transition: Float[np.ndarray, "S S"]) -> Float[np.ndarray, " S"]:
    """Solves p = p @ transition with sum 1. The solution is unique if the chain is irreducible."""
    number = len(transition)
    equations = np.vstack([transition.T - np.eye(number), np.ones((1, number))])
    right = np.append(np.zeros(number), 1.0)
    return np.linalg.lstsq(equations, right, rcond=None)[0]


def generate_splits(size: int, seed: int) -> tuple[dict[str, str], Chain]:
    """Generates train (`size` characters), valid and test (size // 20 each, at least 1,000). Returns (texts, chain)."""
    chain = make_chain(seed)
    held_out = max(1000, size // 20)
    sizes = {"train": size, "valid": held_out, "test": held_out}
    return {name: chain.generate(n, name, seed) for name, n in sizes.items()}, chain
