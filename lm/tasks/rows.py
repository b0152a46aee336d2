"""Classification of rows of one shape: vectors of numbers, in a fixed order, or windows of tokens, shuffled each epoch.

protocol  the score
exact     nats of every row
batched   mean of the means of batches of evaluation.batch_size rows in order (a short last batch counts fully), plus
          the penalty of config.penalty; the starter code of CS224d prints this value as its loss
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Integer
from ml_collections import ConfigDict, FrozenConfigDict

from lm.data.corpora import Corpus
from lm.data.rows import SIZE, Rows, normal_word, windows_of
from lm.data.text import Vocabulary
from lm.errors import UserError
from lm.model.softmax_classifier import SoftmaxClassifier
from lm.model.window_classifier import WindowClassifier, make_window_classifier
from lm.scoring.labels import OUTSIDE, confusion, entity_scores, f1
from lm.scoring.score import Score
from lm.tasks.separate import FIXED, LABEL_MEASURES, UNPAIRED, Separate, check_settings

PROTOCOLS = ("exact", "batched")
OFF = {"keep_prob": 1.0, "zoneout": 0.0, "penalty": 0.0}  # groups of keys, and the value that switches off each key
READ = ("keep_prob.output", "penalty.l2")  # keys in the groups of OFF that windows may set
CHUNK = 4096  # rows scored at once


class Data(NamedTuple):
    """Rows on the device. order [S * B]: row numbers of an epoch's S batches, -1 for an empty row"""

    x: Array
    labels: Integer[Array, " n"]
    order: Int[Array, " SB"]


