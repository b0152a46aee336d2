"""Prepares a run's directory and logs every test score in it.

config.json     the resolved config; a run with another config is rejected
vocabulary.json the symbols in the order of their ids, so that the run can be used without its training text
test_log.jsonl  one line for every test score ever computed
"""

import contextlib
import datetime
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from configs.base import base
from lm.errors import UserError
from lm.runs.files import make_directory, write_json, writing
from lm.runs.plain import flat, plain
from lm.runs.schema import read_json, whole_lines

VOCABULARY = "vocabulary.json"
# All files and directories of a run, which must not be links, pipes or devices.
_DIRECTORIES = (
    *("checkpoints", "checkpoints/last", "checkpoints/best"),
    *("tensorboard", "tensorboard/train", "tensorboard/valid", "export"),
)
_FILES = (
    *("config.json", VOCABULARY, "metrics.jsonl", "summary.json", "samples.txt", "test_log.jsonl", "evaluation.json"),
    *("curves.png", "report.html"),
)
_WRITTEN_LATER = ("checkpoints", *_FILES[2:])  # a directory with one of these and no config.json is not a valid run

# Keys that may change when a run resumes: they do not affect results, or only which results are reported. The files
# named by path keys are checked by checksum. A name that ends with a dot is a group of keys.
FREE = (
    *("name", "source", "parameters", "targets.", "claim.", "sample.", "checkpoint."),
    *("data.path", "data.valid_path", "data.test_path", "init_from", "model.embedding_from"),
    *("train.devices", "train.threads", "train.report_every", "train.sample_every"),
    *("evaluation.protocols", "evaluation.splits"),
)
LENGTH = ("train.steps", "train.epochs")  # a run may train longer
OVER_THE_RUN = ("cosine",)  # values of config.optim.schedule whose rates depend on the length of the run


def prepare_workdir(workdir: str | Path, config, vocabulary=None) -> Path:
    """Creates `workdir` and writes config.json, or checks that it holds a run of this config. Returns `workdir`.

    The config.json of an existing run stays unchanged: call `accept_config` once its data and checkpoint are checked.
    vocabulary: lm.data.text.Vocabulary, written to vocabulary.json; None writes no file
    Raises UserError if `workdir` cannot be written, holds a run of another config (the message names the differing
    keys, old -> new), or holds files of a run without config.json.
    """
    absolute = str(Path(workdir).resolve())
    if "\\" in absolute or not absolute.isprintable():  # tensorstore cannot read checkpoints back from it
        raise UserError(f"directory {absolute!r}: checkpoints need a path of printable UTF-8 without a backslash")
    workdir, config = make_directory(workdir), plain(config)
    if not os.access(workdir, os.W_OK | os.X_OK):
        raise UserError(f"directory {workdir} cannot be written: no permission")
    check_no_links(workdir)
    old = read_config(workdir)
    if old is not None:
        _check_same_run(workdir, old, config)
    elif strays := [name for name in _WRITTEN_LATER if (workdir / name).exists()]:
        raise UserError(
            f"directory {workdir} holds {', '.join(strays)} but no config.json: choose an empty or new directory"
        )
    if vocabulary is not None:
        path, record = workdir / VOCABULARY, plain(vocabulary.record)
        if not path.exists():
            write_json(path, record)
        elif read_json(path) != record:
            raise UserError(f"{path}: the run was trained with another vocabulary than the corpus now has")
    if old is None:
        write_json(workdir / "config.json", config)
    return workdir


def accept_config(workdir: str | Path, config):
    """Replaces the content of config.json by the config of a run that resumes. If it trains the run longer, renames
    summary.json to summary_of_N_steps.json or summary_of_N_epochs.json."""
    workdir, config = Path(workdir), plain(config)
    old, summary = read_config(workdir), Path(workdir, "summary.json")
    longer = _check_same_run(workdir, old, config) if old is not None else ""
    if longer and summary.exists():
        os.replace(summary, workdir / f"summary_of_{longer}.json")
    if old != config:
        write_json(workdir / "config.json", config)


