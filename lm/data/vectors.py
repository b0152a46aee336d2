"""Pretrained word vectors from a text file, one word and its numbers a line, as GloVe and fastText publish them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lm.data.text import Vocabulary
from lm.errors import UserError


class Vectors(NamedTuple):
    """Vectors of a vocabulary. table [V, E]: NaN for a symbol without one; found: how many symbols have one"""

    table: Float[np.ndarray, "V E"]
    found: int


def read_vectors(path: str, vocabulary: Vocabulary, size: int) -> Vectors:
    """Reads the vectors of the vocabulary's symbols; the first of several for one word counts.

    size: E, numbers of each vector
    A first line of two numbers, words and size, is a header (word2vec, fastText).
    Raises UserError if the file cannot be read, a line has another number of numbers, or no symbol has a vector.
    """
    where = f"config.model.embedding_from={path}"
    rows = {symbol: row for row, symbol in enumerate(vocabulary.symbols)}
    table = np.full((vocabulary.size, size), np.nan, np.float32)
    try:
        if not Path(path).is_file():
            raise UserError(f"{where}: there is no such file")
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                word, *numbers = line.rstrip("\n").rstrip(" ").split(" ")
                if number == 1 and len(numbers) == 1 and size != 1:
                    continue
                if len(numbers) != size:
                    raise UserError(
                        f"{where}, line {number}: {len(numbers)} numbers, but config.model.embedding_size is {size}"
                    )
                row = rows.pop(word, None)
                if row is None:
                    continue
                with np.errstate(over="ignore"):
                    table[row] = numbers
                if not np.isfinite(table[row]).all():
                    raise UserError(f"{where}, line {number}: a number is not finite in 32 bits")
    except OSError as error:
        raise UserError(f"{where}: {error.strerror or error}") from error
    except ValueError as error:  # also bytes that are not UTF-8
        raise UserError(f"{where}: not a file of word vectors: {error}") from error
    found = vocabulary.size - len(rows)
    if not found:
        raise UserError(f"{where}: no symbol of the corpus has a vector there")
    return Vectors(table, found)
