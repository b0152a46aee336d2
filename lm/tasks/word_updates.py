"""Tagging word by word: an example is a word with the words before it, and its target is the label of that word.

As in Mesnil, He, Deng and Bengio (2013), an example has at most config.data.unroll words. The window around each word
(config.data.window) may also read words of the sentence outside the example. Every example starts from the initial
carry. Scoring reads complete sentences.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from lm.data.corpora import Corpus
from lm.data.examples import Data, Examples, Plan, make_plan
from lm.errors import UserError
from lm.model.sequence_model import SequenceModel
from lm.tasks.labelling import Labelling, make_labelling

EXAMPLES = ("sequences", "words")
SCORED_TOGETHER = 64  # sentences per batch in scoring


@dataclasses.dataclass(frozen=True)
class WordUpdates(Labelling):
    """Examples of at most `plan.lengths[0]` words; the last has the label. Epochs shuffle sentences, not words."""

    @property
    def trained(self) -> SequenceModel:
        """The tagger as a classifier of the last word."""
        return self.model.clone(config=FrozenConfigDict({**self.model.config, "pooling": "last"}))

    def on_device(self, split: Examples) -> Data:
        """Makes an example of each of the N words of a split, in file order. first, end: the bounds of its sentence"""
        first, end = (np.repeat(bound, split.lengths) for bound in (split.starts[:-1], split.starts[1:]))
        words = np.arange(len(split.tokens))
        starts = np.maximum(first, words + 1 - self.plan.lengths[0])
        rows = _rows(self.plan, words, np)
        arrays = (starts, words + 1 - starts, words, rows, np.zeros(len(rows)), first, end)
        tokens, labels = jnp.asarray(split.tokens), jnp.asarray(split.labels)
        return Data(tokens, labels, *(jnp.asarray(array, jnp.int32) for array in arrays))

    def order(self, data, key, step):
        # A random rank for each sentence; words keep their order within a sentence.
        ranks = jax.random.permutation(self.order_key(key, step), len(data.by_bucket))[data.first]
        return data._replace(rows=_rows(self.plan, jnp.argsort(ranks, stable=True), jnp))

    def plan_of(self, split):
        return make_plan(self.plan.cut._replace(batch_size=SCORED_TOGETHER), split, self.buckets)


def _rows(plan: Plan, words, xp):
    """Indices of the words in S batches [S, B], with -1 in empty rows of the last batch. xp: numpy or jax.numpy"""
    size = plan.cut.batch_size
    return xp.pad(words, (0, -len(words) % size), constant_values=-1).reshape(-1, size)


def make_tagging(config: ConfigDict, corpus: Corpus) -> Labelling:
    """Makes the tagging task: its examples are sentences or words. Raises UserError as `make_labelling` does."""
    task, data = make_labelling(config, corpus), config.data
    if data.examples == "sequences":
        return task
    if config.model.direction != "forward":
        raise UserError("config.data.examples=words needs config.model.direction=forward: examples end with their word")
    words = task.plan.tokens
    plan = Plan(task.plan.cut, (data.unroll,), (words,), words)
    return WordUpdates(task.model, task.weighting, plan, task.buckets, task.labels)
