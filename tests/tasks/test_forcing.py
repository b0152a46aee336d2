"""Schedules of teacher forcing, against the formulas of Bengio et al. (2015)."""

import math

import jax.numpy as jnp
import pytest

from lm.tasks.forcing import ALWAYS, SCHEDULES, Forcing

EXPECTED = {
    "constant": lambda i, k: 0.8,
    "linear": lambda i, k: 0.8 * max(1 - i / k, 0),
    "exponential": lambda i, k: 0.8 * math.exp(-i / k),
    "inverse_sigmoid": lambda i, k: 0.8 * k / (k + math.exp(i / k)),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_probabilities(schedule):
    forcing = Forcing(0.8, schedule, 50)
    assert not forcing.always
    for step in (0, 1, 49, 50, 200):
        expected = EXPECTED[schedule](step, 50)
        assert float(forcing.probability(jnp.int32(step))) == pytest.approx(expected, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("schedule", ["linear", "exponential", "inverse_sigmoid"])
def test_a_schedule_ends_at_zero_however_long_training_is(schedule):
    assert float(Forcing(1.0, schedule, 3).probability(jnp.int32(2**31 - 1))) == 0


def test_always_is_without_a_draw():
    assert ALWAYS.always
    assert not Forcing(1.0, "linear", 5).always
