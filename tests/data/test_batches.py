"""Windows equal those of the sources' batch generators, token by token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.data import batches
from lm.errors import UserError
from tests.helpers import references


def windows(batching, text, batch_size, unroll, count):
    """The first `count` windows [count, T + 1, B] and, for each, whether it is read from zero state."""
    streams = batches.make_streams(batching, len(text), batch_size, unroll)
    tokens, cursor, found, starts = jnp.asarray(text), jnp.int32(0), [], []
    read = jax.jit(lambda tokens, cursor: batches.window(streams, tokens, cursor))
    for _ in range(count):
        found.append(np.asarray(read(tokens, cursor)))
        starts.append(bool(batches.starts_from_zero(streams, cursor)))
        cursor = batches.advance(streams, cursor)
    return np.array(found), starts


@pytest.mark.parametrize(("length", "batch_size", "unroll"), [(50, 4, 5), (64, 8, 3), (23, 1, 7), (31, 7, 3)])
def test_heads_are_the_generator_of_assignment_6(length, batch_size, unroll):
    """Vanhoucke 2016. Every head passes the end of the text at least once."""
    text = np.arange(length, dtype=np.uint8)  # every position is a different token
    count = 2 * length // unroll + 1
    generator = references.BatchGenerator(text, batch_size, unroll)
    expected = np.array([generator.next() for _ in range(count)])
    found, starts = windows("heads", text, batch_size, unroll, count)
    np.testing.assert_array_equal(found, expected)
    assert (np.diff(found.astype(int), axis=1) < 0).any(), "no head wrapped: the test proves nothing"
    assert not any(starts), "heads keep their state"


@pytest.mark.parametrize(("length", "batch_size", "unroll"), [(50, 4, 5), (49, 4, 3), (48, 4, 3), (23, 1, 7)])
def test_rows_are_the_iterator_of_ptb_word_lm_in_every_epoch(length, batch_size, unroll):
    text = np.arange(length, dtype=np.uint8)
    epoch = [np.concatenate([x, y[:, -1:]], axis=1).T for x, y in references.ptb_iterator(text, batch_size, unroll)]
    found, starts = windows("rows", text, batch_size, unroll, 3 * len(epoch))
    np.testing.assert_array_equal(found, np.array(epoch * 3))
    assert starts == [True, *[False] * (len(epoch) - 1)] * 3
    assert batches.make_streams("rows", length, batch_size, unroll).windows_per_epoch == len(epoch)


def test_windows_are_those_of_rows_read_from_zero_state():
    text = np.arange(50, dtype=np.uint8)
    found, starts = windows("windows", text, 4, 5, 5)
    np.testing.assert_array_equal(found, windows("rows", text, 4, 5, 5)[0])
    assert all(starts)


@pytest.mark.parametrize("batching", ["heads", "rows"])
def test_the_last_token_of_a_window_is_the_first_of_the_next(batching):
    text = np.random.default_rng(0).integers(0, 27, 200).astype(np.uint8)
    found, starts = windows(batching, text, 4, 6, 30)
    joins = [i for i in range(1, 30) if not starts[i]]
    assert len(joins) > 20
    for i in joins:
        np.testing.assert_array_equal(found[i][0], found[i - 1][-1])


def test_windows_per_epoch_of_the_sources():
    """Cognitive Class 2018: (929,589 // 60 - 1) // 20; Trask 2019: 195 and 249 windows per pass."""
    assert batches.make_streams("rows", 929_589, 60, 20).windows_per_epoch == 774
    assert batches.make_streams("rows", 99_993, 32, 16).windows_per_epoch == 195
    assert batches.make_streams("rows", 99_993, 16, 25).windows_per_epoch == 249


def test_windows_keep_the_integer_type_of_the_text():
    for dtype in (np.uint8, np.uint16):
        found, _ = windows("heads", np.arange(60).astype(dtype), 4, 5, 1)
        assert found.dtype == dtype


def test_positions_of_100_million_tokens_do_not_overflow():
    """Near the end of text8, where all heads except the first wrap. A token is its position modulo 256."""
    length, batch_size, unroll = 99_999_000, 64, 10
    streams = batches.make_streams("heads", length, batch_size, unroll)
    assert streams.row == 1_562_484
    positions = (np.arange(batch_size) * 1_562_484 + 99_998_995 + np.arange(unroll + 1)[:, None]) % length
    tokens = np.resize(np.arange(256, dtype=np.uint8), length)
    found = batches.window(streams, jnp.asarray(tokens), jnp.int32(99_998_995))
    np.testing.assert_array_equal(np.asarray(found), positions % 256)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("heads", 100, 4, 0), ["config.data.unroll", "0"]),
        (("rows", 100, 4, 25), ["100", "batch_size=4", "unroll=25", "104"]),
        (("heads", 3, 4, 1), ["3", "batch_size=4", "8"]),
    ],
)
def test_sizes_without_a_whole_window_are_errors(arguments, words):
    with pytest.raises(UserError) as caught:
        batches.make_streams(*arguments)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)


def test_the_smallest_text_with_a_window():
    found, _ = windows("rows", np.arange(8, dtype=np.uint8), 2, 3, 2)
    np.testing.assert_array_equal(found, [[[0, 4], [1, 5], [2, 6], [3, 7]]] * 2)


def test_a_bigram_model_needs_an_unroll_of_two():
    with pytest.raises(UserError, match=r"config\.data\.unroll must be at least 2"):
        batches.make_streams("heads", 100, 4, 1, context=2)
