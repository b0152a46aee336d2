"""Labelled sequences: one label per sequence (classification), or one per token (tagging)."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lm.data import examples
from lm.data.corpora import Corpus
from lm.data.examples import Examples, Plan, cut_of, make_plan, read_batch, shuffle, token_mask
from lm.data.labelled_corpora import tokens_of
from lm.data.text import Vocabulary
from lm.data.word_shapes import shapes_of
from lm.errors import UserError, in_short
from lm.model.sequence_model import SequenceModel, make_sequence_model
from lm.scoring.labels import are_entities, confusion, entity_scores
from lm.scoring.score import Score
from lm.tasks.separate import FIXED, LABEL_MEASURES, PROTOCOLS, UNPAIRED, Bucketed, check_settings, in_split_order


@dataclasses.dataclass(frozen=True)
class Labelling(Bucketed):
    """A model and the batches that it reads. labels: label names"""

    model: SequenceModel
    labels: tuple[str, ...]

    @property
    def has_entities(self) -> bool:
        """Whether the labels mark entities. Their F1 is then scored."""
        return self.model.per_token and are_entities(self.labels)

    @property
    def columns(self):
        return ("loss", "valid_loss", "valid_f1" if self.has_entities else "valid_accuracy", "tokens_per_s")

    @property
    def trained(self) -> SequenceModel:
        """The model that training uses."""
        return self.model

    # --- Batches ----------------------------------------------------------------------------------------------------

    def shape_index(self, data, cursor):
        return data.bucket[cursor]

    def on_device(self, split):
        return examples.on_device(self.plan, split)

    def order(self, data, key, step):
        return shuffle(self.plan, data, self.order_key(key, step))

    def batch(self, shape, data, cursor):
        batch = read_batch(self.plan, data, shape, cursor)
        return batch, self.weigh(targets_of(self.trained, batch))

    # --- Model ------------------------------------------------------------------------------------------------------

    def loss(self, parameters, batch, carry, weights, noise, terms):
        arguments = (batch.tokens, batch.lengths, batch.labels, weights, noise, terms.get("label_smoothing"))
        objective, nats = self.trained.apply({"params": parameters}, *arguments, method="loss")
        return objective, (carry, nats)

    # --- Scores -----------------------------------------------------------------------------------------------------

    def score(self, parameters, split, protocol, settings):
        nats, predicted = self.predict(parameters, split)
        measures = {"accuracy": float(np.mean(predicted == split.labels))}
        if self.has_entities:
            names = np.array(self.labels)
            ends = split.starts[1:-1]
            sentences = zip(np.split(names[split.labels], ends), np.split(names[predicted], ends), strict=True)
            measures = entity_scores((true.tolist(), found.tolist()) for true, found in sentences) | measures
        counts = confusion(split.labels, predicted, len(self.labels))
        return Score(float(nats.sum(dtype=np.float64)), len(nats), measures, counts)

    def predict(self, parameters, split: Examples) -> tuple[np.ndarray, np.ndarray]:
        """Returns (nats of every label, most probable labels), in the order of the split."""
        plan = self.plan_of(split)
        data = examples.on_device(plan, split)

        def program(length, cursor):
            return _predict_batch(self.model, plan, length, parameters, data, cursor)

        starts = split.starts if self.model.per_token else np.arange(len(split) + 1)
        nats, found = in_split_order(plan, data, starts, program, (np.float32, np.int32))
        return nats, found

    def compile_score(self, parameters, split, protocol, settings):
        plan = self.plan_of(split)
        data = jax.eval_shape(lambda: examples.on_device(plan, split))
        return _predict_batch.lower(self.model, plan, max(plan.lengths), parameters, data, 0).compile()

    # --- Checks -----------------------------------------------------------------------------------------------------

    def check(self, config, corpus):
        check_settings(config, PROTOCOLS, FIXED | UNPAIRED | {"penalty.l2": 0.0}, LABEL_MEASURES)
        if config.evaluation.best_by == "f1" and not self.has_entities:
            raise UserError("config.evaluation.best_by=f1 needs config.task=tagging with labels O and B-X, I-X, or X")


def targets_of(model: SequenceModel, batch: examples.Batch) -> jax.Array:
    """Target mask [T, B] or [1, B] of a batch: 1 for each label, 0 at padding and in empty rows."""
    return token_mask(batch, batch.labels.shape[0]) if model.per_token else batch.present.astype(jnp.float32)[None]


@functools.partial(jax.jit, static_argnums=0)
def _log_probs(model: SequenceModel, parameters, batch: examples.Batch) -> Any:
    return model.apply({"params": parameters}, batch.tokens, batch.lengths)


def label_sequence(config, vocabulary: Vocabulary, model: SequenceModel, parameters: dict, text: str):
    """Returns (tokens [N], most probable labels [n], log-probabilities [n, C]): n is N for a tagger, else 1."""
    tokens, symbols = tokens_of(config.data, text), vocabulary.symbols
    if not tokens:
        raise UserError("the text is empty")
    index = {symbol: number for number, symbol in enumerate(symbols)}
    unknown = None if vocabulary.unknown is None else index[vocabulary.unknown]
    if unknown is None and (missing := [token for token in tokens if token not in index]):
        raise UserError(f"the vocabulary lacks {', '.join(map(in_short, dict.fromkeys(missing[:5])))}")
    ids = np.array([index.get(token, unknown) for token in tokens])
    one = Examples(ids, np.array([0, len(ids)]), np.zeros(len(ids) if model.per_token else 1, np.int32))
    plan = make_plan(cut_of(config.data)._replace(batch_size=1), one, 1)
    data, length = examples.on_device(plan, one), plan.lengths[0]
    _, labels = _predict_batch(model, plan, length, parameters, data, 0)
    log_probs = _log_probs(model, parameters, read_batch(plan, data, length, 0))
    count = len(tokens) if model.per_token else 1
    return tokens, np.asarray(labels)[:count, 0], np.asarray(log_probs)[:count, 0]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _predict_batch(model: SequenceModel, plan: Plan, length: int, parameters, data: examples.Data, cursor) -> Any:
    """Returns (nats of every label of a batch, most probable labels), each [T, B] or [1, B]."""
    batch = read_batch(plan, data, length, cursor)
    return model.apply({"params": parameters}, batch.tokens, batch.lengths, batch.labels, method="predict")


def make_labels_model(config: ConfigDict, vocabulary: Vocabulary) -> SequenceModel:
    """Makes the model of a config. Raises UserError for values that do not fit each other or the vocabulary."""
    shapes = shapes_of(vocabulary.symbols) if config.model.shape_size else b""
    return make_sequence_model(config, vocabulary.size, len(vocabulary.labels), shapes)


def make_labelling(config: ConfigDict, corpus: Corpus) -> Labelling:
    """Makes the task of a config and a corpus. Raises UserError if the corpus lacks labels of the needed kind."""
    train, data, pooling = corpus.splits["train"], config.data, config.model.pooling
    if not isinstance(train, Examples):
        raise UserError(f"config.task={config.task} needs labels, which config.data.corpus={data.corpus} lacks")
    tagged = train.per_token
    if tagged != (config.task == "tagging"):
        fits, unit = ("tagging", "token") if tagged else ("classification", "sequence")
        why = f"config.data.corpus={data.corpus} has one label per {unit}"
        raise UserError(f"config.task must be {fits}, not {config.task}: {why}")
    if tagged != (pooling == "none"):
        raise UserError(f"config.model.pooling must {'' if tagged else 'not '}be none with config.task={config.task}")
    if data.examples != "sequences" and not tagged:
        raise UserError(f"config.data.examples={data.examples} needs config.task=tagging")
    if data.padding == "front_unmasked" and not data.max_tokens:
        raise UserError(
            "config.data.padding=front_unmasked needs config.data.max_tokens: its length decides the scores"
        )
    if tagged and (data.max_tokens or data.padding != "end"):
        raise UserError("config.task=tagging needs config.data.max_tokens=0 and padding=end: every token has a label")
    model, plan = make_labels_model(config, corpus.vocabulary), make_plan(cut_of(data), train, data.buckets)
    return Labelling(model, config.loss.weighting, plan, data.buckets, corpus.vocabulary.labels)
