"""The time loop: what it stores and multiplies, inactive noise, linear recurrences, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.cells import recurrence
from lm.cells.kinds import zero_carry
from lm.cells.recurrence import RecurrentNoise, project, solve_linear, split_noise
from lm.cells.table import CELLS
from tests.helpers.quick import compiled, solve_in_order

T, B, D, H = 6, 2, 4, 3


def case(name):
    cell, rng = CELLS[name], np.random.default_rng(0)
    p = {n: jnp.asarray(rng.normal(size=s), jnp.float32) for n, (_, s) in cell.parameters(D, H).items()}
    return cell, p, jnp.asarray(rng.normal(size=(T, B, D)), jnp.float32), zero_carry(cell, B, H)


def gradient_program(name, noise=None):
    """Jaxpr of the gradient of a window with respect to parameters and inputs."""
    cell, p, x, carry = case(name)

    def objective(p, x, noise):
        return recurrence.run_cell(cell, p, x, carry, noise)[1].sum()

    return jax.make_jaxpr(jax.grad(objective, argnums=(0, 1)))(p, x, noise).jaxpr


def operations(jaxpr, name):
    """All equations of one primitive at this level."""
    return [equation for equation in jaxpr.eqns if equation.primitive.name == name]


# --- Programs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "products"), [("lstm", 1), ("gru_reset_after", 1), ("gru", 2), ("lstm_1997", 2)])
def test_weight_gradients_are_products_after_the_loop(name, products):
    """The forward loop has the products, the backward loop one transposed product for each. The rest is outside."""
    program = gradient_program(name)
    forward, backward = operations(program, "scan")
    for loop in (forward, backward):
        assert len(operations(loop.params["jaxpr"].jaxpr, "dot_general")) == products
    assert len(operations(program, "dot_general")) == 2  # x w_x and the gradient of x
    # One gradient for w_x and one for each recurrent matrix, in one form per platform.
    gradients = operations(program, "cond")
    assert len(gradients) == 1 + products
    for form in (branch.jaxpr for gradient in gradients for branch in gradient.params["branches"]):
        assert len(operations(form, "dot_general")) == 1


def test_the_lstm_stores_nothing_twice():
    """Forward: h, its product and the state before the step, no gate. Backward: one cotangent for z_x and z_h."""
    forward, backward = operations(gradient_program("lstm"), "scan")
    stacked = [sorted(v.aval.shape for v in loop.outvars if v.aval.ndim == 3) for loop in (forward, backward)]
    assert stacked == [[(T, B, H)] * 3 + [(T, B, 4 * H)], [(T, B, 4 * H)]]


@pytest.mark.parametrize("name", ["lstm", "gru", "min_gru"])
def test_inactive_noise_does_not_change_the_program(name):
    assert str(gradient_program(name)) == str(gradient_program(name, RecurrentNoise(zoneout={})))


@pytest.mark.parametrize("name", ["lstm", "gru", "min_gru", "lru"])
def test_a_window_of_one_step_has_no_loop(name):
    cell, p, x, carry = case(name)
    jaxpr = jax.make_jaxpr(functools.partial(recurrence.run_cell, cell))(p, x[:1], carry).jaxpr
    assert not operations(jaxpr, "scan")


def test_the_lookup_of_ids_has_the_gradient_of_the_one_hot_product():
    rng = np.random.default_rng(0)
    ids, w = jnp.asarray(rng.integers(0, D, (T, B))), jnp.asarray(rng.normal(size=(D, 5)), jnp.float32)
    weights = jnp.asarray(rng.normal(size=(T, B, 5)), jnp.float32)
    found = jax.value_and_grad(lambda w: (weights * project(ids, w)).sum())(w)
    expected = jax.value_and_grad(lambda w: (weights * project(jax.nn.one_hot(ids, D), w)).sum())(w)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)


# --- Noise ----------------------------------------------------------------------------------------------------------


def test_noise_is_split_into_fixed_and_timed_parts():
    noise = RecurrentNoise(
        hidden=np.zeros((B, H)), update=np.zeros((1, B, H)), carried=np.zeros((T, B, H)), zoneout={"c": 0.5}
    )
    fixed, timed = split_noise(noise, T)
    shapes = {"hidden": (B, H), "update": (B, H), "zoneout_c": ()}
    assert {name: np.shape(value) for name, value in fixed.items()} == shapes
    assert {name: np.shape(value) for name, value in timed.items()} == {"carried": (T, B, H)}


def test_zoneout_by_its_rate_takes_the_expectation_at_every_step():
    """A window in evaluation against single steps that are mixed by hand."""
    cell, p, x, carry = case("lstm")
    found, h = recurrence.run_cell(cell, p, x, carry, RecurrentNoise(zoneout={"c": 0.3, "h": 0.1}))
    outputs = []
    for t in range(T):
        new, _ = recurrence.run_cell(cell, p, x[t][None], carry)
        carry = type(carry)(0.3 * carry.c + 0.7 * new.c, 0.1 * carry.h + 0.9 * new.h)
        outputs.append(carry.h)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), (found, h), (carry, jnp.stack(outputs))
    )


@pytest.mark.parametrize(
    ("name", "mask", "shape", "fitting"),
    [
        ("elman_tanh", "update", (T, B, H), "hidden"),
        ("lru", "update", (T, B, H), "none"),
        ("min_gru", "hidden", (B, H), "update"),
    ],
)
def test_a_mask_that_the_equations_cannot_apply_is_rejected(name, mask, shape, fitting):
    cell, p, x, carry = case(name)
    with pytest.raises(ValueError, match=f"^the mask '{mask}' does not fit this cell; its masks: {fitting}$"):
        recurrence.run_cell(cell, p, x, carry, RecurrentNoise(**{mask: jnp.ones(shape)}))


# --- Linear recurrences ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
@pytest.mark.parametrize("steps", [1, 2, 37])
@pytest.mark.parametrize("way", ["solve_in_order", "solve_by_prefix_sums"])
def test_both_ways_to_solve_a_linear_recurrence_match_its_loop(way, steps, dtype, monkeypatch):
    """Values and gradients, to 1e-5 in single precision. The tests run on a CPU, which goes in order."""
    monkeypatch.setattr(recurrence, "solve_in_order", getattr(recurrence, way))
    rng = np.random.default_rng(steps)

    def draw(*shape):
        x = rng.uniform(-0.7, 0.7, (2, *shape))
        return jnp.asarray(x[0] + 1j * x[1] if dtype == np.complex64 else x[0], dtype)

    a, b, start, weights = draw(steps, B, H), draw(steps, B, H), draw(B, H), draw(steps, B, H)

    @compiled
    def both(a, b, start):
        def value(solve, a, b, start):
            s = solve(a, b, start)
            return jnp.real(weights * s * s).sum(), s

        gradient = jax.value_and_grad(value, argnums=(1, 2, 3), has_aux=True)
        return gradient(solve_linear, a, b, start), gradient(solve_in_order, a, b, start)

    found, expected = both(a, b, start)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, expected)
