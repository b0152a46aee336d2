"""Confidence intervals: of a mean over seeds, and of the difference of two models on one text.

`summarize_seeds` measures how a result varies from run to run (Student's t). `paired_bootstrap` measures how the
difference of two models varies from one stretch of text to the next (blocks of neighbouring targets).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Two-sided 95% quantiles of Student's t for 1 to 30 degrees of freedom; beyond them the normal one is within 2%.
T_95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
NORMAL_95 = 1.960


class Seeds(NamedTuple):
    """Mean of n runs that differ in their seed, their standard deviation, and the 95% interval of the mean.

    With one run nothing is known of the spread: sd is nan, and the interval is all numbers.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float


def summarize_seeds(values: Sequence[float]) -> Seeds:
    """values: one number per seed, at least one."""
    n, mean = len(values), math.fsum(values) / len(values)
    if n == 1:
        return Seeds(1, mean, math.nan, -math.inf, math.inf)
    sd = math.sqrt(math.fsum((x - mean) ** 2 for x in values) / (n - 1))
    half = (T_95[n - 2] if n - 2 < len(T_95) else NORMAL_95) * sd / math.sqrt(n)
    return Seeds(n, mean, sd, mean - half, mean + half)


class Difference(NamedTuple):
    """Mean nats of model a less those of model b, over the same targets, with its 95% interval."""

    mean: float
    low: float
    high: float
    block: int  # targets that were drawn together

    @property
    def verdict(self) -> str:
        """a is better, b is better, or not distinguishable: the interval holds 0."""
        if self.low <= 0 <= self.high:
            return "not distinguishable"
        return "a is better" if self.mean < 0 else "b is better"


def block_length(targets: int) -> int:
    """Targets per block: those of a sentence hang together, so at least 20; N^(1/3) where that is more.

    The cube root is the order at which a block bootstrap's error is least (Hall, Horowitz & Jing 1995).
    """
    return min(targets, max(20, math.ceil(targets ** (1 / 3))))


def paired_bootstrap(
    a: np.ndarray, b: np.ndarray, resamples: int = 2000, block: int | None = None, seed: int = 0
) -> Difference:
    """Paired circular block bootstrap (Politis & Romano 1992) of mean nats a - b.

    a, b: nats [N] that two models gave the same targets, in the order of the text (`lm.scoring.protocols.exact_nats`)
    resamples: texts of N targets drawn with replacement, in blocks of `block` (default: `block_length`)
    """
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"nats of the same targets are needed, not of shapes {a.shape} and {b.shape}")
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    count = len(difference)
    block = block or block_length(count)
    sums = np.concatenate([[0.0], np.cumsum(np.concatenate([difference, difference[: block - 1]]))])
    block_means = (sums[block:] - sums[:-block]) / block  # of the block that begins at each target, around the end
    generator = np.random.default_rng(seed)
    number = -(-count // block)
    means = np.array([block_means[generator.integers(0, count, number)].mean() for _ in range(resamples)])
    low, high = np.quantile(means, (0.025, 0.975))
    return Difference(float(difference.mean()), float(low), float(high), block)
