"""Confidence intervals for a mean over seeds, and for the difference between two models on one text.

`summarize_seeds` measures how a result varies from run to run (Student's t). `paired_bootstrap` measures how the
difference between two models varies along a text (bootstrap over blocks of neighbouring targets).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

LEAST_BLOCK = 20  # targets
Nats = Float[np.ndarray, " _N"]  # one per target, in the order of the text


class Seeds(NamedTuple):
    """Mean, standard deviation and 95% confidence interval of the mean, over n runs that differ in their seed.

    With a single run, sd is nan and the interval is infinite. If a value is not finite, so are mean, sd and interval.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float


def summarize_seeds(values: Sequence[float]) -> Seeds:
    """Summarizes at least one number, one per seed."""
    from scipy.special import stdtrit  # quantiles of Student's t; imported late because scipy is slow to import

    if not all(map(math.isfinite, values)):
        return Seeds(len(values), math.inf, math.inf, -math.inf, math.inf)
    n, mean = len(values), math.fsum(values) / len(values)
    if n == 1:
        return Seeds(1, mean, math.nan, -math.inf, math.inf)
    try:
        sd = math.sqrt(math.fsum((x - mean) ** 2 for x in values) / (n - 1))
    except OverflowError:  # a run that diverged: its perplexity is finite, its square is not
        return Seeds(n, mean, math.inf, -math.inf, math.inf)
    quantile = round(float(stdtrit(n - 1, 0.975)), 3)  # three decimals, as in the printed tables and in our records
    half = quantile * sd / math.sqrt(n)
    return Seeds(n, mean, sd, mean - half, mean + half)


class Difference(NamedTuple):
    """Mean over targets of model a's nats minus model b's, with its 95% confidence interval.

    If all targets fit in one block, the interval is infinite.
    """

    mean: float
    low: float
    high: float
    block: int  # targets resampled together

    @property
    def verdict(self) -> str:
        """Names the better model, or neither if the interval contains 0 or cannot be estimated."""
        if self.low == -math.inf:
            return f"too few targets for an interval: more than {LEAST_BLOCK} are needed"
        if self.low <= 0 <= self.high:
            return "not distinguishable"
        return "a is better" if self.mean < 0 else "b is better"


def block_length(targets: int) -> int:
    """Targets per block: N^(1/3), but at least LEAST_BLOCK, since targets of one sentence are correlated.

    N^(1/3) is the order of the block length that minimises the error of a block bootstrap (Hall, Horowitz & Jing 1995).
    """
    return min(targets, max(LEAST_BLOCK, math.ceil(targets ** (1 / 3))))


def paired_bootstrap(a: Nats, b: Nats, resamples: int = 2000, block: int | None = None, seed: int = 0) -> Difference:
    """Paired circular block bootstrap (Politis & Romano 1992) of the mean difference a - b, in nats per target.

    a, b: nats of two models for the same targets, such as `lm.scoring.protocols.exact_nats` returns
    resamples: number of texts of N targets, drawn with replacement in blocks of `block` (default: `block_length`)
    Raises ValueError if a and b differ in length or are empty.
    """
    if a.shape != b.shape or not len(a):
        raise ValueError(f"a and b must hold nats of the same targets, not shapes {a.shape} and {b.shape}")
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    count = len(difference)
    block = block or block_length(count)
    if block >= count:
        return Difference(float(difference.mean()), -math.inf, math.inf, block)
    sums = np.concatenate([[0.0], np.cumsum(np.concatenate([difference, difference[: block - 1]]))])
    block_means = (sums[block:] - sums[:-block]) / block  # one block per target, wrapping around at the end
    generator = np.random.default_rng(seed)
    number = -(-count // block)
    means = np.array([block_means[generator.integers(0, count, number)].mean() for _ in range(resamples)])
    low, high = np.quantile(means, (0.025, 0.975))
    return Difference(float(difference.mean()), float(low), float(high), block)
