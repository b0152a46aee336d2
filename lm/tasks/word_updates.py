"""Tagging word by word: a step reads the last words of a sentence up to some word, and learns the label of that word.

Mesnil, He, Deng and Bengio (2013) train so: back-propagation reaches config.data.unroll words back, and what lies
before them is not read, except by windows. A step starts from the initial carry. Scoring reads whole sentences.
"""

import dataclasses

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from lm.data.corpora import Corpus
from lm.data.examples import Data, Examples, Plan, make_plan
from lm.errors import UserError
from lm.model.sequence_model import SequenceModel
from lm.tasks.labelling import Labelling, make_labelling

EXAMPLES = ("sequences", "words")
SCORED_TOGETHER = 64  # sentences


@dataclasses.dataclass(frozen=True)
class WordUpdates(Labelling):
    """Labelled words, each with at most `plan.lengths[0]` words up to it. An epoch shuffles sentences, not words."""

    @property
    def trained(self) -> SequenceModel:
        """The tagger, read as a classifier by its last word."""
        return self.model.clone(config=ml_collections.FrozenConfigDict({**self.model.config, "pooling": "last"}))

    def on_device(self, split):
        return words_on_device(self.plan, split)

    def order(self, data, key, step):
        return shuffle_sentences(self.plan, data, self.order_key(key, step))

    def plan_of(self, split):
        return make_plan(self.plan.cut._replace(batch_size=SCORED_TOGETHER), split, self.buckets)


def words_on_device(plan: Plan, split: Examples) -> Data:
    """The words of a split [N] as examples, in the order of the file. `first` and `end` are those of their sentence."""
    first, end = (np.repeat(bound, split.lengths) for bound in (split.starts[:-1], split.starts[1:]))
    words = np.arange(len(split.tokens))
    starts = np.maximum(first, words + 1 - plan.lengths[0])
    rows = _rows(plan, words, np)
    arrays = (starts, words + 1 - starts, words, rows, np.zeros(len(rows)), first, end)
    tokens, labels = jnp.asarray(split.tokens), jnp.asarray(split.labels)
    return Data(tokens, labels, *(jnp.asarray(array, jnp.int32) for array in arrays))


def shuffle_sentences(plan: Plan, data: Data, key: jax.Array) -> Data:
    """The data with its sentences in another order, which the key decides; words stay in theirs."""
    ranks = jax.random.permutation(key, len(data.by_bucket))[data.first]  # one per sentence
    return data._replace(rows=_rows(plan, jnp.argsort(ranks, stable=True), jnp))


def _rows(plan: Plan, words, xp):
    """The words of each step [S, B], -1 in empty rows of the last. xp: numpy or jax.numpy"""
    size = plan.cut.batch_size
    return xp.pad(words, (0, -len(words) % size), constant_values=-1).reshape(-1, size)


def make_tagging(config: ml_collections.ConfigDict, corpus: Corpus) -> Labelling:
    """The task of a config on a corpus: of sentences, or of words. Raises UserError as `make_labelling` does."""
    task, data = make_labelling(config, corpus), config.data
    if data.examples == "sequences":
        return task
    if config.model.direction != "forward":
        raise UserError("config.data.examples=words needs config.model.direction=forward: a step ends with its word")
    words = task.plan.tokens
    plan = Plan(task.plan.cut, (data.unroll,), (words,), words)
    return WordUpdates(task.model, task.weighting, plan, task.buckets, task.labels)
