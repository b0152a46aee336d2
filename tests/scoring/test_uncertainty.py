"""Intervals by hand; the bootstrap against what it promises: equal models are called different about 5% of the time."""

import math

import numpy as np
import pytest

from lm.scoring.uncertainty import block_length, paired_bootstrap, summarize_seeds


def test_over_seeds_by_hand():
    """1, 2, 6: mean 3, variance (4 + 1 + 9) / 2 = 7, interval 3 -+ 4.303 sqrt(7 / 3)."""
    found = summarize_seeds([1.0, 2.0, 6.0])
    half = 4.303 * math.sqrt(7 / 3)
    assert found == pytest.approx((3, 3.0, math.sqrt(7), 3 - half, 3 + half))


def test_one_seed_says_nothing_of_the_spread():
    found = summarize_seeds([4.0])
    assert (found.mean, found.low, found.high) == (4.0, -math.inf, math.inf)
    assert math.isnan(found.sd)


def texts(rng, number, count, correlation=0.5):
    """Nats of texts, [number, count]: neighbouring targets are alike (first-order autoregression), all are positive."""
    noise = rng.normal(size=(count, number))
    for t in range(1, count):
        noise[t] += correlation * noise[t - 1]
    return np.exp(0.5 * noise).T


def called_different(a, b, resamples, **options):
    """The share of the pairs of rows that are."""
    verdicts = [
        paired_bootstrap(*pair, resamples, seed=i, **options).verdict for i, pair in enumerate(zip(a, b, strict=True))
    ]
    return sum(verdict != "not distinguishable" for verdict in verdicts) / len(verdicts)


def test_equal_models_are_called_different_one_time_in_twenty():
    """1,000 pairs of independent models with the same distribution: 5%, with a deviation of 0.7%. Blocks of finite
    length and resamples of finite number err on the side of calling too many."""
    rng = np.random.default_rng(0)
    a, b = texts(rng, 1000, 6000), texts(rng, 1000, 6000)
    assert 0.035 < called_different(a, b, resamples=500) < 0.075


def test_neglecting_that_neighbours_hang_together_would_call_too_many():
    rng = np.random.default_rng(1)
    a, b = texts(rng, 100, 1500, 0.8), texts(rng, 100, 1500, 0.8)
    assert called_different(a, b, 200) < 0.2 < called_different(a, b, 200, block=1)


def test_a_real_difference_is_found_where_the_models_err_on_the_same_targets():
    rng = np.random.default_rng(2)
    [common] = texts(rng, 1, 5000)
    worse = common + 0.02 + 0.1 * rng.normal(size=5000)
    assert paired_bootstrap(common, worse).verdict == "a is better"
    assert paired_bootstrap(worse, common).verdict == "b is better"
    found = paired_bootstrap(worse, common)
    assert found.low < 0.02 < found.high
    assert found.mean == pytest.approx((worse - common).mean())


def test_a_model_is_not_distinguishable_from_itself():
    [a] = texts(np.random.default_rng(3), 1, 300)
    assert paired_bootstrap(a, a) == (0.0, 0.0, 0.0, 20)
    assert paired_bootstrap(a, a).verdict == "not distinguishable"


def test_the_interval_is_that_of_the_mean_of_independent_blocks():
    """Blocks that differ from each other only: the deviation of the mean is theirs over the root of their number."""
    rng = np.random.default_rng(4)
    a = rng.normal(size=20_000)
    found = paired_bootstrap(a, np.zeros(20_000), resamples=4000, block=20)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 / math.sqrt(20_000), rel=0.1)


def test_length_of_a_block():
    assert [block_length(n) for n in (5, 1000, 82_429, 1_000_000)] == [5, 20, 44, 100]


def test_nats_of_different_texts_are_refused():
    with pytest.raises(ValueError, match="same targets"):
        paired_bootstrap(np.zeros(3), np.zeros(4))