@dataclasses.dataclass(frozen=True)
class RowClassification(Separate):
    """A model and its batches: `count` rows in batches of `batch_size`.

    labels: label names; l2: config.penalty.l2
    """

    model: SoftmaxClassifier | WindowClassifier
    batch_size: int
    count: int
    labels: tuple[str, ...]
    l2: float

    shapes = ("all",)
    activations = 0

    def for_training(self):
        return dataclasses.replace(self, model=self.model.for_training(), l2=0.0)

    @property
    def is_windows(self) -> bool:
        return isinstance(self.model, WindowClassifier)

    @property
    def columns(self):
        return ("loss", "epoch_loss", *(["valid_loss", "valid_f1"] if self.is_windows else []), "tokens_per_s")

    # --- Batches ----------------------------------------------------------------------------------------------------

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.count // self.batch_size)

    @property
    def tokens_per_step(self) -> float:
        return self.count / self.steps_per_epoch

    @property
    def largest_batch(self) -> int:
        return self.batch_size

    def on_device(self, split):
        order = jnp.arange(len(split), dtype=jnp.int32)
        return Data(jnp.asarray(split.x), jnp.asarray(split.labels), self._padded(order))

    def _padded(self, order: Array) -> Array:
        return jnp.pad(order, (0, -len(order) % self.batch_size), constant_values=-1)

    def order(self, data, key, step):
        if not self.is_windows:
            return data
        shuffled = jax.random.permutation(self.order_key(key, step), self.count)
        return data._replace(order=self._padded(shuffled.astype(jnp.int32)))

    def batch(self, shape, data, cursor):
        ids = jax.lax.dynamic_slice_in_dim(data.order, cursor * self.batch_size, self.batch_size)
        present = (ids >= 0).astype(jnp.float32)
        rows = jnp.maximum(ids, 0)
        return (data.x[rows], data.labels[rows]), self.weigh(present)

    # --- Model ------------------------------------------------------------------------------------------------------

    def loss(self, parameters, batch, carry, weights, noise, terms):
        found: Any = self.model.apply({"params": parameters}, *batch, weights, noise, terms, method="loss")
        objective, nats = found
        return objective, (carry, nats)

    # --- Scores -----------------------------------------------------------------------------------------------------

    def score(self, parameters, split, protocol, settings):
        nats, predicted = self.predict(parameters, split)
        measures = {"accuracy": float(np.mean(predicted == split.labels))}
        if self.is_windows:
            measures = _tag_scores(np.array(self.labels), split, predicted) | measures
        total = float(nats.sum(dtype=np.float64))
        if protocol == "batched":
            size = settings.batch_size
            means = [nats[start : start + size].mean(dtype=np.float64) for start in range(0, len(nats), size)]
            squares: Any = self.model.apply({"params": parameters}, method="half_squares") if self.l2 else 0.0
            total = len(nats) * (float(np.mean(means)) + self.l2 * float(squares))
        return Score(total, len(nats), measures, confusion(split.labels, predicted, len(self.labels)))

    def predict(self, parameters, split: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Returns (nats, most probable label) of every row."""
        size, found = min(CHUNK, len(split)), []
        for start in range(0, len(split), size):
            rows = np.arange(start, start + size) % len(split)  # the last chunk wraps around, to keep one shape
            found.append(log_probabilities(self.model, parameters, jnp.asarray(split.x[rows])))
        log_probs = np.concatenate([np.asarray(each) for each in found])[: len(split)]
        return -log_probs[np.arange(len(split)), split.labels], log_probs.argmax(axis=1)

    def window_tokens(self, split, protocol, settings):
        return min(CHUNK, len(split))

    def compile_score(self, parameters, split, protocol, settings):
        rows = jax.ShapeDtypeStruct((min(CHUNK, len(split)), *split.x.shape[1:]), split.x.dtype)
        return log_probabilities.lower(self.model, parameters, rows).compile()

    # --- Checks -----------------------------------------------------------------------------------------------------

    def check(self, config, corpus):
        read, measures = (READ, LABEL_MEASURES) if self.is_windows else ((), LABEL_MEASURES[:1])
        off = {f"{group}.{key}": value for group, value in OFF.items() for key in config[group]}
        off = {key: value for key, value in off.items() if key not in read}
        check_settings(config, PROTOCOLS, FIXED | UNPAIRED | off | {"loss.label_smoothing": 0.0}, measures)


def make_vectors_model(config: ConfigDict, vocabulary: Vocabulary) -> SoftmaxClassifier:
    """Makes the model of a config."""
    return SoftmaxClassifier(FrozenConfigDict(config.init), SIZE, len(vocabulary.labels))


def make_windows_model(config: ConfigDict, vocabulary: Vocabulary) -> WindowClassifier:
    """Makes the model of a config. Raises UserError for values that do not fit each other."""
    return make_window_classifier(config, vocabulary.size, len(vocabulary.labels))


def make_row_classification(config: ConfigDict, corpus: Corpus) -> RowClassification:
    """Makes the task of a config and a corpus. Raises UserError if the corpus lacks such rows or fills no batch."""
    make, kinds = (make_windows_model, "iu") if config.task == "windows" else (make_vectors_model, "f")
    model = make(config, corpus.vocabulary)
    train, batch_size = corpus.splits["train"], config.data.batch_size
    if not isinstance(train, Rows) or train.x.dtype.kind not in kinds:
        raise UserError(f"config.task={config.task}: config.data.corpus={corpus.name} has no {config.task}")
    if batch_size > len(train):
        raise UserError(f"config.data.batch_size must be at most {len(train)}, the number of rows, not {batch_size}")
    labels, weighting = corpus.vocabulary.labels, config.loss.weighting
    return RowClassification(model, weighting, batch_size, len(train), labels, config.penalty.l2)


def word_symbols(vocabulary: Vocabulary, text: str) -> list[str]:
    """Vocabulary symbols of the words of a text. A word without a symbol is returned unchanged."""
    known = frozenset(vocabulary.symbols)
    symbols = [(word, normal_word(word, known)) for word in text.split()]
    return [word if symbol == vocabulary.unknown else symbol for word, symbol in symbols]


def label_words(config, vocabulary: Vocabulary, model: WindowClassifier, parameters: dict, text: str):
    """Returns (words [N], most probable labels, log-probabilities [N, C]) of a sentence, split at white space."""
    words, index = text.split(), {symbol: number for number, symbol in enumerate(vocabulary.symbols)}
    if not words:
        raise UserError("the text is empty")
    ids = [index[normal_word(word, index)] for word in words]
    rows = windows_of([ids], [0] * len(ids), config.data.window, vocabulary)
    log_probs = np.asarray(log_probabilities(model, parameters, jnp.asarray(rows.x)))
    return words, log_probs.argmax(axis=1), log_probs


@functools.partial(jax.jit, static_argnums=0)
def log_probabilities(model, parameters: dict, x: Array) -> Array:
    """Log-probabilities [B, C] of the labels."""
    return model.apply({"params": parameters}, x)


def _tag_scores(names: np.ndarray, split: Rows, predicted: np.ndarray) -> dict[str, float]:
    """F1 of entities and of single tokens, in total and for each type. token_f1 leaves out OUTSIDE."""
    true, found = names[split.labels], names[predicted]
    sentences = zip(*(np.split(each, split.starts[1:]) for each in (true, found)), strict=True)
    scores = entity_scores((a.tolist(), b.tolist()) for a, b in sentences)
    kinds = [name for name in names if name != OUTSIDE]
    counts = np.array(
        [[((true == kind) & (found == kind)).sum(), (found == kind).sum(), (true == kind).sum()] for kind in kinds]
    )
    scores["token_f1"] = f1(*counts.sum(axis=0).tolist())
    return scores | {f"token_f1_{kind}": f1(*count) for kind, count in zip(kinds, counts.tolist(), strict=True)}
