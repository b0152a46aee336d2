"""`optuna-dashboard` opens the study of a sweep."""

import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from experiments.sweeps.study import Place, open_sweep
from tests.helpers.sweep_runs import wait_for
from tests.test_sweep import RATE, SEED, make

pytestmark = pytest.mark.slow


def test_the_dashboard_shows_the_study(tmp_path):
    pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    storage = f"sqlite:///{tmp_path}/study.db"
    open_sweep(make(RATE, SEED, trials=1), Place(str(tmp_path), None, storage, False))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("optuna-dashboard")
    with subprocess.Popen(
        [program, storage, f"--port={port}", "--host=127.0.0.1", "--server=wsgiref", "--quiet"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            answer = {}

            def answers() -> bool:
                assert server.poll() is None, "the dashboard has ended"
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies", timeout=10) as found:
                        answer.update(json.load(found))
                except (urllib.error.URLError, ConnectionError):
                    return False
                return True

            wait_for(answers, 60)
        finally:
            server.kill()
    [summary] = answer["study_summaries"]
    assert summary["study_name"] == "tests/sweep"
