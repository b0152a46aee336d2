"""Reads pretrained word vectors for a vocabulary, and finds nearest words.

A file has one word and its vector per line, as published by GloVe and fastText, or is a zip archive of one such file. A
first line of two numbers (word count and size) is a header. If a word has several lines, the first one counts.
"""

import contextlib
import hashlib
import os
import sys
import warnings
import zipfile
from collections.abc import Collection, Generator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from jaxtyping import Float

from lm.data.text import Vocabulary
from lm.errors import UserError, first_line, in_short

# Pennington et al. (2014). "GloVe: Global Vectors for Word Representation". 400,000 words with 50 numbers each, from
# https://nlp.stanford.edu/data/glove.6B.zip, PDDL 1.0. GLOVE_SHA256 is the hash of the unpacked text.
GLOVE_NAME = "glove.6B.50d"  # a value of config.model.embedding_from
GLOVE = "glove/glove.6B.50d.zip"
GLOVE_SHA256 = "d8f717f8dd4b545cb7f418ef9f3d0c3e6e68a6f48b97d32f8b7aae40cb31f96f"

CASES = ("exact", "lower")  # config.model.embedding_case


class WordVectors(NamedTuple):
    """words: in file order; table: their vectors; sha256: hash of the unpacked file"""

    words: tuple[str, ...]
    table: Float[np.ndarray, "V E"]
    sha256: str


class Vectors(NamedTuple):
    """Vectors for a vocabulary. table [V, E]: NaN for symbols without a vector; found: number of symbols with one"""

    table: Float[np.ndarray, "V E"]
    found: int


def read_vectors(
    path: str, vocabulary: Vocabulary, size: int, data_dir: str | None = None, case: str = "exact"
) -> Vectors:
    """Reads the vectors of the vocabulary's symbols. The unknown symbol gets zeros if the file has no vector for it.

    size: E; path: a file, or GLOVE_NAME for the GloVe file in data_dir
    case: one of CASES. lower: a symbol without a vector gets the vector of its lower-case form
    Raises UserError as `read_word_vectors` and `load_glove` do, if no symbol has a vector, and if the size is not E.
    """
    where, symbols = f"config.model.embedding_from={path}", vocabulary.symbols
    lower = [symbol.lower() for symbol in symbols] if case == "lower" else symbols
    only = frozenset((*symbols, *lower))
    vectors = load_glove(data_dir, only) if path == GLOVE_NAME else read_word_vectors(path, where, only)
    if not vectors.words:
        raise UserError(f"{where}: no symbol of the corpus has a vector in this file")
    if (numbers := vectors.table.shape[1]) != size:
        raise UserError(f"{where}: its vectors have {numbers} numbers, but config.model.embedding_size is {size}")
    known = dict(zip(vectors.words, vectors.table, strict=True))
    table, found = np.full((vocabulary.size, size), np.nan, np.float32), 0
    for row, (symbol, other) in enumerate(zip(symbols, lower, strict=True)):
        if (vector := known.get(symbol, known.get(other))) is not None:
            table[row], found = vector, found + 1
        elif symbol == vocabulary.unknown:  # zeros, like a dropped word in training (keep_prob.embedding)
            table[row] = 0.0
    return Vectors(table, found)


def load_glove(data_dir: str | None, only: Collection[str] | None = None) -> WordVectors:
    """Reads GloVe's 50-dimensional vectors. Raises UserError if they are not in data_dir or have a wrong checksum.

    only: the words to keep; None for all
    """
    path = Path(data_dir or "", GLOVE)
    if not data_dir or not path.is_file():
        raise UserError(
            f"{GLOVE} is not in {data_dir or 'a data directory'}: download https://nlp.stanford.edu/data/glove.6B.zip "
            f"and put its member glove.6B.50d.txt alone into DIR/{GLOVE}, with --data_dir=DIR; or name a file of your "
            "own: --vectors=FILE, or config.model.embedding_from=FILE to train"
        )
    vectors = read_word_vectors(str(path), str(path), only)
    if vectors.sha256 != GLOVE_SHA256:
        raise UserError(f"{path}: its text has sha256 {vectors.sha256}, not {GLOVE_SHA256}")
    return vectors


