"""Sequence to sequence: a model reads a source and learns to write its target, given the true symbols before each."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from lm.data import pairs
from lm.data.corpora import Corpus
from lm.data.examples import Plan, cut_of, make_plan
from lm.data.pairs import PairBatch, Pairs, pairs_of, read_pairs
from lm.data.text import Vocabulary
from lm.errors import UserError
from lm.model.encoder_decoder import EncoderDecoder, make_encoder_decoder
from lm.scoring.decoding import END, encode, forced_features, logits_of, search
from lm.scoring.score import Score
from lm.tasks.labelling import FIXED, PROTOCOLS, check_settings, order_key


@dataclasses.dataclass(frozen=True)
class Translation:
    """A model and the batches it reads. The carry is empty.

    buckets: config.data.buckets; weighting: config.loss.weighting; forcing: config.loss.teacher_forcing
    """

    model: EncoderDecoder
    plan: Plan
    buckets: int
    weighting: str
    forcing: float

    columns = ("loss", "valid_loss", "valid_sequence_accuracy", "tokens_per_s")
    ends_epochs = True

    def for_training(self):
        return dataclasses.replace(self, model=self.model.for_training())

    # --- Batches ----------------------------------------------------------------------------------------------------

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
    def activations(self) -> int:
        return 2 * self.largest_batch * sum(map(self.model.cell.output_size, self.model.config.hidden))

    @property
    def largest_batch(self) -> int:
        return max(self.plan.lengths) * self.batch_size

    @property
    def shapes(self):
        return self.plan.lengths

    def shape_index(self, data, cursor):
        return data.source.bucket[cursor]

    def on_device(self, split):
        return pairs.on_device(self.plan, split)

    def order(self, data, key, step):
        return pairs.shuffle(self.plan, data, order_key(key, step // self.steps_per_epoch))

    def start_of(self, cursor, carry):
        return carry

    def batch(self, shape, data, cursor):
        batch = read_pairs(self.plan, data, shape, cursor)
        weights = targets_of(batch)
        return batch, weights / jnp.sum(weights) if self.weighting == "mean" else weights

    def advance(self, cursor):
        return (cursor + 1) % self.steps_per_epoch

    # --- Model ------------------------------------------------------------------------------------------------------

    def loss(self, parameters, batch, carry, weights, noise, terms):
        key = noise.key if self.forcing < 1.0 else None
        features = read_target(self.model, parameters, batch, noise, self.forcing, key)
        arguments = (features, batch.target.tokens, weights, terms.get("label_smoothing"))
        found: Any = self.model.apply({"params": parameters}, *arguments, method="loss")
        objective, nats = found
        return objective, (carry, nats)

    def sample(self, parameters, vocabulary, settings, key=None):
        return []

    # --- Scores -----------------------------------------------------------------------------------------------------

    def score(self, parameters, split, protocol, settings):
        nats, right, exact = self.predict(parameters, split)
        measures = {"sequence_accuracy": float(np.mean(exact)), "token_accuracy": float(np.mean(right))}
        return Score(float(nats.sum(dtype=np.float64)), len(nats), measures)

    def predict(self, parameters, split: Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(nats, whether the likeliest symbol is right) of every target token, and whether greedy search finds the
        whole target, of every pair. In the order of the split."""
        plan = self.plan_of(split)
        data = pairs.on_device(plan, split)
        rows, buckets = np.asarray(data.source.rows), np.asarray(data.source.bucket)
        starts = split.target.starts
        nats, right = np.zeros(starts[-1], np.float32), np.zeros(starts[-1], bool)
        exact = np.zeros(len(split), bool)
        for cursor, (ids, bucket) in enumerate(zip(rows, buckets, strict=True)):
            values = _predict(self.model, plan, plan.lengths[bucket], parameters, data, cursor)
            each_nats, each_right, each_exact = map(np.asarray, values)
            for column, number in enumerate(ids[ids >= 0]):
                first, last = starts[number : number + 2]
                nats[first:last] = each_nats[: last - first, column]
                right[first:last] = each_right[: last - first, column]
                exact[number] = each_exact[column]
        return nats, right, exact

    def target_nats(self, parameters, split):
        return self.predict(parameters, split)[0]

    def window_tokens(self, split, protocol, settings):
        return max(self.plan_of(split).lengths) * self.batch_size

    def timed_part(self, split, protocol, settings, tokens):
        count = max(4 * self.batch_size, tokens * len(split) // max(1, len(split.tokens)))
        part = split.first(min(count, len(split)))
        return part, len(split) / len(part)

    def compile_score(self, parameters, split, protocol, settings):
        plan = self.plan_of(split)
        data = jax.eval_shape(lambda: pairs.on_device(plan, split))
        return _predict.lower(self.model, plan, max(plan.lengths), parameters, data, 0).compile()

    def plan_of(self, split: Pairs) -> Plan:
        """The batches of a split that is scored."""
        return make_plan(self.plan.cut, split.longer(), self.buckets)

    # --- Checks -----------------------------------------------------------------------------------------------------

    def check(self, config, corpus):
        check_settings(config, PROTOCOLS, FIXED | {"penalty.l2": 0.0, "evaluation.best_by": "loss"})

    def check_memory(self, config):
        pass


def targets_of(batch: PairBatch) -> jax.Array:
    """1 for each symbol of a target, END included; 0 at padding and in empty rows, [T, B]."""
    time = jnp.arange(batch.target.tokens.shape[0])[:, None]
    return ((time < batch.target.lengths[None]) & batch.target.present[None]).astype(jnp.float32)


def read_target(model: EncoderDecoder, parameters, batch: PairBatch, noise=None, forcing=1.0, key=None) -> jax.Array:
    """What the softmax reads at each step of the targets, [T, B, F]."""
    state, memory = encode(model, parameters, batch.source.tokens, batch.source.lengths, noise)
    before = jnp.roll(batch.target.tokens, 1, axis=0).at[0].set(END)
    return forced_features(model, parameters, before, state, memory, noise, forcing, key)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _predict(model: EncoderDecoder, plan: Plan, length: int, parameters, data: pairs.Data, cursor):
    batch = read_pairs(plan, data, length, cursor)
    logits = logits_of(model, parameters, read_target(model, parameters, batch))
    targets = batch.target.tokens.astype(jnp.int32)
    nats = -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]
    found = search(model, parameters, batch.source.tokens, batch.source.lengths, 1, length)
    inside = targets_of(batch) > 0
    exact = jnp.all((targets == found.T) | ~inside, axis=0)
    return nats, jnp.argmax(logits, axis=-1) == targets, exact


