"""What a task is: everything that the trainer, its files and its estimates know about what is trained.

A task is hashable, and static under jit: it holds the model and how data is cut into batches, but no arrays. The
training state's `cursor` says which batch comes next. Its `carry` is the state that batches pass on: that of a language
model's streams; empty for separate examples.
"""

from collections.abc import Hashable
from typing import Any, Protocol

import jax
import ml_collections
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

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

    @property
    def model(self) -> Any:
        """The `Model` that is trained."""

    @property
    def batch_size(self) -> int:
        """Rows of a batch."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which the training split is read once."""

    @property
    def tokens_per_step(self) -> float:
        """Tokens that a step reads on average, without padding."""

    @property
    def largest_batch(self) -> int:
        """Tokens of the largest batch, padding included."""

    @property
    def activations(self) -> int:
        """Numbers that the recurrent layers put out for the largest batch."""

    @property
    def draws(self) -> bool:
        """Whether its loss draws random numbers, even without dropout and zoneout."""

    @property
    def ends_epochs(self) -> bool:
        """Whether an epoch has an end, at which its mean loss is reported."""

    @property
    def shapes(self) -> tuple[Hashable, ...]:
        """The shapes of batches. Each is compiled."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of metrics.jsonl that progress on screen shows."""

    def for_training(self) -> "Task":
        """The task without what no training step reads, so that configs which differ there share programs."""

    def on_device(self, split: Split) -> Data:
        """Copies a split to the device."""

    def order(self, data: Data, key: Key[Array, ""], step: Int[Array, ""]) -> Data:
        """The data in the order of the epoch that `step` belongs to. Computed once a dispatch, which ends with its
        epoch at the latest."""

    def start_of(self, cursor: Int[Array, ""], carry: Carry) -> Carry:
        """The carry that the batch at `cursor` starts from: the given one, or the initial one where an epoch begins."""

    def shape_index(self, data: Data, cursor: Int[Array, ""]) -> Int[Array, ""]:
        """Which of `shapes` the batch at `cursor` has."""

    def batch(self, shape: Hashable, data: Data, cursor: Int[Array, ""]) -> tuple[PyTree, Array]:
        """The batch at `cursor`, and the weight of each of its targets in the objective."""

    def advance(self, cursor: Int[Array, ""]) -> Int[Array, ""]:
        """The cursor of the next batch."""

    def terms(self, step: Int[Array, ""]) -> dict[str, Float[Array, ""] | float]:
        """What the objective reads that changes with the step: terms beside those of a config."""

    def loss(
        self,
        parameters: Parameters,
        batch: PyTree,
        carry: Carry,
        weights: Array,
        noise: Noise | None,
        terms: dict[str, Float[Array, ""]],
    ) -> tuple[Float[Array, ""], tuple[Carry, Array]]:
        """(objective, (carry after the batch, nats of each target))"""

    def score(self, parameters: Parameters, split: Split, protocol: str, settings: ml_collections.ConfigDict) -> Score:
        """Scores a split. protocol: a name of the task's protocols; settings: config.evaluation"""

    def target_nats(self, parameters: Parameters, split: Split) -> Float[np.ndarray, " targets"]:
        """-ln p of every target of a split under the exact protocol, in order."""

    def window_tokens(self, split: Split, protocol: str, settings: ml_collections.ConfigDict) -> int:
        """Tokens that a program of `score` reads at a time."""

    def timed_part(
        self, split: Split, protocol: str, settings: ml_collections.ConfigDict, tokens: int
    ) -> tuple[Split, float]:
        """A part of a split of about `tokens` tokens, and how many times longer scoring the whole takes."""

    def compile_score(
        self, parameters: PyTree, split: Split, protocol: str, settings: ml_collections.ConfigDict
    ) -> jax.stages.Compiled:
        """Compiles the largest program of `score`; parameters: arrays or ShapeDtypeStructs."""

    def sample(
        self, parameters: Parameters, vocabulary: Any, settings: ml_collections.ConfigDict, key: Array | None = None
    ) -> list[str]:
        """Texts generated as config.sample says; none if the task's model generates no text."""

    def examples(self, parameters: Parameters, split: Split, settings: ml_collections.ConfigDict) -> list[dict]:
        """What the model makes of the first examples of a split, for people to look at: source, written, target, and
        attention if it has any; none for tasks that write nothing. settings: config.evaluation"""

    def check(self, config: ml_collections.ConfigDict, corpus: Any) -> None:
        """Raises UserError for settings that do not fit the task."""

    def check_memory(self, config: ml_collections.ConfigDict) -> None:
        """Raises UserError if scoring or sampling, as the config asks, needs more memory than there is."""
