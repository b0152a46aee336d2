"""Corpora of pairs: sums and Multi30k (`PAIRS`, a part of CORPORA in lm/data/corpora.py), and the user's own.

Sources and targets have separate vocabularies, except in `addition`. The symbol that ends every sequence has id END
in both vocabularies.
"""

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lm.data import labelled
from lm.data.definition import GENERATED, Definition
from lm.data.files import files_in
from lm.data.pairs import END, Pairs, examples_of
from lm.data.text import SPLITS, UNKNOWN, Vocabulary
from lm.errors import UserError

NAMES_OF_END = {"char": "\n", "word": "<eos>"}
BELOW = (100, 1000)  # addition: exclusive upper bounds of the two numbers
MOST_SUMS = 10_000_000


class Pair(NamedTuple):
    """One pair of token sequences. text: the target as BLEU compares it, with words that the vocabulary lacks"""

    source: Sequence[str]
    target: Sequence[str]
    text: str


def collect_pair_vocabulary(train: Iterable[Pair], level: str, data) -> Vocabulary:
    """Collects the symbols of each side: the end of sequences, the unknown symbol, then the others by (-count, symbol).

    Leaves out symbols that occur fewer than config.data.min_count times on their side. If positive,
    config.data.max_vocabulary limits the number of symbols of each side.
    """
    first, sides = (NAMES_OF_END[level], UNKNOWN[level]), []
    for side in zip(*((pair.source, pair.target) for pair in train), strict=True):
        counts = collections.Counter(symbol for tokens in side for symbol in tokens)
        kept = [symbol for symbol in counts if counts[symbol] >= data.min_count and symbol not in first]
        kept.sort(key=lambda symbol: (-counts[symbol], symbol))
        sides.append((*first, *kept)[: data.max_vocabulary or None])
    return Vocabulary(level, sides[0], UNKNOWN[level], labels=sides[1])


def encode_pairs(pairs: Sequence[Pair], vocabulary: Vocabulary) -> Pairs:
    """Encodes pairs. Keeps the target texts."""
    sides = []
    for symbols, lists in (
        (vocabulary.symbols, [pair.source for pair in pairs]),
        (vocabulary.targets, [pair.target for pair in pairs]),
    ):
        index = {symbol: number for number, symbol in enumerate(symbols)}
        unknown = index.get(vocabulary.unknown or "", END)
        ids = [[index.get(symbol, unknown) for symbol in tokens] for tokens in lists]
        sides.append(examples_of(ids, np.min_scalar_type(len(symbols) - 1)))
    return Pairs(*sides, tuple(pair.text for pair in pairs))


def built(pairs: Mapping[str, Sequence[Pair]], level: str, data, splits, given) -> tuple:
    """Returns (vocabulary, {split: Pairs}, provenance). Valid is held out of train if it has no file."""
    pairs = labelled.with_valid(pairs, data)
    vocabulary = given or collect_pair_vocabulary(pairs["train"], level, data)
    arrays = {name: encode_pairs(some, vocabulary) for name, some in pairs.items() if name in splits}
    return vocabulary, arrays, {"examples": {name: len(some) for name, some in arrays.items()}}


# --- Sums -----------------------------------------------------------------------------------------------------------


def addition(data, text, splits, given) -> tuple:
    """Sums such as 45+123 -> 168. Train: config.data.size sums; valid and test: 1,000 each that are not in train.

    One number is below 100, the other below 1,000, and the smaller one comes first (as in flax, Heek et al. 2020).
    """
    if data.size > MOST_SUMS:
        raise UserError(f"config.data.size must be at most {MOST_SUMS} with config.data.corpus=addition")
    draw = np.random.default_rng(data.seed)
    low, high = np.sort(np.indices(BELOW).reshape(2, -1), axis=0)
    drawn = (low * max(BELOW) + high)[draw.permutation(low.size)]  # each sum as one integer, in random order
    held = drawn[np.sort(np.unique(drawn, return_index=True)[1])[:2000]]
    kept = drawn[~np.isin(drawn, held)]
    sums = {"train": kept[draw.integers(len(kept), size=data.size)], "valid": held[:1000], "test": held[1000:]}
    vocabulary = given or Vocabulary("char", ("\n", *"+0123456789"))
    arrays = {}
    for name in SPLITS:
        if name in splits or name == "train":
            numbers = (divmod(each, max(BELOW)) for each in sums[name].tolist())
            pairs = [Pair(f"{a}+{b}", str(a + b), str(a + b)) for a, b in numbers]
            arrays[name] = encode_pairs(pairs, vocabulary)
    return vocabulary, arrays, {"examples": {name: len(pairs) for name, pairs in arrays.items()}}


