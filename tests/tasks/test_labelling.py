"""Labelled sequences: padding changes nothing, an epoch reads everything once, and a run labels texts."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import FrozenConfigDict

import launch
from configs import state_tracking
from experiments.score import labelled_rows
from experiments.train import load_setup
from lm.data.examples import Examples, read_batch
from lm.data.text import Vocabulary
from lm.data.word_shapes import SHAPES, shapes_of
from lm.errors import UserError
from lm.model.sequence_model import POOLINGS, make_sequence_model
from lm.run import Run, open_run
from lm.tasks.labelling import label_sequence, targets_of
from lm.training.loop import train
from lm.training.step import compile_steps
from tests.helpers import labelled
from tests.helpers.few import LSTM_FIRST, few
from tests.helpers.quick import compiled

KINDS = {
    "classification": ("classification", {}),
    "tagging": ("tagging", {}),
    "crf": ("tagging", {"model__output": "crf", "model__shape_size": 2}),
}
EACH_KIND = few(("classification", "tagging", "crf"), "classification")


def config_of(kind, path, **changes):
    """A config of one of KINDS, on a file that it writes."""
    task, more = KINDS[kind]
    write = labelled.write_tsv if task == "classification" else labelled.write_columns
    return labelled.config(write(path), task, **more, **changes)


def model_of(**changes):
    config = labelled.config("unused", **changes)
    model = make_sequence_model(config, 12, 3)
    parameters = model.draw(jax.random.key(1))
    spread = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(x.size), x.shape), parameters)
    return model, spread


def loss_of(model, parameters, tokens, lengths, labels, weights):
    return model.apply({"params": parameters}, tokens, lengths, labels, weights, method="loss")


@pytest.mark.parametrize("cell", LSTM_FIRST)
def test_a_padded_sequence_gives_the_loss_and_gradient_of_the_sequence_alone(cell):
    """Forward and backward: the outputs of both directions are pooled."""
    changes = {"model__projection": 3} if cell == "lstm_projection" else {}
    model, parameters = model_of(model__cell=cell, model__direction="both", **changes)
    lengths = np.array([4, 9])
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 12, (9, 2)))
    labels = jnp.array([[0, 2]])

    def together(parameters):
        objective, nats = loss_of(model, parameters, tokens, jnp.array(lengths), labels, jnp.ones((1, 2)))
        return objective, nats

    def alone(parameters):
        parts = [
            loss_of(model, parameters, tokens[:n, b : b + 1], jnp.array([n]), labels[:, b : b + 1], jnp.ones((1, 1)))
            for b, n in enumerate(lengths)
        ]
        return sum(part[0] for part in parts), jnp.concatenate([part[1] for part in parts], axis=1)

    (_, nats), gradient = compiled(jax.value_and_grad(together, has_aux=True))(parameters)
    (_, expected), wanted = compiled(jax.value_and_grad(alone, has_aux=True))(parameters)
    np.testing.assert_allclose(nats, expected, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), gradient, wanted)
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(gradient["embedding"])) > 1e-3


@pytest.mark.parametrize("pooling", few(POOLINGS, "attention"))
@pytest.mark.parametrize("convolution", few([(), (4, 3, 2)], ()))
def test_pooling_and_convolution_leave_padding_out(pooling, convolution):
    if pooling == "none" and convolution:
        pytest.skip("a convolution shortens sequences")
    model, parameters = model_of(model__pooling=pooling, model__convolution=convolution, model__direction="both")
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 12, (11, 3)))
    lengths = np.array([11, 4, 7])
    whole = model.apply({"params": parameters}, tokens, jnp.array(lengths))
    for b, n in enumerate(lengths):
        single = model.apply({"params": parameters}, tokens[:n, b : b + 1], jnp.array([n]))
        np.testing.assert_allclose(whole[: len(single), b], single[:, 0], atol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_empty_rows_of_a_batch_give_finite_gradients(pooling):
    model, parameters = model_of(model__pooling=pooling)
    tokens, lengths = jnp.zeros((3, 2), jnp.int32), jnp.array([3, 0])
    steps = 3 if pooling == "none" else 1
    weights = jnp.zeros((steps, 2)).at[:, 0].set(1.0)

    def objective(parameters):
        return loss_of(model, parameters, tokens, lengths, jnp.zeros((steps, 2), jnp.int32), weights)[0]

    for leaf in jax.tree.leaves(jax.grad(objective)(parameters)):
        assert np.isfinite(leaf).all()


def test_pooling_by_hand():
    _, parameters = model_of(model__pooling="mean")
    tokens, lengths = jnp.array([[1], [2], [3]]), jnp.array([2])
    per_step, _ = model_of(model__pooling="none")
    features = per_step.apply({"params": parameters}, tokens, lengths, method="features")[:, 0]
    for pooling, expected in (("last", features[1]), ("mean", features[:2].mean(0)), ("max", features[:2].max(0))):
        pooled, _ = model_of(model__pooling=pooling)
        found = pooled.apply({"params": parameters}, tokens, lengths, method="features")[0, 0]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_shape_of_a_word_is_embedded_beside_it():
    """By hand: the model without shapes, on a table whose rows have the words' shapes at the end."""
    changes = {"model__pooling": "none", "model__direction": "both"}
    config = labelled.config("unused", model__shape_size=2, **changes)
    model = make_sequence_model(config, 4, 3, shapes_of(("a", "B", "C", "1")))
    parameters = model.draw(jax.random.key(0))
    assert parameters["shape_embedding"].shape == (len(SHAPES), 2)
    shapes = parameters["shape_embedding"][
        np.array([SHAPES.index(name) for name in ("lower", "initial", "initial", "number")])
    ]
    plain = make_sequence_model(labelled.config("unused", model__embedding_size=8, **changes), 4, 3)
    joined = {name: value for name, value in parameters.items() if name != "shape_embedding"}
    joined["embedding"] = jnp.concatenate([parameters["embedding"], shapes], axis=1)
    arguments = (jnp.array([[0, 1], [2, 3], [1, 0]]), jnp.array([3, 2]))
    np.testing.assert_array_equal(
        model.apply({"params": parameters}, *arguments), plain.apply({"params": joined}, *arguments)
    )


