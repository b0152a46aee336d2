"""Draws labelled sequences with the length distribution of IMDB's reviews, and the batches that the peers read.

Tokens and labels are random, since speed does not depend on their values. Lengths are log-normal, with parameters that
match IMDB's mean of 238 words and its 91.6% of reviews with at most 500 words (Maas et al. 2011). Only NumPy is
imported, as in experiments/peers/workload.py.
"""

import functools
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from experiments.peers.workload import Workload

# ln(length / workload.length) is normal: exp(m + s^2/2) = 238/500; -m/s = 91.6% quantile of a standard normal.
LOG_MEAN, LOG_DEVIATION = -1.0114, 0.7336


class Sequences(NamedTuple):
    """tokens: ids [N] of all n sequences, from 1, because 0 is padding; starts: [n + 1]; labels: 0 or 1 [n]"""

    tokens: np.ndarray
    starts: np.ndarray
    labels: np.ndarray


def draw_lengths(workload: Workload) -> np.ndarray:
    """Lengths [n] before truncation: evenly spaced quantiles of the distribution, in random order."""
    normal, count = statistics.NormalDist(LOG_MEAN, LOG_DEVIATION), workload.sequences
    logarithms = [normal.inv_cdf((index + 0.5) / count) for index in range(count)]
    lengths = np.maximum(1, np.rint(workload.length * np.exp(logarithms))).astype(np.int64)
    return np.random.default_rng(1).permutation(lengths)


@functools.cache
def draw_sequences(workload: Workload) -> Sequences:
    """Draws the corpus. Tokens have the smallest integer type that holds all ids."""
    lengths, rng = draw_lengths(workload), np.random.default_rng(2)
    tokens = rng.integers(1, workload.vocabulary, lengths.sum(), np.min_scalar_type(workload.vocabulary - 1))
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return Sequences(tokens, starts, rng.integers(0, 2, len(lengths), np.int32))


def kept_lengths(workload: Workload) -> np.ndarray:
    """Lengths [n] after truncating each sequence to its first `workload.length` tokens."""
    return np.minimum(np.diff(draw_sequences(workload).starts), workload.length)


def peer_batches(workload: Workload, first: Sequence[Sequence[int]], order: str) -> Callable[[int], np.ndarray]:
    """Returns a function: step -> indices of its sequences. Batches are those of `first`, then epochs of full batches.

    order: `random`, or `sorted`: batches of sequences with similar lengths, in random order
    """
    lengths = kept_lengths(workload)

    @functools.lru_cache(1)
    def epoch(number: int) -> np.ndarray:
        rng = np.random.default_rng(number)
        ids = rng.permutation(len(lengths))
        if order == "sorted":
            ids = ids[np.argsort(lengths[ids], kind="stable")]
        count = len(ids) // workload.batch
        full = ids[: count * workload.batch].reshape(count, workload.batch)
        return rng.permutation(full) if order == "sorted" else full

    def batches(step: int) -> np.ndarray:
        if step < len(first):
            return np.array(first[step])
        number, place = divmod(step - len(first), len(lengths) // workload.batch)
        return epoch(number)[place]

    return batches


class Padded(NamedTuple):
    """tokens [B, T] with 0 after the end; lengths [B]; labels [B]"""

    tokens: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray


def pad(workload: Workload, ids: np.ndarray, multiple: int = 1) -> Padded:
    """Pads a batch to its longest sequence, rounded up to a multiple of `multiple`, at most to workload.length."""
    tokens, starts, labels = draw_sequences(workload)
    lengths = kept_lengths(workload)[ids]
    steps = min(workload.length, -(-int(lengths.max()) // multiple) * multiple)
    time = np.arange(steps)
    inside = time < lengths[:, None]
    places = np.where(inside, starts[:-1][ids][:, None] + time, 0)
    return Padded(np.where(inside, tokens[places], 0).astype(np.int32), lengths, labels[ids])
