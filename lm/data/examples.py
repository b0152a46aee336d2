"""Cuts labelled sequences into padded batches on the device.

All sequences are concatenated in one array. A batch has B rows, each padded to the length of its bucket. Sequences of
similar length share a bucket, so there is little padding. Each epoch is shuffled with a PRNG key: the sequences within
each bucket are shuffled and grouped into batches, then the batches of all buckets are shuffled.

padding         layout of a row
end             tokens, then padding that the model masks
front_unmasked  padding (token 0), then tokens; the model reads both as tokens (Keras's pad_sequences)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, Key

from lm.errors import UserError

PADDINGS = ("end", "front_unmasked")
KEPT = ("first", "last")  # which tokens of a sequence longer than max_tokens are kept
OUTSIDE = -1  # id read in place of a neighbouring token outside the sequence (config.data.window)
LENGTH_UNIT = 8  # bucket lengths are multiples of this, except the longest


@dataclass(frozen=True, eq=False)
class Examples:
    """n sequences and their labels.

    tokens: ids [N] of all sequences; starts: [n + 1], the index of each sequence's first token, then N
    labels: one id per sequence [n], or per token [N]
    """

    tokens: Integer[np.ndarray, " N"]
    starts: Integer[np.ndarray, " starts"]
    labels: Integer[np.ndarray, "..."]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> Integer[np.ndarray, " n"]:
        """Number of tokens in each sequence."""
        return np.diff(self.starts)

    @property
    def per_token(self) -> bool:
        """Whether there is a label per token. If every sequence has one token, its label counts as the sequence's."""
        return len(self.labels) == len(self.tokens) != len(self)

    def first(self, count: int) -> "Examples":
        """The first `count` sequences."""
        starts = self.starts[: count + 1]
        return Examples(self.tokens[: starts[-1]], starts, self.labels[: starts[-1] if self.per_token else count])


def ids_of(split) -> Integer[np.ndarray, " N"]:
    """All token ids of a split."""
    return split if isinstance(split, np.ndarray) else split.tokens


class Cut(NamedTuple):
    """How sequences are cut: max_tokens (0: no limit), keep, padding, batch_size and window of config.data."""

    max_tokens: int
    keep: str
    padding: str
    batch_size: int
    window: int = 1


