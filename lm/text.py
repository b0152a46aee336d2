"""Text to token ids and back: tokenisers and vocabularies for characters and words.

An id is the position of its symbol in the vocabulary; arrays hold them in the smallest unsigned type that fits.
"""

import collections
from dataclasses import dataclass

import numpy as np

from lm.errors import UserError

LEVELS = ("char", "word")
END_OF_SENTENCE = "<eos>"
UNKNOWN_WORD = "<unk>"
UNKNOWN_CHARACTER = "\ufffd"
TEXT8_ALPHABET = " abcdefghijklmnopqrstuvwxyz"
_CODE_POINTS = 0x110000


@dataclass(frozen=True)
class Vocabulary:
    """An ordered set of symbols.

    level: char or word; symbols: in the order of their ids; unknown: the symbol that stands for all others, or None
    where every symbol must be known.
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
        """Text -> ids [N]. Raises UserError naming the first unknown symbols where there is no unknown symbol."""
        return self._encode_characters(text) if self.level == "char" else self._encode_words(words(text))

    def decode(self, ids) -> str:
        """Ids [N] -> text; words are joined by single spaces."""
        symbols = (self.symbols[index] for index in np.asarray(ids).tolist())
        return ("" if self.level == "char" else " ").join(symbols)

    def to_dict(self) -> dict:
        return {"level": self.level, "symbols": list(self.symbols), "unknown": self.unknown}

    @classmethod
    def from_dict(cls, fields: dict) -> "Vocabulary":
        return cls(fields["level"], tuple(fields["symbols"]), fields["unknown"])

    def _encode_characters(self, text: str) -> np.ndarray:
        codes = _code_points(text)
        largest = 256 if codes.dtype == np.uint8 else _CODE_POINTS
        missing = self.size  # one past the last id
        table = np.full(largest, missing, np.min_scalar_type(missing))
        for index, symbol in enumerate(self.symbols):
            if ord(symbol) < largest:
                table[ord(symbol)] = index
        if self.unknown is not None:
            table[table == missing] = self.symbols.index(self.unknown)
        ids = table[codes]
        if self.unknown is None and ids.size and ids.max() == missing:
            position = int(np.argmax(ids == missing))
            self._refuse(dict.fromkeys(text[i] for i in np.flatnonzero(ids == missing)[:1000]), position)
        return ids.astype(self.dtype, copy=False)

    def _encode_words(self, tokens: list[str]) -> np.ndarray:
        index = {symbol: i for i, symbol in enumerate(self.symbols)}
        if self.unknown is not None:
            unknown = index[self.unknown]
            return np.fromiter((index.get(token, unknown) for token in tokens), self.dtype, len(tokens))
        missing = dict.fromkeys(token for token in tokens if token not in index)
        if missing:
            self._refuse(missing, tokens.index(next(iter(missing))))
        return np.fromiter((index[token] for token in tokens), self.dtype, len(tokens))

    def _refuse(self, missing, position: int):
        shown = ", ".join(repr(symbol) for symbol in list(missing)[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        unit = "character" if self.level == "char" else "word"
        raise UserError(f"{unit}s that the vocabulary does not hold: {shown}{more} (first at {unit} {position})")


def _code_points(text: str) -> np.ndarray:
    """The code point of every character: uint8 for ASCII, else uint32."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def words(text: str) -> list[str]:
    """Tokens by white space, each newline the token <eos> (the rule of ptb_word_lm)."""
    return text.replace("\n", f" {END_OF_SENTENCE} ").split()


def text8_vocabulary() -> Vocabulary:
    """Space is 0, a to z are 1 to 26."""
    return Vocabulary("char", tuple(TEXT8_ALPHABET))


def character_vocabulary(text: str, limit: int = 0, unknown: bool = False) -> Vocabulary:
    """The characters of a text in code-point order; with a limit, its most frequent ones.

    unknown adds the symbol U+FFFD for all others (a limit does so too, where it leaves any out).
    """
    codes, counts = np.unique(_code_points(text), return_counts=True)
    if limit and len(codes) > limit:
        order = np.lexsort((codes, -counts))[: limit - 1]
        codes, unknown = np.sort(codes[order]), True
    symbols = tuple(chr(code) for code in codes.tolist())
    return _with_unknown("char", symbols, UNKNOWN_CHARACTER if unknown else None)


def word_vocabulary(text: str, limit: int = 0, unknown: bool = False) -> Vocabulary:
    """The words of a text by (-count, word), as ptb_word_lm orders them; with a limit, the most frequent ones.

    unknown adds <unk> for all others (a limit does so too, where it leaves any out); PTB holds it already.
    """
    counts = collections.Counter(words(text))
    symbols = tuple(word for word, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
    if limit and len(symbols) > limit:
        symbols, unknown = tuple(word for word in symbols if word != UNKNOWN_WORD)[: limit - 1], True
    return _with_unknown("word", symbols, UNKNOWN_WORD if unknown else None)


def _with_unknown(level: str, symbols: tuple[str, ...], unknown: str | None) -> Vocabulary:
    if unknown is not None and unknown not in symbols:
        symbols = (*symbols, unknown)
    return Vocabulary(level, symbols, unknown)