# --- Texts in two languages -----------------------------------------------------------------------------------------


def _multi30k(data, text, splits, given) -> tuple:
    """Image captions in German and English, one sentence per line, in lower case, tokenized by Moses."""
    pairs = {}
    for name in SPLITS:
        if name in splits or name == "train":
            lines = [text(f"{name}_{language}").splitlines() for language in ("de", "en")]
            pairs[name] = [Pair(a.split(), b.split(), b) for a, b in zip(*lines, strict=True)]
    return built(pairs, "word", data, splits, given)


def read_own_pairs(files, data, split: str) -> list[Pair]:
    """Reads pairs from TSV or CSV files; config.data.columns are the source and target columns. Raises UserError naming
    file and line of an invalid pair."""
    if data.format not in ("tsv", "csv"):
        raise UserError(f"config.data.format must be tsv or csv with config.data.corpus=pairs, not {data.format}")
    tokenize = labelled.TOKENIZERS[data.tokenizer]
    pairs = []
    for row in labelled.read_rows(files, data, split, ("source", "target")):
        target = tuple(tokenize(row.labels[0]))
        if not target:
            raise UserError(f"{row.where}: the target is empty")
        between = "" if data.tokenizer == "characters" else " "
        pairs.append(Pair(row.tokens, target, between.join(target)))  # BLEU compares tokens
    return pairs


_MULTI30K = files_in(
    "multi30k",
    """
    train_de train.lc.norm.tok.de.gz            609_350 7e3392f03c0fe978165d22fb5eaf0d0b9b1d9c413283b5193f02d4cb27e50797
    train_en train.lc.norm.tok.en.gz            557_961 79d990dd71713faec0e3165cbd3b60acdf6fe11cab2e37a28f374c6bdbb297ec
    valid_de val.lc.norm.tok.de.gz               23_687 006ad58fd6a2ad6502094160fe5273d93abf34a207967fdc69eafd7558b5ef39
    valid_en val.lc.norm.tok.en.gz               21_317 2c7e5e9cf54ba0dff0cc4b84836d5a583f80ecaaab90b37a123d1376306215cd
    test_de  test_2016_flickr.lc.norm.tok.de.gz  21_966 2628844bbb7783afa0ba8a9927f174aafeee715871aa8deed3af2c4d0b71a658
    test_en  test_2016_flickr.lc.norm.tok.en.gz  20_726 b95df925929cb222d0cf733f153bcbfba0f00180c85fd61dd5c4fb27f29ee394
    """,
)
_MULTI30K_HOME = "https://github.com/multi30k/dataset"
_MULTI30K_LICENCE = "Elliott et al. 2016: for research; not redistributed here"

PAIRS = {
    "addition": Definition(addition, {}, GENERATED, None, divides=("seed",), test_share=1.0, tokenizer="characters"),
    "multi30k": Definition(_multi30k, _MULTI30K, _MULTI30K_LICENCE, _MULTI30K_HOME, tokenizer="lower"),
}


def source_tokens(data, line: str) -> list[str]:
    """Tokenizes a line in the same way as the sources of the corpus of config.data."""
    tokenizer = PAIRS[data.corpus].tokenizer if data.corpus in PAIRS else data.tokenizer
    return list(labelled.TOKENIZERS[tokenizer](line))
