"""Every scoring protocol against the loop of its source, one token at a time in float64 NumPy."""

import math

import jax
import numpy as np
import pytest

from lm.errors import UserError
from lm.scoring.protocols import EXACT_UNROLL, PROTOCOLS, check_evaluation, evaluate
from lm.scoring.score import Score
from tests.helpers import references, tiny

CASES = {
    "one_hot": {},
    "embedding": {"model__input": "embedding", "model__embedding_size": 4, "model__hidden": (3, 2)},
    "bigram": {"model__input": "bigram", "model__embedding_size": 4},
}
CONTEXT = {"one_hot": 1, "embedding": 1, "bigram": 2}


def settings(**changes):
    return tiny.config(**{f"evaluation__{key}": value for key, value in changes.items()}).evaluation


def one_by_one(parameters, text, predictions, stride, context):
    """The validation of Vanhoucke 2016, assignment 6: `stride` + 1 characters per call, p floored at 1e-10, in nats.

    A one-character model is fed b[0] and scored on b[1]; the bigram notebook's calls bring (b[0], b[1]) -> b[2].
    """
    parameters = references.float64(parameters)
    state, total = references.zero_state(parameters, 1), 0.0
    generator = references.BatchGenerator(text, 1, stride)
    for _ in range(predictions):
        batch = generator.next()
        while len(batch) <= context:  # stride 1, bigram model: look one character ahead without advancing
            batch = np.array([*batch, [text[generator._cursor[0]]]])
        state, logits = references.read_context(parameters, state, batch[:context], tiny.V)
        p = np.exp(references.log_softmax(logits))[0, batch[context, 0]]
        total += -math.log(max(p, 1e-10))
    return total


@pytest.mark.parametrize(("case", "stride"), [("one_hot", 1), ("bigram", 1), ("bigram", 2)])
def test_notebook_is_the_loop_of_assignment_6(case, stride):
    """61 characters, 70 predictions: the text wraps. A stride of 2 reads it twice and skips every other bigram."""
    model, parameters = tiny.model(**CASES[case])
    text, context = tiny.text(61), CONTEXT[case]
    protocol = {1: "notebook", 2: "notebook_stride2"}[stride]
    score = evaluate(protocol, model, parameters, text, settings(predictions=70))
    expected = one_by_one(parameters, text, 70, stride, context)
    assert score.targets == 70
    assert score.nats == pytest.approx(expected, rel=1e-5)
    assert score.perplexity == pytest.approx(math.exp(expected / 70), rel=1e-5)


def test_the_last_target_of_a_thousand_predictions_on_a_thousand_characters_is_the_first_character():
    """Symbol 1 occurs only at the start and has p = 1e-3: it is scored once, as the last target."""
    model, parameters = tiny.model()
    biases = np.log(np.array([0.999 / 4, 1e-3, 0.999 / 4, 0.999 / 4, 0.999 / 4], np.float32))
    parameters = jax.tree.map(np.zeros_like, parameters) | {"output_bias": biases}
    text = np.zeros(50, np.uint8)
    text[0] = 1
    score = evaluate("notebook", model, parameters, text, settings(predictions=50))
    assert score.nats == pytest.approx(49 * -math.log(0.999 / 4) - math.log(1e-3), rel=1e-6)
    score = evaluate("exact", model, parameters, text, settings())
    assert score.nats == pytest.approx(49 * -math.log(0.999 / 4), rel=1e-6)
    assert score.targets == 49


