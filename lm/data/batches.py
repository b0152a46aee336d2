"""From a token array on the device to training windows, by an integer cursor.

Two ways of cutting a text into B streams that are read in parallel, each advancing `unroll` tokens a window:

heads   B read heads at offsets i * (N // B), each wrapping at the end of the text (assignment 6)
rows    the text trimmed to B * (N // B), row i is the i-th contiguous part; a row's windows make one epoch, after
        which reading begins anew from zero state (ptb_word_lm, CS224d, Grokking Deep Learning)

A window holds unroll + 1 tokens: its last token is the first of the next window.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lm.errors import UserError, check_name

Array = jax.Array


class Streams(NamedTuple):
    """How windows are cut; all fields are Python integers or names, so they are static under jit."""

    batching: str
    tokens: int  # N
    batch_size: int  # B
    unroll: int

    @property
    def row(self) -> int:
        """Distance between neighbouring streams, in tokens."""
        return self.tokens // self.batch_size

    @property
    def windows_per_epoch(self) -> int:
        """Windows after which every stream has read its part once."""
        if self.batching == "rows":
            return (self.row - 1) // self.unroll
        return max(1, self.row // self.unroll)


def make_streams(batching: str, tokens: int, batch_size: int, unroll: int, context: int = 1) -> Streams:
    """Checks the numbers and returns the Streams. Raises UserError for sizes that leave nothing to read."""
    check_name(batching, ("heads", "rows"), "config.data.batching")
    if tokens >= 2**30:  # a position is the sum of two of them, in 32 bits
        raise UserError(f"a text of {tokens} tokens is too long: less than {2**30} can be read at once")
    if batch_size < 1:
        raise UserError(f"config.data.batch_size must be at least 1, not {batch_size}")
    if unroll < context:
        raise UserError(f"config.data.unroll must be at least {context}, not {unroll}")
    streams = Streams(batching, tokens, batch_size, unroll)
    if streams.row < unroll + 1:
        raise UserError(
            f"the training text has {tokens} tokens, too few for config.data.batch_size={batch_size} streams of "
            f"config.data.unroll={unroll} + 1 tokens; at least {batch_size * (unroll + 1)} are needed"
        )
    return streams


def window(streams: Streams, tokens: Array, cursor: Array) -> Array:
    """The window at `cursor`: tokens [N] -> [unroll + 1, B], same integer type."""
    starts = jnp.arange(streams.batch_size, dtype=jnp.int32) * streams.row
    positions = starts[None] + cursor + jnp.arange(streams.unroll + 1, dtype=jnp.int32)[:, None]
    if streams.batching == "heads":
        positions = positions % streams.tokens
    return jnp.take(tokens, positions, axis=0, mode="clip")


def advance(streams: Streams, cursor: Array) -> Array:
    """The cursor of the next window; for rows it returns to 0 after the last whole window of an epoch."""
    moved = cursor + streams.unroll
    if streams.batching == "heads":
        return moved % streams.tokens
    return jnp.where(moved >= streams.windows_per_epoch * streams.unroll, 0, moved)


def starts_epoch(streams: Streams, cursor: Array) -> Array:
    """Whether the window at `cursor` is read from zero state. Heads never forget: they wrap and read on."""
    return (cursor == 0) if streams.batching == "rows" else jnp.zeros((), bool)


def on_device(tokens: np.ndarray) -> Array:
    """Tokens as one device array of the smallest integer type that holds them (they arrive so)."""
    return jnp.asarray(tokens)
