"""Signs of life in a study that machines share, and what becomes of the trials of a machine that gives none."""

import copy
import threading
import time

import optuna
from optuna.trial import TrialState


def beat(study: optuna.Study, trial_ids):
    """A sign of life for each of some running trials, where the storage keeps such."""
    storage = study._storage
    if storage.get_heartbeat_interval() is not None:
        for trial_id in trial_ids:
            storage.record_heartbeat(trial_id)


def fail_silent(study: optuna.Study, retries: int):
    """Trials without a sign of life for two intervals are failed, and wait to be repeated, `retries` times at most.

    A repeated trial has a number of its own, and the place in the plan of the one that it repeats.
    """
    storage = study._storage
    repeat = optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=retries)
    for trial_id in storage._get_stale_trial_ids(study._study_id):
        times = 1 + len(storage.get_trial(trial_id).system_attrs.get("retry_history", []))
        try:
            # Before it is failed, since afterwards nothing can be said of it.
            storage.set_trial_user_attr(trial_id, "failure", f"its machine fell silent {times} time{'s'[: times > 1]}")
            storage.set_trial_state_values(trial_id, TrialState.FAIL)
        except optuna.exceptions.UpdateFinishedTrialError:  # another machine was faster, or it has ended after all
            continue
        failed = copy.deepcopy(storage.get_trial(trial_id))
        del failed.user_attrs["failure"]  # the one that repeats it has not failed yet
        repeat(study, failed)


class Heart:
    """Tells the storage of a shared study, from a thread, that the current trials are alive."""

    def __init__(self, study: optuna.Study, seconds: float):
        self.study, self.seconds, self.trials = study, seconds, []
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._beat, daemon=True)

    def watch(self, trials: list[int]):
        """Trials that begin now, and at once the first sign of life for each."""
        self.trials = trials
        beat(self.study, trials)

    def _beat(self):
        last = time.monotonic()
        while not self.stopped.wait(min(0.5, self.seconds)):
            if time.monotonic() - last > self.seconds:
                try:
                    beat(self.study, list(self.trials))
                except Exception as error:  # whatever the database says: the next sign may come through
                    print(f"no sign of life could be given: {type(error).__name__}: {error}", flush=True)
                last = time.monotonic()

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *unused):
        self.stopped.set()
        self.thread.join()
