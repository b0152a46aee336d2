"""The study of a sweep: machines that fall silent or only seem to, a database that fails for a while, what is one trial
too many, and a stranger's study."""

import sqlite3
import threading
import time

import optuna
import pytest

from experiments import sweep
from experiments.sweeps import heartbeat, pictures, plan
from experiments.sweeps.heartbeat import Heart
from experiments.sweeps.plan import make_space, planned
from experiments.sweeps.study import Place, check_trials, open_study, quiet
from experiments.sweeps.worker import takes, train_trials
from lm.errors import UserError
from lm.runs import lock
from tests.helpers import tiny
from tests.test_sweep import RATE, SEED, make


@pytest.fixture(autouse=True)
def hushed():
    with quiet():
        yield


def opened(tmp_path, shared=True, **changes):
    """(config, place, study); of a shared study the machines must give a sign of life every second."""
    config = make(RATE, SEED, heartbeat_seconds=1, **changes)
    config.run.train.steps = 8
    place = Place(str(tmp_path), None, f"sqlite:///{tmp_path}/study.db", shared)
    return config, place, open_study(config, place)


def ask(study, config):
    return study.ask({axis.key: axis.distribution for axis in make_space(config)})


def fall_silent(place, trial):
    """The last sign of life of a trial was an hour ago."""
    heartbeat.beat(trial.study, [trial._trial_id])
    with sqlite3.connect(place.storage.removeprefix("sqlite:///")) as database:
        database.execute("update trial_heartbeats set heartbeat = datetime('now', '-1 hour')")
    database.close()


def train(study, trials, config, place):
    train_trials(study, trials, config, make_space(config), place, {repr(config.run.data.to_dict()): tiny.corpus()})


# --- silence


def test_a_machine_that_was_taken_for_dead_goes_on_with_other_trials(tmp_path):
    """Another has failed its trial meanwhile: that one's word stands."""
    config, place, study = opened(tmp_path, trials=2)
    trial = ask(study, config)
    study._storage.set_trial_state_values(trial._trial_id, optuna.trial.TrialState.FAIL)
    train(study, [trial], config, place)
    assert [each.state.name for each in study.trials] == ["FAIL"]
    train(study, [ask(study, config)], config, place)
    assert [each.state.name for each in study.trials] == ["FAIL", "COMPLETE"]


def test_a_repeated_trial_waits_for_the_process_that_was_taken_for_dead(tmp_path):
    config, place, study = opened(tmp_path, trials=1)
    fall_silent(place, ask(study, config))
    [again] = next(takes(study, config, make_space(config), place, 1, []))
    directory = tmp_path / "trials" / "0000"
    directory.mkdir(parents=True)
    with lock.alone(directory):
        thread = threading.Thread(target=train, args=(study, [again], config, place))
        thread.start()
        thread.join(1.5)
        assert thread.is_alive()
        assert study.trials[again.number].state.name == "RUNNING"
    thread.join(120)
    assert study.trials[again.number].state.name == "COMPLETE"


@pytest.mark.parametrize("retries", [0, 2])
def test_a_trial_whose_machines_all_fall_silent_fails_with_that_reason(tmp_path, retries):
    config, place, study = opened(tmp_path, trials=1, retries=retries)
    for _ in range(retries + 1):
        [trial] = next(takes(study, config, make_space(config), place, 1, []))
        fall_silent(place, trial)
    assert list(takes(study, config, make_space(config), place, 1, [])) == []
    content = sweep.outcome(study, config)
    assert len(study.trials) == retries + 1
    [trial] = content["trials"]
    assert trial["state"] == "fail"
    assert trial["failure"] == f"its machine fell silent {retries + 1} time{'s' if retries else ''}"


def test_a_repeated_trial_that_ends_well_has_no_failure(tmp_path):
    config, place, study = opened(tmp_path, trials=1)
    fall_silent(place, ask(study, config))
    [again] = next(takes(study, config, make_space(config), place, 1, []))
    study.tell(again, 3.0)
    [trial] = sweep.outcome(study, config)["trials"]
    assert (trial["state"], trial["failure"]) == ("complete", None)


