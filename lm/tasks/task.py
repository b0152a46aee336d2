"""The interface of a task: everything that training, checkpoints, estimates and scoring need from it, with defaults.

A task is hashable, and static under jit: it holds the model and how data is cut into batches, but no arrays. The
training state's `cursor` selects the next batch. Its `carry` is the recurrent state at the end of the last batch, for
language models; it is empty for tasks with separate examples.
"""

import dataclasses
from collections.abc import Hashable
from typing import Any, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree
from ml_collections import ConfigDict

from lm.model.dropout import Noise
from lm.scoring.score import Score

Parameters = dict
Carry = tuple
Split = Any  # one split of a corpus in memory: ids [N] of a text, or labelled examples
Data = PyTree  # a split on the device


class Model(Protocol):
    """A model of a task; hashable."""

    def draw(self, key: Key[Array, ""]) -> Parameters:
        """Draws the parameters."""

    def initial_carry(self, batch: int) -> Carry:
        """The carry before the first batch of `batch` rows."""


class Task(Protocol):
    """A kind of training."""

    model: Any  # the `Model` that is trained
    batch_size: int  # rows of a batch
    steps_per_epoch: int  # steps that read the training split once
    tokens_per_step: float  # mean number of tokens per step, without padding
    largest_batch: int  # tokens of the largest batch, padding included
    shapes: tuple[Hashable, ...]  # all shapes that a batch can have; each is compiled
    columns: tuple[str, ...]  # columns of metrics.jsonl that are printed as progress
    draws: bool = False  # whether the loss draws random numbers even without dropout and zoneout
    ends_epochs: bool = True  # whether epochs have an end, at which their mean loss is reported

    @property
    def activations(self) -> int:
        """Number of output values of the recurrent layers for the largest batch."""
        return self.largest_batch * sum(map(self.model.cell.output_size, self.model.config.hidden))

    def for_training(self) -> "Task":
        """The task without settings that a training step does not read, such as initialisers. Configs that differ only
        in them share programs."""
        return dataclasses.replace(cast(Any, self), model=self.model.for_training())

    def on_device(self, split: Split) -> Data:
        """Copies a split to the device."""

    def order(self, data: Data, key: Key[Array, ""], step: Int[Array, ""]) -> Data:
        """Orders the data for the epoch of `step`. Called once per dispatch, since no dispatch extends beyond its
        epoch."""
        return data

    def start_of(self, cursor: Int[Array, ""], carry: Carry) -> Carry:
        """The carry before the batch at `cursor`: `carry`, or the initial carry where reading starts anew."""
        return carry

    def shape_index(self, data: Data, cursor: Int[Array, ""]) -> Int[Array, ""]:
        """Index in `shapes` of the batch at `cursor`."""
        return jnp.zeros((), jnp.int32)

    def batch(self, shape: Hashable, data: Data, cursor: Int[Array, ""]) -> tuple[PyTree, Array]:
        """The batch at `cursor`, and the weight of each of its targets in the objective."""

    def advance(self, cursor: Int[Array, ""]) -> Int[Array, ""]:
        """The cursor of the next batch."""

    def terms(self, step: Int[Array, ""]) -> dict[str, Float[Array, ""] | float]:
        """Terms of the objective that depend on the step. They are added to the terms of the config."""
        return {}

    def loss(
        self,
        parameters: Parameters,
        batch: PyTree,
        carry: Carry,
        weights: Array,
        noise: Noise | None,
        terms: dict[str, Float[Array, ""]],
    ) -> tuple[Float[Array, ""], tuple[Carry, Array]]:
        """Returns (objective, (carry after the batch, nats of each target))."""

    def score(self, parameters: Parameters, split: Split, protocol: str, settings: ConfigDict) -> Score:
        """Scores a split. protocol: a name of the task's protocols; settings: config.evaluation"""

    def target_nats(self, parameters: Parameters, split: Split) -> Float[np.ndarray, " targets"]:
        """-ln p of every target of a split under the exact protocol, in order."""

    def window_tokens(self, split: Split, protocol: str, settings: ConfigDict) -> float:
        """Most tokens that one compiled call of `score` reads; infinite for a protocol that needs more memory per token
        than training."""

    def timed_part(self, split: Split, protocol: str, settings: ConfigDict, tokens: int) -> tuple[Split, float]:
        """Returns a part of a split, about `tokens` tokens, and the factor by which the whole split takes longer."""
        return split, 1.0

    def compile_score(
        self, parameters: PyTree, split: Split, protocol: str, settings: ConfigDict
    ) -> jax.stages.Compiled:
        """Compiles the largest program of `score`; parameters: arrays or ShapeDtypeStructs."""

    def sample(
        self, parameters: Parameters, vocabulary: Any, settings: ConfigDict, key: Array | None = None
    ) -> list[str]:
        """Generates texts with the settings of config.sample. Returns [] if the model generates no text."""
        return []

    def examples(self, parameters: Parameters, split: Split, settings: ConfigDict) -> list[dict]:
        """The first examples of a split with the model's outputs, for display: source, written, target, and attention
        if the model has it. [] for tasks that do not write sequences. settings: config.evaluation"""
        return []

    def check(self, config: ConfigDict, corpus: Any) -> None:
        """Raises UserError for settings that do not fit the task."""

    def check_memory(self, config: ConfigDict) -> None:
        """Raises UserError if scoring or sampling with this config needs more than the free memory."""
        return
