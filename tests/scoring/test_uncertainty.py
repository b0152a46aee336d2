"""Intervals by hand; the bootstrap by its error rate: 5% of equal models are called different."""

import math

import numpy as np
import pytest

from lm.scoring.score import perplexity
from lm.scoring.uncertainty import block_length, paired_bootstrap, summarize_seeds


def test_seeds_by_hand():
    """1, 2, 6: mean 3, variance (4 + 1 + 9) / 2 = 7, interval 3 -+ 4.303 sqrt(7 / 3)."""
    found = summarize_seeds([1.0, 2.0, 6.0])
    half = 4.303 * math.sqrt(7 / 3)
    assert found == pytest.approx((3, 3.0, math.sqrt(7), 3 - half, 3 + half))


@pytest.mark.parametrize(("seeds", "quantile"), [(2, 12.706), (11, 2.228), (31, 2.042), (1001, 1.962)])
def test_intervals_use_the_printed_quantiles_of_students_t(seeds, quantile):
    found = summarize_seeds(np.arange(seeds, dtype=float).tolist())
    assert (found.high - found.mean) / (found.sd / math.sqrt(seeds)) == pytest.approx(quantile, rel=1e-12)


def test_one_seed_has_an_infinite_interval():
    found = summarize_seeds([4.0])
    assert (found.mean, found.low, found.high) == (4.0, -math.inf, math.inf)
    assert math.isnan(found.sd)


def texts(rng, number, count, correlation=0.5):
    """Nats of texts, [number, count]: neighbouring targets are alike (first-order autoregression), all positive."""
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


@pytest.mark.slow
def test_about_one_in_twenty_equal_models_is_called_different():
    """1,000 pairs of independent models with the same distribution: 5%, with a deviation of 0.7%.

    With finite blocks and resamples the rate is rather too high than too low.
    """
    rng = np.random.default_rng(0)
    a, b = texts(rng, 1000, 6000), texts(rng, 1000, 6000)
    assert 0.035 < called_different(a, b, resamples=500) < 0.075


def test_without_blocks_too_many_equal_models_are_called_different():
    rng = np.random.default_rng(1)
    a, b = texts(rng, 100, 1500, 0.8), texts(rng, 100, 1500, 0.8)
    assert called_different(a, b, 200) < 0.2 < called_different(a, b, 200, block=1)


def test_a_real_difference_is_found_if_the_models_err_on_the_same_targets():
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


def test_a_single_block_has_no_interval_and_names_no_better_model():
    a, b = np.full(21, 1.0), np.full(21, 2.0)
    found = paired_bootstrap(a[:20], b[:20])
    assert found == (-1.0, -math.inf, math.inf, 20)
    assert found.verdict == "too few targets for an interval: more than 20 are needed"
    assert paired_bootstrap(a[:5], b[:5]).verdict == found.verdict
    assert paired_bootstrap(a, b).verdict == "a is better"


def test_the_interval_of_independent_targets_is_the_normal_one():
    """The deviation of the mean of N independent targets is 1 / sqrt(N)."""
    rng = np.random.default_rng(4)
    a = rng.normal(size=20_000)
    found = paired_bootstrap(a, np.zeros(20_000), resamples=4000, block=20)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 / math.sqrt(20_000), rel=0.1)


def test_block_lengths():
    assert [block_length(n) for n in (5, 1000, 82_429, 1_000_000)] == [5, 20, 44, 100]


def test_nats_of_different_texts_are_an_error():
    with pytest.raises(ValueError, match="same targets"):
        paired_bootstrap(np.zeros(3), np.zeros(4))


def test_seeds_that_diverged_have_no_interval():
    found = summarize_seeds([4.0, 1e200])
    assert (found.mean, found.sd, found.low, found.high) == (5e199, math.inf, -math.inf, math.inf)


def test_a_seed_without_a_finite_value_has_no_interval():
    assert summarize_seeds([7.4, math.inf]) == (2, math.inf, math.inf, -math.inf, math.inf)


def test_perplexity_of_any_loss():
    assert perplexity(0.0) == 1.0
    assert perplexity(700.0) == math.inf
    assert math.isnan(perplexity(math.nan))
