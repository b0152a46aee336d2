"""Moments and bounds of every initialiser against the closed forms of its distribution."""

import inspect
import math

import jax
import numpy as np
import pytest

from lm.model.initialisers import INITIALISERS, initialiser

KEY = jax.random.key(0)
SHAPE = (300, 500)
COUNT = 150_000


def draw(*specification, shape=SHAPE):
    x = np.asarray(initialiser(specification)(KEY, shape))
    assert x.shape == shape
    assert x.dtype == np.float32
    return x.astype(np.float64)


def assert_moments(x, mean, deviation):
    """Within 5 standard errors (kurtosis is at most 3 here)."""
    assert abs(x.mean() - mean) < 5 * deviation / math.sqrt(x.size)
    assert abs(x.std() - deviation) < 5 * deviation / math.sqrt(2 * x.size)


def truncated_deviation(cut=2.0):
    """Deviation of a standard normal given |x| < cut: sqrt(1 - 2 cut phi(cut) / (2 Phi(cut) - 1))."""
    density = math.exp(-cut * cut / 2) / math.sqrt(2 * math.pi)
    return math.sqrt(1 - 2 * cut * density / math.erf(cut / math.sqrt(2)))


def test_truncated_normal():
    """Mean -0.1; deviation 0.1 before truncation at two deviations and 0.088 after it."""
    x = draw("truncated_normal", -0.1, 0.1)
    assert truncated_deviation() == pytest.approx(0.8796, abs=1e-4)
    assert_moments(x, -0.1, 0.1 * truncated_deviation())
    assert -0.3 <= x.min() < -0.299
    assert 0.099 < x.max() <= 0.1
    # redrawn, not clipped: the ends have no mass
    assert np.mean(np.abs(x + 0.1) > 0.1999) < 0.001


@pytest.mark.parametrize(
    ("specification", "low", "high"),
    [
        (("uniform", -1.0, 1.0), -1.0, 1.0),
        (("uniform", 0.5, 0.75), 0.5, 0.75),
        (("glorot_uniform",), -math.sqrt(6 / 800), math.sqrt(6 / 800)),
        (("tensorflow0_uniform",), -0.1, 0.1),  # sqrt(3 / 300)
    ],
)
def test_uniform_distributions(specification, low, high):
    x = draw(*specification)
    assert_moments(x, (low + high) / 2, (high - low) / math.sqrt(12))
    width = high - low
    assert low - 1e-7 <= x.min() < low + 1e-3 * width
    assert high - 1e-3 * width < x.max() <= high + 1e-7


def test_tensorflow0_uniform_treats_a_bias_as_one_row():
    """TensorFlow's bias is [1, n]: U(+-sqrt 3) for every n."""
    x = draw("tensorflow0_uniform", shape=(COUNT,))
    assert_moments(x, 0, 1.0)
    assert 1.73 < x.max() <= math.sqrt(3)
    assert -math.sqrt(3) <= x.min() < -1.73
    assert np.abs(draw("tensorflow0_uniform", shape=(10_000, 50))).max() <= math.sqrt(3 / 10_000)


@pytest.mark.parametrize(
    ("specification", "mean", "deviation"),
    [(("normal", 2.0, 0.5), 2.0, 0.5), (("he_normal",), 0.0, math.sqrt(2 / 300))],
)
def test_normal_distributions(specification, mean, deviation):
    x = draw(*specification)
    assert_moments(x, mean, deviation)
    # 4.55% of a normal lies beyond two deviations: nothing is cut
    assert np.mean(np.abs(x - mean) > 2 * deviation) == pytest.approx(0.0455, abs=0.003)


def test_constant_values():
    assert (draw("zeros") == 0).all()
    assert (draw("constant", 1.5) == 1.5).all()


def test_lstm_bias_sets_the_forget_gate_only():
    """Gates i, f, g, o of 2 units each."""
    np.testing.assert_array_equal(draw("lstm_bias", 1.5, shape=(8,)), [0, 0, 1.5, 1.5, 0, 0, 0, 0])


def test_lru_initialisers_draw_uniformly_from_a_ring():
    """For r = exp(-exp(x)), r^2 is uniform between the squares of its bounds; so is the angle exp(x)."""
    square = np.exp(-np.exp(draw("lru_ring", 0.4, 0.9))) ** 2
    low, high = 0.4**2, 0.9**2
    assert_moments(square, (low + high) / 2, (high - low) / math.sqrt(12))
    assert low - 1e-5 <= square.min() < low + 1e-3
    assert high - 1e-3 < square.max() <= high + 1e-5
    angle = np.exp(draw("lru_phase", 3.0))
    assert_moments(angle, 1.5, 3 / math.sqrt(12))
    assert 0 < angle.min() < 0.003
    assert 2.997 < angle.max() <= 3.0 + 1e-5


@pytest.mark.parametrize("name", sorted(INITIALISERS))
def test_values_depend_on_the_key_alone(name):
    """For every initialiser, with 0.5 and 0.9 as its numbers."""
    count = len(inspect.signature(INITIALISERS[name]).parameters) - len(("key", "shape", "dtype"))
    make = initialiser((name, *(0.5, 0.9)[:count]))
    first, again, other = (np.asarray(make(jax.random.key(seed), (8, 8))) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() == (name not in ("zeros", "constant", "lstm_bias"))


def test_an_integer_serves_as_a_number_of_any_size():
    """JAX takes integers of 32 bits alone."""
    key = jax.random.key(0)
    ours = initialiser(("uniform", -1, 10**30))(key, (5,))
    np.testing.assert_array_equal(ours, initialiser(("uniform", -1.0, 1e30))(key, (5,)))
