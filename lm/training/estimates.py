"""Before a long job: how long it will take and what memory it needs, from a few dispatches of the real program.

    estimate(config, corpus) -> Estimate

A throw-away run in a temporary directory does each thing that the job will do, once and once more: the first time
holds what is paid once (compiling, or fetching the program from the cache; imports), the second what it costs each
time. `events` counts how often each will happen, by the loop's own arithmetic; the estimate is the sum. The test
split is never read: it is taken to cost as much per token as validation, and its length from what is known of it.
"""

import collections
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from lm.data.corpora import CORPORA, Corpus
from lm.machine import compilation_cache
from lm.machine.clock import h_mm_ss
from lm.machine.cores import available
from lm.machine.signals import raising
from lm.runs.metrics import MetricsLog
from lm.scoring.protocols import PROTOCOLS, evaluate, window_shape
from lm.training import devices, memory
from lm.training.loop import Trainer, due, next_stop
from lm.training.step import Experiment, compiled_part, evaluated_parameters, make_experiment, train_steps

# Dispatches are timed until both are reached, or the time limit is. One is cut to so many steps as fit.
TIMED_DISPATCHES, TIMED_SECONDS, TIMED_LIMIT = 5, 4.0, 30.0
# Events are counted over so many steps (half a second); a longer run is taken to go on as it began.
COUNTED_STEPS = 300_000
# Targets at the start of a text on which scoring is timed; what follows costs as much per target.
TIMED_TARGETS = 4096


class Part(NamedTuple):
    """One kind of work: how often, and the seconds of the first time and of each other."""

    name: str
    count: int
    first: float
    again: float

    @property
    def seconds(self) -> float:
        return self.first + (self.count - 1) * self.again if self.count else 0.0


class Estimate(NamedTuple):
    """What a job will take. memory, free: bytes at the peak, and what there is (None: unknown)."""

    name: str
    steps: int
    parts: tuple[Part, ...]
    memory: int
    free: int | None
    patience: int
    tokens_per_step: int
    unread: tuple[str, ...] = ()  # splits that will be scored and were not read

    @property
    def seconds(self) -> float:
        return sum(part.seconds for part in self.parts)

    @property
    def step_seconds(self) -> float:
        return next(part.again for part in self.parts if part.name == "training steps")


class Times(NamedTuple):
    """What was measured, as (first, again) in seconds.

    scores: {(split, protocol): ...}; a split that was not loaded has validation's, scaled
    """

    setup: float
    step: tuple[float, float]
    report: tuple[float, float]
    sample: tuple[float, float]
    save: tuple[float, float]
    scores: dict[tuple[str, str], tuple[float, float]]


# --- What the job will do -------------------------------------------------------------------------------------------


def events(experiment: Experiment, splits: Iterable[str]) -> collections.Counter:
    """How often the loop dispatches, reports, validates, samples and saves, from the first step to the last."""
    counts, done, total = collections.Counter(), 0, experiment.total_steps
    while done < min(total, COUNTED_STEPS):
        done = next_stop(experiment, done)
        counts.update(due(experiment, splits, done))
        counts["dispatch"] += 1
    return collections.Counter({name: round(count * total / done) for name, count in counts.items()})


def final_scores(config: ml_collections.ConfigDict, corpus: Corpus) -> list[tuple[str, str]]:
    """(split, protocol) of every final score, of the last state only; splits that the corpus has, loaded or not."""
    there = [split for split in config.evaluation.splits if split in corpus.splits or _has_unread(config, split)]
    return [(split, protocol) for split in there for protocol in config.evaluation.protocols]


def _has_unread(config: ml_collections.ConfigDict, split: str) -> bool:
    """Whether the corpus has a test split, which preflight does not load."""
    return split == "test" and _unread_share(config) is not None


def _unread_share(config: ml_collections.ConfigDict) -> float | None:
    """Length of the test split over validation's, without reading it; None where the corpus has none.

    Known from the registered sizes of the two files, from the fractions that divide one text, or (the embedded
    corpus) by construction.
    """
    data = config.data
    if data.corpus not in CORPORA:
        return None
    files = CORPORA[data.corpus].files
    if "test" in files:
        return files["test"].size / files["valid"].size
    if data.corpus in ("textfile", "tiny_shakespeare"):
        return data.fractions[2] / data.fractions[1] if data.fractions[1] and data.fractions[2] else None
    return 1.0 if data.corpus == "synthetic" else None


def assemble(
    experiment: Experiment, corpus: Corpus, counts: collections.Counter, times: Times, startup: float
) -> tuple[Part, ...]:
    """The parts of a job whose events are `counts`, at the measured times."""
    config, scores = experiment.config, dict(times.scores)
    parts = [
        Part("start", 1, startup + times.setup, 0.0),
        Part("training steps", experiment.total_steps, *times.step),
        Part("reports", counts["report"], *times.report),
    ]

    def score(name: str, split: str, protocol: str, count: int) -> Part:
        first, again = scores[split, protocol]
        scores[split, protocol] = (again, again)  # compiled now
        return Part(name, count, first, again)

    validations = counts["validation"]
    if validations:
        during = config.evaluation.during
        parts.append(score(f"validation ({during})", "valid", during, validations))
    best = validations > 0 and config.checkpoint.best == "keep"
    saves = counts["checkpoint"] + (validations if best else 0)  # at most: not every validation is the best so far
    parts.append(Part("checkpoints", saves, *times.save))
    parts.append(Part("samples", counts["sample"] + 1, *times.sample))  # those of the summary too
    for split, protocol in final_scores(config, corpus):
        parts.append(score(f"final score: {split}, {protocol}", split, protocol, 2 if best else 1))
    return tuple(parts)