def test_a_crf_whose_chain_is_zero_is_the_softmax_of_each_token():
    chained, parameters = model_of(model__pooling="none", model__output="crf")
    parameters |= {name: jnp.zeros_like(parameters[name]) for name in ("transitions", "start", "end")}
    plain, _ = model_of(model__pooling="none")
    rest = {name: value for name, value in parameters.items() if name not in ("transitions", "start", "end")}
    rng, lengths = np.random.default_rng(0), jnp.array([5, 3, 4])
    tokens, labels = jnp.asarray(rng.integers(0, 12, (5, 3))), jnp.asarray(rng.integers(0, 3, (5, 3)))
    inside = np.arange(5)[:, None] < np.asarray(lengths)[None]

    def computed(model, parameters):
        objective, of_loss = loss_of(model, parameters, tokens, lengths, labels, jnp.asarray(inside, jnp.float32))
        of_labels, best = model.apply({"params": parameters}, tokens, lengths, labels, method="predict")
        log_probs = model.apply({"params": parameters}, tokens, lengths)
        return objective, of_loss[inside], of_labels[inside], best[inside], log_probs[inside]

    pairs = zip(computed(chained, parameters), computed(plain, rest), strict=True)
    for ours, wanted in pairs:
        np.testing.assert_allclose(ours, wanted, atol=1e-5, rtol=1e-5)


def test_a_crf_takes_no_label_smoothing():
    with pytest.raises(UserError, match=r"label_smoothing must be 0 with config\.model\.output=crf"):
        model_of(model__pooling="none", model__output="crf", loss__label_smoothing=0.1)


