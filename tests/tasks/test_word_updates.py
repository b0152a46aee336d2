"""Tagging word by word: one update in NumPy, the order of an epoch, whole sentences in scoring, a kill, lanes."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.train import load_setup
from lm.data.examples import read_batch
from lm.errors import UserError
from lm.training.lanes import train_lanes
from lm.training.loop import Trainer, train
from lm.training.recorder import Recorder
from lm.training.step import batch_gradients, train_step
from tests.helpers import cell_references, labelled
from tests.helpers.few import few

CELLS = ("elman_sigmoid", "jordan_softmax")
UNROLL, WINDOW, LABELS, RATE = 4, 3, 3, 0.3


def config(path, cell="elman_sigmoid", **changes):
    settings = {
        "data__examples": "words",
        "data__unroll": UNROLL,
        "data__window": WINDOW,
        "data__batch_size": 1,
        "model__cell": cell,
        "model__initial_carry": "learned",
        "optim__name": "sgd",
        "optim__learning_rate": RATE,
        "optim__unit_rows": ("embedding", "outside"),
        "evaluation__best_by": "f1",
        "checkpoint__best": "keep",
        "train__report_every": 50,
        "train__epochs": 2,
        "checkpoint__every_steps": 300,
    }
    if cell == "jordan_softmax":
        settings |= {"model__projection": LABELS, "model__output": "identity"}
    return labelled.config(labelled.write_columns(path / "a.txt"), "tagging", **settings | changes)


def spread(parameters):
    return jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(x.size), x.shape), parameters)


def state_of(setup):
    state = setup.initial_state()
    return state._replace(parameters=spread(state.parameters))


def logits_in_numpy(p, words, first, last, cell):
    """Logits [last - first, C] of the words of a sentence from `first`, in float64. Windows read the whole sentence."""
    side = WINDOW // 2
    rows = [p["outside"][0]] * side + [p["embedding"][word] for word in words] + [p["outside"][0]] * side
    x = np.array([np.concatenate(rows[place : place + WINDOW]) for place in range(first, last)])[:, None]
    field = "h" if cell == "elman_sigmoid" else "p"
    start = {"h": np.zeros((1, LABELS)), field: p[f"layer_0_{field}"]}
    _, h = cell_references.loop(cell_references.STEPS[cell], p["layer_0"], x, start)
    return h[:, 0] if cell == "jordan_softmax" else h[:, 0] @ p["output_kernel"] + p["output_bias"]


def nats_in_numpy(logits, label):
    return np.log(np.exp(logits).sum()) - logits[label]


def float64(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


@pytest.mark.parametrize("cell", few(CELLS, "elman_sigmoid"))
def test_one_update_is_that_of_the_last_word_of_the_last_windows(tmp_path, cell):
    """At the start, inside and at the end of a sentence: loss, gradient, and parameters with rows of length 1."""
    setup = load_setup(config(tmp_path, cell), None)
    split, state = setup.corpus.splits["train"], state_of(setup)
    data, p = setup.task.on_device(split), float64(state.parameters)
    sentence = int(np.argmax(split.lengths))
    start, end = split.starts[sentence : sentence + 2]
    words = split.tokens[start:end]
    assert len(words) > UNROLL + WINDOW
    for place in (0, 1, UNROLL + 2, len(words) - 1):
        at = state._replace(cursor=jnp.asarray(start + place, jnp.int32))
        gradients, _, loss = batch_gradients(setup.program, at, data, None, setup.hyper)

        def objective(p, place=place):
            first = max(0, place + 1 - UNROLL)
            logits = logits_in_numpy(p, words, first, place + 1, cell)
            return nats_in_numpy(logits[-1], split.labels[start + place])

        expected = cell_references.complex_step(objective, p)
        assert float(loss) == pytest.approx(objective(p), rel=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), gradients, expected)
        assert (np.abs(expected["outside"]).max() > 0) == (place != UNROLL + 2)
        after = jax.tree.map(lambda x, g: x - RATE * g, p, expected)
        for name in ("embedding", "outside"):
            after[name] /= np.linalg.norm(after[name], axis=1, keepdims=True)
        found = train_step(setup.program, at, data, setup.hyper)[0].parameters
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, after)


@pytest.mark.parametrize("cell", few(CELLS, "elman_sigmoid"))
def test_scores_are_those_of_whole_sentences(tmp_path, cell):
    setup = load_setup(config(tmp_path, cell), None)
    parameters, split = state_of(setup).parameters, setup.corpus.splits["valid"]
    nats, labels = setup.task.predict(parameters, split)
    for start, end in zip(split.starts[:-1], split.starts[1:], strict=True):
        logits = logits_in_numpy(float64(parameters), split.tokens[start:end], 0, end - start, cell)
        expected = [nats_in_numpy(row, split.labels[start + n]) for n, row in enumerate(logits)]
        np.testing.assert_allclose(nats[start:end], expected, rtol=1e-4)
        assert labels[start:end].tolist() == logits.argmax(axis=1).tolist()


@pytest.mark.parametrize("batch_size", [1, 4])
def test_an_epoch_reads_every_word_once_sentence_by_sentence(tmp_path, batch_size):
    setup = load_setup(config(tmp_path, data__batch_size=batch_size), None)
    task, split = setup.task, setup.corpus.splits["train"]
    data, seen = task.on_device(split), []
    assert task.steps_per_epoch == -(-len(split.tokens) // batch_size)
    for step in (0, task.steps_per_epoch - 1, task.steps_per_epoch):
        rows = np.asarray(task.order(data, jax.random.key(0), jnp.asarray(step)).rows).ravel()
        rows = rows[rows >= 0]
        sentences = np.searchsorted(split.starts, rows, side="right") - 1
        order = [int(sentences[0]), *(int(b) for a, b in itertools.pairwise(sentences) if a != b)]
        assert sorted(order) == list(range(len(split)))
        wanted = np.concatenate([np.arange(*split.starts[number : number + 2]) for number in order])
        np.testing.assert_array_equal(rows, wanted)
        seen.append(order)
    assert seen[0] == seen[1] != seen[2]
    batch = read_batch(task.plan, data, UNROLL, 0)
    assert batch.tokens.shape == (UNROLL + WINDOW - 1, batch_size)
    assert np.asarray(batch.tokens)[:3, 0].tolist() == [-1, *split.tokens[:2]]


@pytest.mark.parametrize("cell", few(CELLS, "elman_sigmoid"))
def test_a_killed_run_resumes_bit_for_bit(tmp_path, cell):
    settings = config(tmp_path, cell)
    whole = train(load_setup(settings, None), tmp_path / "whole")

    class Killed(Exception):
        pass

    def kill(step, perplexity):
        raise Killed

    with pytest.raises(Killed):
        train(load_setup(settings, None), tmp_path / "parts", observe=kill)
    assert train(load_setup(settings, None), tmp_path / "parts")["results"] == whole["results"]
    states = [Trainer(Recorder(load_setup(settings, None), tmp_path / name)).state for name in ("whole", "parts")]
    jax.tree.map(np.testing.assert_array_equal, *(state.parameters for state in states))
    assert whole["results"][0]["f1"] > 0.5


@pytest.mark.slow
def test_lanes_are_the_runs_alone_and_the_best_check_has_the_highest_f1(tmp_path):
    settings = [config(tmp_path), config(tmp_path, seed=1, optim__learning_rate=0.2)]
    train_lanes([load_setup(each, None) for each in settings], [tmp_path / "lane0", tmp_path / "lane1"])
    for number, each in enumerate(settings):
        train(load_setup(each, None), tmp_path / f"run{number}")
        results = []
        for name in (f"lane{number}", f"run{number}"):
            rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
            checks = [row["valid_f1"] for row in rows if "valid_f1" in row]
            results.append(json.loads((tmp_path / name / "summary.json").read_text())["results"])
            [best] = [row for row in results[-1] if row["which"] == "best"]
            assert best["f1"] == max(checks)
        for a, b in zip(*results, strict=True):
            assert a["nats"] == pytest.approx(b["nats"], rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__window": 2}, "config.data.window must be odd"),
        ({"model__direction": "both"}, "needs config.model.direction=forward"),
        ({"model__output": "identity"}, "identity needs a last layer with 3 outputs, one per label, not 5"),
        ({"optim__unit_rows": ("output_bias",)}, "config.optim.unit_rows: output_bias is not a matrix"),
        ({"optim__unit_rows": ("embedding",), "optim__frozen": ("embedding",)}, "both name embedding"),
        ({"optim__unit_rows": ("embeding",)}, "config.optim.unit_rows: unknown .embeding."),
        ({"data__examples": "letters"}, "config.data.examples: unknown .letters.; known: sequences, words"),
        ({"evaluation__best_by": "blue"}, "config.evaluation.best_by: unknown"),
        ({"evaluation__best_by": "bleu"}, "config.evaluation.best_by must be loss or accuracy or f1 with config.task="),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        load_setup(config(tmp_path, **changes), None)


def test_words_and_f1_are_of_tagging_alone(tmp_path):
    path = labelled.write_tsv(tmp_path / "a.tsv")
    with pytest.raises(UserError, match=r"config\.data\.examples=words needs config\.task=tagging"):
        load_setup(labelled.config(path, data__examples="words"), None)
    with pytest.raises(UserError, match=r"config\.evaluation\.best_by=f1 needs config\.task=tagging"):
        load_setup(labelled.config(path, evaluation__best_by="f1"), None)
