"""Looks inside a model as it reads a text: probabilities, ranks, states and gates at every token.

Every function reads the text as one stream from the model's initial state, without noise, as the protocol `exact` does.
Texts are padded at the end, mostly to a power of two, so that texts of similar length share a compiled program.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from lm.errors import UserError
from lm.model.language_model import LanguageModel, read_tokens
from lm.scoring.protocols import EXACT_UNROLL

Tokens = Integer[np.ndarray, " N"]
Row = Integer[np.ndarray, "..."]  # one of several texts, of any length
SHORTEST = 16  # tokens or targets of the shortest padded text
TEXTS_PER_BATCH = 16


class TokenScores(NamedTuple):
    """For each target: nats, rank of its probability (1: the most likely), and entropy of the prediction in nats."""

    nats: Any  # float32 [targets]
    rank: Any  # int32 [targets]
    entropy: Any  # float32 [targets]


@functools.partial(jax.jit, static_argnums=0)
def _score_windows(model: LanguageModel, parameters: dict, windows: Integer[Array, "K W B"]) -> TokenScores:
    def step(carry, window):
        carry, logits = read_tokens(model, parameters, window[:-1], carry)
        log_p = jax.nn.log_softmax(logits)
        of_target = jnp.take_along_axis(log_p, window[model.context :, :, None].astype(jnp.int32), axis=-1)
        rank = 1 + jnp.sum(log_p > of_target, axis=-1)
        return carry, TokenScores(-of_target[..., 0], rank, -jnp.sum(jnp.exp(log_p) * log_p, axis=-1))

    return jax.lax.scan(step, model.initial_carry(windows.shape[2]), windows)[1]


def score_tokens(model: LanguageModel, parameters: dict, tokens: Tokens) -> TokenScores:
    """Scores every target of a text. The first `model.context` tokens are not targets."""
    targets = len(tokens) - model.context
    if targets < 1:
        raise UserError(f"a text of {len(tokens)} tokens is too short to score: {model.context + 1} are needed")
    hop = min(EXACT_UNROLL, _padded(targets))
    starts = hop * np.arange(-(-targets // hop))
    windows = tokens.take(starts[:, None] + np.arange(hop + model.context), mode="clip")[..., None]
    scores = _score_windows(model, parameters, jnp.asarray(windows))
    return TokenScores(*(np.asarray(x).reshape(-1)[:targets] for x in scores))


def score_texts(model: LanguageModel, parameters: dict, texts: list[Row]) -> list[Float[np.ndarray, "..."]]:
    """Nats of the targets of many texts, each read from the initial state. Empty for a text without targets."""
    nats = [np.zeros(0, np.float32)] * len(texts)
    order = sorted((i for i, tokens in enumerate(texts) if len(tokens) > model.context), key=lambda i: len(texts[i]))
    for start in range(0, len(order), TEXTS_PER_BATCH):
        rows = order[start : start + TEXTS_PER_BATCH]
        size = _padded(len(texts[rows[-1]]) - model.context) + model.context
        window = np.zeros((size, TEXTS_PER_BATCH), np.int32)
        for column, i in enumerate(rows):
            window[: len(texts[i]), column] = texts[i]
        found = np.asarray(_score_windows(model, parameters, jnp.asarray(window[None])).nats[0])
        for column, i in enumerate(rows):
            nats[i] = found[: len(texts[i]) - model.context, column]
    return nats


class Trace(NamedTuple):
    """State and gates of each layer, and log-probabilities, after each of S = N - context + 1 steps."""

    states: Any
    gates: Any
    log_probs: Any  # float32 [S, V]


@functools.partial(jax.jit, static_argnums=0)
def _trace(model: LanguageModel, parameters: dict, tokens: Integer[Array, " N"]) -> Trace:
    def step(carry, start):
        window = jax.lax.dynamic_slice(tokens, (start,), (model.context,))[:, None]
        gates = model.apply({"params": parameters}, window, carry, method="gates")
        carry, logits = read_tokens(model, parameters, window, carry)
        return carry, Trace(carry, gates, jax.nn.log_softmax(logits[0]))

    steps = jnp.arange(len(tokens) - model.context + 1)
    return jax.tree.map(lambda x: x[:, 0], jax.lax.scan(step, model.initial_carry(1), steps)[1])


def trace(model: LanguageModel, parameters: dict, tokens: Tokens) -> Trace:
    """Records states, gates and log-probabilities at every step, as NumPy arrays with S first."""
    steps = len(tokens) - model.context + 1
    padded = np.pad(tokens.astype(np.int32), (0, _padded(len(tokens)) - len(tokens)))
    return jax.tree.map(lambda x: np.asarray(x[:steps]), _trace(model, parameters, jnp.asarray(padded)))


def _padded(length: int) -> int:
    """Rounds length up to a power of two, at least SHORTEST."""
    return max(SHORTEST, 1 << (length - 1).bit_length())
