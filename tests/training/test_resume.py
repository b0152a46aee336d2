"""A run that was interrupted and begun again ends where an uninterrupted one does, to the last bit."""

import jax
import numpy as np
import pytest

from lm.errors import UserError
from lm.runs.metrics import MetricsLog
from lm.runs.workdir import prepare_workdir
from lm.training.loop import Trainer, train
from lm.training.recorder import Recorder
from lm.training.setup import make_setup
from tests.helpers import tiny
from tests.helpers.run_state import rows_of

# Everything that a step's result may hang on: dropout, carried state, moments, a schedule, epochs, a best checkpoint.
SETTINGS = {
    "model__input": "embedding",
    "model__embedding_size": 6,
    "keep_prob__input": 0.7,
    "keep_prob__output": 0.7,
    "data__batching": "rows",
    "optim__name": "adam",
    "optim__learning_rate": 0.05,
    "optim__schedule": "cosine",
    "train__evaluate_every": 6,
    "checkpoint__every_steps": 3,
    "checkpoint__best": "keep",
}


def config(**changes):
    return tiny.config(**(SETTINGS | changes))


def corpus():
    return tiny.corpus(train=3 * 22)  # 5 windows an epoch


class Interrupted(Exception):
    pass


def interrupt(workdir, patch, at, settings=None):
    """Trains in workdir until the row of step `at` is about to be written."""
    settings = settings or config()
    write = MetricsLog.write

    def failing(self, row):
        if row["step"] == at:
            raise Interrupted
        write(self, row)

    prepare_workdir(workdir, settings)
    trainer = Trainer(Recorder(make_setup(settings, corpus()), workdir))
    with patch.context() as p:
        p.setattr(MetricsLog, "write", failing)
        with pytest.raises(Interrupted):
            trainer.run()
    trainer.recorder.checkpoints.close()
    return trainer


def final_state(workdir):
    """What a run begun again would go on from: {name: array}, with the step it stands at."""
    trainer = Trainer(Recorder(make_setup(config(), corpus()), workdir))
    trainer.recorder.checkpoints.close()
    state = trainer.state._replace(key=jax.random.key_data(trainer.state.key))
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in leaves}, trainer.recorder.done


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    summary = train(make_setup(config(), corpus()), workdir)
    return workdir, summary


@pytest.mark.parametrize("at", [(0,), (10,), (5, 9)], ids=["before any checkpoint", "once", "twice"])
def test_the_end_is_bitwise_the_same(uninterrupted, tmp_path, monkeypatch, at):
    whole, expected = uninterrupted
    for step in at:
        interrupt(tmp_path, monkeypatch, step)
    summary = train(make_setup(config(), corpus()), tmp_path)
    found, done = final_state(tmp_path)
    wanted, _ = final_state(whole)
    assert done == 12
    assert found.keys() == wanted.keys()
    for name, x in wanted.items():
        np.testing.assert_array_equal(found[name], x, err_msg=name)
    assert summary["results"] == expected["results"]
    assert {row["which"] for row in summary["results"]} == {"final", "best"}
    assert summary["train"]["final_mean_loss"] == expected["train"]["final_mean_loss"]
    assert rows_of(tmp_path) == rows_of(whole)


def test_dropout_and_moments_take_part(uninterrupted):
    """Otherwise the test above would show less than it says."""
    state, _ = final_state(uninterrupted[0])
    moments = [x for name, x in state.items() if ".mu" in name or ".nu" in name]
    assert moments
    assert all((x != 0).any() for x in moments)
    assert all((x != 0).any() for name, x in state.items() if name.startswith(".carry"))


def test_a_finished_run_begun_again_trains_no_further(uninterrupted, tmp_path):
    workdir, expected = uninterrupted
    before, rows = final_state(workdir)[0], rows_of(workdir)
    again = train(make_setup(config(), corpus()), workdir)
    after, done = final_state(workdir)
    assert done == 12
    for name, x in before.items():
        np.testing.assert_array_equal(after[name], x, err_msg=name)
    assert again["results"] == expected["results"]
    assert rows_of(workdir) == rows


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optim__learning_rate": 0.1}, ["optim.learning_rate", "0.05", "0.1"]),
        ({"train__steps": 24}, ["train.steps", "12", "24"]),
        ({"seed": 3}, ["seed", "0", "3"]),
    ],
)
def test_another_config_in_the_same_workdir_is_refused(uninterrupted, change, words):
    with pytest.raises(UserError) as caught:
        train(make_setup(config(**change), corpus()), uninterrupted[0])
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)
