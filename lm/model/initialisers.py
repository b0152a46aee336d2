"""Parameter initialisers by name: a specification is a tuple (name, *numbers), such as ("uniform", -0.1, 0.1)."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key
from ml_collections import FrozenConfigDict

PRNGKey = Key[Array, ""]
Shape = tuple[int, ...]
Values = Float[Array, "..."]


def zeros(key: PRNGKey, shape: Shape, dtype) -> Values:
    """All zeros."""
    return jnp.zeros(shape, dtype)


def constant(key: PRNGKey, shape: Shape, dtype, value: float) -> Values:
    """All equal to value."""
    return jnp.full(shape, value, dtype)


def uniform(key: PRNGKey, shape: Shape, dtype, low: float, high: float) -> Values:
    """U(low, high)."""
    return jax.random.uniform(key, shape, dtype, low, high)


def normal(key: PRNGKey, shape: Shape, dtype, mean: float, deviation: float) -> Values:
    """N(mean, deviation^2)."""
    return mean + deviation * jax.random.normal(key, shape, dtype)


def truncated_normal(key: PRNGKey, shape: Shape, dtype, mean: float, deviation: float) -> Values:
    """N(mean, deviation^2), truncated at two deviations. As in TensorFlow, the variance is not corrected."""
    return mean + deviation * jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype)


def glorot_uniform(key: PRNGKey, shape: Shape, dtype) -> Values:
    """U(+-sqrt(6 / (fan_in + fan_out))) (Glorot and Bengio 2010). A bias [n] counts as [1, n]."""
    limit = (6.0 / (sum(shape) if len(shape) > 1 else 1 + shape[0])) ** 0.5
    return jax.random.uniform(key, shape, dtype, -limit, limit)


def tensorflow0_uniform(key: PRNGKey, shape: Shape, dtype) -> Values:
    """U(+-sqrt(3 / shape[0])): the default of `tf.get_variable` before TensorFlow 1.0. A bias counts as [1, n]."""
    limit = (3.0 / (shape[0] if len(shape) > 1 else 1)) ** 0.5
    return jax.random.uniform(key, shape, dtype, -limit, limit)


def he_normal(key: PRNGKey, shape: Shape, dtype) -> Values:
    """N(0, 2 / fan_in) (He et al. 2015)."""
    return jax.random.normal(key, shape, dtype) * (2.0 / shape[0]) ** 0.5


def orthogonal(key: PRNGKey, shape: Shape, dtype) -> Values:
    """Orthonormal rows or columns (Saxe et al. 2014). A shape [H, k H] gets k orthogonal matrices, one per gate."""
    rows, columns = shape
    make = jax.nn.initializers.orthogonal()
    parts = max(1, columns // rows)
    if columns != parts * rows:
        return make(key, shape, dtype)
    return jnp.concatenate([make(each, (rows, rows), dtype) for each in jax.random.split(key, parts)], axis=1)


def lstm_bias(key: PRNGKey, shape: Shape, dtype, forget: float) -> Values:
    """Bias [4H] for gates i, f, g, o: `forget` for f, 0 for i, g and o (Gers et al. 2000, Jozefowicz et al. 2015)."""
    units = shape[0] // 4
    return jnp.zeros(shape, dtype).at[units : 2 * units].set(forget)


def lru_ring(key: PRNGKey, shape: Shape, dtype, least: float, greatest: float) -> Values:
    """ln(-ln r) for r^2 uniform in [least^2, greatest^2] (Orvieto et al. 2023)."""
    square = jax.random.uniform(key, shape, dtype, least**2, greatest**2)
    return jnp.log(-0.5 * jnp.log(square))


def lru_phase(key: PRNGKey, shape: Shape, dtype, greatest: float) -> Values:
    """ln t for an angle t uniform in (0, greatest]. At 2 pi, r exp(1j t) is uniform on a ring (r: see `lru_ring`)."""
    return jnp.log(greatest * (1 - jax.random.uniform(key, shape, dtype)))


INITIALISERS = {
    "zeros": zeros,
    "constant": constant,
    "uniform": uniform,
    "normal": normal,
    "truncated_normal": truncated_normal,
    "glorot_uniform": glorot_uniform,
    "tensorflow0_uniform": tensorflow0_uniform,
    "he_normal": he_normal,
    "orthogonal": orthogonal,
    "lstm_bias": lstm_bias,
    "lru_ring": lru_ring,
    "lru_phase": lru_phase,
}


def initialiser(specification: tuple) -> Callable[..., Values]:
    """Returns the function (key, shape, dtype) -> array for a specification (name, *numbers)."""
    name, *numbers = specification

    def initialise(key: PRNGKey, shape: Shape, dtype=jnp.float32) -> Values:
        return INITIALISERS[name](key, shape, dtype, *map(float, numbers))

    return initialise


def without_initialisers(model: Any, **changes) -> Any:
    """Copies a model for training. Sets all initialisers to zeros, so that configs share compiled programs.

    changes: new values of other fields that training does not read
    """
    return model.clone(init_config=FrozenConfigDict(dict.fromkeys(model.init_config, ("zeros",))), **changes)


class Separate(nn.Module):
    """Base of the models whose batches share no carry. They have a field `init_config`: config.init."""

    def for_training(self):
        return without_initialisers(self)

    def initial_carry(self, batch: int) -> tuple:
        return ()

    def parameter(self, name: str, role: str, *shape: int):
        """Creates a parameter with the initialiser config.init[role]."""
        return self.param(name, initialiser(self.init_config[role]), shape)
