"""Matrix products over time and batch, in the forms that run fastest (docs/speed.md).

Time and batch are flattened into rows: on a CPU, a product with an unflattened x [T, B, M] takes 1.5 times as long.
"""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float


@jax.custom_vjp
def rows_times(x: Float[Array, "*rows M"], weight: Float[Array, "M N"]) -> Float[Array, "*rows N"]:
    """x @ weight, with the weight's gradient by `weight_gradient`."""
    return _rows_times(x, weight)


def _rows_times(x, weight):
    return (_flat(x) @ weight).reshape(*x.shape[:-1], weight.shape[-1])


def _forward(x, weight):
    return _rows_times(x, weight), (x, weight)


def _backward(saved, d):
    x, weight = saved
    return (_flat(d) @ weight.T).reshape(x.shape), weight_gradient(x, d)


rows_times.defvjp(_forward, _backward)


def multiplier(weight: Float[Array, "M N"], rows: int) -> Callable[[Float[Array, "R M"]], Float[Array, "R N"]]:
    """Returns the function u [rows, M] -> u @ weight, for use in a loop.

    For a single row, the function uses a transposed copy of the weight, so that each sum reads contiguous memory.
    """
    if rows > 1:
        return lambda u: u @ weight
    transposed = jax.lax.optimization_barrier(weight.T)
    return lambda u: u @ transposed.T


def weight_gradient(u: Float[Array, "*rows M"], d: Float[Array, "*rows N"]) -> Float[Array, "M N"]:
    """The loss's gradient by weight: u^T d, summed over all rows. d: the loss's gradient by u @ weight"""
    return jax.lax.platform_dependent(_flat(u), _flat(d), cpu=_by_transposed_copy, default=lambda u, d: u.T @ d)


def _by_transposed_copy(u: Array, d: Array) -> Array:
    """u^T d from a transposed copy of u: XLA's fast CPU product does not accept a transposed left factor."""
    return jax.lax.optimization_barrier(u.T) @ d


def _flat(x: Array) -> Array:
    """[..., N] -> [rows, N]."""
    return x.reshape(-1, x.shape[-1])
