"""A ledger on disk: written from the records in its directory, and compared with them by `reproduce --check`.

DIRECTORY/records/TITLE.json        one per run: experiments/ledger/records.py
DIRECTORY/superseded/TITLE.ID.json  records of another config, data or version of the numerics than today's
DIRECTORY/ledger.json               one row per reported number: experiments/ledger/contents.py
DIRECTORY/report.md, report.html    experiments/ledger/report.py
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.ledger import report
from experiments.ledger.claims import Claim
from experiments.ledger.contents import derive
from experiments.ledger.planned_runs import missing_titles, run_titled
from experiments.ledger.records import RECORD, RECORDS, load_records, mismatches, record_title
from lm.errors import UserError
from lm.runs.metrics import make_directory, write_bytes, write_json
from lm.runs.schema import read_json

SUPERSEDED = "superseded"
FILES = ("ledger.json", "report.md", "report.html")
# The structure required of ledger.json: a form of lm/runs/schema.py.
LEDGER = {
    "numerics": int,
    "rows": [{"config": str, "target": str, "corpus": str, "verdict": str}],
    "other_scores": [{}],
    "commands": {str: str},
    "not_run": {str: str},
}
# Bytes of a picture depend on the version of matplotlib: reports are compared without them.
_PICTURE = re.compile(r'src="data:image/svg\+xml;base64,[^"]*"')
# What records of the right structure with impossible values raise somewhere.
_UNSOUND = (ValueError, LookupError, TypeError, ArithmeticError, AttributeError)


# ---------------------------------------------------------------------------------------- writing


def renew(directory: Path, claims: Sequence[Claim], reasons: Mapping[str, str] | None = None) -> dict:
    """Writes ledger.json and the reports from the records in directory; returns what ledger.json holds.

    reasons: {title of a run: why it has no record}, added to those that the ledger in directory already gives
    """
    not_run = stored_reasons(directory) | set_aside(directory, claims) | dict(reasons or {})
    present = {record_title(record) for record in load_records(directory / RECORDS)}
    not_run = {title: why for title, why in not_run.items() if title not in present and run_titled(title, claims)}
    for title in missing_titles(present | not_run.keys(), claims):
        not_run[title] = "not asked for"
    return write_ledger(directory, claims, not_run)


def write_ledger(directory: Path, claims: Sequence[Claim], not_run: Mapping[str, str]) -> dict:
    """Writes ledger.json and the reports from the records and reasons as they are; returns what ledger.json holds."""
    records = load_records(directory / RECORDS)
    content = derive(records, claims_with_runs(claims, records, not_run), not_run)
    write_bytes(directory / "report.md", report.render_markdown(content, records).encode())
    write_bytes(directory / "report.html", report.render_html(content, records).encode())
    write_json(directory / "ledger.json", content)
    return content


def stored_reasons(directory: Path) -> dict[str, str]:
    """{title: why a run has no record} by the ledger in directory; empty without a ledger."""
    path = directory / "ledger.json"
    return read_json(path, {"not_run": {str: str}})["not_run"] if path.exists() else {}


def set_aside(directory: Path, claims: Sequence[Claim]) -> dict[str, str]:
    """Moves outdated records to superseded/ and returns {title: reason}."""
    reasons = {}
    for path in sorted((directory / RECORDS).glob("*.json")):
        record = read_json(path, RECORD)
        wrong = mismatches(record, claims)
        if path.stem != record_title(record):
            wrong = [f"its file should be named {record_title(record)}.json"]
        if wrong:
            identity = re.sub(r"\W", "_", record["provenance"]["identity"])[:40]
            os.replace(path, make_directory(directory / SUPERSEDED) / f"{path.stem}.{identity}.json")
            reasons[path.stem] = f"the record is of another run: {'; '.join(wrong)}"
            print(f"moved {path.name} to {SUPERSEDED}/: {'; '.join(wrong)}")
    return reasons


def claims_with_runs(claims: Sequence[Claim], records: Sequence[dict], not_run: Mapping[str, str]) -> list[Claim]:
    """The claims that have records, or reasons why they have none."""
    names = {record["name"] for record in records}
    names |= {run.config.name for title in not_run if (run := run_titled(title, claims))}
    return [claim for claim in claims if claim.config.name in names]


# --------------------------------------------------------------------------------------- checking


def check(directory: Path, claims: Sequence[Claim]) -> dict:
    """Derives the ledger in directory and its reports again from the records and today's configs, and compares.

    Returns what ledger.json holds. Raises UserError that names the differences.
    """
    path = directory / "ledger.json"
    try:
        stored = read_json(path, LEDGER)
        records = load_records(directory / RECORDS)
        wrong = wrong_records(directory, records, claims) + wrong_reasons(stored["not_run"], records, claims)
        derived = derive(records, claims_with_runs(claims, records, stored["not_run"]), stored["not_run"])
        wrong += differing_rows(stored["rows"], derived["rows"])
        parts = ("numerics", "other_scores", "commands")
        wrong += [f"ledger.json: {key} differ from those derived" for key in parts if stored[key] != derived[key]]
        wrong += stale_reports(directory, derived, records)
    except OSError as error:
        raise UserError(f"--check: cannot read {error.filename}: {error.strerror}") from error
    except _UNSOUND as error:
        raise UserError(f"--check: the ledger in {directory} is invalid ({type(error).__name__}: {error})") from error
    if wrong:
        raise UserError(f"--check of {directory} found {len(wrong)} differences: {'; '.join(wrong[:8])}")
    print(f"{path}: every verdict follows from {len(records)} records. {report.summary_line(stored['rows'])}")
    return stored


def wrong_records(directory: Path, records: Sequence[dict], claims: Sequence[Claim]) -> list[str]:
    """Records of runs that no claim asks for, or in a file with another name."""
    wrong = []
    for path, record in zip(sorted((directory / RECORDS).glob("*.json")), records, strict=True):
        if path.stem != record_title(record):
            wrong.append(f"{path.name[:80]} should be named {record_title(record)}.json")
        wrong += [f"{path.name[:80]}: {why}" for why in mismatches(record, claims)]
    return wrong


def wrong_reasons(not_run: Mapping[str, str], records: Sequence[dict], claims: Sequence[Claim]) -> list[str]:
    """Reasons for runs that are on record or that no claim asks for, and missing runs without a reason."""
    present = {record_title(record) for record in records}
    wrong = [f"ledger.json: not_run: {title[:80]} is on record" for title in not_run if title in present]
    wrong += [
        f"ledger.json: not_run: {title[:80]} is a run of no config"
        for title in not_run
        if not run_titled(title, claims)
    ]
    missing = missing_titles(present | not_run.keys(), claims)
    return wrong + [f"{title} has neither a record nor a reason in not_run" for title in missing]


def differing_rows(stored: Sequence[dict], derived: Sequence[dict]) -> list[str]:
    """Rows that differ from those derived, with the first key that differs."""
    ours, expected = ({(r["config"], r["target"], r["corpus"]): r for r in rows} for rows in (stored, derived))
    wrong = []
    for key in sorted(ours.keys() | expected.keys()):
        a, b = ours.get(key), expected.get(key)
        if a is None or b is None:
            wrong.append(f"ledger.json: {'/'.join(key)[:80]} is {'missing' if a is None else 'claimed by no config'}")
        elif a != b:
            name = next(name for name in sorted(a | b) if a.get(name) != b.get(name))
            wrong.append(f"{key[0]}/{key[1]}: {name} is {str(a.get(name))[:80]} and should be {b.get(name)}")
    return wrong


def stale_reports(directory: Path, derived: dict, records: Sequence[dict]) -> list[str]:
    """Reports that differ from those rendered again; pictures are not compared."""
    expected = {
        "report.md": report.render_markdown(derived, records),
        "report.html": report.render_html(derived, records, draw=lambda *_: b""),
    }
    stored = {name: (directory / name).read_bytes().decode() for name in expected}
    return [
        f"{name} differs from the one rendered from the records"
        for name, text in expected.items()
        if _PICTURE.sub("", stored[name]) != _PICTURE.sub("", text)
    ]
