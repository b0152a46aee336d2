"""All the vectors of a file such as GloVe's, and the words nearest to one of them.

A file has a word and its numbers a line, or is a zip archive with one such file.
"""

import hashlib
import os
import warnings
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lm.errors import UserError, first_line, in_short

# Pennington, Socher and Manning (2014). "GloVe: Global Vectors for Word Representation". 400,000 words, 50 numbers
# each: a member of https://nlp.stanford.edu/data/glove.6B.zip, PDDL 1.0. The checksum is of the text, not the archive.
GLOVE = "glove/glove.6B.50d.zip"
GLOVE_SHA256 = "d8f717f8dd4b545cb7f418ef9f3d0c3e6e68a6f48b97d32f8b7aae40cb31f96f"
MOST_BYTES = 8_000_000_000  # of an unpacked file


class WordVectors(NamedTuple):
    """words: in the order of the file; table: their vectors; sha256: of the text"""

    words: tuple[str, ...]
    table: Float[np.ndarray, "V E"]
    sha256: str


def load_glove(data_dir: str | None) -> WordVectors:
    """GloVe's 50-dimensional vectors. Raises UserError if they are not in data_dir, or are other ones."""
    path = Path(data_dir or "", GLOVE)
    if not data_dir or not path.is_file():
        raise UserError(
            f"{GLOVE} is not in {data_dir or 'a data directory'}: download https://nlp.stanford.edu/data/glove.6B.zip "
            f"and put its member glove.6B.50d.txt alone into DIR/{GLOVE}, with --data_dir=DIR; or name a file of your "
            "own by --vectors=FILE"
        )
    vectors = read_word_vectors(str(path))
    if vectors.sha256 != GLOVE_SHA256:
        raise UserError(f"{path}: its text has sha256 {vectors.sha256}, not {GLOVE_SHA256}")
    return vectors


def read_word_vectors(path: str) -> WordVectors:
    """Reads a text file, or the only member of a zip archive. A first line of two numbers is a header.

    Raises UserError if the file cannot be read, a line has another number of numbers than the first, or one of them is
    no finite number.
    """
    content = _content(path)
    lines = content.removesuffix(b"\n").split(b"\n")
    first = 1 if len(lines) > 1 and len(lines[0].split()) == 2 != len(lines[1].split()) else 0
    rows = [line.rstrip(b" \r").partition(b" ") for line in lines[first:]]
    size = rows[0][2].count(b" ") + 1
    for number, (_, space, numbers) in enumerate(rows, first + 1):
        if not space or numbers.count(b" ") + 1 != size:
            raise UserError(f"{path}, line {number}: a word and {size} numbers are needed, with one space between them")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            table = np.fromstring(b" ".join(numbers for _, _, numbers in rows), np.float32, sep=" ")
            words = tuple(word.decode() for word, _, _ in rows)
        except (ValueError, DeprecationWarning, UnicodeDecodeError) as error:
            raise UserError(f"{path} is not a file of word vectors: {first_line(error)}") from error
    if len(table) != len(words) * size or not np.isfinite(table).all():
        raise UserError(f"{path} is not a file of word vectors: not all of its numbers are finite numbers")
    return WordVectors(words, table.reshape(-1, size), hashlib.sha256(content).hexdigest())


def _content(path: str) -> bytes:
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise UserError(f"{path} is not a regular file")
        if not zipfile.is_zipfile(path):
            return Path(path).read_bytes()
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) != 1 or members[0].file_size > MOST_BYTES:
                raise UserError(f"{path} must have one member, a text file of word vectors, not {len(members)}")
            with archive.open(members[0]) as member:
                return member.read(members[0].file_size)
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or first_line(error)}") from error


# --- Nearest words --------------------------------------------------------------------------------------------------


def parse_expression(text: str, words: dict[str, int]) -> list[tuple[float, str]]:
    """(sign, word) of each term of an expression such as "king - man + woman". Raises UserError for an unknown word."""
    terms, sign = [], 1.0
    for token in text.split():
        if token in ("+", "-") and token not in (text.strip(),):
            sign = 1.0 if token == "+" else -1.0
            continue
        if token not in words:
            hint = f"; did you mean {token.lower()}?" if token.lower() in words else ""
            raise UserError(f"--word: {in_short(token)} has no vector there{hint}")
        terms.append((sign, token))
        sign = 1.0
    if not terms:
        raise UserError("--word is empty: name a word, or an expression such as 'king - man + woman'")
    return terms


def unit(vector: Float[np.ndarray, " E"]) -> Float[np.ndarray, " E"]:
    """The vector at length 1; zero stays zero."""
    return vector / (np.linalg.norm(vector) or 1.0)


def nearest_words(
    vectors: WordVectors, query: Float[np.ndarray, " E"], number: int, leave_out: tuple[str, ...] = ()
) -> list[tuple[str, float]]:
    """The `number` words whose vectors have the largest cosine with `query`: (word, cosine), the largest first."""
    lengths = np.linalg.norm(vectors.table, axis=1) * np.linalg.norm(query)
    cosines = vectors.table @ query / np.where(lengths > 0, lengths, 1)
    order = np.argsort(-cosines, kind="stable")[: number + len(leave_out)]
    found = [(vectors.words[index], float(cosines[index])) for index in order]
    return [(word, cosine) for word, cosine in found if word not in leave_out][:number]


def project(table: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "N 2"]:
    """The first two principal components of the rows."""
    centred = table - table.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    return centred @ axes[:2].T
