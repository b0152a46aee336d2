"""Sweeps: what is tried, that a killed sweep ends as an undisturbed one, and that failures are no end."""

import json
import os
import re
import signal
import time
from types import SimpleNamespace

import optuna
import pytest

import launch
from configs.sweeps._definition import sweep as definition
from experiments import sweep
from experiments import train as train_experiment
from experiments.sweeps import pictures, plan
from experiments.sweeps.plan import Axis, changed, make_space, number_of_trials, planned
from experiments.sweeps.study import Place, name_of, open_study, quiet
from experiments.sweeps.worker import lowest, takes
from lm.errors import UserError
from lm.runs import lock
from tests.helpers import tiny
from tests.helpers.sweep_runs import CONFIG, KILLS, finished, killed, launched, trials_of, workers_of


def run_of(**changes):
    return tiny.config(data__size=3000, train__evaluate_every=6, **changes)


def make(*space, **changes):
    config = definition("tests/sweep", run_of())
    config.space = space
    config.update(changes)
    return config


RATE = ("optim.learning_rate", "log_uniform", 0.01, 1.0)
SEED = ("seed", "integer", 0, 3)
CELL = ("model.cell", "choice", "lstm", "gru")


# --- what is tried


@pytest.mark.parametrize(
    ("axis", "shares"),
    [
        (Axis("a", "uniform", (2.0, 4.0)), {0.0: 2.0, 0.25: 2.5}),
        (Axis("a", "log_uniform", (0.01, 1.0)), {0.0: 0.01, 0.5: 0.1}),
        (Axis("a", "integer", (3, 6)), {0.0: 3, 0.24: 3, 0.26: 4, 0.999: 6}),
        (Axis("a", "choice", ("x", "y")), {0.0: "x", 0.49: "x", 0.5: "y", 0.999: "y"}),
    ],
)
def test_values_by_their_share_of_the_distribution(axis, shares):
    for share, value in shares.items():
        assert axis.at(share) == (value if isinstance(value, str) else pytest.approx(value))
        axis.distribution.to_internal_repr(axis.at(share))


def test_a_grid_is_every_combination_with_the_last_axis_fastest():
    config = make(CELL, ("seed", "choice", 1, 2, 3), sampler="grid")
    axes = make_space(config)
    assert number_of_trials(config, axes) == 6
    tried = [tuple(planned(config, axes, n).values()) for n in range(6)]
    assert tried == [("lstm", 1), ("lstm", 2), ("lstm", 3), ("gru", 1), ("gru", 2), ("gru", 3)]


@pytest.mark.parametrize("sampler", ["random", "quasi_random"])
def test_trials_depend_on_seed_and_number_alone_and_fill_the_space(sampler):
    config = make(RATE, SEED, CELL, sampler=sampler, trials=64)
    axes = make_space(config)
    tried = [planned(config, axes, n) for n in range(64)]
    assert tried[5] == planned(config, axes, 5)
    config.seed = 1
    assert tried != [planned(config, axes, n) for n in range(64)]
    low = sum(trial["optim.learning_rate"] < 0.1 for trial in tried)
    assert low == 32 if sampler == "quasi_random" else 20 <= low <= 44
    assert {trial["seed"] for trial in tried} == {0, 1, 2, 3}
    assert all(0.01 <= trial["optim.learning_rate"] <= 1.0 for trial in tried)


def test_joined_keys_get_the_same_value():
    config = make(("keep_prob.input+keep_prob.output", "uniform", 0.5, 1.0), trials=1)
    run = changed(config.run, make_space(config), {"keep_prob.input+keep_prob.output": 0.75})
    assert (run.keep_prob.input, run.keep_prob.output) == (0.75, 0.75)


