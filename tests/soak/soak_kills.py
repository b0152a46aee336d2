"""A run that SIGKILL ends at 50 random moments and more, and that the same command begins again each time, ends as an
uninterrupted one does: parameters, metrics.jsonl, summary.json and samples.txt, except times and speeds.

    python -m pytest tests/soak/soak_kills.py            # some ten minutes each; -k lstm: one of them

Moments are drawn uniformly from three stretches of a process's life, so that load on the machine decides neither how
far a run gets nor which phases are hit: its start (half of the time with nothing compiled yet), what follows its first
new checkpoint, and what follows the last row. tests/helpers/probe tells what a process was doing when it died. The
outcome is recorded in docs/results/soak_kills.json.
"""

import collections
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

from configs import loading
from experiments.lanes import make_configs
from experiments.train import load_corpus
from lm.runs.checkpoint import Checkpoints
from lm.runs.files import write_json
from lm.runs.provenance import revision
from lm.training.setup import make_setup

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "docs" / "results" / "soak_kills.json"
KILLS = 50  # before the last step; those after it come on top
ENDING_KILLS = 4
SEED = 0

CONFIG = """
from configs.base import base


def get_config():
    config = base()
    config.data.size = 100_000
    config.data.batching = "rows"
    config.data.batch_size, config.data.unroll = 8, 16
    config.model.input, config.model.embedding_size, config.model.hidden = "embedding", 16, (24, 24)
    config.keep_prob.input = config.keep_prob.between = config.keep_prob.output = 0.7
    config.optim.clipping = "global_norm"
    config.train.steps = 2000
    config.train.report_every, config.train.evaluate_every, config.train.sample_every = 7, 10, 20
    config.train.steps_per_dispatch = 10
    config.evaluation.splits = ("valid", "test")
    config.sample.number, config.sample.length = 4, 200
    config.checkpoint.every_steps, config.checkpoint.best = 12, "keep"
    config.update_from_flattened_dict(CHANGES)
    return config
"""


class Run(NamedTuple):
    """changes: of CONFIG; lanes: of --experiment=lanes, or "" for a run alone."""

    changes: dict
    lanes: str = ""


RUNS = {
    "lstm": Run({"optim.name": "adam", "optim.learning_rate": 5e-3, "optim.schedule": "cosine"}),
    "nt_asgd": Run(
        {
            "optim.name": "nt_asgd",
            "optim.learning_rate": 20.0,
            "optim.nonmonotone_checks": 2,
            "model.hidden": (24,),
            "keep_prob.weight_drop": 0.7,
            "optim.weight_decay": 1e-6,
            "train.steps": 2000,
        }
    ),
    "lanes": Run(
        {"optim.name": "momentum", "optim.schedule": "plateau", "optim.decay_rate": 0.7, "train.evaluate_every": 20},
        lanes="seed=0:2 train.steps=500,700",
    ),
}


