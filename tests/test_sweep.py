"""Sweeps: the planned trials, resuming after a kill, and failures of single trials."""

import json
import os
import re
import signal
import time
from types import SimpleNamespace

import optuna
import pytest

import launch
from experiments import sweep
from experiments.sweeps import pictures, plan
from experiments.sweeps.plan import plan_trial
from experiments.sweeps.space import Axis, make_space
from experiments.sweeps.study import Place, Sweep, name_worker, open_sweep, quiet_optuna
from experiments.sweeps.supervisor import handle_exit, requeue_orphans
from experiments.sweeps.training import read_validations
from experiments.sweeps.trials import origin
from experiments.sweeps.worker import take_trials
from lm.errors import UserError
from lm.runs import lock
from tests.helpers.sweep_plans import CELL, RATE, SEED, make
from tests.helpers.sweep_runs import CONFIG, KILLS, SPACE, finished, killed, launched, trials_of, workers_of

# --- the plan


def test_a_storage_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no/such/place\.db cannot be opened"):
        sweep.run(make(RATE, trials=1), str(tmp_path), storage="sqlite:////no/such/place.db")


def test_a_password_is_not_shown(tmp_path):
    config = make(RATE, trials=1)
    with pytest.raises(UserError, match=r"nosuch://me:\*\*\*@there/lm cannot be opened") as caught:
        open_sweep(config, Place(str(tmp_path), None, "nosuch://me:secret@there/lm", True))
    assert "secret" not in str(caught.value)


def shared_sweep(tmp_path, **changes) -> Sweep:
    """A sweep in a shared study, with a heartbeat every second."""
    config = make(RATE, heartbeat_seconds=1, **changes)
    return open_sweep(config, Place(str(tmp_path), None, f"sqlite:///{tmp_path}/study.db", True))


def test_a_trial_whose_worker_died_before_its_first_heartbeat_is_repeated(tmp_path):
    shared = shared_sweep(tmp_path, trials=1)
    with quiet_optuna():
        lost = shared.ask()
        [repeated] = next(take_trials(shared, 1))
    assert repeated.params == lost.params
    assert origin(shared.study.trials[repeated.number]) == lost.number
    assert shared.study.trials[lost.number].state.name == "FAIL"


def test_a_dead_worker_fails_no_trial_of_another_machine(tmp_path):
    """Even if a worker there has the same process id."""
    shared = shared_sweep(tmp_path, trials=2)
    with quiet_optuna():
        trials = [shared.ask() for _ in range(2)]
        trials[0].set_user_attr("worker", "elsewhere:77")
        trials[1].set_user_attr("worker", name_worker(77))
        handle_exit(shared, SimpleNamespace(process=SimpleNamespace(pid=77, returncode=-9)))
    assert [trial.state.name for trial in shared.study.trials] == ["RUNNING", "FAIL"]


def test_an_adopted_trial_gets_the_parameters_that_it_lacks(tmp_path):
    """Its process died while the study gave it parameters."""
    config = make(RATE, SEED, CELL, trials=2)
    alone = open_sweep(config, Place(str(tmp_path), None, f"sqlite:///{tmp_path}/study.db", False))
    with quiet_optuna():
        complete, bare = alone.ask(), alone.study.ask()
        complete.set_user_attr("worker", name_worker(77))
        assert requeue_orphans(alone, [])
        adopted = list(take_trials(alone, 1))
    assert [trial.number for [trial] in adopted] == [complete.number, bare.number]
    assert [trial.params for [trial] in adopted] == [plan_trial(config, alone.axes, number) for number in range(2)]


def test_trials_of_living_workers_are_not_given_to_others(tmp_path):
    """Not even one that a worker has taken and not yet signed, unless no worker is left."""
    alone = open_sweep(make(RATE, trials=3), Place(str(tmp_path), None, f"sqlite:///{tmp_path}/study.db", False))
    with quiet_optuna():
        for name in (name_worker(77), name_worker(78), None):
            trial = alone.ask()
            if name:
                trial.set_user_attr("worker", name)
        living = SimpleNamespace(process=SimpleNamespace(pid=77))
        assert requeue_orphans(alone, [living])
        assert [trial.state.name for trial in alone.study.trials] == ["RUNNING", "WAITING", "RUNNING"]
        assert not requeue_orphans(alone, [living])
        assert requeue_orphans(alone, [])
    assert {trial.state.name for trial in alone.study.trials} == {"WAITING"}