@pytest.mark.parametrize(
    ("space", "changes", "words"),
    [
        ((), {}, "config.space is empty"),
        ((("seed",),), {}, "must be (key, one of uniform"),
        ((("seed", "normal", 0, 1),), {}, "one of uniform"),
        ((("optim.learning_rte", "uniform", 0.1, 1.0),), {}, "no key optim.learning_rte"),
        ((("optim.learning_rate", "choice", "fast", 1.0),), {}, "optim.learning_rate='fast' is no value"),
        ((("optim.learning_rate", "uniform", 1.0, 0.1),), {}, "needs low < high"),
        ((("optim.learning_rate", "log_uniform", 0.0, 0.1),), {}, "needs low < high, both positive"),
        ((("seed", "integer", 0.5, 2),), {}, "integer needs whole numbers"),
        ((RATE,), {"sampler": "grid"}, "a grid needs choices"),
        ((RATE, RATE), {}, "is there twice"),
        ((RATE,), {"sampler": "anneal"}, "config.sampler: unknown 'anneal'; known: grid, random"),
        ((RATE,), {"pruner": "hyperband"}, "config.pruner: unknown 'hyperband'; known: none, median, asha"),
        ((RATE,), {"trials": 0}, "config.trials must be positive"),
        ((RATE,), {"lanes": -1}, "config.lanes=-1"),
    ],
)
def test_mistakes_get_one_line(tmp_path, space, changes, words):
    config = make(*space, **{"trials": 3, **changes})
    with pytest.raises(UserError, match=re.escape(words)):
        sweep.run(config, str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_a_storage_that_cannot_be_opened(tmp_path):
    with pytest.raises(UserError, match=r"no/such/place\.db cannot be opened"):
        sweep.run(make(RATE, trials=1), str(tmp_path), storage="sqlite:////no/such/place.db")


def test_a_password_is_not_shown(tmp_path):
    config = make(RATE, trials=1)
    with pytest.raises(UserError, match=r"nosuch://me:\*\*\*@there/lm cannot be opened") as caught:
        open_study(config, Place(str(tmp_path), None, "nosuch://me:secret@there/lm", True))
    assert "secret" not in str(caught.value)


def shared_study(tmp_path, **changes):
    """(config, place, study) of a shared study whose workers must give a sign of life every second."""
    config = make(RATE, heartbeat_seconds=1, **changes)
    place = Place(str(tmp_path), None, f"sqlite:///{tmp_path}/study.db", True)
    return config, place, open_study(config, place)


def test_a_trial_whose_worker_died_before_its_first_sign_of_life_is_taken_over(tmp_path):
    config, place, study = shared_study(tmp_path, trials=1)
    axes = make_space(config)
    with quiet():
        lost = study.ask({axis.key: axis.distribution for axis in axes})
        [again] = next(takes(study, config, axes, place, 1, []))
    assert again.params == lost.params
    assert plan.origin(study.trials[again.number]) == lost.number
    assert study.trials[lost.number].state.name == "FAIL"


def test_the_death_of_a_worker_is_not_laid_on_another_machine(tmp_path):
    """Whose worker happens to have the same process id."""
    config, _, study = shared_study(tmp_path, trials=2)
    with quiet():
        trials = [study.ask({axis.key: axis.distribution for axis in make_space(config)}) for _ in range(2)]
    trials[0].set_user_attr("worker", "elsewhere:77")
    trials[1].set_user_attr("worker", name_of(77))
    sweep.record_death(study, SimpleNamespace(pid=77, exitcode=-9))
    assert [trial.state.name for trial in study.trials] == ["RUNNING", "FAIL"]


def test_another_sweep_in_the_same_place_is_refused(tmp_path):
    config = make(RATE, trials=1)
    sweep.prepare(tmp_path, config)
    with pytest.raises(UserError, match="different config"):
        sweep.prepare(tmp_path, make(RATE, SEED, trials=1))
    sweep.prepare(tmp_path, make(RATE, trials=9))  # more trials of the same
    study = open_study(config, Place(str(tmp_path), None, f"sqlite:///{tmp_path}/study.db", False))
    sweep.check_definition(study, config)
    with pytest.raises(UserError, match="space differ"):
        sweep.check_definition(study, make(SEED, trials=1))


def test_two_at_work_in_one_directory_are_refused(tmp_path):
    with lock.alone(tmp_path), pytest.raises(UserError, match="another process"):
        sweep.run(make(RATE, trials=1), str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [lock.NAME], "the refused one has written something"


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_an_estimate_is_of_as_many_trials_as_there_will_be(monkeypatch, capsys, sampler):
    """Of a sampler that looks at results, random ones stand in; the test text is not scored."""
    asked = []
    monkeypatch.setattr(train_experiment, "estimate_all", lambda runs, data_dir, jobs: asked.append((runs, jobs)))
    config = make(RATE, SEED, sampler=sampler, trials=3)
    config.lock()
    sweep.run(config, "unused", jobs=2, dry_run=True)
    [(runs, jobs)] = asked
    config.sampler = "random"
    rates = [planned(config, make_space(config), n)["optim.learning_rate"] for n in range(3)]
    assert ([run.optim.learning_rate for run in runs], jobs) == (rates, 2)
    assert all(run.evaluation.splits == ("valid",) for run in runs)
    assert ("as many random ones stand in for them" in capsys.readouterr().out) == (sampler == "tpe")


def test_configs_go_to_their_own_experiment():
    for argument, words in (
        (["--config=configs/sweeps/synthetic.py"], "is for --experiment=sweep, not for train"),
        (["--experiment=sweep"], "is for --experiment=train or evaluate"),
        (["--config=configs/benchmark.py"], "is for --experiment=benchmark, not for train"),
    ):
        with pytest.raises(UserError, match=words):
            launch.parse_flags(["launch.py", *argument])


# --- lanes


def test_trials_of_one_shape_are_packed_where_the_sampler_looks_at_no_results():
    cores = len(os.sched_getaffinity(0))
    one_shape = make(RATE, SEED, trials=8)
    assert sweep.lanes_at_once(one_shape) == (8 if cores <= 8 else 1)
    one_shape.lanes = 3
    assert sweep.lanes_at_once(one_shape) == 3
    assert sweep.lanes_at_once(make(RATE, SEED, trials=8, lanes=1)) == 1
    assert sweep.lanes_at_once(make(RATE, SEED, trials=8, sampler="tpe")) == 1
    assert sweep.lanes_at_once(make(RATE, SEED, trials=8, pruner="median")) == 1
    assert sweep.lanes_at_once(make(RATE, ("data.unroll", "integer", 2, 40), trials=8)) == 1


# --- whole sweeps


def with_grid(rates: str, more: str) -> str:
    """CONFIG with a grid of learning rates."""
    space = '("optim.learning_rate", "log_uniform", 0.01, 1.0), ("seed", "integer", 0, 99)'
    grid = CONFIG.replace(space, f'("optim.learning_rate", "choice", {rates}),')
    return grid.replace("config.trials = 5", f'config.sampler = "grid"\n    {more}')


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("configs") / "tiny_sweep.py"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def undisturbed(config_file, tmp_path_factory):
    """(workdir, output) of a sweep by two workers: which of them takes a trial makes no difference."""
    workdir = tmp_path_factory.mktemp("sweep")
    return workdir, finished(launched(config_file, workdir, "--config.lanes=1", "--jobs=2"))


def test_a_sweep_finds_its_best_trial(undisturbed):
    workdir, out = undisturbed
    trials = trials_of(workdir)
    assert [trial["state"] for trial in trials] == ["complete"] * 5
    best = min(trials, key=lambda trial: trial["value"])
    assert f"best: trial {best['number']}, validation perplexity {best['value']:.4f}" in out
    for trial in trials:
        directory = workdir / trial["workdir"]
        summary = json.loads((directory / "summary.json").read_text())
        assert summary["provenance"]["config"]["optim"]["learning_rate"] == trial["parameters"]["optim.learning_rate"]
        assert {row["split"] for row in summary["results"]} == {"valid"}, "selection sees validation only"
        assert trial["value"] == lowest(directory)
    assert {"scatter.png", "parallel.png", "importances.png", "curves.png", "report.html"} <= set(os.listdir(workdir))


def test_a_finished_sweep_trains_nothing_again(undisturbed, config_file):
    workdir, _ = undisturbed
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("metrics.jsonl")}
    trials = trials_of(workdir)
    finished(launched(config_file, workdir, "--config.lanes=1"))
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("metrics.jsonl")} == before
    assert trials_of(workdir) == trials


