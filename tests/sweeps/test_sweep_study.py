"""The study of a sweep: machines that stop responding, databases that fail, surplus trials, and foreign studies."""

import sqlite3
import threading
import time

import optuna
import pytest

from experiments.sweep import summarise
from experiments.sweeps import pictures, worker
from experiments.sweeps.plan import plan_trial
from experiments.sweeps.study import Place, Sweep, open_sweep, quiet_optuna
from experiments.sweeps.supervisor import requeue_orphans
from experiments.sweeps.training import train_trials
from experiments.sweeps.trials import place_of
from experiments.sweeps.worker import heartbeats, record_heartbeats, take_trials
from lm.errors import UserError
from lm.runs import lock
from tests.helpers import tiny
from tests.test_sweep import RATE, SEED, make


@pytest.fixture(autouse=True)
def quiet():
    with quiet_optuna():
        yield


def opened(tmp_path, shared=True, **changes) -> Sweep:
    """A sweep of short runs; in a shared study with a heartbeat every second."""
    config = make(RATE, SEED, heartbeat_seconds=1, **changes)
    config.run.train.steps = 8
    return open_sweep(config, Place(str(tmp_path), None, f"sqlite:///{tmp_path}/study.db", shared))


def make_stale(sweep: Sweep, trial: optuna.trial.Trial):
    """Sets the last heartbeat of a trial to an hour ago."""
    record_heartbeats(sweep, [trial.number])
    with sqlite3.connect(sweep.place.storage.removeprefix("sqlite:///")) as database:
        database.execute("update trial_heartbeats set heartbeat = datetime('now', '-1 hour')")
    database.close()


def fail(sweep: Sweep, trial: optuna.trial.Trial):
    """Fails a trial as another machine does that takes this one for dead."""
    sweep.storage.set_trial_state_values(sweep.id_of(trial.number), optuna.trial.TrialState.FAIL)


def train(sweep: Sweep, trials: list[optuna.trial.Trial]):
    train_trials(sweep, trials, {repr(sweep.config.run.data.to_dict()): tiny.corpus()})


# --- machines that stop responding


def test_a_machine_that_was_taken_for_dead_continues_with_other_trials(tmp_path):
    """Another machine has failed its trial in the meantime, and that result stays."""
    sweep = opened(tmp_path, trials=2)
    trial = sweep.ask()
    fail(sweep, trial)
    train(sweep, [trial])
    assert [each.state.name for each in sweep.study.trials] == ["FAIL"]
    train(sweep, [sweep.ask()])
    assert [each.state.name for each in sweep.study.trials] == ["FAIL", "COMPLETE"]


def test_a_repeated_trial_waits_for_a_process_that_was_taken_for_dead(tmp_path):
    sweep = opened(tmp_path, trials=1)
    make_stale(sweep, sweep.ask())
    [repeated] = next(take_trials(sweep, 1))
    directory = tmp_path / "trials" / "0000"
    directory.mkdir(parents=True)
    with lock.alone(directory):
        thread = threading.Thread(target=train, args=(sweep, [repeated]))
        thread.start()
        thread.join(1.5)
        assert thread.is_alive()
        assert sweep.study.trials[repeated.number].state.name == "RUNNING"
    thread.join(120)
    assert sweep.study.trials[repeated.number].state.name == "COMPLETE"


@pytest.mark.parametrize("retries", [0, 2])
def test_a_trial_fails_if_its_machines_all_stop_responding(tmp_path, retries):
    sweep = opened(tmp_path, trials=1, retries=retries)
    for _ in range(retries + 1):
        [trial] = next(take_trials(sweep, 1))
        make_stale(sweep, trial)
    assert list(take_trials(sweep, 1)) == []
    assert len(sweep.study.trials) == retries + 1
    [trial] = summarise(sweep.study, "tests/sweep")["trials"]
    assert trial["state"] == "fail"
    assert trial["failure"] == f"its machine stopped responding {retries + 1} time{'s' if retries else ''}"


def test_a_repeated_trial_that_completes_has_no_failure(tmp_path):
    sweep = opened(tmp_path, trials=1)
    make_stale(sweep, sweep.ask())
    [repeated] = next(take_trials(sweep, 1))
    sweep.study.tell(repeated, 3.0)
    [trial] = summarise(sweep.study, "tests/sweep")["trials"]
    assert (trial["state"], trial["failure"]) == ("complete", None)


