"""The host's side of one run: progress, validation, samples, checkpoints and output files.

A Recorder holds no training state. The loop (or one lane of several) makes steps on the device and hands the recorder
their measurements; at an event it hands over the state and continues with the returned one.
"""

import math
import os
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from lm.errors import NotFinite, UserError
from lm.runs import origin, sampled_texts, schema
from lm.runs.checkpoint import Checkpoints
from lm.runs.files import write_json
from lm.runs.metrics import MetricsLog
from lm.runs.plain import flat, plain
from lm.runs.provenance import NUMERICS, revision
from lm.runs.workdir import log_test_score
from lm.scoring.score import Score, perplexity
from lm.tasks import protocol_settings
from lm.tasks.task import Split
from lm.training import devices, events, summary, validation
from lm.training.optim import begin_average
from lm.training.setup import Setup
from lm.training.state import TrainState, evaluated_parameters
from lm.training.step import StepMetrics

# Returns the test split, or None if the corpus lacks one. Raises UserError if its file is missing.
ReadTest = Callable[[], Split | None]

# Called with the step and perplexity of each validation, once its row is written. An exception ends the run.
Observe = Callable[[int, float], None]


class Progress(NamedTuple):
    """Running totals that the host keeps between dispatches, in float64; saved in every checkpoint.

    Nats are sums of the mean loss of each step, so a short last batch counts as much as a full one.
    """

    report_nats: float = 0.0  # since the last report
    report_steps: int = 0
    epoch_nats: float = 0.0  # since the epoch began
    epoch_steps: int = 0
    last_loss: float = math.nan  # mean nats of the last report
    lowest_running_nats: float = math.inf  # lowest mean since the start of an epoch, over all steps
    train_seconds: float = 0.0  # in dispatches, without compilation
    timed_steps: int = 0
    rollbacks: int = 0  # number of rollbacks so far


# Ten halvings leave a thousandth of the learning rate.
MOST_ROLLBACKS = 10

# The record that a checkpoint holds besides the state: a form of lm/runs/schema.py.
SAVED = {"progress": {}, "checks": {}, "samples_bytes?": int, "data?": str, "tried?": bool} | origin.FORM


