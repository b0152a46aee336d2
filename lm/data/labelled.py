"""Reads labelled text in several file formats.

format     one example                                                      its label
tsv        a line with tab-separated columns, one of them the text          another column
csv        a row of comma-separated values, quoted where needed             another column
folders    a file                                                           the name of its folder
columns    a sentence: one token per line, sentences separated by empty     another column of each line:
           lines, columns by white space (CoNLL)                            one label per token

config.data.columns = (text, label) counts columns from 0; -1 is the last.

words       symbols of the vocabulary
train       the words of the training text; all other words are read as <unk>
all_splits  the words of valid and test too, for models that start from word vectors: a word that occurs only in valid
            or test keeps its pretrained vector. Reads the texts of valid and test before training, not their labels
"""

import collections
import csv
import io
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from lm.data.examples import Examples
from lm.data.own_files import OwnFile
from lm.data.text import UNKNOWN, Vocabulary, plain_text
from lm.errors import UserError, in_short, suggestions

HEADERS = ("none", "first_line")
DIGITS = ("kept", "DIGIT")
WORDS = ("train", "all_splits")
DOCUMENT_START = "-DOCSTART-"  # separates documents in CoNLL files

Item = TypeVar("Item")


class Row(NamedTuple):
    """One example before encoding. labels: one, or one per token; where: "FILE, line 3", for errors"""

    tokens: tuple[str, ...]
    labels: tuple[str, ...]
    where: str


# --- Tokens ---------------------------------------------------------------------------------------------------------

_KERAS_FILTER = re.compile(r"""[!"#$%&()*+,\-./:;<=>?@\[\\\]^_`{|}~\t\n]""")

TOKENIZERS: dict[str, Callable[[str], Iterable[str]]] = {
    "spaces": str.split,
    "lower": lambda text: text.lower().split(),
    # Lower-case words without punctuation, except apostrophes: Keras's Tokenizer.
    "keras": lambda text: _KERAS_FILTER.sub(" ", text.lower()).split(),
    "characters": list,
}


# --- Files ----------------------------------------------------------------------------------------------------------


def read_rows(files: Sequence[OwnFile], data, split: str, sides: tuple[str, str] = ("text", "label")) -> list[Row]:
    """Reads all examples of some files in config.data.format. Raises UserError naming file and line of an invalid one.

    sides: names of the two columns in errors
    """
    if data.format == "folders":
        _check_folders(files)
    rows = []
    for row in (row for file in files for row in FORMATS[data.format](file, data)):
        for side, filled in zip(sides, (row.tokens, all(row.labels)), strict=True):
            if not filled:
                raise UserError(f"{row.where}: the {side} is empty")
        rows.append(row)
    if not rows:
        raise UserError(f"config.data: {split} has no examples")
    return rows


def _table_rows(file: OwnFile, data, records: Iterable[tuple[int, list[str]]]) -> Iterable[Row]:
    tokenize, width = TOKENIZERS[data.tokenizer], 0
    for line, record in records:
        where, width = f"{file.path}, line {line}", width or len(record)
        if not "".join(record).strip() and len(record) == 1:
            raise UserError(f"{where}: the line is blank: remove it")
        if len(record) != width:
            raise UserError(f"{where}: it has {len(record)} columns, and the rows before it have {width}")
        text, label = _chosen(record, data.columns, where)
        yield Row(tuple(tokenize(text)), (label.strip(),), where)


def _chosen(record: Sequence[str], columns: tuple[int, int], where: str) -> tuple[str, str]:
    """Selects two columns of a record. Raises UserError if one is missing or both are the same."""
    width, (first, second) = len(record), columns
    for column in columns:
        if not -width <= column < width:
            raise UserError(f"{where}: it has {width} columns, and config.data.columns asks for column {column}")
    if first % width == second % width:
        both = f"config.data.columns={tuple(columns)} names one column twice"
        raise UserError(f"{where}: it has {width} columns, and {both}")
    return record[first], record[second]