@pytest.mark.slow
def test_heartbeats_continue_after_the_database_has_failed(tmp_path, monkeypatch):
    sweep = opened(tmp_path, trials=1)
    recorded = []

    def failing(sweep, numbers):
        recorded.append(time.monotonic())
        if len(recorded) in (2, 3):
            raise optuna.exceptions.StorageInternalError("the server is away")
        record_heartbeats(sweep, numbers)

    monkeypatch.setattr(worker, "record_heartbeats", failing)
    with heartbeats(sweep, [], 0.1) as thread:
        time.sleep(1.5)
        assert thread.is_alive()
    assert len(recorded) >= 5


# --- surplus trials


def test_a_surplus_trial_has_no_place_in_the_plan(tmp_path):
    """Two workers took the last trial at once; later the sweep gets more trials."""
    sweep = opened(tmp_path, shared=False, trials=2)
    for _ in range(3):
        trial = sweep.ask()
    trial.set_user_attr("surplus", "two workers took the last trial at once")
    sweep.study.tell(trial, state=optuna.trial.TrialState.FAIL)
    sweep.config.trials = 4
    taken = [next(take_trials(sweep, 1))[0] for _ in range(2)]
    assert [place_of(sweep.study, sweep.study.trials[each.number]) for each in taken] == [2, 3]
    assert [each.params for each in taken] == [plan_trial(sweep.config, sweep.axes, n) for n in (2, 3)]
    assert list(take_trials(sweep, 1)) == []


def test_a_surplus_trial_of_a_killed_worker_is_not_trained(tmp_path):
    sweep = opened(tmp_path, shared=False, trials=1)
    for _ in range(2):
        sweep.ask()
    assert requeue_orphans(sweep, [])
    taken = list(take_trials(sweep, 1))
    assert [[each.number for each in group] for group in taken] == [[0]]
    assert len(summarise(sweep.study, "tests/sweep")["trials"]) == 1


# --- foreign studies


@pytest.mark.parametrize("directory", [5, "../outside", "/etc", {"a": 1}])
def test_a_directory_that_a_foreign_study_names_is_not_read(tmp_path, directory):
    for name in ("sweep", "outside"):
        (tmp_path / name).mkdir()
    sweep = opened(tmp_path / "sweep", trials=1)
    (tmp_path / "outside" / "metrics.jsonl").write_text('{"step": 0, "epoch": 1.0, "loss": 1, "valid_perplexity": 2}')
    trial = sweep.ask()
    trial.set_user_attr("workdir", directory)
    sweep.study.tell(trial, 3.0)
    pictures.write_report(sweep.study, tmp_path / "sweep")
    assert not (tmp_path / "sweep" / "curves.png").exists()
    assert summarise(sweep.study, "tests/sweep")["trials"][0]["workdir"] == "trials/0000"


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("seconds", [1]), ("failure", 5), ("worker", {}), ("surplus", 1)],
)
def test_a_study_with_a_wrong_attribute_is_refused(tmp_path, attribute, value):
    opened(tmp_path, trials=2).ask().set_user_attr(attribute, value)
    with pytest.raises(UserError, match=f"trial 0: {attribute}"):
        opened(tmp_path, trials=2)


def test_a_study_with_a_trial_that_repeats_no_number_is_refused(tmp_path):
    sweep = opened(tmp_path, trials=2)
    sweep.storage.set_trial_system_attr(sweep.id_of(sweep.ask().number), "failed_trial", "first")
    with pytest.raises(UserError, match="trial 0: failed_trial"):
        opened(tmp_path, trials=2)


def test_a_study_of_another_space_is_refused(tmp_path):
    distribution = optuna.distributions.CategoricalDistribution((1, 2))
    trial = optuna.create_trial(value=1.0, params={"model.hidden": 1}, distributions={"model.hidden": distribution})
    opened(tmp_path, trials=2).study.add_trial(trial)
    with pytest.raises(UserError, match=r"trial 0: model\.hidden is missing from config\.space"):
        opened(tmp_path, trials=2)


def test_a_value_outside_its_range_is_refused(tmp_path):
    opened(tmp_path, trials=2).ask()
    with sqlite3.connect(tmp_path / "study.db") as database:
        database.execute("update trial_params set param_value = 7.5 where param_name = 'optim.learning_rate'")
    database.close()
    with pytest.raises(UserError, match=r"trial 0: The value 7\.5 of parameter 'optim\.learning_rate'"):
        opened(tmp_path, trials=2)
