"""Estimates how long a job will take and how much memory it needs, before it starts.

`guess_seconds` needs only the number of parameters. `estimate` (lm/training/timing.py) times a short trial run of the
real programs in a temporary directory and multiplies by how often the training loop will do each operation. The test
split is never read: a test token is assumed to cost as much as a validation token.
"""

import collections
import os
from collections.abc import Iterable
from typing import NamedTuple

import jax
import ml_collections

from lm.data.corpora import CORPORA, OWN
from lm.machine.clock import h_mm_ss
from lm.machine.cores import available
from lm.machine.memory import free_bytes, megabytes
from lm.model.language_model import count_parameters
from lm.training.events import due, next_stop
from lm.training.setup import Setup

# Measured training speed in floating-point operations per second: per CPU core, and the lowest on an accelerator.
CORE_SPEED, ACCELERATOR_SPEED = 5e10, 1e13
# Events are counted over at most this many steps (half a second); counts of longer runs are extrapolated.
COUNTED_STEPS = 300_000


class Times(NamedTuple):
    """Measured durations as (first, later) in seconds: the first includes one-time costs, such as compiling.

    scores: durations by (split, protocol); an unread test split has those of `measured_split`, scaled to its length
    """

    setup: float
    step: tuple[float, float]
    report: tuple[float, float]
    sample: tuple[float, float]
    save: tuple[float, float]
    scores: dict[tuple[str, str], tuple[float, float]]


class Part(NamedTuple):
    """A recurring operation: how often it happens, and its first and later durations in seconds."""

    name: str
    count: int
    first: float
    later: float

    @property
    def seconds(self) -> float:
        return self.first + (self.count - 1) * self.later if self.count else 0.0


class Estimate(NamedTuple):
    """The estimated cost of a run. memory, free: bytes needed at the peak and free now (None: unknown)."""

    name: str
    steps: int
    parts: tuple[Part, ...]
    memory: int
    free: int | None
    patience: int  # validation checks without a better loss after which training may end early; 0: never
    tokens_per_step: float
    unread: tuple[str, ...] = ()  # splits that the run will score but the estimate did not read

    @property
    def seconds(self) -> float:
        return sum(part.seconds for part in self.parts)

    @property
    def step_seconds(self) -> float:
        return next(part.later for part in self.parts if part.name == "training steps")


def guess_seconds(setup: Setup) -> float:
    """Rough training time in seconds from the parameter count, within a factor of three."""
    parameters = setup.state_shapes.parameters
    looked_up = {} if setup.config.model.output == "tied" else parameters.get("embedding", {})
    weights = count_parameters(parameters) - count_parameters(looked_up)
    operations = 6 * weights * setup.task.tokens_per_step  # per weight, 2 in the forward and 4 in the backward pass
    on_cpu = jax.default_backend() == "cpu"
    speed = CORE_SPEED * available() if on_cpu else ACCELERATOR_SPEED * setup.config.train.devices
    return setup.total_steps * operations / speed


# --- Adding up ------------------------------------------------------------------------------------------------------


def count_events(setup: Setup) -> collections.Counter:
    """Counts how often a complete run dispatches, reports, validates, samples and saves."""
    counts, done, total = collections.Counter(), 0, setup.total_steps
    while done < min(total, COUNTED_STEPS):
        done = next_stop(setup, done)
        counts.update(due(setup, done))
        counts["dispatch"] += 1
    return collections.Counter({name: round(count * total / done) for name, count in counts.items()})


def final_scores(setup: Setup) -> list[tuple[str, str]]:
    """Each (split, protocol) that a finished run scores, including those of a test split that is not loaded."""
    evaluation, loaded = setup.config.evaluation, setup.corpus.splits
    has_test = unread_share(setup.config, measured_split(loaded)) is not None
    splits = [each for each in evaluation.splits if each in loaded or (each == "test" and has_test)]
    return [(split, protocol) for split in splits for protocol in evaluation.protocols]


def measured_split(splits) -> str:
    """The split whose scoring time is scaled to estimate that of an unread test split."""
    return "valid" if "valid" in splits else "train"


def unread_share(config: ml_collections.ConfigDict, measured: str = "valid") -> float | None:
    """Length of the test split relative to split `measured`, without reading it; None without a test split.

    Computed from registered file sizes, the corpus's `test_share` or config.data.fractions. A user's own test file is
    assumed to be as long as the split `measured`.
    """
    data = config.data
    if data.corpus not in CORPORA:
        return None
    sizes: collections.Counter[str] = collections.Counter()
    for key, file in CORPORA[data.corpus].files.items():
        sizes[key.partition("_")[0]] += file.size  # test_de and test_en belong to test
    if sizes["test"]:
        return sizes["test"] / (sizes[measured] or data.valid_share * sizes["train"] or sizes["train"])
    if data.corpus in OWN and (data.valid_path or data.test_path or data.corpus == "labelled"):
        return 1.0 if data.test_path else None
    if CORPORA[data.corpus].divides == ("fractions",):
        return data.fractions[2] / data.fractions[1] if data.fractions[1] and data.fractions[2] else None
    return CORPORA[data.corpus].test_share


