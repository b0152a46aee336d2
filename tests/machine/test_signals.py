"""What may come between a run and its end: a signal, another process, another text, a loss that is not finite."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import launch
from lm.errors import UserError
from lm.machine.signals import Interrupted, listening
from lm.runs import lock
from lm.training.lanes import train_lanes
from lm.training.loop import Trainer, train
from lm.training.recorder import Recorder
from lm.training.setup import make_setup
from tests.helpers import tiny
from tests.helpers.run_state import leaves_of, rows_of

ROOT = Path(__file__).resolve().parents[2]

CONFIG = {
    "train__report_every": 4,
    "train__evaluate_every": 4,
    "checkpoint__every_steps": 100,
    "keep_prob__output": 0.8,
}


@pytest.fixture(autouse=True)
def hangups_are_noticed():
    """By this process and its children, even if the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_a_run_that_goes_on_bitwise(tmp_path, number):
    def send(step, perplexity):
        if step == 4:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    (tmp_path / "whole").mkdir()
    whole = Trainer(Recorder(make_setup(tiny.config(**CONFIG), tiny.corpus()), tmp_path / "whole"))
    whole.run()
    with pytest.raises(Interrupted, match="stopped after 5 of 12 steps, all saved") as caught:
        train(make_setup(tiny.config(**CONFIG), tiny.corpus()), tmp_path / "cut", observe=send)
    assert caught.value.signal == number
    assert signal.getsignal(number) == before
    again = Trainer(Recorder(make_setup(tiny.config(**CONFIG), tiny.corpus()), tmp_path / "cut"))
    assert again.recorder.done == 5
    again.run()
    for a, b in zip(leaves_of(whole), leaves_of(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")


@pytest.mark.slow
def test_a_signal_ends_lanes_that_go_on(tmp_path, monkeypatch):
    configs = [tiny.config(**CONFIG, seed=seed) for seed in (0, 1)]
    paths = [[tmp_path / name / str(seed) for seed in (0, 1)] for name in ("whole", "cut")]
    whole = train_lanes(tiny.setups(configs), paths[0])
    original = Recorder._report_row

    def report(self, step, *rest):
        if step == 4 and self.setup.config.seed == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, step, *rest)

    monkeypatch.setattr(Recorder, "_report_row", report)
    with pytest.raises(Interrupted, match="2 unfinished lanes, all saved"):
        train_lanes(tiny.setups(configs), paths[1])
    monkeypatch.undo()
    again = train_lanes(tiny.setups(configs), paths[1])
    for a, b in zip(whole, again, strict=True):
        assert a["results"] == b["results"]
    assert [rows_of(path) for path in paths[1]] == [rows_of(path) for path in paths[0]]


def test_a_second_interrupt_ends_at_once():
    with listening() as asked:
        os.kill(os.getpid(), signal.SIGINT)
        assert asked() == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_at_the_last_step_ends_before_the_scores(tmp_path):
    def send(step, perplexity):
        if step == 11:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="stopped after all 12 steps, before scoring"):
        train(make_setup(tiny.config(**CONFIG), tiny.corpus()), tmp_path, observe=send)
    assert not (tmp_path / "summary.json").exists()
    assert train(make_setup(tiny.config(**CONFIG), tiny.corpus()), tmp_path)["train"]["steps"] == 12


def test_a_signal_while_lanes_are_scored_ends_them_before_the_next_is(tmp_path, monkeypatch):
    configs = [tiny.config(**CONFIG, seed=seed) for seed in (0, 1)]
    workdirs = [tmp_path / str(seed) for seed in (0, 1)]
    finish = Recorder.finish

    def finish_and_send(self, state):
        os.kill(os.getpid(), signal.SIGTERM)
        return finish(self, state)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "finish", finish_and_send)
        with pytest.raises(Interrupted, match="1 unfinished lanes, all saved"):
            train_lanes(tiny.setups(configs), workdirs)
    assert [(path / "summary.json").exists() for path in workdirs] == [True, False]
    assert [summary["train"]["steps"] for summary in train_lanes(tiny.setups(configs), workdirs)] == [12, 12]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_what_the_command_line_says_of_it(capsys, number, status):
    assert launch.explain_failure([], Interrupted(number, "stopped after 5 of 12 steps, all saved")) == status
    said = "stopped after 5 of 12 steps, all saved: run the same command again to resume from the last checkpoint\n"
    assert capsys.readouterr().err == said


# --- whole processes

LAUNCHED = """
from pathlib import Path
from configs.base import base

def get_config():
    Path(__file__).with_suffix(".loaded").touch()
    config = base()
    config.data.size, config.data.batch_size, config.data.unroll = 400_000, 4, 8
    config.model.hidden = (32,)
    config.train.steps, config.train.report_every, config.sample.number = 20, 10, 1
    config.train.evaluate_every = 1000
    config.evaluation.splits = ("train",)  # seconds to score
    config.update_from_flattened_dict(CHANGES)
    return config
"""


