"""The directory of a run: its config, and the scores of the test split taken in it.

config.json     the resolved config; a run of another config is refused there
vocabulary.json the symbols in the order of their ids, so that the run needs no training text to be used
test_log.jsonl  one line for every score of the test split, ever
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

# Any of these without a config.json means that the directory belongs to something else.
_RUN_FILES = (
    *("metrics.jsonl", "summary.json", "checkpoints"),
    *("samples.txt", "test_log.jsonl", "evaluation.json", "curves.png", "report.html"),
)
VOCABULARY = "vocabulary.json"
# Everything that a run writes in its directory, with what it is.
_FILES = (
    *("config.json", VOCABULARY, "metrics.jsonl", "summary.json", "samples.txt", "test_log.jsonl", "evaluation.json"),
    *("curves.png", "report.html"),
)
_DIRECTORIES = (
    *("checkpoints", "checkpoints/last", "checkpoints/best"),
    *("tensorboard", "tensorboard/train", "tensorboard/valid", "export"),
)

# Keys that decide none of a run's numbers, or only what is reported of them: a run may resume with other values. Files
# are known by their checksums. A name that ends with a dot is a group.
FREE = (
    *("name", "source", "parameters", "targets.", "claim.", "sample.", "checkpoint."),
    *("data.path", "data.valid_path", "data.test_path", "init_from", "model.embedding_from"),
    *("train.devices", "train.threads", "train.report_every", "train.sample_every"),
    *("evaluation.protocols", "evaluation.splits"),
)
LENGTH = ("train.steps", "train.epochs")  # a run may train longer


def prepare_workdir(workdir: str | Path, config, vocabulary=None) -> Path:
    """Makes `workdir` and writes config.json, or checks that it holds a run of this config. Returns `workdir`.

    A run that is to train longer stays as it is until `lengthen`, since its data may turn out to be other data.
    vocabulary: a dataclass, written to vocabulary.json; None writes none
    Raises UserError if `workdir` cannot be written, holds a run of another config (the message names the differing
    keys, old -> new), or holds files of a run without its config.json.
    """
    check_path(workdir)
    workdir, config = make_directory(workdir), plain(config)
    if not os.access(workdir, os.W_OK | os.X_OK):
        raise UserError(f"directory {workdir} cannot be written: no permission")
    check_no_links(workdir)
    old = read_config(workdir)
    if old is None:
        strays = [name for name in _RUN_FILES if (workdir / name).exists()]
        if strays:
            raise UserError(
                f"directory {workdir} holds {', '.join(strays)} but no config.json: choose an empty or new directory"
            )
    longer = _check_same_run(workdir, old, config) if old is not None else ""
    if vocabulary is not None:
        _keep_vocabulary(workdir / VOCABULARY, plain(vocabulary.record))
    if old != config and not longer:
        write_json(workdir / "config.json", config)
    return workdir


def lengthen(workdir: str | Path, config):
    """Writes the config of a run that is to train longer than before, if it is one, and sets its scores aside as
    summary_of_N_steps.json or summary_of_N_epochs.json."""
    workdir, config = Path(workdir), plain(config)
    old, summary = read_config(workdir), Path(workdir, "summary.json")
    longer = _check_same_run(workdir, old, config) if old is not None else ""
    if longer and summary.exists():
        os.replace(summary, workdir / f"summary_of_{longer}.json")
    if longer:
        write_json(workdir / "config.json", config)


def check_path(workdir: str | Path):
    """Raises UserError for a path under which tensorstore writes checkpoints that it cannot read again."""
    path = str(Path(workdir).resolve())
    if "\\" in path or not path.isprintable():
        raise UserError(f"directory {path!r}: checkpoints need a path of printable UTF-8 without a backslash")


def check_no_links(workdir: str | Path):
    """Raises UserError if a run's file or directory in `workdir` is a link, a pipe or a device.

    Through a link a run would write, cut or delete what is not its own; opening a pipe would block.
    """
    for names, is_kind, kind in ((_FILES, stat.S_ISREG, "file"), (_DIRECTORIES, stat.S_ISDIR, "directory")):
        for name in names:
            path = Path(workdir) / name
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                if not is_kind(path.lstat().st_mode):
                    raise UserError(f"{path} is no plain {kind}: remove it, or choose another directory")


def _check_same_run(workdir: Path, old: dict, new: dict) -> str:
    """Raises UserError unless a run of config `old` may continue with config `new`. Returns the old length, such as
    2_epochs, if the new one is greater, else ""."""
    rolls_back = new.get("on_nan") == "rollback"  # to a checkpoint, so it matters when there is one
    changed = differences(old, new, FREE, but=("checkpoint.every_steps", "checkpoint.keep") if rolls_back else ())
    before, after = flat(old), flat(new)
    longer = [key for key in changed if key in LENGTH and _grows(before.get(key), after.get(key))]
    decays = after.get("optim.schedule") == "cosine"
    if longer and decays and list(changed) == longer:
        raise UserError(
            f"directory {workdir} holds a run of a different config ({shown(changed)}): config.optim.schedule=cosine "
            f"depends on the length of training; --config.init_from={workdir} starts a new run from its weights"
        )
    if list(changed) != longer:
        raise UserError(
            f"directory {workdir} holds a run of a different config ({shown(changed)}): "
            "choose another directory or the old values"
        )
    return f"{before[longer[0]]}_{longer[0].partition('.')[2]}" if longer else ""


def _grows(old: object, new: object) -> bool:
    """Whether a count has become larger. A damaged config.json may hold anything."""
    return type(old) is int and type(new) is int and 0 < old < new


def _keep_vocabulary(path: Path, vocabulary: dict):
    """Writes the vocabulary of a new run. Raises UserError if the run has another one."""
    if not path.exists():
        write_json(path, vocabulary)
    elif read_json(path) != vocabulary:
        raise UserError(f"{path}: the run was trained with another vocabulary than that of the corpus as it is now")


def read_config(workdir: str | Path) -> dict | None:
    """The plain config of the run in `workdir`; None if there is no config.json.

    Raises UserError if config.json cannot be read.
    """
    path = Path(workdir) / "config.json"
    if not path.exists():
        return None
    try:
        return read_json(path, {})
    except UserError as error:
        raise UserError(f"{error}: choose another directory") from error


def differences(old, new, free: tuple[str, ...], but: tuple[str, ...] = ()) -> dict[str, str]:
    """{key: "old -> new"} of the keys that differ between two configs, except those that are free.

    free: names of keys, or of groups, which end with a dot; but: keys of such groups that are not free
    A key that a config lacks has its default: it may be newer than the run.
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
    """The differences in one line, at most `most` of them."""
    lines = [f"{key[:80]}: {change}" for key, change in list(changed.items())[:most]]
    return "; ".join(lines + ([f"and {len(changed) - most} more"] if len(changed) > most else []))


def log_test_score(workdir: str | Path, row: Mapping) -> None:
    """Appends to test_log.jsonl: whoever scores the test split more than once may have selected on it.

    Raises UserError if the file cannot be written.
    """
    path = Path(workdir) / "test_log.jsonl"
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with writing(path):
        if path.exists():
            os.truncate(path, len(whole_lines(path.read_bytes())))  # a crash may have torn the last line
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(plain({"time": now, **row}), allow_nan=False) + "\n")
