"""Text to token ids and back: tokenisers and vocabularies for characters and words.

An id is the position of its symbol in the vocabulary; arrays hold ids in the smallest unsigned
type that fits. Long texts are worked on piece by piece: 100 MB must not need several times that.
"""

import collections
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lm.errors import UserError

SPLITS = ("train", "valid", "test")
LEVELS = ("char", "word")
END_OF_SENTENCE = "<eos>"
UNKNOWN_WORD = "<unk>"
UNKNOWN_CHARACTER = "\ufffd"
TEXT8_ALPHABET = " abcdefghijklmnopqrstuvwxyz"
_CODE_POINTS = 0x110000
_PIECE = 1 << 20  # characters worked on at once
_WHITE_SPACE = re.compile(r"\s")


@dataclass(frozen=True)
class Vocabulary:
    """An ordered set of symbols.

    level: char or word; symbols: in the order of their ids; unknown: the symbol that stands for all
    others, or None where every symbol must be known.
    """

    level: str
    symbols: tuple[str, ...]
    unknown: str | None = None

    @property
    def size(self) -> int:
        return len(self.symbols)

    @property
    def dtype(self) -> np.dtype:
        """The smallest unsigned integer type that holds every id."""
        return np.min_scalar_type(max(0, self.size - 1))

    def encode(self, text: str) -> np.ndarray:
        """Text -> ids [N] of `dtype`.

        Raises UserError naming the first symbols that are not held, where there is no unknown.
        """
        return self._encode_characters(text) if self.level == "char" else self._encode_words(text)

    def decode(self, ids) -> str:
        """Ids [N] -> text; words are joined by single spaces."""
        symbols = (self.symbols[index] for index in np.asarray(ids).tolist())
        return ("" if self.level == "char" else " ").join(symbols)

    def to_dict(self) -> dict:
        """Fields that JSON can hold."""
        return {"level": self.level, "symbols": list(self.symbols), "unknown": self.unknown}

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
                self._refuse([piece[i] for i in lacking], start + int(lacking[0]))
            ids[start : start + len(piece)] = found
        return ids

    def _encode_words(self, text: str) -> np.ndarray:
        index = {symbol: i for i, symbol in enumerate(self.symbols)}
        default = None if self.unknown is None else index[self.unknown]
        parts, done = [], 0
        for piece in _pieces_of_words(text):
            tokens = words(piece)
            found = [index.get(token, default) for token in tokens]
            if default is None and None in found:
                lacking = [token for token in tokens if token not in index]
                self._refuse(lacking, done + found.index(None))
            parts.append(np.array(found, self.dtype))
            done += len(tokens)
        return np.concatenate(parts) if parts else np.empty(0, self.dtype)

    def _refuse(self, lacking: list[str], position: int):
        kinds = list(dict.fromkeys(lacking))
        shown = ", ".join(repr(symbol) for symbol in kinds[:5])
        more = f" and {len(kinds) - 5} more" if len(kinds) > 5 else ""
        unit = "character" if self.level == "char" else "word"
        raise UserError(f"{unit}s that the vocabulary does not hold: {shown}{more} (first at {unit} {position})")


def words(text: str) -> list[str]:
    """Tokens by white space, each newline the token <eos> (the rule of TensorFlow's ptb_word_lm)."""
    return text.replace("\n", f" {END_OF_SENTENCE} ").split()


def next_word_boundary(text: str, position: int) -> int:
    """The first index >= position that is 0, behind a white-space character, or the text's end.

    A text cut there has the same words in its two parts as in one.
    """
    if position == 0 or position >= len(text) or text[position - 1].isspace():
        return min(position, len(text))
    match = _WHITE_SPACE.search(text, position)
    return match.end() if match else len(text)


