"""Examples of fixed size: vectors, or windows of tokens. `CS224D` is a part of CORPORA (lm/data/corpora.py)."""

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer

from lm.data.definition import GENERATED, Definition
from lm.data.files import files_in
from lm.data.labelled_corpora import REUTERS
from lm.data.text import Vocabulary
from lm.errors import UserError

# cs224d_vectors: number of vectors, their size, number of classes, and the class of every vector.
COUNT, SIZE, CLASSES, CLASS = 1024, 100, 5, 1
# cs224d_ner: entity types and special symbols.
TYPES = ("O", "LOC", "MISC", "ORG", "PER")
BEGIN, END, UNKNOWN, DIGIT = "<s>", "</s>", "UUUNKKK", "DG"


@dataclass(frozen=True, eq=False)
class Rows:
    """x [n, D]: vectors, or windows of token ids; labels [n]: class of the vector or of the window's middle token

    starts [m]: with windows, the row at which each sentence begins
    """

    x: Float[np.ndarray, "n D"] | Integer[np.ndarray, "n D"]
    labels: Integer[np.ndarray, " n"]
    starts: Integer[np.ndarray, " m"]

    def __len__(self) -> int:
        return len(self.x)

    @property
    def tokens(self) -> Integer[np.ndarray, " n"]:
        """The middle token of each window. A vector counts as one token with id 0."""
        return self.x[:, self.x.shape[1] // 2] if self.x.dtype.kind in "iu" else np.zeros(len(self), np.uint8)


def cs224d_vectors(data, text, splits, given) -> tuple:
    """Vectors from U(0, 1), NumPy seed 1234. Labels are 0 to 4; all vectors have 1 (Socher et al. 2015, question 1)."""
    x = np.random.RandomState(1234).rand(COUNT, SIZE)
    vocabulary = Vocabulary("word", ("<vector>",), labels=tuple(map(str, range(CLASSES))))
    rows = Rows(x.astype(np.float32), np.full(COUNT, CLASS, np.uint8), np.arange(COUNT))
    return given or vocabulary, {"train": rows}, {"examples": {"train": COUNT}}


def cs224d_ner(data, text, splits, given) -> tuple:
    """Named entities of CoNLL-2003 in windows of config.data.window words (Socher et al. 2015, question 2).

    Each line has a word, a tab and its type; an empty line ends a sentence. The vocabulary is read from its own file.
    """
    vocabulary = given or Vocabulary("word", tuple(text("vocabulary").splitlines()), UNKNOWN, labels=TYPES)
    index = {symbol: number for number, symbol in enumerate(vocabulary.symbols)}
    arrays = {}
    for name in ("train", "valid"):
        if name in splits or name == "train":
            sentences = _sentences(text(name))
            ids = [[index[normal_word(word, index)] for word, _ in sentence] for sentence in sentences]
            types = [TYPES.index(kind) for sentence in sentences for _, kind in sentence]
            arrays[name] = windows_of(ids, types, data.window, vocabulary)
    return vocabulary, arrays, {"examples": {name: len(rows) for name, rows in arrays.items()}}


def _sentences(content: str) -> list[list[list[str]]]:
    """[word, type] of each line; blank lines separate sentences."""
    groups = itertools.groupby(content.splitlines(), lambda line: bool(line.strip()))
    return [[line.split("\t") for line in lines] for filled, lines in groups if filled]


def normal_word(word: str, known: Iterable[str]) -> str:
    """Lower-cases a word. In an unknown word without letters, DG replaces each digit; if it then begins with DG, its
    commas are removed. Returns UNKNOWN if it is still unknown."""
    word = word.lower()
    if word not in known and not any(map(str.isalpha, word)):
        word = re.sub("[0-9]", DIGIT, word)
        word = word.replace(",", "") if word.startswith(DIGIT) else word
    return word if word in known else UNKNOWN


def windows_of(sentences: Sequence[Sequence[int]], labels: Sequence[int], width: int, vocabulary: Vocabulary) -> Rows:
    """Makes a window of `width` tokens around every token, padded with BEGIN and END. Raises UserError if `width` is
    even."""
    if width % 2 == 0:
        raise UserError(f"config.data.window must be odd, so that a window has a middle, not {width}")
    begin, end = (vocabulary.symbols.index(symbol) for symbol in (BEGIN, END))
    side, rows = width // 2, []
    for ids in sentences:
        padded = np.array([*[begin] * side, *ids, *[end] * side], vocabulary.dtype)
        rows.append(np.lib.stride_tricks.sliding_window_view(padded, width))
    starts = np.cumsum([0, *map(len, sentences)])[:-1]
    return Rows(np.concatenate(rows), np.array(labels, np.uint8), starts)


_NER_FILES = files_in(
    "conll2003",
    """
    train      train     1_600_869 140a42df1020e6353cdce4c03b07cd24443df252192cda662f47debdb662c831
    valid      dev         403_031 8b86a81569f766b6394446d4532755f9a704ab49db675103e524c58ebba7fe37
    vocabulary vocab.txt   835_235 3295903a1319f948b8b6aca2c067a7aea7789e46eb9ed8200f8d76b5723e1868
    """,
)
CS224D = {
    "cs224d_vectors": Definition(cs224d_vectors, {}, GENERATED, None),
    "cs224d_ner": Definition(cs224d_ner, _NER_FILES, *REUTERS),
}
