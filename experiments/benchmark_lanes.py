"""Measures how much faster N runs of one shape train as lanes than one after another, for N = 2, 4, ..., 32.

    python launch.py --experiment=benchmark_lanes --config=configs/text8/lstm_fused.py --config.data.corpus=text8_prefix

Both variants run the dispatches of training, and take turns over several rounds. Compilation and the work between
dispatches are not timed. "One after another" uses one thread, the fastest way to train a single model as small as
text8's (config.train.threads).

Complete runs are timed once: one command that trains 16 seeds as lanes, and 16 commands that train one seed each. Their
times include the start of Python, loading, compilation or reading its cache, validation and checkpoints.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from experiments.train import load_corpus
from lm.machine.cores import one_device_per_core
from lm.runs.files import write_json
from lm.runs.provenance import provenance, revision
from lm.runs.workdir import prepare_workdir
from lm.training.lanes import Lanes, lane_steps
from lm.training.recorder import Recorder
from lm.training.setup import Setup, make_setup
from lm.training.step import train_steps

LANES = (2, 4, 8, 16, 32)
ROUNDS = 5
WHOLE_RUNS = 16
ROOT = Path(__file__).resolve().parent.parent


def run(config, workdir, data_dir=None):
    """Writes `workdir`/lanes_speed.json and returns its content."""
    one_device_per_core()
    corpus = load_corpus(config, data_dir)
    prepare_workdir(workdir, config)
    setup = make_setup(config, corpus)
    rows = [measure(setup, workdir, lanes) for lanes in LANES]
    whole = measure_whole_runs(config, Path(workdir), data_dir)
    record = {"rows": rows, "whole_runs": whole, "provenance": provenance(config, corpus, revision())}
    write_json(f"{workdir}/lanes_speed.json", record)
    return record


def measure(setup: Setup, workdir: str, lanes: int) -> dict:
    """Times `lanes` runs one after another and as lanes. Returns the median speeds and the median of their ratio."""
    steps, tokens = setup.config.train.steps_per_dispatch, jnp.asarray(setup.corpus.splits["train"])
    together = Lanes([Recorder(setup, workdir)] * lanes, tokens)
    state = setup.initial_state()
    states, counts = together.states, jnp.full(together.slots, steps, jnp.int32)
    alone_seconds, lane_seconds = [], []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        for _ in range(lanes):
            state, measured = train_steps(setup, state, tokens, setup.hyper, steps)
            jax.block_until_ready(measured)
        between = time.perf_counter()
        program = together.program, together.mesh, together.within
        states, measured = lane_steps(*program, states, together.data, together.hypers, counts)
        jax.block_until_ready(measured)
        alone_seconds.append(between - began)
        lane_seconds.append(time.perf_counter() - between)
    _, *alone_seconds = alone_seconds  # the first round compiles
    first, *lane_seconds = lane_seconds
    ratios = [a / b for a, b in zip(alone_seconds, lane_seconds, strict=True)]
    trained = lanes * steps * setup.task.tokens_per_step
    row = {
        "lanes": lanes,
        "devices": together.mesh.size,
        "within_a_device": together.within,
        "tokens_per_s": trained / statistics.median(lane_seconds),
        "tokens_per_s_one_after_another": trained / statistics.median(alone_seconds),
        "ratio": statistics.median(ratios),
        "ratio_lowest": min(ratios),
        "ratio_highest": max(ratios),
        "first_dispatch_s": first,
    }
    ratio = f"{row['ratio']:.2f} ({min(ratios):.2f} to {max(ratios):.2f}) times one after another"
    print(f"{lanes:3} lanes on {row['devices']} devices: {row['tokens_per_s']:,.0f} tokens/s, {ratio}")
    return row


def measure_whole_runs(config, workdir: Path, data_dir, count: int = WHOLE_RUNS) -> dict:
    """Times `count` commands that train one seed each, and one command that trains all these seeds as lanes."""
    began = time.perf_counter()
    for seed in range(count):
        run_command(config, workdir / "alone" / str(seed), data_dir, f"--config.seed={seed}")
    between = time.perf_counter()
    run_command(config, workdir / "lanes", data_dir, "--experiment=lanes", f"--lanes=seed=0:{count}")
    together, alone = time.perf_counter() - between, between - began
    ratio = alone / together
    print(f"{count} complete runs: {alone:.0f} s one after another, {together:.0f} s as lanes, {ratio:.2f} times")
    return {"lanes": count, "seconds_one_after_another": alone, "seconds_as_lanes": together, "ratio": ratio}


def run_command(config, workdir: Path, data_dir, *flags: str):
    """Runs launch.py on the config file of this config, with the same corpus. Raises CalledProcessError."""
    file, _, variant = config.name.partition(":")
    command = [sys.executable, "launch.py", f"--config=configs/{file}.py" + (f":{variant}" if variant else "")]
    command += [f"--config.data.corpus={config.data.corpus}", f"--workdir={workdir.absolute()}", *flags]
    if data_dir:
        command.append(f"--data_dir={Path(data_dir).absolute()}")
    subprocess.run(command, cwd=ROOT, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
