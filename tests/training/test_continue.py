"""What may change when a run continues: keys that decide none of its numbers, and how long it trains."""

import json
import re
import shutil

import jax
import numpy as np
import pytest

import lm
from configs.base import base
from experiments.train import load_setup
from lm.errors import UserError
from lm.runs.plain import plain
from lm.runs.workdir import prepare_workdir
from lm.training.loop import train
from lm.training.setup import make_setup
from tests.helpers import tiny


def run(workdir, **changes):
    return train(make_setup(tiny.config(**changes), tiny.corpus()), workdir)


def assert_equal(a, b):
    for ours, theirs in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(ours).view(np.uint32), np.asarray(theirs).view(np.uint32))


@pytest.mark.parametrize(
    "changes",
    [
        {"data__path": "/elsewhere/text.txt"},
        {"train__report_every": 3, "train__sample_every": 6},
        {"checkpoint__every_steps": 4, "checkpoint__keep": 1, "checkpoint__best": "keep"},
        {"sample__number": 1, "sample__temperature": 0.5},
        {"evaluation__protocols": ("exact", "notebook"), "name": "mine", "train__threads": 1},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_keys_that_decide_no_number_may_change(tmp_path, changes):
    first = run(tmp_path)
    again = run(tmp_path, **changes)
    assert again["results"][0] == first["results"][0]
    assert json.loads((tmp_path / "config.json").read_text()) == plain(tiny.config(**changes))
    run(tmp_path / "other", **changes)
    assert_equal(lm.open_run(tmp_path).parameters, lm.open_run(tmp_path / "other").parameters)


@pytest.mark.parametrize(
    "changes",
    [{"evaluation__during": "notebook"}, {"train__evaluate_every": 3}, {"optim__learning_rate": 2.0}, {"seed": 1}],
    ids=lambda changes: next(iter(changes)),
)
def test_keys_that_decide_numbers_may_not(tmp_path, changes):
    run(tmp_path)
    with pytest.raises(UserError, match=next(iter(changes)).replace("__", ".")):
        run(tmp_path, **changes)


def test_checkpoints_decide_where_a_rollback_returns_to(tmp_path):
    run(tmp_path, on_nan="rollback")
    with pytest.raises(UserError, match=r"checkpoint.every_steps: 1000 -> 4"):
        run(tmp_path, on_nan="rollback", checkpoint__every_steps=4)


def test_a_key_that_an_earlier_version_did_not_have_counts_as_its_default(tmp_path):
    config = plain(tiny.config())
    del config["sample"], config["optim"]["epsilon"], config["on_nan"]
    prepare_workdir(tmp_path, config)
    prepare_workdir(tmp_path, tiny.config())
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=f"optim.epsilon: {base().optim.epsilon} -> 0.1"):
        prepare_workdir(tmp_path, tiny.config(optim__epsilon=0.1))


# --- Training longer ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more", [{}, {"optim__schedule": "staircase", "optim__decay_rate": 0.5, "optim__decay_steps": 5}]
)
def test_a_finished_run_trains_longer_bit_for_bit(tmp_path, more):
    run(tmp_path / "a", train__steps=7, **more)
    longer = run(tmp_path / "a", train__steps=12, **more)
    straight = run(tmp_path / "b", train__steps=12, **more)
    assert_equal(lm.open_run(tmp_path / "a").parameters, lm.open_run(tmp_path / "b").parameters)
    assert longer["results"] == straight["results"]
    assert longer["provenance"]["identity"] == straight["provenance"]["identity"]
    assert json.loads((tmp_path / "a" / "summary_of_7_steps.json").read_text())["train"]["steps"] == 7


DECIDED = {
    "plateau": {"optim__schedule": "plateau", "optim__decay_rate": 0.5, "optim__learning_rate": 50.0},
    "nt_asgd": {"optim__name": "nt_asgd", "optim__nonmonotone_checks": 1},
    "patience": {"train__patience": 1},
}


