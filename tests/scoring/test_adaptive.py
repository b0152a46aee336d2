"""Scores of a model that adapts: against loops, and what must hold of any probability."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.scoring.protocols import PROTOCOLS, evaluate, exact_nats, protocol_nats
from tests.helpers import tiny
from tests.helpers.few import few

ADAPTIVE = [name for name, protocol in PROTOCOLS.items() if protocol.adapts]
CASES = {
    "one_hot": {},
    "bigram": {"model__input": "bigram", "model__embedding_size": 4, "model__hidden": (3, 2)},
}


def settings(**changes):
    changes = {"cache_window": 7, "cache_theta": 3.0, "cache_lambda": 0.3, "dynamic_segment": 5} | changes
    changes = {"dynamic_rate": 0.05, "dynamic_decay": 0.1, "temperature": 1.7} | changes
    return tiny.config(**{f"evaluation__{key}": value for key, value in changes.items()}).evaluation


def states_and_log_probs(model, parameters, text):
    """h before each target and the log-probabilities of all symbols, read one token at a time."""
    carry, rows = model.initial_carry(1), []
    for end in range(model.context, len(text)):
        window = jnp.asarray(text[end - model.context : end])[:, None]
        carry, h = model.apply({"params": parameters}, window, carry, method="features")
        kernel, bias = (np.asarray(each, np.float64) for each in model.apply({"params": parameters}, method="_output"))
        logits = np.asarray(h, np.float64)[0, 0] @ kernel + bias
        rows.append((np.asarray(h, np.float64)[0, 0], logits - np.log(np.exp(logits).sum())))
    return rows


@pytest.mark.parametrize("case", few(CASES, "bigram"))
def test_the_cache_is_the_loop_of_its_equation(case):
    model, parameters = tiny.model(**CASES[case])
    text, chosen = tiny.text(30), settings()
    rows, targets, expected = states_and_log_probs(model, parameters, text), text[model.context :], []
    for t, (h, log_probs) in enumerate(rows):
        probability = np.exp(log_probs[targets[t]])
        if first := list(range(max(0, t - 7), t)):
            weights = np.array([np.exp(3.0 * rows[i][0] @ h) for i in first])
            hits = np.array([targets[i] == targets[t] for i in first])
            probability = 0.7 * probability + 0.3 * (weights * hits).sum() / weights.sum()
        expected.append(-np.log(probability))
    np.testing.assert_allclose(protocol_nats("cache", model, parameters, text, chosen), expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("case", few(CASES, "bigram"))
def test_a_temperature_divides_the_logits(case):
    model, parameters = tiny.model(**CASES[case])
    text = tiny.text(30)
    rows, targets = states_and_log_probs(model, parameters, text), text[model.context :]
    powers = np.array([log_probs / 1.7 for _, log_probs in rows])
    expected = np.log(np.exp(powers).sum(axis=1)) - powers[np.arange(len(targets)), targets]
    np.testing.assert_allclose(protocol_nats("temperature", model, parameters, text, settings()), expected, atol=1e-4)


def test_dynamic_evaluation_is_the_loop_of_its_equation():
    model, trained = tiny.model()
    text, chosen = tiny.text(28), settings()
    parameters, carry, total = trained, model.initial_carry(1), 0.0

    def loss(parameters, window, carry):
        carry, logits = model.apply({"params": parameters}, window[:-1], carry)
        log_probs = jax.nn.log_softmax(logits[:, 0])
        return -jnp.take_along_axis(log_probs, window[1:].astype(jnp.int32), axis=1).sum(), carry

    for start in range(0, len(text) - 1, 5):
        window = jnp.asarray(text[start : start + 6])[:, None]
        (nats, carry), gradient = jax.value_and_grad(loss, has_aux=True)(parameters, window, carry)
        parameters = jax.tree.map(lambda p, g, t: p - 0.05 * g + 0.1 * (t - p), parameters, gradient, trained)
        total += float(nats)
    assert evaluate("dynamic", model, trained, text, chosen).nats == pytest.approx(total, rel=1e-5)
    assert total < exact_nats(model, trained, text).sum() + 5.0


@pytest.mark.parametrize("protocol", few(ADAPTIVE, "dynamic_cache"))
def test_probabilities_sum_to_one_and_no_score_depends_on_later_tokens(protocol):
    """Texts that differ in the last symbol alone: the scores before are equal, and the last probabilities sum to 1."""
    model, parameters = tiny.model()
    text, chosen = tiny.text(24), settings()
    texts = [np.array([*text[:-1], last], text.dtype) for last in range(tiny.V)]
    found = [protocol_nats(protocol, model, parameters, each, chosen) for each in texts]
    for nats in found:
        np.testing.assert_array_equal(nats[:-1], found[0][:-1])
    assert sum(np.exp(-nats[-1]) for nats in found) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("protocol", few(ADAPTIVE, "cache"))
def test_without_adaptation_it_is_the_exact_score_and_nothing_is_kept(protocol):
    model, parameters = tiny.model()
    text, exact = tiny.text(40), exact_nats(*tiny.model(), tiny.text(40)).sum()
    still = settings(cache_lambda=0.0, dynamic_rate=0.0, temperature=1.0)
    assert evaluate(protocol, model, parameters, text, still).nats == pytest.approx(exact, rel=1e-6)
    first = evaluate(protocol, model, parameters, text, settings()).nats
    assert first != pytest.approx(exact, rel=1e-4)
    assert evaluate(protocol, model, parameters, text, settings()).nats == first
