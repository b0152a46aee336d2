"""Matrix products over time and batch, in the forms that run fastest (docs/speed.md).

Time and batch become the rows of one flat product: on a CPU, a product over both axes takes half as long again.
"""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float


@jax.custom_vjp
def rows_times(x: Float[Array, "*rows M"], weight: Float[Array, "M N"]) -> Float[Array, "*rows N"]:
    """x weight, with the weight's gradient by `weight_gradient`."""
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
    """The function u [rows, M] -> u weight, for a loop that repeats this product.

    A single row is multiplied by a transposed copy of the weight, in which each result is a sum along memory.
    """
    if rows > 1:
        return lambda u: u @ weight
    transposed = jax.lax.optimization_barrier(weight.T)
    return lambda u: u @ transposed.T


def weight_gradient(u: Float[Array, "*rows M"], d: Float[Array, "*rows N"]) -> Float[Array, "M N"]:
    """u^T d, summed over all axes except the last: the gradient of weight, where d is the gradient of u weight."""
    return jax.lax.platform_dependent(_flat(u), _flat(d), cpu=_by_transposed_copy, default=lambda u, d: u.T @ d)


def _by_transposed_copy(u: Array, d: Array) -> Array:
    """u^T d from a transposed copy of u: XLA's fast product for CPUs takes no transposed left side."""
    return jax.lax.optimization_barrier(u.T) @ d


def _flat(x: Array) -> Array:
    """[..., N] -> [rows, N]."""
    return x.reshape(-1, x.shape[-1])
