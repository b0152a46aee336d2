"""Labelled sequences in memory, and how they are cut into padded batches on the device.

All sequences lie one after another in one array. A batch has B rows, each padded to the length of its bucket: sequences
of similar length share a bucket, so little is padded. The order of an epoch follows from a key and the epoch's number:
the sequences of each bucket are shuffled and grouped into batches, and the batches of all buckets are shuffled.

padding         a row of length n in a bucket of length T
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
KEPT = ("first", "last")  # tokens of a sequence that is too long
OUTSIDE = -1  # the id of places before and after a sequence, which windows of tokens read
LENGTH_UNIT = 8  # lengths of buckets are multiples of this


@dataclass(frozen=True, eq=False)
class Examples:
    """Sequences and their labels.

    tokens: ids [N] of all sequences; starts: [n + 1], where each begins, and N
    labels: one id per sequence [n], or per token [N]
    """

    tokens: Integer[np.ndarray, " N"]
    starts: Integer[np.ndarray, " starts"]
    labels: Integer[np.ndarray, "..."]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> Integer[np.ndarray, " n"]:
        """Tokens of each sequence."""
        return np.diff(self.starts)

    def first(self, count: int) -> "Examples":
        """The first `count` sequences."""
        return self.take(np.arange(min(count, len(self))))

    def take(self, chosen: Integer[np.ndarray, " m"]) -> "Examples":
        """The sequences with these numbers, in this order."""
        lengths = self.lengths[chosen]
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(self.starts.dtype)
        places = np.repeat(self.starts[:-1][chosen] - starts[:-1], lengths) + np.arange(starts[-1])
        per_token = len(self.labels) == len(self.tokens) != len(self)
        return Examples(self.tokens[places], starts, self.labels[places] if per_token else self.labels[chosen])


def ids_of(split) -> Integer[np.ndarray, " N"]:
    """All token ids of a split."""
    return split if isinstance(split, np.ndarray) else split.tokens


class Cut(NamedTuple):
    """How sequences are cut: config.data.max_tokens (0: all), keep, padding, batch_size, window."""

    max_tokens: int
    keep: str
    padding: str
    batch_size: int
    window: int = 1


class Plan(NamedTuple):
    """The batches of one split; hashable.

    lengths, counts: padded length, and number of sequences, of each bucket; tokens: those that are kept
    """

    cut: Cut
    lengths: tuple[int, ...]
    counts: tuple[int, ...]
    tokens: int

    @property
    def batches(self) -> tuple[int, ...]:
        """Batches of each bucket. The last one may have empty rows."""
        return tuple(-(-count // self.cut.batch_size) for count in self.counts)


class Data(NamedTuple):
    """Examples on the device; n sequences, S batches of B rows.

    starts, lengths [n]: of the tokens that are kept; by_bucket [n]: numbers of the sequences, bucket by bucket
    rows [S, B]: the sequences of each batch, -1 for an empty row; bucket [S]: the bucket of each batch
    first, end [n]: the tokens around each that windows may read; None: its own
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
    """Padded sequences. labels [B], or [T, B] with 0 at padding; present: False for an empty row.

    tokens: R is T, or T + window - 1 with windows, with OUTSIDE before and after a sequence
    """

    tokens: Integer[Array, "R B"]
    lengths: Int[Array, " B"]
    labels: Integer[Array, "..."]
    present: Bool[Array, " B"]


def cut_of(data) -> Cut:
    """config.data -> Cut"""
    return Cut(data.max_tokens, data.keep, data.padding, data.batch_size, data.window)


def kept_lengths(cut: Cut, examples: Examples) -> Integer[np.ndarray, " n"]:
    """Tokens of each sequence that are kept."""
    return np.minimum(examples.lengths, cut.max_tokens) if cut.max_tokens else examples.lengths


