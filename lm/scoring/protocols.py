"""Scoring protocols: each a named function that says how many targets it scored.

A protocol takes (model, parameters, tokens [N], settings) and returns Score(nats summed over targets, targets). A
reported perplexity is only comparable under its own source's protocol, and the sources' protocols leave targets out
or reset state; `exact` scores every target once with carried state. Divide once, at the end.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from lm.data.batches import Streams, make_streams, on_device, window
from lm.data.text import SPLITS
from lm.errors import UserError, check_name
from lm.model.language_model import LanguageModel

Array = jax.Array


def perplexity(mean_nats: float) -> float:
    """e^nats, infinity where a float cannot hold it."""
    return math.exp(mean_nats) if mean_nats < 700 else math.inf


class Score(NamedTuple):
    """Sum of -ln p over `targets` predictions, in nats."""

    nats: float
    targets: int

    @property
    def perplexity(self) -> float:
        return perplexity(self.nats / self.targets)

    @property
    def bits_per_symbol(self) -> float:
        return self.nats / self.targets / math.log(2)


@functools.partial(jax.jit, static_argnums=0)
def _stream_nats(model: LanguageModel, parameters: dict, windows: Array) -> Array:
    """Nats [W, T + 1 - context, B] of consecutive windows [W, T + 1, B], from the initial state, state carried."""

    def step(carry, tokens):
        return model.apply({"params": parameters}, tokens, carry, method="nats")

    return jax.lax.scan(step, model.initial_carry(windows.shape[2]), windows)[1]


def _total(nats: Array) -> float:
    """Sum in float64, so that the order of addition does not show in the result."""
    return float(np.asarray(nats, np.float64).sum())


def notebook(model, parameters, tokens, settings, stride: int = 1) -> Score:
    """Assignment 6: batch 1, one prediction at a time from zero state, `settings.predictions` of them.

    Prediction k reads the `context` characters that begin at k * stride and predicts the next one, all positions
    modulo N, so that the text wraps; p is floored at 1e-10. The bigram notebook's stride of 2 skips every other
    bigram and passes over the text twice.
    """
    start = stride * np.arange(settings.predictions)[:, None]
    positions = (start + np.arange(model.context + 1)) % len(tokens)  # [predictions, context + 1]
    nats = _stream_nats(model, parameters, on_device(tokens[positions])[:, :, None])
    return Score(_total(np.minimum(nats, -math.log(1e-10))), settings.predictions)


def batched(model, parameters, tokens, settings) -> Score:
    """The training layout: B contiguous rows, trimmed to whole windows, each row from the initial state.

    Used by ptb_word_lm, CS224d and the S2 notebook; up to B * unroll + B tokens go unscored, and there are B cold
    starts. `settings.batch_size` and `settings.unroll` give B and T.
    """
    streams = _rows(model, len(tokens), settings)
    nats = _stream_nats(model, parameters, _windows(streams, tokens))
    return Score(_total(nats), nats.size)


def _rows(model: LanguageModel, tokens: int, settings: ml_collections.ConfigDict) -> Streams:
    """The rows of `batched`. Raises UserError for too few tokens."""
    size, unroll = settings.batch_size, settings.unroll
    if unroll < model.context or tokens // size < unroll + 1:
        raise UserError(f"a text of {tokens} tokens is too short for protocol batched, which needs config.evaluation."
                        f"batch_size={size} rows of config.evaluation.unroll={unroll} + 1 tokens")  # fmt: skip
    return make_streams("rows", tokens, size, unroll, model.context)


def _windows(streams: Streams, tokens: np.ndarray) -> Array:
    """All windows of an epoch: [W, T + 1, B]."""
    cursors = jnp.arange(streams.windows_per_epoch) * streams.unroll
    return jax.vmap(lambda cursor: window(streams, on_device(tokens), cursor))(cursors)


# Tokens per window of the exact stream: long enough to make the products outside the loop large.
EXACT_UNROLL = 512


def exact(model, parameters, tokens, settings) -> Score:
    """Every target once, as one stream of batch 1 with carried state, from the initial state.

    The first `context` tokens have no full context and are not targets: N - context targets.
    """
    return Score(_total(exact_nats(model, parameters, tokens)), len(tokens) - model.context)


def exact_nats(model: LanguageModel, parameters: dict, tokens: np.ndarray) -> np.ndarray:
    """Per-target nats [N - context] of the exact stream. Raises UserError for a text without a target."""
    count, size, _ = _exact_shape(model, len(tokens))
    length = size - model.context  # targets a window
    # Pad with token 0 at the end: what follows the last target cannot change the nats before it.
    padded = np.pad(tokens, (0, count * length + model.context - len(tokens)))
    positions = np.arange(count)[:, None] * length + np.arange(size)
    nats = _stream_nats(model, parameters, on_device(padded[positions])[:, :, None])
    return np.asarray(nats).reshape(-1)[: len(tokens) - model.context]


def _exact_shape(model: LanguageModel, tokens: int, settings=None) -> tuple[int, int, int]:
    """[W, T + context, 1] of the windows of the exact stream over so many tokens. Raises UserError for too few."""
    del settings
    if tokens <= model.context:
        raise UserError(f"a text of {tokens} tokens is too short to score: {model.context + 1} are needed")
    targets = tokens - model.context
    length = min(EXACT_UNROLL, targets)
    return -(-targets // length), length + model.context, 1


def compile_stream(
    protocol: str, model: LanguageModel, parameters: dict, tokens: np.ndarray, settings: ml_collections.ConfigDict
):
    """The compiled program that scores tokens [N] under a protocol; parameters may be ShapeDtypeStructs."""
    windows = jax.ShapeDtypeStruct(window_shape(protocol, model, len(tokens), settings), tokens.dtype)
    return _stream_nats.lower(model, parameters, windows).compile()


def window_shape(
    protocol: str, model: LanguageModel, tokens: int, settings: ml_collections.ConfigDict
) -> tuple[int, int, int]:
    """[windows, tokens in each, B] that a protocol cuts from a text of so many tokens. Raises UserError for too few."""
    return PROTOCOLS[protocol].window_shape(model, tokens, settings)


def _batched_shape(model: LanguageModel, tokens: int, settings: ml_collections.ConfigDict) -> tuple[int, int, int]:
    streams = _rows(model, tokens, settings)
    return streams.windows_per_epoch, streams.unroll + 1, streams.batch_size


def _notebook_shape(model: LanguageModel, tokens: int, settings: ml_collections.ConfigDict) -> tuple[int, int, int]:
    del tokens  # it wraps
    return settings.predictions, model.context + 1, 1


class Protocol(NamedTuple):
    """A way to score a text.

    score: (model, parameters, tokens [N], settings) -> Score
    window_shape: (model, N, settings) -> (windows, tokens in each, B); raises UserError for too few tokens
    extent: what decides how many windows there are: "text", its length, or "predictions", settings.predictions
    """

    score: Callable
    window_shape: Callable
    extent: str


PROTOCOLS = {
    "notebook": Protocol(notebook, _notebook_shape, "predictions"),
    "notebook_stride2": Protocol(functools.partial(notebook, stride=2), _notebook_shape, "predictions"),
    "batched": Protocol(batched, _batched_shape, "text"),
    "exact": Protocol(exact, _exact_shape, "text"),
}


def check_evaluation(settings: ml_collections.ConfigDict, model: LanguageModel, texts: dict[str, np.ndarray]):
    """Checks `config.evaluation` before anything is trained, with those of the texts to score that are here already.

    Raises UserError naming the key at fault.
    """
    check_name(settings.during, PROTOCOLS, "config.evaluation.during")
    for protocol in settings.protocols:
        check_name(protocol, PROTOCOLS, "config.evaluation.protocols")
    for split in settings.splits:
        check_name(split, SPLITS, "config.evaluation.splits")
    for key in ("predictions", "batch_size", "unroll"):
        if settings[key] < 1:
            raise UserError(f"config.evaluation.{key} must be at least 1, not {settings[key]}")
    scored = {(split, protocol) for split in settings.splits for protocol in settings.protocols}
    for split, protocol in sorted(scored | {("valid", settings.during)}):
        if split in texts:
            try:
                window_shape(protocol, model, len(texts[split]), settings)
            except UserError as error:
                raise UserError(f"{split} cannot be scored: {error}") from error


def evaluate(
    protocol: str, model: LanguageModel, parameters: dict, tokens: np.ndarray, settings: ml_collections.ConfigDict
) -> Score:
    """Scores `tokens` under a protocol of PROTOCOLS; settings is `config.evaluation`."""
    return PROTOCOLS[protocol].score(model, parameters, tokens, settings)
