"""One, two and four devices, and two processes, give the same numbers; only process 0 writes; what is refused."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lm.errors import UserError
from lm.training.setup import make_setup
from tests.helpers import tiny

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """What tests/helpers/four_devices.py finds on four virtual devices."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "PYTHONPATH": str(ROOT),
    }
    command = [
        sys.executable,
        str(ROOT / "tests" / "helpers" / "four_devices.py"),
        str(tmp_path_factory.mktemp("four")),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("case", ["plain, a long dispatch", "everything"])
def test_the_number_of_devices_changes_nothing_but_rounding(four, case):
    one = four[case].pop("1")
    assert one["carry_rows"] == [8]
    for count, found in four[case].items():
        # 1,000 steps in one dispatch also show that devices do not wait for each other in vain.
        first = slice(0, 50)
        np.testing.assert_allclose(found["losses"][first], one["losses"][first], rtol=1e-5)
        np.testing.assert_allclose(found["norms"][first], one["norms"][first], rtol=1e-4)
        np.testing.assert_allclose(found["losses"], one["losses"], rtol=1e-3)
        if case == "everything":
            np.testing.assert_allclose(found["parameters"], one["parameters"], rtol=1e-3, atol=1e-5)
            np.testing.assert_allclose(found["carry"], one["carry"], rtol=1e-3, atol=1e-5)
        assert found["carry_rows"] == [8 // int(count)] * int(count)
        assert found["copies"] == int(count)
        assert found["compilations"] == 1


def assert_same_rows(found, expected):
    for a, b in zip(found["rows"], expected["rows"], strict=True):
        assert a.keys() == b.keys()
        for key in a:
            if key != "valid_protocol":
                np.testing.assert_allclose(a[key], b[key], rtol=1e-4, err_msg=key)
    np.testing.assert_allclose(found["results"], expected["results"], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("count", ["2", "4"])
def test_a_whole_run_on_several_devices_is_the_run_on_one(four, count):
    assert four["run"]["1"]["averaging"], "averaging never began: the test shows less than it should"
    assert_same_rows(four["run"][count], four["run"]["1"])


@pytest.mark.slow
@pytest.mark.parametrize("change", ["4 to 1", "1 to 4"])
def test_a_run_goes_on_with_another_number_of_devices(four, change):
    assert four["continued"][change]["began"] == 6
    assert_same_rows(four["continued"][change], four["run"]["1"])


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        (0, "config.train.devices must be at least 1"),
        (2, "must divide config.data.batch_size=3"),
        (3, "--xla_force_host_platform_device_count=3"),
    ],
)
def test_bad_numbers_of_devices_are_named(devices, said):
    with pytest.raises(UserError, match=said):
        make_setup(tiny.config(train__devices=devices), tiny.corpus())


# --- Two processes --------------------------------------------------------------------------------------------------

SETTINGS = (
    "--config.train.steps=40",
    "--config.model.hidden=(3,)",
    "--config.train.evaluate_every=10",
    "--config.evaluation.splits=('valid',)",
    "--config.train.report_every=5",
    "--config.checkpoint.every_steps=10",
    "--config.train.steps_per_dispatch=5",
    "--config.keep_prob.output=0.8",
)


def start(*arguments):
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "launch.py", *SETTINGS, *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def start_two(workdir):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = (f"--workdir={workdir}", "--config.train.devices=2", f"--coordinator_address=127.0.0.1:{port}")
    return [start(*common, "--num_processes=2", f"--process_id={i}") for i in (0, 1)]


def finish(processes):
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), outputs
    return outputs


def rows_of(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_killed_on_the_way_give_the_run_of_one(tmp_path):
    finish([start(f"--workdir={tmp_path / 'one'}")])
    two = tmp_path / "two"
    processes = start_two(two)
    deadline = time.monotonic() + 200
    while not (two / "checkpoints" / "last" / "10").exists():
        assert time.monotonic() < deadline
        assert processes[0].poll() is None, processes[0].communicate()[0]
        time.sleep(0.02)
    for process in processes:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    outputs = finish(start_two(two))
    assert "resuming" in outputs[0] or "of 40" in outputs[0]
    assert "step" not in outputs[1], "process 1 reports too"
    for a, b in zip(rows_of(two), rows_of(tmp_path / "one"), strict=True):
        for key in ("step", "loss", "gradient_norm", "learning_rate"):
            np.testing.assert_allclose(a[key], b[key], rtol=1e-5, err_msg=key)
    results = [json.loads((tmp_path / name / "summary.json").read_text())["results"] for name in ("one", "two")]
    np.testing.assert_allclose(results[1][0]["nats"], results[0][0]["nats"], rtol=1e-5)
    # A file for each time that a run is begun, by process 0 alone: it was begun twice.
    assert len(list((two / "tensorboard" / "train").iterdir())) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("--num_processes=2",),
        ("--coordinator_address=127.0.0.1:1", "--num_processes=2"),
        ("--coordinator_address=127.0.0.1:1", "--num_processes=2", "--process_id=2"),
        ("--coordinator_address=nowhere", "--num_processes=2", "--process_id=0"),
    ],
)
def test_incomplete_or_impossible_processes_are_refused(tmp_path, arguments):
    process = start(f"--workdir={tmp_path}", *arguments)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 2
    assert "error: " in output
    assert "Traceback" not in output
