"""The directory of a run: its config, and the scores of the test split taken in it.

config.json     the resolved config; a run of another config is refused there
test_log.jsonl  one line for every score of the test split, ever
"""

import datetime
import json
import os
from collections.abc import Mapping
from pathlib import Path

from lm.errors import UserError
from lm.runs.files import make_directory, write_json, writing
from lm.runs.plain import flat, plain
from lm.runs.schema import read_json

# Any of these without a config.json means that the directory belongs to something else.
_RUN_FILES = ("metrics.jsonl", "summary.json", "checkpoints")
# Keys that say where a run is computed, not what: a run may resume with other values of them.
_WHERE = ("train.devices", "train.threads")


def prepare_workdir(workdir: str | Path, config) -> Path:
    """Makes `workdir` and writes config.json, or checks that it holds a run of this config. Returns `workdir`.

    Raises UserError if `workdir` cannot be written, holds a run of another config (the message names the differing
    keys, old -> new), or holds files of a run without its config.json.
    """
    workdir, config = make_directory(workdir), plain(config)
    if not os.access(workdir, os.W_OK | os.X_OK):
        raise UserError(f"directory {workdir} cannot be written: no permission")
    old = read_config(workdir)
    if old is None:
        strays = [name for name in _RUN_FILES if (workdir / name).exists()]
        if strays:
            raise UserError(
                f"directory {workdir} holds {', '.join(strays)} but no config.json: choose an empty or new directory"
            )
    elif differences := _differences(old, config):
        raise UserError(
            f"directory {workdir} holds a run of a different config ({'; '.join(differences)}): "
            "choose another directory or the old values"
        )
    if old != config:
        write_json(workdir / "config.json", config)
    return workdir


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


def _differences(old: dict, new: dict, shown: int = 8) -> list[str]:
    """The differing keys of two plain configs except _WHERE, as 'a.b: old -> new', at most `shown` of them."""
    old, new = flat(old), flat(new)
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key, ...) != new.get(key, ...))
    keys = [key for key in keys if key not in _WHERE]

    def show(values, key):
        shown = json.dumps(values[key]) if key in values else "(absent)"
        return shown if len(shown) <= 80 else shown[:80] + "..."

    lines = [f"{key[:80]}: {show(old, key)} -> {show(new, key)}" for key in keys[:shown]]
    return lines + ([f"and {len(keys) - shown} more"] if len(keys) > shown else [])


def log_test_score(workdir: str | Path, row: Mapping) -> None:
    """Appends to test_log.jsonl: whoever scores the test split more than once may have selected on it.

    Raises UserError if the file cannot be written.
    """
    path = Path(workdir) / "test_log.jsonl"
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with writing(path), open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(plain({"time": now, **row}), allow_nan=False) + "\n")