def test_only_the_notebook_floors_probabilities_at_1e_10():
    """A model that gives symbol 1 a probability of e^-60."""
    model, parameters = tiny.model()
    biases = np.array([0, -60, -1000, -1000, -1000], np.float32)
    parameters = jax.tree.map(np.zeros_like, parameters) | {"output_bias": biases}
    text = np.array([0, 1] * 25, np.uint8)
    floored = evaluate("notebook", model, parameters, text, settings(predictions=50))
    assert floored.nats == pytest.approx(25 * 10 * math.log(10), rel=1e-6)
    assert evaluate("exact", model, parameters, text, settings()).nats == pytest.approx(25 * 60, rel=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_exact_scores_every_target_once_as_one_stream(case):
    """A text longer than two windows, and not a multiple of one."""
    model, parameters = tiny.model(**CASES[case])
    text, context = tiny.text(2 * EXACT_UNROLL + 77), CONTEXT[case]
    exact = references.float64(parameters)
    _, expected = references.window_nats(exact, references.zero_state(exact, 1), text[:, None], context)
    score = evaluate("exact", model, parameters, text, settings())
    assert score.targets == len(text) - context == expected.size
    assert score.nats == pytest.approx(expected.sum(), rel=1e-5)


@pytest.mark.parametrize("length", [2, 3])
def test_exact_of_the_shortest_texts(length):
    model, parameters = tiny.model()
    text = tiny.text(length)
    exact = references.float64(parameters)
    _, expected = references.window_nats(exact, references.zero_state(exact, 1), text[:, None])
    score = evaluate("exact", model, parameters, text, settings())
    assert score.targets == length - 1
    assert score.nats == pytest.approx(expected.sum(), rel=1e-5)


@pytest.mark.parametrize(
    ("protocol", "case"), [("batched", "one_hot"), ("batched", "bigram"), ("windows", "one_hot"), ("windows", "bigram")]
)
def test_batched_is_an_epoch_of_ptb_word_lm_with_its_trimming(protocol, case):
    """Rows from zero state, whole windows only; state carried within a row, or with `windows` within a window."""
    model, parameters = tiny.model(**CASES[case])
    text, context = tiny.text(79), CONTEXT[case]
    exact = references.float64(parameters)
    state, total, targets = references.zero_state(exact, 4), 0.0, 0
    for x, y in references.ptb_iterator(text, 4, 6):
        window = np.concatenate([x, y[:, -1:]], axis=1).T
        if protocol == "windows":
            state = references.zero_state(exact, 4)
        state, nats = references.window_nats(exact, state, window, context)
        total, targets = total + nats.sum(), targets + nats.size
    score = evaluate(protocol, model, parameters, text, settings(batch_size=4, unroll=6))
    assert score.targets == targets == 3 * 4 * (7 - context)
    assert score.nats == pytest.approx(total, rel=1e-5)


def test_scores_by_hand():
    score = Score(nats=6 * math.log(4), targets=6)
    assert score.perplexity == pytest.approx(4)
    assert score.bits_per_symbol == pytest.approx(2)
    assert Score(nats=1e6, targets=10).perplexity == math.inf


def test_a_uniform_model_scores_the_alphabet_under_every_protocol():
    model, parameters = tiny.model()
    parameters = jax.tree.map(np.zeros_like, parameters)
    for protocol in [name for name, each in PROTOCOLS.items() if not each.adapts]:
        score = evaluate(protocol, model, parameters, tiny.text(79), settings(predictions=70, batch_size=4, unroll=6))
        assert score.perplexity == pytest.approx(tiny.V, rel=1e-6), protocol
        assert score.bits_per_symbol == pytest.approx(math.log2(tiny.V), rel=1e-6)


def test_texts_and_settings_that_cannot_be_scored_are_errors():
    model, parameters = tiny.model()
    for changes, message in (
        (dict(during="batched", batch_size=31), r"^valid cannot be scored: a text of 61 .*evaluation\.batch_size=31"),
        (dict(splits=("train",), protocols=("batched",), unroll=20), r"^train cannot be scored: a text of 403 tokens"),
    ):
        with pytest.raises(UserError, match=message):
            check_evaluation(settings(**changes), model, tiny.corpus().splits)
    with pytest.raises(UserError, match="too short"):
        evaluate("exact", model, parameters, tiny.text(1), settings())
    with pytest.raises(UserError, match="60 tokens"):
        evaluate("batched", model, parameters, tiny.text(60), settings(batch_size=20, unroll=20))
