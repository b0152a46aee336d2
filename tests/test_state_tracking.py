"""The command `state_tracking`."""

import json

import numpy as np
import pytest

import launch
from configs import state_tracking as config_file
from experiments import state_tracking
from lm.cells.table import CELLS
from lm.data.state_tracking import STATE_TASKS
from lm.run import open_run


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


@pytest.mark.slow
def test_the_command(tmp_path, monkeypatch, capsys):
    """Runs again to the same content, without training again."""
    get_config = config_file.get_config

    def small(task):
        config = get_config(task)
        config.data.size, config.model.hidden, config.train.steps = 100, (3,), 4
        return config

    monkeypatch.setattr(state_tracking.state_tracking, "get_config", small)
    monkeypatch.setattr(state_tracking, "STATE_TASKS", {"parity": STATE_TASKS["parity"]})
    monkeypatch.setattr(state_tracking.lanes, "one_device_per_core", lambda: None)  # JAX has started already
    arguments = [
        "launch.py",
        "--experiment=state_tracking",
        "--cells=elman_tanh",
        f"--workdir={tmp_path}",
    ]
    assert launch.main(arguments) == 0
    content = json.loads((tmp_path / "state_tracking.json").read_text())
    assert [(row["cell"], row["task"]) for row in content["rows"]] == [("elman_tanh", "parity")]
    for row in content["rows"]:
        assert np.mean(row["values"]) == pytest.approx(row["mean"])
        summaries = [tmp_path / row["cell"] / "parity" / f"seed={seed}" / "summary.json" for seed in range(3)]
        found = [json.loads(path.read_text())["results"] for path in summaries]
        assert row["values"] == [each["accuracy"] for rows in found for each in rows if each["split"] == "test"]
    for picture in ("state_tracking.png", "reach.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    expected = reach_by_hand(open_run(tmp_path / "elman_tanh" / "parity" / "seed=0").parameters)
    np.testing.assert_allclose(
        content["reach"]["elman_tanh"]["after"], expected, rtol=6e-3, atol=1e-37
    )  # three digits; float32
    assert launch.main(arguments) == 0
    assert json.loads((tmp_path / "state_tracking.json").read_text()) == content
    assert "| elman_tanh |" in capsys.readouterr().out


def reach_by_hand(parameters: dict, steps: int = 201, batch: int = 16) -> np.ndarray:
    """|d m / d h_t| of an Elman network by the chain rule: a slope and a product with w_h for every step back."""
    layer = {name: np.asarray(value, np.float64) for name, value in parameters["layer_0"].items()}
    draw = np.random.default_rng(0)
    x = np.asarray(parameters["embedding"], np.float64)[[draw.integers(2, size=steps) for _ in range(batch)]]
    states, h = [], np.zeros((batch, len(layer["w_h"])))
    for t in range(steps):
        h = np.tanh(x[:, t] @ layer["w_x"] + h @ layer["w_h"] + layer["b"])
        states.append(h)
    kernel = np.asarray(parameters["output_kernel"], np.float64)
    gradient, norms = np.tile(kernel[:, 1] - kernel[:, 0], (batch, 1)), []
    for h in reversed(states):
        norms.append(np.linalg.norm(gradient, axis=1).mean())
        gradient = ((1 - h**2) * gradient) @ layer["w_h"].T
    return np.array(norms[:0:-1])


def test_unknown_cells_are_refused(capsys):
    assert launch.main(["launch.py", "--experiment=state_tracking", "--cells=lstm,jordan_softmax"]) == 2
    assert "--cells: unknown 'jordan_softmax'" in capsys.readouterr().err


def test_every_cell_is_compared_or_left_out():
    for cell in CELLS.keys() - set(state_tracking.LEFT_OUT):
        config = config_file.get_config("parity")
        config.model.cell, config.model.projection = cell, state_tracking.PROJECTIONS.get(cell, 0)
        state_tracking.lanes.make_configs(config, "seed=0:2")
