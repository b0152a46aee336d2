"""The training loop of one run: dispatches on the device, and the recorder's events between them."""

import contextlib
import time
from collections.abc import Callable

import jax
import numpy as np

from lm.errors import NotFinite
from lm.machine import signals
from lm.machine.signals import Interrupted
from lm.runs import lock
from lm.runs.workdir import accept_config, prepare_workdir
from lm.training import devices, memory
from lm.training.events import check_longer, next_stop
from lm.training.recorder import Observe, ReadTest, Recorder
from lm.training.setup import Setup
from lm.training.step import train_steps


class Trainer:
    """One run in one work directory: its state on the device, its recorder on the host."""

    def __init__(self, recorder: Recorder):
        """Resumes from the last checkpoint in the recorder's work directory, if it holds one."""
        self.recorder, self.setup = recorder, recorder.setup
        count = self.setup.config.train.devices
        self.hyper = devices.replicate(count, self.setup.hyper)
        self.data = devices.replicate(count, self.setup.task.on_device(self.setup.corpus.splits["train"]))
        self.state = recorder.restore()
        if recorder.resumed:
            recorder.say(f"resuming {recorder.workdir} after {recorder.done} of {self.setup.total_steps} steps")
        if recorder.checks.stopped:
            patience = self.setup.config.train.patience
            recorder.say(f"this run stopped early by config.train.patience={patience}: it will not train further")

    def run(self) -> dict:
        """Trains to the end, writes summary.json and returns its content. Raises Interrupted on a signal, after
        saving."""
        recorder = self.recorder
        alone = jax.process_count() == 1  # several processes do not listen: all would have to stop at one step
        listening = signals.listening() if alone else contextlib.nullcontext(lambda: None)
        with listening as pending, recorder.checkpoints:  # finishes pending saves on any exit
            while not recorder.finished:
                try:
                    self._train(pending)
                except NotFinite as error:
                    self.state = recorder.roll_back(error)
            if (received := pending()) is not None:
                raise Interrupted(received, f"stopped after all {recorder.done} steps, before scoring")
        return recorder.finish(self.state)

    def _train(self, pending: Callable[[], int | None]):
        """Trains until the run has finished. Raises Interrupted, after saving, if a signal is pending."""
        recorder = self.recorder
        with recorder.open_log() if recorder.writes else contextlib.nullcontext():
            while not recorder.finished:
                self._dispatch(next_stop(self.setup, recorder.done))
                self.state = recorder.handle_events(self.state)
                received = pending()
                if received is not None and not recorder.finished:
                    recorder.save(self.state, wait=True)
                    done, total = recorder.done, self.setup.total_steps
                    raise Interrupted(received, f"stopped after {done} of {total} steps, all saved")

    def _dispatch(self, stop: int):
        began = time.perf_counter()
        count = stop - self.recorder.done
        self.state, measured = train_steps(self.setup, self.state, self.data, self.hyper, count)
        measured = jax.tree.map(lambda x: np.asarray(x, np.float64)[:count], measured)
        self.recorder.account(measured, time.perf_counter() - began)


def train(setup: Setup, workdir, read_test: ReadTest | None = None, observe: Observe | None = None) -> dict:
    """Trains in `workdir`, resuming from its last checkpoint, and returns the summary.

    read_test, observe: see lm/training/recorder.py. Raises UserError, before changing anything, if memory is too
    small or another process uses `workdir`.
    """
    memory.check_memory(setup)
    with contextlib.ExitStack() as held:

        def prepare():
            held.enter_context(lock.alone(workdir))  # first, so that a rejected process changes nothing
            prepare_workdir(workdir, setup.config, setup.corpus.vocabulary)

        devices.first_does(prepare)
        trainer = Trainer(Recorder(setup, workdir, read_test, observe))  # raises UserError for another corpus

        def accept():
            check_longer(setup, workdir, trainer.recorder.done)
            accept_config(workdir, setup.config)

        devices.first_does(accept)
        return trainer.run()
