"""Intervals by hand; the bootstrap against what it promises: equal models are called different about 5% of the time."""

import math

import numpy as np
import pytest

from lm.uncertainty import block_length, compare, over_seeds


def test_over_seeds_by_hand():
    """1, 2, 6: mean 3, variance (4 + 1 + 9) / 2 = 7, interval 3 -+ 4.303 sqrt(7 / 3)."""
    found = over_seeds([1.0, 2.0, 6.0])
    half = 4.303 * math.sqrt(7 / 3)
    assert found == pytest.approx((3, 3.0, math.sqrt(7), 3 - half, 3 + half))


def test_one_seed_says_nothing_of_the_spread():
    found = over_seeds([4.0])
    assert (found.mean, found.low, found.high) == (4.0, -math.inf, math.inf)
    assert math.isnan(found.sd)


def nats(rng, count, correlation=0.5):
    """Nats of a text: neighbouring targets are alike (a first-order autoregression), and all are positive."""
    noise = rng.normal(size=count)
    for t in range(1, count):
        noise[t] += correlation * noise[t - 1]
    return np.exp(0.5 * noise)


def test_equal_models_are_called_different_one_time_in_twenty():
    """400 pairs of independent models with the same distribution. 5% of 400 is 20, with a deviation of 4.4."""
    rng = np.random.default_rng(0)
    verdicts = [compare(nats(rng, 1500), nats(rng, 1500), resamples=400, seed=i).verdict for i in range(400)]
    called = sum(verdict != "not distinguishable" for verdict in verdicts)
    assert 20 - 3 * 4.4 < called < 20 + 4 * 4.4  # blocks of finite length err on the side of calling too many


def test_neglecting_that_neighbours_hang_together_would_call_too_many():
    rng = np.random.default_rng(1)
    pairs = [(nats(rng, 1500, 0.8), nats(rng, 1500, 0.8)) for _ in range(100)]
    single = sum(compare(a, b, 200, block=1).verdict != "not distinguishable" for a, b in pairs)
    blocks = sum(compare(a, b, 200).verdict != "not distinguishable" for a, b in pairs)
    assert blocks < 20 < single


def test_a_real_difference_is_found_where_the_models_err_on_the_same_targets():
    rng = np.random.default_rng(2)
    common = nats(rng, 5000)
    worse = common + 0.02 + 0.1 * rng.normal(size=5000)
    assert compare(common, worse).verdict == "a is better"
    assert compare(worse, common).verdict == "b is better"
    found = compare(worse, common)
    assert found.low < 0.02 < found.high
    assert found.mean == pytest.approx((worse - common).mean())


def test_a_model_is_not_distinguishable_from_itself():
    a = nats(np.random.default_rng(3), 300)
    assert compare(a, a) == (0.0, 0.0, 0.0, 20)
    assert compare(a, a).verdict == "not distinguishable"


def test_the_interval_is_that_of_the_mean_of_independent_blocks():
    """Blocks that differ from each other only: the deviation of the mean is theirs over the root of their number."""
    rng = np.random.default_rng(4)
    a = rng.normal(size=20_000)
    found = compare(a, np.zeros(20_000), resamples=4000, block=20)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 / math.sqrt(20_000), rel=0.1)


def test_length_of_a_block():
    assert [block_length(n) for n in (5, 1000, 82_429, 1_000_000)] == [5, 20, 44, 100]


def test_nats_of_different_texts_are_refused():
    with pytest.raises(ValueError, match="same targets"):
        compare(np.zeros(3), np.zeros(4))
