"""Lanes against the same runs one after another; their failures; where they stand after a kill; several devices."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments.lanes import equal_pairs, make_configs
from lm.errors import UserError
from lm.runs.workdir import prepare_workdir
from lm.training.lanes import same_program, stack_hypers, train_lanes
from lm.training.loop import Trainer, train
from lm.training.optim import hyper_of
from lm.training.recorder import Recorder
from lm.training.setup import make_setup
from tests.helpers import tiny
from tests.helpers.few import few

# One dropout site is on in some lanes only, another in all.
SETTINGS = {
    "model__input": "embedding",
    "model__embedding_size": 6,
    "keep_prob__input": 0.7,
    "train__evaluate_every": 4,
    "checkpoint__every_steps": 4,
}
DIFFERENT = (
    {"seed": 0},
    {"seed": 1, "optim__learning_rate": 0.5, "keep_prob__output": 0.6, "train__report_every": 3},
    {"seed": 2, "optim__clip": 0.05, "init__recurrent": ("uniform", -0.1, 0.1), "train__steps": 7},
)


def config(**changes):
    return tiny.config(**(SETTINGS | changes))


def rows_of(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(found, expected):
    """metrics.jsonl and results of two workdirs, to 1e-5."""
    pairs = list(zip(rows_of(found), rows_of(expected), strict=True))
    assert len(pairs) >= 3
    for a, b in pairs:
        a, b = ({k: v for k, v in row.items() if k not in ("tokens_per_s", "valid_protocol")} for row in (a, b))
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_allclose(a[key], b[key], rtol=1e-5, err_msg=key)
    results = [json.loads((workdir / "summary.json").read_text())["results"] for workdir in (found, expected)]
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a["nats"], b["nats"], rtol=1e-5)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Workdirs of the runs that differ, each trained by itself."""
    workdirs = [tmp_path_factory.mktemp(f"alone{n}") for n in range(len(DIFFERENT))]
    for workdir, changes in zip(workdirs, DIFFERENT, strict=True):
        train(make_setup(config(**changes), tiny.corpus()), workdir)
    return workdirs


@pytest.mark.parametrize("within", few(["in_turn", "vmap"], "vmap"))
def test_each_lane_is_the_run_alone(alone, tmp_path, within):
    workdirs = [tmp_path / str(n) for n in range(len(DIFFERENT))]
    with tiny.compilations() as compiled:
        train_lanes(tiny.setups([config(**changes) for changes in DIFFERENT]), workdirs, within)
    assert compiled.count("jit(lane_steps)") + compiled.count("lane_steps") == 1
    for found, expected in zip(workdirs, alone, strict=True):
        assert_same_run(found, expected)


@pytest.mark.parametrize("within", few(["in_turn", "vmap"], "in_turn"))
def test_a_lane_that_fails_leaves_the_others_untouched(alone, tmp_path, within):
    """A learning rate that overflows: that lane ends with the reason, its neighbours go on."""
    configs = [config(**DIFFERENT[0]), config(seed=5, optim__learning_rate=1e38), config(**DIFFERENT[2])]
    workdirs = [tmp_path / name for name in ("first", "bad", "last")]
    outcomes = train_lanes(tiny.setups(configs), workdirs, within)
    assert isinstance(outcomes[1], UserError)
    assert "the loss is not finite at step" in str(outcomes[1])
    assert "on_nan" not in str(outcomes[1]), "lanes refuse rollback"
    assert not (workdirs[1] / "summary.json").exists()
    assert_same_run(workdirs[0], alone[0])
    assert_same_run(workdirs[2], alone[2])


def test_lanes_that_a_kill_left_at_different_steps_meet_again(alone, tmp_path):
    """One lane stands at its end, one at step 4, one has not begun."""
    workdirs = [tmp_path / str(n) for n in range(3)]
    train(make_setup(config(**DIFFERENT[0]), tiny.corpus()), workdirs[0])
    half = config(**DIFFERENT[1])
    prepare_workdir(workdirs[1], half)
    trainer = Trainer(Recorder(make_setup(half, tiny.corpus()), workdirs[1]))
    with trainer.recorder.open_log():
        while trainer.recorder.done < 4:
            trainer._dispatch(trainer.recorder.done + 1)
            trainer.state = trainer.recorder.handle_events(trainer.state)
    trainer.recorder.checkpoints.close()
    outcomes = train_lanes(tiny.setups([config(**changes) for changes in DIFFERENT]), workdirs)
    assert [outcome["train"]["steps"] for outcome in outcomes] == [12, 12, 7]
    for found, expected in zip(workdirs, alone, strict=True):
        assert_same_run(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"optim__schedule": "plateau", "optim__decay_rate": 0.5, "optim__patience": 1, "optim__learning_rate": 3.0},
        {"optim__name": "nt_asgd", "optim__nonmonotone_checks": 1, "optim__learning_rate": 3.0, "train__patience": 4},
    ],
)
def test_what_validation_changes_reaches_the_lane(tmp_path, changes):
    """A rate that decays, an average that begins and an early end, each lane at its own time."""
    configs = [config(seed=seed, train__evaluate_every=1, **changes) for seed in (0, 1)]
    expected = [tmp_path / f"alone{seed}" for seed in (0, 1)]
    for one, workdir in zip(configs, expected, strict=True):
        train(make_setup(one, tiny.corpus()), workdir)
    found = [tmp_path / f"lane{seed}" for seed in (0, 1)]
    train_lanes(tiny.setups(configs), found)
    for a, b in zip(found, expected, strict=True):
        assert_same_run(a, b)
    final = Trainer(Recorder(make_setup(configs[0], tiny.corpus()), found[0])).state
    changed = final.rate_factor < 1 if final.rate_factor is not None else final.average.count > 0
    assert bool(changed), "nothing happened: the test shows nothing"


