"""A worker of a sweep: takes trials from the study and trains them (experiments/sweeps/training.py).

It runs in its own process (lm/machine/processes.py), so that a crash fails one trial instead of ending the sweep. The
supervisor sends it the arguments of `work`.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path

import optuna
from ml_collections import ConfigDict
from optuna.trial import Trial, TrialState

from experiments.sweeps.study import Place, Sweep, name_worker, open_sweep, quiet_optuna, storage_errors
from experiments.sweeps.training import train_trials
from experiments.sweeps.trials import originals, place_of
from lm.errors import UserError
from lm.machine.compilation_cache import use_compilation_cache
from lm.machine.cores import limit_threads, one_device_per_core
from lm.machine.processes import to_parent
from lm.runs.files import writing

GAVE_UP, ASKED = 2, 75  # exit status after an error that the supervisor gets; after a signal


def main() -> int:
    """Works for the supervisor, and returns the exit status."""
    supervisor = to_parent()
    config, place, at_once = supervisor.receive()
    try:
        work(ConfigDict(config), Place(*place), at_once)
    except KeyboardInterrupt:
        return ASKED
    except UserError as error:
        supervisor.send(str(error))
        return GAVE_UP
    return 0


def work(config: ConfigDict, place: Place, at_once: int):
    """Trains trials, `at_once` at a time, until none is left. Writes their output to trials.log. Raises UserError for a
    failed database or a full disk: no trial could continue."""
    if at_once > 1:
        one_device_per_core()
    elif config.run.train.threads:
        limit_threads(config.run.train.threads)
    use_compilation_cache()
    sweep, corpora, path = open_sweep(config, place), {}, Path(place.workdir, "trials.log")
    with (
        storage_errors(place),
        writing(path),
        open(path, "a", encoding="utf-8", buffering=1) as log,
        quiet_optuna(),
        contextlib.redirect_stdout(log),
    ):
        for trials in take_trials(sweep, at_once):
            with heartbeats(sweep, [trial.number for trial in trials], config.heartbeat_seconds / 3):
                train_trials(sweep, trials, corpora)


def take_trials(sweep: Sweep, at_once: int) -> Iterator[list[Trial]]:
    """Yields the trials to train next: waiting ones, such as those of a dead worker, then new ones."""
    seen: set[int] = set()
    while True:
        if sweep.place.shared:
            optuna.storages.fail_stale_trials(sweep.study)
        if taken := ask_trials(sweep, at_once):
            yield taken
            continue
        running = {trial.number for trial in sweep.trials_in(TrialState.RUNNING)}
        if not sweep.place.shared or not running:
            return
        # Wait for other machines, and repeat the trials of those that die. A trial whose worker died before its first
        # heartbeat would never become stale, so record a heartbeat for it.
        record_heartbeats(sweep, running - seen)
        seen |= running
        time.sleep(sweep.config.heartbeat_seconds / 2)


def ask_trials(sweep: Sweep, at_once: int) -> list[Trial]:
    """Takes up to `at_once` trials of the plan."""
    taken: list[Trial] = []
    while len(taken) < at_once:
        if not sweep.trials_in(TrialState.WAITING) and len(originals(sweep.study)) >= sweep.total:
            break
        trial = sweep.ask()
        record = sweep.record_of(trial)
        if "surplus" in record.user_attrs or place_of(sweep.study, record) >= sweep.total:
            # Two workers took the last trial at the same time, and this one was second.
            trial.set_user_attr("surplus", "beyond config.trials")
            sweep.study.tell(trial, state=TrialState.FAIL)
        else:
            trial.set_user_attr("worker", name_worker(os.getpid()))
            taken.append(trial)
    return taken


@contextlib.contextmanager
def heartbeats(sweep: Sweep, numbers: list[int], seconds: float) -> Generator[threading.Thread]:
    """Records heartbeats of trials from a thread. Optuna's own thread runs only in Study.optimize, not used here."""
    stopped = threading.Event()

    def run():
        while not stopped.wait(seconds):
            try:
                record_heartbeats(sweep, numbers)
            except Exception as error:  # whatever the database raises: the next heartbeat may succeed
                print(f"no heartbeat could be recorded: {type(error).__name__}: {error}", flush=True)

    record_heartbeats(sweep, numbers)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        stopped.set()
        thread.join()


def record_heartbeats(sweep: Sweep, numbers: Iterable[int]):
    """Tells other machines that trials are alive, if any share the study."""
    if sweep.place.shared:
        for number in numbers:
            sweep.storage.record_heartbeat(sweep.id_of(number))


if __name__ == "__main__":
    sys.exit(main())
