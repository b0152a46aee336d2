"""A whole run on a tiny corpus: what it does to the parameters, and every number it writes."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.train import note_size
from lm.errors import UserError
from lm.model.language_model import count_parameters
from lm.training.loop import Trainer, train
from lm.training.optim import hyper_of
from lm.training.recorder import Recorder
from lm.training.setup import make_setup
from lm.training.step import train_steps
from tests.helpers import references, tiny

STEPS = 12
ENTROPY = -(0.8 * math.log(0.8) + 0.2 * math.log(0.05))  # of the tiny text: 0.78 nats a symbol


def rows_of(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def run_config():
    return tiny.config(name="tiny/run", train__evaluate_every=6, train__sample_every=10)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(workdir, summary, reference): 12 steps on 3 read heads, and the same steps in float64 NumPy."""
    workdir = tmp_path_factory.mktemp("run")
    config, corpus = run_config(), tiny.corpus()
    trainer = Trainer(Recorder(make_setup(config, corpus), workdir / "unused"))
    parameters = references.float64(trainer.state.parameters)  # a run begins from these
    trainer.recorder.checkpoints.close()

    reference, state = [], references.zero_state(parameters, 3)
    generator = references.BatchGenerator(corpus.splits["train"], 3, 4)
    for _ in range(STEPS):
        parameters, state, loss, norm = references.sgd_step(parameters, state, generator.next(), 1.0, 1.0)
        reference.append({"loss": loss, "norm": norm, "parameters": parameters})
    return workdir, train(make_setup(config, corpus), workdir), reference


def test_the_whole_run_is_that_of_float64_numpy(run):
    """Twelve steps of carried state, clipped gradients and read heads, gradients by central differences."""
    workdir, _, reference = run
    found = Trainer(Recorder(make_setup(run_config(), tiny.corpus()), workdir))
    found.recorder.checkpoints.close()
    assert found.recorder.done == STEPS
    leaves = references.leaves(found.state.parameters)
    for name, expected in references.leaves(reference[-1]["parameters"]).items():
        np.testing.assert_allclose(leaves[name], expected, rtol=0, atol=1e-4, err_msg=name)


def test_reports_follow_steps_0_n_2n_and_the_last(run):
    workdir, _, reference = run
    rows = {row["step"]: row for row in rows_of(workdir)}
    reported = [step for step, row in rows.items() if step % 5 == 0 or step == 11]
    assert reported == [0, 5, 10, 11]
    assert list(rows) == [0, 5, 6, 10, 11]  # a validation, after steps 0, 6 and 11, is a report too
    begin = 0
    for step, row in rows.items():
        losses = [r["loss"] for r in reference[begin : step + 1]]
        assert row["loss"] == pytest.approx(np.mean(losses), rel=1e-5), step
        assert row["perplexity"] == pytest.approx(math.exp(np.mean(losses)), rel=1e-5)
        assert row["bits_per_symbol"] == pytest.approx(np.mean(losses) / math.log(2), rel=1e-5)
        assert row["minibatch_perplexity"] == pytest.approx(math.exp(losses[-1]), rel=1e-5)
        assert row["gradient_norm"] == pytest.approx(reference[step]["norm"], rel=1e-3)
        assert row["learning_rate"] == 1.0
        assert row["epoch"] == pytest.approx((step + 1) / 33)  # 134 // 4 windows an epoch
        assert row["tokens_per_s"] >= 0
        begin = step + 1


def stream(parameters, tokens):
    """nats and number of targets of one stream."""
    nats = references.window_nats(parameters, references.zero_state(parameters, 1), tokens[:, None])[1]
    return nats.sum(), nats.size


def test_validations_are_scores_of_that_steps_parameters(run):
    workdir, _, reference = run
    scored = [row for row in rows_of(workdir) if "valid_loss" in row]
    assert [row["step"] for row in scored] == [0, 6, 11]
    for row in scored:
        nats, targets = stream(reference[row["step"]]["parameters"], tiny.corpus().splits["valid"])
        assert row["valid_loss"] == pytest.approx(nats / targets, rel=1e-4)
        assert row["valid_perplexity"] == pytest.approx(math.exp(nats / targets), rel=1e-4)
        assert row["valid_protocol"] == "exact"


