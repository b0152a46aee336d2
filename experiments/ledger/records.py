"""The ledger: every reported number against ours.

A record is what a finished run leaves for others to check: its summary and its training curve, one JSON file. A row of
the ledger is one target of one config, with the values that the records of all seeds give for it, and a verdict that
follows from these numbers alone.
"""

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from experiments.ledger.claims import default_config
from experiments.ledger.runs import title_of
from lm.errors import UserError
from lm.runs.metrics import make_directory, plain, write_bytes
from lm.runs.provenance import identity
from lm.runs.schema import NUMBER, POSITIVE, read_json, read_rows
from lm.scoring.uncertainty import Seeds, summarize_seeds

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
RECORDS = "records"  # the folder of a ledger's records, in its directory

# Columns of metrics.jsonl that a record keeps.
CURVE = (
    "step",
    "epoch",
    "loss",
    "perplexity",
    "epoch_perplexity",
    "lowest_running_perplexity",
    "valid_loss",
    "valid_perplexity",
    "learning_rate",
)

# A value this much under the reported one is no longer the same number: it is better.
CLEARLY = 0.05


# What is relied on of a summary, a row of metrics.jsonl, and a record: forms of lm/runs/schema.py.
SCORE = {
    "split": str, "protocol": str, "which": str, "step": int, "nats": NUMBER, "targets": POSITIVE,
    "perplexity": (NUMBER, None), "bits_per_symbol": NUMBER,
}  # fmt: skip
SUMMARY = {
    "name": str,
    "corpus": str,
    "seed": int,
    "parameters": int,
    "results": [SCORE],
    "train": {
        "steps": int,
        "final_mean_loss": (NUMBER, None),
        "wall_time_s": NUMBER,
        "tokens_per_s": NUMBER,
        str: (NUMBER, None),
    },
    "samples?": [str],
    "provenance": {
        "identity": str,
        "numerics": int,
        "config": {"name": str, "seed": int},
        "data": {"checksum?": str, "tokens?": {str: int}},
        "versions": {str: str},
        "device": {"platform": str, "kind": str, "cpu": str},
        "git": (None, {"revision": str, "dirty": bool}),
    },
}
METRICS_ROW = {"step": int, str: (NUMBER, None, str)}
RECORD = SUMMARY | {"test_scores": int, "curve": {"step": [int], "epoch": [NUMBER], str: [(NUMBER, None)]}}


class Row(NamedTuple):
    """One target of one config and what the records say of it; values has one number per seed."""

    name: str  # of the config
    target_name: str
    target: dict
    values: tuple[float, ...]
    corpus: str
    scored: int = 0  # targets of the text that each value is a mean over; 0 for what the training log gives

    @property
    def seeds(self) -> Seeds:
        return summarize_seeds(self.values)

    @property
    def verdict(self) -> str:
        """What the values say of the reported one, to which the target's tolerance is added.

        not run             there is no value
        worse               all of the 95% interval over seeds lies above; of a single seed: the value does
        not distinguishable the mean lies above, but the interval reaches down to the reported value
        better              all of the interval, or the single value, is more than 5% under it
        reproduced          everything else: the mean is at most the reported value, and not clearly under it
        """
        if not self.values:
            return "not run"
        most, clearly = self.target["value"] + self.target["tolerance"], (1 - CLEARLY) * self.target["value"]
        mean, single = self.seeds.mean, len(self.values) == 1
        if mean > most:
            return "worse" if single or self.seeds.low > most else "not distinguishable"
        return "better" if (mean if single else self.seeds.high) < clearly else "reproduced"


# ---------------------------------------------------------------------------------------- records


def make_record(workdir) -> dict:
    """The record of the finished run in workdir: its summary, the training curve by column, looks at the test split.

    Raises UserError where the run there is not finished.
    """
    workdir = Path(workdir)
    for name in ("summary.json", "metrics.jsonl"):
        if not (workdir / name).is_file():
            raise UserError(f"--workdir={workdir} holds no {name}: the run there is not finished")
    summary = read_json(workdir / "summary.json", SUMMARY)
    rows = read_rows(workdir / "metrics.jsonl", METRICS_ROW)
    curve = {key: [_rounded(row.get(key)) for row in rows] for key in CURVE if any(key in row for row in rows)}
    log = workdir / "test_log.jsonl"
    scores = len(read_rows(log)) if log.is_file() else 0
    return summary | {"test_scores": scores, "curve": curve}


