"""metrics.jsonl, one JSON object per report; the same in tensorboard/; and the progress of the run on screen.

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
from lm.runs.files import write_bytes, writing
from lm.runs.plain import plain
from lm.runs.schema import parse, whole_lines
from lm.runs.tensorboard import TensorBoard


class MetricsLog:
    """Appends rows to metrics.jsonl and TensorBoard, and shows the run's progress.

    On a terminal that is a tqdm bar with time left and the latest scalars, and a line that stays for every validation;
    otherwise one plain line per row. Both go to `stream`, standard output by default, and name the scalars in `shown`.
    Time left is first shown after the second row: the steps before the first one are compiled.

    Steps count from 0: the row of step s is written when s + 1 steps have been made. A run that
    resumes gives the number it has made as `start_step`: rows of that step and later ones, and a last line torn by a
    crash, are dropped first, so that metrics.jsonl ends as if the run had never stopped. Write a step's row before its
    checkpoint, or a crash between the two loses it.
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
        """hyperparameters: {dotted key: value} of a config, for TensorBoard"""
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
        self._began: tuple[float, int] | None = None  # (time, steps made) when the first row was written

    def _make_bar(self):
        """A bar that counts time from now on."""
        from tqdm import tqdm

        return tqdm(
            total=self._total,
            initial=self._done,
            unit="step",
            file=self._stream,
            dynamic_ncols=True,
            # A short bar and no rate: room for the metric on 80 columns.
            bar_format="{percentage:3.0f}%|{bar:10}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
        )

    def write(self, row: Mapping) -> None:
        """Records one report: `row` holds 'step' and whatever JSON can hold; numbers are plotted.

        Raises:
            UserError: metrics.jsonl or TensorBoard's file cannot be written, or metrics.jsonl is no longer there.
        """
        row = plain(row)
        scalars = {key: v for key, v in row.items() if isinstance(v, int | float) and key != "step"}
        with writing(self._path):
            self._file.write(json.dumps(row, allow_nan=False) + "\n")
            self._file.flush()
        self._check_in_place()
        self.advance(row["step"] + 1)
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
            if self._hyperparameters:  # not before the first step, which the import of TensorBoard would delay
                self._events.write_hyperparameters(self._hyperparameters)
                self._hyperparameters = None
            self._events.write(row["step"], scalars)

    def _check_in_place(self) -> None:
        """Raises UserError if metrics.jsonl is no longer there: rows would be lost without a word."""
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

    def advance(self, done: int) -> None:
        """Moves the bar: `done` steps have been made."""
        if self._bar is not None and done > self._done:
            self._bar.update(done - self._done)
        self._done = max(self._done, done)

    def close(self) -> None:
        """Flushes and closes everything; safe to call twice. Raises UserError if the rest cannot be written."""
        if self._bar is not None:
            self._bar.close()
        try:
            with writing(self._path):
                self._file.close()
        finally:
            with writing(self._events_path):
                self._events.close()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    def _left(self) -> str:
        """Time left, by the steps of this process since its first row."""
        if self._began is None or self._done <= self._began[1] or self._done >= self._total:
            return ""
        began, done = self._began
        seconds = (time.monotonic() - began) / (self._done - done) * (self._total - self._done)
        return f"({h_mm_ss(seconds)} left)"


def _short(value: int | float) -> str:
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1e4 else f"{value:.0f}"


def _keep_rows(path: Path, start_step: int) -> None:
    """Drops the rows of `start_step` and later steps, and a torn last line. Warns of what else is lost.

    Raises UserError if steps do not ascend: some rows are of another run.
    """
    try:
        old = path.read_bytes()
    except FileNotFoundError:
        if start_step:
            print(f"warning: {path} is missing: its rows before step {start_step} are lost", file=sys.stderr)
        return
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    lines = whole_lines(old).splitlines(True)
    steps = [_step_of(line) for line in lines]
    if bad := [number for number, step in enumerate(steps, 1) if step is None]:
        print(f"warning: {path}: line {bad[0]} is no row of a run ({len(bad)} such lines are dropped)", file=sys.stderr)
    known = [step for step in steps if step is not None]
    if known != sorted(set(known)):
        raise UserError(f"{path}: its steps do not ascend: some rows are of another run; repair or remove it")
    kept = b"".join(line for line, step in zip(lines, steps, strict=True) if step is not None and step < start_step)
    if kept != old:
        write_bytes(path, kept)


def _step_of(line: bytes) -> int | None:
    """The step of a row; None for a line that holds none."""
    try:
        step = parse(line)["step"]
    except (ValueError, KeyError, TypeError, IndexError):
        return None
    return step if type(step) is int else None