def translate_lines(
    config, sample, vocabulary: Vocabulary, model: EncoderDecoder, parameters, lines: list[str]
) -> list[str]:
    """What the model writes for each line, by beam search with sample.beams beams; "" for an empty line."""
    index = {symbol: number for number, symbol in enumerate(vocabulary.symbols)}
    missing = sorted(set("".join(lines)) - index.keys())
    if missing:
        raise UserError(f"the model does not know {', '.join(map(repr, missing[:5]))}")
    if not lines:
        return []
    split = pairs_of([[index[c] for c in line] for line in lines], [[] for _ in lines], vocabulary.dtype)
    plan = make_plan(cut_of(config.data), split.longer(), config.data.buckets)
    data, written = pairs.on_device(plan, split), [""] * len(lines)
    for cursor, bucket in enumerate(np.asarray(data.source.bucket)):
        batch = read_pairs(plan, data, plan.lengths[bucket], cursor).source
        arguments = (batch.tokens, batch.lengths, sample.beams, sample.length, sample.length_penalty)
        rows = np.asarray(search(model, parameters, *arguments))
        for row, number in zip(rows, np.asarray(data.source.rows)[cursor], strict=False):
            if number >= 0 and lines[number]:
                written[number] = "".join(vocabulary.symbols[i] for i in row[: first_end(row)])
    return written


def first_end(row: np.ndarray) -> int:
    """Symbols before the first END."""
    found = np.flatnonzero(row == END)
    return int(found[0]) if len(found) else len(row)


def make_translation_model(config: ml_collections.ConfigDict, vocabulary: Vocabulary) -> EncoderDecoder:
    """The model of a config. Raises UserError for values that do not fit each other or the vocabulary."""
    return make_encoder_decoder(config, vocabulary.size, vocabulary.size)


def make_translation(config: ml_collections.ConfigDict, corpus: Corpus) -> Translation:
    """The task of a config on a corpus. Raises UserError for a corpus without pairs."""
    train = corpus.splits["train"]
    if not isinstance(train, Pairs):
        raise UserError(f"config.task=translation needs pairs, and config.data.corpus={corpus.name} has none")
    model = make_translation_model(config, corpus.vocabulary)
    plan = make_plan(cut_of(config.data), train.longer(), config.data.buckets)
    return Translation(model, plan, config.data.buckets, config.loss.weighting, config.loss.teacher_forcing)