@pytest.mark.parametrize("task", ["classification", "tagging"])
def test_an_epoch_reads_every_example_once_in_an_order_of_its_own(tmp_path, task):
    write = labelled.write_tsv if task == "classification" else labelled.write_columns
    setup = load_setup(labelled.config(write(tmp_path / "a.txt"), task), None)
    plan, examples, seen = setup.task.plan, setup.corpus.splits["train"], []
    data = setup.task.on_device(examples)
    for step in (0, setup.task.steps_per_epoch):
        ordered = setup.task.order(data, jax.random.key(0), jnp.asarray(step))
        rows = np.asarray(ordered.rows).ravel()
        assert sorted(rows[rows >= 0]) == list(range(len(examples)))
        seen.append(rows.tolist())
        for cursor in range(setup.task.steps_per_epoch):
            length = plan.lengths[int(setup.task.shape_index(ordered, cursor))]
            batch = read_batch(plan, ordered, length, cursor)
            for column, number in enumerate(np.asarray(ordered.rows[cursor])):
                wanted = examples.tokens[examples.starts[number] : examples.starts[number + 1]] if number >= 0 else []
                assert np.asarray(batch.tokens)[: len(wanted), column].tolist() == list(wanted)
                assert int(batch.lengths[column]) == len(wanted)
            weights = targets_of(setup.task.model, batch)
            assert float(weights.sum()) == (float(batch.lengths.sum()) if task == "tagging" else batch.present.sum())
    assert seen[0] != seen[1]
    again = setup.task.order(data, jax.random.key(0), jnp.asarray(setup.task.steps_per_epoch - 1))
    assert np.asarray(again.rows).ravel().tolist() == seen[0]


@pytest.mark.slow
def test_memory_is_bounded_by_the_largest_bucket_not_by_the_corpus(tmp_path):
    """A compiled step needs as much as for the longest bucket alone; each further example adds its number in the order
    of the epoch, 4 bytes."""

    def compiled(count, buckets):
        path = labelled.write_tsv(tmp_path / f"{count}.tsv", count=count)
        setup = load_setup(labelled.config(path, model__hidden=(32,), data__buckets=buckets), None)
        assert len(setup.task.shapes) == buckets
        assert max(setup.task.shapes) == 21
        return len(setup.corpus.splits["train"]), compile_steps(setup).memory_analysis().temp_size_in_bytes

    (few, alone), (_, bucketed), (many, large) = compiled(80, 1), compiled(80, 2), compiled(320, 2)
    assert many - few == 180
    assert bucketed == pytest.approx(alone, rel=0.02)
    assert large - bucketed <= 8 * (many - few)


