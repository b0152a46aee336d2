"""State-tracking tasks: the label of each symbol is the state after it (the regular tasks of Delétang et al. 2023).

corpus      symbols          state
parity      0 1              whether the number of ones so far is odd
even_pairs  a b              whether the last symbol equals the first, that is, whether there are evenly many ab and ba
cycle       - 0 +            position on a circle of five places; - is a step back, 0 no step, + a step forward
modular     0 1 2 3 4 + -    value of the expression so far modulo 5; + and - alternate with digits

Training and validation texts have 1 to 40 symbols, test texts 40 to 256; lengths are uniformly distributed. Test scores
show whether a model generalises to longer texts.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lm.data.definition import GENERATED, Definition
from lm.data.examples import Examples
from lm.data.text import Vocabulary
from lm.errors import UserError

PLACES = 5
MOST = 1_000_000  # training texts
# Split -> shortest length, longest length, number of texts (None: config.data.size).
SPLITS = {"train": (1, 40, None), "valid": (1, 40, 500), "test": (40, 256, 500)}


class StateTask(NamedTuple):
    """purpose: one line for --help; labels: states; draw(rng, length) -> (symbol ids, id of the state after each)"""

    purpose: str
    symbols: tuple[str, ...]
    labels: tuple[str, ...]
    draw: Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]


def parity(rng: np.random.Generator, length: int):
    bits = rng.integers(2, size=length)
    return bits, np.cumsum(bits) % 2


def even_pairs(rng: np.random.Generator, length: int):
    symbols = rng.integers(2, size=length)
    return symbols, (symbols == symbols[0]).astype(int)


def cycle(rng: np.random.Generator, length: int):
    moves = rng.integers(3, size=length)
    return moves, np.cumsum(moves - 1) % PLACES


def modular(rng: np.random.Generator, length: int):
    """The state after an operator is the value of the expression before it."""
    digits, minus = rng.integers(PLACES, size=length), rng.integers(2, size=length)
    is_digit = np.arange(length) % 2 == 0
    signs = 1 - 2 * np.append(0, minus[:-1])  # of the operator before each digit
    return np.where(is_digit, digits, PLACES + minus), np.cumsum(is_digit * signs * digits) % PLACES


_NUMBERS = tuple(map(str, range(PLACES)))
STATE_TASKS = {
    "parity": StateTask("Zeros and ones: is the number of ones so far odd?", ("0", "1"), ("even", "odd"), parity),
    "even_pairs": StateTask("Letters a and b: does the last equal the first?", ("a", "b"), ("no", "yes"), even_pairs),
    "cycle": StateTask("Steps back, none, forward: the place on a circle of five.", ("-", "0", "+"), _NUMBERS, cycle),
    "modular": StateTask("Digits, plus and minus: the value modulo 5.", (*_NUMBERS, "+", "-"), _NUMBERS, modular),
}


def build(data, text, splits, given) -> tuple:
    """Builds the task config.data.corpus: (vocabulary, {split: Examples with a label per symbol}, provenance)."""
    if data.size > MOST:
        raise UserError(f"config.data.size must be at most {MOST} with config.data.corpus={data.corpus}")
    task, arrays = STATE_TASKS[data.corpus], {}
    vocabulary = given or Vocabulary("word", task.symbols, labels=task.labels)
    for number, (name, (shortest, longest, count)) in enumerate(SPLITS.items()):
        if name in splits or name == "train":
            rng = np.random.default_rng([data.seed, number])
            lengths = rng.integers(shortest, longest + 1, size=count or data.size)
            drawn = [task.draw(rng, length) for length in lengths.tolist()]
            tokens, states = (np.concatenate(side).astype(np.uint8) for side in zip(*drawn, strict=True))
            arrays[name] = Examples(tokens, np.concatenate([[0], np.cumsum(lengths)]), states)
    return vocabulary, arrays, {"examples": {name: len(some) for name, some in arrays.items()}}


_TEST_SHARE = sum(SPLITS["test"][:2]) / sum(SPLITS["valid"][:2])  # of the mean lengths
STATE_TRACKING = {
    name: Definition(build, {}, GENERATED, None, task.purpose, test_share=_TEST_SHARE)
    for name, task in STATE_TASKS.items()
}