def bucket_lengths(cut: Cut, examples: Examples, buckets: int) -> tuple[int, ...]:
    """Padded lengths of at most `buckets` buckets, ascending, each with about as many tokens.

    With padding in front, and with one bucket, sequences are padded to max_tokens, or to the longest of them.
    """
    kept = np.sort(kept_lengths(cut, examples))
    longest = max(cut.max_tokens, 1) if cut.max_tokens else int(kept[-1])
    if buckets == 1 or cut.padding != "end":
        return (longest,)
    shares = np.cumsum(kept) / kept.sum()
    ends = kept[np.searchsorted(shares, np.arange(1, buckets) / buckets)]
    rounded = {int(-(-end // LENGTH_UNIT) * LENGTH_UNIT) for end in ends}
    longest = int(kept[-1])
    return (*sorted(length for length in rounded if length < longest), longest)


def make_plan(cut: Cut, examples: Examples, buckets: int) -> Plan:
    """The batches of a split. Raises UserError for a split that 32 bits cannot address."""
    if len(examples.tokens) >= 2**31:
        raise UserError(f"the examples have {len(examples.tokens)} tokens, and a run can read fewer than {2**31}")
    lengths = bucket_lengths(cut, examples, buckets)
    counts = np.bincount(_bucket_of(cut, examples, lengths), minlength=len(lengths))
    used = [(length, int(count)) for length, count in zip(lengths, counts, strict=True) if count]
    return Plan(cut, *(tuple(column) for column in zip(*used, strict=True)), int(kept_lengths(cut, examples).sum()))


def _bucket_of(cut: Cut, examples: Examples, lengths: tuple[int, ...]) -> np.ndarray:
    """The bucket of each sequence: the shortest that holds it."""
    return np.searchsorted(lengths, kept_lengths(cut, examples))


def on_device(plan: Plan, examples: Examples) -> Data:
    """Copies the examples to the device, their batches in the order of their buckets and of the file."""
    cut, kept = plan.cut, kept_lengths(plan.cut, examples)
    skipped = examples.lengths - kept if cut.keep == "last" else 0
    by_bucket = np.argsort(_bucket_of(cut, examples, plan.lengths), kind="stable")
    rows, bucket = _batches(plan, np.split(by_bucket, np.cumsum(plan.counts)[:-1]), np)
    arrays = (examples.starts[:-1] + skipped, kept, by_bucket, rows, bucket)
    tokens, labels = jnp.asarray(examples.tokens), jnp.asarray(examples.labels)
    return Data(tokens, labels, *(jnp.asarray(array, jnp.int32) for array in arrays))


def _batches(plan: Plan, ids: list, xp):
    """(rows [S, B], bucket [S]) of the sequences of each bucket, in their order. xp: numpy or jax.numpy"""
    rows = []
    for count, batches, members in zip(plan.counts, plan.batches, ids, strict=True):
        padded = xp.concatenate([members, xp.full(batches * plan.cut.batch_size - count, -1, members.dtype)])
        rows.append(padded.reshape(batches, plan.cut.batch_size))
    return xp.concatenate(rows), xp.repeat(xp.arange(len(plan.counts)), np.array(plan.batches))


def shuffle(plan: Plan, data: Data, key: Key[Array, ""]) -> Data:
    """The data with the batches of another epoch, which the key decides."""
    keys = jax.random.split(key, len(plan.counts) + 1)
    members = jnp.split(data.by_bucket, np.cumsum(plan.counts)[:-1])
    shuffled = [jax.random.permutation(k, ids) for k, ids in zip(keys[1:], members, strict=True)]
    rows, bucket = _batches(plan, shuffled, jnp)
    order = jax.random.permutation(keys[0], len(rows))
    return data._replace(rows=rows[order], bucket=bucket.astype(jnp.int32)[order])


def read_batch(plan: Plan, data: Data, length: int, cursor: Int[Array, ""] | int) -> Batch:
    """The batch at `cursor`, whose bucket has this length."""
    ids = data.rows[cursor]
    present = ids >= 0
    numbers = jnp.maximum(ids, 0)
    lengths = jnp.where(present, data.lengths[numbers], 0)
    offset = (length - lengths) if plan.cut.padding == "front_unmasked" else jnp.zeros_like(lengths)
    time = jnp.arange(length, dtype=jnp.int32)[:, None] - offset[None]
    inside = (time >= 0) & (time < lengths[None])
    places = jnp.where(inside, data.starts[numbers][None] + time, 0)
    tokens = jnp.where(inside, data.tokens[places], 0)
    per_token = data.labels.shape[0] == data.tokens.shape[0] != data.starts.shape[0]
    labels = jnp.where(inside, data.labels[places], 0) if per_token else data.labels[numbers]
    if plan.cut.window > 1:
        tokens = _with_neighbours(plan, data, numbers, lengths, length)
    if plan.cut.padding == "front_unmasked":
        lengths = jnp.full_like(lengths, length)
    return Batch(tokens, lengths, labels, present)


def _with_neighbours(plan: Plan, data: Data, numbers: Array, lengths: Array, length: int) -> Int[Array, "R B"]:
    """The tokens of a batch and window // 2 more on each side."""
    side = plan.cut.window // 2
    starts = data.starts[numbers]
    places = starts[None] + jnp.arange(-side, length + side, dtype=jnp.int32)[:, None]
    first = starts if data.first is None else data.first[numbers]
    end = starts + lengths if data.end is None else data.end[numbers]
    inside = (places >= first[None]) & (places < end[None])
    return jnp.where(inside, data.tokens[jnp.where(inside, places, 0)].astype(jnp.int32), OUTSIDE)


def each_batch(data: Data) -> Iterator[tuple[int, int, np.ndarray]]:
    """(cursor, bucket, numbers of its sequences) of every batch, in their order. Empty rows come last in a batch."""
    rows, buckets = np.asarray(data.rows), np.asarray(data.bucket)
    for cursor, (numbers, bucket) in enumerate(zip(rows, buckets, strict=True)):
        yield cursor, int(bucket), numbers[numbers >= 0]


def token_mask(batch: Batch, steps: int) -> Float[Array, "T B"]:
    """1 at tokens, 0 at padding and in empty rows, over `steps` steps."""
    time = jnp.arange(steps)[:, None]
    return ((time < batch.lengths[None]) & batch.present[None]).astype(jnp.float32)
