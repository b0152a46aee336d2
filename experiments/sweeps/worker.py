"""A worker of a sweep: takes trials from the study and trains them (experiments/sweeps/training.py).

It has a process of its own (lm/machine/processes.py), so that a crash fails one trial instead of ending the sweep. The
supervisor sends it the arguments of `work`.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
from ml_collections import ConfigDict
from optuna.trial import Trial, TrialState

from experiments.sweeps.heartbeats import Heart, record_heartbeats
from experiments.sweeps.study import Place, Sweep, name_worker, open_sweep, quiet_optuna, storage_errors
from experiments.sweeps.training import train_trials
from experiments.sweeps.trials import originals, place_of
from lm.errors import UserError
from lm.machine.compilation_cache import use_compilation_cache
from lm.machine.cores import limit_threads, one_device_per_core
from lm.machine.processes import to_parent

GAVE_UP, ASKED = 2, 75  # exit statuses: an error, which it sends to the supervisor; a signal, after saving


def main() -> int:
    """Works for the supervisor, and returns the exit status."""
    supervisor = to_parent()
    config, place, at_once, left_behind = supervisor.receive()
    try:
        work(ConfigDict(config), Place(*place), at_once, left_behind)
    except KeyboardInterrupt:
        return ASKED
    except UserError as error:
        supervisor.send(str(error))
        return GAVE_UP
    return 0


def work(config: ConfigDict, place: Place, at_once: int, left_behind: list[tuple[int, ...]]):
    """Trains trials, `at_once` at a time, until none is left.

    left_behind: numbers of trials whose process has died, grouped as they were trained together

    Raises UserError for a failed database or a full disk: no trial could continue.
    """
    if at_once > 1:
        one_device_per_core()
    elif config.run.train.threads:
        limit_threads(config.run.train.threads)
    use_compilation_cache()
    sweep, corpora = open_sweep(config, place), {}
    with (
        storage_errors(place),
        open_log(place) as log,
        quiet_optuna(),
        Heart(sweep, config.heartbeat_seconds / 3) as heart,
        contextlib.redirect_stdout(log),
    ):
        for trials in take_trials(sweep, at_once, left_behind):
            heart.watch([trial.number for trial in trials])
            train_trials(sweep, trials, corpora)
            heart.watch([])


@contextlib.contextmanager
def open_log(place: Place) -> Iterator:
    """trials.log, for the output of all trials. Raises UserError for a file that cannot be written."""
    path = Path(place.workdir, "trials.log")
    try:
        with open(path, "a", encoding="utf-8", buffering=1) as log:
            yield log
    except OSError as error:  # one raised by a trial's own files is recorded there and does not get here
        raise UserError(f"cannot write {error.filename or path}: {error.strerror}") from error


def take_trials(sweep: Sweep, at_once: int, left_behind: list[tuple[int, ...]]) -> Iterator[list[Trial]]:
    """Yields the trials to train next: those of a dead process, then waiting ones, then new ones.

    Trials that were left behind keep their numbers and continue in their directories.
    """
    for numbers in left_behind:
        adopted = [adopt_trial(sweep, number) for number in numbers]
        if kept := [trial for trial in adopted if not discard_surplus(sweep, trial)]:
            yield kept
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
        # heartbeat would never count as stale: record one for each.
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
        if not discard_surplus(sweep, trial):
            trial.set_user_attr("worker", name_worker(os.getpid()))
            taken.append(trial)
    return taken


def adopt_trial(sweep: Sweep, number: int) -> Trial:
    """Takes over a running trial of a dead process."""
    trial = sweep.resume(number)
    for axis in sweep.axes:  # the process may have died before the trial had all its parameters
        axis.suggest(trial)
    trial.set_user_attr("worker", name_worker(os.getpid()))
    return trial


def discard_surplus(sweep: Sweep, trial: Trial) -> bool:
    """Ends a trial beyond the plan, as one of two workers gets that take the last trial at once. True if it did."""
    record = sweep.record_of(trial)
    if "surplus" not in record.user_attrs and place_of(sweep.study, record) < sweep.total:
        return False
    trial.set_user_attr("surplus", "beyond config.trials")
    sweep.study.tell(trial, state=TrialState.FAIL)
    return True


if __name__ == "__main__":
    sys.exit(main())
