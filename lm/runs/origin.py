"""Records in each checkpoint which run wrote it, and checks this record when the checkpoint is read.

A config.json can be replaced, a checkpoint can be copied from another run, and the code can change while a run trains.
So each checkpoint identifies its own run.
"""

import hashlib
import json
from collections.abc import Collection
from typing import NamedTuple

from configs.base import base
from lm.errors import UserError
from lm.runs.plain import flat, plain
from lm.runs.provenance import NUMERICS
from lm.runs.workdir import FREE, LENGTH, is_free

# Form (lm/runs/schema.py) of the origin in a checkpoint's record. Checkpoints of earlier versions lack these keys.
FORM = {"run?": str, "numerics?": int, "vocabulary?": str, "git?": (None, {"revision": str, "dirty": bool})}


class Origin(NamedTuple):
    """run: `run_of` the config; vocabulary: its digest; numerics, git: NUMERICS and `revision` of lm/runs/provenance.py
    when the run began"""

    run: str
    numerics: int
    vocabulary: str
    git: dict | None


def run_of(config) -> str:
    """Hashes the config keys that affect training and are not at their defaults, to 16 hexadecimal digits."""
    defaults, values = flat(plain(base())), flat(plain(config))
    decides = {
        key: value
        for key, value in values.items()
        if not is_free(key, (*FREE, "evaluation.")) and key not in LENGTH and value != defaults.get(key, ...)
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def check_origin(saved: dict, config, vocabulary: Collection[str], where: str) -> None:
    """Raises UserError if a checkpoint belongs to another config, vocabulary or version of the numerics.

    saved: the checkpoint's record; vocabulary: the accepted digests
    """
    if saved.get("numerics", NUMERICS) != NUMERICS:
        raise UserError(
            f"{where} was made by version {saved['numerics']} of the numerics; this code has version {NUMERICS} "
            "(lm/runs/provenance.py): use the code that trained it, or train again in a new directory"
        )
    if saved.get("run", run_of(config)) != run_of(config):
        raise UserError(
            f"{where} does not match config.json beside it: one of the two was copied here from another run"
        )
    if "vocabulary" in saved and saved["vocabulary"] not in vocabulary:
        raise UserError(f"{where} has another vocabulary than vocabulary.json beside it, which was changed or replaced")


def check_summary(summary: dict, config, where: str) -> None:
    """Raises UserError if the content of a summary.json belongs to another run than the config beside it."""
    check_origin({"run": run_of(summary["provenance"]["config"])}, config, (), where)