def test_another_sweep_in_the_same_place_is_refused(tmp_path):
    place = Place(str(tmp_path), None, f"sqlite:///{tmp_path}/study.db", False)
    open_sweep(make(RATE, trials=1), place)
    open_sweep(make(RATE, trials=9), place)  # more trials of the same sweep
    with pytest.raises(UserError, match=r"another sweep named tests/sweep \(config\.space differ\)"):
        open_sweep(make(SEED, trials=1), place)


def test_another_sweep_in_the_same_directory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "supervise", lambda *arguments: None)
    for trials in (1, 9):
        with pytest.raises(UserError, match="no trial of the sweep has a value"):
            sweep.run(make(RATE, trials=trials), str(tmp_path))
    with pytest.raises(UserError, match="different config"):
        sweep.run(make(RATE, SEED, trials=1), str(tmp_path))


def test_a_sweep_may_choose_the_length_of_its_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "supervise", lambda *arguments: None)
    config = make(("train.steps", "choice", 2, 3), trials=1)
    config.run.train.steps = 0
    with pytest.raises(UserError, match="no trial of the sweep has a value"):
        sweep.run(config, str(tmp_path / "chosen"))
    config = make(RATE, trials=1)
    config.run.train.steps = 0
    with pytest.raises(UserError, match=r"train\.steps"):
        sweep.run(config, str(tmp_path / "none"))


def test_a_second_sweep_in_one_directory_is_refused(tmp_path):
    with lock.alone(tmp_path), pytest.raises(UserError, match="another process"):
        sweep.run(make(RATE, trials=1), str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [lock.NAME], "the refused sweep has written something"


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_dry_run_estimates_every_trial_without_the_test_split(monkeypatch, capsys, sampler):
    """Random trials stand in for those of a sampler that uses results."""
    asked = []
    monkeypatch.setattr(sweep, "estimate_all", lambda runs, data_dir, jobs: asked.append((runs, jobs)))
    config = make(RATE, SEED, sampler=sampler, trials=3)
    config.lock()
    sweep.run(config, "unused", jobs=2, dry_run=True)
    [(runs, jobs)] = asked
    config.sampler = "random"
    rates = [plan_trial(config, make_space(config), n)["optim.learning_rate"] for n in range(3)]
    assert ([run.optim.learning_rate for run in runs], jobs) == (rates, 2)
    assert all(run.evaluation.splits == ("valid",) for run in runs)
    assert ("the estimate is for random trials" in capsys.readouterr().out) == (sampler == "tpe")


def test_a_config_of_another_experiment_is_refused():
    for argument, words in (
        (["--config=configs/sweeps/synthetic.py"], "is for --experiment=sweep, not for train"),
        (["--experiment=sweep"], "is for --experiment=train or evaluate"),
        (["--config=configs/benchmark.py"], "is for --experiment=benchmark, not for train"),
    ):
        with pytest.raises(UserError, match=words):
            launch.parse_flags(["launch.py", *argument])


# --- lanes


# --- whole sweeps


def with_grid(rates: str, more: str) -> str:
    """CONFIG with a grid of learning rates."""
    grid = CONFIG.replace(SPACE, f'("optim.learning_rate", "choice", {rates}),')
    return grid.replace("config.trials = 5", f'config.sampler = "grid"\n    {more}')


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("configs") / "tiny_sweep.py"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def undisturbed(config_file, tmp_path_factory):
    """(workdir, output) of a sweep that two workers ran without a kill."""
    workdir = tmp_path_factory.mktemp("sweep")
    return workdir, finished(launched(config_file, workdir, "--config.lanes=1", "--jobs=2"))


def test_a_sweep_reports_its_best_trial(undisturbed):
    workdir, out = undisturbed
    trials = trials_of(workdir)
    assert [trial["state"] for trial in trials] == ["complete"] * 5
    best = min(trials, key=lambda trial: trial["value"])
    chosen = ", ".join(f"{key}={value}" for key, value in best["parameters"].items())
    assert f"best: trial {best['number']}, validation perplexity {best['value']:.4f} ({chosen})" in out
    assert f"--config={workdir}/{best['workdir']}/config.json --workdir=NEW" in out
    assert (workdir / best["workdir"] / "config.json").is_file()
    for trial in trials:
        directory = workdir / trial["workdir"]
        summary = json.loads((directory / "summary.json").read_text())
        assert summary["provenance"]["config"]["optim"]["learning_rate"] == trial["parameters"]["optim.learning_rate"]
        assert {row["split"] for row in summary["results"]} == {"valid"}, "selection sees validation only"
        assert trial["value"] == min(row["valid_perplexity"] for row in read_validations(directory))
    assert {"scatter.png", "parallel.png", "importances.png", "curves.png", "report.html"} <= set(os.listdir(workdir))


@pytest.mark.slow
def test_a_finished_sweep_trains_nothing_again(undisturbed, config_file):
    workdir, _ = undisturbed
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("metrics.jsonl")}
    trials = trials_of(workdir)
    finished(launched(config_file, workdir, "--config.lanes=1"))
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("metrics.jsonl")} == before
    assert trials_of(workdir) == trials


