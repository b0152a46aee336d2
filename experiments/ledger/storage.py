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
from lm.runs.files import make_directory, write_bytes, write_json
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
    known = stored_reasons(directory) | set_aside(directory, claims) | dict(reasons or {})
    records = load_records(directory / RECORDS)
    content = derive_all(records, claims, known)
    write_bytes(directory / "report.md", report.render_markdown(content, records).encode())
    write_bytes(directory / "report.html", report.render_html(content, records).encode())
    write_json(directory / "ledger.json", content)
    return content


def derive_all(records: Sequence[dict], claims: Sequence[Claim], reasons: Mapping[str, str]) -> dict:
    """The ledger of the records, with every missing run of the claims that have records or reasons.

    reasons: {title: why there is no record}; those of runs on record, or that no claim asks for, are left out
    """
    present = {record_title(record) for record in records}
    not_run = {title: why for title, why in reasons.items() if title not in present and run_titled(title, claims)}
    not_run |= dict.fromkeys(missing_titles(present | not_run.keys(), claims), "not asked for")
    names = {record["name"] for record in records}
    names |= {run.config.name for title in not_run if (run := run_titled(title, claims))}
    return derive(records, [claim for claim in claims if claim.config.name in names], not_run)


def stored_reasons(directory: Path) -> dict[str, str]:
    """{title: why a run has no record} by the ledger in directory; empty without a ledger."""
    path = directory / "ledger.json"
    return read_json(path, {"not_run": {str: str}})["not_run"] if path.exists() else {}


def set_aside(directory: Path, claims: Sequence[Claim]) -> dict[str, str]:
    """Moves outdated records to superseded/ and returns {title: reason}."""
    reasons = {}
    for path in sorted((directory / RECORDS).glob("*.json")):
        record = read_json(path, RECORD)
        if wrong := wrong_record(path, record, claims):
            identity = re.sub(r"\W", "_", record["provenance"]["identity"])[:40]
            os.replace(path, make_directory(directory / SUPERSEDED) / f"{path.stem}.{identity}.json")
            reasons[path.stem] = f"the record is of another run: {'; '.join(wrong)}"
            print(f"moved {path.name} to {SUPERSEDED}/: {'; '.join(wrong)}")
    return reasons


def wrong_record(path: Path, record: dict, claims: Sequence[Claim]) -> list[str]:
    """Why the record in a file does not count: another file's name, or not a run that a claim asks for today."""
    if path.stem != record_title(record):
        return [f"its file should be named {record_title(record)}.json"]
    return mismatches(record, claims)


# --------------------------------------------------------------------------------------- checking


def check(directory: Path, claims: Sequence[Claim]) -> dict:
    """Derives the ledger in directory and its reports again from the records and today's configs, and compares.

    Returns what ledger.json holds. Raises UserError that names the differences.
    """
    path = directory / "ledger.json"
    try:
        stored = read_json(path, LEDGER)
        records = load_records(directory / RECORDS)
        paths = sorted((directory / RECORDS).glob("*.json"))
        wrong = [
            f"{file.name[:80]}: {why}"
            for file, record in zip(paths, records, strict=True)
            for why in wrong_record(file, record, claims)
        ]
        derived = derive_all(records, claims, stored["not_run"])
        wrong += differences(stored, derived) + stale_reports(directory, derived, records)
    except OSError as error:
        raise UserError(f"--check: cannot read {error.filename}: {error.strerror}") from error
    except _UNSOUND as error:
        raise UserError(f"--check: the ledger in {directory} is invalid ({type(error).__name__}: {error})") from error
    if wrong:
        raise UserError(f"--check of {directory} found {len(wrong)} differences: {'; '.join(wrong[:8])}")
    print(f"{path}: every verdict follows from {len(records)} records. {report.summary_line(stored['rows'])}")
    return stored


def differences(stored: dict, derived: dict) -> list[str]:
    """One line for each value of ledger.json that is missing, surplus or another than the one derived."""
    ours, expected = _by_place(stored), _by_place(derived)
    wrong = []
    for place in sorted(ours.keys() | expected.keys()):
        where = f"ledger.json: {place[:120]}"
        if place not in ours:
            wrong.append(f"{where} is missing")
        elif place not in expected:
            wrong.append(f"{where} should not be there")
        elif ours[place] != expected[place]:
            wrong.append(f"{where} is {str(ours[place])[:80]} and should be {str(expected[place])[:80]}")
    return wrong


def _by_place(content: dict) -> dict[str, object]:
    """{a readable place: value} of what ledger.json holds."""
    places = {"numerics": content["numerics"], "other_scores": content["other_scores"]}
    for row in content["rows"]:
        name = f"{row['config']}/{row['target']} on {row['corpus']}"
        places |= {f"{name}: {key}": value for key, value in row.items()}
    for part in ("not_run", "commands"):
        places |= {f"{part}: {title}": text for title, text in content[part].items()}
    return places


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
