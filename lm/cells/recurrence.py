"""Runs a cell over a window of time: the loop, the noise inside it, and its fast gradient.

`run` takes inputs [T, B, D] and a carry to outputs [T, B, H] and the next carry.

A cell's equations name their products: `product(name, u)` is u @ weights[name]. The loop decides what that means.
`scan_plain` multiplies, and autodiff does the rest: the oracle in the tests. `scan_steps`, which training uses, has
one backward pass for all cells: going forward it stores the products alone; going back it recomputes only what is
elementwise, and collects both factors of each weight gradient over time, so that the gradient is one product after the
loop instead of T small ones summed inside it. A `PointwiseCell` is the special case of one product, h W_h. A
`ParallelCell` has no product with the past, and no loop: `solve` is its scan over time.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lm.cells.kinds import Cell, ParallelCell, PointwiseCell
from lm.cells.products import reader, rows_times, weight_gradient
from lm.errors import UserError

Array = jax.Array


class RecurrentNoise(NamedTuple):
    """Randomness inside the time loop of one layer; what is None (or {}) is off and costs nothing.

    Masks are inverted, 1 / keep or 0; a mask of T steps may also have one step, shared through time.

    hidden:   [B, H], multiplies h_{t-1} where the recurrent products read it (Gal & Ghahramani 2016)
    update:   [T, B, H], multiplies the candidate g before it enters the memory (Semeniuta et al. 2016)
    carried:  [T, B, H], multiplies the new h, as output and as state
    zoneout:  field of the carry -> [T, B, H] of 1 (keeps the old value) and 0; in evaluation the scalar rate p:
              p * old + (1 - p) * new (Krueger et al. 2017). Acts before `carried`.
    """

    hidden: Array | None = None
    update: Array | None = None
    carried: Array | None = None
    zoneout: dict[str, Array | float] | None = None


def run(cell: Cell, parameters: dict, x: Array, carry, noise: RecurrentNoise | None = None) -> tuple:
    """One recurrent layer over a window.

    x: [T, B, D] floats, or [T, B] integers that stand for one-hot vectors of size D.
    Returns (carry after the last step, h [T, B, H]). Raises UserError for noise that the cell has no place for.
    """
    noise = noise or RecurrentNoise()
    check_noise(cell, noise)
    if isinstance(cell, ParallelCell):
        return run_parallel(cell, parameters, x, carry, noise)
    fixed, timed = split_noise(noise, x.shape[0])
    step, z, weights, vectors = prepare(cell, parameters, x, carry)
    scan = scan_plain if x.shape[0] == 1 else scan_steps
    return scan(step, z, weights, carry, vectors, fixed, timed)


def prepare(cell: Cell, parameters: dict, x: Array, carry) -> tuple:
    """What `scan_plain` and `scan_steps` loop over: (step, inputs of the loop [T, B, ...], weights, vectors).

    The input product of cells that allow it, x W_x + b, is taken here, for the whole window at once.
    """
    rest = dict(parameters)
    if isinstance(cell, PointwiseCell) or cell.projected:
        z = project(x, rest.pop("w_x")) + rest.pop("b")[None, None]
    elif jnp.issubdtype(x.dtype, jnp.integer):
        roles = cell.parameters(1, 1)
        rows = next(parameters[name].shape[0] for name, (role, _) in roles.items() if role == "input")
        z = jax.nn.one_hot(x, rows, dtype=carry[0].dtype)
    else:
        z = x
    weights = {name: value for name, value in rest.items() if value.ndim == 2}
    vectors = {name: value for name, value in rest.items() if value.ndim < 2}
    return (_pointwise_step(cell.pointwise) if isinstance(cell, PointwiseCell) else cell.step), z, weights, vectors


@functools.cache
def _pointwise_step(pointwise):
    """The step of a pointwise cell: its one product, then its equations."""

    def step(product, z_x, carry, vectors, hidden=None, **masks):
        h = carry.h if hidden is None else hidden * carry.h
        return pointwise(z_x, product("w_h", h), carry, vectors, **masks)

    return step


def project(x: Array, w_x: Array) -> Array:
    """x W_x for the whole window: [T, B, D] x [D, G*H] -> [T, B, G*H]; for one-hot x [T, B], rows of W_x."""
    if jnp.issubdtype(x.dtype, jnp.integer):
        return jnp.take(w_x, x, axis=0, mode="clip")  # ids are the corpus's own: they lie in [0, D)
    return rows_times(x, w_x)


# --- Noise ----------------------------------------------------------------------------------------------------------


def check_noise(cell: Cell, noise: RecurrentNoise):
    """Raises UserError for noise that the cell has no place for, naming its config key."""
    keys = {"hidden": "keep_prob.hidden", "update": "keep_prob.recurrent"}
    for name, key in keys.items():
        if getattr(noise, name) is not None and name not in cell.masks:
            raise UserError(f"config.{key} does not fit config.model.cell: its equations have no place for this mask")


def split_noise(noise: RecurrentNoise, steps: int) -> tuple[dict, dict]:
    """Noise -> (what is the same at all steps, what has an entry for each of T steps); flat, without what is off."""
    present = {name: getattr(noise, name) for name in ("hidden", "update", "carried")}
    present |= {f"zoneout_{field}": value for field, value in (noise.zoneout or {}).items()}
    fixed, timed = {}, {}
    for name, value in present.items():
        if value is None:
            continue
        if jnp.ndim(value) < 3:
            fixed[name] = value
        elif value.shape[0] == 1 != steps:
            fixed[name] = value[0]
        else:
            timed[name] = value
    return fixed, timed


def _noisy_step(step, product, x, carry, vectors, noise: dict):
    """One step under the noise present at it; returns the carry."""
    masks = {name: noise[name] for name in ("hidden", "update") if name in noise}
    after = step(product, x, carry, vectors, **masks)
    for field in after._fields:
        if (keep := noise.get(f"zoneout_{field}")) is not None:
            mixed = keep * getattr(carry, field) + (1 - keep) * getattr(after, field)
            after = after._replace(**{field: mixed})
    return after._replace(h=noise["carried"] * after.h) if "carried" in noise else after


# --- Loops over time ------------------------------------------------------------------------------------------------


def scan_plain(step, x: Array, weights: dict, carry, vectors: dict, fixed: dict, timed: dict) -> tuple:
    """The time loop, differentiated by autodiff. Arguments and result as `scan_steps`."""

    def body(multiply, carry, inputs):
        x_t, noise_t = inputs
        carry = _noisy_step(step, lambda name, u: multiply[name](u), x_t, carry, vectors, fixed | noise_t)
        return carry, carry.h

    if x.shape[0] == 1:  # sampling: no loop
        multiply = {name: functools.partial(jnp.matmul, b=weight) for name, weight in weights.items()}
        carry, h = body(multiply, carry, jax.tree.map(lambda leaf: leaf[0], (x, timed)))
        return carry, h[None]
    multiply = {name: reader(weight, rows=x.shape[1]) for name, weight in weights.items()}
    return jax.lax.scan(functools.partial(body, multiply), carry, (x, timed))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def scan_steps(step, x: Array, weights: dict, carry, vectors: dict, fixed: dict, timed: dict) -> tuple:
    """The time loop, with the generic fast gradient.

    step(product, x_t [B, ...], carry, vectors, **masks) -> carry; calls product at most once for each name.
    x [T, B, ...], weights {name: [m, n]}, carry with fields [B, *], vectors {name: [*]}; fixed and timed as
    `split_noise` gives them, without gradient. Returns (carry, h [T, B, H]).
    """
    return scan_plain(step, x, weights, carry, vectors, fixed, timed)


def _forward(step, x, weights, carry, vectors, fixed, timed):
    def body(carry, inputs):
        x_t, noise_t = inputs
        products = {}

        def product(name, u):
            products[name] = u @ weights[name]
            return products[name]

        after = _noisy_step(step, product, x_t, carry, vectors, fixed | noise_t)
        return after, (after.h, products, carry)

    last, (h, products, before) = jax.lax.scan(body, carry, (x, timed))
    return (last, h), (x, products, before, weights, vectors, fixed, timed)


@jax.custom_vjp
def _stored(value, shift, u, w_transposed):
    """`value`, standing for u @ w + shift."""
    del shift, u, w_transposed
    return value


_stored.defvjp(
    lambda value, shift, u, w_transposed: (value, w_transposed),
    lambda w_transposed, d: (None, d, d @ w_transposed, None),
)


def _backward(step, saved, cotangents):
    x, products, before, weights, vectors, fixed, timed = saved
    d_last, d_h = cotangents
    transposed = {name: w.T for name, w in weights.items()}

    def body(state, inputs):
        d_carry, d_vectors = state
        x_t, products_t, carry, noise_t, d_h_t = inputs

        def recomputed(x_t, carry, vectors, shifts):
            read = {}

            def product(name, u):
                read[name] = u
                return _stored(products_t[name], shifts[name], u, transposed[name])

            return _noisy_step(step, product, x_t, carry, vectors, fixed | noise_t), read

        shifts = jax.tree.map(jnp.zeros_like, products_t)
        _, pullback, read = jax.vjp(recomputed, x_t, carry, vectors, shifts, has_aux=True)
        d_carry = d_carry._replace(h=d_carry.h + d_h_t)
        d_x, d_carry, d_vectors_t, d_products = pullback(d_carry)
        # Cells that only read x_t + product have one cotangent for both: store it once. Nor is the carry stored twice.
        d_products = {name: None if d is d_x else d for name, d in d_products.items()}
        read = {name: None if u is carry.h else u for name, u in read.items()}
        return (d_carry, jax.tree.map(jnp.add, d_vectors, d_vectors_t)), (d_x, d_products, read)

    start = (d_last, jax.tree.map(jnp.zeros_like, vectors))
    inputs = (x, products, before, timed, d_h)
    (d_carry, d_vectors), (d_x, d_products, read) = jax.lax.scan(body, start, inputs, reverse=True)
    d_weights = {}
    for name in weights:
        u, d = read[name], d_products[name]
        d_weights[name] = weight_gradient(before.h if u is None else u, d_x if d is None else d)
    return d_x, d_weights, d_carry, d_vectors, None, None


scan_steps.defvjp(_forward, _backward)


# --- Linear recurrences ---------------------------------------------------------------------------------------------


def run_parallel(cell: ParallelCell, parameters: dict, x: Array, carry, noise: RecurrentNoise, solve=None) -> tuple:
    """A parallel cell over a window; see `run`. solve: `solve_parallel`, or `solve_in_order` in tests.

    Zoneout and the mask `carried` act on the state linearly, so they become part of the recurrence.
    """
    solve = solve or solve_parallel

    def noisy(a, b, start):
        if (keep := (noise.zoneout or {}).get("h")) is not None:
            a, b = keep + (1 - keep) * a, (1 - keep) * b
        if noise.carried is not None:
            a, b = noise.carried * a, noise.carried * b
        return solve(a, b, start)

    masks = {} if noise.update is None else {"update": noise.update}
    return cell.window(functools.partial(project, x), parameters, carry, noisy, **masks)


def solve_in_order(a: Array, b: Array, start: Array) -> Array:
    """s_t = a_t * s_{t-1} + b_t, one step after the other. a, b: [T, B, H]; start: [B, H] -> s [T, B, H]."""

    def body(s, coefficients):
        s = coefficients[0] * s + coefficients[1]
        return s, s

    return jax.lax.scan(body, start, (a, b))[1]


@jax.custom_vjp
def solve_parallel(a: Array, b: Array, start: Array) -> Array:
    """`solve_in_order` in O(log T) parallel steps (Blelloch 1990): maps s -> a s + b compose into such maps."""

    def compose(first, then):
        return then[0] * first[0], then[0] * first[1] + then[1]

    if a.shape[0] == 1:
        return a * start[None] + b
    b = b.at[0].add(a[0] * start)
    return jax.lax.associative_scan(compose, (a, b))[1]


def _solve_forward(a, b, start):
    s = solve_parallel(a, b, start)
    return s, (a, s, start)


def _solve_backward(saved, d_s):
    """The cotangent obeys the same recurrence backwards: d_t = d_s_t + a_{t+1} d_{t+1}."""
    a, s, start = saved
    zero = jnp.zeros_like(a[:1])
    reverse = jnp.concatenate([a[1:], zero])[::-1]
    d = solve_parallel(reverse, d_s[::-1], jnp.zeros_like(start))[::-1]
    before = jnp.concatenate([start[None], s[:-1]])
    return d * before, d, a[0] * d[0]


solve_parallel.defvjp(_solve_forward, _solve_backward)