def test_padding_in_front_is_read_as_tokens(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("a b c d e\tx\nb\ty\n")
    config = labelled.config(
        path, data__padding="front_unmasked", data__max_tokens=3, data__keep="last", data__valid_share=0.0
    )
    config.evaluation.splits = ("train",)
    setup = load_setup(config, None)
    names = np.array(setup.corpus.vocabulary.symbols)
    data = setup.task.on_device(setup.corpus.splits["train"])
    batch = read_batch(setup.task.plan, data, setup.task.plan.lengths[0], 0)
    assert names[np.asarray(batch.tokens)][:, 0].tolist() == ["c", "d", "e"]
    assert names[np.asarray(batch.tokens)][:, 1].tolist() == ["<unk>", "<unk>", "b"]
    assert np.asarray(batch.lengths)[:2].tolist() == [3, 3]


@pytest.mark.parametrize("kind", few(("classification", "tagging", "crf"), "tagging"))
def test_a_run_learns_its_labels_and_can_be_opened(tmp_path, kind):
    config = config_of(kind, tmp_path / "a.txt", train__epochs=10, keep_prob__input=0.9)
    [score] = train(load_setup(config, None), tmp_path / "run")["results"]
    assert score["accuracy"] > 0.9
    opened, setup = open_run(tmp_path / "run"), load_setup(config, None)
    assert opened.vocabulary == setup.corpus.vocabulary
    assert opened.vocabulary.labels
    nats, _ = setup.task.predict(opened.parameters, setup.corpus.splits["valid"])
    assert float(nats.sum(dtype=np.float64)) == score["nats"]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["valid_accuracy"] == score["accuracy"]


@pytest.mark.slow
def test_the_loss_of_an_epoch_is_the_mean_over_its_steps_however_short(tmp_path):
    """60 examples in batches of 8: the short last batches of the two buckets count as much as full ones."""
    config = config_of("classification", tmp_path / "a.txt", train__report_every=1, train__epochs=1)
    setup = load_setup(config, None)
    assert len(setup.corpus.splits["train"]) % 8
    train(setup, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == setup.task.steps_per_epoch
    assert rows[-1]["epoch_loss"] == pytest.approx(np.mean([row["loss"] for row in rows]), rel=1e-12)


@pytest.mark.parametrize("kind", few(["tagging", "crf"], "crf"))
def test_a_split_of_one_token_sentences_is_scored_as_in_a_longer_one(tmp_path, kind):
    """Its labels per token are as many as its sentences."""
    setup = load_setup(config_of(kind, tmp_path / "a.txt"), None)
    parameters = setup.initial_state().parameters
    longer = Examples(np.array([1, 2, 3, 1, 2]), np.array([0, 1, 2, 3, 5]), np.array([0, 1, 0, 1, 0]))
    nats, found = setup.task.predict(parameters, longer.first(3))
    expected = setup.task.predict(parameters, longer)
    np.testing.assert_allclose(nats, expected[0][:3], rtol=1e-5)
    np.testing.assert_array_equal(found, expected[1][:3])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "tagging", "data__format": "tsv"}, "must be classification, not tagging: .* one label per sequence"),
        ({"task": "language_modelling"}, "needs a text"),
        ({"model__pooling": "none"}, "config.model.pooling must not be none"),
        ({"model__input": "one_hot"}, "config.model.input must be embedding"),
        ({"model__convolution": (4, 3)}, r"\(filters, width, pool\)"),
        (
            {"model__output": "crf"},
            "config.model.output must be dense or identity or sigmoid with .*, not crf",
        ),
        ({"loss__weighting": "sum_over_time"}, "config.loss.weighting must be mean or sum"),
        ({"train__devices": 2}, "config.train.devices"),
        ({"evaluation__during": "batched"}, "has no protocol batched; known: exact"),
        ({"data__columns": (0, 5)}, "line 1: it has 2 columns, and config.data.columns asks for column 5"),
        ({"data__valid_share": 0.001}, "leaves a split empty"),
        ({"data__padding": "front_unmasked"}, "front_unmasked needs config.data.max_tokens: its length decides"),
        ({"data__level": "word"}, r"config\.data\.level is not read with .*: leave it at 'char'; .*\.tokenizer"),
        ({"data__fractions": (0.8, 0.1, 0.1)}, r"config\.data\.fractions is not read with .*\.valid_share"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, changes, message):
    config = labelled.config(labelled.write_tsv(tmp_path / "a.tsv"), **{"data__columns": (0, 1)} | changes)
    with pytest.raises(UserError, match=message):
        load_setup(config, None)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classification", "tagging", "crf"])
