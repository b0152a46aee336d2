"""Sequence to sequence: a model reads a source and predicts each target symbol from the true symbols before it."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lm.data import pairs
from lm.data.corpora import Corpus
from lm.data.examples import Plan, cut_of, each_batch, make_plan, token_mask
from lm.data.pair_corpora import Pair, encode_pairs, source_tokens
from lm.data.pairs import END, PairBatch, Pairs, read_pairs
from lm.data.text import Vocabulary
from lm.errors import UserError
from lm.model.encoder_decoder import ATTENDS, EncoderDecoder, make_encoder_decoder
from lm.scoring.bleu import bleu
from lm.scoring.decoding import attention_of, encode, forced_features, logits_of, search
from lm.scoring.score import Score
from lm.tasks.forcing import ALWAYS, Forcing, make_forcing
from lm.tasks.separate import FIXED, Bucketed, check_settings, in_split_order


class Protocol(NamedTuple):
    """purpose: for --help; reads: keys of config.evaluation that affect the score"""

    purpose: str
    reads: tuple[str, ...] = ()


PROTOCOLS = {
    "exact": Protocol("nats of each target symbol given the true symbols before it; texts by greedy search"),
    "beam": Protocol(
        "pairs: nats as in exact; texts by beam search of width config.evaluation.beams", ("beams", "length_penalty")
    ),
    "free_running": Protocol("pairs: nats given the model's own greedy output, not a likelihood; texts as in exact"),
}
FOUR = 4  # BLEU needs a target of four words. Lengths include END, so they must be greater
EXAMPLES = 10  # number of pairs of a split that a summary shows
# Keys beyond FIXED, with the only value that pairs allow: sequences are not truncated, and are padded at the end.
WHOLE = {
    "penalty.l2": 0.0,
    "data.digits": "kept",
    "data.words": "train",
    "data.max_tokens": 0,
    "data.padding": "end",
    "data.window": 1,
}


@dataclasses.dataclass(frozen=True)
class Translation(Bucketed):
    """A model and the batches that it reads."""

    model: EncoderDecoder
    vocabulary: Vocabulary
    forcing: Forcing

    @property
    def is_of_words(self) -> bool:
        return self.vocabulary.level == "word"

    @property
    def columns(self):
        measure = "valid_bleu" if self.is_of_words else "valid_sequence_accuracy"
        return ("loss", "valid_loss", measure, "tokens_per_s")

    @property
    def draws(self) -> bool:
        return not self.forcing.always

    # --- Batches ----------------------------------------------------------------------------------------------------

    @property
    def activations(self) -> int:
        return 2 * super().activations

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

    def terms(self, step):
        return {"forcing": self.forcing.probability(step)} if self.draws else {}

    def loss(self, parameters, batch, carry, weights, noise, terms):
        before, true = symbols_before(batch), None
        if self.draws:
            true = jax.random.bernoulli(noise.key, terms["forcing"], before.shape[:1])
        state, memory = encode(self.model, parameters, batch.source.tokens, batch.source.lengths, noise)
        features = forced_features(self.model, parameters, before, state, memory, noise, true)
        arguments = (features, batch.target.tokens, weights, terms.get("label_smoothing"))
        found: Any = self.model.apply({"params": parameters}, *arguments, method="loss")
        objective, nats = found
        return objective, (carry, nats)

    # --- Scores -----------------------------------------------------------------------------------------------------

    def score(self, parameters, split, protocol, settings):
        nats, right = self.predict(parameters, split, forced=protocol != "free_running")
        beams = settings.beams if protocol == "beam" else 1
        written = self.write(parameters, split, beams, settings)
        targets = np.split(split.target.tokens, split.target.starts[1:-1])
        exact = [np.array_equal(row[: len(target)], target) for row, target in zip(written, targets, strict=True)]
        measures = {"sequence_accuracy": float(np.mean(exact)), "token_accuracy": float(np.mean(right))}
        if self.is_of_words and split.target.lengths.max() > FOUR:
            measures = {"bleu": bleu([self.text(row) for row in written], split.texts), **measures}
        return Score(float(nats.sum(dtype=np.float64)), len(nats), measures)

    def predict(self, parameters, split: Pairs, forced: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Returns (nats, whether the most probable symbol is right) of every target token, in split order."""
        plan = self.plan_of(split)
        data = pairs.on_device(plan, split)

        def program(length, cursor):
            return _predict(self.model, plan, length, forced, parameters, data, cursor)

        nats, right = in_split_order(plan, data.source, split.target.starts, program, (np.float32, bool))
        return nats, right

    def write(self, parameters, split: Pairs, beams: int, settings) -> list[np.ndarray]:
        """Decodes each source by beam search: at most settings.target_length symbols, padded with END."""
        plan, written = self.plan_of(split), [np.zeros(0, np.int32)] * len(split)
        data = pairs.on_device(plan, split)
        for cursor, bucket, numbers in each_batch(data.source):
            batch = read_pairs(plan, data, plan.lengths[bucket], cursor).source
            arguments = (batch.tokens, batch.lengths, beams, settings.target_length, settings.length_penalty)
            rows = np.asarray(search(self.model, parameters, *arguments))
            for row, number in zip(rows, numbers, strict=False):  # empty rows come last
                written[number] = row
        return written

    def text(self, row: np.ndarray) -> str:
        """Joins the symbols before the first END."""
        between = "" if self.vocabulary.level == "char" else " "
        return between.join(self.vocabulary.targets[i] for i in row[: first_end(row)])

    def examples(self, parameters, split, settings):
        some = split.first(EXAMPLES)
        written = self.write(parameters, some, 1, settings)
        sources = np.split(some.source.tokens, some.source.starts[1:-1])
        rows = []
        for source, row, target in zip(sources, written, some.texts, strict=True):
            symbols = [self.vocabulary.targets[i] for i in row[: first_end(row) + 1]]
            shown = {"source": [self.vocabulary.symbols[i] for i in source], "written": symbols, "target": target}
            if self.model.config.context in ATTENDS:
                shown["attention"] = self.attention(parameters, source, row[: len(symbols)]).round(3).tolist()
            rows.append(shown)
        return rows

    def attention(self, parameters, source: np.ndarray, written: np.ndarray) -> np.ndarray:
        """Attention weights [T, S] of each written symbol over the source tokens."""
        before = jnp.asarray([END, *written[:-1]], jnp.int32)[:, None]
        arguments = (jnp.asarray(source, jnp.int32)[:, None], jnp.array([len(source)]), before)
        return np.asarray(attention_of(self.model, parameters, *arguments))[..., 0]

    def compile_score(self, parameters, split, protocol, settings):
        plan = self.plan_of(split)
        data = jax.eval_shape(lambda: pairs.on_device(plan, split))
        return _predict.lower(self.model, plan, max(plan.lengths), True, parameters, data, 0).compile()

    def plan_of(self, split: Pairs) -> Plan:
        return super().plan_of(split.longer())

    # --- Checks -----------------------------------------------------------------------------------------------------

    def check(self, config, corpus):
        measures = ("sequence_accuracy", "bleu") if self.is_of_words else ("sequence_accuracy",)
        valid = corpus.splits.get("valid")
        if config.evaluation.best_by == "bleu" and valid is not None and valid.target.lengths.max() <= FOUR:
            raise UserError("config.evaluation.best_by=bleu needs a validation target of at least four words")
        check_settings(config, tuple(PROTOCOLS), FIXED | WHOLE, measures)


