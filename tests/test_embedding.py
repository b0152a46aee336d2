"""Both gradients of the row lookup equal autodiff's of jnp.take, and a count by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm import embedding

ROWS, SIZE = 7, 3


@pytest.fixture(params=["dense", "scatter"])
def path(request, monkeypatch):
    monkeypatch.setattr(embedding, "DENSE_ROWS", ROWS if request.param == "dense" else ROWS - 1)
    return request.param


def data(dtype=np.int32, rows=ROWS):
    rng = np.random.default_rng(0)
    table = jnp.asarray(rng.normal(size=(rows, SIZE)), jnp.float32)
    ids = jnp.asarray(rng.integers(0, rows - 1, (5, 4)).astype(dtype))  # repeats; the last row is never read
    weights = jnp.asarray(rng.normal(size=(5, 4, SIZE)), jnp.float32)
    return table, ids, weights


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_value_and_gradient_are_those_of_take(path, dtype):
    table, ids, weights = data(dtype)

    def loss(lookup):
        return lambda table: jnp.sum(weights * jnp.sin(lookup(table, ids)))

    value, gradient = jax.value_and_grad(loss(embedding.lookup))(table)
    expected, expected_gradient = jax.value_and_grad(loss(lambda table, ids: jnp.take(table, ids, axis=0)))(table)
    assert value == expected
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5, atol=1e-6)


def test_gradient_is_the_sum_over_a_rows_occurrences(path):
    table, ids, weights = data()
    gradient = jax.grad(lambda table: jnp.sum(weights * embedding.lookup(table, ids)))(table)
    expected = np.zeros((ROWS, SIZE))
    np.add.at(expected, np.asarray(ids), np.asarray(weights, np.float64))
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(gradient[-1], np.zeros(SIZE))


def test_over_a_batch_of_tables(path):
    """As sweeps do: several models in one program."""
    table, ids, weights = data()
    tables = jnp.stack([table, 2 * table])

    def gradient(table):
        return jax.grad(lambda t: jnp.sum(weights * jnp.square(embedding.lookup(t, ids))))(table)

    together = jax.vmap(gradient)(tables)
    for i in range(2):
        np.testing.assert_allclose(together[i], gradient(tables[i]), rtol=1e-6)


def test_tables_of_the_models_take_the_path_meant_for_their_size():
    """Characters and bigrams of text8 are dense, PTB's words are not; around the limit both agree."""
    assert 27**2 <= embedding.DENSE_ROWS < 10_000
    for rows in (embedding.DENSE_ROWS, embedding.DENSE_ROWS + 1):
        table, ids, weights = data(rows=rows)
        gradient = jax.grad(lambda t, i=ids, w=weights: jnp.sum(w * embedding.lookup(t, i)))(table)
        expected = np.zeros((rows, SIZE))
        np.add.at(expected, np.asarray(ids), np.asarray(weights, np.float64))
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)