def _numbered(lines: Iterable, data) -> Iterable[tuple[int, str]]:
    skipped = 1 if data.header == "first_line" else 0
    return [(number, line) for number, line in enumerate(lines, 1) if number > skipped]


def _read_tsv(file: OwnFile, data) -> Iterable[Row]:
    lines = plain_text(file.content, f"config.data: {file.path}").rstrip("\n").split("\n")
    return _table_rows(file, data, ((number, line.split("\t")) for number, line in _numbered(lines, data)))


def _read_csv(file: OwnFile, data) -> Iterable[Row]:
    text = plain_text(file.content, f"config.data: {file.path}")
    reader, end = csv.reader(io.StringIO(text), strict=True), 0
    records: list[tuple[int, list[str]]] = []
    try:
        for record in reader:
            records += [(reader.line_num, record)] if record else []
            end = reader.line_num
    except csv.Error as error:
        found = f"{error}, found in line {reader.line_num}: is a quote not closed?"
        raise UserError(f"{file.path}, line {end + 1}: {found}") from error
    return _table_rows(file, data, records[1:] if data.header == "first_line" else records)


def _read_folder(file: OwnFile, data) -> Iterable[Row]:
    text, label = plain_text(file.content, f"config.data: {file.path}"), os.path.basename(os.path.dirname(file.path))
    if not label:
        raise UserError(f"{file.path}: with config.data.format=folders, a file lies in a folder named after its class")
    yield Row(tuple(TOKENIZERS[data.tokenizer](text)), (label,), file.path)


def _check_folders(files: Sequence[OwnFile]):
    """Raises UserError unless all class folders share a parent: train/pos and test/pos are not one class."""
    first = os.path.dirname(os.path.dirname(files[0].path))
    for file in files:
        if os.path.dirname(os.path.dirname(file.path)) != first:
            other = f"the folder of {files[0].path} lies elsewhere"
            raise UserError(f"{file.path}: config.data.path must be a directory of one folder per class; {other}")


def _read_columns(file: OwnFile, data) -> Iterable[Row]:
    """Tokens are kept as they are; config.data.tokenizer=lower makes them lower case."""
    tokens, labels, first = [], [], 0
    lines = plain_text(file.content, f"config.data: {file.path}").split("\n")
    for number, line in [*_numbered(lines, data), (len(lines) + 1, "")]:
        record = line.split()
        if not record or record[0] == DOCUMENT_START:
            if tokens:
                yield Row(tuple(tokens), tuple(labels), f"{file.path}, line {first}")
            tokens, labels = [], []
            continue
        first = first if tokens else number
        token, label = _chosen(record, data.columns, f"{file.path}, line {number}")
        tokens.append(token.lower() if data.tokenizer == "lower" else token)
        labels.append(label)


FORMATS: dict[str, Callable[[OwnFile, object], Iterable[Row]]] = {
    "tsv": _read_tsv,
    "csv": _read_csv,
    "folders": _read_folder,
    "columns": _read_columns,
}


# --- Examples -------------------------------------------------------------------------------------------------------


def digits_of(token: str, digits: str) -> str:
    """Applies config.data.digits to a token. DIGIT: "1996" becomes "DIGITDIGITDIGITDIGIT"; other tokens are kept."""
    return "DIGIT" * len(token) if digits == "DIGIT" and token.isdigit() else token


def prepare_words(rows: Mapping[str, Sequence[Row]], data) -> dict[str, Sequence[Row]]:
    """Applies config.data.digits, and replaces words rarer than config.data.min_count by <unk>.

    Words are counted in the training file, before validation examples are held out of it.
    """

    def replace(word: Callable[[str], str]) -> dict[str, Sequence[Row]]:
        return {
            name: [row._replace(tokens=tuple(map(word, row.tokens))) for row in some] for name, some in rows.items()
        }

    if data.digits != "kept":
        rows = replace(lambda token: digits_of(token, data.digits))
    if data.min_count > 1:
        counts = collections.Counter(token for row in rows["train"] for token in row.tokens)
        rows = replace(lambda token: token if counts[token] >= data.min_count else UNKNOWN["word"])
    return dict(rows)


