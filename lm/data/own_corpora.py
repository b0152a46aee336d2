"""Corpora from the user's own files: a text, labelled texts, pairs. `OWN` is a part of CORPORA (lm/data/corpora.py)."""

from lm.data import labelled, labelled_corpora, own_warnings, pair_corpora
from lm.data.definition import Built, Definition
from lm.data.own_files import OwnFile, read_own
from lm.data.pair_corpora import NAMES_OF_END
from lm.data.text import (
    BYTE_VOCABULARY,
    SPLITS,
    UNKNOWN,
    Vocabulary,
    bpe_vocabulary,
    character_vocabulary,
    divide,
    plain_text,
    word_vocabulary,
)
from lm.errors import UserError


def _textfile(data, text, splits, given) -> Built:
    """Your own text file config.data.path, read at config.data.level. Vocabulary: the symbols of train.

    Divides this text by config.data.fractions in file order. If config.data.valid_path or test_path is set, the whole
    text is for training. Encodes all parts, also those not requested, because the vocabulary needs an unknown symbol
    if any part has a symbol that train lacks.
    """
    files = own_files(data)
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
    more = _described(files) | {
        "bytes": {name: len(part.encode("utf-8", "surrogateescape")) for name, part in parts.items()},
        "unknown_rate": {name: vocabulary.unknown_rate(ids) for name, ids in arrays.items()},
    }
    return vocabulary, arrays, more


def own_files(data) -> dict[str, list[OwnFile]]:
    """Reads and returns {split: its files}. Raises UserError if two splits have a file with the same text."""
    files = {"train": read_own(data.path, "config.data.path")}
    if data.valid_path:
        files["valid"] = read_own(data.valid_path, "config.data.valid_path")
    if data.test_path:
        files["test"] = read_own(data.test_path, "config.data.test_path")
    seen: dict[str, str] = {}
    for split, read in files.items():
        for file in read:
            if file.text_sha256 and (also := seen.setdefault(file.text_sha256, split)) != split:
                raise UserError(f"config.data.{split}_path: {file.path} repeats a {also} file, so its score misleads")
    return files


def _joined(files: list[OwnFile], level: str) -> str:
    """Concatenates files. Bytes that are not UTF-8 become surrogates at level byte; otherwise they raise UserError."""
    if level == "byte":
        content = b"".join(file.content for file in files)
        if not content:
            raise UserError(f"{files[0].path}: the file is empty")
        return content.decode("utf-8", "surrogateescape")
    texts = [plain_text(file.content, f"config.data: {file.path}") for file in files]
    return "".join(text if text.endswith("\n") else text + "\n" for text in texts[:-1]) + texts[-1]


def _own_vocabulary(train: str, data, unknown: bool = False) -> Vocabulary:
    """Builds the vocabulary of a training text at config.data.level."""
    if data.level == "byte":
        if data.max_vocabulary:
            raise UserError("config.data.max_vocabulary must be 0 with config.data.level=byte: all bytes are symbols")
        return BYTE_VOCABULARY
    if data.level == "bpe":
        return bpe_vocabulary(train, data.max_vocabulary)
    make = character_vocabulary if data.level == "char" else word_vocabulary
    return make(train, limit=data.max_vocabulary, unknown=unknown)


def _labelled(data, text, splits, given) -> Built:
    """Your own labelled texts in config.data.format. Vocabulary: see config.data.words. Labels: those in train.

    Without config.data.valid_path, a random share config.data.valid_share of the training examples becomes valid.
    """
    files = own_files(data)
    read = {name: labelled.read_rows(some, data, name) for name, some in files.items()}
    if "train" in splits:  # so that each run warns once
        own_warnings.warn_of_shared({name: [row[:2] for row in some] for name, some in read.items()}, data)
        tokens = {name: (token for row in some for token in row.tokens) for name, some in read.items()}
        own_warnings.warn_of_special(tokens, [UNKNOWN["word"]])
        own_warnings.warn_of_header(read["train"], data)
    vocabulary, arrays, more = labelled_corpora.built(read, data, SPLITS, given)
    labelled.check_labels(arrays, vocabulary, drawn="valid" not in files)
    return vocabulary, arrays, more | _described(files)


def _pairs(data, text, splits, given) -> Built:
    """Your own pairs in two columns of a TSV or CSV file. Valid: as for config.data.corpus=labelled."""
    files = own_files(data)
    level = "char" if data.tokenizer == "characters" else "word"
    pairs = {name: pair_corpora.read_own_pairs(read, data, name) for name, read in files.items()}
    if "train" in splits:
        own_warnings.warn_of_shared(
            {name: [(tuple(p.source), tuple(p.target)) for p in some] for name, some in pairs.items()}, data
        )
        tokens = {name: (token for p in some for token in (*p.source, *p.target)) for name, some in pairs.items()}
        own_warnings.warn_of_special(tokens, [NAMES_OF_END[level], UNKNOWN[level]])
    vocabulary, arrays, more = pair_corpora.built(pairs, level, data, SPLITS, given)
    return vocabulary, arrays, more | _described(files)


def _described(files: dict[str, list[OwnFile]]) -> dict[str, list]:
    """Returns {"sources": a description of each file for records, "own": `own_digests`}."""
    sources = [
        {"file": file.path, "url": None, "bytes": len(file.content), "sha256": file.sha256}
        for read in files.values()
        for file in read
    ]
    return {"sources": sources, "own": own_digests(files)}


def own_digests(files: dict[str, list[OwnFile]]) -> list[str]:
    """SHA-256 of the user's own files. The split names "valid" and "test" precede the hashes of their files."""
    digests = []
    for split, read in files.items():
        digests += ([] if split == "train" else [split]) + [file.sha256 for file in read]
    return digests


OWN = {
    "textfile": Definition(_textfile, {}, "the user's own file", None, divides=("fractions",)),
    "labelled": Definition(_labelled, {}, "the user's own files", None, divides=labelled.DRAWN_BY),
    "pairs": Definition(_pairs, {}, "the user's own files", None, divides=labelled.DRAWN_BY),
}
