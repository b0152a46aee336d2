"""Whatever surrounds training works for every task: a kill, lanes, sweeps, export, scores, pages, the test split."""

import json

import jax
import numpy as np
import optuna
import pytest

import launch
from configs.sweeps._definition import sweep as sweep_of
from experiments import evaluate, lanes, train
from experiments.sweep import summarise
from experiments.sweeps.study import Place, open_sweep, quiet_optuna
from experiments.sweeps.training import train_trials
from lm.run import open_run
from lm.runs.metrics import MetricsLog
from lm.tasks import TASKS, make_task
from lm.training.loop import Trainer
from lm.training.recorder import Recorder
from tests.helpers.few import few
from tests.helpers.run_state import rows_of
from tests.helpers.task_configs import CONFIGS, config_of, small_corpora

SEEDS = (0, 1)


def test_every_task_has_a_small_config():
    assert set(CONFIGS) == set(TASKS), "tests/helpers/task_configs.py needs one row for each task"


@pytest.fixture(scope="module", autouse=True)
def corpora():
    with pytest.MonkeyPatch.context() as patch:
        small_corpora(patch)
        yield


@pytest.fixture(scope="module", params=few(sorted(TASKS), "classification"))
def trained(request, tmp_path_factory, corpora):
    """(config, directory with a run of each of SEEDS, what was read of the corpus: (splits, steps made by then))"""
    directory, reads, recorders = tmp_path_factory.mktemp(request.param), [], []
    config = config_of(request.param, directory)
    load, init = train.load, Recorder.__init__

    def counted(data, data_dir, splits, vocabulary):
        reads.append((splits, recorders[-1].done if recorders else 0))
        return load(data, data_dir, splits, vocabulary)

    def listed(self, *arguments, **keywords):
        recorders.append(self)
        init(self, *arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "load", counted)
        patch.setattr(Recorder, "__init__", listed)
        train.run(config, str(directory / "run0"), eta=False)
    other = config.copy_and_resolve_references()
    other.seed = 1
    train.run(other, str(directory / "run1"), eta=False)
    return config, directory, reads


def summary_of(workdir):
    return json.loads((workdir / "summary.json").read_text())


def assert_close(found, expected):
    """Numbers of the same names, to 1e-5."""
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, str):
            assert found[key] == value
        else:
            np.testing.assert_allclose(found[key], value, rtol=1e-5, err_msg=key)


def test_the_test_split_is_read_once_and_after_the_last_step(trained):
    config, directory, reads = trained
    assert reads == [(("train", "valid"), 0), (("test",), config.train.steps)]
    summary = summary_of(directory / "run0")
    has_test = "test" in {row["split"] for row in summary["results"]}
    assert has_test == (config.task not in ("vectors", "windows")), "whose corpora have no test split"
    assert (directory / "run1" / "test_log.jsonl").exists() == has_test


