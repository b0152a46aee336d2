"""Shows the trials of a sweep while it runs."""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TextIO

import optuna
from optuna.trial import FrozenTrial, TrialState

from experiments.sweeps.trials import FINISHED, describe_state, trials_without_surplus
from lm.machine.clock import h_mm_ss

SHOWN = 15  # newest trials


@contextlib.contextmanager
def live_table(study: optuna.Study, total: int, stream: TextIO | None = None) -> Iterator["Table"]:
    """A table that update() redraws in a terminal; elsewhere update() prints a line for each finished trial."""
    table = Table(study, total, stream or sys.stdout)
    with table.live or contextlib.nullcontext():
        yield table


class Table:
    """Reads the study at each update(), so that it shows the trials of other processes, too."""

    def __init__(self, study: optuna.Study, total: int, stream: TextIO):
        self.study, self.total, self.stream = study, total, stream
        self.began = time.monotonic()
        self.printed = {trial.number for trial in trials_without_surplus(study) if trial.state in FINISHED}
        self.finished_before = len(self.printed)
        self.live = None
        if stream.isatty():
            from rich.console import Console
            from rich.live import Live

            self.live = Live(console=Console(file=stream), refresh_per_second=2)

    def update(self):
        trials = trials_without_surplus(self.study)
        if self.live:
            self.live.update(self._render(trials))
            return
        for trial in trials:
            if trial.state in FINISHED and trial.number not in self.printed:
                self.printed.add(trial.number)
                parts = (f"trial {trial.number}", describe_parameters(trial), describe_state(trial))
                line = "  ".join(part for part in parts if part)
                print(f"{line}  ({self._summary(trials)})", file=self.stream, flush=True)

    def _summary(self, trials: list[FrozenTrial]) -> str:
        """3 of 40 done, best 161.2 (trial 1), 0:12:30 left"""
        finished = sum(trial.state in FINISHED for trial in trials)
        values = [(trial.value, trial.number) for trial in trials if trial.state == TrialState.COMPLETE]
        best = "best {:.4g} (trial {})".format(*min(values)) if values else "no value yet"
        summary = f"{finished} of {self.total} done, {best}"
        here = finished - self.finished_before
        if not here or finished >= self.total:
            return summary
        left = (time.monotonic() - self.began) / here * (self.total - finished)
        return f"{summary}, {h_mm_ss(left)} left"

    def _render(self, trials: list[FrozenTrial]):
        from rich.table import Table as RichTable

        table = RichTable(title=self._summary(trials), title_justify="left")
        for column in ("trial", "parameters", "validation perplexity or state"):
            table.add_column(column)
        for trial in trials[-SHOWN:]:
            table.add_row(str(trial.number), describe_parameters(trial), describe_state(trial))
        return table


def describe_parameters(trial: FrozenTrial) -> str:
    """batch_size=32 learning_rate=0.00217"""
    names = {key: key.split("+")[0].rpartition(".")[2] for key in trial.params}
    return " ".join(f"{names[key]}={format_value(value)}" for key, value in trial.params.items())


def format_value(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
