"""Runs decoders: teacher forcing, greedy search and beam search.

END is the last symbol of every target. A decoder also reads it to predict the first symbol.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Integer

from lm.data.pairs import END
from lm.model.dropout import Noise
from lm.model.encoder_decoder import ATTENTION, DecoderState, EncoderDecoder, Memory


def encode(model: EncoderDecoder, parameters: dict, tokens, lengths, noise: Noise | None = None) -> Any:
    return model.apply({"params": parameters}, tokens, lengths, noise, method="encode")


def decode_step(model: EncoderDecoder, parameters: dict, tokens, state, memory, noise: Noise | None = None) -> Any:
    return model.apply({"params": parameters}, tokens, state, memory, noise, method="decode")


def logits_of(model: EncoderDecoder, parameters: dict, features) -> Any:
    return model.apply({"params": parameters}, features, method="logits")


def forced_features(
    model: EncoderDecoder,
    parameters: dict,
    tokens: Integer[Array, "T B"],
    state: DecoderState,
    memory: Memory,
    noise: Noise | None = None,
    true: Bool[Array, " T"] | None = None,
) -> Float[Array, "T B F"]:
    """Features for the softmax at each step. tokens: the symbol before each target.

    true: True at steps that read the true previous symbols; the others read the model's own predictions. The first step
        always reads the true symbols. None: all steps do
    """
    if not model.stepwise and true is None:
        return decode_step(model, parameters, tokens, state, memory, noise)[1]

    def step(before, inputs):
        state, guess = before
        number, token, is_true = inputs
        read = token if is_true is None else jnp.where(is_true, token, guess)
        step_noise = noise and dataclasses.replace(noise, key=jax.random.fold_in(noise.key, number))
        state, features = decode_step(model, parameters, read[None], state, memory, step_noise)
        if is_true is not None:
            guess = jnp.argmax(logits_of(model, parameters, features)[0], axis=-1).astype(tokens.dtype)
        return (state, guess), features[0]

    inputs = (jnp.arange(len(tokens)), tokens, None if true is None else true.at[0].set(True))
    return jax.lax.scan(step, (state, tokens[0]), inputs)[1]


# --- Search ---------------------------------------------------------------------------------------------------------


class Beams(NamedTuple):
    """K partial targets for each of B sources. The state has B K rows. length: symbols, including END"""

    state: DecoderState
    tokens: Int[Array, "B K T"]
    score: Float[Array, "B K"]  # ln p of the symbols
    length: Int[Array, "B K"]
    ended: Bool[Array, "B K"]


@functools.partial(jax.jit, static_argnames=("model", "beams", "steps"))
def search(
    model: EncoderDecoder,
    parameters: dict,
    tokens: Integer[Array, "S B"],
    lengths: Int[Array, " B"],
    beams: int,
    steps: int,
    penalty: Float[Array, ""] | float = 1.0,
) -> Int[Array, "B T"]:
    """Searches for the most probable target of each source, of at most `steps` symbols, padded with END.

    Beam search: keeps the `beams` most probable prefixes at every step; one beam is greedy search. Finally chooses the
    target with the largest ln p / length ** penalty, where length includes END, even if that target is unfinished.
    """
    state, memory = encode(model, parameters, tokens, lengths)
    rows = memory.summary.shape[0]
    state = jax.tree.map(lambda x: jnp.repeat(x, beams, axis=0), state)
    memory = Memory(
        *(jnp.repeat(x, beams, axis=1) for x in (memory.outputs, memory.inside)),
        jnp.repeat(memory.summary, beams, axis=0),
    )
    start = Beams(
        state,
        jnp.zeros((rows, beams, steps), jnp.int32),
        jnp.full((rows, beams), -jnp.inf).at[:, 0].set(0.0),  # all beams are equal at first: extend only one
        jnp.zeros((rows, beams), jnp.int32),
        jnp.zeros((rows, beams), bool),
    )

    def extend(number, before: Beams) -> Beams:
        last = jnp.where(number > 0, before.tokens[:, :, number - 1], END)
        state, features = decode_step(model, parameters, last.reshape(1, -1), before.state, memory)
        log_probs = jax.nn.log_softmax(logits_of(model, parameters, features)[0]).reshape(rows, beams, -1)
        symbols = log_probs.shape[-1]
        only_end = jnp.where(jnp.arange(symbols) == END, 0.0, -jnp.inf)
        log_probs = jnp.where(before.ended[..., None], only_end[None, None], log_probs)
        total = (before.score[..., None] + log_probs).reshape(rows, -1)
        score, chosen = jax.lax.top_k(total, beams)
        parent, symbol = chosen // symbols, (chosen % symbols).astype(jnp.int32)

        def follow(x):  # rows [B, K, ...] of the chosen parents
            return jnp.take_along_axis(x, parent.reshape(*parent.shape, *[1] * (x.ndim - 2)), axis=1)

        ended = follow(before.ended)
        places = (jnp.arange(rows)[:, None] * beams + parent).reshape(-1)
        return Beams(
            jax.tree.map(lambda x: x[places], state),
            follow(before.tokens).at[:, :, number].set(symbol),
            score,
            follow(before.length) + ~ended,
            ended | (symbol == END),
        )

    def unfinished(at):
        number, found = at
        return (number < steps) & ~jnp.all(found.ended)

    _, found = jax.lax.while_loop(unfinished, lambda at: (at[0] + 1, extend(*at)), (0, start))
    best = jnp.argmax(found.score / jnp.maximum(found.length, 1) ** penalty, axis=1)
    return jnp.take_along_axis(found.tokens, best[:, None, None], axis=1)[:, 0]


@functools.partial(jax.jit, static_argnames="model")
def attention_of(
    model: EncoderDecoder,
    parameters: dict,
    tokens: Integer[Array, "S B"],
    lengths: Int[Array, " B"],
    before: Integer[Array, "T B"],
) -> Float[Array, "T S B"]:
    """Attention weight of each source token at each step of a decoder that reads the symbols `before`."""
    state, memory = encode(model, parameters, tokens, lengths)

    def step(state, token):
        arguments = ({"params": parameters}, token[None], state, memory)
        (state, _), sown = model.apply(*arguments, method="decode", mutable="intermediates")
        return state, sown["intermediates"][ATTENTION][0][0]

    return jax.lax.scan(step, state, before)[1]
