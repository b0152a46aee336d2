"""Runs a cell over a window of time: the loop, the noise inside it, and its fast gradient.

`run_cell` takes inputs [T, B, D] and a carry, and returns the next carry and the outputs [T, B, P].

A cell's equations call `product(name, u)` for u @ weights[name]. `scan_plain` leaves the gradient to autodiff; sampling
uses it, and tests compare with it. `scan_steps`, used in training, has one backward pass for all cells. This pass
recomputes only the elementwise parts, since the forward pass stores the products. It collects both factors of each
weight gradient over time, so that the gradient is one product after the loop instead of T small ones inside it.
A `ParallelCell` has a linear recurrence, which `solve_linear` solves.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact, Integer

from lm.cells.kinds import Carry, Cell, ParallelCell, PointwiseCell, UnprojectedCell, masked
from lm.cells.products import multiplier, rows_times, weight_gradient

Inputs = Float[Array, "T B D"] | Integer[Array, "T B"]  # integers are indices of one-hot vectors


class RecurrentNoise(NamedTuple):
    """Masks inside the time loop of one layer. A field that is None (or {}) is off and costs nothing.

    `hidden`, `update` and `carried` are dropout masks: 0, or 1 / keep probability. A mask over T steps may have T = 1;
    all steps then share it.

    reset:    0 at steps that start from the zero state, else 1; also used in evaluation
    inside:   False at padding, which leaves the state unchanged; also used in evaluation
    hidden:   multiplies h_{t-1} where the recurrent products read it (Gal and Ghahramani 2016)
    update:   multiplies the candidate g before it enters the memory (Semeniuta et al. 2016)
    carried:  multiplies the new h, as output and as state
    zoneout:  field of the carry -> mask: 1 keeps the old value, 0 takes the new one. In evaluation, the rate p gives
              the expectation p * old + (1 - p) * new (Krueger et al. 2017). Applied before `carried`.
    """

    reset: Float[Array, "T B 1"] | None = None
    inside: Bool[Array, "T B 1"] | None = None
    hidden: Float[Array, "B P"] | None = None
    update: Float[Array, "T B H"] | None = None
    carried: Float[Array, "T B P"] | None = None
    zoneout: Mapping[str, Float[Array, "T B H"] | float] | None = None


def run_cell(
    cell: Cell, parameters: dict[str, Array], x: Inputs, carry: Carry, noise: RecurrentNoise | None = None
) -> tuple[Carry, Float[Array, "T B P"]]:
    """Runs one recurrent layer over a window. Returns (carry after the last step, outputs h).

    Raises ValueError for a mask that the cell's equations cannot apply.
    """
    noise = noise or RecurrentNoise()
    for mask in ("hidden", "update"):
        if getattr(noise, mask) is not None and mask not in cell.masks:
            raise ValueError(f"the mask {mask!r} does not fit this cell; its masks: {', '.join(cell.masks) or 'none'}")
    if isinstance(cell, ParallelCell):
        return run_parallel(cell, parameters, x, carry, noise)
    fixed, timed = split_noise(noise, x.shape[0])
    step, z, weights, vectors = prepare_loop(cell, parameters, x, carry)
    scan = scan_plain if x.shape[0] == 1 else scan_steps
    return scan(step, z, weights, carry, vectors, fixed, timed)


def cell_gates(cell: Cell, parameters: dict[str, Array], x: Inputs, carry: Carry) -> dict[str, Float[Array, "B H"]]:
    """Gates of a single step without noise, named as in the equations. x: [1, B, D]"""
    if isinstance(cell, ParallelCell):
        gates = cell.equations(functools.partial(project, x), parameters, carry, solve_linear)[2]
        return {name: value[0] for name, value in gates.items()}
    step, z, weights, vectors = prepare_loop(cell, parameters, x, carry)
    return step(lambda name, u: u @ weights[name], z[0], carry, **vectors)[1]


def prepare_loop(cell: Cell, parameters: dict[str, Array], x: Inputs, carry: Carry) -> tuple:
    """Returns arguments for `scan_plain` and `scan_steps`: (step, loop inputs [T, B, ...], weights, vectors).

    Computes x w_x, plus b if the cell has one, for the whole window at once, except for an UnprojectedCell.
    """
    rest = dict(parameters)
    if not isinstance(cell, UnprojectedCell):
        z = project(x, rest.pop("w_x"))
        z = z + rest.pop("b")[None, None] if "b" in rest else z
    elif jnp.issubdtype(x.dtype, jnp.integer):
        roles = cell.parameters(1, 1)
        rows = next(parameters[name].shape[0] for name, (role, _) in roles.items() if role == "input")
        z = jax.nn.one_hot(x, rows, dtype=carry[0].dtype)
    else:
        z = x
    weights = {name: value for name, value in rest.items() if value.ndim == 2}
    vectors = {name: value for name, value in rest.items() if value.ndim < 2}
    step = _pointwise_step(cell.equations) if isinstance(cell, PointwiseCell) else cell.equations
    return step, z, weights, vectors


@functools.cache
def _pointwise_step(equations):
    """The step of a pointwise cell: its one product, then its equations."""

    def step(product, z_x, carry, hidden=None, **rest):
        return equations(z_x, product("w_h", masked(hidden, carry.h)), carry, **rest)

    return step


def project(x: Inputs, w_x: Float[Array, "K N"]) -> Float[Array, "T B N"]:
    """x w_x for the whole window. Integer x selects rows of w_x."""
    if jnp.issubdtype(x.dtype, jnp.integer):
        return jnp.take(w_x, x, axis=0, mode="clip")  # a corpus has ids in [0, D) only
    return rows_times(x, w_x)


# --- Noise ----------------------------------------------------------------------------------------------------------


def split_noise(noise: RecurrentNoise, steps: int) -> tuple[dict, dict]:
    """Splits active noise into ({name: value shared by all steps}, {name: values [T, ...]})."""
    present = {name: getattr(noise, name) for name in ("reset", "inside", "hidden", "update", "carried")}
    present |= {f"zoneout_{field}": value for field, value in (noise.zoneout or {}).items()}
    fixed, timed = {}, {}
    for name, value in present.items():
        if value is None:
            continue
        if jnp.ndim(value) < 3:
            fixed[name] = value
        elif value.shape[0] == 1 and steps != 1:
            fixed[name] = value[0]
        else:
            timed[name] = value
    return fixed, timed


def _noisy_step(step, product, x, carry, vectors, noise: dict):
    """Runs one step with its noise. Returns the new carry."""
    before = carry
    if "reset" in noise:
        carry = jax.tree.map(lambda leaf: noise["reset"] * leaf, carry)
    masks = {name: noise[name] for name in ("hidden", "update") if name in noise}
    after, _ = step(product, x, carry, **vectors, **masks)
    for field in after._fields:
        if (keep := noise.get(f"zoneout_{field}")) is not None:
            mixed = keep * getattr(carry, field) + (1 - keep) * getattr(after, field)
            after = after._replace(**{field: mixed})
    if "carried" in noise:
        after = after._replace(h=noise["carried"] * after.h)
    if "inside" in noise:
        after = jax.tree.map(functools.partial(jnp.where, noise["inside"]), after, before)
    return after


# --- Loops over time ------------------------------------------------------------------------------------------------


def scan_plain(step, x: Array, weights: dict, carry, vectors: dict, fixed: dict, timed: dict) -> tuple:
    """The time loop, differentiated by autodiff. Arguments and result as in `scan_steps`."""

    def body(multiply, carry, inputs):
        x_t, noise_t = inputs
        carry = _noisy_step(step, lambda name, u: multiply[name](u), x_t, carry, vectors, fixed | noise_t)
        return carry, carry.h

    if x.shape[0] == 1:  # sampling: no loop
        multiply = {name: functools.partial(jnp.matmul, b=weight) for name, weight in weights.items()}
        carry, h = body(multiply, carry, jax.tree.map(lambda leaf: leaf[0], (x, timed)))
        return carry, h[None]
    multiply = {name: multiplier(weight, rows=x.shape[1]) for name, weight in weights.items()}
    return jax.lax.scan(functools.partial(body, multiply), carry, (x, timed))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def scan_steps(step, x: Array, weights: dict, carry, vectors: dict, fixed: dict, timed: dict) -> tuple:
    """The time loop, with the fast gradient described at the top of this file.

    step: (product, x_t [B, ...], carry, **vectors, **masks) -> Step; calls product at most once for each name
    x [T, B, ...], weights {name: [m, n]}, carry with fields [B, *], vectors {name: [*]}
    fixed, timed: the results of `split_noise`; they receive no gradient
    Returns (carry, h [T, B, P]).
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
    """Returns `value`, u @ w, with the gradient of u @ w + shift. shift is 0, and receives the product's gradient."""
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
        # Equal arrays are stored once: a product's d is d_x if the cell reads only x_t + product; its u may be carry.h.
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