def started(directory, *flags, **changes):
    """The command, begun; its config touches small.loaded and its workdir is run."""
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    (directory / "small.py").write_text(LAUNCHED.replace("CHANGES", repr(dotted)))
    command = [sys.executable, "launch.py", f"--config={directory}/small.py", f"--workdir={directory}/run", *flags]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process, happens):
    end = time.monotonic() + 120
    while not happens():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def ended(process, number):
    """(exit status, the lines of standard error) after a signal."""
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    return process.returncode, [line for line in said.splitlines() if not line.startswith("warning")]


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.3, 0.6])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_at_the_start_ends_with_a_line(tmp_path, number, status, delay):
    process = started(tmp_path)
    wait_for(process, (tmp_path / "small.loaded").exists)
    time.sleep(delay)  # it imports JAX, NumPy and more, for a second or two
    assert ended(process, number) == (
        status,
        ["interrupted: run the same command again to resume from the last checkpoint"],
    )


@pytest.mark.slow
def test_a_signal_while_a_run_or_an_evaluation_is_scored_ends_with_a_line(tmp_path):
    saved, summary = tmp_path / "run" / "checkpoints" / "last" / "20", tmp_path / "run" / "summary.json"
    process = started(tmp_path)
    wait_for(process, saved.exists)
    time.sleep(0.3)
    status, [line] = ended(process, signal.SIGTERM)
    assert (status, line.endswith("run the same command again to resume from the last checkpoint")) == (0, True)
    assert not summary.exists()

    (tmp_path / "small.loaded").unlink()
    process = started(tmp_path, "--experiment=evaluate")
    wait_for(process, (tmp_path / "small.loaded").exists)
    status, [line] = ended(process, signal.SIGTERM)
    assert (status, line.startswith("interrupted: ")) == (0, True)
    assert not (tmp_path / "run" / "evaluation.json").exists()

    process = started(tmp_path)
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert json.loads(summary.read_text())["train"]["steps"] == 20


@pytest.mark.parametrize(
    ("arguments", "end"),
    [
        ([], "again to resume from the last checkpoint\n"),
        (["--experiment=sweep"], "again to resume from the last checkpoint\n"),
        (["--experiment=score"], "interrupted: run the same command again\n"),
        (["--experiment=unknown"], "again to resume from the last checkpoint\n"),
    ],
)
def test_only_a_command_that_trains_says_that_it_resumes(arguments, end, capsys):
    assert launch.explain_failure(["launch.py", *arguments], KeyboardInterrupt()) == 130
    assert capsys.readouterr().err.endswith(end)


@pytest.mark.slow
def test_of_two_processes_in_one_workdir_the_second_is_refused(tmp_path):
    first = started(tmp_path, train__steps=10_000_000, train__report_every=100)
    wait_for(first, (tmp_path / "run" / "metrics.jsonl").exists)
    before = (tmp_path / "run" / "config.json").read_bytes()
    second = started(tmp_path, "--config.train.threads=1", train__steps=10_000_000, train__report_every=100)
    _, said = second.communicate(timeout=120)
    assert second.returncode == 2
    assert said.startswith(f"error: directory {tmp_path}/run is in use by another process")
    assert (tmp_path / "run" / "config.json").read_bytes() == before
    status, [line] = ended(first, signal.SIGTERM)
    assert (status, line.startswith("stopped after ")) == (0, True)


# --- others at work


def test_a_second_process_in_a_workdir_is_refused(tmp_path):
    config, corpus = tiny.config(), tiny.corpus()
    train(make_setup(config, corpus), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with lock.alone(tmp_path):
        with pytest.raises(UserError, match=f"directory {tmp_path} is in use by another process"):
            train(make_setup(config, corpus), tmp_path)
        with pytest.raises(UserError, match="another process"):
            train_lanes(tiny.setups([config]), [tmp_path])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    train(make_setup(config, corpus), tmp_path)


def test_a_process_that_is_refused_changes_nothing(tmp_path):
    """Not even config.json, which may say another number of threads than the run that holds the lock."""
    config, corpus = tiny.config(), tiny.corpus()
    train(make_setup(config, corpus), tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    other = tiny.config(train__threads=7)
    with lock.alone(tmp_path):
        for attempt in (
            lambda: train(make_setup(other, corpus), tmp_path),
            lambda: train_lanes(tiny.setups([other]), [tmp_path]),
        ):
            with pytest.raises(UserError, match="another process"):
                attempt()
    assert (tmp_path / "config.json").read_bytes() == before


def test_a_run_on_a_text_that_has_changed_is_refused(tmp_path):
    corpus = tiny.corpus()._replace(provenance={"checksum": "00"})
    train(make_setup(tiny.config(), corpus), tmp_path)
    with pytest.raises(UserError, match="its corpus tiny has changed since"):
        train(make_setup(tiny.config(), corpus._replace(provenance={"checksum": "01"})), tmp_path)


# --- losses that are not finite


def test_a_hangup_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with listening() as pending:
            os.kill(os.getpid(), signal.SIGHUP)
            assert pending() is None
    finally:
        signal.signal(signal.SIGHUP, before)
