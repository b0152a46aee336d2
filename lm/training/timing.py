"""Times a short trial run of a setup in a temporary directory: a few dispatches, scores, samples and saves."""

import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable

import jax

from lm.data.examples import ids_of
from lm.machine import compilation_cache
from lm.machine.signals import raising
from lm.runs.metrics import MetricsLog
from lm.tasks.task import Split
from lm.training import memory
from lm.training.estimates import (
    Estimate,
    Times,
    count_events,
    final_scores,
    make_estimate,
    measured_split,
    unread_share,
)
from lm.training.loop import Trainer
from lm.training.recorder import Recorder
from lm.training.setup import Setup
from lm.training.step import train_steps

# Times at least this many dispatches for at least this many seconds, but stops at the limit in seconds.
TIMED_DISPATCHES, TIMED_SECONDS, TIMED_LIMIT = 5, 4.0, 30.0
# Scoring is timed on this many targets at the start of a text; the rest is assumed to cost as much per target.
TIMED_TARGETS = 4096


def estimate(setup: Setup, startup: float = 0.0) -> Estimate:
    """Estimates a run by timing a trial, after checking that it fits in memory. The test split need not be loaded.

    startup: seconds that the run spends on imports and reading the corpus. Raises UserError if the setup needs more
    memory than is free.
    """
    return make_estimate(setup, *_measure_cold(setup), startup)


def estimate_all(setups: Iterable[Setup]) -> list[Estimate]:
    """An estimate for each setup, in order; setups that share programs and text lengths are timed once."""
    known, found = {}, []
    for setup in setups:
        shape = _shape(setup)
        if shape not in known:
            known[shape] = _measure_cold(setup)
        found.append(make_estimate(setup, *known[shape]))
    return found


def _measure_cold(setup: Setup) -> tuple[int, Times]:
    """Measures peak bytes and times as in a new process, without compiled programs in memory."""
    needed = memory.peak(setup)
    # The run will load its programs from the cache. It is filled here, so that `measure` loads them, too.
    if compilation_cache.is_used():
        with raising(), tempfile.TemporaryDirectory(prefix="estimate-") as directory:
            trial = _Trial(Recorder(setup, directory))
            trial.steps(1)
            trial.sample()
            trial.time_scores(at_least=0.0)
    jax.clear_caches()
    return needed, measure(setup)


def _shape(setup: Setup) -> tuple:
    """Everything that the measured times depend on; equal for setups that differ only in seeds, rates and the like."""
    config, corpus = setup.config, setup.corpus
    texts = tuple((name, len(ids_of(split))) for name, split in sorted(corpus.splits.items()))
    program = setup.program._replace(total_steps=0)
    active = jax.tree.structure(setup.hyper)
    sample = config.sample.copy_and_resolve_references().to_dict() | {"seed": 0}
    return program, active, corpus.name, texts, config.evaluation, repr(sorted(sample.items()))


def measure(setup: Setup) -> Times:
    """Times the first and later calls of each operation of a run, in a temporary directory."""
    began = time.perf_counter()
    with raising(), tempfile.TemporaryDirectory(prefix="estimate-") as directory:
        trial = _Trial(Recorder(setup, directory))
        log = MetricsLog(directory, setup.total_steps, stream=io.StringIO())
        with trial.recorder.checkpoints, log:
            seconds = time.perf_counter() - began
            row = dict.fromkeys(("loss", "perplexity", "learning_rate", "gradient_norm", "tokens_per_s"), 1.0)
            return Times(
                setup=seconds,
                step=trial.time_steps(),
                report=_first_and_later(lambda: log.write({"step": 0, **row})),
                sample=_first_and_later(trial.sample),
                save=_first_and_later(trial.save),
                scores=trial.time_scores(at_least=0.5),
            )


def _seconds(function: Callable) -> float:
    began = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - began


def _first_and_later(function: Callable, at_least: float = 0.0) -> tuple[float, float]:
    """Seconds of the first call, and the median of later calls, repeated for at least `at_least` seconds."""
    first, later = _seconds(function), [_seconds(function)]
    while sum(later) < at_least:
        later.append(_seconds(function))
    return first, statistics.median(later)


class _Trial(Trainer):
    """A trial run, with the operations to time."""

    def steps(self, count: int) -> float:
        """Seconds of `count` steps in one dispatch."""

        def dispatch():
            self.state, measured = train_steps(self.setup, self.state, self.data, self.hyper, count)
            return measured

        return _seconds(dispatch)

    def time_steps(self) -> tuple[float, float]:
        """Seconds of the first step, with compiling, and of a later step, in dispatches as long as the run's."""
        typical = self.setup.total_steps // count_events(self.setup)["dispatch"]
        first, one = self.steps(1), self.steps(1)
        count = max(1, min(typical, int(TIMED_SECONDS / one)))
        self.steps(count)  # allocates memory that all later dispatches reuse
        taken = []
        while (len(taken) < TIMED_DISPATCHES or sum(taken) < TIMED_SECONDS) and sum(taken) < TIMED_LIMIT:
            taken.append(self.steps(count))
        return first, statistics.median(taken) / count

    def sample(self):
        self.recorder.sample(self.state)

    def save(self):
        """Saves and waits, like the last save of a run. Earlier saves overlap with training and cost no more."""
        self.recorder.save(self.state, wait=True)

    def time_scores(self, at_least: float) -> dict[tuple[str, str], tuple[float, float]]:
        """Seconds (first, later) for each split and protocol that the run scores, timed on the start of each text."""
        setup, splits, found = self.setup, self.setup.corpus.splits, {}
        for split, protocol in memory.scorings(setup.config, splits):
            found[split, protocol] = self.time_score(splits[split], protocol, at_least)
        for split, protocol in final_scores(setup):
            if split not in splits:  # test has another length: its program is compiled again, in first - later
                measured = measured_split(splits)
                first, later = found.get((measured, protocol)) or self.time_score(splits[measured], protocol, at_least)
                scaled = later * (unread_share(setup.config, measured) or 0.0)
                found[split, protocol] = (first - later + scaled, scaled)
        return found

    def time_score(self, split: Split, protocol: str, at_least: float) -> tuple[float, float]:
        """Seconds (first, later) of scoring a split, scaled from the timing of a part."""
        part, times = self.setup.task.timed_part(split, protocol, self.setup.config.evaluation, TIMED_TARGETS)
        first, later = _first_and_later(lambda: self.recorder.score(self.state, part, protocol), at_least)
        return first - later + times * later, times * later
