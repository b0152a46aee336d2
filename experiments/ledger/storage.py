"""A ledger on disk: written from the records in its directory, and compared with them by `reproduce --check`.

DIRECTORY/records/TITLE.json        one per run: experiments/ledger/records.py
DIRECTORY/superseded/TITLE.ID.json  records whose config, data or version of the numerics is outdated
DIRECTORY/ledger.json               one row per reported number: experiments/ledger/contents.py
DIRECTORY/report.md, report.html    experiments/ledger/report.py
"""

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from experiments.ledger import report
from experiments.ledger.claims import Claim
from experiments.ledger.contents import derive
from experiments.ledger.records import RECORDS, identity_today, load_records, mismatches, record_title, repeated
from lm.errors import UserError
from lm.runs.files import make_directory, write_bytes, write_json
from lm.runs.schema import read_json

SUPERSEDED = "superseded"
# The structure required of ledger.json, in the notation of lm/runs/schema.py.
LEDGER = {
    "numerics": int,
    "rows": [{"config": str, "target": str, "corpus": str, "verdict": str}],
    "other_scores": [{}],
    "commands": {str: str},
    "not_run": {str: str},
}
# The bytes of a picture depend on the version of matplotlib: reports are compared without pictures.
_PICTURE = re.compile(rb'src="data:image/svg\+xml;base64,[^"]*"')


def renew(directory: Path, claims: Sequence[Claim], reasons: Mapping[str, str] | None = None) -> dict:
    """Writes ledger.json and the reports from the records in directory; returns the content of ledger.json.

    reasons: {title of a run: why it has no record}, added to the reasons in the ledger of directory
    """
    known = stored_reasons(directory) | set_aside(directory, claims) | dict(reasons or {})
    records = load_records(directory / RECORDS)
    for line in repeated(records):
        print(f"warning: {line}: their interval over seeds is too narrow", file=sys.stderr)
    content = derive(records, claims, known)
    write_json(directory / "ledger.json", content)  # first: a page that cannot be drawn costs no verdict
    for name, page in report.render_both(content, records).items():
        write_bytes(directory / name, page)
    return content


def stored_reasons(directory: Path) -> dict[str, str]:
    """{title: why a run has no record} from the ledger in directory; empty without a ledger."""
    path = directory / "ledger.json"
    return read_json(path, {"not_run": {str: str}})["not_run"] if path.exists() else {}


def set_aside(directory: Path, claims: Sequence[Claim]) -> dict[str, str]:
    """Moves outdated records to superseded/ and returns {title: reason}."""
    reasons = {}
    for record in load_records(directory / RECORDS):
        if wrong := mismatches(record, claims):
            title, why = record_title(record), "; ".join(wrong)
            target = make_directory(directory / SUPERSEDED) / f"{title}.{identity_today(record)}.json"
            os.replace(directory / RECORDS / f"{title}.json", target)
            reasons[title] = f"the record is of another run: {why}"
            print(f"moved {title}.json to {SUPERSEDED}/: {why}")
    return reasons


def check(directory: Path, claims: Sequence[Claim], more: Callable[[dict, Sequence[Claim]], list[str]] | None = None):
    """Derives the ledger in directory and its reports again from the records and today's configs, and compares them.

    Returns the content of ledger.json. Raises UserError that names the differences.
    more: maps the derived content of ledger.json and the claims to further faults
    """
    path = directory / "ledger.json"
    stored, records = read_json(path, LEDGER), load_records(directory / RECORDS)
    wrong = [f"{record_title(record)[:80]}.json: {why}" for record in records for why in mismatches(record, claims)]
    wrong += repeated(records)
    try:
        derived = derive(records, claims, stored["not_run"])
    except ArithmeticError as error:  # numbers whose sum or square is too large for a float
        raise UserError(f"--check: the records in {directory} are invalid: {error}") from error
    wrong += differences(stored, derived)
    for name, page in report.render_both(derived, records, draw=lambda *_: b"").items():
        found = (directory / name).read_bytes() if (directory / name).is_file() else b""
        if _PICTURE.sub(b"", found) != _PICTURE.sub(b"", page):
            wrong.append(f"{name} differs from the one rendered from the records")
    wrong += more(derived, claims) if more else []
    if wrong:
        raise UserError(f"--check of {directory} found {len(wrong)} differences: {'; '.join(wrong[:8])}")
    print(f"{path}: every verdict follows from {len(records)} records. {report.summary_line(stored['rows'])}")
    return stored


def differences(stored: dict, derived: dict) -> list[str]:
    """One line for each value of ledger.json that is missing, surplus or different from the derived one."""
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
    """{readable place in ledger.json: value}"""
    places = {key: content[key] for key in ("numerics", "other_scores")}
    parts = {part: content[part] for part in ("not_run", "commands")}
    parts |= {f"{row['config']}/{row['target']} on {row['corpus']}": row for row in content["rows"]}
    for part, values in parts.items():
        places |= {f"{part}: {key}": value for key, value in values.items()}
    return places
