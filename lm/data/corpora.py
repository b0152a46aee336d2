"""Loads corpora as token arrays.

`load` returns a `Corpus`; CORPORA lists all corpora. To add one, add a `Definition` to a table such as TEXTS in
lm/data/text_corpora.py: a builder, and its files as `RegisteredFile`s (lm/data/files.py).
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from lm.data.definition import Arrays
from lm.data.examples import ids_of
from lm.data.files import read_text
from lm.data.labelled_corpora import LABELLED
from lm.data.own_corpora import OWN, own_digests, own_files
from lm.data.pair_corpora import PAIRS
from lm.data.rows import CS224D
from lm.data.state_tracking import STATE_TRACKING
from lm.data.text import SPLITS, Vocabulary
from lm.data.text_corpora import SYNTHETIC, TEXTS
from lm.errors import UserError, lookup

# Keys of config.data that corpora of plain text do not read, with their defaults.
LABELLED_KEYS = {"tokenizer": "spaces", "min_count": 1, "words": "train", "digits": "kept"}
CORPORA = TEXTS | OWN | LABELLED | CS224D | PAIRS | STATE_TRACKING | SYNTHETIC


class Corpus(NamedTuple):
    """A corpus in memory.

    splits: {split: ids [N], Examples, Pairs or Rows} of the requested splits that exist
    provenance: description of the data for records; JSON-serialisable
    """

    name: str
    vocabulary: Vocabulary
    splits: Arrays
    provenance: dict


def load(
    data: ConfigDict, data_dir: str | None, splits: tuple[str, ...] = SPLITS, vocabulary: Vocabulary | None = None
) -> Corpus:
    """Loads the corpus of config.data. Requested splits that the corpus does not have are left out.

    Reads only the files of these splits and the file from which the vocabulary is built.
    data_dir: directory searched before downloading; None to skip this search
    vocabulary: used instead of the corpus's own, for example that of a trained model
    Raises UserError for a missing file, a wrong checksum, a key of config.data that does not fit the corpus, and
    symbols outside the vocabulary.
    """
    definition, used = lookup(CORPORA, data.corpus, "config.data.corpus"), {}
    for key in ("path", "valid_path", "test_path"):
        if data[key] and data.corpus not in OWN:
            raise UserError(
                f"config.data.{key}={data[key]} is read only with config.data.corpus={' or '.join(OWN)}, not "
                f"{data.corpus}"
            )
    for key, default in LABELLED_KEYS.items():
        if data[key] != default and data.corpus in (*TEXTS, *SYNTHETIC, "textfile"):
            raise UserError(
                f"config.data.{key}={data[key]} is read only for labelled text and pairs, not with "
                f"config.data.corpus={data.corpus}"
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
        for counted in ("bytes", "words", "unknown_rate"):  # counted before train was shortened
            more.get(counted, {}).pop("train", None)
    provenance = {
        "corpus": data.corpus,
        "checksum": _digest(data.corpus, more.pop("own", [])),
        "homepage": definition.homepage,
        "licence": definition.licence,
        "sources": [{"file": f.path, "url": f.url, "bytes": f.size, "sha256": f.sha256} for f in used.values()],
        "level": vocabulary.level,
        "vocabulary": vocabulary.size,
        "tokens": {name: len(ids_of(split)) for name, split in arrays.items()},
        "unknown_rate": {name: vocabulary.unknown_rate(ids_of(split)) for name, split in arrays.items()}
        | more.pop("unknown_rate", {}),
        **more,
    }
    return Corpus(data.corpus, vocabulary, arrays, provenance)


def _alternative(name: str, data_dir: str | None) -> str:
    """Returns "; or pass --config.data.corpus=A" if another corpus with the same builder is in data_dir; else ""."""
    for other, definition in CORPORA.items():
        files = [Path(data_dir or "", file.path) for file in definition.files.values()]
        same = other != name and definition.build is CORPORA[name].build
        if same and data_dir and files and all(path.is_file() for path in files):
            return f"; or pass --config.data.corpus={other}, which is in {data_dir}"
    return ""


def checksum(data: ConfigDict) -> str:
    """Hashes the files of config.data to 16 hexadecimal digits, part of a run's identity.

    Registered files are not read: their SHA-256 is known. The user's own files are read; raises UserError if that
    fails. A generated text has no files: config.data, which is also part of the identity, determines it.
    """
    return _digest(data.corpus, own_digests(own_files(data)) if data.corpus in OWN else [])


def _digest(corpus: str, own: list[str]) -> str:
    """Checksum of a corpus. own: `own_digests` of the user's own files"""
    digests = own if corpus in OWN else sorted(file.sha256 for file in CORPORA[corpus].files.values())
    return hashlib.sha256(" ".join([corpus, *digests]).encode()).hexdigest()[:16]
