"""What the numbers of a run come from: written into each of its checkpoints, and compared when one is read.

A config.json can be replaced, a checkpoint copied beside another one, and the code change while a run trains. A
checkpoint therefore says itself which run it is of.
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

# The part of a checkpoint's record: a form of lm/runs/schema.py. Checkpoints of earlier versions do not have it.
FORM = {"run?": str, "numerics?": int, "vocabulary?": str, "git?": (None, {"revision": str, "dirty": bool})}


class Origin(NamedTuple):
    """run: `run_of` the config; numerics: lm/runs/provenance.py; vocabulary: its digest;
    git: the revision when the run began"""

    run: str
    numerics: int
    vocabulary: str
    git: dict | None


def run_of(config) -> str:
    """16 hexadecimal digits of those config keys that decide what is trained and are not at their defaults."""
    defaults, values = flat(plain(base())), flat(plain(config))
    decides = {
        key: value
        for key, value in values.items()
        if not is_free(key, (*FREE, "evaluation.")) and key not in LENGTH and value != defaults.get(key, ...)
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def origin_of(config, vocabulary: str, git: dict | None) -> Origin:
    """The origin of a run that begins now. vocabulary: its digest; git: lm/runs/provenance.py: `revision`"""
    return Origin(run_of(config), NUMERICS, vocabulary, git)


def check_origin(saved: dict, config, vocabulary: Collection[str], where: str) -> None:
    """Raises UserError if the checkpoint with the record `saved` is of another config, vocabulary or version.

    vocabulary: the digests of the one that is at hand
    """
    if saved.get("numerics", NUMERICS) != NUMERICS:
        raise UserError(
            f"{where} has numbers of version {saved['numerics']} of the code; this is version {NUMERICS} "
            "(lm/runs/provenance.py): use the code that trained it, or train again in a new directory"
        )
    if saved.get("run", run_of(config)) != run_of(config):
        raise UserError(
            f"{where} is of another config than config.json beside it: one of the two was copied here from another run"
        )
    if "vocabulary" in saved and saved["vocabulary"] not in vocabulary:
        raise UserError(f"{where} has another vocabulary than vocabulary.json beside it, which was changed or replaced")


def check_summary(summary: dict, config, where: str) -> None:
    """Raises UserError if the content of a summary.json is of another run than the config beside it."""
    if run_of(summary["provenance"]["config"]) != run_of(config):
        raise UserError(
            f"{where} is of another config than config.json beside it: one of the two was copied here from another run"
        )