def test_signs_of_life_go_on_after_the_database_has_failed_for_a_while(tmp_path, monkeypatch):
    _, _, study = opened(tmp_path, trials=1)
    heard, beat = [], heartbeat.beat

    def failing(study, trials):
        heard.append(time.monotonic())
        if len(heard) in (2, 3):
            raise optuna.exceptions.StorageInternalError("the server is away")
        beat(study, trials)

    monkeypatch.setattr(heartbeat, "beat", failing)
    with Heart(study, 0.1) as heart:
        heart.watch([])
        time.sleep(3.5)
        assert heart.thread.is_alive()
    assert len(heard) >= 5


# --- one too many


def test_a_trial_too_many_takes_no_place_in_the_plan(tmp_path):
    """Two workers took the last trial at once; later there should be more."""
    config, place, study = opened(tmp_path, shared=False, trials=2)
    axes = make_space(config)
    for _ in range(3):
        trial = ask(study, config)
    trial.set_user_attr("surplus", "two workers took the last trial at once")
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    config.trials = 4
    taken = [next(takes(study, config, axes, place, 1, []))[0] for _ in range(2)]
    places = [plan.place_of(study, study.trials[each.number]) for each in taken]
    assert places == [2, 3]
    assert [each.params for each in taken] == [planned(config, axes, n) for n in (2, 3)]
    assert list(takes(study, config, axes, place, 1, [])) == []


def test_a_trial_too_many_that_a_kill_left_behind_is_not_trained(tmp_path):
    config, place, study = opened(tmp_path, shared=False, trials=1)
    trials = [ask(study, config) for _ in range(2)]
    left = [(trial._trial_id,) for trial in trials]
    taken = list(takes(study, config, make_space(config), place, 1, left))
    assert [[each.number for each in group] for group in taken] == [[0]]
    assert len(sweep.outcome(study, config)["trials"]) == 1


# --- a stranger's study


@pytest.mark.parametrize("where", [5, "../outside", "/etc", {"a": 1}])
def test_where_a_stranger_says_a_trial_was_is_not_where_we_look(tmp_path, where):
    for name in ("sweep", "outside"):
        (tmp_path / name).mkdir()
    config, _, study = opened(tmp_path / "sweep", trials=1)
    (tmp_path / "outside" / "metrics.jsonl").write_text('{"step": 0, "epoch": 1.0, "loss": 1, "valid_perplexity": 2}')
    trial = ask(study, config)
    trial.set_user_attr("workdir", where)  # nobody reads it
    study.tell(trial, 3.0)
    pictures.write_report(study, str(tmp_path / "sweep"))
    assert not (tmp_path / "sweep" / "curves.png").exists()
    assert sweep.outcome(study, config)["trials"][0]["workdir"] == "trials/0000"


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("seconds", [1]), ("failure", 5), ("worker", {}), ("surplus", 1)],
)
def test_a_study_whose_trials_say_what_they_cannot_is_refused(tmp_path, attribute, value):
    config, _, study = opened(tmp_path, trials=2)
    ask(study, config).set_user_attr(attribute, value)
    with pytest.raises(UserError, match=f"trial 0: {attribute}"):
        check_trials(study, make_space(config))


def test_a_study_whose_trial_repeats_no_number_is_refused(tmp_path):
    config, _, study = opened(tmp_path, trials=2)
    trial = ask(study, config)
    study._storage.set_trial_system_attr(trial._trial_id, "failed_trial", "first")
    with pytest.raises(UserError, match="trial 0: failed_trial"):
        check_trials(study, make_space(config))


def test_a_study_of_another_space_is_refused(tmp_path):
    config, _, study = opened(tmp_path, trials=2)
    study.add_trial(optuna.create_trial(
        value=1.0, params={"model.hidden": 1},
        distributions={"model.hidden": optuna.distributions.CategoricalDistribution((1, 2))},
    ))  # fmt: skip
    with pytest.raises(UserError, match=r"trial 0: model\.hidden is no parameter of config\.space"):
        check_trials(study, make_space(config))
