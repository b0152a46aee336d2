"""Records: the summary and the training curve of a finished run in one JSON file, for others to check."""

import json
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

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
RECORDS = "records"  # the subfolder of a ledger's directory that holds its records

# Columns of metrics.jsonl that a record keeps.
CURVE = ("step", "epoch", "loss", "perplexity", "epoch_loss", "epoch_perplexity", "lowest_running_perplexity")
CURVE += ("valid_loss", "valid_perplexity", *(f"valid_{name}" for name in MEASURES), "learning_rate")

# What a summary, a row of metrics.jsonl and a record must contain, in the notation of lm/runs/schema.py.
SCORE: dict = {"split": str, "protocol": str, "which": str, "step": int, "targets": POSITIVE}
SCORE |= {"nats": NUMBER, "perplexity": (NUMBER, None), "bits_per_symbol": NUMBER}
SCORE |= {str: NUMBER}  # measures of labels, such as accuracy
TRAIN: dict = {"steps": int, "final_mean_loss": (NUMBER, None), "wall_time_s": NUMBER, "tokens_per_s": NUMBER}
TRAIN |= {str: (NUMBER, None)}
SUMMARY: dict = {"name": str, "corpus": str, "seed": int, "parameters": int, "results": [SCORE], "train": TRAIN}
SUMMARY |= {
    "samples?": [str],
    "confusion?": {"labels": [str], "scores": [{"which": str, "split": str, "counts": [[int]]}]},
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
    """Makes the record of the finished run in workdir: summary, training curve by column, number of test scores. Raises
    UserError if the run is not finished, and if its summary is invalid or belongs to another run."""
    summary, metrics, log = (Path(workdir, name) for name in ("summary.json", "metrics.jsonl", "test_log.jsonl"))
    if not summary.is_file():
        raise UserError(f"--workdir={workdir} holds no summary.json: the run is not finished")
    if not metrics.is_file():
        raise UserError(f"--workdir={workdir} holds no metrics.jsonl: the run is finished, but its curve is lost")
    rows = read_rows(metrics, METRICS_ROW)
    curve = {key: [row.get(key) for row in rows] for key in CURVE if any(key in row for row in rows)}
    test_scores = len(read_rows(log)) if log.is_file() else 0
    content = read_json(summary, SUMMARY)
    if config := read_config(workdir):
        restored = restore(config, Path(workdir, "config.json"))
        check_values(restored)
        check_summary(content, restored, str(summary))
    # Six digits are enough to tell any two seeds apart.
    return content | {"test_scores": test_scores, "curve": round_floats(curve, 6)}


def round_floats(value, digits: int):
    """Rounds all floats in JSON to this many significant digits."""
    return json.loads(json.dumps(value), parse_float=lambda number: float(f"{float(number):.{digits}g}"))


def record_title(record: dict) -> str:
    """The title of the record's run: the record's file name without .json."""
    return title_of(record["name"], record["corpus"], record["seed"])


def write_record(record: dict, directory: Path) -> Path:
    """Writes directory/TITLE.json, one key per line, and returns its path."""
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in record.items()]
    path = make_directory(directory) / f"{record_title(record)}.json"
    write_bytes(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())
    return path


def load_records(directory: Path = RESULTS / RECORDS) -> list[dict]:
    """All records of a directory, sorted by file name. Raises UserError if a record is damaged or misnamed."""
    records = []
    for path in sorted(directory.glob("*.json")):
        records.append(read_json(path, RECORD))
        if path.stem != record_title(records[-1]):
            raise UserError(f"{path}: the file should be named {record_title(records[-1])[:200]}.json")
    return records


# --- Against today's configs ----------------------------------------------------------------------------------------


def identity_today(record: dict) -> str:
    """The identity that today's code gives to the record's run."""
    source = record["provenance"]
    return identity(config_today(record), source["data"].get("checksum", ""), source["numerics"])


def config_today(record: dict) -> dict:
    """{dotted key: value} of the record's config, for the keys that affect results. A key that is newer than the run
    gets its default, which is what the code did before the key existed."""
    return decisive(restore({}, "")) | decisive(record["provenance"]["config"])


def mismatches(record: dict, claims: Sequence[Claim]) -> list[str]:
    """Up to four differences between the record's run and the run that its config asks for today."""
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
    return wrong[:4] or ["the checksum of its data differs from that of the corpus today"]


def repeated(records: Sequence[dict]) -> list[str]:
    """One line for each record whose numbers equal those of another seed: it is a copy, or the seed has no effect."""
    titles: dict[str, str] = {}
    wrong = []
    for record in records:
        numbers = {"curve": record["curve"], "nats": [score["nats"] for score in record["results"]]}
        key, title = json.dumps([record["name"], record["corpus"], numbers]), record_title(record)
        if (first := titles.setdefault(key, title)) != title:
            wrong.append(f"{title}.json has the same numbers as {first}.json")
    return wrong


def _shown(value) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def replacements(old: Sequence[dict], new: Sequence[dict]) -> list[str]:
    """One line for each record of `new` that changes a record of `old`, with the changes as before -> after."""
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
    """Scores (a measure of labels, or else perplexity), revision and identity of a record."""
    scores = {}
    for row in record["results"]:
        metric = next((name for name in MEASURES if name in row), "perplexity")
        scores[f"{row['which']} {row['split']} {metric} ({row['protocol']})"] = _shown(row[metric])
    source = record["provenance"]
    revision = source["git"]["revision"][:12] if source["git"] else "unknown"
    return scores | {"revision": revision, "identity": source["identity"]}