Coefficients = Inexact[Array, "T B H"]


def run_parallel(
    cell: ParallelCell, parameters: dict[str, Array], x: Inputs, carry: Carry, noise: RecurrentNoise
) -> tuple[Carry, Float[Array, "T B H"]]:
    """Runs a parallel cell over a window. Returns what `run_cell` does.

    Zoneout, `carried`, `reset` and `inside` act linearly on the state and so become part of the recurrence.
    """

    def solve(a, b, start):
        if (keep := (noise.zoneout or {}).get("h")) is not None:
            a, b = keep + (1 - keep) * a, (1 - keep) * b
        if noise.carried is not None:
            a, b = noise.carried * a, noise.carried * b
        if noise.reset is not None:
            a = noise.reset * a
        if noise.inside is not None:
            a, b = jnp.where(noise.inside, a, 1), jnp.where(noise.inside, b, 0)
        return solve_linear(a, b, start)

    masks = {} if noise.update is None else {"update": noise.update}
    after, h, _ = cell.equations(functools.partial(project, x), parameters, carry, solve, **masks)
    return after, h


@jax.custom_vjp
def solve_linear(a: Coefficients, b: Coefficients, start: Inexact[Array, "B H"]) -> Coefficients:
    """Computes s_t = a_t * s_{t-1} + b_t from s_{-1} = start. Returns s.

    A CPU has too few cores to gain from O(log T) parallel steps, which do more work: it goes through time in order.
    """
    return _solve(a, b, start, reverse=False)


