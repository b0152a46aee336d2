"""Real processes of a ledger run: what becomes of those that train when the one that began them is asked to end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments import reproduce
from lm.errors import UserError
from lm.machine.processes import Supervisor

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]

# A run of a million steps, and a ledger over it as launch.py would make it.
CONFIG = """
from configs.base import set_targets, target
from tests.helpers import tiny

def get_config():
    config = tiny.config(data__size=3000, train__threads=1, train__steps=1_000_000, train__report_every=200)
    config.checkpoint.every_steps = 10_000_000
    config.name = "tests/long"
    config.claim.minutes = 1.0
    set_targets(config, easy=target(split="valid", protocol="exact", metric="perplexity", value=28.0, where="here"))
    return config
"""
LEDGER = """
import sys
from experiments import reproduce
from experiments.ledger.claims import Claim
from long_claim import get_config

claims = [Claim(sys.argv[1] + "/long_claim.py", get_config())]
reproduce.matching = lambda targets: claims
reproduce.all_claims = lambda: claims
try:
    reproduce.run(None, sys.argv[2])
except KeyboardInterrupt as error:
    sys.exit(77)
"""


def wait_for(condition, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing came of it"
        time.sleep(0.05)


def commands() -> dict[int, str]:
    """{process: its command line} of all processes that have not ended."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found[int(path.parent.name)] = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
    return found


@pytest.fixture
def begun(tmp_path):
    """(process of a ledger, its workdir), when the run that it has begun makes steps."""
    (tmp_path / "long_claim.py").write_text(CONFIG)
    (tmp_path / "ledger.py").write_text(LEDGER)
    workdir = tmp_path / "work"
    paths = os.pathsep.join([str(ROOT), str(tmp_path)])
    process = subprocess.Popen(
        [sys.executable, tmp_path / "ledger.py", tmp_path, workdir], env=os.environ | {"PYTHONPATH": paths}, cwd=ROOT
    )
    try:
        wait_for(lambda: any(b"step 200 " in log.read_bytes() for log in workdir.glob("logs/*.log")))
        yield process, workdir
    finally:
        process.kill()
        process.wait()


def of(workdir):
    return [number for number, command in commands().items() if f"--workdir={workdir}" in command]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_what_runs_save_and_the_ledger_say_so(begun, number):
    process, workdir = begun
    assert len(of(workdir)) == 1
    process.send_signal(number)
    time.sleep(0.01)
    process.send_signal(number)  # as timeout(1) does
    assert process.wait(60) == 77, "the exception goes on"
    assert of(workdir) == []
    [log] = workdir.glob("logs/*.log")
    assert "all saved: run the same command again to resume" in log.read_text().splitlines()[-1]
    assert len(list(workdir.glob("runs/*/checkpoints/last/*"))) == 1
    assert json.loads((workdir / "ledger.json").read_text())["not_run"] == {
        "tests_long.synthetic.seed0": "interrupted half done; run the same command again to resume"
    }


def test_a_second_process_is_refused_and_changes_nothing(begun, monkeypatch):
    process, workdir = begun
    logs = {path: path.read_bytes() for path in workdir.glob("logs/*")}
    with pytest.raises(UserError, match="in use by another process"):
        reproduce.run(None, workdir, targets="text8/lstm")
    assert not (workdir / "ledger.json").exists()
    for path, content in logs.items():
        assert path.read_bytes().startswith(content)
    process.send_signal(signal.SIGINT)
    process.wait(60)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is of Linux")
def test_a_killed_parent_leaves_nobody_and_loses_nothing(begun):
    process, workdir = begun
    process.kill()
    process.wait()
    wait_for(lambda: not of(workdir), 30)
    assert len(list(workdir.glob("runs/*/checkpoints/last/*"))) == 1


def test_no_command_starts_after_an_interrupt(tmp_path):
    supervisor, script = Supervisor(), tmp_path / "script.py"
    script.write_text("import sys, time\ntime.sleep(float(sys.argv[1]))\nsys.exit(3)")
    assert supervisor.run([str(script), "0"]) == 3
    assert supervisor.run([str(script), "60"], seconds=1.0) is None
    supervisor.interrupt()
    script.write_text(f"open({str(tmp_path / 'a')!r}, 'w')")
    assert supervisor.run([str(script)]) is None
    assert not (tmp_path / "a").exists()