def test_the_summary_holds_what_the_run_came_to(run):
    workdir, returned, reference = run
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary == json.loads(json.dumps(returned))
    (result,) = summary["results"]
    nats, targets = stream(reference[-1]["parameters"], tiny.corpus().splits["valid"])
    assert targets == 60
    expected = {
        "nats": pytest.approx(nats, rel=1e-4),
        "perplexity": pytest.approx(math.exp(nats / targets), rel=1e-4),
        "bits_per_symbol": pytest.approx(nats / targets / math.log(2), rel=1e-4),
    }
    assert result == {"split": "valid", "protocol": "exact", "targets": 60, "step": 11, "which": "final", **expected}
    assert summary["parameters"] == (5 + 3 + 1) * 12 + (3 + 1) * 5
    assert (summary["name"], summary["corpus"], summary["seed"]) == ("tiny/run", "tiny", 0)
    assert summary["train"]["steps"] == STEPS
    assert summary["train"]["final_mean_loss"] == pytest.approx(reference[-1]["loss"], rel=1e-5)
    means = np.cumsum([r["loss"] for r in reference]) / np.arange(1, STEPS + 1)
    assert summary["train"]["lowest_running_perplexity"] == pytest.approx(math.exp(means.min()), rel=1e-5)
    assert summary["train"]["tokens_per_s"] > 0
    assert summary["train"]["wall_time_s"] > 0
    assert {"versions", "device", "git", "data", "config"} <= set(summary["provenance"])
    assert summary["provenance"]["config"]["optim"]["clip"] == 1.0


def test_samples_are_written_when_due(run):
    text = (run[0] / "samples.txt").read_text()
    assert [line for line in text.splitlines() if line.startswith("step ")] == ["step 0", "step 10", "step 11"]
    samples = [line for line in text.split("\n") if line and not line.startswith(("=", "-----", "step "))]
    assert [len(sample) for sample in samples] == [1 + 12] * 6
    assert set("".join(samples)) <= set(tiny.SYMBOLS)


def test_training_approaches_the_entropy_of_the_text(tmp_path):
    """400 steps from ln 5 or worse to within 12% of what no model can beat."""
    config = tiny.config(train__steps=400, train__report_every=100, optim__learning_rate=2.0)
    corpus = tiny.corpus(valid=1001)
    summary = train(make_setup(config, corpus), tmp_path)
    losses = [row["loss"] for row in rows_of(tmp_path)]
    assert losses[0] > 1.5
    assert losses == sorted(losses, reverse=True) or losses[-1] < losses[1]
    final = summary["results"][0]["nats"] / summary["results"][0]["targets"]
    assert 0.93 * ENTROPY < final < 1.12 * ENTROPY


