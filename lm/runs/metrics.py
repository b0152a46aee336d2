"""Writes metrics.jsonl (one JSON object per report) and tensorboard/, and shows the progress of a run.

JSON is strict: numbers that are not finite are written as null.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from lm.errors import UserError
from lm.machine.clock import h_mm_ss
from lm.runs.files import read_bytes, write_bytes, writing
from lm.runs.plain import plain
from lm.runs.schema import parse, whole_lines
from lm.runs.tensorboard import TensorBoard


class MetricsLog(contextlib.AbstractContextManager):
    """Appends rows to metrics.jsonl and TensorBoard, and shows the run's progress.

    On a terminal, shows a tqdm bar with the time left and the latest scalars, and prints a line at every validation.
    Otherwise prints one line per row. Output goes to `stream`, by default standard output; `shown` lists the scalars.
    Time left is shown from the second row on, because the time before the first row includes compilation.

    Steps count from 0: the row of step s is written after s + 1 completed steps. A run that resumes passes its number
    of completed steps as `start_step`. Rows of this step and later ones, and a last line truncated by a crash, are
    removed first, so metrics.jsonl continues as if the run had never stopped. Write a step's row before its
    checkpoint, or a crash between the two loses the row.
    """

    def __init__(
        self,
        workdir,
        total_steps: int,
        start_step: int = 0,
        stream=None,
        shown: tuple[str, ...] = ("loss", "perplexity", "valid_perplexity", "tokens_per_s"),
        hyperparameters: Mapping[str, object] | None = None,
    ):
        """hyperparameters: a config as {dotted key: value}, for TensorBoard"""
        self._path = Path(workdir) / "metrics.jsonl"
        self._stream = sys.stdout if stream is None else stream
        self._total, self._done = total_steps, start_step
        self._shown, self._hyperparameters = shown, hyperparameters
        _keep_rows(self._path, start_step)
        self._events_path = Path(workdir) / "tensorboard"
        self._events = TensorBoard(self._events_path, start_step)
        with writing(self._path):
            self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115 (closed in close)
        self._bar = None
        self._began: tuple[float, int] | None = None  # (time, completed steps) at the first row

    def _make_bar(self):
        """Creates a progress bar whose time starts now."""
        from tqdm import tqdm

        return tqdm(
            total=self._total,
            initial=self._done,
            unit="step",
            file=self._stream,
            dynamic_ncols=True,
            # A short bar and no rate, so that the scalars fit in 80 columns.
            bar_format="{percentage:3.0f}%|{bar:10}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
        )

    def write(self, row: Mapping) -> None:
        """Records one report. row: 'step' and JSON-serialisable values; numbers are plotted. Raises UserError if a file
        cannot be written, or metrics.jsonl was moved or deleted."""
        row = plain(row)
        scalars = {key: v for key, v in row.items() if isinstance(v, int | float) and key != "step"}
        with writing(self._path):
            self._file.write(json.dumps(row, allow_nan=False) + "\n")
            self._file.flush()
        self._check_in_place()
        if self._bar is not None:
            self._bar.update(row["step"] + 1 - self._done)
        self._done = row["step"] + 1
        text = "  ".join(f"{key} {_short(scalars[key])}" for key in self._shown if key in scalars)
        line = f"step {row['step']} of {self._total}  {text}"
        if not self._stream.isatty():
            print(f"{line}  {self._left()}".rstrip(), file=self._stream, flush=True)
        else:
            self._bar = self._bar or self._make_bar()
            self._bar.set_postfix_str(text)
            if "valid_perplexity" in scalars:
                self._bar.write(line, file=self._stream)
        self._began = self._began or (time.monotonic(), self._done)
        with writing(self._events_path):
            if self._hyperparameters:  # not earlier: importing TensorBoard would delay the first step
                self._events.write_hyperparameters(self._hyperparameters)
                self._hyperparameters = None
            self._events.write(row["step"], scalars)

    def _check_in_place(self) -> None:
        """Raises UserError if metrics.jsonl was moved, deleted or replaced: rows would be lost silently."""
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self._file.fileno()), os.stat(self._path)):
                return
        raise UserError(
            f"{self._path} was deleted, moved or replaced during training, so the run stops; if its checkpoints are "
            "still there, run the same command again to resume"
        )

    def write_texts(self, step: int, texts: list[str]) -> None:
        """Shows sampled texts in TensorBoard. Raises UserError if its file cannot be written."""
        with writing(self._events_path):
            self._events.write_texts(step, texts)

    def close(self) -> None:
        """Flushes and closes all files; safe to call twice. Raises UserError if buffered data cannot be written."""
        if self._bar is not None:
            self._bar.close()
        try:
            with writing(self._path):
                self._file.close()
        finally:
            with writing(self._events_path):
                self._events.close()

    def __exit__(self, *unused):
        self.close()

    def _left(self) -> str:
        """Estimates the time left from the speed of this process since its first row."""
        if self._began is None or self._done <= self._began[1] or self._done >= self._total:
            return ""
        began, done = self._began
        seconds = (time.monotonic() - began) / (self._done - done) * (self._total - self._done)
        return f"({h_mm_ss(seconds)} left)"


def _short(value: int | float) -> str:
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1e4 else f"{value:.0f}"


def _keep_rows(path: Path, start_step: int) -> None:
    """Removes rows of `start_step` and later steps, and a truncated last line. Warns if other rows are lost. Raises
    UserError if steps do not ascend: some rows are from another run."""
    if not path.exists():
        if start_step:
            print(f"warning: {path} is missing: its rows before step {start_step} are lost", file=sys.stderr)
        return
    old = read_bytes(path)
    lines = whole_lines(old).splitlines(True)
    steps = [_step_of(line) for line in lines]
    if bad := [number for number, step in enumerate(steps, 1) if step is None]:
        print(f"warning: {path}: line {bad[0]} is not a row ({len(bad)} such lines are dropped)", file=sys.stderr)
    known = [step for step in steps if step is not None]
    if known != sorted(set(known)):
        raise UserError(f"{path}: its steps do not ascend: some rows are from another run; repair or remove it")
    kept = b"".join(line for line, step in zip(lines, steps, strict=True) if step is not None and step < start_step)
    if kept != old:
        write_bytes(path, kept)


def _step_of(line: bytes) -> int | None:
    """The step of a row; None for a line that is not a valid row."""
    try:
        step = parse(line)["step"]
    except (ValueError, KeyError, TypeError, IndexError):
        return None
    return step if type(step) is int else None
