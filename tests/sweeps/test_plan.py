"""The plan of a sweep: its axes, samplers and which trials train together."""

import os
import re
import warnings

import pytest

from experiments import sweep
from experiments.sweeps.plan import number_of_trials, plan_trial
from experiments.sweeps.space import Axis, incomparable, make_space, set_parameters
from experiments.sweeps.study import Place, Sweep, open_sweep, quiet_optuna
from experiments.sweeps.supervisor import lanes_at_once
from lm.errors import UserError
from tests.helpers.sweep_plans import CELL, RATE, SEED, make


@pytest.mark.parametrize(
    ("axis", "shares"),
    [
        (Axis("a", "uniform", (2.0, 4.0)), {0.0: 2.0, 0.25: 2.5}),
        (Axis("a", "log_uniform", (0.01, 1.0)), {0.0: 0.01, 0.5: 0.1}),
        (Axis("a", "integer", (3, 6)), {0.0: 3, 0.24: 3, 0.26: 4, 0.999: 6}),
        (Axis("a", "choice", ("x", "y")), {0.0: "x", 0.49: "x", 0.5: "y", 0.999: "y"}),
    ],
)
def test_quantiles_of_each_kind_of_axis(axis, shares):
    for share, value in shares.items():
        assert axis.quantile(share) == (value if isinstance(value, str) else pytest.approx(value))
        axis.distribution.to_internal_repr(axis.quantile(share))


def test_a_grid_holds_every_combination_with_the_last_axis_fastest():
    config = make(CELL, ("seed", "choice", 1, 2, 3), sampler="grid")
    axes = make_space(config)
    assert number_of_trials(config, axes) == 6
    planned = [tuple(plan_trial(config, axes, n).values()) for n in range(6)]
    assert planned == [("lstm", 1), ("lstm", 2), ("lstm", 3), ("gru", 1), ("gru", 2), ("gru", 3)]


@pytest.mark.parametrize("sampler", ["random", "quasi_random"])
def test_planned_trials_depend_only_on_seed_and_number_and_fill_the_space(sampler):
    config = make(RATE, SEED, CELL, sampler=sampler, trials=64)
    axes = make_space(config)
    planned = [plan_trial(config, axes, n) for n in range(64)]
    assert planned[5] == plan_trial(config, axes, 5)
    config.seed = 1
    assert planned != [plan_trial(config, axes, n) for n in range(64)]
    low = sum(trial["optim.learning_rate"] < 0.1 for trial in planned)
    assert low == 32 if sampler == "quasi_random" else 20 <= low <= 44
    assert {trial["seed"] for trial in planned} == {0, 1, 2, 3}
    assert all(0.01 <= trial["optim.learning_rate"] <= 1.0 for trial in planned)


def test_a_study_keeps_every_kind_of_choice(tmp_path):
    """Numbers, text, tuples, and repeated values: what a database gives back is the run's value again."""
    space = (
        ("model.hidden", "choice", (8,), (8, 8)),
        ("init.bias", "choice", ("zeros",), ("uniform", -0.1, 0.1)),
        CELL,
        ("optim.learning_rate", "choice", 0.1, 0.1, 1.0),
    )
    config = make(*space, trials=6)
    axes = make_space(config)
    place = Place(str(tmp_path), None, f"sqlite:///{tmp_path}/study.db", False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(6):
            sweep_now = open_sweep(config, place)  # as a command that resumes
            with quiet_optuna():
                params = sweep_now.ask().params
            assert params == plan_trial(config, axes, number)
            run = set_parameters(config.run, axes, params)
            assert [run.model.hidden, run.init.bias, run.model.cell, run.optim.learning_rate] == [
                axis.value_of(params[axis.key]) for axis in axes
            ]
            assert all(axis.value_of(params[axis.key]) in axis.values for axis in axes)


def test_keys_that_change_what_validation_measures_are_named():
    keys = ("model.hidden", "data.batch_size", "data.level", "data.seed+seed", "evaluation.during")
    axes = [Axis(key, "choice", (1, 2)) for key in keys]
    assert incomparable(axes) == ["data.level", "data.seed", "evaluation.during"]


def test_joined_keys_get_the_same_value():
    config = make(("keep_prob.input+keep_prob.output", "uniform", 0.5, 1.0), trials=1)
    run = set_parameters(config.run, make_space(config), {"keep_prob.input+keep_prob.output": 0.75})
    assert (run.keep_prob.input, run.keep_prob.output) == (0.75, 0.75)


@pytest.mark.parametrize(
    ("space", "changes", "words"),
    [
        ((), {}, "config.space is empty"),
        ((("seed",),), {}, "must be (key, one of uniform"),
        ((("seed", "normal", 0, 1),), {}, "one of uniform"),
        ((("optim.learning_rte", "uniform", 0.1, 1.0),), {}, "no key optim.learning_rte"),
        ((("optim.learning_rate", "choice", "fast", 1.0),), {}, "optim.learning_rate cannot be 'fast'"),
        ((("optim.learning_rate", "uniform", 1.0, 0.1),), {}, "needs low < high"),
        ((("optim.learning_rate", "log_uniform", 0.0, 0.1),), {}, "log_uniform needs positive numbers"),
        ((("seed", "integer", 0.5, 2),), {}, "integer needs whole numbers"),
        ((("data.reset", "choice", None, "a"),), {}, "config.data.reset must be text, not None"),
        ((("optim.warmup_steps", "choice", True, 1),), {}, "config.optim.warmup_steps must be an integer, not True"),
        ((("model.hidden", "choice", (8,), "8"),), {}, "model.hidden cannot be '8'"),
        ((RATE,), {"sampler": "grid"}, "a grid needs choices"),
        ((RATE, RATE), {}, "appears twice"),
        ((RATE,), {"sampler": "anneal"}, "config.sampler: unknown 'anneal'; known: grid, random"),
        ((RATE,), {"pruner": "hyperband"}, "config.pruner: unknown 'hyperband'; known: none, median, asha"),
        ((RATE,), {"trials": 0}, "config.trials must be positive"),
        (((1, 2, 3),), {}, "config.space: (1, 2, 3) must be (key, one of uniform"),
        ((1,), {}, "config.space: 1 must be (key, one of uniform"),
        ((("optim.learning_rate", "uniform", -1.0, 1.0),), {}, "config.optim.learning_rate must be above 0 and"),
        ((("model.cell", "choice", "lstm", "ltsm", "gru"),), {}, "config.model.cell: unknown 'ltsm'; known: "),
        ((RATE,), {"lanes": -1}, "config.lanes must be at least 0, not -1"),
        ((RATE,), {"run": {"train": {"steps": 0}}}, "exactly one of config.train.steps and config.train.epochs"),
    ],
)
def test_a_wrong_sweep_is_refused_before_it_writes_anything(tmp_path, space, changes, words):
    config = make(*space, **{"trials": 3, **changes})
    with pytest.raises(UserError, match=re.escape(words)):
        sweep.run(config, str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 8 if len(os.sched_getaffinity(0)) <= 8 else 1),
        ({"lanes": 3}, 3),
        ({"lanes": 1}, 1),
        ({"sampler": "tpe"}, 1),
        ({"pruner": "median"}, 1),
        ({"space": (RATE, ("data.unroll", "integer", 2, 40))}, 1),
    ],
)
def test_trials_of_one_shape_are_trained_in_lanes_unless_results_decide(changes, expected):
    config = make(RATE, SEED, **{"trials": 8, **changes})
    assert lanes_at_once(Sweep(config, None, make_space(config), None, None)) == expected
