"""Tasks whose answer is a state that every symbol may change (Delétang et al. 2023, the regular ones).

corpus      symbols          the label of each symbol: the state after it
parity      0 1              whether the number of ones so far is odd
even_pairs  a b              whether so far as many pairs ab as ba were read, or one more: the first symbol is the last
cycle       - 0 +            the place on a circle of five, after steps back, none, forward
modular     0 1 2 3 4 + -    the sum so far modulo 5; + and - alternate with digits

Training and validation texts have 1 to 40 symbols, test texts 40 to 256, each length equally often. A model that has
learned the rule, not the lengths, is as good on the test texts.
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
# Split -> shortest and longest text, and how many; None: config.data.size.
SPLITS = {"train": (1, 40, None), "valid": (1, 40, 500), "test": (40, 256, 500)}


class StateTask(NamedTuple):
    """purpose: in a few words; symbols, labels; draw(rng, length) -> ids of the symbols and of the states after each"""

    purpose: str
    symbols: tuple[str, ...]
    labels: tuple[str, ...]
    draw: Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]


def parity(draw: np.random.Generator, length: int):
    bits = draw.integers(2, size=length)
    return bits, np.cumsum(bits) % 2


def even_pairs(draw: np.random.Generator, length: int):
    symbols = draw.integers(2, size=length)
    return symbols, (symbols == symbols[0]).astype(int)


def cycle(draw: np.random.Generator, length: int):
    moves = draw.integers(3, size=length)
    return moves, np.cumsum(moves - 1) % PLACES


def modular(draw: np.random.Generator, length: int):
    """The sum after an operator is that before it."""
    digits, minus = draw.integers(PLACES, size=length), draw.integers(2, size=length)
    is_digit = np.arange(length) % 2 == 0
    signs = np.where(np.roll(minus, 1) == 1, -1, 1)  # the operator before a digit
    signs[0] = 1
    terms = np.where(is_digit, signs * digits, 0)
    return np.where(is_digit, digits, PLACES + minus), np.cumsum(terms) % PLACES


_NUMBERS = tuple(map(str, range(PLACES)))
STATE_TASKS = {
    "parity": StateTask("Zeros and ones: is the number of ones so far odd?", ("0", "1"), ("even", "odd"), parity),
    "even_pairs": StateTask("Letters a and b: is the first so far the last?", ("a", "b"), ("no", "yes"), even_pairs),
    "cycle": StateTask("Steps back, none, forward: the place on a circle of five.", ("-", "0", "+"), _NUMBERS, cycle),
    "modular": StateTask("Digits, plus and minus: the sum modulo 5.", (*_NUMBERS, "+", "-"), _NUMBERS, modular),
}


def build(data, text, splits, given) -> tuple:
    """(vocabulary, {split: Examples with a label per symbol}, provenance) of the task config.data.corpus."""
    if data.size > MOST:
        raise UserError(f"config.data.size must be at most {MOST} with config.data.corpus={data.corpus}")
    task, arrays = STATE_TASKS[data.corpus], {}
    vocabulary = given or Vocabulary("word", task.symbols, labels=task.labels)
    for number, (name, (shortest, longest, count)) in enumerate(SPLITS.items()):
        if name in splits or name == "train":
            draw = np.random.default_rng([data.seed, number])
            lengths = draw.integers(shortest, longest + 1, size=count or data.size)
            drawn = [task.draw(draw, length) for length in lengths.tolist()]
            tokens, states = (np.concatenate(side).astype(np.uint8) for side in zip(*drawn, strict=True))
            arrays[name] = Examples(tokens, np.concatenate([[0], np.cumsum(lengths)]), states)
    return vocabulary, arrays, {"examples": {name: len(some) for name, some in arrays.items()}}


STATE_TRACKING = {name: Definition(build, {}, GENERATED, None, task.purpose) for name, task in STATE_TASKS.items()}
