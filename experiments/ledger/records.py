"""Records: what a finished run leaves for others to check, its summary and its training curve in one JSON file."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from configs.rules import check_values
from experiments.ledger.claims import Claim, planned_run, suits, title_of
from lm.errors import UserError
from lm.runs.files import make_directory, write_bytes
from lm.runs.origin import check_summary
from lm.runs.provenance import NUMERICS, decisive, identity
from lm.runs.saved_config import restore
from lm.runs.schema import NUMBER, POSITIVE, read_json, read_rows
from lm.runs.workdir import read_config
from lm.scoring.measures import MEASURES
from lm.scoring.score import perplexity

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
RECORDS = "records"  # the folder of a ledger's records, in its directory

# Columns of metrics.jsonl that a record keeps.
CURVE = (
    "step",
    "epoch",
    "loss",
    "perplexity",
    "epoch_loss",
    "epoch_perplexity",
    "lowest_running_perplexity",
    "valid_loss",
    "valid_perplexity",
    *(f"valid_{name}" for name in MEASURES),
    "learning_rate",
)

# The structure required of a summary, of a row of metrics.jsonl and of a record: forms of lm/runs/schema.py.
SCORE = {
    "split": str,
    "protocol": str,
    "which": str,
    "step": int,
    "nats": NUMBER,
    "targets": POSITIVE,
    "perplexity": (NUMBER, None),
    "bits_per_symbol": NUMBER,
    str: NUMBER,  # measures of labels, such as accuracy
}
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
    "confusion?": {
        "labels": [str],
        "scores": [{"which": str, "split": str, "counts": [[int]]}],
    },
    "examples?": [{"source": [str], "written": [str], "target": str, "attention?": [[NUMBER]]}],
    "provenance": {
        "identity": str,
        "numerics": int,
        "config": {"name": str, "seed": int},
        "data": {"checksum?": str, "tokens?": {str: int}, "sources?": [{}]},
        "versions": {"jax": str, str: str},
        "device": {"platform": str, "kind": str, "cpu": str},
        "git": (None, {"revision": str, "dirty": bool}),
    },
}
METRICS_ROW = {"step": int, str: (NUMBER, None, str)}
RECORD = SUMMARY | {"test_scores": int, "curve": {"step": [int], "epoch": [NUMBER], str: [(NUMBER, None)]}}


def make_record(workdir: str | Path) -> dict:
    """The record of the finished run in workdir: summary, training curve by column, number of scores of the test split.

    Raises UserError if the run is not finished, and if its summary is of another.
    """
    summary, metrics, log = (Path(workdir, name) for name in ("summary.json", "metrics.jsonl", "test_log.jsonl"))
    if not summary.is_file():
        raise UserError(f"--workdir={workdir} holds no summary.json: the run there is not finished")
    if not metrics.is_file():
        raise UserError(f"--workdir={workdir} holds no metrics.jsonl: the run there is finished, and its curve is lost")
    rows = read_rows(metrics, METRICS_ROW)
    curve = {key: [_rounded(row.get(key)) for row in rows] for key in CURVE if any(key in row for row in rows)}
    test_scores = len(read_rows(log)) if log.is_file() else 0
    content = read_json(summary, SUMMARY)
    if config := read_config(workdir):
        restored = restore(config, Path(workdir, "config.json"))
        check_values(restored)
        check_summary(content, restored, str(summary))
    for row in content["results"]:
        check_score(row, str(summary))
    return content | {"test_scores": test_scores, "curve": curve}


def check_score(row: dict, where: str) -> None:
    """Raises UserError unless the perplexity of a result follows from its nats, and its measures are possible."""
    stated, found = row["perplexity"], perplexity(row["nats"] / row["targets"]) if row["nats"] >= 0 else math.nan
    if not math.isclose(math.inf if stated is None else stated, found, rel_tol=1e-6):
        raise UserError(
            f"{where} was changed: {row['nats']:g} nats over {row['targets']} targets ({row['split']}) are no "
            f"perplexity of {stated}"
        )
    for name in row.keys() - SCORE.keys():
        most = MEASURES[name].highest if name in MEASURES else 1
        if not 0 <= row[name] <= most * (1 + 1e-9):
            raise UserError(f"{where} was changed: {name} {row[name]:g} ({row['split']}) is not between 0 and {most}")


def _rounded(value):
    """Six significant digits: more than two seeds ever agree on."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def record_title(record: dict) -> str:
    """The title of its run, which is also its file's name without .json."""
    return title_of(record["name"], record["corpus"], record["seed"])


