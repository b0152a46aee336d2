"""Two machines on one study in a real PostgreSQL server: one is killed in mid-trial, the other repeats it."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import optuna
import pytest

from experiments import command_line
from experiments.sweep_plan import make_space, origin, planned
from tests.test_sweep import CONFIG, launched

# Long enough that a trial is caught half done.
LONG = CONFIG.replace("train__steps=24, train__evaluate_every=6, train__report_every=6", "train__steps=6000, "
                      "train__evaluate_every=1000, train__report_every=1000").replace(
                      "checkpoint__every_steps=6", "checkpoint__every_steps=1000").replace(
                      "config.trials = 5", "config.trials = 4; config.heartbeat_seconds = 1")  # fmt: skip


def programs() -> Path:
    """The directory of initdb and pg_ctl; skips the test where there is none."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if not found and not on_path:
        pytest.skip("Debian's postgresql is not installed")
    return (found[-1] if found else Path(on_path)).parent


@pytest.fixture
def server():
    """The URL of a database of a server of our own, on a free port of this machine."""
    directory = Path(tempfile.mkdtemp(prefix="lm-postgres-"))
    binaries, as_user = programs(), []
    if os.getuid() == 0:  # which PostgreSQL refuses to run as
        as_user = ["runuser", "-u", "postgres", "--"]
        shutil.chown(directory, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def call(program, *arguments):
        subprocess.run([*as_user, str(binaries / program), *arguments], cwd="/", check=True, stdout=subprocess.DEVNULL)

    data = str(directory / "data")
    try:
        call("initdb", "-D", data, "-U", "lm", "-A", "trust", "--no-sync", "-E", "UTF8")
        options = f"-p {port} -k {directory} -c listen_addresses=127.0.0.1 -c fsync=off"
        call("pg_ctl", "-D", data, "-o", options, "-l", str(directory / "log"), "-w", "start")
        try:
            yield f"postgresql+psycopg://lm@127.0.0.1:{port}/postgres"
        finally:
            call("pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def test_one_of_two_machines_is_killed(server, tmp_path):
    config = tmp_path / "shared_sweep.py"
    config.write_text(LONG)
    machines = [launched(config, tmp_path / "run", f"--storage={server}") for _ in range(2)]
    with contextlib.ExitStack() as stack:
        for machine in machines:
            stack.callback(kill, machine)
        while len(half_done := list((tmp_path / "run").glob("trials/*/checkpoints/last/*"))) < 2:
            assert all(machine.poll() is None for machine in machines), machines[0].stdout.read()
            time.sleep(0.05)
        assert {path.parent.parent.parent.name for path in half_done} <= {"0000", "0001"}
        kill(machines[0])
        out, _ = machines[1].communicate(timeout=240)
        assert machines[1].returncode == 0, out
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(server)
    trials = optuna.load_study(study_name="tests/sweep", storage=storage).trials
    storage.remove_session()
    storage.engine.dispose()
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    numbers = [trial.number for trial in trials if origin(trial) == trial.number]  # the repetition has one between
    places = [numbers.index(origin(trial)) for trial in complete]
    assert sorted(places) == [0, 1, 2, 3], "each trial is finished once"
    [repeated] = [trial for trial in complete if origin(trial) != trial.number]
    assert trials[origin(repeated)].state.name == "FAIL", "what the dead machine was at"
    plan = command_line.load(str(config))
    for trial, place in zip(complete, places, strict=True):
        assert trial.params == planned(plan, make_space(plan), place)


def kill(machine):
    """The whole of it, if it is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(machine.pid, signal.SIGKILL)
    machine.wait()
    machine.stdout.close()
