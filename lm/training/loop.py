"""The training loop: dispatches, and between them reports, validation, samples and checkpoints.

What the loop itself must remember from one dispatch to the next is `Progress`, and `validation.Checks` of validation;
both are saved with every checkpoint.
"""

import contextlib
import math
import os
import time
from collections.abc import Callable, Container
from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from lm.data.batches import on_device
from lm.data.corpora import Corpus
from lm.errors import NotFinite, UserError
from lm.machine import signals
from lm.machine.signals import Interrupted
from lm.runs import lock, sampled_texts, schema
from lm.runs.checkpoint import Checkpoints
from lm.runs.files import write_json
from lm.runs.metrics import MetricsLog
from lm.runs.workdir import prepare_workdir
from lm.scoring.protocols import Score, evaluate, perplexity
from lm.scoring.sampling import generate
from lm.training import devices, memory, rollback, validation
from lm.training.optim import begin_average, hyper_of
from lm.training.step import (
    Experiment,
    StepMetrics,
    TrainState,
    evaluated_parameters,
    initial_state,
    make_experiment,
    train_steps,
)
from lm.training.summary import summarise

# The test split, [N] ids, or None where the corpus has none. Raises UserError where its file is missing.
ReadTest = Callable[[], np.ndarray | None]


# Step and validation perplexity of a check.
Observe = Callable[[int, float], None]


class Progress(NamedTuple):
    """What the host carries between dispatches; saved with every checkpoint. Sums in float64."""

    report_nats: float = 0.0  # since the last report
    report_steps: int = 0
    epoch_nats: float = 0.0  # since the epoch began
    epoch_steps: int = 0
    last_loss: float = math.nan  # mean nats of the last report
    lowest_running_nats: float = math.inf  # lowest mean since an epoch's beginning, over all steps and epochs
    train_seconds: float = 0.0  # in dispatches, compilation left out
    timed_steps: int = 0
    rollbacks: int = 0  # how often a loss was not finite, the last checkpoint restored and the rate halved


# What a checkpoint holds beside the state: a form of lm/runs/schema.py.
SAVED = {"progress": {}, "checks": {}, "samples_bytes?": int, "data?": str, **rollback.SAVED}


def happens(step: int, every: int, epoch: int, total: int) -> bool:
    """Whether an event with period `every` follows step `step` (from 0): after steps 0, every, 2 every, …

    A period of 0 means the end of every epoch (of `epoch` steps). The last step has every event.
    """
    if step == total - 1:
        return True
    return step % every == 0 if every else (step + 1) % epoch == 0


def next_stop(experiment: Experiment, done: int) -> int:
    """How many steps will have been made at the next moment the host must look."""
    train = experiment.config.train
    epoch, total = experiment.streams.windows_per_epoch, experiment.total_steps
    stop = min(done + train.steps_per_dispatch, total)
    for made in range(done + 1, stop):
        step = made - 1
        periods = (train.report_every, train.evaluate_every, train.sample_every or total, 0)
        if any(happens(step, every, epoch, total) for every in periods):
            return made
        if made % experiment.config.checkpoint.every_steps == 0:
            return made
    return stop


def due(experiment: Experiment, splits: Container[str], done: int) -> set[str]:
    """What follows when `done` steps have been made, of report, epoch, validation, sample and checkpoint.

    splits: the corpus's; without "valid" there is no validation
    """
    step, total, train = done - 1, experiment.total_steps, experiment.config.train
    epoch = experiment.streams.windows_per_epoch
    last = done == total
    ends_epoch = experiment.streams.batching == "rows" and done % epoch == 0
    validates = "valid" in splits and happens(step, train.evaluate_every, epoch, total)
    when = {
        "epoch": ends_epoch,
        "validation": validates,
        "report": ends_epoch or validates or happens(step, train.report_every, epoch, total),
        "sample": last or happens(step, train.sample_every or total, epoch, total),
        "checkpoint": last or done % experiment.config.checkpoint.every_steps == 0,
    }
    return {name for name, is_due in when.items() if is_due}


