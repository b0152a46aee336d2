"""Classification of vectors, read in their order: what a softmax does without a recurrent layer before it."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from lm.data.corpora import Corpus
from lm.data.rows import SIZE, Rows
from lm.data.text import Vocabulary
from lm.errors import UserError
from lm.model.softmax_classifier import SoftmaxClassifier
from lm.scoring.score import Score
from lm.tasks.labelling import check_settings


@dataclasses.dataclass(frozen=True)
class VectorClassification:
    """A model and its batches of `batch_size` vectors, n // batch_size of them in an epoch. The carry is empty."""

    model: SoftmaxClassifier
    batch_size: int
    count: int
    weighting: str

    columns = ("loss", "epoch_loss", "tokens_per_s")
    ends_epochs = True
    shapes = ("all",)
    activations = 0

    def for_training(self):
        return dataclasses.replace(self, model=self.model.for_training())

    @property
    def steps_per_epoch(self) -> int:
        return self.count // self.batch_size

    @property
    def tokens_per_step(self) -> float:
        return self.batch_size

    @property
    def largest_batch(self) -> int:
        return self.batch_size

    def on_device(self, split):
        return jnp.asarray(split.x), jnp.asarray(split.labels)

    def order(self, data, key, step):
        return data

    def start_of(self, cursor, carry):
        return carry

    def shape_index(self, data, cursor):
        return jnp.zeros((), jnp.int32)

    def batch(self, shape, data, cursor):
        rows = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, cursor * self.batch_size, self.batch_size), data)
        return rows, jnp.full(self.batch_size, 1.0 if self.weighting == "sum" else 1.0 / self.batch_size)

    def advance(self, cursor):
        return (cursor + 1) % self.steps_per_epoch

    def loss(self, parameters, batch, carry, weights, noise, terms):
        found: Any = self.model.apply({"params": parameters}, *batch, weights, method="loss")
        objective, nats = found
        return objective, (carry, nats)

    def sample(self, parameters, vocabulary, settings, key=None):
        return []

    def score(self, parameters, split, protocol, settings):
        log_probs: Any = self.model.apply({"params": parameters}, jnp.asarray(split.x))
        nats = -np.asarray(log_probs)[np.arange(len(split.labels)), split.labels]
        accuracy = float(np.mean(np.argmax(log_probs, axis=-1) == split.labels))
        return Score(float(nats.sum(dtype=np.float64)), len(nats), {"accuracy": accuracy})

    def target_nats(self, parameters, split):
        log_probs: Any = self.model.apply({"params": parameters}, jnp.asarray(split.x))
        return -np.asarray(log_probs)[np.arange(len(split.labels)), split.labels]

    def window_tokens(self, split, protocol, settings):
        return len(split)

    def timed_part(self, split, protocol, settings, tokens):
        return split, 1.0

    def compile_score(self, parameters, split, protocol, settings):
        shape = jax.ShapeDtypeStruct(split.x.shape, split.x.dtype)
        return jax.jit(lambda p, x: self.model.apply({"params": p}, x)).lower(parameters, shape).compile()

    def check(self, config, corpus):
        check_settings(config)

    def check_memory(self, config):
        pass


def make_vectors_model(config: ml_collections.ConfigDict, vocabulary: Vocabulary) -> SoftmaxClassifier:
    """The model of a config."""
    return SoftmaxClassifier(ml_collections.FrozenConfigDict(config.init), SIZE, len(vocabulary.labels))


def make_vector_classification(config: ml_collections.ConfigDict, corpus: Corpus) -> VectorClassification:
    """The task of a config on a corpus. Raises UserError for one of no vectors, and for too large a batch."""
    train, batch_size = corpus.splits["train"], config.data.batch_size
    if not isinstance(train, Rows):
        raise UserError(f"config.task=vectors needs vectors, and config.data.corpus={corpus.name} has none")
    if batch_size > len(train):
        raise UserError(f"config.data.batch_size must be at most {len(train)}, the number of vectors, not {batch_size}")
    model = make_vectors_model(config, corpus.vocabulary)
    return VectorClassification(model, batch_size, len(train), config.loss.weighting)
