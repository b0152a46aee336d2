"""Probabilities, states and gates of every step against the model read step by step, and against the equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.scoring import inspection
from lm.scoring.protocols import exact_nats
from tests.helpers import tiny
from tests.helpers.few import LSTM_FIRST

TEXT = tiny.text(37)


@pytest.mark.parametrize("reads", ["one_hot", "embedding", "bigram"])
def test_token_scores_and_log_probabilities_agree_with_the_exact_protocol(reads):
    model, parameters = tiny.model(model__input=reads, model__embedding_size=0 if reads == "one_hot" else 3)
    exact = exact_nats(model, parameters, TEXT)
    scores = inspection.score_tokens(model, parameters, TEXT)
    np.testing.assert_allclose(scores.nats, exact, rtol=1e-6)
    log_p = inspection.trace(model, parameters, TEXT).log_probs
    assert log_p.shape == (len(TEXT) - model.context + 1, tiny.V)
    np.testing.assert_allclose(np.exp(log_p.astype(np.float64)).sum(-1), 1, atol=1e-5)
    targets = TEXT[model.context :].astype(int)
    of_targets = log_p[np.arange(len(targets)), targets]
    np.testing.assert_allclose(-of_targets, exact, rtol=2e-6)
    np.testing.assert_array_equal(scores.rank, 1 + (log_p[:-1] > of_targets[:, None]).sum(-1))
    np.testing.assert_allclose(scores.entropy, -(np.exp(log_p) * log_p).sum(-1)[:-1], rtol=1e-5)


def test_a_text_longer_than_a_window_is_read_with_carried_state(monkeypatch):
    monkeypatch.setattr(inspection, "EXACT_UNROLL", 16)
    model, parameters = tiny.model()
    scores = inspection.score_tokens(model, parameters, TEXT)
    np.testing.assert_allclose(scores.nats, exact_nats(model, parameters, TEXT), rtol=1e-6)


def test_texts_scored_side_by_side_equal_each_alone():
    model, parameters = tiny.model()
    texts = [TEXT[start : start + length] for start, length in ((0, 1), (3, 9), (0, 37), (5, 2), (1, 0))] * 5
    for tokens, nats in zip(texts, inspection.score_texts(model, parameters, texts), strict=True):
        if len(tokens) < 2:
            assert len(nats) == 0
        else:
            np.testing.assert_allclose(nats, exact_nats(model, parameters, tokens), rtol=1e-5)


@pytest.mark.parametrize("cell", LSTM_FIRST)
def test_states_are_those_of_the_model_read_step_by_step(cell):
    model, parameters = tiny.model(model__cell=cell, model__hidden=(3, 4), model__projection=2)
    found = inspection.trace(model, parameters, TEXT)
    carry = model.initial_carry(1)
    for step, token in enumerate(TEXT):
        carry, _ = model.apply({"params": parameters}, jnp.array([[token]]), carry)
        for ours, expected in zip(jax.tree.leaves(found.states), jax.tree.leaves(carry), strict=True):
            # Normalised cells divide small rows by their deviation, which amplifies rounding.
            np.testing.assert_allclose(ours[step], expected[0], rtol=2e-5, atol=1e-5 if "norm" in cell else 1e-6)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_gates_of_an_lstm_are_those_of_its_equations():
    """In float64 NumPy, from the states before each step."""
    model, parameters = tiny.model(model__hidden=(3,))
    found = inspection.trace(model, parameters, TEXT)
    p = {name: np.asarray(x, np.float64) for name, x in parameters["layer_0"].items()}
    before = np.vstack([np.zeros((1, 3)), found.states[0].h[:-1]])
    z = p["w_x"][TEXT] + before @ p["w_h"] + p["b"]
    activations = {"i": sigmoid, "f": sigmoid, "g": np.tanh, "o": sigmoid}
    assert found.gates[0].keys() == activations.keys()
    for index, (name, activation) in enumerate(activations.items()):
        np.testing.assert_allclose(found.gates[0][name], activation(z[:, 3 * index : 3 * index + 3]), rtol=1e-5)


@pytest.mark.parametrize("cell", ["gru", "gru_reset_after", "mgu", "min_gru", "min_lstm", "lstm_coupled", "mogrifier"])
def test_gates_rebuild_the_state(cell):
    """h' or c' from the gates alone: their names and meaning are those of the docstrings."""
    model, parameters = tiny.model(model__cell=cell, model__hidden=(3,))
    trace = inspection.trace(model, parameters, TEXT)
    states, gates = trace.states[0], trace.gates[0]
    field = states.c if "c" in states._fields else states.h
    old = np.vstack([np.zeros((1, 3)), field[:-1]])
    keep, admit = {
        "gru": lambda g: (g["z"], 1 - g["z"]),
        "gru_reset_after": lambda g: (g["z"], 1 - g["z"]),
        "mgu": lambda g: (1 - g["f"], g["f"]),
        "min_gru": lambda g: (1 - g["z"], g["z"]),
        "min_lstm": lambda g: (g["f"], g["i"]),
        "lstm_coupled": lambda g: (1 - g["i"], g["i"]),
        "mogrifier": lambda g: (g["f"], g["i"]),
    }[cell](gates)
    np.testing.assert_allclose(keep * old + admit * gates["g"], field, rtol=1e-5, atol=1e-6)
