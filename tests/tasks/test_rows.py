"""Rows: the exercises of CS224d, against float64 NumPy."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.cs224d import ner
from configs.cs224d.softmax import BATCH, get_config
from experiments.train import load_setup
from lm.data import corpora
from lm.data.rows import TYPES, normal_word
from lm.data.text import Vocabulary
from lm.errors import UserError
from lm.model.dropout import Noise
from lm.run import open_run
from lm.tasks.rows import make_windows_model, word_symbols
from lm.training.loop import train
from tests.helpers.task_configs import NER_TEXT as TRAIN
from tests.helpers.task_configs import NER_WORDS as WORDS
from tests.helpers.task_configs import small_corpora


def losses_in_float64():
    """Mean loss per batch in each of 50 epochs, with the gradient written by hand."""
    x, w, b, means = np.random.RandomState(1234).rand(16, 64, 100), np.zeros((100, 5)), np.zeros(5), []
    for _ in range(50):
        losses = []
        for batch in x:
            p = np.exp(batch @ w + b)
            p /= p.sum(axis=1, keepdims=True)
            losses.append(-np.log(p[:, 1]).sum())
            d = p - np.eye(5)[1]
            w, b = w - 1e-4 * batch.T @ d, b - 1e-4 * d.sum(axis=0)
        means.append(np.mean(losses))
    return means


def test_the_softmax_exercise_gives_its_numbers(tmp_path):
    expected = losses_in_float64()
    assert [expected[epoch] for epoch in (0, 1, 9, 49)] == pytest.approx([59.2055, 20.3375, 2.34995, 0.41478], abs=5e-5)
    train(load_setup(get_config(), None), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = {row["epoch"]: BATCH * row["epoch_loss"] for row in rows if "epoch_loss" in row}
    assert [losses[epoch + 1] for epoch in range(50)] == pytest.approx(expected, rel=3e-6)
    assert losses[50] * 16 / 15 == pytest.approx(0.44243, abs=5e-6)


def test_a_task_of_vectors_needs_vectors():
    config = get_config()
    config.data.corpus = "synthetic"
    with pytest.raises(UserError, match=r"config\.task=vectors: config\.data\.corpus=synthetic has no vectors"):
        load_setup(config, None)
    config = get_config()
    config.task = "language_modelling"
    with pytest.raises(UserError):
        load_setup(config, None)
    config = get_config()
    config.data.batch_size = 1025
    with pytest.raises(UserError, match="at most 1024"):
        load_setup(config, None)


# --- Windows --------------------------------------------------------------------------------------------------------

VOCABULARY = Vocabulary("word", WORDS, "UUUNKKK", labels=TYPES)


@pytest.fixture
def corpus(monkeypatch):
    """The corpus cs224d_ner with a small text in place of its files."""
    small_corpora(monkeypatch)


def window_config(**changes):
    config = ner.get_config("random")
    config.model.hidden, config.model.embedding_size, config.data.batch_size = (4,), 3, 5
    config.train.epochs, config.evaluation.batch_size, config.parameters = 2, 4, 0
    for key, value in changes.items():
        group, name = key.split("__")
        config[group][name] = value
    return config


@pytest.mark.parametrize(
    ("word", "symbol"),
    [
        *[("The", "the"), ("42", "DGDG"), ("4.2", "DG.DG"), ("4,2", "DGDG"), ("louvre", "UUUNKKK")],
        *[("(42", "UUUNKKK"), ("a42", "UUUNKKK"), ("-", "UUUNKKK")],
    ],
)
def test_the_symbol_of_a_word(word, symbol):
    assert normal_word(word, WORDS) == symbol


def test_a_word_that_has_no_symbol_is_shown_as_it_is():
    """Numbers are symbols by their digits, other words in lower case."""
    assert word_symbols(VOCABULARY, "The 42 Zebra") == ["the", "DGDG", "Zebra"]


def test_windows_and_their_labels():
    data = window_config().data
    texts = {"vocabulary": "\n".join(WORDS), "train": TRAIN, "valid": TRAIN}
    vocabulary, arrays, _ = corpora.CORPORA["cs224d_ner"].build(data, texts.__getitem__, ("train",), None)
    assert vocabulary == VOCABULARY
    rows = arrays["train"]
    shown = [" ".join(WORDS[i] for i in window) for window in rows.x]
    assert shown == [
        "<s> -docstart- </s>",
        *["<s> paris of", "paris of DGDG", "of DGDG </s>"],
        *["<s> the UUUNKKK", "the UUUNKKK </s>"],
    ]
    assert [TYPES[label] for label in rows.labels] == ["O", "LOC", "O", "O", "O", "ORG"]
    assert rows.starts.tolist() == [0, 1, 4]
    assert [WORDS[i] for i in rows.tokens] == ["-docstart-", "paris", "of", "DGDG", "the", "UUUNKKK"]


def test_loss_gradient_and_penalty_by_hand():
    """In float64, with the gradient written by hand."""
    config = window_config()
    model = make_windows_model(config, VOCABULARY)
    parameters = jax.tree.map(lambda x: x + 0.1, model.draw(jax.random.key(0)))
    x, labels, weights = np.array([[2, 7, 6], [1, 0, 3], [0, 0, 0]]), np.array([1, 3, 0]), np.array([0.5, 0.5, 0.0])
    terms = {"l2": jnp.float32(0.3)}

    def loss(parameters):
        arguments = (jnp.asarray(x), jnp.asarray(labels), jnp.asarray(weights, jnp.float32), None, terms)
        return model.apply({"params": parameters}, *arguments, method="loss")

    (objective, nats), gradient = jax.value_and_grad(loss, has_aux=True)(parameters)
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), parameters)
    joined = p["embedding"][x].reshape(3, -1)
    hidden = np.tanh(joined @ p["input_kernel"] + p["bias"])
    q = np.exp(hidden @ p["output_kernel"] + p["output_bias"])
    q /= q.sum(axis=1, keepdims=True)
    expected = -np.log(q[np.arange(3), labels])
    squares = (p["input_kernel"] ** 2).sum() + (p["output_kernel"] ** 2).sum()
    np.testing.assert_allclose(nats, expected, rtol=1e-5)
    np.testing.assert_allclose(objective, weights @ expected + 0.15 * squares, rtol=1e-5)
    d_logits = weights[:, None] * (q - np.eye(5)[labels])
    d_hidden = d_logits @ p["output_kernel"].T * (1 - hidden**2)
    d_embedding = np.zeros_like(p["embedding"])
    np.add.at(d_embedding, x, (d_hidden @ p["input_kernel"].T).reshape(3, 3, 3))
    by_hand = {
        "embedding": d_embedding,
        "input_kernel": joined.T @ d_hidden + 0.3 * p["input_kernel"],
        "bias": d_hidden.sum(axis=0),
        "output_kernel": hidden.T @ d_logits + 0.3 * p["output_kernel"],
        "output_bias": d_logits.sum(axis=0),
    }
    for name, value in by_hand.items():
        np.testing.assert_allclose(gradient[name], value, atol=1e-6, err_msg=name)


def test_dropout_drops_hidden_units_and_logits():
    config = window_config(keep_prob__output=0.5)
    model = make_windows_model(config, VOCABULARY)
    parameters = model.draw(jax.random.key(0)) | {"output_bias": jnp.full(5, 3.0)}
    noise, x = Noise(jax.random.key(1), {"output": jnp.float32(0.5)}), jnp.zeros((2000, 3), jnp.int32)
    log_probs = model.apply({"params": parameters}, x, noise)
    uniform = float(jnp.mean(jnp.ptp(log_probs, axis=1) == 0))
    assert uniform == pytest.approx(0.5**5, abs=0.02), "rows whose logits are all dropped"
    assert len(np.unique(np.round(log_probs, 5), axis=0)) > 100, "hidden units are dropped, too"


def test_a_run_of_windows_reads_every_row_once_and_scores_by_both_protocols(tmp_path, corpus):
    config = window_config(train__epochs=40, penalty__l2=0.01, optim__learning_rate=0.03)
    setup = load_setup(config, None)
    task, data = setup.task, setup.task.on_device(setup.corpus.splits["train"])
    assert task.steps_per_epoch == 15, "72 rows, five at a time"
    seen = []
    for epoch in range(2):
        ordered = task.order(data, jax.random.key(0), jnp.asarray(15 * epoch))
        weights = [np.asarray(task.batch("all", ordered, cursor)[1]) for cursor in range(15)]
        assert [w.sum() for w in weights] == pytest.approx([1.0] * 15)
        assert (weights[-1] > 0).sum() == 2
        order = np.asarray(ordered.order)
        assert sorted(order[order >= 0]) == list(range(72))
        seen.append(order.tolist())
    assert seen[0] != seen[1]
    summary = train(setup, tmp_path / "run")
    batched, exact = summary["results"][:2]
    run = open_run(tmp_path / "run")
    valid = setup.corpus.splits["valid"]
    nats = task.target_nats(run.parameters, valid)
    assert exact["nats"] == pytest.approx(nats.sum(), rel=1e-6)
    squares = sum(float((run.parameters[name] ** 2).sum()) for name in ("input_kernel", "output_kernel"))
    assert batched["nats"] / 7 == pytest.approx((nats[:4].mean() + nats[4:].mean()) / 2 + 0.005 * squares, rel=1e-5)
    assert exact["f1"] == exact["token_f1_LOC"] == exact["f1_ORG"] == 1.0
    words, probabilities = run.label_probabilities("Paris of 17")
    np.testing.assert_array_equal(run.label_probabilities("\ufeffParis of 17")[1], probabilities)
    assert words == ["Paris", "of", "17"]
    assert [TYPES[label] for label in probabilities.argmax(axis=1)] == ["LOC", "O", "O"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__window": 4}, r"config\.data\.window must be odd"),
        ({"keep_prob__input": 0.5}, r"config\.keep_prob\.input must be 1\.0 with config\.task=windows"),
        ({"loss__label_smoothing": 0.1}, r"config\.loss\.label_smoothing must be 0\.0"),
        ({"model__output": "tied"}, r"config\.model\.output must be dense or dropped_logits"),
        ({"model__hidden": (4, 4)}, "one hidden layer"),
        ({"evaluation__during": "notebook"}, "has no protocol notebook; known: exact, batched"),
        ({"data__batch_size": 73}, "at most 72"),
        ({"data__level": "word"}, r"config\.data\.level is not read with config\.task=windows"),
    ],
)
def test_settings_that_do_not_fit_windows_are_refused(corpus, changes, message):
    with pytest.raises(UserError, match=message):
        load_setup(window_config(**changes), None)