def test_a_text_is_labelled_by_a_run_and_by_its_export(tmp_path, kind, capsys):
    config = config_of(kind, tmp_path / "a.txt", train__epochs=30, model__hidden=(24,))
    train(load_setup(config, None), tmp_path / "run")
    text = tmp_path / "text"
    text.write_text(
        "the film was great\n\na dull story\u2028and a film\n", encoding="utf-8"
    )  # two lines, one of them empty

    def rows_of(directory):
        arguments = ["launch.py", "--experiment=score", f"--workdir={directory}", f"--text={text}"]
        assert launch.main(arguments) == 0
        return [line.split("\t") for line in capsys.readouterr().out.splitlines()]

    capsys.readouterr()
    rows = rows_of(tmp_path / "run")
    found = [(row[0], row[1]) for row in rows[1:]]
    if config.task == "classification":
        assert found == [("1", "pos"), ("3", "neg")]
    else:
        tags = ["O", "O", "O", "B-GOOD"], ["O", "B-BAD", "O", "O", "O", "O"]
        assert found == [("1", tag) for tag in tags[0]] + [("3", tag) for tag in tags[1]]
    assert launch.main(["launch.py", "--experiment=export", f"--workdir={tmp_path}/run", f"--to={tmp_path}/out"]) == 0
    capsys.readouterr()
    assert rows_of(tmp_path / "out") == rows
    text.write_text("a zebra\n\nthe zebra was dull\n")
    assert launch.main(["launch.py", "--experiment=score", f"--workdir={tmp_path}/run", f"--text={text}"]) == 0
    assert capsys.readouterr().err == "2 unknown tokens are read as '<unk>': 'zebra' 2\n"
    for flag in ("--per=token", "--next=3"):
        assert launch.main(["launch.py", "--experiment=score", f"--workdir={tmp_path}/run", flag]) == 2
        said = f"{flag} needs a run of config.task=language_modelling, and this one has {config.task}"
        assert said in capsys.readouterr().err
    for command in ("sample", "gradients"):
        assert launch.main(["launch.py", f"--experiment={command}", f"--workdir={tmp_path}/run"]) == 2
        assert f"config.task={config.task}, and --experiment={command} needs" in capsys.readouterr().err


def test_a_line_that_cannot_be_labelled_is_named():
    config, vocabulary = state_tracking.get_config("parity"), Vocabulary("word", ("0", "1"), labels=("even", "odd"))
    run = Run(Path("parity"), FrozenConfigDict(config), vocabulary, None, {}, 0, "last", "")
    with pytest.raises(UserError, match="line 2: the vocabulary lacks '2'"):
        labelled_rows(run, "\n0 2\n")


def test_probabilities_of_a_text_are_those_of_the_scored_example(tmp_path):
    config = labelled.config(labelled.write_tsv(tmp_path / "a.tsv"), train__epochs=2)
    train(load_setup(config, None), tmp_path / "run")
    run, setup = open_run(tmp_path / "run"), load_setup(config, None)
    valid = setup.corpus.splits["valid"]
    nats = setup.task.target_nats(run.parameters, valid)
    for number in range(5):
        ids = valid.tokens[valid.starts[number] : valid.starts[number + 1]]
        _, probabilities = run.label_probabilities(" ".join(run.vocabulary.symbols[i] for i in ids))
        assert -np.log(probabilities[0, valid.labels[number]]) == pytest.approx(nats[number], abs=1e-5)
    for use in (run.nats, run.sample, run.gates):
        with pytest.raises(UserError, match=r"needs config\.task=language_modelling"):
            use("a film")


def test_a_text_of_one_token_is_tagged_as_in_a_sentence(tmp_path):
    """And a token that a vocabulary without <unk> lacks is refused."""
    setup = load_setup(labelled.config(labelled.write_columns(tmp_path / "train.txt"), "tagging"), None)
    model, vocabulary = setup.task.model, setup.corpus.vocabulary
    parameters = model.draw(jax.random.key(0))
    word = vocabulary.symbols[2]
    tokens, labels, log_probs = label_sequence(setup.config, vocabulary, model, parameters, word)
    assert (tokens, labels.shape, log_probs.shape) == ([word], (1,), (1, len(vocabulary.labels)))
    _, _, twice = label_sequence(setup.config, vocabulary, model, parameters, f"{word} {word}")
    assert twice.shape == (2, len(vocabulary.labels))
    np.testing.assert_allclose(np.exp(log_probs).sum(), 1.0, atol=1e-5)
    known = dataclasses.replace(vocabulary, unknown=None)
    with pytest.raises(UserError, match="the vocabulary lacks 'zz'"):
        label_sequence(setup.config, known, model, parameters, f"{word} zz")