class Recorder:
    """Records one run in one work directory. Use `checkpoints` as a context manager, so that pending saves finish.

    done: steps made; finished: whether the run has ended; resumed: whether a checkpoint was found
    """

    def __init__(self, setup: Setup, workdir, read_test: ReadTest | None = None, observe: Observe | None = None):
        self.setup, self.workdir, self._read_test, self._observe = setup, str(workdir), read_test, observe
        self.writes = devices.is_first()
        self.checkpoints = Checkpoints(workdir, keep=setup.config.checkpoint.keep)
        self._checksum = setup.corpus.provenance.get("checksum", "")
        self._compiled = False
        self.origin = origin.Origin(origin.run_of(setup.config), NUMERICS, setup.corpus.vocabulary.digest, revision())

    # --- From and to checkpoints ------------------------------------------------------------------------------------

    def restore(self) -> TrainState:
        """Returns the last checkpoint's state, or the initial state. Sets progress, checks and `done` accordingly."""
        restored = self.checkpoints.restore(self.setup.state_shapes)
        devices.check_same_step(restored[2] if restored else -1, self.workdir)
        self.resumed = restored is not None
        return self._continue_from(restored)

    def _continue_from(self, restored: tuple[TrainState, dict, int] | None) -> TrainState:
        """Returns the state on the devices. Raises UserError if the corpus has changed or the record is damaged."""
        if restored is None:
            state, self.done, self.samples_bytes = self.setup.initial_state(), 0, 0
            self.progress, self.checks = Progress(), validation.Checks()
        else:
            state, extra, self.done = restored
            self.progress, self.checks, self.samples_bytes = self._read_record(extra, self.done)
        return devices.place(self.setup.config.train.devices, state)

    def _read_record(self, extra: dict, step: int) -> tuple[Progress, validation.Checks, float]:
        where = f"{self.workdir}: the checkpoint of step {step}"
        schema.check(extra, SAVED, where)
        if extra.get("data", self._checksum) != self._checksum:
            raise UserError(self._other_data(extra["data"]))
        origin.check_origin(extra, self.setup.config, self.setup.corpus.vocabulary.digests, where)
        self.origin = self.origin._replace(git=extra.get("git"))  # the revision when the run began
        progress = schema.build(Progress, extra["progress"], f"{where}: progress")
        checks = schema.build(validation.Checks, extra["checks"], f"{where}: checks")
        return progress, checks, extra.get("samples_bytes", math.inf)  # absent from older checkpoints

    def _other_data(self, saved: str) -> str:
        """Explains a checksum mismatch. saved: the checkpoint's checksum, "CORPUS" or "CORPUS+INITIAL_PARAMETERS"."""
        where, remedy = f"{self.workdir} holds a run on other data", "use another directory, or the old"
        (text, _, start), config = saved.partition("+"), self.setup.config
        if text != self._checksum.partition("+")[0]:
            return f"{where}: its corpus {self.setup.corpus.name} has changed since: {remedy} files"
        key = "config.model.embedding_from" if config.model.embedding_from else "config.init_from"
        value = config.model.embedding_from or config.init_from
        if not value:
            keys = "config.init_from or config.model.embedding_from"
            return f"{where}: it started from another run or from word vectors: set {keys} as in its config.json"
        if not start:
            return f"{where}: its parameters were drawn, not read from {key}={value}: {remedy} value"
        return f"{where}: {key}={value} is not what it started from: {remedy} value, whose file may be gone"

    def save(self, state: TrainState, best: bool = False, wait: bool = False, **more):
        """Saves a checkpoint. best: in best/, not last/; wait: until it is on disk; more: further keys of SAVED"""
        whole = devices.gather(self.setup.config.train.devices, state)  # all processes must take part
        if self.writes:
            self.checkpoints.save(self.done, whole, self.record() | more, "best" if best else "last")
        if wait:
            self.checkpoints.wait()

    def _wait_for_saves(self):
        """Waits until all processes have written their checkpoints."""
        self.checkpoints.wait()
        multihost_utils.sync_global_devices("checkpoints are written")

    def record(self) -> dict:
        """The record that a checkpoint holds besides the state."""
        return {
            "progress": self.progress._asdict(),
            "checks": self.checks._asdict(),
            "samples_bytes": self.samples_bytes,
            "data": self._checksum,
            **self.origin._asdict(),
        }

    def roll_back(self, error: NotFinite) -> TrainState:
        """Returns the state to continue from after a non-finite loss, at half the learning rate.

        A checkpoint may itself have bad parameters: its loss was measured before its last update. So each checkpoint
        is tried once; after that, training returns to the one before it, or to the start.
        Raises `error` unless config.on_nan=rollback and rollbacks are left. A run that is killed during a rollback
        meets the non-finite loss again when it resumes, and rolls back again.
        """
        if self.setup.config.on_nan != "rollback":
            raise NotFinite(error.found, f"{error.advice} or set config.on_nan=rollback") from error
        if self.progress.rollbacks >= MOST_ROLLBACKS:
            tried = f"{error.advice}: {MOST_ROLLBACKS} rollbacks have halved it without success"
            raise NotFinite(error.found, tried) from error
        rollbacks = self.progress.rollbacks + 1
        self._wait_for_saves()
        restored = self.checkpoints.restore(self.setup.state_shapes)
        if restored and restored[1].get("tried", False):
            restored = self.checkpoints.restore(self.setup.state_shapes, before=restored[2])
        state = self._continue_from(restored)
        halvings = rollbacks - self.progress.rollbacks  # more than one if the checkpoint predates the last rollback
        self.progress = self.progress._replace(rollbacks=rollbacks)
        assert state.rate_factor is not None  # on_nan=rollback makes it
        state = state._replace(rate_factor=state.rate_factor * np.float32(0.5**halvings))
        if self.writes:
            self.checkpoints.forget_best_after(self.done)
        self.save(state, wait=True, tried=True)  # a run killed after this resumes at the lower rate
        self.say(f"{error.found}: back to step {self.done} at half the learning rate (rollback {rollbacks})")
        return state

    # --- During training --------------------------------------------------------------------------------------------

    def open_log(self) -> MetricsLog:
        """Opens metrics.jsonl, after removing what a killed run wrote after its last checkpoint; process 0 only."""
        sampled_texts.cut(self.workdir, self.samples_bytes)
        hyperparameters = None if self.done else flat(plain(self.setup.config))
        shown = self.setup.task.columns
        self.log = MetricsLog(
            self.workdir, self.setup.total_steps, self.done, shown=shown, hyperparameters=hyperparameters
        )
        return self.log

    @property
    def finished(self) -> bool:
        return self.done >= self.setup.total_steps or self.checks.stopped

    def account(self, measured: StepMetrics, seconds: float):
        """Adds the measurements of a dispatch, arrays [steps] in float64, to the totals. Raises NotFinite."""
        self._check_finite(measured)
        p, count = self.progress, len(measured.loss)
        # Added one by one, so that the sums do not depend on where dispatches begin and end.
        report_nats, epoch_nats = (np.cumsum([start, *measured.loss])[1:] for start in (p.report_nats, p.epoch_nats))
        running = epoch_nats / (p.epoch_steps + np.arange(1, count + 1))
        timed = count if self._compiled else 0  # the first dispatch compiles
        self._compiled = True
        self._measured = measured
        self.progress = p._replace(
            report_nats=float(report_nats[-1]),
            report_steps=p.report_steps + count,
            epoch_nats=float(epoch_nats[-1]),
            epoch_steps=p.epoch_steps + count,
            lowest_running_nats=min(p.lowest_running_nats, float(running.min())),
            train_seconds=p.train_seconds + (seconds if timed else 0.0),
            timed_steps=p.timed_steps + timed,
        )
        self.done += count

    def _check_finite(self, measured: StepMetrics):
        bad = np.flatnonzero(~np.isfinite(measured.loss) | ~np.isfinite(measured.gradient_norm))
        if len(bad):
            what = "gradient" if np.isfinite(measured.loss[bad[0]]) else "loss"
            raise NotFinite(
                f"the {what} is not finite at step {self.done + bad[0]} (learning rate "
                f"{measured.learning_rate[bad[0]]:g}, gradient norm {measured.gradient_norm[bad[0]]:g})",
                f"{self.workdir} keeps its last checkpoint; use a new directory and a lower config.optim.learning_rate",
            )

    def needs_state(self) -> bool:
        """Whether an event that is due now reads the state. A report does not."""
        return bool(events.due(self.setup, self.done) & {"validation", "sample", "checkpoint"})

    def handle_events(self, state: TrainState) -> TrainState:
        """Reports, validates, samples and saves, each if due. Returns the state, which validation may have changed.

        state: may be None unless `needs_state`
        """
        due, step = events.due(self.setup, self.done), self.done - 1
        if "report" in due:
            row = self._report_row(step, "epoch" in due)
            if "validation" in due:
                state, validated = self._validate(state, step)
                row |= validated
            if self.writes:
                self.log.write(row)
            if "validation" in due and self._observe:
                self._observe(step, row["valid_perplexity"])
        if "sample" in due or self.checks.stopped:
            self._sample(state, step)
        if "checkpoint" in due or self.checks.stopped:
            self.save(state)
        return state

    def _report_row(self, step: int, ends_epoch: bool) -> dict:
        """Returns a row of metrics.jsonl. loss, epoch_loss: nats, means over steps (not over targets)"""
        p, measured = self.progress, self._measured
        loss = p.report_nats / p.report_steps
        row = {
            "step": step,
            "epoch": (step + 1) / self.setup.task.steps_per_epoch,
            "loss": loss,
            "perplexity": perplexity(loss),
            "bits_per_symbol": loss / math.log(2),
            "minibatch_perplexity": perplexity(float(measured.loss[-1])),
            "running_perplexity": perplexity(p.epoch_nats / p.epoch_steps),
            "lowest_running_perplexity": perplexity(p.lowest_running_nats),
            "learning_rate": measured.learning_rate[-1],
            "gradient_norm": measured.gradient_norm[-1],
            "tokens_per_s": self.tokens_per_second(),
        }
        p = p._replace(report_nats=0.0, report_steps=0, last_loss=loss)
        if ends_epoch:
            row["epoch_loss"] = p.epoch_nats / p.epoch_steps
            row["epoch_perplexity"] = perplexity(row["epoch_loss"])
            p = p._replace(epoch_nats=0.0, epoch_steps=0)
        self.progress = p
        return row

    def _validate(self, state: TrainState, step: int) -> tuple[TrainState, dict]:
        config = self.setup.config
        protocol = config.evaluation.during
        score = self.score(state, self.setup.corpus.splits["valid"], protocol)
        score = score._replace(nats=devices.as_first(score.nats))
        self.checks, decision = validation.decide(config, self.checks, validation.criterion(config, score), step)
        if decision.best and config.checkpoint.best == "keep":
            self.save(state, best=True)
        if decision.decay:  # changes a traced value, so nothing recompiles
            assert state.rate_factor is not None  # schedule=plateau makes it
            state = state._replace(rate_factor=state.rate_factor * np.float32(config.optim.decay_rate))
        if decision.average:
            state = state._replace(average=begin_average(state.parameters))
        if decision.stop:
            self.say(
                f"stopped early after {self.done} of {self.setup.total_steps} steps: config.train.patience="
                f"{config.train.patience} validation checks in a row without improvement"
            )
        row = {"valid_loss": score.mean_nats, "valid_perplexity": score.perplexity, "valid_protocol": protocol}
        return state, row | {f"valid_{name}": value for name, value in score.measures.items()}

    def _sample(self, state: TrainState, step: int):
        if self.writes:
            key = jax.random.fold_in(jax.random.key(self.setup.config.sample.seed), step)
            if texts := self.sample(state, key):
                self.samples_bytes = sampled_texts.append(self.workdir, f"step {step}", texts)
                self.log.write_texts(step, texts)

    # --- From a state -----------------------------------------------------------------------------------------------

    def parameters(self, state: TrainState) -> dict:
        """The parameters for evaluation and sampling, on one device."""
        return devices.local(self.setup.config.train.devices, evaluated_parameters(state))

    def score(self, state: TrainState, split: Split, protocol: str) -> Score:
        return self.setup.task.score(self.parameters(state), split, protocol, self.setup.config.evaluation)

    def sample(self, state: TrainState, key: jax.Array | None = None) -> list[str]:
        """Samples texts with the settings of config.sample. key: None derives it from config.sample.seed"""
        setup = self.setup
        return setup.task.sample(self.parameters(state), setup.corpus.vocabulary, setup.config.sample, key)

    def tokens_per_second(self) -> float:
        """Training tokens per second, without the first dispatch, which compiles."""
        p = self.progress
        return p.timed_steps * self.setup.task.tokens_per_step / p.train_seconds if p.train_seconds else 0.0

    def say(self, text: str):
        if self.writes:
            print(text)

    # --- At the end -------------------------------------------------------------------------------------------------

    def finish(self, state: TrainState) -> dict:
        """Scores the run, writes summary.json and returns its content."""
        self._wait_for_saves()
        content = self.summarise(state)
        if self.writes:
            write_json(os.path.join(self.workdir, "summary.json"), content)
        return content

    def best_state(self) -> TrainState:
        """Returns the state with the best validation. Raises UserError if its checkpoint is missing or damaged."""
        best, done = self.checkpoints.restore(self.setup.state_shapes, which="best"), self.checks.best_step + 1
        if best is not None:
            self._read_record(*best[1:])  # raises UserError if it is from another run
        if best is None or best[2] != done:
            found = "is missing" if best is None else f"holds step {best[2]}"
            raise UserError(
                f"validation was best after {done} steps, but {self.workdir}/checkpoints/best {found}: the best "
                "checkpoint was not copied, or not kept (config.checkpoint.best=none)"
            )
        return best[0]

    def summarise(self, state: TrainState) -> dict:
        """Returns the content of summary.json. Scores this state and, if kept, the best checkpoint."""
        setup, evaluation = self.setup, self.setup.config.evaluation
        texts, not_scored = summary.texts_to_score(setup, self._read_test)
        scored = {"final": state}
        if setup.config.checkpoint.best == "keep" and math.isfinite(self.checks.best_nats):
            try:
                scored["best"] = self.best_state()
            except UserError as error:  # the scores of the last checkpoint must not be lost
                not_scored["best"] = str(error)
        results, tables, examples = [], {}, []
        for which, each in scored.items():
            for split, data in texts.items():
                for protocol in dict.fromkeys(evaluation.protocols):
                    score = self.score(each, data, protocol)
                    results.append(summary.result_row(split, protocol, score, int(each.step) - 1, which))
                    if score.confusion is not None:  # does not depend on the protocol
                        tables[which, split] = score.confusion
                    if split == "test" and self.writes:
                        settings = protocol_settings(protocol, evaluation)
                        log_test_score(self.workdir, results[-1] | ({"settings": settings} if settings else {}))
                examples = setup.task.examples(self.parameters(each), data, evaluation)  # those of the last split stay
        training = {
            "final_mean_loss": self.progress.last_loss,
            "lowest_running_perplexity": perplexity(self.progress.lowest_running_nats),
            "tokens_per_s": self.tokens_per_second(),
            "steps": self.done,
            "wall_time_s": self.progress.train_seconds,
            "rollbacks": self.progress.rollbacks,
        }
        content = summary.summary(setup, results, not_scored, training, self.sample(state), self.origin.git)
        content |= {"examples": examples} if examples else {}
        return content | summary.confusion(setup.corpus.vocabulary.labels, tables)
