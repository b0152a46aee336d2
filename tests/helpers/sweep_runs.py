"""Sweeps as the command line runs them, for tests that kill, interrupt and disturb them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Of a tuple the study keeps the text.
SPACE = """("optim.learning_rate", "log_uniform", 0.01, 1.0), ("seed", "integer", 0, 99),
                    ("init.bias", "choice", ("zeros",), ("uniform", -0.1, 0.1))"""

# A sweep of a run of 24 steps on 3,000 characters. Tests change it, kill it, and make it diverge.
CONFIG = f"""
from configs.sweeps._definition import sweep
from tests.helpers import tiny

def get_config():
    run = tiny.config(data__size=3000, train__steps=24, train__evaluate_every=6, train__report_every=6,
                      checkpoint__every_steps=6)
    config = sweep("tests/sweep", run)
    config.space = ({SPACE})
    config.trials = 5
    return config
"""


def launched(config: Path, workdir: Path, *flags):
    """The process of a sweep."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "launch.py", "--experiment=sweep", f"--config={config}", f"--workdir={workdir}", *flags]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process) -> str:
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0, out
    return out


def trials_of(workdir: Path) -> list[dict]:
    trials = json.loads((workdir / "sweep.json").read_text())["trials"]
    return [{key: value for key, value in trial.items() if key != "seconds"} for trial in trials]


def workers_of(process) -> list[int]:
    """Process ids of a sweep's workers."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"lm.machine.processes" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(happens, seconds: float = 120.0) -> None:
    """Returns as soon as happens() is true; fails where it never is."""
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, f"nothing has happened for {seconds} s"
        time.sleep(0.01)


# --- Three ways to kill: what is killed of a sweep. Each returns when nothing of it runs any more.


def kill_group(process):
    """The supervisor and its workers at once."""
    workers = workers_of(process)
    os.killpg(process.pid, signal.SIGKILL)
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
    all_gone(process, workers)


def kill_supervisor(process):
    """The supervisor alone: its workers must notice."""
    workers = workers_of(process)
    os.kill(process.pid, signal.SIGKILL)
    all_gone(process, workers)


def all_gone(process, workers: list[int]):
    process.communicate()  # ends when nobody holds the other end of its output
    wait_for(lambda: not any(map(is_running, workers)), 30)


KILLS = {"group": kill_group, "supervisor": kill_supervisor}


def killed(config: Path, workdir: Path, kill, happens, seconds_after: float = 0.0):
    """Begins a sweep one trial at a time, and kills it so long after something happens."""
    process = launched(config, workdir, "--config.lanes=1")
    try:
        while not happens():
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.02)
        time.sleep(seconds_after)
        kill(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
