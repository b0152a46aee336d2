"""Prints the result of each trial when it ends, and the progress of the sweep."""

import time

import optuna
from optuna.trial import FrozenTrial, TrialState

from experiments.sweeps.trials import FINISHED, describe_state, trials_without_surplus
from lm.machine.clock import h_mm_ss


class Progress:
    """Reads the study at each update(), so that trials of other processes are printed, too."""

    def __init__(self, study: optuna.Study, total: int):
        self.study, self.total, self.began = study, total, time.monotonic()
        self.printed = {trial.number for trial in trials_without_surplus(study) if trial.state in FINISHED}
        self.finished_before = len(self.printed)

    def update(self):
        trials = trials_without_surplus(self.study)
        for trial in trials:
            if trial.state in FINISHED and trial.number not in self.printed:
                self.printed.add(trial.number)
                named = ((key.split("+")[0].rpartition(".")[2], value) for key, value in trial.params.items())
                parameters = " ".join(f"{name}={format_value(value)}" for name, value in named)
                parts = (f"trial {trial.number}", parameters, describe_state(trial))
                print("  ".join(filter(None, parts)) + f"  ({self._summary(trials)})", flush=True)

    def _summary(self, trials: list[FrozenTrial]) -> str:
        """The progress in one line, such as: 3 of 40 done, best 161.2 (trial 1), 0:12:30 left"""
        finished = sum(trial.state in FINISHED for trial in trials)
        values = [(trial.value, trial.number) for trial in trials if trial.state == TrialState.COMPLETE]
        best = "best {:.4g} (trial {})".format(*min(values)) if values else "no value yet"
        summary = f"{finished} of {self.total} done, {best}"
        here = finished - self.finished_before
        if not here or finished >= self.total:
            return summary
        left = (time.monotonic() - self.began) / here * (self.total - finished)
        return f"{summary}, {h_mm_ss(left)} left"


def format_value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
