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
from lm.data.examples import Plan, cut_of, each_batch, make_plan, token_mask
from lm.data.pairs import PairBatch, Pairs, pairs_of, read_pairs
from lm.data.text import Vocabulary
from lm.errors import UserError
from lm.model.encoder_decoder import EncoderDecoder, make_encoder_decoder
from lm.scoring.decoding import END, encode, forced_features, logits_of, search, search_from
from lm.scoring.score import Score
from lm.tasks.separate import FIXED, PROTOCOLS, Bucketed, check_settings

# Keys with the only value that pairs allow, beside FIXED: sequences are whole, and padded at their ends.
WHOLE = {
    "penalty.l2": 0.0,
    "evaluation.best_by": "loss",
    "data.max_tokens": 0,
    "data.padding": "end",
    "data.window": 1,
}


@dataclasses.dataclass(frozen=True)
class Translation(Bucketed):
    """A model and the batches it reads. forcing: config.loss.teacher_forcing"""

    model: EncoderDecoder
    forcing: float

    columns = ("loss", "valid_loss", "valid_sequence_accuracy", "tokens_per_s")

    @property
    def draws(self) -> bool:
        return self.forcing < 1.0

    # --- Batches ----------------------------------------------------------------------------------------------------

    @property
    def activations(self) -> int:
        return 2 * self.largest_batch * sum(map(self.model.cell.output_size, self.model.config.hidden))

    def shape_index(self, data, cursor):
        return data.source.bucket[cursor]

    def on_device(self, split):
        return pairs.on_device(self.plan, split)

    def order(self, data, key, step):
        return pairs.shuffle(self.plan, data, self.order_key(key, step))

    def batch(self, shape, data, cursor):
        batch = read_pairs(self.plan, data, shape, cursor)
        return batch, self.weigh(targets_of(batch))

    # --- Model ------------------------------------------------------------------------------------------------------

    def loss(self, parameters, batch, carry, weights, noise, terms):
        key = noise.key if self.draws else None
        state, memory = encode(self.model, parameters, batch.source.tokens, batch.source.lengths, noise)
        arguments = (state, memory, noise, self.forcing, key)
        features = forced_features(self.model, parameters, symbols_before(batch), *arguments)
        arguments = (features, batch.target.tokens, weights, terms.get("label_smoothing"))
        found: Any = self.model.apply({"params": parameters}, *arguments, method="loss")
        objective, nats = found
        return objective, (carry, nats)

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
        starts = split.target.starts
        nats, right = np.zeros(starts[-1], np.float32), np.zeros(starts[-1], bool)
        exact = np.zeros(len(split), bool)
        for cursor, bucket, numbers in each_batch(data.source):
            values = _predict(self.model, plan, plan.lengths[bucket], parameters, data, cursor)
            each_nats, each_right, each_exact = map(np.asarray, values)
            for column, number in enumerate(numbers):
                first, last = starts[number : number + 2]
                nats[first:last] = each_nats[: last - first, column]
                right[first:last] = each_right[: last - first, column]
                exact[number] = each_exact[column]
        return nats, right, exact

    def target_nats(self, parameters, split):
        return self.predict(parameters, split)[0]

    def compile_score(self, parameters, split, protocol, settings):
        plan = self.plan_of(split)
        data = jax.eval_shape(lambda: pairs.on_device(plan, split))
        return _predict.lower(self.model, plan, max(plan.lengths), parameters, data, 0).compile()

    def plan_of(self, split: Pairs) -> Plan:
        """The batches of a split that is scored."""
        return make_plan(self.plan.cut, split.longer(), self.buckets)

    # --- Checks -----------------------------------------------------------------------------------------------------

    def check(self, config, corpus):
        check_settings(config, PROTOCOLS, FIXED | WHOLE)


def targets_of(batch: PairBatch) -> jax.Array:
    """1 for each symbol of a target, END included; 0 at padding and in empty rows, [T, B]."""
    return token_mask(batch.target, batch.target.tokens.shape[0])


def symbols_before(batch: PairBatch) -> jax.Array:
    """The true symbol before each of a target, [T, B]; END before the first."""
    return jnp.roll(batch.target.tokens, 1, axis=0).at[0].set(END)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _predict(model: EncoderDecoder, plan: Plan, length: int, parameters, data: pairs.Data, cursor):
    batch = read_pairs(plan, data, length, cursor)
    state, memory = encode(model, parameters, batch.source.tokens, batch.source.lengths)
    features = forced_features(model, parameters, symbols_before(batch), state, memory)
    logits = logits_of(model, parameters, features)
    targets = batch.target.tokens.astype(jnp.int32)
    nats = -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]
    found = search_from(model, parameters, state, memory, 1, length)
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
    for cursor, bucket, numbers in each_batch(data.source):
        batch = read_pairs(plan, data, plan.lengths[bucket], cursor).source
        arguments = (batch.tokens, batch.lengths, sample.beams, sample.length, sample.length_penalty)
        rows = np.asarray(search(model, parameters, *arguments))
        for row, number in zip(rows, numbers, strict=False):  # rows of no source come last
            if lines[number]:
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
    return Translation(model, config.loss.weighting, plan, config.data.buckets, config.loss.teacher_forcing)
