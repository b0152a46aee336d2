"""Hopfield networks store patterns in symmetric weights and recall them from corrupted states.

A state is [N]; a pattern is a state of -1 and 1. W = X^T X without its diagonal, for P patterns X [P, N] (Hebb's rule).

rule      new value of a unit          source
sign      sign(W a), or a if W a = 0   Hopfield 1982
satlins   W a, clipped to [-1, 1]      Hagan et al. 1996
softmax   X^T softmax(beta X a)        Ramsauer et al. 2021; without W, and for all units at once
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from scipy.special import erf, erfc

RULES = ("sign", "satlins", "softmax")


def hebb(patterns: Float[Array, "P N"]) -> Float[Array, "N N"]:
    """The weights that store the patterns."""
    return patterns.T @ patterns * (1.0 - jnp.eye(patterns.shape[1]))


def activate(rule: str, field: Array, state: Array) -> Array:
    """The new states of units whose inputs are `field`."""
    return jnp.clip(field, -1.0, 1.0) if rule == "satlins" else jnp.where(field == 0, state, jnp.sign(field))


def energy(weights: Float[Array, "N N"], state: Float[Array, "... N"]) -> Float[Array, "..."]:
    """1/2 a.a - 1/2 a.W a (Hopfield 1984). Updating a single unit never raises the energy: with satlins from
    states in [-1, 1], with sign from states of -1 and 1."""
    return 0.5 * jnp.sum(state**2 - state * (state @ weights), axis=-1)


def softmax_energy(patterns: Float[Array, "P N"], state: Float[Array, "... N"], beta: float) -> Float[Array, "..."]:
    """1/2 a.a - 1/beta ln sum exp(beta x.a), over the patterns x. A softmax update never raises it."""
    return 0.5 * jnp.sum(state**2, axis=-1) - jax.nn.logsumexp(beta * state @ patterns.T, axis=-1) / beta


@functools.partial(jax.jit, static_argnames=("rule", "steps"))
def recall_together(
    weights: Float[Array, "N N"], state: Float[Array, "B N"], rule: str, steps: int
) -> Float[Array, "K B N"]:
    """States before and after each of `steps` updates of all units at once. K = steps + 1."""

    def update(a, _):
        return activate(rule, a @ weights, a), a

    final, before = jax.lax.scan(update, state, length=steps)
    return jnp.concatenate([before, final[None]])


@functools.partial(jax.jit, static_argnames=("rule", "sweeps"))
def recall_in_turn(
    weights: Float[Array, "N N"], state: Float[Array, "B N"], rule: str, sweeps: int, key: Key[Array, ""]
) -> Float[Array, "K B N"]:
    """States before and after each of `sweeps` sweeps, K = sweeps + 1. A sweep updates the units one by one, in random
    order."""

    def update(carry, unit):
        a, field = carry
        new = activate(rule, field[:, unit], a[:, unit])
        change = new - a[:, unit]
        return (a.at[:, unit].set(new), field + change[:, None] * weights[unit][None]), None

    def sweep(a, sweep_key):
        order = jax.random.permutation(sweep_key, a.shape[1])
        (after, _), _ = jax.lax.scan(update, (a, a @ weights), order)
        return after, a

    final, before = jax.lax.scan(sweep, state, jax.random.split(key, sweeps))
    return jnp.concatenate([before, final[None]])


@functools.partial(jax.jit, static_argnames=("beta", "steps"))
def recall_by_softmax(
    patterns: Float[Array, "P N"], state: Float[Array, "B N"], beta: float, steps: int
) -> Float[Array, "K B N"]:
    """States before and after each of `steps` softmax updates. K = steps + 1."""

    def update(a, _):
        return jax.nn.softmax(beta * a @ patterns.T, axis=-1) @ patterns, a

    final, before = jax.lax.scan(update, state, length=steps)
    return jnp.concatenate([before, final[None]])


# --- Theory ---------------------------------------------------------------------------------------------------------


def bit_error(load: float) -> float:
    """Probability that one update flips a bit of a stored random pattern, for large N. load: P / N. The noise from the
    other patterns is normal with variance P / N (Hertz, Krogh and Palmer 1991, section 2.2)."""
    return 0.5 * float(erfc(math.sqrt(0.5 / load)))


def overlap_curve(points: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Returns (loads P / N, overlaps m of the final state with the recalled pattern) for a large network.

    Solves m = erf(y) and y (sqrt(2 load) + 2 / sqrt(pi) exp(-y^2)) = erf(y) (Amit, Gutfreund and Sompolinsky 1985, at
    temperature 0), for a grid of y. The largest load, 0.138, is the capacity.
    """
    y = np.linspace(1.0, 6.0, points)
    loads = 0.5 * (erf(y) / y - 2 / math.sqrt(math.pi) * np.exp(-(y**2))) ** 2
    stable = slice(int(np.argmax(loads)), None)  # solutions with smaller y are unstable
    return loads[stable], erf(y[stable])
