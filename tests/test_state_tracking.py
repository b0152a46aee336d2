"""The command `state_tracking`."""

import json

import numpy as np
import pytest

import launch
from configs import state_tracking as config_file
from experiments import state_tracking
from lm.cells.table import CELLS


@pytest.mark.slow
def test_an_lstm_learns_parity_and_a_gate_that_sees_no_state_does_not(tmp_path, monkeypatch):
    """Elman's network and the LSTM solve parity on longer texts; minGRU, whose gates read the input alone, cannot."""
    monkeypatch.setattr(state_tracking.lanes, "one_device_per_core", lambda: None)  # JAX has started already
    accuracy = {
        cell: state_tracking.measure(cell, "parity", tmp_path / cell)["mean"]
        for cell in ("lstm", "elman_tanh", "min_gru")
    }
    assert accuracy["lstm"] > 0.99
    assert accuracy["elman_tanh"] > 0.99
    assert accuracy["min_gru"] < 0.6


def test_the_command(tmp_path, monkeypatch, capsys):
    """Runs again to the same content, without training again."""
    get_config = config_file.get_config

    def small(task):
        config = get_config(task)
        config.data.size, config.model.hidden, config.train.steps = 100, (3,), 4
        return config

    monkeypatch.setattr(state_tracking.state_tracking, "get_config", small)
    monkeypatch.setattr(state_tracking, "STATE_TASKS", {"parity": None})
    monkeypatch.setattr(state_tracking.lanes, "one_device_per_core", lambda: None)  # JAX has started already
    arguments = ["launch.py", "--experiment=state_tracking", "--cells=gru,lstm_projection", f"--workdir={tmp_path}"]
    assert launch.main(arguments) == 0
    content = json.loads((tmp_path / "state_tracking.json").read_text())
    assert [(row["cell"], row["task"]) for row in content["rows"]] == [("gru", "parity"), ("lstm_projection", "parity")]
    for row in content["rows"]:
        assert np.mean(row["values"]) == pytest.approx(row["mean"])
        summaries = [tmp_path / row["cell"] / "parity" / f"seed={seed}" / "summary.json" for seed in range(3)]
        found = [json.loads(path.read_text())["results"] for path in summaries]
        assert row["values"] == [each["accuracy"] for rows in found for each in rows if each["split"] == "test"]
    assert (tmp_path / "state_tracking.png").read_bytes().startswith(b"\x89PNG")
    assert launch.main(arguments) == 0
    assert json.loads((tmp_path / "state_tracking.json").read_text()) == content
    assert "| lstm_projection |" in capsys.readouterr().out


def test_unknown_cells_are_refused(capsys):
    assert launch.main(["launch.py", "--experiment=state_tracking", "--cells=lstm,jordan_softmax"]) == 2
    assert "--cells: unknown 'jordan_softmax'" in capsys.readouterr().err


def test_every_cell_is_compared_or_left_out():
    for cell in CELLS.keys() - set(state_tracking.LEFT_OUT):
        config = config_file.get_config("parity")
        config.model.cell, config.model.projection = cell, state_tracking.PROJECTIONS.get(cell, 0)
        state_tracking.lanes.make_configs(config, "seed=0:2")
