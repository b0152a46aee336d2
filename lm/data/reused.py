"""Whether a run that starts from another one is scored on text that the other one was trained on."""

from lm.data import corpora
from lm.data.labelled import DRAWN_BY
from lm.data.own_files import read_own
from lm.errors import UserError


def trained_on(ours, theirs, checksum: str) -> str:
    """How validation or test text of a run with config.data `ours` became training text of one with `theirs`.

    checksum: of the corpus that the run with `theirs` was trained on. "" if nothing is reused, and if its files are
    not known: they have changed or are gone, and this run has others.
    """
    try:
        here, there = _digests(ours), _digests(theirs)
        if theirs.corpus in corpora.OWN and checksum != corpora.checksum(theirs):
            raise UserError("its files have changed")
    except UserError:
        if not checksum or ours.corpus != theirs.corpus or checksum != corpora.checksum(ours):
            return ""
        there = here = _digests(ours)  # the same files under other paths
    trained = set(there.get("train", ()))
    for split in ("valid", "test"):
        if trained & set(here.get(split, ())):
            key = f"{split}_path"
            return f"config.data.{key}={ours[key]}" if ours[key] else f"the {split} text of config.data.corpus"
    division = division_keys(ours)
    if not division or not trained & set(here.get("train", ())):
        return ""
    if division != division_keys(theirs) or here["train"] != there["train"]:
        return "it divided the training files in another way, or read all of them"
    keys = _changed(division, ours, theirs)
    return "; ".join(f"config.data.{key} is {theirs[key]} there, {ours[key]} here" for key in keys)


def _digests(data) -> dict[str, list[str]]:
    """Split -> SHA-256 of its files; whatever is not of valid or test counts as train. Empty for a generated text."""
    if data.corpus == "addition":
        return {"train": ["addition"]}  # all sums there are, divided by config.data.seed
    if data.corpus in corpora.OWN:
        paths = {"train": "path", "valid": "valid_path", "test": "test_path"}
        return {
            split: [file.sha256 for file in read_own(data[key], f"config.data.{key}")]
            for split, key in paths.items()
            if data[key] or split == "train"
        }
    found: dict[str, list[str]] = {}
    for key, file in corpora.CORPORA[data.corpus].files.items():
        split = key.partition("_")[0]  # valid_de is of valid
        found.setdefault(split if split in ("valid", "test") else "train", []).append(file.sha256)
    return found


def division_keys(data) -> tuple[str, ...]:
    """The keys of config.data that decide which training text is held out for validation; none if there is a file."""
    has_file = data["valid_path"] or (data["corpus"] == "textfile" and data["test_path"])
    return () if has_file else corpora.CORPORA[data["corpus"]].divides


def _changed(division: tuple[str, ...], ours, theirs) -> list[str]:
    """The keys of config.data by which training text of `theirs` is scored with `ours`."""
    if division == ("fractions",):  # train comes first
        return ["fractions"] if ours.fractions[0] < theirs.fractions[0] - 1e-9 else []
    if division == ("valid_chars",):  # valid comes first
        return ["valid_chars"] if ours.valid_chars > theirs.valid_chars else []
    if division == ("seed",):
        return ["seed"] if ours.seed != theirs.seed else []
    if not ours.valid_share:
        return []
    changed = [key for key in DRAWN_BY if ours[key] != theirs[key]]
    # Of one seed, a smaller share is part of a larger one.
    return [] if changed == ["valid_share"] and ours.valid_share < theirs.valid_share else changed