def test_a_sweep_killed_three_times_ends_as_the_undisturbed_one(undisturbed, config_file, tmp_path):
    moments = ("trials/0000/metrics.jsonl", "trials/0002/metrics.jsonl", "trials/0003")
    for number, (moment, kill) in enumerate(zip(moments, ("group", "supervisor", "group"), strict=True)):
        killed(config_file, tmp_path, KILLS[kill], lambda moment=moment: (tmp_path / moment).exists(), 0.1 * number)
    finished(launched(config_file, tmp_path, "--config.lanes=1"))
    assert trials_of(tmp_path) == trials_of(undisturbed[0])


def test_lanes_give_what_trials_alone_give(undisturbed, config_file, tmp_path):
    out = finished(launched(config_file, tmp_path, "--config.lanes=5"))
    assert "best: trial" in out
    for alone, lane in zip(trials_of(undisturbed[0]), trials_of(tmp_path), strict=True):
        assert lane["parameters"] == alone["parameters"]
        assert lane["value"] == pytest.approx(alone["value"], rel=1e-5)
    assert len(json.loads((tmp_path / "sweep.json").read_text())["trials"]) == 5
    assert (tmp_path / "curves.png").exists(), "lanes report their validation checks, too"


def test_failures_are_recorded_and_the_rest_goes_on(config_file, tmp_path):
    """A loss that is not finite, and a process that is gone."""
    path = tmp_path / "failing.py"
    path.write_text(with_grid("0.1, 1e38, 0.2, 0.3", 'config.run.optim.clipping = "none"'))
    process = launched(path, tmp_path / "run", "--config.lanes=1")
    while not (tmp_path / "run/trials/0002/metrics.jsonl").exists():
        time.sleep(0.02)
    for pid in workers_of(process):
        os.kill(pid, signal.SIGKILL)
    finished(process)
    trials = trials_of(tmp_path / "run")
    assert [trial["state"] for trial in trials] == ["complete", "fail", "fail", "complete"]
    assert "not finite" in trials[1]["failure"]
    assert "its process ended with signal 9" in trials[2]["failure"]