@pytest.mark.parametrize("decided", DECIDED)
def test_a_run_is_not_made_longer_if_its_last_validation_was_off_schedule_and_decided(tmp_path, decided):
    """Steps 0, 3, 6, ... are validated: 7 steps end on schedule, 8 steps do not."""
    more = {"train__evaluate_every": 3} | DECIDED[decided]
    run(tmp_path / "a", train__steps=8, **more)
    before = (tmp_path / "a" / "config.json").read_text()
    with pytest.raises(UserError, match=f"8 steps, and config.*{decided}.* has used the validation after its last"):
        run(tmp_path / "a", train__steps=12, **more)
    assert (tmp_path / "a" / "config.json").read_text() == before
    assert run(tmp_path / "a", train__steps=8, **more)["train"]["steps"] <= 8


@pytest.mark.slow
@pytest.mark.parametrize("decided", DECIDED)
def test_on_schedule_the_last_validation_is_one_of_the_longer_run(tmp_path, decided):
    more = {"train__evaluate_every": 3} | DECIDED[decided]
    run(tmp_path / "a", train__steps=7, **more)
    longer = run(tmp_path / "a", train__steps=12, **more)
    assert longer["results"] == run(tmp_path / "b", train__steps=12, **more)["results"]
    assert_equal(lm.open_run(tmp_path / "a").parameters, lm.open_run(tmp_path / "b").parameters)


def test_epochs_can_be_added_too(tmp_path):
    run(tmp_path, train__steps=0, train__epochs=1)
    assert run(tmp_path, train__steps=0, train__epochs=2)["train"]["steps"] == 2 * 33
    assert (tmp_path / "summary_of_1_epochs.json").exists()


@pytest.mark.parametrize("finished", [True, False])
def test_a_longer_run_on_other_data_changes_nothing(tmp_path, finished):
    """Neither its config nor its scores: with the old text, the old command works again."""
    text, directory = tmp_path / "text", tmp_path / "run"
    text.write_text(300 * "abcab")
    own = {"data__corpus": "textfile", "data__path": str(text), "data__fractions": (0.8, 0.2, 0.0)}

    def train_own(workdir, **changes):
        return train(load_setup(tiny.config(**own, **changes), None), workdir)

    first = train_own(directory, train__steps=7)
    if not finished:
        (directory / "summary.json").unlink()
    kept = {name: path.read_bytes() for name in ("config.json", "summary.json") if (path := directory / name).exists()}
    text.write_text(299 * "abcab" + "abcba")
    with pytest.raises(UserError, match="holds a run on other data"):
        train_own(directory, train__steps=12)
    assert {name: (directory / name).read_bytes() for name in kept} == kept
    assert not list(directory.glob("summary_of*"))
    text.write_text(300 * "abcab")
    assert train_own(directory, train__steps=7)["results"] == first["results"]


def test_a_best_checkpoint_that_is_not_the_best_is_not_scored(tmp_path):
    """A part of the run that kept none has reached a lower loss since."""
    for steps, best in ((8, "keep"), (24, "none"), (24, "keep")):
        config = tiny.config(train__steps=steps, train__evaluate_every=8, checkpoint__best=best)
        summary = train(make_setup(config, tiny.corpus()), tmp_path)
    assert {row["which"] for row in summary["results"]} == {"final"}
    said = "validation was best after 24 steps, but .*checkpoints/best holds step 8: the best checkpoint was not"
    assert re.match(said, summary["not_scored"]["best"])
    shutil.rmtree(tmp_path / "checkpoints" / "best")
    assert "checkpoints/best is missing" in train(make_setup(config, tiny.corpus()), tmp_path)["not_scored"]["best"]


def test_a_shorter_run_is_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(UserError, match=r"train.steps: 12 -> 7\): choose another directory"):
        run(tmp_path, train__steps=7)


def test_a_schedule_that_depends_on_the_total_is_named(tmp_path):
    run(tmp_path, optim__schedule="cosine")
    with pytest.raises(UserError, match=r"train.steps: 12 -> 20.*config.optim.schedule=cosine depends on the length"):
        run(tmp_path, optim__schedule="cosine", train__steps=20)
    assert json.loads((tmp_path / "summary.json").read_text())["train"]["steps"] == 12


def test_a_run_that_stopped_early_says_so(tmp_path, capsys):
    early = {"train__patience": 1, "train__evaluate_every": 1, "optim__learning_rate": 30.0}
    done = run(tmp_path, **early)["train"]["steps"]
    assert done < 12
    capsys.readouterr()
    assert run(tmp_path, train__steps=20, **early)["train"]["steps"] == done
    assert "stopped early by config.train.patience=1: it will not train further" in capsys.readouterr().out
