"""Machines on one study in a real PostgreSQL server: one of two is killed in mid-trial and the other repeats it; the
server itself is away for a while."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import optuna
import pytest

from configs import loading
from experiments.sweeps.plan import plan_trial
from experiments.sweeps.space import make_space
from experiments.sweeps.trials import origin
from tests.helpers.sweep_runs import CONFIG, launched, trials_of, wait_for

pytestmark = pytest.mark.slow

# Long enough that a trial is caught half done.
LONG = (
    CONFIG.replace(
        "train__steps=24, train__evaluate_every=6, train__report_every=6",
        "train__steps=6000, train__evaluate_every=1000, train__report_every=1000",
    )
    .replace("checkpoint__every_steps=6", "checkpoint__every_steps=1000")
    .replace("config.trials = 5", "config.trials = 4; config.heartbeat_seconds = 1")
)


def programs() -> Path:
    """The directory of initdb and pg_ctl; skips the test where there is none."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if not found and not on_path:
        pytest.skip("Debian's postgresql is not installed")
    return (found[-1] if found else Path(on_path)).parent


class Server(NamedTuple):
    """url: of its database; call(program, *arguments): runs one of PostgreSQL's programs on it."""

    url: str
    call: Callable

    def stop(self):
        """As a crash would."""
        self.call("pg_ctl", "-m", "immediate", "stop")

    def start(self):
        self.call("pg_ctl", "-w", "start")


@pytest.fixture
def server():
    """A server of our own, on a free port of this machine."""
    directory = Path(tempfile.mkdtemp(prefix="lm-postgres-"))
    binaries, as_user = programs(), []
    if os.getuid() == 0:  # which PostgreSQL refuses to run as
        as_user = ["runuser", "-u", "postgres", "--"]
        shutil.chown(directory, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    settings = (
        f"\nport = {port}\nunix_socket_directories = '{directory}'\nlisten_addresses = '127.0.0.1'\nfsync = off\n"
    )

    def call(program, *arguments):
        command = [*as_user, str(binaries / program), "-D", str(directory / "data"), *arguments]
        log = ["-l", str(directory / "log")] if "start" in arguments else []
        subprocess.run([*command, *log], cwd="/", check=True, stdout=subprocess.DEVNULL)

    try:
        call("initdb", "-U", "lm", "-A", "trust", "--no-sync", "-E", "UTF8")
        with open(directory / "data" / "postgresql.conf", "a", encoding="utf-8") as file:
            file.write(settings)
        made = Server(f"postgresql+psycopg://lm@127.0.0.1:{port}/postgres", call)
        made.start()
        try:
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def test_one_of_two_machines_is_killed(server, tmp_path):
    config = tmp_path / "shared_sweep.py"
    config.write_text(LONG)
    machines = [launched(config, tmp_path / "run", f"--storage={server.url}") for _ in range(2)]
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
    storage = optuna.storages.RDBStorage(server.url)
    trials = optuna.load_study(study_name="tests/sweep", storage=storage).trials
    storage.remove_session()
    storage.engine.dispose()
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    numbers = [trial.number for trial in trials if origin(trial) == trial.number]  # the repetition has one between
    places = [numbers.index(origin(trial)) for trial in complete]
    assert sorted(places) == [0, 1, 2, 3], "each trial is finished once"
    [repeated] = [trial for trial in complete if origin(trial) != trial.number]
    assert trials[origin(repeated)].state.name == "FAIL", "what the dead machine was at"
    plan = loading.load(str(config))
    for trial, place in zip(complete, places, strict=True):
        assert trial.params == plan_trial(plan, make_space(plan), place)


def test_a_server_that_is_away_for_a_while_is_waited_for(server, tmp_path):
    """While a trial trains, which ends afterwards as if nothing had been."""
    config = tmp_path / "shared_sweep.py"
    config.write_text(LONG.replace("config.trials = 4", "config.trials = 2"))
    machine = launched(config, tmp_path / "run", f"--storage={server.url}")
    with contextlib.ExitStack() as stack:
        stack.callback(kill, machine)
        wait_for(lambda: list((tmp_path / "run").glob("trials/0000/checkpoints/last/*")))
        server.stop()
        time.sleep(4)
        assert machine.poll() is None
        server.start()
        out, _ = machine.communicate(timeout=240)
    assert machine.returncode == 0, out
    trials = trials_of(tmp_path / "run")
    assert [(trial["state"], trial["failure"]) for trial in trials] == [("complete", None)] * 2


def kill(machine):
    """The whole of it, if it is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(machine.pid, signal.SIGKILL)
    machine.wait()
    machine.stdout.close()
