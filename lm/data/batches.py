"""Cuts a token array on the device into training windows, by an integer cursor.

A text is read as B parallel streams, each advancing `unroll` tokens per window. `batching` sets where streams begin:

heads   stream i begins at i * (N // B) and wraps at the end of the text (Vanhoucke 2016, assignment 6)
rows    the text is trimmed to B * (N // B) tokens and stream i reads its i-th contiguous part; after the last full
        window of an epoch, reading restarts from zero state (TensorFlow's ptb_word_lm, Salvatore 2017, Trask 2019)
windows the windows of rows, each read from zero state (Krueger et al. 2017)

A window holds W = unroll + 1 tokens; its last token is also the first of the next window.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Integer

from lm.errors import UserError

BATCHINGS = ("heads", "rows", "windows")


class Streams(NamedTuple):
    """How a text is cut into windows. Fields are Python numbers and strings, so jit can treat them as static."""

    batching: str
    tokens: int  # N
    batch_size: int  # B
    unroll: int  # W - 1

    @property
    def row(self) -> int:
        """Distance between the beginnings of neighbouring streams, in tokens."""
        return self.tokens // self.batch_size

    @property
    def windows_per_epoch(self) -> int:
        """Windows after which every stream has read its part once."""
        if self.batching == "heads":
            return max(1, self.row // self.unroll)
        return (self.row - 1) // self.unroll


def make_streams(batching: str, tokens: int, batch_size: int, unroll: int, context: int = 1) -> Streams:
    """Raises UserError if the text is too long or too short, or if `unroll` is below the model's `context`."""
    if tokens >= 2**30:  # window() adds two positions in int32
        raise UserError(f"the text is too long: it has {tokens} tokens, and a run can read fewer than {2**30}")
    if unroll < context:
        raise UserError(f"config.data.unroll must be at least {context}, not {unroll}")
    streams = Streams(batching, tokens, batch_size, unroll)
    if streams.row < unroll + 1:
        raise UserError(
            f"the training text has {tokens} tokens, too few for config.data.batch_size={batch_size} streams of "
            f"config.data.unroll={unroll} + 1 tokens; at least {batch_size * (unroll + 1)} are needed"
        )
    return streams


def window(streams: Streams, tokens: Integer[Array, " N"], cursor: Int[Array, ""]) -> Integer[Array, "W B"]:
    """Reads the window at `cursor`, in the tokens' integer type."""
    starts = jnp.arange(streams.batch_size, dtype=jnp.int32) * streams.row
    positions = starts[None] + cursor + jnp.arange(streams.unroll + 1, dtype=jnp.int32)[:, None]
    if streams.batching == "heads":
        positions = positions % streams.tokens
    return jnp.take(tokens, positions, axis=0, mode="clip")


def advance(streams: Streams, cursor: Int[Array, ""]) -> Int[Array, ""]:
    """Cursor of the next window. Except with heads, it returns to 0 after the last full window of an epoch."""
    moved = cursor + streams.unroll
    if streams.batching == "heads":
        return moved % streams.tokens
    return jnp.where(moved >= streams.windows_per_epoch * streams.unroll, 0, moved)


def starts_from_zero(streams: Streams, cursor: Int[Array, ""]) -> Bool[Array, ""]:
    """True if the window at `cursor` is read from zero state. Never with heads: they wrap and keep their state."""
    return {"heads": jnp.zeros((), bool), "rows": cursor == 0, "windows": jnp.ones((), bool)}[streams.batching]