def test_a_pruner_ends_what_is_worse_than_the_median(tmp_path):
    """Trials after the first four, which fill the median."""
    path = tmp_path / "pruned.py"
    path.write_text(with_grid("1.0, 0.9, 0.8, 0.7, 0.00001", 'config.pruner = "median"'))
    finished(launched(path, tmp_path / "run"))
    trials = trials_of(tmp_path / "run")
    assert [trial["state"] for trial in trials] == ["complete"] * 4 + ["pruned"]
    rows = (tmp_path / "run/trials/0004/metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["step"] < 23


# --- TPE and reports, without training


def quadratic(config, number_of_calls, study=None):
    """A study of a function of the rate, asked as a worker asks."""
    axes = make_space(config)
    study = study or optuna.create_study(sampler=plan.make_sampler(config, axes))
    for _ in range(number_of_calls):
        trial = study.ask({axis.key: axis.distribution for axis in axes})
        study.tell(trial, (trial.params["optim.learning_rate"] - 0.3) ** 2 + 0.01 * trial.params["seed"] + 1)
    return study


def test_tpe_goes_on_after_a_restart_as_if_there_had_been_none():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    config = make(RATE, SEED, sampler="tpe", trials=20)
    whole = quadratic(config, 20)
    part = quadratic(config, 12)
    part.sampler = plan.make_sampler(config, make_space(config))
    again = quadratic(config, 8, part)
    assert [trial.params for trial in again.trials] == [trial.params for trial in whole.trials]
    rates = [trial.params["optim.learning_rate"] for trial in whole.trials]
    assert len(set(rates)) > 10


@pytest.mark.parametrize("trials", [0, 1, 12])
def test_reports_of_few_and_of_many_trials(tmp_path, trials):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = quadratic(make(RATE, SEED, trials=20), trials)
    if trials:
        failing = study.ask({"optim.learning_rate": Axis(*RATE[:2], RATE[2:]).distribution})
        failing.set_user_attr("failure", "<script>alert(1)</script>")
        study.tell(failing, state=optuna.trial.TrialState.FAIL)
        study.tell(study.ask({}), float("inf"))
    pictures.write_report(study, str(tmp_path))
    page = (tmp_path / "report.html").read_text()
    assert "<script>alert" not in page
    assert ("&lt;script&gt;alert(1)&lt;/script&gt;" in page) == bool(trials)
    assert (tmp_path / "scatter.png").exists() == bool(trials)
    assert (tmp_path / "importances.png").exists() == (trials == 12)
