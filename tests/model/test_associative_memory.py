"""Hopfield networks against NumPy, and against the theory of large networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.data.patterns import load_patterns
from lm.model import hopfield

PATTERNS = np.random.default_rng(0).choice([-1.0, 1.0], (3, 30)).astype(np.float32)
START = np.random.default_rng(1).uniform(-1, 1, (4, 30)).astype(np.float32)


def numpy_weights():
    weights = PATTERNS.T.astype(np.float64) @ PATTERNS
    np.fill_diagonal(weights, 0)
    return weights


def numpy_energy(weights, a):
    return 0.5 * a @ a - 0.5 * a @ weights @ a


@pytest.mark.parametrize("rule", ["sign", "satlins"])
def test_units_in_turn_are_those_of_a_loop_whose_energy_never_rises(rule):
    weights, key = numpy_weights(), jax.random.key(3)
    np.testing.assert_array_equal(hopfield.hebb(jnp.asarray(PATTERNS)), weights)
    starts = START if rule == "satlins" else np.sign(START)
    states = hopfield.recall_in_turn(jnp.asarray(weights, jnp.float32), jnp.asarray(starts), rule, 3, key)
    for row, start in enumerate(starts.astype(np.float64)):
        a, energies = start.copy(), [numpy_energy(weights, start)]
        for sweep, sweep_key in enumerate(jax.random.split(key, 3)):
            for unit in np.asarray(jax.random.permutation(sweep_key, 30)):
                field = weights[unit] @ a
                a[unit] = np.clip(field, -1, 1) if rule == "satlins" else np.sign(field) or a[unit]
                energies.append(numpy_energy(weights, a))
            np.testing.assert_allclose(states[sweep + 1, row], a, atol=1e-4)
        assert max(np.diff(energies)) < 1e-9
        found = hopfield.energy(jnp.asarray(weights, jnp.float32), states[:, row])
        np.testing.assert_allclose(found, energies[::30], rtol=1e-4)


@pytest.mark.parametrize("rule", ["sign", "satlins"])
def test_all_units_together(rule):
    weights = numpy_weights()
    states = hopfield.recall_together(jnp.asarray(weights, jnp.float32), jnp.asarray(START), rule, 2)
    expected = START.astype(np.float64)
    for step in range(2):
        field = expected @ weights
        expected = np.clip(field, -1, 1) if rule == "satlins" else np.sign(field)
        np.testing.assert_allclose(states[step + 1], expected, atol=1e-4)


def test_all_units_together_may_end_in_a_cycle_of_two():
    """Two units that want to be unlike swap for ever; in turn, they settle."""
    weights = jnp.array([[0.0, -1.0], [-1.0, 0.0]])
    together = hopfield.recall_together(weights, jnp.ones((1, 2)), "sign", 4)
    assert together[:, 0, 0].tolist() == [1, -1, 1, -1, 1]
    assert abs(float(hopfield.recall_in_turn(weights, jnp.ones((1, 2)), "sign", 2, jax.random.key(0))[-1].sum())) == 0


def test_softmax_updates_by_hand_and_their_energy():
    states = hopfield.recall_by_softmax(jnp.asarray(PATTERNS), jnp.asarray(START), 0.3, 4)
    scores = np.exp(0.3 * START.astype(np.float64) @ PATTERNS.T)
    np.testing.assert_allclose(states[1], scores / scores.sum(axis=1, keepdims=True) @ PATTERNS, atol=1e-5)
    energy = hopfield.softmax_energy(jnp.asarray(PATTERNS), states, 0.3)
    np.testing.assert_allclose(energy[0], 0.5 * (START**2).sum(axis=1) - np.log(scores.sum(axis=1)) / 0.3, rtol=1e-5)
    assert float(jnp.diff(energy, axis=0).max()) < 1e-4


@pytest.mark.parametrize("rule", ["sign", "satlins"])
def test_the_digits_are_recalled_from_a_fifth_of_wrong_bits(rule):
    digits = jnp.asarray(load_patterns("").reshape(6, -1))
    start = jnp.where(jax.random.bernoulli(jax.random.key(0), 0.2, digits.shape), -digits, digits)
    states = hopfield.recall_in_turn(hopfield.hebb(digits), start, rule, 10, jax.random.key(1))
    np.testing.assert_array_equal(states[-1], digits)


def test_theory():
    """Hertz, Krogh and Palmer (1991), table 2.1, and the capacity of Amit, Gutfreund and Sompolinsky (1985)."""
    table = {0.105: 0.001, 0.138: 0.0036, 0.185: 0.01, 0.37: 0.05, 0.61: 0.1}
    assert [hopfield.bit_error(load) for load in table] == pytest.approx(list(table.values()), rel=0.015)
    loads, overlaps = hopfield.overlap_curve()
    assert loads.max() == pytest.approx(0.138, abs=1e-4)
    assert overlaps[0] == pytest.approx(0.967, abs=1e-3)
