"""Row lookup with a gradient that suits the table's size."""

import jax
import jax.numpy as jnp

Array = jax.Array

# Up to this many rows the table's gradient is a product with one-hot rows: a dense product beats a serial scatter
# on CPUs there, and vice versa above (measured in experiments/results/speed.md).
DENSE_ROWS = 1024


@jax.custom_vjp
def lookup(table: Array, ids: Array) -> Array:
    """Rows of table [V, D] at integer ids [...] -> [..., D]. Ids must lie in [0, V); they are not checked."""
    return jnp.take(table, ids, axis=0, mode="clip")


def _forward(table, ids):
    return lookup(table, ids), (table.shape[0], ids)


def _backward(saved, d_rows):
    rows, ids = saved
    flat = d_rows.reshape(-1, d_rows.shape[-1])
    if rows <= DENSE_ROWS:
        return jax.nn.one_hot(ids.reshape(-1), rows, dtype=flat.dtype).T @ flat, None
    return jnp.zeros((rows, flat.shape[-1]), flat.dtype).at[ids.reshape(-1)].add(flat), None


lookup.defvjp(_forward, _backward)
