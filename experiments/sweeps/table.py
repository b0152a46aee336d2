"""A table of a sweep's trials that keeps up with it."""

import contextlib
import sys
import time

from optuna.trial import TrialState

from experiments.sweeps.study import FINISHED
from lm.machine.clock import h_mm_ss

SHOWN = 15  # newest trials


@contextlib.contextmanager
def live_table(study, total: int, stream=None):
    """A `Table` in a terminal that is drawn anew at each update(); elsewhere a line for each trial that ends."""
    table = Table(study, total, stream or sys.stdout)
    with table.live or contextlib.nullcontext():
        yield table


class Table:
    """update() asks the study, so that trials of other processes are seen too."""

    def __init__(self, study, total: int, stream):
        self.study, self.total, self.stream = study, total, stream
        self.began = time.monotonic()
        self.before = sum(trial.state in FINISHED for trial in self._trials())
        self.said = {trial.number for trial in self._trials() if trial.state in FINISHED}
        self.live = None
        if stream.isatty():
            from rich.console import Console
            from rich.live import Live

            self.live = Live(console=Console(file=stream), refresh_per_second=2)

    def update(self):
        trials = self._trials()
        if self.live:
            self.live.update(self._drawn(trials))
            return
        for trial in trials:
            if trial.state in FINISHED and trial.number not in self.said:
                self.said.add(trial.number)
                print(f"{self._line(trial)}  ({self._summary(trials)})", file=self.stream, flush=True)

    def _trials(self) -> list:
        return [trial for trial in self.study.get_trials(deepcopy=False) if "surplus" not in trial.user_attrs]

    def _line(self, trial) -> str:
        return "  ".join(part for part in (f"trial {trial.number}", parameters(trial), how(trial)) if part)

    def _summary(self, trials: list) -> str:
        """3 of 40 done, best 161.2 (trial 1), 0:12:30 left"""
        ended = sum(trial.state in FINISHED for trial in trials)
        values = [(trial.value, trial.number) for trial in trials if trial.state == TrialState.COMPLETE]
        best = "best {:.4g} (trial {})".format(*min(values)) if values else "none has a value yet"
        here = ended - self.before
        if not here or ended >= self.total:
            return f"{ended} of {self.total} done, {best}"
        left = (time.monotonic() - self.began) / here * (self.total - ended)
        return f"{ended} of {self.total} done, {best}, {h_mm_ss(left)} left"

    def _drawn(self, trials: list):
        from rich.table import Table as RichTable

        drawn = RichTable(title=self._summary(trials), title_justify="left")
        for column in ("trial", "parameters", "validation perplexity or state"):
            drawn.add_column(column)
        for trial in trials[-SHOWN:]:
            drawn.add_row(str(trial.number), parameters(trial), how(trial))
        return drawn


def parameters(trial) -> str:
    """batch_size=32 learning_rate=0.00217"""
    names = {key: key.split("+")[0].rpartition(".")[2] for key in trial.params}
    return " ".join(f"{names[key]}={short(value)}" for key, value in trial.params.items())


def how(trial) -> str:
    if trial.state == TrialState.COMPLETE:
        return f"{trial.value:.4f}"
    failure = trial.user_attrs.get("failure")
    return trial.state.name.lower() + (f": {failure}" if failure else "")


def short(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
