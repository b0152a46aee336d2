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


class Reader(NamedTuple):
    """How windows are cut; all fields are Python integers or names, so a reader is static under jit."""

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


def make_reader(batching: str, tokens: int, batch_size: int, unroll: int, context: int = 1) -> Reader:
    """Checks the numbers and makes a Reader. Raises UserError for sizes that leave nothing to read."""
    check_name(batching, ("heads", "rows"), "config.data.batching")
    if tokens >= 2**30:  # a position is the sum of two of them, in 32 bits
        raise UserError(f"a text of {tokens} tokens is too long: less than {2**30} can be read at once")
    if batch_size < 1:
        raise UserError(f"config.data.batch_size must be at least 1, not {batch_size}")
    if unroll < context:
        raise UserError(f"config.data.unroll must be at least {context}, not {unroll}")
    reader = Reader(batching, tokens, batch_size, unroll)
    if reader.row < unroll + 1:
        raise UserError(
            f"the training text has {tokens} tokens, too few for config.data.batch_size={batch_size} streams of "
            f"config.data.unroll={unroll} + 1 tokens; at least {batch_size * (unroll + 1)} are needed"
        )
    return reader


def window(reader: Reader, tokens: Array, cursor: Array) -> Array:
    """The window at `cursor`: tokens [N] -> [unroll + 1, B], same integer type."""
    starts = jnp.arange(reader.batch_size, dtype=jnp.int32) * reader.row
    positions = starts[None] + cursor + jnp.arange(reader.unroll + 1, dtype=jnp.int32)[:, None]
    if reader.batching == "heads":
        positions = positions % reader.tokens
    return jnp.take(tokens, positions, axis=0, mode="clip")


def advance(reader: Reader, cursor: Array) -> Array:
    """The cursor of the next window; for rows it returns to 0 after the last whole window of an epoch."""
    moved = cursor + reader.unroll
    if reader.batching == "heads":
        return moved % reader.tokens
    return jnp.where(moved >= reader.windows_per_epoch * reader.unroll, 0, moved)


def starts_epoch(reader: Reader, cursor: Array) -> Array:
    """Whether the window at `cursor` is read from zero state. Heads never forget: they wrap and read on."""
    return (cursor == 0) if reader.batching == "rows" else jnp.zeros((), bool)


def on_device(tokens: np.ndarray) -> Array:
    """Tokens as one device array of the smallest integer type that holds them (they arrive so)."""
    return jnp.asarray(tokens)