def test_a_killed_run_resumes_bit_for_bit(trained, tmp_path, monkeypatch):
    config, directory, _ = trained
    write = MetricsLog.write

    def failing(self, row):
        if row["step"] >= 8:
            raise KeyboardInterrupt
        write(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(MetricsLog, "write", failing)
        with pytest.raises(KeyboardInterrupt):
            train.run(config, str(tmp_path), eta=False)
    summary, whole = train.run(config, str(tmp_path), eta=False), directory / "run0"
    assert summary["results"] == summary_of(whole)["results"]
    assert rows_of(tmp_path) == rows_of(whole)
    states = []
    for workdir in (tmp_path, whole):
        state = Trainer(Recorder(train.load_setup(config, None), workdir)).state
        states.append(state._replace(key=jax.random.key_data(state.key)))
    assert int(states[0].step) == config.train.steps
    jax.tree.map(np.testing.assert_array_equal, *states)


@pytest.mark.slow
def test_each_lane_is_the_run_alone(trained, tmp_path, monkeypatch):
    config, directory, _ = trained
    monkeypatch.setattr(lanes, "one_device_per_core", lambda: None)  # JAX has begun already
    outcomes = lanes.run(config, str(tmp_path), lanes="seed=0:2")
    for seed, outcome in zip(SEEDS, outcomes.values(), strict=True):
        alone = directory / f"run{seed}"
        for found, expected in zip(rows_of(tmp_path / f"seed={seed}"), rows_of(alone), strict=True):
            assert_close(found, expected)
        for found, expected in zip(outcome["results"], summary_of(alone)["results"], strict=True):
            assert_close(found, expected)
        logs = [(workdir / "test_log.jsonl").exists() for workdir in (tmp_path / f"seed={seed}", alone)]
        assert logs[0] == logs[1]
    losses = [outcome["train"]["final_mean_loss"] for outcome in outcomes.values()]
    assert (losses[0] != losses[1]) == (config.task != "vectors"), "vectors start at zero and are read in their order"


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_sweep_tells_the_values_of_its_trials(trained, tmp_path, at_once):
    config, directory, _ = trained
    plan = sweep_of("tests/tasks", config.copy_and_resolve_references())
    plan.space, plan.sampler = (("seed", "choice", *SEEDS),), "grid"
    place = Place(str(tmp_path), None, f"sqlite:///{tmp_path}/study.db", False)
    corpora = {}
    with quiet_optuna():
        sweep = open_sweep(plan, place)
        for _ in range(0, len(SEEDS), at_once):
            train_trials(sweep, [sweep.ask() for _ in range(at_once)], corpora)
    content = summarise(sweep.study, "tests/tasks")
    for seed, trial in zip(SEEDS, content["trials"], strict=True):
        checks = [row["valid_perplexity"] for row in rows_of(directory / f"run{seed}") if "valid_perplexity" in row]
        if checks:
            assert trial["value"] == pytest.approx(min(checks), rel=1e-5)
            assert {row["split"] for row in summary_of(tmp_path / trial["workdir"])["results"]} == {"valid"}
        else:
            assert trial["state"] == "fail"
            assert "has no validation split" in trial["failure"]
            assert not (tmp_path / trial["workdir"] / "metrics.jsonl").exists()
    assert sweep.study.get_trials(states=(optuna.trial.TrialState.RUNNING,)) == []


def test_evaluation_and_an_export_give_the_scores_of_training(trained, tmp_path):
    config, directory, _ = trained
    summary = summary_of(directory / "run0")
    expected, evaluated = summary["results"], evaluate.run(config, str(directory / "run0"))
    assert evaluated["results"] == expected
    assert evaluated.get("confusion") == summary.get("confusion")
    assert launch.main(["launch.py", "--experiment=export", f"--workdir={directory}/run0", f"--to={tmp_path}"]) == 0
    exported, corpus = open_run(tmp_path), train.load_corpus(config, None, ("train", "valid", "test"))
    task = make_task(config, corpus)
    for row in expected:
        score = task.score(exported.parameters, corpus.splits[row["split"]], row["protocol"], config.evaluation)
        assert (score.nats, score.targets) == (row["nats"], row["targets"])
        assert score.measures == {name: row[name] for name in score.measures}
        nats = task.target_nats(exported.parameters, corpus.splits[row["split"]])
        assert len(nats) == score.targets
        if row["protocol"] == "exact":
            assert nats.sum(dtype=np.float64) == pytest.approx(score.nats, rel=1e-6)


def test_confusion_matrices_count_every_label_and_are_drawn(trained):
    _, directory, _ = trained
    summary = summary_of(directory / "run0")
    labelled = "accuracy" in summary["results"][0]
    assert ("confusion" in summary) == (directory / "run0" / "confusion.png").exists() == labelled
    for table in summary["confusion"]["scores"] if labelled else ():
        counts = np.array(table["counts"])
        row = next(
            row for row in summary["results"] if (row["which"], row["split"]) == (table["which"], table["split"])
        )
        assert counts.shape == (len(summary["confusion"]["labels"]),) * 2
        assert counts.sum() == row["targets"]
        assert counts.trace() / counts.sum() == pytest.approx(row["accuracy"])


def test_runs_are_compared_and_their_pages_show_their_measures(trained, tmp_path):
    _, directory, _ = trained
    results = summary_of(directory / "run0")["results"]
    split = "valid" if any(row["split"] == "valid" for row in results) else "train"
    arguments = ["--experiment=compare", f"--split={split}", f"--workdir={tmp_path}"]
    assert launch.main(["launch.py", *arguments, *(str(directory / f"run{seed}") for seed in SEEDS)]) == 0
    content = json.loads((tmp_path / "compare.json").read_text())
    [pair] = content["pairs"]
    [row] = [row for row in results if (row["split"], row["protocol"]) == (split, "exact")]
    assert pair["reason"] == ""
    assert pair["targets"] == row["targets"]
    assert pair["a_perplexity"] == pytest.approx(row["perplexity"], rel=1e-5)
    page = (directory / "run0" / "report.html").read_text()
    for name in ("f1", "accuracy"):
        assert (f">{row[name]:.6g}</td>" in page) if name in row else (f">{name}</th>" not in page)