def write_record(record: dict, directory: Path) -> Path:
    """Writes directory/TITLE.json, one key per line, and returns its path."""
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in record.items()]
    path = make_directory(directory) / f"{record_title(record)}.json"
    write_bytes(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())
    return path


def load_records(directory: Path = RESULTS / RECORDS) -> list[dict]:
    """All records of a directory, sorted by file name. Raises UserError if one is damaged or has another's name."""
    records = []
    for path in sorted(directory.glob("*.json")):
        records.append(read_json(path, RECORD))
        if path.stem != record_title(records[-1]):
            raise UserError(f"{path}: its file should be named {record_title(records[-1])[:200]}.json")
    return records


# --- Against today's configs ----------------------------------------------------------------------------------------


def identity_today(record: dict) -> str:
    """The identity that today's code gives to the record's run."""
    source = record["provenance"]
    return identity(config_today(record), source["data"].get("checksum", ""), source["numerics"])


def config_today(record: dict) -> dict:
    """The dotted keys of the record's config that decide numbers.

    A key that did not exist when the run was made has its default: what the code did before it had the key.
    """
    return decisive(restore({}, "")) | decisive(record["provenance"]["config"])


def mismatches(record: dict, claims: Sequence[Claim]) -> list[str]:
    """Why the record is not a run that a claim asks for today: another config, other data, other numerics."""
    claim = next((claim for claim in claims if claim.config.name == record["name"]), None)
    if claim is None:
        return [f"no config with targets is named {record['name'][:80]!r}"]
    if not suits(claim, record["corpus"]):
        return [f"{claim.path} cannot be run on corpus {record['corpus'][:80]!r}"]
    planned = planned_run(claim, record["seed"], record["corpus"])
    if identity_today(record) == planned.identity:
        stated = claim.config.parameters
        differs = f"it has {record['parameters']:,} parameters, and config.parameters states {stated:,}"
        return [differs] if stated not in (0, record["parameters"]) else []
    recorded, today = config_today(record), decisive(planned.config)
    wrong = [
        f"{key} is {_shown(recorded.get(key))} in the record and {_shown(today.get(key))} in {claim.path}"
        for key in sorted(recorded.keys() | today.keys())
        if recorded.get(key) != today.get(key)
    ]
    if record["provenance"]["numerics"] != NUMERICS:
        wrong.append(f"its version of the numerics is {record['provenance']['numerics']}, today's is {NUMERICS}")
    return wrong[:4] or ["its data has another checksum than the corpus has today"]


def repeated(records: Sequence[dict]) -> list[str]:
    """One line for each record that has the numbers of another seed: it is a copy, or the seed does nothing."""
    titles: dict[str, str] = {}
    wrong = []
    for record in records:
        numbers = {"curve": record["curve"], "nats": [score["nats"] for score in record["results"]]}
        key, title = json.dumps([record["name"], record["corpus"], numbers]), record_title(record)
        if key in titles:
            wrong.append(f"{title}.json has the very numbers of {titles[key]}.json")
        titles.setdefault(key, title)
    return wrong


def _shown(value) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def replacements(old: Sequence[dict], new: Sequence[dict]) -> list[str]:
    """One line for each record of `new` that replaces another one of `old`: what changes, before -> after."""
    before, lines = {record_title(record): record for record in old}, []
    for record in new:
        title = record_title(record)
        if title in before and before[title] != record:
            was, now = _replaced_values(before[title]), _replaced_values(record)
            pairs = {key: (was.get(key, "none"), now.get(key, "none")) for key in was | now}
            changed = [f"{key} {a} -> {b}" for key, (a, b) in pairs.items() if a != b]
            lines.append(f"replaced {title}.json: {', '.join(changed) or 'the same scores, revision and identity'}")
    return lines


def _replaced_values(record: dict) -> dict[str, str]:
    """The scores, by a measure of labels or else the perplexity, the revision and the identity of a record."""
    scores = {}
    for row in record["results"]:
        metric = next((name for name in MEASURES if name in row), "perplexity")
        scores[f"{row['which']} {row['split']} {metric} ({row['protocol']})"] = _shown(row[metric])
    source = record["provenance"]
    revision = source["git"]["revision"][:12] if source["git"] else "unknown"
    return scores | {"revision": revision, "identity": source["identity"]}
