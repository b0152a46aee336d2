"""Encoder and decoder: padding, one step at a time, attention by hand, and beam search against enumeration."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.base import base
from lm.cells.table import CELLS
from lm.errors import UserError
from lm.model.encoder_decoder import ATTENDS, CONTEXTS, make_encoder_decoder
from lm.scoring.decoding import attention_of, decode_step, encode, forced_features, logits_of, search
from tests.helpers.few import few

SOURCE = np.array([1, 3, 2, 0])
SYMBOLS, STEPS = 4, 3


def model_of(**changes):
    config = base()
    config.model.hidden = (4,)
    for key, value in changes.items():
        config.model[key] = value
    model = make_encoder_decoder(config, 5, SYMBOLS)
    parameters = model.draw(jax.random.key(0))
    return model, jax.tree.map(lambda x: x + 0.5 * jax.random.normal(jax.random.key(x.size), x.shape), parameters)


def column(tokens, times=1):
    return jnp.tile(jnp.asarray(tokens, jnp.int32)[:, None], (1, times))


@pytest.mark.parametrize("direction", few(["forward", "both"], "both"))
@pytest.mark.parametrize("context", few(CONTEXTS, "fed"))
def test_padding_changes_nothing_and_steps_are_those_of_the_whole(context, direction):
    model, parameters = model_of(context=context, direction=direction, input="embedding", embedding_size=3)
    tokens = column([0, 2, 3, 1])

    @jax.jit
    def features(sources, lengths, tokens):
        state, memory = encode(model, parameters, sources, lengths)
        return forced_features(model, parameters, tokens, state, memory)

    alone = features(column(SOURCE), jnp.array([4]), tokens)
    sources = jnp.array([[1, 3, 2, 0, 4, 4], [2, 1, 1, 1, 1, 0]]).T
    together = features(sources, jnp.array([4, 6]), jnp.concatenate([tokens, tokens[::-1]], axis=1))
    np.testing.assert_allclose(together[:, :1], alone, atol=1e-6)
    state, memory = encode(model, parameters, column(SOURCE), jnp.array([4]))
    step = jax.jit(lambda token, state: decode_step(model, parameters, token, state, memory))
    for token, expected in zip(tokens, alone, strict=True):
        state, found = step(token[None], state)
        np.testing.assert_allclose(found[0], expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_reads_and_writes(cell):
    """A source is read as it is alone, and a decoder that runs step by step gives what it gives for whole targets."""
    model, parameters = model_of(cell=cell, projection=3 if "projection" in cell else 0, context="multiplicative")

    @jax.jit
    def features(sources, lengths, tokens):
        state, memory = encode(model, parameters, sources, lengths)
        return forced_features(model, parameters, tokens, state, memory)

    alone = features(column(SOURCE), jnp.array([4]), column([0, 2, 3]))
    together = features(jnp.array([[1, 3, 2, 0, 4], [2, 1, 1, 1, 0]]).T, jnp.array([4, 5]), column([0, 2, 3], 2))
    np.testing.assert_allclose(together[:, :1], alone, atol=1e-5)
    state, memory = encode(model, parameters, column(SOURCE), jnp.array([4]))
    step = jax.jit(lambda token, state: decode_step(model, parameters, token, state, memory))
    for token, expected in zip(column([0, 2, 3]), alone, strict=True):
        state, found = step(token[None], state)
        np.testing.assert_allclose(found[0], expected, atol=1e-5)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("context", ["start", "fed"])
def test_beam_search_finds_what_enumeration_finds(context, penalty):
    model, parameters = model_of(context=context)
    everything = [
        (*written, *[0] * (STEPS - len(written)))
        for count in range(1, STEPS + 1)
        for written in itertools.product(range(SYMBOLS), repeat=count)
        if 0 not in written[:-1] and (written[-1] == 0 or count == STEPS)
    ]
    lengths = np.array([each.index(0) + 1 if 0 in each else STEPS for each in everything])
    targets = jnp.array(everything).T

    @jax.jit
    def log_probs():
        state, memory = encode(model, parameters, column(SOURCE, len(everything)), jnp.full(len(everything), 4))
        before = jnp.roll(targets, 1, axis=0).at[0].set(0)
        logits = logits_of(model, parameters, forced_features(model, parameters, before, state, memory))
        return jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]

    inside = np.arange(STEPS)[:, None] < lengths[None]
    totals = np.where(inside, np.asarray(log_probs()), 0).sum(axis=0)
    assert np.exp(totals).sum() == pytest.approx(1.0, abs=1e-5), "they are all there is"
    best = int(np.argmax(totals / lengths**penalty))
    found = search(model, parameters, column(SOURCE, 2), jnp.array([4, 4]), SYMBOLS**STEPS, STEPS, penalty)
    assert np.asarray(found).tolist() == 2 * [list(everything[best])]


def test_one_beam_is_greedy_search():
    model, parameters = model_of(context="multiplicative")
    state, memory = encode(model, parameters, column(SOURCE), jnp.array([4]))
    token, written = column([0]), []
    for _ in range(6):
        state, features = decode_step(model, parameters, token, state, memory)
        token = jnp.argmax(logits_of(model, parameters, features), axis=-1)
        written.append(int(token[0, 0]))
        if written[-1] == 0:
            break
    found = search(model, parameters, column(SOURCE), jnp.array([4]), 1, 6)
    assert found[0].tolist() == written + [0] * (6 - len(written))


def test_attention_by_hand():
    """Additive: weights softmax(v . tanh([s; h] W + b)) over the tokens of the source, in float64."""
    model, parameters = model_of(context="additive")
    state, memory = encode(model, parameters, column([1, 3, 2, 4]), jnp.array([3]))
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), parameters)
    s, h = np.asarray(state.carry[-1].h, np.float64)[0], np.asarray(memory.outputs, np.float64)[:3, 0]
    scores = np.tanh(np.concatenate([np.tile(s, (3, 1)), h], axis=1) @ p["attention_kernel"] + p["attention_bias"])
    weights = np.exp(scores @ p["attention_vector"])[:, 0]
    expected = weights / weights.sum() @ h
    _, features = decode_step(model, parameters, column([2]), state, memory)
    np.testing.assert_allclose(features[0, 0, 4:8], expected, atol=1e-5)
    np.testing.assert_allclose(features[0, 0, 8:], np.eye(SYMBOLS)[2], atol=1e-6)


def test_without_teacher_forcing_a_step_reads_what_the_model_wrote():
    model, parameters = model_of()
    state, memory = encode(model, parameters, column(SOURCE), jnp.array([4]))
    arguments = (model, parameters, column([0, 3, 3, 3]), state, memory, None)
    features = forced_features(*arguments, true=jnp.zeros(4, bool))
    written = np.asarray(jnp.argmax(logits_of(model, parameters, features), axis=-1))[:, 0]
    again = forced_features(model, parameters, column([0, *written[:-1]]), state, memory)
    np.testing.assert_allclose(features, again, atol=1e-6)
    mixed = forced_features(*arguments, true=jnp.array([False, False, True, False]))
    again = forced_features(model, parameters, column([0, written[0], 3, written[2]]), state, memory)
    np.testing.assert_allclose(mixed[:3], again[:3], atol=1e-6)
    assert float(jnp.abs(mixed - features).max()) > 1e-4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": "bias_only"}, "config.model.output must be dense or tied with pairs"),
        ({"output": "tied"}, "config.model.output=tied needs config.model.input=embedding"),
        ({"output": "tied", "input": "embedding", "embedding_size": 3}, "needs config.model.embedding_size=4"),
        ({"input": "embedding"}, "config.model.embedding_size must be positive"),
        ({"pooling": "max"}, "config.model.pooling must be last"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        model_of(**changes)


def test_tied_output_reads_the_table_of_the_targets():
    model, parameters = model_of(output="tied", input="embedding", embedding_size=4, context="fed")
    assert "output_kernel" not in parameters
    state, memory = encode(model, parameters, column(SOURCE), jnp.array([4]))
    _, features = decode_step(model, parameters, column([2]), state, memory)
    expected = features[0] @ parameters["target_embedding"].T + parameters["output_bias"][None]
    np.testing.assert_allclose(logits_of(model, parameters, features)[0], expected, atol=1e-6)


@pytest.mark.parametrize("context", ATTENDS)
def test_attention_that_is_shown_is_what_the_decoder_reads(context):
    """Each step's weights sum to 1, are 0 at padding, and their mean of the outputs is the context of that step."""
    model, parameters = model_of(context=context)
    tokens, before = column([1, 3, 2, 4]), column([0, 2, 3])
    weights = np.asarray(attention_of(model, parameters, tokens, jnp.array([3]), before))[..., 0]
    assert weights.shape == (3, 4)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-6)
    assert not weights[:, 3].any()
    if context == "additive":  # the softmax reads [s'; c; x]
        state, memory = encode(model, parameters, tokens, jnp.array([3]))
        features = forced_features(model, parameters, before, state, memory)
        np.testing.assert_allclose(features[:, 0, 4:8], weights @ np.asarray(memory.outputs)[:, 0], atol=1e-6)
