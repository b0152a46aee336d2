"""CS224d's random search on record: what its config plans, judged as it should be."""

import json
import math

import pytest

from configs import loading
from experiments.ledger.records import RESULTS
from experiments.sweeps.plan import number_of_trials, plan_trial
from experiments.sweeps.space import make_space
from lm.runs.plain import plain
from tests.helpers.sweep_runs import ROOT

RECORD = RESULTS / "sweeps" / "cs224d_rnnlm"


@pytest.fixture(scope="module")
def recorded():
    return json.loads((RECORD / "sweep.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def config():
    return loading.load(str(ROOT / "configs" / "sweeps" / "cs224d_rnnlm.py"))


def test_its_trials_are_those_that_the_config_plans(recorded, config):
    axes = make_space(config)
    assert len(recorded["trials"]) == number_of_trials(config, axes) >= 40
    assert recorded["name"] == config.name
    for number, trial in enumerate(recorded["trials"]):
        assert trial["number"] == number
        assert trial["parameters"].keys() == {axis.key for axis in axes}
        for key, value in plan_trial(config, axes, number).items():
            assert trial["parameters"][key] == pytest.approx(value, rel=1e-12)


def test_every_trial_has_a_value_or_a_reason_and_the_best_is_the_lowest(recorded):
    for trial in recorded["trials"]:
        assert (trial["state"] == "complete") == (trial["value"] is not None)
        assert (trial["state"] == "fail") == bool(trial["failure"])
        assert trial["value"] is None or 1 < trial["value"] < math.inf
    complete = [trial for trial in recorded["trials"] if trial["value"] is not None]
    assert len(complete) >= 0.9 * len(recorded["trials"])
    assert recorded["best"] == min(complete, key=lambda trial: trial["value"])


def test_it_is_of_todays_config(config):
    """But for what decides no number, and for keys that came later."""
    then, now = json.loads((RECORD / "config.json").read_text(encoding="utf-8")), plain(config)
    for key in ("name", "space", "sampler", "seed", "pruner"):
        assert then[key] == now[key]
    for group in ("data", "model", "optim", "train", "keep_prob"):
        for key, value in then["run"][group].items():
            assert now["run"][group][key] == value, f"{group}.{key}"


def test_the_config_says_what_came_of_it(recorded):
    said = (ROOT / "configs" / "sweeps" / "cs224d_rnnlm.py").read_text(encoding="utf-8")
    assert f"The best of {len(recorded['trials'])} trials had a perplexity of {recorded['best']['value']:.1f}" in said
    assert f"batch {recorded['best']['parameters']['data.batch_size']}" in " ".join(said.split())