class Plan(NamedTuple):
    """The batches of one split; hashable.

    lengths, counts: padded length and number of sequences of each bucket; tokens: total number of kept tokens
    """

    cut: Cut
    lengths: tuple[int, ...]
    counts: tuple[int, ...]
    tokens: int

    @property
    def batches(self) -> tuple[int, ...]:
        """Number of batches in each bucket. The last batch of a bucket may have empty rows."""
        return tuple(-(-count // self.cut.batch_size) for count in self.counts)


class Data(NamedTuple):
    """Examples on the device; n sequences, S batches of B rows.

    starts, lengths [n]: the kept tokens of each sequence; by_bucket [n]: sequence indices, bucket by bucket
    rows [S, B]: indices of the sequences in each batch, -1 for an empty row; bucket [S]: the bucket of each batch
    first, end [n]: range of tokens that each sequence's windows may read; None: its kept tokens
    """

    tokens: Integer[Array, " N"]
    labels: Integer[Array, "..."]
    starts: Int[Array, " n"]
    lengths: Int[Array, " n"]
    by_bucket: Int[Array, " n"]
    rows: Int[Array, "S B"]
    bucket: Int[Array, " S"]
    first: Int[Array, " n"] | None = None
    end: Int[Array, " n"] | None = None


class Batch(NamedTuple):
    """Padded sequences. labels: one per token [T, B], 0 at padding, or one per sequence [1, B]; present: False for an
    empty row.

    tokens has R = T + window - 1 rows (config.data.window, 1 by default); neighbours beyond a sequence are OUTSIDE
    """

    tokens: Integer[Array, "R B"]
    lengths: Int[Array, " B"]
    labels: Integer[Array, "L B"]
    present: Bool[Array, " B"]


def cut_of(data) -> Cut:
    """Reads a Cut from config.data."""
    return Cut(data.max_tokens, data.keep, data.padding, data.batch_size, data.window)


def kept_lengths(cut: Cut, examples: Examples) -> Integer[np.ndarray, " n"]:
    """Number of kept tokens in each sequence."""
    return np.minimum(examples.lengths, cut.max_tokens) if cut.max_tokens else examples.lengths


def bucket_lengths(cut: Cut, examples: Examples, buckets: int) -> tuple[int, ...]:
    """Padded lengths, ascending, of at most `buckets` buckets that hold about equally many tokens.

    One bucket, or front padding, pads all sequences to max_tokens, or to the longest sequence if max_tokens is 0.
    """
    kept = np.sort(kept_lengths(cut, examples))
    longest = int(kept[-1])
    if buckets == 1 or cut.padding != "end":
        return (cut.max_tokens or longest,)
    shares = np.cumsum(kept) / kept.sum()
    ends = kept[np.searchsorted(shares, np.arange(1, buckets) / buckets)]
    rounded = {int(-(-end // LENGTH_UNIT) * LENGTH_UNIT) for end in ends}
    return (*sorted(length for length in rounded if length < longest), longest)


def make_plan(cut: Cut, examples: Examples, buckets: int) -> Plan:
    """Plans the batches of a split. Raises UserError if 32 bits cannot index its tokens."""
    if len(examples.tokens) >= 2**31:
        raise UserError(f"the examples have {len(examples.tokens)} tokens, and a run can read fewer than {2**31}")
    lengths = bucket_lengths(cut, examples, buckets)
    counts = np.bincount(_bucket_of(cut, examples, lengths), minlength=len(lengths))
    used = [bucket for bucket, count in enumerate(counts) if count]
    tokens = int(kept_lengths(cut, examples).sum())
    return Plan(cut, tuple(lengths[bucket] for bucket in used), tuple(int(counts[bucket]) for bucket in used), tokens)


def _bucket_of(cut: Cut, examples: Examples, lengths: tuple[int, ...]) -> np.ndarray:
    """The bucket of each sequence: the shortest one that fits it."""
    return np.searchsorted(lengths, kept_lengths(cut, examples))


def on_device(plan: Plan, examples: Examples) -> Data:
    """Copies the examples to the device, with batches in bucket order, and file order within a bucket."""
    cut, kept = plan.cut, kept_lengths(plan.cut, examples)
    skipped = examples.lengths - kept if cut.keep == "last" else 0
    by_bucket = np.argsort(_bucket_of(cut, examples, plan.lengths), kind="stable")
    rows, bucket = _batches(plan, np.split(by_bucket, np.cumsum(plan.counts)[:-1]), np)
    arrays = (examples.starts[:-1] + skipped, kept, by_bucket, rows, bucket)
    tokens, labels = jnp.asarray(examples.tokens), jnp.asarray(examples.labels)
    return Data(tokens, labels, *(jnp.asarray(array, jnp.int32) for array in arrays))


def _batches(plan: Plan, ids: list, xp):
    """Returns (rows [S, B], bucket [S]). ids: the sequence indices of each bucket; xp: numpy or jax.numpy"""
    rows = []
    for count, batches, members in zip(plan.counts, plan.batches, ids, strict=True):
        padded = xp.concatenate([members, xp.full(batches * plan.cut.batch_size - count, -1, members.dtype)])
        rows.append(padded.reshape(batches, plan.cut.batch_size))
    return xp.concatenate(rows), xp.repeat(xp.arange(len(plan.counts)), np.array(plan.batches))


def shuffle(plan: Plan, data: Data, key: Key[Array, ""]) -> Data:
    """Returns the data with its batches shuffled by `key`."""
    keys = jax.random.split(key, len(plan.counts) + 1)
    members = jnp.split(data.by_bucket, np.cumsum(plan.counts)[:-1])
    shuffled = [jax.random.permutation(k, ids) for k, ids in zip(keys[1:], members, strict=True)]
    rows, bucket = _batches(plan, shuffled, jnp)
    order = jax.random.permutation(keys[0], len(rows))
    return data._replace(rows=rows[order], bucket=bucket.astype(jnp.int32)[order])


def read_batch(plan: Plan, data: Data, length: int, cursor: Int[Array, ""] | int) -> Batch:
    """Reads the batch at `cursor`. length: padded length of that batch's bucket"""
    ids = data.rows[cursor]
    present = ids >= 0
    numbers = jnp.maximum(ids, 0)
    lengths = jnp.where(present, data.lengths[numbers], 0)
    offset = (length - lengths) if plan.cut.padding == "front_unmasked" else jnp.zeros_like(lengths)
    time = jnp.arange(length, dtype=jnp.int32)[:, None] - offset[None]
    inside = (time >= 0) & (time < lengths[None])
    places = jnp.where(inside, data.starts[numbers][None] + time, 0)
    tokens = jnp.where(inside, data.tokens[places], 0)
    per_token = data.labels.shape[0] == data.tokens.shape[0] != data.starts.shape[0]  # False for word updates
    labels = jnp.where(inside, data.labels[places], 0) if per_token else data.labels[numbers][None]
    if plan.cut.window > 1:
        tokens = _with_neighbours(plan, data, numbers, lengths, length)
    if plan.cut.padding == "front_unmasked":
        lengths = jnp.full_like(lengths, length)
    return Batch(tokens, lengths, labels, present)


def _with_neighbours(plan: Plan, data: Data, numbers: Array, lengths: Array, length: int) -> Int[Array, "R B"]:
    """The tokens of a batch with window // 2 more on each side."""
    side = plan.cut.window // 2
    starts = data.starts[numbers]
    places = starts[None] + jnp.arange(-side, length + side, dtype=jnp.int32)[:, None]
    first = starts if data.first is None else data.first[numbers]
    end = starts + lengths if data.end is None else data.end[numbers]
    inside = (places >= first[None]) & (places < end[None])
    return jnp.where(inside, data.tokens[jnp.where(inside, places, 0)].astype(jnp.int32), OUTSIDE)


def each_batch(data: Data) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yields (cursor, bucket, sequence indices) of every batch. Leaves out the empty rows at a batch's end."""
    rows, buckets = np.asarray(data.rows), np.asarray(data.bucket)
    for cursor, (numbers, bucket) in enumerate(zip(rows, buckets, strict=True)):
        yield cursor, int(bucket), numbers[numbers >= 0]


def token_mask(batch: Batch, steps: int) -> Float[Array, "T B"]:
    """1 at tokens, 0 at padding and in empty rows, over `steps` steps."""
    time = jnp.arange(steps)[:, None]
    return ((time < batch.lengths[None]) & batch.present[None]).astype(jnp.float32)
