"""Pairs of sequences: sources and the targets that they become."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Integer, Key

from lm.data import examples
from lm.data.examples import Batch, Examples, Plan, read_batch

END = 0  # the symbol that ends every sequence, on either side


@dataclass(frozen=True, eq=False)
class Pairs:
    """Sources and targets, equally many, each with END as its last token. Their labels mean nothing.

    texts: the targets as they were read, also of words that have no symbol
    """

    source: Examples
    target: Examples
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.target)

    @property
    def tokens(self) -> Integer[np.ndarray, " N"]:
        """Those of the targets."""
        return self.target.tokens

    def first(self, count: int) -> "Pairs":
        """The first `count` pairs."""
        return Pairs(self.source.first(count), self.target.first(count), self.texts[:count])

    def longer(self) -> Examples:
        """Sequences as long as the longer one of each pair, which decides the bucket."""
        lengths = np.maximum(self.source.lengths, self.target.lengths)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        return Examples(np.zeros(starts[-1], np.uint8), starts, np.zeros(len(self), np.uint8))


class Data(NamedTuple):
    """Pairs on the device, in the same batches."""

    source: examples.Data
    target: examples.Data


class PairBatch(NamedTuple):
    """Padded sources and targets [T, B]."""

    source: Batch
    target: Batch


def on_device(plan: Plan, pairs: Pairs) -> Data:
    """Copies the pairs to the device, their batches in the order of their buckets and of the file."""
    base = examples.on_device(plan, pairs.longer())

    def side(some: Examples) -> examples.Data:
        starts, lengths = (jnp.asarray(array, jnp.int32) for array in (some.starts[:-1], some.lengths))
        return base._replace(tokens=jnp.asarray(some.tokens), starts=starts, lengths=lengths)

    return Data(side(pairs.source), side(pairs.target))


def shuffle(plan: Plan, data: Data, key: Key[Array, ""]) -> Data:
    """The data with the batches of another epoch, which the key decides."""
    source = examples.shuffle(plan, data.source, key)
    return Data(source, data.target._replace(rows=source.rows, bucket=source.bucket))


def read_pairs(plan: Plan, data: Data, length: int, cursor: Int[Array, ""] | int) -> PairBatch:
    """The batch at `cursor`, whose bucket has this length."""
    return PairBatch(*(read_batch(plan, each, length, cursor) for each in data))


def examples_of(lists: Sequence[Sequence[int]], dtype) -> Examples:
    """Lists of ids, with END put after each."""
    starts = np.concatenate([[0], np.cumsum([len(ids) + 1 for ids in lists])])
    tokens = np.fromiter((i for ids in lists for i in (*ids, END)), dtype, count=starts[-1])
    return Examples(tokens, starts, np.zeros(len(lists), np.uint8))
