"""The ledger: every reported number against ours.

A record is what a finished run leaves for others to check: its summary and its training curve, one JSON file under
experiments/results/. A row of the ledger is one target of one config, with the values that the records of all seeds
give for it, and a verdict that follows from these numbers alone.
"""

import json
import math
import statistics
from pathlib import Path
from typing import NamedTuple

RESULTS = Path(__file__).resolve().parent / "results"

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


class Row(NamedTuple):
    """One target of one config and what the records say of it; values has one number per seed."""

    name: str  # of the config
    target_name: str
    target: dict
    values: tuple[float, ...]
    corpus: str

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def verdict(self) -> str:
        """not run; worse: the mean is above reported + tolerance; better: clearly under it; else reproduced."""
        if not self.values:
            return "not run"
        if self.mean > self.target["value"] + self.target["tolerance"]:
            return "worse"
        return "better" if self.mean < (1 - CLEARLY) * self.target["value"] else "reproduced"


def make_record(workdir: str) -> dict:
    """The record of the finished run in workdir: its summary plus the training curve by column."""
    summary = json.loads(Path(workdir, "summary.json").read_text(encoding="utf-8"))
    lines = Path(workdir, "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    curve = {key: [_rounded(row.get(key)) for row in rows] for key in CURVE if any(key in row for row in rows)}
    return summary | {"curve": curve}


def _rounded(value):
    """Six significant digits are more than two seeds ever agree on."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def record_path(record: dict) -> Path:
    """text8/lstm_fused, seed 0 on text8_prefix -> results/text8_lstm_fused.text8_prefix.seed0.json"""
    name = record["name"].replace("/", "_").replace(":", "_")
    return RESULTS / f"{name}.{record['corpus']}.seed{record['seed']}.json"


def load_records(directory: Path = RESULTS) -> list[dict]:
    """All committed records, in order of their file names."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(directory.glob("*.seed*.json"))]


def measured(target: dict, record: dict) -> float | None:
    """The value of a target's metric in a record; None where the run did not measure it."""
    if target["at"] in ("final", "best"):
        if target["protocol"] == "train":
            return _final_training_value(target["metric"], record)
        for row in record["results"]:
            if (row["split"], row["protocol"], row["which"]) == (target["split"], target["protocol"], target["at"]):
                return row["nats"] / row["targets"] if target["metric"] == "loss" else row[target["metric"]]
        return None
    column = f"valid_{target['metric']}" if target["split"] == "valid" else target["metric"]
    return _curve_value(record["curve"], column, target["at"])


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


def ledger(records: list[dict], configs: list) -> list[Row]:
    """One row for each target of each config, and for each corpus its records are from ("" where none is)."""
    rows = []
    for config in configs:
        own = [record for record in records if record["name"] == config.name]
        for corpus in sorted({record["corpus"] for record in own}) or [""]:
            for target_name, target in config.targets.to_dict().items():
                values = [measured(target, record) for record in own if record["corpus"] == corpus]
                values = tuple(value for value in values if value is not None)
                rows.append(Row(config.name, target_name, target, values, corpus))
    return rows
