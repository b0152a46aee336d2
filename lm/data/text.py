"""Tokenizers and vocabularies: encodes text as token ids and decodes it.

The id of a symbol is its position in the vocabulary. Arrays hold ids in the smallest unsigned type that fits. Long
texts are processed in pieces to limit memory.
"""

import collections
import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer, UInt

from lm.data import subwords
from lm.errors import UserError

SPLITS = ("train", "valid", "test")
LEVELS = ("char", "word", "byte", "bpe")
END_OF_SENTENCE = "<eos>"
UNKNOWN = {"char": "\ufffd", "word": "<unk>"}  # level -> symbol for unknown characters or words
TEXT8_ALPHABET = " abcdefghijklmnopqrstuvwxyz"
_CODE_POINTS = 0x110000
_PIECE = 1 << 20  # characters processed at once
_WHITE_SPACE = re.compile(r"\s")


@dataclass(frozen=True)
class Vocabulary:
    """An ordered set of symbols.

    level: char, word, byte or bpe
    symbols: in the order of their ids
    unknown: the symbol that replaces characters or words outside the vocabulary; None: they raise an error
    bpe: with level bpe, the tokenizer as JSON (lm/data/subwords.py)
    labels: labels in the order of their ids; for pairs, the target symbols, or () if both sides share `symbols`
    """

    level: str
    symbols: tuple[str, ...]
    unknown: str | None = None
    bpe: str = ""
    labels: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        return len(self.symbols)

    @property
    def targets(self) -> tuple[str, ...]:
        """Target symbols of pairs."""
        return self.labels or self.symbols

    @property
    def dtype(self) -> np.dtype:
        """The smallest unsigned integer type that holds every id."""
        return np.min_scalar_type(max(0, self.size - 1))

    @property
    def digest(self) -> str:
        """SHA-256 of `record`."""
        return hashlib.sha256(json.dumps(self.record).encode()).hexdigest()

    @property
    def digests(self) -> tuple[str, str]:
        """The digest, and the digest used by earlier versions: SHA-256 of the symbols alone."""
        return self.digest, hashlib.sha256(json.dumps(self.symbols).encode()).hexdigest()

    @property
    def record(self) -> dict:
        """All fields, JSON-serialisable; labels only if not empty."""
        fields = {name: getattr(self, name) for name in ("level", "symbols", "unknown", "bpe")}
        return fields | ({"labels": self.labels} if self.labels else {})

    def encode(self, text: str) -> UInt[np.ndarray, " N"]:
        """Encodes a text as ids of `dtype`.

        Without an unknown symbol, raises UserError naming the first characters or words outside the vocabulary.
        """
        if self.level == "byte":
            return np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8)
        if self.level == "bpe":
            return np.array(subwords.encode_bpe(self.bpe, text), self.dtype)
        return self._encode_characters(text) if self.level == "char" else self._encode_words(text)

    def decode(self, ids: Integer[np.ndarray, " N"]) -> str:
        """Decodes ids to text. Words are joined by single spaces."""
        if self.level == "byte":
            return subwords.decode_bytes(bytes(ids.tolist()))
        if self.level == "bpe":
            tokens = subwords.bpe_tokens(self.bpe)
            return subwords.decode_bytes(b"".join(tokens[index] for index in ids.tolist()))
        symbols = (self.symbols[index] for index in ids.tolist())
        return ("" if self.level == "char" else " ").join(symbols)

    def reset_id(self, symbol: str) -> int | None:
        """The id of config.data.reset; None if it is empty. Raises UserError if it is not in the vocabulary."""
        if not symbol:
            return None
        if symbol not in self.symbols:
            raise UserError(f"config.data.reset={symbol!r} is not a symbol of the corpus")
        return self.symbols.index(symbol)

    def unknown_rate(self, ids: Integer[np.ndarray, " N"]) -> float:
        """The fraction of ids that are the unknown symbol."""
        return 0.0 if self.unknown is None else float(np.mean(ids == self.symbols.index(self.unknown)))

    def tokens(self, text: str) -> list[str]:
        """Tokenizes a text without encoding it: keeps tokens outside the vocabulary."""
        if self.level in ("byte", "bpe"):
            return [self.symbols[index] for index in self.encode(text).tolist()]
        return list(text) if self.level == "char" else words(text)

    def bytes_of(self, text: str, count: int) -> int:
        """Size in UTF-8 bytes of the first `count` tokens of a text, including the white space before each word."""
        if self.level == "byte":
            return count
        if self.level == "bpe":
            tokens = subwords.bpe_tokens(self.bpe)
            return sum(len(tokens[index]) for index in self.encode(text)[:count].tolist())
        token = r"[\s\S]" if self.level == "char" else r"[^\S\n]*(?:\S+|\n)"
        start = re.match(f"(?:{token}){{0,{count}}}", text)
        return len(start[0].encode()) if start else 0

    def _encode_characters(self, text: str) -> np.ndarray:
        missing = self.size  # one past the last id
        table = np.full(_CODE_POINTS, missing, np.min_scalar_type(missing))
        table[[ord(symbol) for symbol in self.symbols]] = np.arange(self.size)
        if self.unknown is not None:
            table[table == missing] = self.symbols.index(self.unknown)
        ids = np.empty(len(text), self.dtype)
        for start in range(0, len(text), _PIECE):
            piece = text[start : start + _PIECE]
            found = table[_code_points(piece)]
            if self.unknown is None and found.max() == missing:
                lacking = np.flatnonzero(found == missing)
                raise self._unknown_symbols([piece[i] for i in lacking], start + int(lacking[0]))
            ids[start : start + len(piece)] = found
        return ids

    def _encode_words(self, text: str) -> np.ndarray:
        index = {symbol: i for i, symbol in enumerate(self.symbols)}
        default = None if self.unknown is None else index[self.unknown]
        parts, done = [np.empty(0, self.dtype)], 0
        for piece in _pieces_of_words(text):
            tokens = words(piece)
            found = [index.get(token, default) for token in tokens]
            if default is None and None in found:
                lacking = [token for token in tokens if token not in index]
                raise self._unknown_symbols(lacking, done + found.index(None))
            parts.append(np.array(found, self.dtype))
            done += len(tokens)
        return np.concatenate(parts)

    def _unknown_symbols(self, lacking: list[str], position: int) -> UserError:
        """The error for symbols outside the vocabulary. position: of the first of them"""
        kinds = list(dict.fromkeys(lacking))
        shown = ", ".join(repr(symbol) for symbol in kinds[:5])
        more = f" and {len(kinds) - 5} more" if len(kinds) > 5 else ""
        unit = "character" if self.level == "char" else "word"
        return UserError(f"{unit}s that are not in the vocabulary: {shown}{more} (first at {unit} {position})")