def read_word_vectors(path: str, where: str, only: Collection[str] | None = None) -> WordVectors:
    """Reads a file of word vectors line by line. where: its name in errors; only: the words to keep, None for all

    Raises UserError if the file cannot be read, lines have vectors of different sizes, or a number of a kept word is
    not finite.
    """
    digest, rows, size, repeated = hashlib.sha256(), {}, 0, {}
    try:
        with _opened(path) as file:
            for number, line in enumerate(file, 1):
                digest.update(line)
                line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                word, _, numbers = line.rstrip(b" \r\n").partition(b" ")
                found = numbers.count(b" ") + 1 if numbers else 0
                if number == 2 and size == 1 != found:  # the first line was a header
                    rows, size = {}, 0
                size = size or found
                if not found or found != size:
                    wanted = f", not {size}" if size else ""
                    raise UserError(f"{where}, line {number}: {found} numbers after the word{wanted}")
                text = word.decode()
                if only is not None and text not in only:
                    continue
                if rows.setdefault(text, numbers) != numbers:
                    repeated[text] = None
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{where}: {getattr(error, 'strerror', None) or first_line(error)}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not a file of word vectors: {error}") from error
    if repeated:
        words = f"{len(repeated)} words have" if len(repeated) > 1 else "1 word has"
        found = f"{words} several vectors, of which the first counts"
        print(f"warning: {where}: {found}, such as {in_short(next(iter(repeated)))}", file=sys.stderr)
    return WordVectors(tuple(rows), _table(rows, size, where), digest.hexdigest())


def _table(rows: dict[str, bytes], size: int, where: str) -> Float[np.ndarray, "V E"]:
    """Parses the vectors of all rows. Raises UserError naming a word whose numbers are invalid or not finite."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            text = b" ".join(rows.values())
            table = np.fromstring(text, np.float32, sep=" ") if rows else np.zeros(0, np.float32)
        if len(table) == len(rows) * size and np.isfinite(table).all():
            return table.reshape(len(rows), size)
    except (ValueError, DeprecationWarning, RuntimeWarning):  # NumPy does not name the word
        pass
    for word, numbers in rows.items():
        with contextlib.suppress(ValueError), np.errstate(over="ignore"):
            if np.isfinite(np.array(numbers.split(b" "), np.float32)).all():
                continue
        raise UserError(f"{where}: the vector of {in_short(word)} is not of {size} finite numbers in 32 bits")
    raise UserError(f"{where}: not a file of word vectors")


@contextlib.contextmanager
def _opened(path: str) -> Generator[IO[bytes]]:
    """Opens a file, or the only member of a zip archive."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(0, "not a regular file")
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            yield file
        return
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if len(names) != 1:
            raise OSError(0, f"the archive must have one member, a text file of word vectors, not {len(names)}")
        with archive.open(names[0]) as file:
            yield file


# --- Nearest words --------------------------------------------------------------------------------------------------


def parse_expression(text: str, words: dict[str, int]) -> list[tuple[float, str]]:
    """Parses an expression such as "king - man + woman" into (sign, word) terms. Raises UserError for an unknown word,
    for a sign without a word after it, and for an empty expression."""
    terms, sign = [], ""
    for token in text.split():
        if token in ("+", "-") and token != text.strip():  # a text that is only + or - names that word
            if sign:
                break
            sign = token
            continue
        if token not in words:
            hint = f"; did you mean {token.lower()}?" if token.lower() in words else ""
            raise UserError(f"--word: {in_short(token)} has no vector{hint}")
        terms.append((-1.0 if sign == "-" else 1.0, token))
        sign = ""
    if sign:
        raise UserError(f"--word={in_short(text)}: no word follows a {sign}: write a sum such as 'king - man + woman'")
    if not terms:
        raise UserError("--word is empty: name a word, or an expression such as 'king - man + woman'")
    return terms


def unit(vector: Float[np.ndarray, " E"]) -> Float[np.ndarray, " E"]:
    """Scales a vector to length 1; zero stays zero. Uses float64, where squares of float32 numbers cannot overflow."""
    vector = vector.astype(np.float64)
    return vector / (np.linalg.norm(vector) or 1.0)


def nearest_words(
    vectors: WordVectors, query: Float[np.ndarray, " E"], number: int, leave_out: tuple[str, ...] = ()
) -> list[tuple[str, float]]:
    """Finds the `number` words with the largest cosine to `query`. Returns (word, cosine), largest first.

    leave_out: words to skip. Raises UserError if the query is zero.
    """
    if not query.any():
        raise UserError("--word: its vector is zero, so it has no neighbours")
    table = vectors.table.astype(np.float64)
    lengths = np.sqrt(np.einsum("ve,ve->v", table, table))
    cosines = table @ unit(query) / np.where(lengths > 0, lengths, 1)
    order = np.argsort(-cosines, kind="stable")[: number + len(leave_out)]
    found = [(vectors.words[index], float(cosines[index])) for index in order]
    return [(word, cosine) for word, cosine in found if word not in leave_out][:number]


def project(table: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "N 2"]:
    """Projects the rows onto their first two principal components."""
    centred = table - table.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    return centred @ axes[:2].T