def targets_of(batch: PairBatch) -> jax.Array:
    """Target mask [T, B]: 1 for each symbol, END included; 0 at padding and in empty rows."""
    return token_mask(batch.target, batch.target.tokens.shape[0])


def symbols_before(batch: PairBatch) -> jax.Array:
    """The true symbol before each target symbol, [T, B]; END before the first."""
    return jnp.roll(batch.target.tokens, 1, axis=0).at[0].set(END)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _predict(model: EncoderDecoder, plan: Plan, length: int, forced: bool, parameters, data: pairs.Data, cursor):
    batch = read_pairs(plan, data, length, cursor)
    state, memory = encode(model, parameters, batch.source.tokens, batch.source.lengths)
    before = symbols_before(batch)
    true = None if forced else jnp.zeros(len(before), bool)
    features = forced_features(model, parameters, before, state, memory, true=true)
    logits = logits_of(model, parameters, features)
    targets = batch.target.tokens.astype(jnp.int32)
    nats = -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]
    return nats, jnp.argmax(logits, axis=-1) == targets


def translate_lines(
    config, sample, vocabulary: Vocabulary, model: EncoderDecoder, parameters, lines: list[str]
) -> list[str]:
    """Translates each line by beam search of width sample.beams; "" for an empty line."""
    read = [Pair(source_tokens(config.data, line), (), "") for line in lines]
    for number, pair in enumerate(read, 1):
        missing = sorted(set(pair.source) - set(vocabulary.symbols))
        if missing and vocabulary.unknown is None:
            raise UserError(f"line {number}: the vocabulary lacks {', '.join(map(repr, missing[:5]))}")
    if not any(pair.source for pair in read):
        return [""] * len(lines)
    split = encode_pairs(read, vocabulary)
    plan = make_plan(cut_of(config.data), split.longer(), config.data.buckets)
    task = Translation(model, config.loss.weighting, plan, config.data.buckets, vocabulary, ALWAYS)
    settings = ConfigDict({"target_length": sample.length, "length_penalty": sample.length_penalty})
    written = task.write(parameters, split, sample.beams, settings)
    return [task.text(row) if pair.source else "" for pair, row in zip(read, written, strict=True)]


def first_end(row: np.ndarray) -> int:
    """Number of symbols before the first END."""
    found = np.flatnonzero(row == END)
    return int(found[0]) if len(found) else len(row)


def make_translation_model(config: ConfigDict, vocabulary: Vocabulary) -> EncoderDecoder:
    """Makes the model of a config. Raises UserError for values that do not fit each other or the vocabulary."""
    return make_encoder_decoder(config, vocabulary.size, len(vocabulary.targets))


def make_translation(config: ConfigDict, corpus: Corpus) -> Translation:
    """Makes the task of a config and a corpus. Raises UserError if the corpus lacks pairs."""
    train = corpus.splits["train"]
    if not isinstance(train, Pairs):
        raise UserError(f"config.task=translation needs pairs, which config.data.corpus={corpus.name} lacks")
    model = make_translation_model(config, corpus.vocabulary)
    plan = make_plan(cut_of(config.data), train.longer(), config.data.buckets)
    forcing = make_forcing(config.loss)
    return Translation(model, config.loss.weighting, plan, config.data.buckets, corpus.vocabulary, forcing)