TEXT8_VOCABULARY = Vocabulary("char", tuple(TEXT8_ALPHABET))  # space has id 0, a to z have 1 to 26
BYTE_VOCABULARY = Vocabulary("byte", subwords.BYTES)


def words(text: str) -> list[str]:
    """Splits a text at white space and turns each newline into the token <eos>, as TensorFlow's ptb_word_lm does."""
    return text.replace("\n", f" {END_OF_SENTENCE} ").split()


def next_word_boundary(text: str, position: int) -> int:
    """The first index >= position where the text can be split without splitting a word.

    This is 0, an index right after a white-space character, or the end of the text.
    """
    if position == 0 or position >= len(text) or text[position - 1].isspace():
        return min(position, len(text))
    match = _WHITE_SPACE.search(text, position)
    return match.end() if match else len(text)


def plain_text(content: bytes, name: str) -> str:
    """Decodes a UTF-8 file. Drops a byte-order mark and turns every line end into \\n.

    Raises UserError with `name` for invalid UTF-8, for NUL, and for a file without text.
    """
    try:
        text = one_line_end(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        packed = content.startswith((b"\x1f\x8b", b"PK\x03\x04"))
        remedy = "the file is compressed: unpack it" if packed else "convert the file to UTF-8"
        raise UserError(f"{name}: byte {error.start} (0x{content[error.start]:02x}) is not UTF-8: {remedy}") from error
    if "\0" in text:
        raise UserError(f"{name}: byte {content.index(0)} is NUL: this is not a text file")
    if not text.strip():
        raise UserError(f"{name}: the file has no text")
    return text


def one_line_end(text: str) -> str:
    """Drops a byte-order mark and turns every line end into \\n."""
    text = text.removeprefix("\ufeff")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def divide(text: str, fractions: tuple[float, ...], level: str) -> dict[str, str]:
    """Divides a text into train, valid and test, in this order, by fractions of its characters.

    Leaves out parts with fraction 0. At level word, never splits a word. Raises UserError for invalid fractions and
    for a text so short that a part would be empty.
    """
    shares = tuple(fractions)
    if len(shares) != 3 or min(shares) < 0 or shares[0] == 0 or not abs(sum(shares) - 1) < 1e-6:
        raise UserError(
            f"config.data.fractions={shares}: must be the fractions of train, valid and test, with sum 1 and the "
            "first above 0"
        )
    names = [name for name, share in zip(SPLITS, shares, strict=True) if share]
    totals = list(itertools.accumulate(share for share in shares if share))
    cuts = [0, *(int(len(text) * total) for total in totals[:-1]), len(text)]
    if level == "word":
        cuts = [next_word_boundary(text, cut) for cut in cuts]
    parts = {name: text[start:end] for name, (start, end) in zip(names, itertools.pairwise(cuts), strict=True)}
    for name, part in parts.items():
        if not part or (level == "word" and part.isspace()):
            raise UserError(
                f"config.data.fractions={shares}: {name} would be empty: the whole text has only {len(text)} characters"
            )
    return parts


def bpe_vocabulary(text: str, size: int) -> Vocabulary:
    """Trains byte-level BPE with `size` tokens. Raises UserError if `size` is below 257."""
    bpe = subwords.train_bpe(text, size)
    names = [subwords.decode_bytes(token) for token in subwords.bpe_tokens(bpe)]
    return Vocabulary("bpe", tuple(names), bpe=bpe)


def character_vocabulary(text: str, limit: int = 0, unknown: bool = False) -> Vocabulary:
    """Collects characters in code-point order. limit, unknown: as in `word_vocabulary`, with U+FFFD for <unk>"""
    counts = np.zeros(_CODE_POINTS, np.int64)
    for start in range(0, len(text), _PIECE):
        found = np.bincount(_code_points(text[start : start + _PIECE]))
        counts[: len(found)] += found
    codes = np.flatnonzero(counts).tolist()
    return _vocabulary("char", {chr(code): int(counts[code]) for code in codes}, limit, unknown)


def word_vocabulary(text: str, limit: int = 0, unknown: bool = False) -> Vocabulary:
    """Collects the words of a text, sorted by (-count, word), the order of TensorFlow's ptb_word_lm.

    limit: if positive, the maximum size including <unk>; the least frequent words are left out
    unknown: adds <unk> even if no word is left out
    """
    counts = collections.Counter()
    for piece in _pieces_of_words(text):
        counts.update(words(piece))
    return _vocabulary("word", counts, limit, unknown)


def _vocabulary(level: str, counts: dict[str, int], limit: int, unknown: bool) -> Vocabulary:
    """Selects the symbols of a vocabulary from their counts."""
    replacement = UNKNOWN[level]
    symbols = sorted(counts, key=lambda symbol: (-counts[symbol], symbol))
    if limit and len(symbols) + (unknown and replacement not in counts) > limit:
        unknown = True
        symbols = [symbol for symbol in symbols if symbol != replacement][: limit - 1]
    if level == "char":
        symbols.sort()
    if unknown and replacement not in symbols:
        symbols.append(replacement)
    return Vocabulary(level, tuple(symbols), replacement if unknown else None)


def _code_points(text: str) -> np.ndarray:
    """The code point of every character [N]: uint8 for ASCII, else uint32."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _pieces_of_words(text: str) -> Iterator[str]:
    """Splits a text between words into pieces of about a million characters."""
    start = 0
    while start < len(text):
        end = next_word_boundary(text, start + _PIECE)
        yield text[start:end]
        start = end
