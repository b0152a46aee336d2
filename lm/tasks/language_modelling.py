"""Language modelling: predict the next token of a text that is read as parallel streams."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lm.data.batches import Streams, advance, make_streams, starts_from_zero, window
from lm.data.corpora import Corpus
from lm.data.text import Vocabulary
from lm.errors import UserError, check_name
from lm.machine.memory import reject_above_free
from lm.model.language_model import LanguageModel, make_model
from lm.model.losses import target_weights
from lm.scoring.protocols import PROTOCOLS, check_evaluation, compile_stream, evaluate, exact_nats, window_shape
from lm.scoring.sampling import check_sample, check_sample_memory, generate
from lm.tasks.separate import UNPAIRED, check_fixed
from lm.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class LanguageModelling(Task):
    """A model and the streams that it reads. The carry is the recurrent state of the streams: per layer, fields [B, H].

    weighting, gradient: keys of config.loss
    """

    model: LanguageModel
    streams: Streams
    weighting: str
    gradient: str

    columns = ("loss", "perplexity", "valid_perplexity", "tokens_per_s")

    # --- Batches ----------------------------------------------------------------------------------------------------

    @property
    def batch_size(self) -> int:
        return self.streams.batch_size

    @property
    def steps_per_epoch(self) -> int:
        return self.streams.windows_per_epoch

    @property
    def tokens_per_step(self) -> int:
        return self.streams.batch_size * self.streams.unroll

    @property
    def largest_batch(self) -> int:
        return self.tokens_per_step

    @property
    def ends_epochs(self) -> bool:
        return self.streams.batching != "heads"

    @property
    def shapes(self):
        return (self.streams.unroll,)

    def on_device(self, split):
        return jnp.asarray(split)

    def start_of(self, cursor, carry):
        fresh, initial = starts_from_zero(self.streams, cursor), self.model.initial_carry(self.streams.batch_size)
        return jax.tree.map(lambda start, carried: jnp.where(fresh, start, carried), initial, carry)

    def batch(self, shape, data, cursor):
        tokens, steps = window(self.streams, data, cursor), self.streams.unroll + 1 - self.model.context
        return tokens, target_weights(self.weighting, steps, self.streams.batch_size)

    def advance(self, cursor):
        return advance(self.streams, cursor)

    # --- Model ------------------------------------------------------------------------------------------------------

    def loss(self, parameters, batch, carry, weights, noise, terms):
        arguments = (batch, carry, weights, noise, terms, self.gradient)
        return self.model.apply({"params": parameters}, *arguments, method="loss")

    def sample(self, parameters, vocabulary, settings, key=None):
        return generate(self.model, parameters, vocabulary, settings, key)

    # --- Scores -----------------------------------------------------------------------------------------------------

    def score(self, parameters, split, protocol, settings):
        return evaluate(protocol, self.model, parameters, split, settings)

    def target_nats(self, parameters, split):
        return exact_nats(self.model, parameters, split)

    def window_tokens(self, split, protocol, settings):
        _, size, batch = window_shape(protocol, self.model, len(split), settings)
        return math.inf if PROTOCOLS[protocol].adapts else size * batch

    def timed_part(self, split, protocol, settings, tokens):
        windows, size, batch = window_shape(protocol, self.model, len(split), settings)
        timed = max(tokens, 4 * size * batch)
        part = split[:timed] if PROTOCOLS[protocol].extent == "text" else split
        return part, windows / window_shape(protocol, self.model, len(part), settings)[0]

    def compile_score(self, parameters, split, protocol, settings):
        return compile_stream(protocol, self.model, parameters, split, settings)

    # --- Checks -----------------------------------------------------------------------------------------------------

    def check(self, config, corpus):
        context, unroll = self.model.context, self.streams.unroll
        check_sample(config.sample, corpus.vocabulary, context)
        for protocol in (config.evaluation.during, *config.evaluation.protocols):
            check_name(protocol, PROTOCOLS, "config.evaluation: protocol")
        check_evaluation(config.evaluation, self.model, corpus.splits)
        check_fixed(config, UNPAIRED)
        if config.penalty.l2:
            raise UserError("config.penalty.l2 is only for config.task=windows; a text uses config.optim.weight_decay")
        if config.evaluation.best_by != "loss":
            raise UserError(f"config.evaluation.best_by must be loss for a text, not {config.evaluation.best_by}")
        if config.penalty.temporal_activation and unroll <= context:
            raise UserError(
                "config.penalty.temporal_activation needs two time steps per window: config.data.unroll "
                f"must be at least {context + 1}, not {unroll}"
            )

    def check_memory(self, config):
        evaluation = config.evaluation
        check_sample_memory(config.sample, self.model.vocabulary_size)
        if any(PROTOCOLS[name].extent == "predictions" for name in (evaluation.during, *evaluation.protocols)):
            # 24 bytes per token read: its position in the text, its id on the host and on the device, and nats.
            needed = 24 * evaluation.predictions * (self.model.context + 1)
            reject_above_free(needed, "at least", "a notebook protocol", "config.evaluation.predictions")


def make_language_model(config: ConfigDict, vocabulary: Vocabulary) -> LanguageModel:
    """Makes the model of a config. Raises UserError for values that do not fit each other or the vocabulary."""
    return make_model(config, vocabulary.size, vocabulary.reset_id(config.data.reset))


def make_language_modelling(config: ConfigDict, corpus: Corpus) -> LanguageModelling:
    """Makes the task of a config and a corpus. Raises UserError if the text is too short for the batch."""
    text = corpus.splits["train"]
    if not isinstance(text, np.ndarray):
        raise UserError(f"config.task=language_modelling needs a text, which config.data.corpus={corpus.name} is not")
    model, data = make_language_model(config, corpus.vocabulary), config.data
    streams = make_streams(data.batching, len(text), data.batch_size, data.unroll, model.context)
    return LanguageModelling(model, streams, config.loss.weighting, config.loss.gradient)
