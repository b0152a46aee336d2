"""The processes of a sweep: workers end with their supervisor, save when asked to end, and say why they give up."""

import builtins
import os
import signal
import time
from pathlib import Path

import optuna
import pytest

from experiments import sweep
from experiments.sweeps import pictures
from experiments.sweeps.study import Place, open_sweep, quiet_optuna
from experiments.sweeps.training import train_trials
from lm.errors import UserError
from lm.runs import files, metrics
from tests.helpers import tiny
from tests.helpers.sweep_runs import CONFIG, finished, is_running, launched, trials_of, wait_for, workers_of
from tests.test_sweep import RATE, SEED, make

pytestmark = pytest.mark.slow

# Three trials of seconds each, whose checkpoints are rare: what is saved in between was saved on demand.
SLOW = CONFIG.replace("train__steps=24, train__evaluate_every=6", "train__steps=20000, train__evaluate_every=5000")
SLOW = SLOW.replace("checkpoint__every_steps=6", "checkpoint__every_steps=100000").replace("trials = 5", "trials = 2")


@pytest.fixture
def slow(tmp_path):
    path = tmp_path / "slow.py"
    path.write_text(SLOW)
    return path


def trains(workdir: Path, place: int = 0) -> bool:
    """Whether a trial has made a step."""
    path = workdir / "trials" / f"{place:04}" / "metrics.jsonl"
    return path.exists() and path.stat().st_size > 0


# --- ends


@pytest.mark.parametrize("moment", ["start", "training"])
def test_a_worker_ends_with_its_supervisor(slow, tmp_path, moment):
    """Also where that is killed before the worker has imported what it needs."""
    process = launched(slow, tmp_path / "run", "--config.lanes=1")
    wait_for(lambda: workers_of(process))
    workers = workers_of(process)
    if moment == "training":
        wait_for(lambda: trains(tmp_path / "run"))
    else:
        time.sleep(0.4)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not any(map(is_running, workers)), 5)
    process.stdout.close()
    assert moment == "training" or not (tmp_path / "run" / "trials").exists()


@pytest.mark.parametrize(
    ("number", "send", "status"),
    [(signal.SIGINT, os.killpg, 130), (signal.SIGTERM, os.kill, 0)],
    ids=["ctrl_c_to_all", "sigterm_to_the_supervisor"],
)
def test_a_signal_lets_workers_save_and_the_same_command_goes_on(slow, tmp_path, number, send, status):
    """A terminal's Ctrl-C reaches all processes, a `kill` one."""
    workdir = tmp_path / "run"
    process = launched(slow, workdir, "--config.lanes=1")
    wait_for(lambda: trains(workdir))
    workers = workers_of(process)
    assert not list(workdir.glob("trials/*/checkpoints/last/*"))
    send(process.pid, number)
    out, _ = process.communicate(timeout=60)
    assert out.splitlines()[-1] == (
        "the sweep has stopped, and its trials are saved: run the same command again to resume from the last checkpoint"
    )
    assert process.returncode == status
    assert "Traceback" not in out
    assert not any(map(is_running, workers))
    [saved] = workdir.glob("trials/0000/checkpoints/last/[0-9]*")
    assert 0 < int(saved.name) < 20000
    finished(launched(slow, workdir, "--config.lanes=1"))
    assert [trial["state"] for trial in trials_of(workdir)] == ["complete"] * 2
    assert f"/trials/0000 after {saved.name} of 20000 steps" in (workdir / "trials.log").read_text()


# --- disks


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(lambda path: path.symlink_to("/dev/full"), "No space left on device"), (Path.mkdir, "Is a directory")],
    ids=["full", "directory"],
)
def test_what_trials_print_cannot_be_written(tmp_path, spoil, reason):
    """One line, no trial has failed of it, and the same command goes on."""
    config, workdir = tmp_path / "config.py", tmp_path / "run"
    config.write_text(CONFIG.replace("trials = 5", "trials = 2"))
    workdir.mkdir()
    spoil(workdir / "trials.log")
    process = launched(config, workdir, "--config.lanes=1")
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 2, out
    assert out.splitlines()[-1] == f"error: cannot write {workdir}/trials.log: {reason}"
    assert "Traceback" not in out
    (workdir / "trials.log").rmdir() if (workdir / "trials.log").is_dir() else (workdir / "trials.log").unlink()
    finished(launched(config, workdir, "--config.lanes=1"))
    assert [trial["state"] for trial in trials_of(workdir)] == ["complete"] * 2


@pytest.mark.parametrize("together", [1, 2])
def test_a_full_disk_is_no_failure_of_a_trial(tmp_path, monkeypatch, together):
    """Alone or in lanes: all that follow would meet the same disk."""
    config = make(RATE, SEED, trials=2)
    config.run.train.steps = 8
    place = Place(str(tmp_path), None, f"sqlite:///{tmp_path}/study.db", False)
    corpora = {repr(config.run.data.to_dict()): tiny.corpus()}

    def full(self, row):
        raise UserError("cannot write metrics.jsonl: No space left on device")

    with quiet_optuna():
        opened = open_sweep(config, place)
        trials = [opened.ask() for _ in range(together)]
        with monkeypatch.context() as patch:
            patch.setattr(metrics.MetricsLog, "write", full)
            with pytest.raises(UserError, match="No space left on device"):
                train_trials(opened, trials, corpora)
        assert {trial.state.name for trial in opened.study.trials} == {"RUNNING"}
        train_trials(opened, trials, corpora)
        assert {trial.state.name for trial in opened.study.trials} == {"COMPLETE"}


@pytest.mark.parametrize("name", ["scatter.png", "report.html"])
def test_a_report_on_a_full_disk_is_refused_with_one_line(tmp_path, monkeypatch, name):
    def filled(path, *arguments, **options):
        return builtins.open("/dev/full", "wb") if name in str(path) else builtins.open(path, *arguments, **options)

    study = optuna.create_study()
    study.tell(study.ask({"rate": optuna.distributions.FloatDistribution(0, 1)}), 3.0)
    monkeypatch.setattr(files, "open", filled, raising=False)
    with pytest.raises(UserError, match=f"{name}: No space left on device"):
        pictures.write_report(study, str(tmp_path))
    assert not (tmp_path / name).exists()


# --- failing databases


def test_a_database_that_fails_ends_a_sweep_with_one_line(tmp_path, monkeypatch):
    """A full disk under study.db, say."""

    def failing(*arguments):
        raise optuna.exceptions.StorageInternalError("x") from OSError("database or disk is full")

    monkeypatch.setattr(sweep, "supervise", failing)
    with pytest.raises(UserError, match=r"the study in sqlite:///.*study\.db cannot be used: database or disk is full"):
        sweep.run(make(RATE, SEED, trials=1), str(tmp_path))