def check_no_links(workdir: str | Path):
    """Raises UserError if a run's file or directory in `workdir` is a link, a pipe or a device.

    Through a link, the run would write, truncate or delete files of others; opening a pipe would block.
    """
    for names, is_kind, kind in ((_FILES, stat.S_ISREG, "file"), (_DIRECTORIES, stat.S_ISDIR, "directory")):
        for name in names:
            path = Path(workdir) / name
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                if not is_kind(path.lstat().st_mode):
                    raise UserError(f"{path} is not a plain {kind}: remove it, or choose another directory")


def _check_same_run(workdir: Path, old: dict, new: dict) -> str:
    """Raises UserError unless a run of config `old` may resume with config `new`. If `new` trains longer, returns the
    old length, such as "2_epochs"; else ""."""
    rolls_back = new.get("on_nan") == "rollback"  # then the checkpoint interval affects results
    changed = differences(old, new, FREE, but=("checkpoint.every_steps", "checkpoint.keep") if rolls_back else ())
    before, after = flat(old), flat(new)
    is_longer = all(  # a damaged config.json may hold values of any type
        key in LENGTH and type(before.get(key)) is int and 0 < before[key] < after[key] for key in changed
    )
    schedule = after.get("optim.schedule")
    if not is_longer or (changed and schedule in OVER_THE_RUN):
        remedy = "choose another directory or the old values"
        if is_longer:
            remedy = (
                f"config.optim.schedule={schedule} depends on the length of training; "
                f"--config.init_from={workdir} starts a new run from its weights"
            )
        raise UserError(f"directory {workdir} holds a run of a different config ({shown(changed)}): {remedy}")
    return "".join(f"{before[key]}_{key.partition('.')[2]}" for key in changed)


def read_config(workdir: str | Path) -> dict | None:
    """Reads the plain config of the run in `workdir`; None without config.json. Raises UserError if it is damaged."""
    path = Path(workdir) / "config.json"
    return read_json(path, {}) if path.exists() else None


def differences(old, new, free: tuple[str, ...], but: tuple[str, ...] = ()) -> dict[str, str]:
    """Returns {key: "old -> new"} for the keys that differ between two configs, except free keys.

    free: names of keys, or of groups, which end with a dot; but: keys in these groups that are not free
    A missing key counts as its default, because it may be newer than the run.
    """
    old, new = (flat(plain(base())) | flat(plain(values)) for values in (old, new))
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key, ...) != new.get(key, ...))

    def show(values: dict, key: str) -> str:
        text = json.dumps(values[key]) if key in values else "(absent)"
        return text if len(text) <= 80 else text[:80] + "..."

    return {key: f"{show(old, key)} -> {show(new, key)}" for key in keys if key in but or not is_free(key, free)}


def is_free(key: str, free: tuple[str, ...]) -> bool:
    """Whether a dotted key, or its group, is among `free`."""
    return any(key == name or (name[-1] == "." and f"{key}.".startswith(name)) for name in free)


def shown(changed: dict[str, str], most: int = 8) -> str:
    """Formats at most `most` differences in one line."""
    lines = [f"{key[:80]}: {change}" for key, change in list(changed.items())[:most]]
    return "; ".join(lines + ([f"and {len(changed) - most} more"] if len(changed) > most else []))


def log_test_score(workdir: str | Path, row: Mapping) -> None:
    """Appends a test score to test_log.jsonl. Several scores there suggest that the model was selected on the test
    split. Raises UserError if the file cannot be written."""
    path = Path(workdir) / "test_log.jsonl"
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with writing(path):
        if path.exists():
            os.truncate(path, len(whole_lines(path.read_bytes())))  # a crash may have truncated the last line
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(plain({"time": now, **row}), allow_nan=False) + "\n")