def _solve(a, b, start, reverse: bool):
    """`solve_linear`; reverse: s_t = a_t * s_{t+1} + b_t from s_T = start."""
    ways = {"cpu": solve_in_order, "default": solve_by_prefix_sums}
    return jax.lax.platform_dependent(
        a, b, start, **{k: functools.partial(f, reverse=reverse) for k, f in ways.items()}
    )


def solve_in_order(a, b, start, reverse: bool):
    """`_solve` by a loop over time."""

    def step(s, coefficients):
        s = coefficients[0] * s + coefficients[1]
        return s, s

    return jax.lax.scan(step, start, (a, b), reverse=reverse)[1]


def solve_by_prefix_sums(a, b, start, reverse: bool):
    """`_solve` in O(log T) parallel steps: two maps s -> a s + b compose into a map of the same form.

    Blelloch (1990). "Prefix Sums and Their Applications". Report CMU-CS-90-190, Carnegie Mellon University.
    """

    def compose(first, then):
        return then[0] * first[0], then[0] * first[1] + then[1]

    edge = -1 if reverse else 0
    b = b.at[edge].add(a[edge] * start)
    return jax.lax.associative_scan(compose, (a, b), reverse=reverse)[1]


def _solve_forward(a, b, start):
    s = solve_linear(a, b, start)
    return s, (a, s, start)


def _solve_backward(saved, d_s):
    """The cotangent obeys the same recurrence backwards: d_t = d_s_t + a_{t+1} d_{t+1}."""
    a, s, start = saved
    after = jnp.concatenate([a[1:], jnp.zeros_like(a[:1])])
    d = _solve(after, d_s, jnp.zeros_like(start), reverse=True)
    before = jnp.concatenate([start[None], s[:-1]])
    return d * before, d, a[0] * d[0]


solve_linear.defvjp(_solve_forward, _solve_backward)
