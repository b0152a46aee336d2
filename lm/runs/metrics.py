"""What a run leaves behind beside its checkpoints: files, TensorBoard events, progress.

    config.json     the fully resolved config; a second run with another config is refused
    metrics.jsonl   one JSON object per report
    summary.json    the results, written once at the end
    test_log.jsonl  one JSON object for every score of the test split, ever
    tensorboard/    the scalars of metrics.jsonl, for `tensorboard --logdir`

All JSON is strict: numbers that are not finite are written as null.
"""

import contextlib
import datetime
import json
import math
import numbers
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lm.errors import UserError
from lm.machine.clock import h_mm_ss
from lm.runs.schema import parse, read_json
from lm.runs.tensorboard import Events

# Any of these without a config.json means that the directory belongs to something else.
_RUN_FILES = ("metrics.jsonl", "summary.json", "checkpoints")
# Keys that say where a run is computed, not what: it may go on with other values of them.
_WHERE = ("train.devices", "train.threads")


# ------------------------------------------------------------------------------------------- JSON


def plain(value):
    """`value` as strict JSON would hold it: dicts, lists, strings, numbers, None.

    Tuples and arrays become lists, configs become dicts, scalars of NumPy and JAX become Python's,
    numbers that are not finite become None. So plain(x) == json.loads(json.dumps(plain(x))): two
    configs are equal exactly when their plain forms are, whether read from a file or built.

    Raises:
        TypeError: a value that JSON cannot hold.
    """
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "to_dict"):  # ml_collections.ConfigDict
        return plain(value.to_dict())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "tolist") and not isinstance(value, numbers.Number):  # an array
        return plain(value.tolist())
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    raise TypeError(f"JSON cannot hold a {type(value).__name__}: {value!r}")


def write_json(path, obj) -> None:
    """Writes `obj` to `path` whole or not at all: a temporary file, fsync, rename.

    Raises:
        UserError: the file cannot be written (no permission, disk full).
    """
    text = json.dumps(plain(obj), indent=2, allow_nan=False, ensure_ascii=False)
    write_bytes(path, (text + "\n").encode())


def write_bytes(path, content: bytes) -> None:
    """Writes `content` to `path` whole or not at all, as `write_json` does, and raises the same."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):  # its directory may be none
            temporary.unlink()
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def make_directory(path) -> Path:
    """Makes `path` and its parents where they are missing, and returns it. Raises UserError where it cannot."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"directory {path} cannot be made: {error.strerror}") from error
    return path


# -------------------------------------------------------------------------------- work directory


def prepare_workdir(workdir, config) -> Path:
    """Makes `workdir` and writes config.json, or checks that it holds a run of this very config.

    Returns:
        `workdir` as a Path.

    Raises:
        UserError: `workdir` cannot be written, holds a run of a different config (the message names
            the differing keys, old -> new), or holds files of a run without its config.json.
    """
    workdir, config = Path(workdir), plain(config)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--workdir={workdir}: cannot be made: {error.strerror}") from error
    if not os.access(workdir, os.W_OK | os.X_OK):
        raise UserError(f"--workdir={workdir}: cannot be written: no permission")
    old = read_config(workdir)
    if old is None:
        strays = [name for name in _RUN_FILES if (workdir / name).exists()]
        if strays:
            raise UserError(
                f"--workdir={workdir} holds {', '.join(strays)} but no config.json: choose an empty or new directory"
            )
        write_json(workdir / "config.json", config)
    elif differences := _differences(old, config):
        raise UserError(
            f"--workdir={workdir} holds a run of a different config "
            f"({'; '.join(differences)}): choose another --workdir or the old values"
        )
    elif old != config:
        write_json(workdir / "config.json", config)
    return workdir


def read_config(workdir) -> dict | None:
    """The plain config that a run in `workdir` was started with; None where there is none.

    Raises:
        UserError: config.json is there but cannot be read.
    """
    path = Path(workdir) / "config.json"
    if not path.exists():
        return None
    try:
        return read_json(path, {})
    except UserError as error:
        raise UserError(f"{error}: choose another --workdir") from error


def _differences(old: dict, new: dict, shown: int = 8) -> list[str]:
    """The differing keys of two plain configs, but for _WHERE, as 'a.b: old -> new', at most `shown` of them."""
    old, new = flat(old), flat(new)
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key, ...) != new.get(key, ...))
    keys = [key for key in keys if key not in _WHERE]

    def show(values, key):
        shown = json.dumps(values[key]) if key in values else "(absent)"
        return shown if len(shown) <= 80 else shown[:80] + "..."

    lines = [f"{key[:80]}: {show(old, key)} -> {show(new, key)}" for key in keys[:shown]]
    return lines + ([f"and {len(keys) - shown} more"] if len(keys) > shown else [])


