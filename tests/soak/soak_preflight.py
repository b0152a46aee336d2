"""Preflight against the stopwatch: `--dry_run`, then the run itself, for committed configs of some seconds to minutes.

    python -m pytest tests/soak/soak_preflight.py            # a quarter of an hour; -k bigram: one of them

Corpora are looked for in LM_DATA_DIR. The estimate fills the cache of compiled programs, and the run finds them there.
The machine must have nothing else to do: the estimate is of that. The outcome is recorded in
docs/results/soak_preflight.json.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from lm.runs.files import write_json
from lm.runs.provenance import cpu_model, revision

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "docs" / "results" / "soak_preflight.json"
OFF = 0.2  # at most, of the wall time and of the peak memory, above or below

RUNS = {
    "lstm_fused": ("--config=configs/text8/lstm_fused.py", "--config.data.corpus=text8_prefix"),
    "bigram": ("--config=configs/text8/bigram.py", "--config.data.corpus=text8_prefix"),
    "gru": ("--config=configs/tiny_shakespeare/char.py:gru",),
    "correct": ("--config=configs/shakespeare/lstm.py:correct",),
}


class Outcome(NamedTuple):
    """seconds: of the wall, from the command to its end; peak: resident bytes; said: standard output."""

    seconds: float
    peak: int
    said: str


def launched(directory: Path, *flags: str) -> Outcome:
    """Runs the command in a process of its own, whose compiled programs are kept in directory."""
    environment = os.environ | {"XDG_CACHE_HOME": str(directory / "cache")}
    output = directory / "output.txt"
    began = time.monotonic()
    with open(output, "wb") as file:
        process = subprocess.Popen([sys.executable, "launch.py", *flags], cwd=ROOT, env=environment, stdout=file)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, output.read_text()[-2000:]
    return Outcome(seconds, usage.ru_maxrss * 1024, output.read_text())


def foreseen(said: str) -> tuple[float, int]:
    """(seconds in all, bytes at the peak) of what --dry_run printed; its ETA is the sum of its parts."""
    parts = [float(x) for x in re.findall(r"([\d.]+) s in all$", said, re.MULTILINE)]
    [megabytes] = re.findall(r"^memory at the peak: about ([\d,]+) MB", said, re.MULTILINE)
    return sum(parts), int(megabytes.replace(",", "")) * 10**6


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="asks the system for a process's memory")
@pytest.mark.parametrize("name", RUNS)
def test_an_estimate_is_within_a_fifth(name, tmp_path):
    flags = RUNS[name]
    seconds, peak = foreseen(launched(tmp_path, *flags, "--dry_run").said)
    real = launched(tmp_path, *flags, f"--workdir={tmp_path}/run", "--noeta")
    row = {
        "command": " ".join(flags),
        "predicted_s": round(seconds, 1),
        "wall_s": round(real.seconds, 1),
        "seconds_ratio": round(seconds / real.seconds, 3),
        "predicted_peak_MB": round(peak / 1e6),
        "peak_MB": round(real.peak / 1e6),
        "peak_ratio": round(peak / real.peak, 3),
        "cpu": cpu_model(),
        "git": revision(),
    }
    print(row)
    rows = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    write_json(RECORD, rows | {name: row})
    assert abs(row["seconds_ratio"] - 1) <= OFF
    assert abs(row["peak_ratio"] - 1) <= OFF
