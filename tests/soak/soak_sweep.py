"""A sweep that SIGKILL ends three times, and that the same command begins again each time, ends as an uninterrupted
one: trials, values, rows, samples, summaries and parameters, except times and speeds.

    python -m pytest tests/soak/soak_sweep.py            # some four minutes

Once the whole group of processes is killed each time, once the supervisor alone. Moments are drawn from some seconds
after a trial's first row. The outcome is recorded in docs/results/soak_sweep.json.
"""

import hashlib
import json
import random
import time
from pathlib import Path

from configs import loading
from experiments.ledger.records import RESULTS
from experiments.sweeps.space import make_space, set_parameters
from experiments.train import load_corpus
from lm.runs.checkpoint import Checkpoints
from lm.runs.files import write_json
from lm.runs.provenance import revision
from lm.training.setup import make_setup
from tests.helpers.sweep_runs import CONFIG, KILLS, finished, killed, launched, trials_of
from tests.soak.soak_kills import digest, without_times

RECORD = RESULTS / "soak_sweep.json"
SEED = 0
TRIALS = 8
# Beginnings of trials after which it is killed, and how many seconds later at most.
MOMENTS, LATER = (0, 3, 6), 2.0

SOAKED = CONFIG.replace("train__steps=24, train__evaluate_every=6", "train__steps=20000, train__evaluate_every=2000")
SOAKED = SOAKED.replace("train__report_every=6", "train__report_every=500, keep_prob__output=0.8")
SOAKED = SOAKED.replace("checkpoint__every_steps=6", "checkpoint__every_steps=1000")
SOAKED = SOAKED.replace("trials = 5", f"trials = {TRIALS}")


def parameters_of(config, trial: dict, directory: Path) -> str:
    """SHA-256 of all of a trial's last state."""
    run = set_parameters(config.run, make_space(config), trial["parameters"])
    run.evaluation.splits = ("valid",)
    template = make_setup(run, load_corpus(run, None)).initial_state()
    with Checkpoints(directory) as checkpoints:
        state, _, step = checkpoints.restore(template)
    assert step == run.train.steps
    return digest(state)


def outcome(config, workdir: Path) -> dict[str, str]:
    """{what: SHA-256} of all that must be equal."""
    trials = trials_of(workdir)
    directories = [workdir / trial["workdir"] for trial in trials]
    rows = [[json.loads(line) for line in (each / "metrics.jsonl").read_text().splitlines()] for each in directories]
    parts = {
        "trials": trials,
        "metrics.jsonl": without_times(rows),
        "summary.json": [without_times(json.loads((each / "summary.json").read_text())) for each in directories],
        "samples.txt": [(each / "samples.txt").read_text() for each in directories],
        "parameters": [parameters_of(config, *pair) for pair in zip(trials, directories, strict=True)],
    }
    return {name: hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest() for name, part in parts.items()}


def begins(workdir: Path, place: int):
    return lambda: (workdir / "trials" / f"{place:04}" / "metrics.jsonl").exists()


def test_a_sweep_killed_three_times_ends_as_an_uninterrupted_one(tmp_path):
    began, written_of, rng = time.monotonic(), revision(), random.Random(SEED)
    path, whole = tmp_path / "soak.py", tmp_path / "whole"
    path.write_text(SOAKED)
    config = loading.load(str(path))
    finished(launched(path, whole, "--config.lanes=1"))
    uninterrupted_s, expected = time.monotonic() - began, outcome(config, whole)
    rows = {}
    for name, kill in KILLS.items():
        workdir = tmp_path / name
        for place in MOMENTS:
            killed(path, workdir, kill, begins(workdir, place), rng.uniform(0, LATER))
        finished(launched(path, workdir, "--config.lanes=1"))
        found = outcome(config, workdir)
        rows[name] = {
            "kills": len(MOMENTS),
            "resumed": (workdir / "trials.log").read_text().count("resuming "),
            "different": [part for part in expected if found[part] != expected[part]],
            "sha256": {part: {"uninterrupted": expected[part], "killed": found[part]} for part in expected},
        }
    write_json(
        RECORD,
        {
            "git": written_of,
            "seed": SEED,
            "trials": TRIALS,
            "uninterrupted_s": round(uninterrupted_s, 1),
            "soak_s": round(time.monotonic() - began),
            "killed": rows,
        },
    )
    assert not any(row["different"] for row in rows.values())
