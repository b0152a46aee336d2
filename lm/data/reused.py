"""Detects whether a run that starts from an earlier run is scored on text that the earlier run was trained on."""

import contextlib

from lm.data import corpora
from lm.data.labelled import DRAWN_BY
from lm.data.own_corpora import own_files
from lm.errors import UserError


def trained_on(ours, theirs, checksum: str) -> str:
    """Says which validation or test text of this run the earlier run was trained on; "" if none is known.

    ours, theirs: config.data of this and of the earlier run; checksum: of the earlier run's corpus, at training time
    Nothing is known if the earlier run's files have changed or are gone, and this run's have another checksum.
    """
    here, there = _digests(ours), None
    with contextlib.suppress(UserError):  # files that are gone
        if theirs.corpus not in corpora.OWN or checksum == corpora.checksum(theirs):
            there = _digests(theirs)
    if there is None:
        if not checksum or ours.corpus != theirs.corpus or checksum != corpora.checksum(ours):
            return ""
        there = here  # the same files under other paths
    trained = set(there.get("train", ()))
    for split in ("valid", "test"):
        if trained & set(here.get(split, ())):
            key = f"{split}_path"
            return f"config.data.{key}={ours[key]}" if ours[key] else f"the {split} text of config.data.corpus"
    division = division_keys(ours)
    if not division or not trained & set(here.get("train", ())):
        return ""
    if division != division_keys(theirs) or here["train"] != there["train"]:
        return "that run divided the training files differently, or trained on all of them"
    keys = _changed(division, ours, theirs)
    return "; ".join(f"config.data.{key} is {theirs[key]} there, {ours[key]} here" for key in keys)


def _digests(data) -> dict[str, list[str]]:
    """Split -> SHA-256 of each of its files, for archives with the member. Files of no split count as train.

    Empty for generated texts, except addition.
    """
    if data.corpus == "addition":
        return {"train": ["addition"]}  # all possible sums, divided by config.data.seed
    if data.corpus in corpora.OWN:
        return {split: [file.sha256 for file in files] for split, files in own_files(data).items()}
    found: dict[str, list[str]] = {}
    for key, file in corpora.CORPORA[data.corpus].files.items():
        split = key.partition("_")[0]  # valid_de belongs to valid
        text = f"{file.sha256} {file.member or ''}"
        found.setdefault(split if split in ("valid", "test") else "train", []).append(text)
    return found


def division_keys(data) -> tuple[str, ...]:
    """Keys of config.data that control how validation text is split off train; () if it has its own file."""
    has_file = data["valid_path"] or (data["corpus"] == "textfile" and data["test_path"])
    return () if has_file else corpora.CORPORA[data["corpus"]].divides


def _changed(division: tuple[str, ...], ours, theirs) -> list[str]:
    """Keys of config.data whose change makes `ours` hold out text that `theirs` trained on."""
    if division == ("fractions",):  # train comes first
        return ["fractions"] if ours.fractions[0] < theirs.fractions[0] - 1e-9 else []
    if division == ("valid_chars",):  # valid comes first
        return ["valid_chars"] if ours.valid_chars > theirs.valid_chars else []
    if division in (("seed",), ("corpus",)):
        return [key for key in division if ours[key] != theirs[key]]
    if not ours.valid_share:
        return []
    changed = [key for key in DRAWN_BY if ours[key] != theirs[key]]
    # With the same seed, a smaller share holds out a subset of what a larger one holds out.
    return [] if changed == ["valid_share"] and ours.valid_share < theirs.valid_share else changed