def collect_vocabulary(
    rows: Mapping[str, Sequence[Row]], data, special: tuple[str, ...] = (), labels: Sequence[str] = ()
) -> Vocabulary:
    """Collects the vocabulary: training words by (-count, word), labels in alphabetical order.

    rows: of each split; with config.data.words=all_splits, words that only valid or test has come last, with count 0
    special: symbols that come first; labels: the label list of the corpus, added to the training labels
    Always includes <unk>, for words of later texts. Raises UserError if all training examples have the same label.
    """
    unknown = UNKNOWN["word"]
    train, limit = rows["train"], data.max_vocabulary
    counts = collections.Counter(token for row in train for token in row.tokens)
    if data.words == "all_splits":
        counts.update(dict.fromkeys((token for split in rows.values() for row in split for token in row.tokens), 0))
    first = special if unknown in special else (*special, unknown)
    words = sorted((word for word in counts if word not in first), key=lambda word: (-counts[word], word))
    words = words[: max(0, limit - len(first))] if limit else words
    labels = sorted({label for row in train for label in row.labels} | set(labels))
    if len(labels) < 2:
        raise UserError(f"config.data: all {len(train)} training examples have the label {in_short(labels[0])}")
    return Vocabulary("word", (*first, *words), unknown, labels=tuple(labels))


def encode_rows(rows: Sequence[Row], vocabulary: Vocabulary, start: str = "") -> Examples:
    """Encodes rows. start: a symbol put before each text. Raises UserError for a label outside the vocabulary."""
    index = {symbol: number for number, symbol in enumerate(vocabulary.symbols)}
    label_index = {label: number for number, label in enumerate(vocabulary.labels)}
    unknown = index[vocabulary.unknown or vocabulary.symbols[0]]
    before = [index[start]] if start else []
    tokens, lengths, labels = [], [], []
    for row in rows:
        ids = before + [index.get(token, unknown) for token in row.tokens]
        tokens += ids
        lengths.append(len(ids))
        for label in row.labels:
            if label not in label_index:
                known = suggestions(label, vocabulary.labels)
                raise UserError(f"{row.where}: no training example has the label {in_short(label)}{known}")
            labels.append(label_index[label])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    kind = np.min_scalar_type(len(vocabulary.labels) - 1)
    return Examples(np.array(tokens, vocabulary.dtype), starts, np.array(labels, kind))


# Keys of config.data that determine which training examples are held out for validation.
DRAWN_BY = ("seed", "valid_share", "format", "header")


def with_valid(rows: Mapping[str, Sequence[Item]], data) -> dict[str, Sequence[Item]]:
    """Moves a random share config.data.valid_share of train to valid, unless valid has its own file.

    Keeps the file order. Raises UserError if a split would be empty.
    """
    rows = dict(rows)
    if "valid" not in rows and data.valid_share:
        train, share = rows["train"], data.valid_share
        count = round(share * len(train))
        if not 0 < count < len(train):
            raise UserError(f"config.data.valid_share={share:g} of {len(train)} training examples leaves a split empty")
        held = set(np.random.default_rng(data.seed).permutation(len(train))[:count].tolist())
        rows["train"] = [row for number, row in enumerate(train) if number not in held]
        rows["valid"] = [train[number] for number in sorted(held)]
    return rows


def check_labels(splits: dict[str, Examples], vocabulary: Vocabulary, drawn: bool):
    """Raises UserError if valid lacks a label of the training examples: its score would mislead.

    drawn: whether valid was drawn from the training examples
    """
    if "valid" not in splits:
        return
    present = set(splits["valid"].labels.tolist())
    if missing := [label for n, label in enumerate(vocabulary.labels) if n not in present]:
        remedy = "set another config.data.seed, a larger config.data.valid_share, or config.data.valid_path"
        remedy = remedy if drawn else "add one to the file of config.data.valid_path"
        raise UserError(f"config.data: no example of valid has the label {in_short(missing[0])}: {remedy}")