def test_epochs_are_counted_reported_and_begun_from_zero_state(tmp_path):
    """rows: 3 windows an epoch; a row after each epoch holds its own perplexity, whatever report_every says."""
    config = tiny.config(data__batching="rows", train__steps=0, train__epochs=2, train__report_every=4)
    corpus = tiny.corpus(train=3 * 14)
    setup, hyper = make_setup(config, corpus), hyper_of(config)
    assert setup.total_steps == 6
    trainer = Trainer(Recorder(make_setup(config, corpus), tmp_path))
    state, losses = trainer.state, []
    for _ in range(6):
        state, measured = train_steps(setup, state, jnp.asarray(corpus.splits["train"]), hyper, 1)
        losses.append(float(measured.loss[0]))
    trainer.recorder.checkpoints.close()

    train(make_setup(config, corpus), tmp_path / "whole")
    rows = {row["step"]: row for row in rows_of(tmp_path / "whole")}
    assert list(rows) == [0, 2, 4, 5]
    assert [step for step, row in rows.items() if "epoch_perplexity" in row] == [2, 5]
    assert rows[2]["epoch_perplexity"] == pytest.approx(math.exp(np.mean(losses[:3])), rel=1e-6)
    assert rows[5]["epoch_perplexity"] == pytest.approx(math.exp(np.mean(losses[3:])), rel=1e-6)
    assert rows[4]["loss"] == pytest.approx(np.mean(losses[3:5]), rel=1e-6)
    assert rows[4]["running_perplexity"] == pytest.approx(math.exp(np.mean(losses[3:5])), rel=1e-6)
    assert [row["epoch"] for row in rows.values()] == pytest.approx([1 / 3, 1, 5 / 3, 2])


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tmp_path):
    """A rate of 3e38 spoils the parameters within a few steps; clipping at 1e30 does nothing against it."""
    config = tiny.config(optim__learning_rate=3e38, optim__clip=1e30)
    corpus = tiny.corpus()
    trainer = Trainer(Recorder(make_setup(config, corpus), tmp_path / "unused"))
    state, first_bad = trainer.state, None
    trainer.recorder.checkpoints.close()
    for step in range(STEPS):
        state, measured = train_steps(trainer.setup, state, trainer.data, trainer.hyper, 1)
        if not np.isfinite(measured.loss[0]):
            first_bad = step
            break
    assert first_bad, "the first step's loss is finite, a later one's is not"
    with pytest.raises(UserError) as caught:
        train(make_setup(config, corpus), tmp_path / "run")
    assert f"not finite at step {first_bad} " in str(caught.value)
    assert "config.optim.learning_rate" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert all(math.isfinite(row["loss"]) for row in rows_of(tmp_path / "run"))
    assert not (tmp_path / "run" / "summary.json").exists()
    assert not list((tmp_path / "run").glob("checkpoints/*/[0-9]*"))  # nothing spoilt is kept


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train__epochs": 3}, ["config.train.steps", "config.train.epochs", "steps=12", "epochs=3"]),
        ({"train__steps": 0}, ["config.train.steps", "steps=0", "epochs=0"]),
        ({"train__report_every": 0}, ["config.train.report_every", "0"]),
        ({"train__steps_per_dispatch": 0}, ["config.train.steps_per_dispatch", "0"]),
        ({"data__batching": "columns"}, ["config.data.batching", "columns"]),
        ({"data__batch_size": 200}, ["403", "batch_size=200"]),
        ({"loss__weighting": "median"}, ["config.loss.weighting", "median"]),
        ({"model__hidden": ()}, ["config.model.hidden"]),
        ({"optim__name": "sdg"}, ["config.optim.name", "sdg"]),
        ({"evaluation__during": "exakt"}, ["exakt", "exact"]),
        ({"evaluation__protocols": ("exact", "nb")}, ["nb", "notebook"]),
        ({"sample__strategy": "beam"}, ["config.sample.strategy", "beam"]),
        ({"checkpoint__every_steps": 0}, ["config.checkpoint.every_steps", "0"]),
    ],
)
def test_a_config_that_cannot_run_is_refused_before_the_first_step(tmp_path, changes, words):
    with pytest.raises(UserError) as caught, tiny.compilations() as compiled:
        train(make_setup(tiny.config(**changes), tiny.corpus()), tmp_path / "run")
    assert all(word in str(caught.value) for word in words), caught.value
    assert not any(tiny.STEPS in name for name in compiled)
    assert not any(tmp_path.rglob("*")), "a refused config leaves nothing in the workdir"


@pytest.mark.parametrize("stated", [0, 1234, None])
def test_a_model_of_another_size_than_stated_is_announced(stated, capsys):
    setup = make_setup(tiny.config(), tiny.corpus())
    size = count_parameters(setup.state_shapes.parameters)
    config = tiny.config(parameters=size if stated is None else stated)
    note_size(make_setup(config, tiny.corpus()))
    announced = f"the model has {size:,} parameters; config.parameters states 1,234, the published number\n"
    assert capsys.readouterr().out == (announced if stated == 1234 else "")


def test_a_corpus_without_a_validation_text_trains(tmp_path):
    corpus = tiny.corpus()
    summary = train(make_setup(tiny.config(), corpus._replace(splits={"train": corpus.splits["train"]})), tmp_path)
    assert summary["results"] == []
    assert summary["train"]["steps"] == STEPS
    assert not any("valid_loss" in row for row in rows_of(tmp_path))
