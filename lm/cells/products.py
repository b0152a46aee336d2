"""Matrix products over time and batch, in the forms in which they run fastest (docs/results/speed.md).

Both axes count as rows of one flat product: on a CPU a product over two axes at once takes half as long again.
"""

from collections.abc import Callable

import jax

Array = jax.Array


@jax.custom_vjp
def rows_times(x: Array, weight: Array) -> Array:
    """x weight: [..., D] x [D, N] -> [..., N], with the weight's gradient by `weight_gradient`."""
    return _rows_times(x, weight)


def _rows_times(x, weight):
    return (_flat(x) @ weight).reshape(*x.shape[:-1], weight.shape[-1])


def _forward(x, weight):
    return _rows_times(x, weight), (x, weight)


def _backward(saved, d):
    x, weight = saved
    return (_flat(d) @ weight.T).reshape(x.shape), weight_gradient(x, d)


rows_times.defvjp(_forward, _backward)


def reader(weight: Array, rows: int) -> Callable[[Array], Array]:
    """u [rows, M] -> u weight, for a loop that takes this product again and again.

    A single row is multiplied from a copy of the weight that lies transposed, where each result is a sum along memory.
    """
    if rows > 1:
        return lambda u: u @ weight
    transposed = jax.lax.optimization_barrier(weight.T)
    return lambda u: u @ transposed.T


def weight_gradient(u: Array, d: Array) -> Array:
    """u^T d, summed over all axes but the last: u [..., M], d [..., N] -> [M, N].

    The gradient of a weight [M, N] that u was multiplied by, d being the gradient of the product.
    """
    return jax.lax.platform_dependent(_flat(u), _flat(d), cpu=_by_transposed_copy, default=lambda u, d: u.T @ d)


def _by_transposed_copy(u: Array, d: Array) -> Array:
    """u^T d from a copy of u that lies transposed: XLA's fast product for CPUs takes no transposed left side."""
    return jax.lax.optimization_barrier(u.T) @ d


def _flat(x: Array) -> Array:
    """[..., N] -> [rows, N]."""
    return x.reshape(-1, x.shape[-1])
