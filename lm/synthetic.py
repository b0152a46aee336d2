"""The embedded corpus: generated text whose entropy, and so its perplexity floor, is known exactly.

Words follow each other as a Markov chain and are spelled in text8's alphabet, each followed by a space. Which word
may follow is decided in two draws: the class of the next word given the class of this one (GRAMMAR), then a word of
that class (LEXICON, by Zipf's law). Since no word is in two classes and every word ends in a space, the text can be
read back into words in one way only, and with pi the chain's stationary distribution

    nats per word       h = sum_w pi(w) * H(next word | w)
    symbols per word    l = sum_w pi(w) * (len(w) + 1)
    floor               h / l nats per character

is the exact entropy rate: no model's expected loss is below it, and one that has learned the chain reaches it.
"""

import bisect

import numpy as np

LEXICON = {
    "determiner": "the a every some this that no one",
    "adjective": "small old quick quiet bright green cold early heavy gentle",
    "noun": "river stone garden letter winter teacher bird engine village window story field horse lamp harbor cloud",
    "verb": "finds sees follows keeps leaves paints carries remembers crosses builds",
    "intransitive": "sleeps waits sings falls returns shines",
    "preposition": "in under near behind above through with",
    "adverb": "slowly often again never soon",
    "conjunction": "and but while because so",
}

# Probability of the next word's class given this word's class; every row sums to 1.
GRAMMAR = {
    "determiner": {"noun": 0.6, "adjective": 0.4},
    "adjective": {"noun": 0.85, "adjective": 0.15},
    "noun": {"verb": 0.4, "intransitive": 0.2, "preposition": 0.25, "conjunction": 0.15},
    "verb": {"determiner": 0.9, "adverb": 0.1},
    "intransitive": {"adverb": 0.3, "preposition": 0.3, "conjunction": 0.4},
    "preposition": {"determiner": 1.0},
    "adverb": {"conjunction": 0.6, "preposition": 0.4},
    "conjunction": {"determiner": 0.85, "adverb": 0.15},
}


class Source:
    """The chain over words: transitions [W, W], stationary [W], and the entropy rate.

    words: the W spellings; word_nats: h above; symbols_per_word: l above; floor_nats: h / l, nats per character
    """

    def __init__(self):
        self.words, classes, within = [], [], []
        for name, spelled in LEXICON.items():
            members = spelled.split()
            zipf = 1.0 / np.arange(1, len(members) + 1)
            self.words += members
            classes += [name] * len(members)
            within += list(zipf / zipf.sum())
        self.transitions = np.array(
            [[GRAMMAR[now].get(after, 0.0) * p for after, p in zip(classes, within, strict=True)] for now in classes]
        )
        self.stationary = stationary_distribution(self.transitions)
        positive = np.where(self.transitions > 0, self.transitions, 1.0)
        self.word_nats = float(self.stationary @ -(self.transitions * np.log(positive)).sum(axis=1))
        self.symbols_per_word = float(self.stationary @ [len(word) + 1 for word in self.words])
        self.floor_nats = self.word_nats / self.symbols_per_word

    def generate(self, characters: int, seed: np.random.SeedSequence) -> str:
        """A text of exactly `characters` characters that begins with a word drawn from the stationary distribution.

        Only double draws, cumulative sums and comparisons decide, so the text is the same on every machine.
        """
        rng = np.random.Generator(np.random.PCG64(seed))
        draws = iter(rng.random(characters // 2 + 2).tolist())  # the shortest word takes two characters
        cumulative = [row.tolist() for row in np.cumsum(self.transitions, axis=1)]
        word = bisect.bisect_right(np.cumsum(self.stationary).tolist(), next(draws))
        pieces, length = [], 0
        while length < characters:
            word = min(word, len(self.words) - 1)
            pieces.append(self.words[word])
            length += len(self.words[word]) + 1
            word = bisect.bisect_right(cumulative[word], next(draws))
        return (" ".join(pieces) + " ")[:characters]


def stationary_distribution(transitions: np.ndarray) -> np.ndarray:
    """pi [W] with pi P = pi and sum 1, for an irreducible chain P [W, W]."""
    size = len(transitions)
    equations = np.vstack([transitions.T - np.eye(size), np.ones(size)])
    return np.linalg.lstsq(equations, np.append(np.zeros(size), 1.0), rcond=None)[0]


def texts(size: int, seed: int) -> dict[str, str]:
    """Independent texts: train of `size` characters, valid and test of a twentieth each (at least 1,000)."""
    source, children = Source(), np.random.SeedSequence(seed).spawn(3)
    held_out = max(1000, size // 20)
    sizes = {"train": size, "valid": held_out, "test": held_out}
    return {split: source.generate(n, child) for (split, n), child in zip(sizes.items(), children, strict=True)}
