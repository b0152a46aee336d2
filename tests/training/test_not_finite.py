"""A loss or gradient that is not finite ends a run, or rolls it back to a checkpoint."""

import numpy as np
import pytest

from lm.errors import NotFinite, UserError
from lm.training.lanes import train_lanes
from lm.training.loop import Trainer, train
from lm.training.recorder import Recorder
from lm.training.setup import make_setup
from lm.training.step import StepMetrics
from tests.helpers import tiny
from tests.helpers.run_state import rows_of


def diverging(**changes):
    """Without clipping, at a rate that float32 can only just not bear."""
    return tiny.config(optim__clipping="none", optim__learning_rate=3e38, train__report_every=1, **changes)


def test_such_a_run_stops_and_names_step_rate_and_norm(tmp_path):
    with pytest.raises(NotFinite, match=r"not finite at step \d+ \(learning rate 3e\+38, gradient norm .*lower"):
        train(make_setup(diverging(), tiny.corpus()), tmp_path)


def test_a_gradient_that_is_not_finite_stops_it_before_its_update_is_saved(tmp_path):
    """The loss of that step is finite still: it is of the parameters before the update."""
    trainer = Trainer(Recorder(make_setup(tiny.config(), tiny.corpus()), tmp_path))
    ones = np.ones(2)
    with pytest.raises(NotFinite, match=r"the gradient is not finite at step 1 \(learning rate 1, gradient norm inf"):
        trainer.recorder.account(StepMetrics(ones, np.array([1.0, np.inf]), ones), 0.1)
    assert trainer.recorder.done == 0
    trainer.recorder.checkpoints.close()


def test_a_rollback_halves_the_rate_and_goes_on(tmp_path, capsys):
    summary = train(make_setup(diverging(on_nan="rollback"), tiny.corpus()), tmp_path)
    rollbacks = summary["train"]["rollbacks"]
    assert 1 <= rollbacks <= 10
    out = capsys.readouterr().out
    assert out.count("at half the learning rate") == rollbacks
    assert "use a new directory" not in out, "the run goes on by itself"
    written = rows_of(tmp_path)
    assert [row["step"] for row in written] == list(range(12))
    rates = [row["learning_rate"] for row in written]
    assert rates[-1] == np.float32(3e38) * np.float32(0.5) ** rollbacks
    assert all(row["loss"] is not None for row in written)


@pytest.mark.slow
@pytest.mark.parametrize("every", [100, 1])
def test_a_kill_after_a_rollback_changes_nothing(tmp_path, monkeypatch, every):
    config = diverging(on_nan="rollback", checkpoint__every_steps=every)
    whole = train(make_setup(config, tiny.corpus()), tmp_path / "whole")
    original = Recorder.roll_back

    class Killed(Exception):
        pass

    def roll_back(recorder, error):
        original(recorder, error)
        raise Killed

    for _ in range(whole["train"]["rollbacks"]):
        monkeypatch.setattr(Recorder, "roll_back", roll_back)
        with pytest.raises(Killed):
            train(make_setup(config, tiny.corpus()), tmp_path / "cut")
    monkeypatch.undo()
    again = train(make_setup(config, tiny.corpus()), tmp_path / "cut")
    assert again["results"] == whole["results"]
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")


@pytest.mark.parametrize("every", [1, 2, 4])
def test_a_checkpoint_of_ruined_parameters_is_left_for_the_one_before(tmp_path, every):
    """The first step ruins the parameters, and its loss, taken before, is finite: it is saved."""
    summary = train(make_setup(diverging(on_nan="rollback", checkpoint__every_steps=every), tiny.corpus()), tmp_path)
    assert 1 <= summary["train"]["rollbacks"] <= 10
    written = rows_of(tmp_path)
    assert [row["step"] for row in written] == list(range(12))
    assert written[-1]["learning_rate"] == np.float32(3e38) * np.float32(0.5) ** summary["train"]["rollbacks"]


def test_the_best_of_a_history_that_was_left_is_forgotten(tmp_path, monkeypatch):
    """Checks after steps 0 to 6 are each the best so far; at step 7 the loss is not finite, and step 4 is the last
    checkpoint; what follows is worse than what was best by then."""
    nats = iter([*(3.0 - 0.1 * step for step in range(7)), *[9.0] * 20])
    score = Recorder.score
    monkeypatch.setattr(
        Recorder, "score", lambda self, *rest: score(self, *rest)._replace(nats=60 * next(nats), targets=60)
    )
    account, failed = Recorder.account, []

    def fail_once(self, measured, seconds):
        if self.done == 7 and not failed:
            failed.append(self.done)
            measured = measured._replace(loss=measured.loss * np.nan)
        account(self, measured, seconds)

    monkeypatch.setattr(Recorder, "account", fail_once)
    config = tiny.config(
        on_nan="rollback",
        train__evaluate_every=1,
        checkpoint__every_steps=4,
        checkpoint__best="keep",
        checkpoint__keep=1,
    )
    summary = train(make_setup(config, tiny.corpus()), tmp_path)
    assert failed == [7]
    assert {row["step"] for row in summary["results"] if row["which"] == "best"} == {3}
    checks = [row for row in rows_of(tmp_path) if "valid_loss" in row]
    assert min(checks, key=lambda row: row["valid_loss"])["step"] == 3


def test_rollbacks_come_to_an_end(tmp_path):
    """Where the loss is not finite at any rate."""
    config = diverging(on_nan="rollback", init__output=("uniform", -3e38, 3e38))
    with pytest.raises(NotFinite):
        train(make_setup(config, tiny.corpus()), tmp_path)


def test_other_values_and_lanes_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"config\.on_nan: unknown 'ignore'; known: stop, rollback"):
        train(make_setup(tiny.config(on_nan="ignore"), tiny.corpus()), tmp_path)
    with pytest.raises(UserError, match="on_nan=rollback works only for a single run"):
        train_lanes(tiny.setups([tiny.config(on_nan="rollback")]), [tmp_path])