@pytest.mark.slow
def test_a_sweep_killed_three_times_gives_the_same_trials(undisturbed, config_file, tmp_path):
    moments = ("trials/0000/metrics.jsonl", "trials/0002/metrics.jsonl", "trials/0003")
    for number, (moment, kill) in enumerate(zip(moments, ("group", "supervisor", "group"), strict=True)):
        killed(config_file, tmp_path, KILLS[kill], lambda moment=moment: (tmp_path / moment).exists(), 0.1 * number)
    finished(launched(config_file, tmp_path, "--config.lanes=1"))
    assert trials_of(tmp_path) == trials_of(undisturbed[0])


@pytest.mark.slow
def test_lanes_give_the_values_of_trials_alone(undisturbed, config_file, tmp_path):
    out = finished(launched(config_file, tmp_path, "--config.lanes=5"))
    assert "best: trial" in out
    for alone, lane in zip(trials_of(undisturbed[0]), trials_of(tmp_path), strict=True):
        assert lane["parameters"] == alone["parameters"]
        assert lane["value"] == pytest.approx(alone["value"], rel=1e-5)
    assert len(json.loads((tmp_path / "sweep.json").read_text())["trials"]) == 5
    assert (tmp_path / "curves.png").exists(), "lanes report their validation checks, too"


@pytest.mark.slow
def test_failures_are_recorded_and_the_other_trials_finish(config_file, tmp_path):
    """A loss that is not finite, and a worker that is killed."""
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


@pytest.mark.slow
def test_the_median_pruner_ends_a_bad_trial(tmp_path):
    """The first four trials give the median and are never pruned."""
    path = tmp_path / "pruned.py"
    path.write_text(with_grid("1.0, 0.9, 0.8, 0.7, 0.00001", 'config.pruner = "median"'))
    finished(launched(path, tmp_path / "run"))
    trials = trials_of(tmp_path / "run")
    assert [trial["state"] for trial in trials] == ["complete"] * 4 + ["pruned"]
    rows = (tmp_path / "run/trials/0004/metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["step"] < 23


# --- TPE and reports, without training


def quadratic(config, number_of_calls, study=None):
    """A study with trials of a quadratic function of the rate."""
    axes = make_space(config)
    study = study or optuna.create_study(sampler=plan.make_sampler(config, axes))
    for _ in range(number_of_calls):
        trial = study.ask({axis.key: axis.distribution for axis in axes})
        study.tell(trial, (trial.params["optim.learning_rate"] - 0.3) ** 2 + 0.01 * trial.params["seed"] + 1)
    return study


def test_tpe_gives_the_same_trials_after_a_restart():
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
def test_the_report_of_few_and_of_many_trials(tmp_path, trials):
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


def test_the_report_sorts_trials_marks_the_best_and_survives_a_picture(tmp_path, monkeypatch, capsys):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    monkeypatch.setattr(pictures, "draw_parallel", lambda study, ceiling: 1 / 0)
    study = quadratic(make(RATE, SEED, trials=20), 5)
    study.tell(study.ask({}), state=optuna.trial.TrialState.FAIL)
    (tmp_path / "trials/0002").mkdir(parents=True)
    pictures.write_report(study, tmp_path)
    page = (tmp_path / "report.html").read_text()
    shown = re.findall(r"<td[^>]*>([\d.]+)(?: \(best\))?</td>\s*<td></td>\s*</tr>", page)
    expected = sorted(trial.value for trial in study.trials[:5])
    assert shown == [f"{value:.4f}" for value in expected]
    assert re.findall(r"([\d.]+) \(best\)", page) == [f"{expected[0]:.4f}"]
    assert re.findall(r'<a href="(.*?)">(.*?)</a>', page) == [("trials/0002/", "2")]
    assert "parallel.png cannot be drawn: ZeroDivisionError" in capsys.readouterr().err
    assert (tmp_path / "scatter.png").exists()
