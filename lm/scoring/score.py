"""A score: sums over targets, divided by their number only at the end."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Int


def perplexity(mean_nats: float) -> float:
    """e^nats; infinity if that is too large for a float, and nan for nan."""
    return math.inf if mean_nats >= 700 else math.exp(mean_nats)


class Score(NamedTuple):
    """Sum of -ln p over `targets` predictions, in nats.

    measures: other measures of the same predictions, such as accuracy; the first is shown beside the loss
    confusion: counts of true labels (rows) predicted as each label (columns); None if there are too many labels
    """

    nats: float
    targets: int
    measures: Mapping[str, float] = {}
    confusion: Int[np.ndarray, "C C"] | None = None

    @property
    def mean_nats(self) -> float:
        return self.nats / self.targets

    @property
    def perplexity(self) -> float:
        return perplexity(self.mean_nats)

    @property
    def bits_per_symbol(self) -> float:
        return self.mean_nats / math.log(2)
