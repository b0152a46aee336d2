"""Pairs of source and target sequences."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Integer, Key

from lm.data import examples
from lm.data.examples import Batch, Examples, Plan, read_batch

END = 0  # id of the symbol that ends every source and every target


@dataclass(frozen=True, eq=False)
class Pairs:
    """Equally many sources and targets, each with END as its last token. Their labels are unused.

    texts: the targets as text before encoding, including unknown words
    """

    source: Examples
    target: Examples
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.target)

    @property
    def tokens(self) -> Integer[np.ndarray, " N"]:
        """Token ids of the targets."""
        return self.target.tokens

    def first(self, count: int) -> "Pairs":
        """The first `count` pairs."""
        return Pairs(self.source.first(count), self.target.first(count), self.texts[:count])

    def longer(self) -> Examples:
        """Dummy sequences with the length of the longer side of each pair, which determines the bucket."""
        lengths = np.maximum(self.source.lengths, self.target.lengths)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        return Examples(np.zeros(starts[-1], np.uint8), starts, np.zeros(len(self), np.uint8))


class Data(NamedTuple):
    """Pairs on the device. Sources and targets have the same batches."""

    source: examples.Data
    target: examples.Data


class PairBatch(NamedTuple):
    """Padded sources and targets [T, B]."""

    source: Batch
    target: Batch


def on_device(plan: Plan, pairs: Pairs) -> Data:
    """Copies the pairs to the device, with batches in bucket order, and file order within a bucket."""
    base = examples.on_device(plan, pairs.longer())

    def side(some: Examples) -> examples.Data:
        starts, lengths = (jnp.asarray(array, jnp.int32) for array in (some.starts[:-1], some.lengths))
        return base._replace(tokens=jnp.asarray(some.tokens), starts=starts, lengths=lengths)

    return Data(side(pairs.source), side(pairs.target))


def shuffle(plan: Plan, data: Data, key: Key[Array, ""]) -> Data:
    """Returns the data with its batches shuffled by `key`."""
    source = examples.shuffle(plan, data.source, key)
    return Data(source, data.target._replace(rows=source.rows, bucket=source.bucket))


def read_pairs(plan: Plan, data: Data, length: int, cursor: Int[Array, ""] | int) -> PairBatch:
    """Reads the batch at `cursor`. length: padded length of that batch's bucket"""
    return PairBatch(*(read_batch(plan, each, length, cursor) for each in data))


def examples_of(lists: Sequence[Sequence[int]], dtype) -> Examples:
    """Converts lists of ids to Examples. Appends END to each list."""
    starts = np.concatenate([[0], np.cumsum([len(ids) + 1 for ids in lists])])
    tokens = np.fromiter((i for ids in lists for i in (*ids, END)), dtype, count=starts[-1])
    return Examples(tokens, starts, np.zeros(len(lists), np.uint8))