class Harness:
    """Starts the command of a run, waits for moments in its life, and kills it."""

    def __init__(self, run: Run, directory: Path):
        self.config = directory / "soak.py"
        self.config.write_text(CONFIG.replace("CHANGES", repr(run.changes)))
        self.lanes, self.probe, self.cache = run.lanes, directory / "probe", directory / "cache"

    def start(self, workdir: Path):
        """Begins the command in a process group of its own; what it says goes to log.txt beside the workdir."""
        command = [sys.executable, "launch.py", f"--config={self.config}", f"--workdir={workdir}"]
        if self.lanes:
            command += ["--experiment=lanes", f"--lanes={self.lanes}"]
        environment = os.environ | {
            "XDG_CACHE_HOME": str(self.cache),
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(ROOT / "tests" / "helpers" / "probe"),
            "PROBE_FILE": str(self.probe),
        }
        self.probe.unlink(missing_ok=True)
        self.workdir, self.began = workdir, time.monotonic()
        self.marks = self.newest_checkpoints()
        with open(workdir.with_suffix(".log.txt"), "ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def newest_checkpoints(self) -> set[Path]:
        return {path for path in files_of(self.workdir, "checkpoints/last/*") if path.name.isdigit()}

    def wait_until(self, happens, timeout: float = 3600) -> bool:
        """Whether it happened before the process ended."""
        end = time.monotonic() + timeout
        while self.process.poll() is None:
            if happens():
                return True
            assert time.monotonic() < end, f"nothing new in {timeout} s: see {self.workdir}"
            time.sleep(0.002)
        return False

    def has_new_checkpoint(self) -> bool:
        return bool(self.newest_checkpoints() - self.marks)

    def kill(self) -> str:
        """What the process was doing when SIGKILL came; "" where it had ended by itself."""
        if self.process.poll() is not None:
            return ""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return self.probe.read_bytes().decode().strip() if self.probe.exists() else "starting or between"

    def finish(self):
        assert self.process.wait() == 0, workdir_log(self.workdir)[-2000:]


def files_of(workdir: Path, pattern: str) -> list[Path]:
    """What matches in the workdir of a run alone, or in those of lanes."""
    return [*workdir.glob(pattern), *workdir.glob(f"*=*/{pattern}")]


def workdir_log(workdir: Path) -> str:
    return workdir.with_suffix(".log.txt").read_text()


# --- What a run came to ---------------------------------------------------------------------------------------------


def without_times(value):
    """JSON without what a clock decides."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in ("tokens_per_s", "wall_time_s", "date")}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def digest(state) -> str:
    """SHA-256 over all leaves."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(state._replace(key=jax.random.key_data(state.key))):
        found.update(np.asarray(leaf).tobytes())
    return found.hexdigest()


def outcome(config, workdir: Path) -> dict:
    """All that must be equal, of one run."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    found = {
        "metrics.jsonl": without_times(rows),
        "summary.json": without_times(json.loads((workdir / "summary.json").read_text())),
        "samples.txt": (workdir / "samples.txt").read_text(),
    }
    template = make_setup(config, load_corpus(config, None)).initial_state()
    with Checkpoints(workdir) as checkpoints:
        for which in ("last", "best"):
            state, extra, step = checkpoints.restore(template, which)
            timeless = {k: v for k, v in extra["progress"].items() if k not in ("train_seconds", "timed_steps")}
            found[which] = {"step": step, "sha256": digest(state), **(extra | {"progress": timeless})}
    return found


def outcomes(harness: Harness, workdir: Path) -> dict[str, dict]:
    """{directory: outcome} of all runs in a workdir."""
    config = loading.load(str(harness.config))
    if not harness.lanes:
        return {"": outcome(config, workdir)}
    names, configs = make_configs(config, harness.lanes)
    return {name: outcome(one, workdir / name) for name, one in zip(names, configs, strict=True)}


def differences(found: dict, expected: dict) -> list[str]:
    return [f"{run}/{part}" for run, parts in expected.items() for part in parts if found[run][part] != parts[part]]


# --- The soak -------------------------------------------------------------------------------------------------------


class Times(NamedTuple):
    """Of the uninterrupted run, in seconds."""

    start: float  # until the first new checkpoint, with nothing compiled before
    running: float  # from there to the last step's row
    ending: float  # from there to the end


def uninterrupted(harness: Harness, workdir: Path, last_step: int) -> Times:
    harness.start(workdir)
    harness.wait_until(harness.has_new_checkpoint)
    first = time.monotonic()
    harness.wait_until(lambda: has_row(workdir, last_step))
    row = time.monotonic()
    harness.finish()
    return Times(first - harness.began, row - first, time.monotonic() - row)


def has_row(workdir: Path, step: int) -> bool:
    return any(f'"step": {step},' in path.read_text() for path in files_of(workdir, "metrics.jsonl"))


class Killer:
    """Draws moments as the module says, and kills."""

    def __init__(self, harness: Harness, workdir: Path, times: Times, last_step: int, rng: random.Random):
        self.harness, self.workdir, self.times, self.last_step, self.rng = harness, workdir, times, last_step, rng
        self.warm_start = times.start  # until the first new checkpoint, with everything compiled before

    def once(self, kills: int) -> str:
        """One start of the command and its end: the phase of its death, or "" where it ended by itself."""
        if kills >= KILLS:
            return self.in_ending()
        return self.in_start() if self.rng.random() < 0.4 else self.in_running(kills)

    def in_start(self) -> str:
        longest = self.warm_start
        if self.rng.random() < 0.5:
            shutil.rmtree(self.harness.cache, ignore_errors=True)
            longest = self.times.start
        self.harness.start(self.workdir)
        moment = self.harness.began + self.rng.uniform(0, longest)
        self.harness.wait_until(lambda: time.monotonic() > moment or self.harness.has_new_checkpoint())
        return self.harness.kill()

    def in_running(self, kills: int) -> str:
        is_warm = self.harness.cache.exists()
        self.harness.start(self.workdir)
        done = max((int(path.name) for path in self.harness.marks), default=0)
        remaining = self.times.running * (1 - done / (self.last_step + 1))
        self.harness.wait_until(self.harness.has_new_checkpoint)
        if is_warm:
            self.warm_start = time.monotonic() - self.harness.began
        # So far on average that the run is about to end at the last of KILLS.
        time.sleep(self.rng.uniform(0, 1.6 * remaining / (0.6 * (KILLS - kills) + 1)))
        return self.harness.kill()

    def in_ending(self) -> str:
        was_over = has_row(self.workdir, self.last_step)
        self.harness.start(self.workdir)
        self.harness.wait_until(lambda: has_row(self.workdir, self.last_step))
        # Where the last checkpoint is written already, all of the process's life is the ending.
        time.sleep(self.rng.uniform(0, (self.warm_start if was_over else 0) + self.times.ending))
        return self.harness.kill()


@pytest.mark.parametrize("name", RUNS)
def test_a_run_killed_at_random_moments_ends_as_an_uninterrupted_one(name, tmp_path):
    harness, rng = Harness(RUNS[name], tmp_path), random.Random(f"{SEED} {name}")
    began = time.monotonic()
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    config = loading.load(str(harness.config))
    configs = make_configs(config, harness.lanes)[1] if harness.lanes else [config]
    last_step = max(one.train.steps for one in configs) - 1
    times = uninterrupted(harness, whole, last_step)
    killer = Killer(harness, killed, times, last_step, rng)
    phases, starts = collections.Counter(), 0
    while phases.total() < KILLS + ENDING_KILLS:
        starts += 1
        phase = killer.once(phases.total())
        if not phase:
            harness.finish()
            break
        phases[phase] += 1
        print(f"kill {phases.total()}: {phase}", flush=True)
    harness.start(killed)
    harness.finish()
    expected, found = outcomes(harness, whole), outcomes(harness, killed)
    different = differences(found, expected)
    record(
        name,
        {
            "config": RUNS[name].changes,
            "lanes": RUNS[name].lanes,
            "seed": SEED,
            "kills": phases.total(),
            "kills_by_phase": dict(phases.most_common()),
            "steps": last_step + 1,
            "resumed": workdir_log(killed).count("resuming "),
            "starts": starts + 1,
            "different": different,
            "sha256": {
                run: {"uninterrupted": expected[run]["last"]["sha256"], "killed": found[run]["last"]["sha256"]}
                for run in expected
            },
            "uninterrupted_s": round(sum(times), 1),
            "soak_s": round(time.monotonic() - began),
            "git": revision(),
        },
    )
    assert phases.total() >= KILLS
    assert not different


def record(name: str, row: dict):
    """Puts a run's row in the place of its last one."""
    rows = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    write_json(RECORD, rows | {name: row})
