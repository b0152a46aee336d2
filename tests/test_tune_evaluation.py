"""The command `tune_evaluation`."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

import launch
from experiments import tune_evaluation
from lm.errors import UserError
from lm.run import open_run
from lm.scoring.protocols import PROTOCOLS
from tests.helpers import tiny


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tuned")
    sizes = ["--config.data.size=3000", "--config.model.hidden=(4,)", "--config.train.steps=20"]
    assert launch.main(["launch.py", *sizes, f"--workdir={directory}", "--noeta"]) == 0
    return directory


def test_a_search_ends_where_no_single_change_is_better(workdir, monkeypatch):
    """On a bowl whose axes are tilted, so that one round over the keys is not enough."""
    grid = {"cache_theta": (0.0, 0.1, 0.2, 0.3, 0.4), "cache_lambda": (0.0, 0.1, 0.2, 0.3, 0.4)}
    monkeypatch.setattr(tune_evaluation, "GRIDS", {"cache": grid})

    class Score:
        def __init__(self, settings):
            x, y = settings.cache_theta - 0.1, settings.cache_lambda - 0.1
            self.perplexity = 5 + x * x + y * y - x * y / 2

    monkeypatch.setattr(
        tune_evaluation, "evaluate", lambda protocol, model, parameters, text, settings: Score(settings)
    )
    run = open_run(workdir)
    start = tiny.config(evaluation__cache_theta=0.4, evaluation__cache_lambda=0.4).evaluation
    found = tune_evaluation.tune(run, np.zeros(5, np.uint8), start, "cache")
    assert found["settings"] == {"cache_theta": 0.1, "cache_lambda": 0.1}
    assert found["perplexity"] == 5.0
    settings = [tuple(row["settings"].values()) for row in found["tried"]]
    assert settings[0] == (0.4, 0.4)
    assert len(set(settings)) == len(settings)
    assert start.cache_theta == 0.4  # untouched


def test_what_diverges_is_never_best(workdir, monkeypatch):
    def score(protocol, model, parameters, text, settings):
        return SimpleNamespace(perplexity=float("nan") if settings.temperature > limit else settings.temperature)

    monkeypatch.setattr(tune_evaluation, "GRIDS", {"temperature": {"temperature": (1.0, 2.0, 3.0)}})
    monkeypatch.setattr(tune_evaluation, "evaluate", score)
    run, start, limit = open_run(workdir), tiny.config(evaluation__temperature=3.0).evaluation, 2.0
    found = tune_evaluation.tune(run, np.zeros(5, np.uint8), start, "temperature")
    assert found["perplexity"] == 1.0
    assert {row["settings"]["temperature"]: row["perplexity"] for row in found["tried"]} == {
        3.0: None,
        1.0: 1.0,
        2.0: 2.0,
    }
    limit = 0.5
    with pytest.raises(UserError, match="no settings of protocol temperature that were tried give a finite"):
        tune_evaluation.tune(run, np.zeros(5, np.uint8), start, "temperature")


def test_every_protocol_that_adapts_has_a_grid_of_keys_that_exist():
    assert tune_evaluation.GRIDS.keys() == {protocol.adapts for protocol in PROTOCOLS.values() if protocol.adapts}
    for protocol in PROTOCOLS.values():
        assert not protocol.adapts or set(tune_evaluation.GRIDS[protocol.adapts]) == set(protocol.reads)
    for grid in tune_evaluation.GRIDS.values():
        for key, values in grid.items():
            for value in values:
                tiny.config(**{f"evaluation__{key}": value})


def test_the_command(workdir, monkeypatch, capsys):
    """It scores the validation text alone, and what it prints can be run."""
    monkeypatch.setattr(tune_evaluation, "GRIDS", {"temperature": {"temperature": (0.5, 1.0, 2.0)}})
    arguments, log = ["launch.py", "--experiment=tune_evaluation", f"--workdir={workdir}"], workdir / "test_log.jsonl"
    before = log.read_bytes()
    assert launch.main([*arguments, "--config.evaluation.protocols=('temperature',)"]) == 0
    found = json.loads((workdir / "tuned.temperature.json").read_text())
    scores = {row["settings"]["temperature"]: row["perplexity"] for row in found["tried"]}
    assert scores.keys() == {0.5, 1.0, 2.0}
    assert found["perplexity"] == min(scores.values())
    assert log.read_bytes() == before
    printed, chosen = capsys.readouterr().out, found["settings"]["temperature"]
    assert f"--config.evaluation.temperature={chosen}" in printed
    assert (f"temperature={chosen} is at the edge of the values tried" in printed) == (chosen != 1.0)
    assert launch.main([*arguments, "--config.evaluation.protocols=('exact',)"]) == 2
    assert "'exact' has no settings to tune; these have: temperature, cache" in capsys.readouterr().err
