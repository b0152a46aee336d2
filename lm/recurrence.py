"""Runs a cell over time: the scan, and its fast gradient.

`run` takes inputs [T, B, D] and a carry to outputs [T, B, H] and the next carry. A `PointwiseCell` goes through
`scan_pointwise`: the input product is one [T*B, D] x [D, G*H] product before the loop, and the backward pass, one
for all such cells, computes each weight gradient as one product after the reverse scan instead of T small ones
accumulated inside it. A `StepCell` goes through a plain `jax.lax.scan` with autodiff, which is also the oracle
for the fast path in the tests (`scan_plain`).
"""

import functools

import jax
import jax.numpy as jnp

from lm.cells import Cell, PointwiseCell
from lm.embedding import lookup

Array = jax.Array


def run(cell: Cell, parameters: dict, x: Array, carry) -> tuple:
    """One recurrent layer over a window.

    x: [T, B, D] floats, or [T, B] integers that stand for one-hot vectors of size D.
    Returns (carry after the last step, h [T, B, H]).
    """
    if isinstance(cell, PointwiseCell):
        vectors = {name: parameters[name] for name in cell.vectors}
        z_x = project(x, parameters["w_x"]) + parameters["b"]
        return scan_pointwise(cell.pointwise, z_x, parameters["w_h"], carry, vectors)
    if jnp.issubdtype(x.dtype, jnp.integer):
        size = cell.parameters(0, 0)  # names only: every input matrix has D rows
        rows = next(parameters[name].shape[0] for name, (role, _) in size.items() if role == "input")
        x = jax.nn.one_hot(x, rows, dtype=carry[0].dtype)
    return jax.lax.scan(lambda state, x_t: cell.step(parameters, x_t, state), carry, x)


def project(x: Array, w_x: Array) -> Array:
    """x W_x for the whole window: [T, B, D] x [D, G*H] -> [T, B, G*H]; for one-hot x [T, B], rows of W_x."""
    if jnp.issubdtype(x.dtype, jnp.integer):
        return lookup(w_x, x)
    return jnp.einsum("tbd,dg->tbg", x, w_x)


def scan_plain(pointwise, z_x: Array, w_h: Array, carry, vectors: dict) -> tuple:
    """The time loop of a pointwise cell, differentiated by autodiff. Shapes as `scan_pointwise`."""

    def step(carry, z_x_t):
        return pointwise(z_x_t, carry.h @ w_h, carry, vectors)

    return jax.lax.scan(step, carry, z_x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def scan_pointwise(pointwise, z_x: Array, w_h: Array, carry, vectors: dict) -> tuple:
    """The time loop of a pointwise cell, with the generic fast gradient.

    z_x [T, B, G*H], w_h [H, G*H], carry with fields [B, H], vectors {name: [H]} -> (carry, h [T, B, H]).
    """
    return scan_plain(pointwise, z_x, w_h, carry, vectors)


def _scan_forward(pointwise, z_x, w_h, carry, vectors):
    def step(carry, z_x_t):
        z_h_t = carry.h @ w_h
        after, h = pointwise(z_x_t, z_h_t, carry, vectors)
        return after, (h, z_h_t, carry)

    last, (h, z_h, before) = jax.lax.scan(step, carry, z_x)
    return (last, h), (z_x, z_h, before, w_h, vectors)


def _scan_backward(pointwise, saved, cotangents):
    """Recomputes the elementwise part, which is cheaper than storing every activation, and runs time backwards."""
    z_x, z_h, before, w_h, vectors = saved
    d_last, d_h = cotangents
    w_h_transposed = w_h.T

    def step(state, inputs):
        d_carry, d_vectors = state
        z_x_t, z_h_t, carry, d_h_t = inputs
        _, pullback = jax.vjp(pointwise, z_x_t, z_h_t, carry, vectors)
        d_z_x, d_z_h, d_carry, d_vectors_t = pullback((d_carry, d_h_t))
        d_carry = d_carry._replace(h=d_carry.h + d_z_h @ w_h_transposed)
        # Cells that only read z_x + z_h have one cotangent for both: store it once.
        d_z = (d_z_x,) if d_z_h is d_z_x else (d_z_x, d_z_h)
        return (d_carry, jax.tree.map(jnp.add, d_vectors, d_vectors_t)), d_z

    start = (d_last, jax.tree.map(jnp.zeros_like, vectors))
    (d_carry, d_vectors), d_z = jax.lax.scan(step, start, (z_x, z_h, before, d_h), reverse=True)
    d_w_h = jnp.einsum("tbh,tbg->hg", before.h, d_z[-1])
    return d_z[0], d_w_h, d_carry, d_vectors


scan_pointwise.defvjp(_scan_forward, _scan_backward)