def decode_utf8(content: bytes, what: str) -> str:
    """Raises UserError, naming `what` and the first bad byte's offset, where this is not UTF-8."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{what}: byte {error.start} (0x{content[error.start]:02x}) is not UTF-8: convert the file to UTF-8"
        ) from error


def plain_text(content: bytes, what: str) -> str:
    """The text of a UTF-8 file from anywhere: no byte-order mark, and every line end a \\n.

    Raises UserError, naming `what`, where the bytes are not UTF-8, hold NUL, or hold no text at all.
    """
    text = decode_utf8(content, what).removeprefix("\ufeff")
    if "\0" in text:
        raise UserError(f"{what}: byte {content.index(0)} is NUL, which no text file holds")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise UserError(f"{what}: the file holds no text")
    return text


def divide(text: str, fractions: tuple[float, ...], level: str) -> dict[str, str]:
    """The parts train, valid and test by fractions of the text's characters, in its order.

    Words are not cut; a fraction of 0 leaves its part out. Raises UserError where fractions or text
    do not allow it.
    """
    shares = tuple(fractions)
    if len(shares) != 3 or min(shares) < 0 or shares[0] == 0 or not abs(sum(shares) - 1) < 1e-6:
        raise UserError(
            f"config.data.fractions={shares}: must be the shares of train, valid and test, adding up "
            "to 1, the first above 0"
        )
    second = int(len(text) * (shares[0] + shares[1])) if shares[2] else len(text)
    first = int(len(text) * shares[0]) if shares[1] else second
    cuts = (0, first, second, len(text))
    if level == "word":
        cuts = tuple(next_word_boundary(text, cut) for cut in cuts)
    parts = {}
    for i, (name, share) in enumerate(zip(SPLITS, shares, strict=True)):
        if share:
            parts[name] = text[cuts[i] : cuts[i + 1]]
            if not parts[name] or (level == "word" and parts[name].isspace()):
                raise UserError(
                    f"config.data.fractions={shares}: {name} would be empty, as the whole text has "
                    f"only {len(text)} characters"
                )
    return parts


def text8_vocabulary() -> Vocabulary:
    """Space is 0, a to z are 1 to 26."""
    return Vocabulary("char", tuple(TEXT8_ALPHABET))


def character_vocabulary(text: str, limit: int = 0, unknown: bool = False) -> Vocabulary:
    """The characters of a text in code-point order.

    limit: if positive, the most symbols to hold: the most frequent, and U+FFFD for all others
    unknown: adds U+FFFD for all others even where nothing is left out
    """
    counts = np.zeros(_CODE_POINTS, np.int64)
    for start in range(0, len(text), _PIECE):
        found = np.bincount(_code_points(text[start : start + _PIECE]))
        counts[: len(found)] += found
    codes = np.flatnonzero(counts)
    if limit and len(codes) + (unknown and not counts[ord(UNKNOWN_CHARACTER)]) > limit:
        unknown = True
        codes = codes[codes != ord(UNKNOWN_CHARACTER)]
        codes = np.sort(codes[np.lexsort((codes, -counts[codes]))[: limit - 1]])
    symbols = tuple(chr(code) for code in codes.tolist())
    return _with_unknown("char", symbols, UNKNOWN_CHARACTER if unknown else None)


def word_vocabulary(text: str, limit: int = 0, unknown: bool = False) -> Vocabulary:
    """The words of a text by (-count, word), the order of ptb_word_lm.

    limit: if positive, the most symbols to hold: the most frequent, and <unk> for all others
    unknown: adds <unk> for all others even where nothing is left out
    """
    counts = collections.Counter()
    for piece in _pieces_of_words(text):
        counts.update(words(piece))
    symbols = tuple(word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    if limit and len(symbols) + (unknown and UNKNOWN_WORD not in counts) > limit:
        unknown = True
        symbols = tuple(word for word in symbols if word != UNKNOWN_WORD)[: limit - 1]
    return _with_unknown("word", symbols, UNKNOWN_WORD if unknown else None)


def _with_unknown(level: str, symbols: tuple[str, ...], unknown: str | None) -> Vocabulary:
    if unknown is not None and unknown not in symbols:
        symbols = (*symbols, unknown)
    return Vocabulary(level, symbols, unknown)


def _code_points(text: str) -> np.ndarray:
    """The code point of every character [N]: uint8 for ASCII, else uint32."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _pieces_of_words(text: str) -> Iterator[str]:
    """The text in pieces of about a million characters, none of which ends inside a word."""
    start = 0
    while start < len(text):
        end = next_word_boundary(text, start + _PIECE)
        yield text[start:end]
        start = end