def _rounded(value):
    """Six significant digits are more than two seeds ever agree on."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def record_name(record: dict) -> str:
    """The title of its run; its file's name without .json."""
    return title_of(record["name"], record["corpus"], record["seed"])


def record_bytes(record: dict) -> bytes:
    """A record as its file holds it: JSON, a key a line."""
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in record.items()]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def write_record(record: dict, directory: Path) -> Path:
    """Writes directory/NAME.json and returns its path. Raises UserError where it cannot."""
    path = make_directory(directory) / f"{record_name(record)}.json"
    write_bytes(path, record_bytes(record))
    return path


def load_records(directory: Path = RESULTS / RECORDS) -> list[dict]:
    """All records of a directory, in order of their file names. Raises UserError where one is damaged."""
    return [read_json(path, RECORD) for path in sorted(directory.glob("*.json"))]


def digests(directory: Path) -> dict[str, str]:
    """{file name: SHA-256} of a directory's records."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.glob("*.json"))}


def identity_of(record: dict) -> str:
    """The identity that a config of today must have to be this record's run.

    A key that did not exist then is taken at its default: what the code did before there was the key.
    """
    return _identity(record, config_today(record))


def config_today(record: dict) -> dict:
    """The record's config with all keys of today."""
    return _completed(plain(default_config()), record["provenance"]["config"])


def identity_then(record: dict) -> str:
    """The identity that follows from a record's config as it stands there: what the record itself must say."""
    return _identity(record, record["provenance"]["config"])


def _identity(record: dict, config: dict) -> str:
    source = record["provenance"]
    return identity(config, source["data"].get("checksum", ""), source["numerics"])


def _completed(default: dict, given: dict) -> dict:
    """`given` with the keys of `default` that it lacks; groups, too. Targets are as given."""
    merged = default | given
    groups = [k for k in default if isinstance(default[k], dict) and isinstance(given.get(k), dict) and k != "targets"]
    return merged | {key: _completed(default[key], given[key]) for key in groups}


# ----------------------------------------------------------------------------------------- values


def measured(target: dict, record: dict) -> float | None:
    """The value of a target's metric in a record; None where the run did not measure it."""
    if target["at"] in ("final", "best"):
        if target["protocol"] == "train":
            return _final_training_value(target["metric"], record)
        row = _scored(target, record)
        if row is None:
            return None
        return row["nats"] / row["targets"] if target["metric"] == "loss" else row[target["metric"]]
    column = f"valid_{target['metric']}" if target["split"] == "valid" else target["metric"]
    return _curve_value(record["curve"], column, target["at"])


def _scored(target: dict, record: dict) -> dict | None:
    """The record's score that a target asks for; None where there is none."""
    for row in record["results"]:
        if (row["split"], row["protocol"], row["which"]) == (target["split"], target["protocol"], target["at"]):
            return row
    return None


def _final_training_value(metric: str, record: dict) -> float | None:
    if metric == "loss":
        return record["train"]["final_mean_loss"]
    if metric == "perplexity":
        return _last(record["curve"].get("epoch_perplexity", []))
    return record["train"].get(metric)


def _last(values: list) -> float | None:
    present = [value for value in values if value is not None]
    return present[-1] if present else None


def _curve_value(curve: dict, column: str, at: str) -> float | None:
    """The value of a column at "epoch 5" (the end of the fifth) or "step 100" (after step 100, counted from 0)."""
    unit, number = at.split()
    for place, value in zip(curve[unit], curve.get(column, []), strict=False):
        if value is not None and math.isclose(place, float(number), abs_tol=1e-6):
            return value
    return None


def ledger(records: list[dict], configs: list, missing: Mapping[str, Collection[str]] | None = None) -> list[Row]:
    """One row for each target of each config, and for each corpus its records are from ("" where none is).

    missing: {config: corpora on which runs of it are missing}, which have rows too
    """
    rows = []
    for config in configs:
        own = [record for record in records if record["name"] == config.name]
        corpora = {record["corpus"] for record in own}.union((missing or {}).get(config.name, ()))
        for corpus in sorted(corpora) or [""]:
            here = [record for record in own if record["corpus"] == corpus]
            for target_name, target in config.targets.to_dict().items():
                values = [measured(target, record) for record in here]
                values = tuple(value for value in values if value is not None)
                scored = [row["targets"] for record in here if (row := _scored(target, record))]
                rows.append(Row(config.name, target_name, target, values, corpus, scored[0] if scored else 0))
    return rows