# --- Measuring ------------------------------------------------------------------------------------------------------


def estimate(config: ml_collections.ConfigDict, corpus: Corpus, startup: float = 0.0) -> Estimate:
    """Times a throw-away run of config, after checking that its memory suffices.

    corpus: without its test split
    startup: seconds that the job will spend before training is set up: imports, reading the corpus
    Raises UserError for a config that cannot be run, and for one that needs more memory than there is.
    """
    experiment = make_experiment(config, corpus)
    return estimate_from(experiment, corpus, *_measured(experiment, corpus), startup)


def estimate_all(
    configs: Iterable[ml_collections.ConfigDict], load: Callable[[ml_collections.ConfigDict], Corpus]
) -> list[Estimate]:
    """An estimate for each config, in order; those that are one program at one text are timed once.

    load: a config's corpus, without its test split
    """
    known, found = {}, []
    for config in configs:
        corpus = load(config)
        experiment = make_experiment(config, corpus)
        shape = _shape(experiment, corpus)
        if shape not in known:
            known[shape] = _measured(experiment, corpus)
        found.append(estimate_from(experiment, corpus, *known[shape], startup=0.0))
    return found


def _measured(experiment: Experiment, corpus: Corpus) -> tuple[int, Times]:
    """Bytes at the peak, then, where there are so many, the times."""
    needed = memory.peak(experiment, corpus)
    if compilation_cache.is_used():
        compile_all(experiment, corpus)  # the job will find all programs in that cache, and so must `measure`
    jax.clear_caches()  # what this process holds compiled, the job's will not
    return needed, measure(experiment, corpus)


def estimate_from(experiment: Experiment, corpus: Corpus, needed: int, times: Times, startup: float) -> Estimate:
    """The estimate of a run that needs so many bytes at the peak, at measured times."""
    config, streams = experiment.config, experiment.streams
    counts = events(experiment, corpus.splits)
    scored = {split for split, _ in final_scores(config, corpus)}
    return Estimate(
        name=config.name,
        steps=experiment.total_steps,
        parts=assemble(experiment, corpus, counts, times, startup),
        memory=needed,
        free=memory.free_bytes(),
        patience=config.train.patience if "valid" in corpus.splits else 0,
        tokens_per_step=streams.batch_size * streams.unroll,
        unread=tuple(sorted(scored - set(corpus.splits))),
    )


def _shape(experiment: Experiment, corpus: Corpus) -> tuple:
    """What the measured times depend on: equal for configs that differ in seeds, rates, lengths and the like."""
    config = experiment.config
    texts = tuple((name, len(ids)) for name, ids in sorted(corpus.splits.items()))
    static = compiled_part(experiment)._replace(total_steps=0)
    active = jax.tree.structure(memory.shapes(experiment)[1])
    sample = config.sample.copy_and_resolve_references().to_dict() | {"seed": 0}
    return static, active, corpus.name, texts, config.evaluation, repr(sorted(sample.items()))


def compile_all(experiment: Experiment, corpus: Corpus):
    """Compiles what `measure` will time."""
    with raising(), tempfile.TemporaryDirectory(prefix="preflight-") as directory:
        trainer = Trainer(ml_collections.ConfigDict(experiment.config), corpus, directory)
        with trainer.checkpoints:
            _dispatch(trainer, 1)
            trainer.texts()
            _time_scores(trainer, at_least=0.0)


def measure(experiment: Experiment, corpus: Corpus) -> Times:
    """Does all that a run does, in a temporary directory."""
    began = time.perf_counter()
    with raising(), tempfile.TemporaryDirectory(prefix="preflight-") as directory:
        trainer = Trainer(ml_collections.ConfigDict(experiment.config), corpus, directory)
        with trainer.checkpoints, MetricsLog(directory, trainer.total, stream=io.StringIO()) as log:
            setup = time.perf_counter() - began
            row = dict.fromkeys(("loss", "perplexity", "learning_rate", "gradient_norm", "tokens_per_s"), 1.0)
            return Times(
                setup=setup,
                step=_time_steps(trainer),
                report=_twice(lambda: log.write({"step": 0, **row})),
                sample=_twice(trainer.texts),
                save=_twice(lambda: _save(trainer)),
                scores=_time_scores(trainer),
            )


def _seconds(function: Callable) -> float:
    began = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - began


def _twice(function: Callable, at_least: float = 0.0) -> tuple[float, float]:
    """Seconds of the first call, and the median of the next, of which there are as many as fill `at_least` seconds."""
    first, again = _seconds(function), [_seconds(function)]
    while sum(again) < at_least:
        again.append(_seconds(function))
    return first, statistics.median(again)