class Trainer:
    """One run in one workdir: state on the device, progress on the host, files of record."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        corpus: Corpus,
        workdir: str,
        tokens: jax.Array | None = None,
        read_test: ReadTest | None = None,
        observe: Observe | None = None,
    ):
        """tokens: the training text, where it is on the device already; read_test: for final scores only;
        observe: called after each validation check, once its row is written; what it raises ends the run."""
        self.experiment = make_experiment(config, corpus)
        self.config, self.model, self.streams, self.total = self.experiment
        self.corpus, self.workdir, self.read_test, self.observe = corpus, workdir, read_test, observe
        self._data = corpus.provenance.get("checksum", "")
        self.devices, self.writes = config.train.devices, devices.is_first()
        hyper = hyper_of(config)
        self.hyper = devices.replicate(self.devices, hyper)
        tokens = on_device(corpus.splits["train"]) if tokens is None else tokens
        self.tokens = devices.replicate(self.devices, tokens)
        self.checkpoints = Checkpoints(workdir, keep=config.checkpoint.keep)
        self.resumed = self._resume()
        self.compiled = False

    def _resume(self) -> bool:
        """Goes to the last checkpoint, or to the start; whether there was one."""
        template = self.start()
        restored = self.checkpoints.restore(template)
        devices.check_same_step(restored[2] if restored else -1, self.workdir)
        self.go_to(restored, template)
        return restored is not None

    def start(self) -> TrainState:
        """The state before the first step."""
        return initial_state(self.experiment, hyper_of(self.config))

    def go_to(self, restored: tuple[TrainState, dict, int] | None, start: TrainState):
        """Continues from what `Checkpoints.restore` gave, or from `start`. Raises UserError where the corpus is
        another now than the checkpoint's, or the checkpoint's record is none."""
        if restored is None:
            state, self.progress, self.checks, self.samples_bytes = start, Progress(), validation.Checks(), 0
        else:
            state, extra, step = restored
            if extra.get("data", self._data) != self._data:
                raise UserError(f"--workdir={self.workdir} holds a run on other data: its corpus {self.corpus.name} "
                                "has changed since; choose another --workdir, or the old text")  # fmt: skip
            where = f"{self.workdir}: the checkpoint of step {step}"
            schema.check(extra, SAVED, where)
            self.progress = schema.build(Progress, extra["progress"], f"{where}: progress")
            self.checks = schema.build(validation.Checks, extra["checks"], f"{where}: checks")
            self.samples_bytes = extra.get("samples_bytes", math.inf)  # older checkpoints do not say
            self.say(f"resuming {self.workdir} after {step} of {self.total} steps")
        self.state = self._placed(state)
        self.done = int(self.state.step)

    def _placed(self, state: TrainState) -> TrainState:
        return devices.place(self.devices, state)

    def say(self, text: str):
        if self.writes:
            print(text)

    def adopt(self, parameters: dict):
        """Puts other parameters, of the same shapes, in the place of the current ones and saves a checkpoint."""
        self.state = self.state._replace(parameters=jax.tree.map(jax.numpy.array, parameters))
        self.save_here()

    @property
    def parameters(self) -> dict:
        """What evaluation and sampling read: `evaluated_parameters` of the current state, on one device."""
        return devices.local(self.devices, evaluated_parameters(self.state))

    def _save(self, save, **more):
        """Calls save, a method of self.checkpoints, in process 0, with the whole state. more: of SAVED."""
        whole = devices.gather(self.devices, self.state)  # all processes must take part
        if self.writes:
            save(self.done, whole, self._saved() | more)

    def _saved(self) -> dict:
        """What a checkpoint holds beside the state."""
        return {
            "progress": self.progress._asdict(),
            "checks": self.checks._asdict(),
            "samples_bytes": self.samples_bytes,
            "data": self._data,
        }

    def run(self) -> dict:
        """Trains to the end, or to where it stops early, writes summary.json and returns its content.

        Raises Interrupted, with all saved, when a signal asks for it.
        """
        alone = jax.process_count() == 1  # of several processes all would have to stop at the same step
        listening = signals.listening() if alone else contextlib.nullcontext(lambda: None)
        with listening as asked, self.checkpoints:  # however this is left, saves under way are written
            while not self.finished:
                try:
                    self._train(asked)
                except NotFinite as error:
                    rollback.roll_back(self, error)
            if asked():
                raise Interrupted(asked(), f"stopped after all {self.done} steps, before they were scored")
        return self.finish()

    def _train(self, asked: Callable[[], int | None]):
        with self.open_log():
            while not self.finished:
                self._dispatch(next_stop(self.experiment, self.done))
                self.events()
                if asked() and not self.finished:
                    self.save_here()
                    raise Interrupted(asked(), f"stopped after {self.done} of {self.total} steps, all saved")

    def save_here(self, **more):
        """Saves the current step and waits until that is done."""
        self._save(self.checkpoints.save, **more)
        self.checkpoints.wait()

    @property
    def finished(self) -> bool:
        return self.done >= self.total or self.checks.stopped

    def open_log(self):
        """The MetricsLog, as a context; of None in a process that writes nothing."""
        if not self.writes:
            return contextlib.nullcontext()
        sampled_texts.cut(self.workdir, self.samples_bytes)
        self.log = MetricsLog(self.workdir, total_steps=self.total, start_step=self.done)
        return self.log

    def finish(self) -> dict:
        """What follows the last step: the summary, written and returned."""
        self.checkpoints.wait()
        devices.wait_for_all("checkpoints are written")
        summary = self.summary()
        if self.writes:
            write_json(os.path.join(self.workdir, "summary.json"), summary)
        return summary

    def _dispatch(self, stop: int):
        began = time.perf_counter()
        count = stop - self.done
        self.state, measured = train_steps(self.experiment, self.state, self.tokens, self.hyper, count)
        measured = jax.tree.map(lambda x: np.asarray(x, np.float64)[:count], measured)
        self.account(measured, time.perf_counter() - began)

    def account(self, measured: StepMetrics, seconds: float):
        """Takes note of the steps of a dispatch, arrays [steps] in float64. Raises NotFinite."""
        bad = np.flatnonzero(~np.isfinite(measured.loss) | ~np.isfinite(measured.gradient_norm))
        if len(bad):
            what = "gradient" if np.isfinite(measured.loss[bad[0]]) else "loss"
            raise NotFinite(
                f"the {what} is not finite at step {self.done + bad[0]} (learning rate "
                f"{measured.learning_rate[bad[0]]:g}, gradient norm {measured.gradient_norm[bad[0]]:g}); "
                f"lower config.optim.learning_rate, or say --config.on_nan=rollback, in another --workdir; the last "
                f"checkpoint in {self.workdir} is kept"
            )
        p, count = self.progress, len(measured.loss)
        # Added up one by one: then the sums do not depend on where dispatches begin and end.
        report_nats, epoch_nats = (np.cumsum([start, *measured.loss])[1:] for start in (p.report_nats, p.epoch_nats))
        running = epoch_nats / (p.epoch_steps + np.arange(1, count + 1))
        timed = count if self.compiled else 0
        self.compiled = True
        self.measured = measured
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

    def due(self) -> set[str]:
        """What follows the step made last: see `due`."""
        return due(self.experiment, self.corpus.splits, self.done)

    def events(self):
        """Report, validation, samples and checkpoint, each when due; those of the last step when validation stops."""
        due = self.due()
        if "report" in due:
            self._report(self.done - 1, "epoch" in due, "validation" in due)
        if "sample" in due or self.checks.stopped:
            self._sample(self.done - 1)
        if "checkpoint" in due or self.checks.stopped:
            self._save(self.checkpoints.save)

    def _report(self, step: int, ends_epoch: bool, validates: bool):
        p, measured = self.progress, self.measured
        loss = p.report_nats / p.report_steps
        row = {
            "step": step,
            "epoch": (step + 1) / self.streams.windows_per_epoch,
            "loss": loss,
            "perplexity": perplexity(loss),
            "bits_per_symbol": loss / math.log(2),
            "minibatch_perplexity": perplexity(measured.loss[-1]),
            "running_perplexity": perplexity(p.epoch_nats / p.epoch_steps),
            "lowest_running_perplexity": perplexity(p.lowest_running_nats),
            "learning_rate": measured.learning_rate[-1],
            "gradient_norm": measured.gradient_norm[-1],
            "tokens_per_s": self.tokens_per_second(),
        }
        p = p._replace(report_nats=0.0, report_steps=0, last_loss=loss)
        if ends_epoch:
            row["epoch_perplexity"] = perplexity(p.epoch_nats / p.epoch_steps)
            p = p._replace(epoch_nats=0.0, epoch_steps=0)
        self.progress = p
        if validates:
            row |= self._validate(step)
        if self.writes:
            self.log.write(row)
        if validates and self.observe:
            self.observe(step, row["valid_perplexity"])

    def _validate(self, step: int) -> dict:
        protocol = self.config.evaluation.during
        score = self.score(self.state, self.corpus.splits["valid"], protocol)
        score = score._replace(nats=devices.as_first(score.nats))
        mean = score.nats / score.targets
        self.checks, decision = validation.decide(self.config, self.checks, mean, step)
        if decision.best and self.config.checkpoint.best == "keep":
            self._save(self.checkpoints.save_best)
        self._apply(decision)
        return {"valid_loss": mean, "valid_perplexity": score.perplexity, "valid_protocol": protocol}

    def _apply(self, decision: validation.Decision):
        """Changes the state as a validation check asks. The values are traced: nothing compiles anew."""
        if decision.decay:
            factor = self.state.rate_factor * np.float32(self.config.optim.decay_rate)
            self.state = self.state._replace(rate_factor=factor)
        if decision.average:
            self.state = self.state._replace(average=begin_average(self.state.parameters))
        if decision.stop:
            self.say(f"stopped early after {self.done} of {self.total} steps: config.train.patience="
                      f"{self.config.train.patience} validation checks in a row were no better")  # fmt: skip

    def _sample(self, step: int):
        if not self.writes:
            return
        key = jax.random.fold_in(jax.random.key(self.config.sample.seed), step)
        texts = generate(self.model, self.parameters, self.corpus.vocabulary, self.config.sample, key)
        self.samples_bytes = sampled_texts.append(self.workdir, f"step {step}", texts)

    def score(self, state: TrainState, tokens: np.ndarray, protocol: str) -> Score:
        parameters = devices.local(self.devices, evaluated_parameters(state))
        return evaluate(protocol, self.model, parameters, tokens, self.config.evaluation)

    def tokens_per_second(self) -> float:
        """Tokens trained on per second of dispatches; the first, which compiles, is left out."""
        p = self.progress
        tokens = p.timed_steps * self.streams.batch_size * self.streams.unroll
        return tokens / p.train_seconds if p.train_seconds else 0.0

    def summary(self) -> dict:
        """Scores and provenance of the current state, and of the best one where it is kept: lm/training/summary.py."""
        return summarise(self)

    def texts(self) -> list[str]:
        """Generated texts as `config.sample` says."""
        return generate(self.model, self.parameters, self.corpus.vocabulary, self.config.sample)


def train(
    config: ml_collections.ConfigDict,
    corpus: Corpus,
    workdir: str,
    read_test: ReadTest | None = None,
    observe: Observe | None = None,
) -> dict:
    """Trains `config` on `corpus` in `workdir`, going on from its last checkpoint, and returns the summary.

    read_test, observe: as of `Trainer`
    """
    memory.check(make_experiment(config, corpus))  # what is wrong with the config leaves no trace in the workdir
    with contextlib.ExitStack() as held:

        def prepare():
            held.enter_context(lock.alone(workdir))  # first: who is refused changes nothing
            prepare_workdir(workdir, config)

        devices.first_does(prepare)
        return Trainer(config, corpus, workdir, read_test=read_test, observe=observe).run()