def test_lanes_with_equal_numbers_are_named():
    """Seeds of a run in which nothing is drawn are no sample."""
    row = {"split": "valid", "nats": 5.0}
    outcomes = {name: {"train": {"final_mean_loss": 1.0}, "results": [row]} for name in ("seed=0", "seed=1", "seed=2")}
    outcomes["seed=1"] = {"train": {"final_mean_loss": 1.0}, "results": [row | {"nats": 6.0}]}
    outcomes["seed=3"] = {"error": "failed"}
    assert equal_pairs(outcomes) == [("seed=0", "seed=2")]


def test_which_configs_are_one_program(tmp_path):
    one = config()
    assert all(same_program(one, config(**changes)) for changes in DIFFERENT)
    others = (
        {"model__hidden": (4,)},
        {"data__batch_size": 2},
        {"optim__name": "adam"},
        {"dropout__mask": "variational"},
        {"optim__weight_decay": 0.1},
        {"train__steps_per_dispatch": 3},
        {"loss__weighting": "sum"},
    )
    assert not any(same_program(one, config(**changes)) for changes in others)
    cosine = config(optim__schedule="cosine")
    assert not same_program(cosine, config(optim__schedule="cosine", train__steps=13))
    with pytest.raises(UserError, match="different shapes"):
        train_lanes(tiny.setups([one, config(model__hidden=(4,))]), [tmp_path / "a", tmp_path / "b"])
    assert not list(tmp_path.iterdir())


def test_what_is_off_in_a_lane_does_nothing_there():
    hypers = [hyper_of(config(penalty__activation=2.0)), hyper_of(config(keep_prob__input=1.0, zoneout__output=0.1))]
    stacked = jax.tree.map(np.asarray, stack_hypers(hypers))
    np.testing.assert_allclose(stacked.keep["input"], [0.7, 1.0])
    np.testing.assert_allclose(stacked.zoneout["output"], [0.0, 0.1])
    np.testing.assert_allclose(stacked.objective["activation"], [2.0, 0.0])


@pytest.mark.slow
def test_lanes_on_several_devices(tmp_path):
    """Three lanes over the cores' devices, through launch.py, against the built-in corpus trained alone there.

    Its rate decays on a plateau, which changes one lane's state on whatever device it is.
    """
    settings = [
        "--config.optim.schedule=plateau",
        "--config.optim.decay_rate=0.5",
        "--config.optim.learning_rate=50.0",
        "--config.optim.patience=1",
        "--config.optim.name=sgd",
        "--config.train.steps=12",
        "--config.model.hidden=(3,)",
        "--config.train.evaluate_every=2",
        "--config.evaluation.splits=('valid',)",
        "--config.train.report_every=4",
    ]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}

    def launch(*arguments):
        command = [sys.executable, "launch.py", *settings, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    lanes = launch("--experiment=lanes", "--lanes=seed=0:3", f"--workdir={tmp_path}/lanes")
    assert lanes.returncode == 0, lanes.stderr
    one = launch("--config.seed=2", f"--workdir={tmp_path}/alone")
    assert one.returncode == 0, one.stderr
    assert_same_run(tmp_path / "lanes" / "seed=2", tmp_path / "alone")
    assert rows_of(tmp_path / "alone")[-1]["learning_rate"] < 50.0, "nothing decayed: the test shows less"
    report = json.loads((tmp_path / "lanes" / "lanes.json").read_text())
    assert sorted(report) == ["seed=0", "seed=1", "seed=2"]


def test_every_combination_of_values_is_a_lane():
    names, configs = make_configs(config(), "seed=0:2 optim.learning_rate=0.5,1.0")
    assert names == [f"seed={s},optim.learning_rate={r}" for s in (0, 1) for r in (0.5, 1.0)]
    assert [(c.seed, c.optim.learning_rate) for c in configs] == [(0, 0.5), (0, 1.0), (1, 0.5), (1, 1.0)]


@pytest.mark.parametrize(
    ("lanes", "said"),
    [
        (" ", "needs --lanes"),
        ("seed", "'seed' must be KEY=VALUE"),
        ("seeds=1", "no config.seeds"),
        ("optim=1", "config.optim must be"),
        ("seed=a", "seed=a must be ints"),
        ("seed=3:3", "seed=3:3"),
        ("seed=1,1", "the same run twice"),
        ("data.batch_size=2,3", "with different config.data.batch_size cannot share one program"),
    ],
)
def test_bad_lanes_are_named(lanes, said):
    with pytest.raises(UserError, match=said):
        make_configs(config(), lanes)