def _time_steps(trainer: Trainer) -> tuple[float, float]:
    """(seconds of the first step, compiling included; of each other, in dispatches as long as the job's are)."""
    typical = trainer.total // events(trainer.experiment, trainer.corpus.splits)["dispatch"]
    first, one = _dispatch(trainer, 1), _dispatch(trainer, 1)
    steps = max(1, min(typical, int(TIMED_SECONDS / one)))
    _dispatch(trainer, steps)  # brings the memory in that all later ones use again
    taken = []
    while (len(taken) < TIMED_DISPATCHES or sum(taken) < TIMED_SECONDS) and sum(taken) < TIMED_LIMIT:
        taken.append(_dispatch(trainer, steps))
    return first, statistics.median(taken) / steps


def _dispatch(trainer: Trainer, count: int) -> float:
    """Seconds of `count` steps in one dispatch."""

    def steps():
        trainer.state, measured = train_steps(trainer.experiment, trainer.state, trainer.tokens, trainer.hyper, count)
        return measured

    return _seconds(steps)


def _save(trainer: Trainer):
    """A whole save, as the last one of a run is: the others are written beside training and cost no more."""
    trainer.checkpoints.save(0, devices.gather(trainer.devices, trainer.state), {})
    trainer.checkpoints.wait()


def _time_scores(trainer: Trainer, at_least: float = 0.5) -> dict[tuple[str, str], tuple[float, float]]:
    """(first, again) for each split and protocol that the run scores, timed at the start of each text."""
    config, corpus = trainer.config, trainer.corpus
    found = {}
    for split, protocol in memory.scorings(config, corpus):
        found[split, protocol] = _time_score(trainer, corpus.splits[split], protocol, at_least)
    for split, protocol in final_scores(config, corpus):
        if split not in corpus.splits:  # the test split: another length, so another program, but for the notebooks'
            valid = corpus.splits["valid"]
            first, again = found.get(("valid", protocol)) or _time_score(trainer, valid, protocol, at_least)
            longer = again * _unread_share(config)
            found[split, protocol] = (first - again + longer, longer)
    return found


def _time_score(trainer: Trainer, tokens: np.ndarray, protocol: str, at_least: float) -> tuple[float, float]:
    """(first, again) of scoring tokens [N]: timed at their start, from there in proportion to the windows."""
    settings, model = trainer.config.evaluation, trainer.model
    parameters = devices.local(trainer.devices, evaluated_parameters(trainer.state))
    windows, size, batch = window_shape(protocol, model, len(tokens), settings)
    timed = max(TIMED_TARGETS, 4 * size * batch)
    start = tokens[:timed] if PROTOCOLS[protocol].extent == "text" and timed < len(tokens) else tokens
    first, again = _twice(lambda: evaluate(protocol, model, parameters, start, settings), at_least)
    whole = again * windows / window_shape(protocol, model, len(start), settings)[0]
    return first - again + whole, whole


# --- Saying it ------------------------------------------------------------------------------------------------------


def others() -> str:
    """The load of the last minute in words, where it is more than this process alone can make; else empty."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    cores = available()
    return f"load {load:.1f} on {cores} cores" if load > 1.5 * cores else ""


def report(found: Estimate) -> str:
    """An estimate as lines of text."""
    lines = [f"preflight of {found.name or 'the config'} on {jax.devices()[0].device_kind}"]
    for part in found.parts:
        lines.append(f"  {part.name:32} {part.count:>9,} x {part.again:>10.4f} s {part.seconds:>10.1f} s in all")
    free = "unknown" if found.free is None else memory.megabytes(found.free)
    speed = found.tokens_per_step / found.step_seconds
    lines.append(f"time per step: {1e3 * found.step_seconds:.3f} ms ({speed:,.0f} tokens/s), {found.steps:,} steps")
    lines.append(f"memory at the peak: about {memory.megabytes(found.memory)}; free: {free}")
    for split in found.unread:
        lines.append(f"{split} is not read before the job: its scores are taken to cost what valid's do per token")
    if busy := others():
        lines.append(f"this machine computes for others too ({busy}): the estimate holds while that stays so")
    early = f"; config.train.patience={found.patience} may end it sooner" if found.patience else ""
    lines.append(f"ETA {h_mm_ss(found.seconds)} (h:mm:ss) from the command to its end{early}")
    return "\n".join(lines)


def report_all(found: list[Estimate], jobs: int = 1) -> str:
    """Estimates of several runs as lines of text: one each, and their sum over `jobs` processes at a time."""
    lines = [f"{h_mm_ss(each.seconds):>10}  {memory.megabytes(each.memory):>10}  {each.name}" for each in found]
    total = sum(each.seconds for each in found)
    shared = f", {jobs} at a time: at least {total / jobs / 3600:.2f} hours" if jobs > 1 else ""
    early = "; early stopping may end some sooner" if any(each.patience for each in found) else ""
    return "\n".join([*lines, f"{len(found)} runs: {total / 3600:.2f} hours in all{shared}{early}"])