def flat(config: dict, prefix: str = "") -> dict:
    """Nested dicts as one with dotted keys; an empty dict stays a leaf so that it is compared."""
    leaves = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            leaves.update(flat(value, f"{prefix}{key}."))
        else:
            leaves[prefix + key] = value
    return leaves


def log_test_score(workdir, row: Mapping) -> None:
    """Appends to test_log.jsonl: who looks at the test split more than once has selected on it.

    Raises:
        UserError: the file cannot be written.
    """
    path = Path(workdir) / "test_log.jsonl"
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(plain({"time": now, **row}), allow_nan=False) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


# --------------------------------------------------------------------------------------- progress


class MetricsLog:
    """Appends rows to metrics.jsonl and TensorBoard, and shows how far the run is.

    On a terminal that is a tqdm bar with time left and the latest scalars; otherwise one plain
    line per row. Both go to `stream`, standard output by default, and name the scalars in `shown`.

    Steps count from 0: the row of step s is written when s + 1 steps have been made. A run that
    continues gives the number it has made as `start_step`: rows of that step and later ones, and a
    last line torn by a crash, are dropped first, so that metrics.jsonl ends as if the run had
    never stopped. Write a step's row before its checkpoint, or a crash between the two loses it.
    """

    def __init__(
        self,
        workdir,
        total_steps: int,
        start_step: int = 0,
        stream=None,
        shown: tuple[str, ...] = ("loss", "perplexity", "valid_perplexity", "tokens_per_s"),
    ):
        self._path = Path(workdir) / "metrics.jsonl"
        self._stream = sys.stdout if stream is None else stream
        self._total, self._start, self._done = total_steps, start_step, start_step
        self._shown = shown
        _keep_rows(self._path, start_step)
        self._events_path = Path(workdir) / "tensorboard"
        with _writing(self._events_path):
            self._events = Events(self._events_path, start_step)
        with _writing(self._path):
            self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115 (closed in close)
        self._bar = self._make_bar()
        self._began = time.monotonic()

    def _make_bar(self):
        if not self._stream.isatty():
            return None
        from tqdm import tqdm

        return tqdm(
            total=self._total,
            initial=self._start,
            unit="step",
            file=self._stream,
            dynamic_ncols=True,
            # A short bar and no rate: room for the metric on 80 columns.
            bar_format="{percentage:3.0f}%|{bar:10}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
        )

    def write(self, row: Mapping) -> None:
        """Records one report: `row` holds 'step' and whatever JSON can hold; numbers are plotted.

        Raises:
            UserError: metrics.jsonl or TensorBoard's file cannot be written.
        """
        row = plain(row)
        scalars = {key: v for key, v in row.items() if isinstance(v, int | float) and key != "step"}
        with _writing(self._path):
            self._file.write(json.dumps(row, allow_nan=False) + "\n")
            self._file.flush()
        with _writing(self._events_path):
            self._events.write(row["step"], scalars)
        self.advance(row["step"] + 1)
        text = "  ".join(f"{key} {_short(scalars[key])}" for key in self._shown if key in scalars)
        if self._bar is not None:
            self._bar.set_postfix_str(text)
        else:
            line = f"step {row['step']} of {self._total}  {text}  {self._left()}"
            print(line.rstrip(), file=self._stream, flush=True)

    def advance(self, done: int) -> None:
        """Moves the bar: `done` steps have been made."""
        if self._bar is not None and done > self._done:
            self._bar.update(done - self._done)
        self._done = max(self._done, done)

    def say(self, text: str) -> None:
        """Prints `text` without tearing the bar."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Flushes and closes everything; safe to call twice. Raises UserError where something is left to write and
        cannot be."""
        if self._bar is not None:
            self._bar.close()
        try:
            with _writing(self._path):
                self._file.close()
        finally:
            with _writing(self._events_path):
                self._events.close()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    def _left(self) -> str:
        """Time left, from this process's own steps."""
        done = self._done - self._start
        if done <= 0 or self._done >= self._total:
            return ""
        seconds = (time.monotonic() - self._began) / done * (self._total - self._done)
        return f"({h_mm_ss(seconds)} left)"


def _short(value: int | float) -> str:
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1e4 else f"{value:.0f}"


@contextlib.contextmanager
def _writing(path: Path):
    """Turns an OSError into a UserError that names `path`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def _keep_rows(path: Path, start_step: int) -> None:
    """Drops the rows of `start_step` and later ones and a torn last line."""
    try:
        old = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    kept = b"".join(line for line in old.splitlines(True) if _is_before(line, start_step))
    if kept != old:
        write_bytes(path, kept)


def _is_before(line: bytes, start_step: int) -> bool:
    try:
        return line.endswith(b"\n") and parse(line)["step"] < start_step
    except (ValueError, KeyError, TypeError, IndexError):
        return False
