"""Base classes of tasks with separate examples: batches share no carry, and an epoch reads every example once."""

import dataclasses
import operator
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lm.data.examples import Data, Plan, each_batch, make_plan
from lm.errors import UserError
from lm.tasks.task import Task

PROTOCOLS = ("exact",)  # every label once
WEIGHTINGS = ("mean", "sum")
LABEL_MEASURES = ("accuracy", "f1")
# Keys for language models, with the only value that is allowed with separate examples.
FIXED = {
    "loss.gradient": "full",
    "penalty.activation": 0.0,
    "penalty.temporal_activation": 0.0,
    "train.devices": 1,
    "data.train_tokens": 0,
    "data.reset": "",
}
# Keys that only language modelling reads: the default value, and the keys to set instead.
UNREAD = {
    "data.level": ("char", "config.data.tokenizer"),
    "data.fractions": ((0.9, 0.05, 0.05), "config.data.valid_share or config.data.valid_path"),
}
# Keys for pairs, with the only value that other tasks allow.
UNPAIRED = {
    "model.context": "start",
    "loss.teacher_forcing": 1.0,
    "loss.forcing_schedule": "constant",
    "loss.forcing_steps": 0,
}
# fold_in(key, s) gives the noise of step s < _ORDERS, fold_in(key, _ORDERS + e) the order of epoch e.
_ORDERS = 2**31


@dataclasses.dataclass(frozen=True)
class Separate(Task):
    """A task whose carry is empty. weighting: config.loss.weighting"""

    model: Any
    weighting: str

    def advance(self, cursor):
        return (cursor + 1) % self.steps_per_epoch

    def predict(self, parameters, split) -> tuple[np.ndarray, np.ndarray]:
        """Returns (nats, prediction) of each target, in the order of the split."""
        raise NotImplementedError

    def target_nats(self, parameters, split):
        return self.predict(parameters, split)[0]

    def order_key(self, key: jax.Array, step: jax.Array) -> jax.Array:
        """The random key that shuffles the epoch of `step`."""
        epoch = jnp.asarray(step // self.steps_per_epoch, jnp.uint32)
        return jax.random.fold_in(key, jnp.uint32(_ORDERS) + epoch)

    def weigh(self, counted: jax.Array) -> jax.Array:
        """The weight of each target in the objective. counted: 1 for a target that counts, else 0"""
        return counted / jnp.sum(counted) if self.weighting == "mean" else counted


@dataclasses.dataclass(frozen=True)
class Bucketed(Separate):
    """Batches sequences of similar length. plan: batches of the training split; buckets: config.data.buckets"""

    plan: Plan
    buckets: int

    def plan_of(self, split) -> Plan:
        """The batches for scoring a split."""
        return make_plan(self.plan.cut, split, self.buckets)

    @property
    def batch_size(self) -> int:
        return self.plan.cut.batch_size

    @property
    def steps_per_epoch(self) -> int:
        return sum(self.plan.batches)

    @property
    def tokens_per_step(self) -> float:
        return self.plan.tokens / self.steps_per_epoch

    @property
    def largest_batch(self) -> int:
        return max(self.plan.lengths) * self.batch_size

    @property
    def shapes(self):
        return self.plan.lengths

    def window_tokens(self, split, protocol, settings):
        plan = self.plan_of(split)
        return max(plan.lengths) * plan.cut.batch_size

    def timed_part(self, split, protocol, settings, tokens):
        examples = max(4 * self.batch_size, tokens * len(split) // max(1, len(split.tokens)))
        part = split.first(examples)
        return part, len(split) / len(part)


def in_split_order(plan: Plan, data: Data, starts: np.ndarray, program: Callable, kinds: tuple) -> list[np.ndarray]:
    """Calls program(padded length, cursor) for each batch, and joins what it returns in the order of the split.

    It returns an array [T, B] for each dtype in `kinds` (one label per sequence: [1, B]); joined, these are flat.
    starts [n + 1]: index of each sequence's first value in a joined array, then the length of that array
    """
    found = [np.zeros(starts[-1], kind) for kind in kinds]
    for cursor, bucket, numbers in each_batch(data):
        values = [np.asarray(value) for value in program(plan.lengths[bucket], cursor)]
        for column, number in enumerate(numbers):
            first, last = starts[number : number + 2]
            for array, value in zip(found, values, strict=True):
                array[first:last] = value[: last - first, column]
    return found


def check_settings(
    config: ConfigDict, protocols: tuple[str, ...], fixed: Mapping[str, object], measures: tuple[str, ...]
):
    """Raises UserError for protocols, `best_by` or values of keys that the task does not allow."""
    if config.loss.weighting not in WEIGHTINGS:
        raise UserError(f"config.loss.weighting must be {' or '.join(WEIGHTINGS)}, not {config.loss.weighting}")
    if config.data.words != "train" and not (config.model.embedding_from or config.init_from):
        raise UserError(
            f"config.data.words={config.data.words} needs config.model.embedding_from or config.init_from: words that "
            "the training text lacks would keep random vectors"
        )
    check_fixed(config, fixed)
    for key, (default, instead) in UNREAD.items():
        if operator.attrgetter(key)(config) != default:
            raise UserError(
                f"config.{key} is not read with config.task={config.task}: leave it at {default!r}; for your own text, "
                f"set {instead}"
            )
    if config.evaluation.best_by not in ("loss", *measures):
        known = " or ".join(("loss", *measures))
        raise UserError(
            f"config.evaluation.best_by must be {known} with config.task={config.task}, not {config.evaluation.best_by}"
        )
    for protocol in (config.evaluation.during, *config.evaluation.protocols):
        if protocol not in protocols:
            known = ", ".join(protocols)
            raise UserError(f"config.evaluation: config.task={config.task} has no protocol {protocol}; known: {known}")


def check_fixed(config: ConfigDict, fixed: Mapping[str, object]):
    """Raises UserError unless each key has its fixed value."""
    for key, allowed in fixed.items():
        if operator.attrgetter(key)(config) != allowed:
            raise UserError(f"config.{key} must be {allowed!r} with config.task={config.task}")