def make_estimate(setup: Setup, needed: int, times: Times, startup: float = 0.0) -> Estimate:
    """Builds an Estimate. needed: peak bytes; startup: seconds spent on imports and on reading the corpus"""
    scored = {split for split, _ in final_scores(setup)}
    return Estimate(
        name=setup.config.name,
        steps=setup.total_steps,
        parts=assemble(setup, count_events(setup), times, startup),
        memory=needed,
        free=free_bytes(),
        patience=setup.config.train.patience if "valid" in setup.corpus.splits else 0,
        tokens_per_step=setup.task.tokens_per_step,
        unread=tuple(sorted(scored - set(setup.corpus.splits))),
    )


def assemble(setup: Setup, counts: collections.Counter, times: Times, startup: float) -> tuple[Part, ...]:
    """Combines the event counts of a run with measured times into its parts."""
    config, scores = setup.config, dict(times.scores)
    parts = [
        Part("start", 1, startup + times.setup, 0.0),
        Part("training steps", setup.total_steps, *times.step),
        Part("reports", counts["report"], *times.report),
    ]

    def score(name: str, split: str, protocol: str, count: int) -> Part:
        first, later = scores[split, protocol]
        scores[split, protocol] = (later, later)  # compiled by now
        return Part(name, count, first, later)

    validations = counts["validation"]
    if validations:
        during = config.evaluation.during
        parts.append(score(f"validation ({during})", "valid", during, validations))
    best = validations > 0 and config.checkpoint.best == "keep"
    saves = counts["checkpoint"] + (validations if best else 0)  # an upper bound: not every validation is a best
    parts.append(Part("checkpoints", saves, *times.save))
    parts.append(Part("samples", counts["sample"] + 1, *times.sample))  # the summary has samples too
    for split, protocol in final_scores(setup):
        parts.append(score(f"final score: {split}, {protocol}", split, protocol, 2 if best else 1))
    return tuple(parts)


# --- Printing -------------------------------------------------------------------------------------------------------


def in_one_line(found: Estimate) -> str:
    free = "" if found.free is None else f" of {megabytes(found.free)} that are free"
    early = f", unless config.train.patience={found.patience} ends it sooner" if found.patience else ""
    return (
        f"{found.steps:,} steps of {1e3 * found.step_seconds:.3f} ms, in all {h_mm_ss(found.seconds)} "
        f"(h:mm:ss){early}; memory at the peak about {megabytes(found.memory)}{free}"
    )


def in_full(found: Estimate) -> str:
    """An estimate as lines of text: every part, then speed, memory and the estimated time."""
    lines = [f"estimate for {found.name or 'the config'} on {jax.devices()[0].device_kind}"]
    for part in found.parts:
        lines.append(f"  {part.name:32} {part.count:>9,} x {part.later:>10.4f} s {part.seconds:>10.1f} s in all")
    free = "unknown" if found.free is None else megabytes(found.free)
    speed = found.tokens_per_step / found.step_seconds
    lines.append(f"time per step: {1e3 * found.step_seconds:.3f} ms ({speed:,.0f} tokens/s), {found.steps:,} steps")
    lines.append(f"memory at the peak: about {megabytes(found.memory)}; free: {free}")
    for split in found.unread:
        lines.append(f"{split} is not read for this estimate: its time per token is taken from the timed split")
    if load := foreign_load():
        lines.append(f"other processes use this machine ({load}): the estimate assumes that they continue")
    early = f"; config.train.patience={found.patience} may end it sooner" if found.patience else ""
    lines.append(f"ETA {h_mm_ss(found.seconds)} (h:mm:ss) from the start of the command to its end{early}")
    return "\n".join(lines)


def in_one_table(found: Iterable[Estimate], jobs: int = 1) -> str:
    """Formats the estimates of several runs, one per line, and their total for `jobs` parallel processes."""
    found = list(found)
    lines = [f"{h_mm_ss(each.seconds):>10}  {megabytes(each.memory):>10}  {each.name}" for each in found]
    total = sum(each.seconds for each in found)
    shared = f", {jobs} at a time: at least {total / jobs / 3600:.2f} hours" if jobs > 1 else ""
    early = "; early stopping may end some sooner" if any(each.patience for each in found) else ""
    return "\n".join([*lines, f"{len(found)} runs: {total / 3600:.2f} hours in all{shared}{early}"])


def foreign_load() -> str:
    """Describes the load of the last minute if it is more than this process alone can cause; else an empty string."""
    load, cores = os.getloadavg()[0], available()
    return f"load {load:.1f} on {cores} cores" if load > 1.5 * cores else ""
