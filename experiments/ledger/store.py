"""A ledger on disk: made anew from the records in its directory, and held against them.

DIRECTORY/records/NAME.json      one of each run: experiments/ledger/records.py
DIRECTORY/superseded/NAME.ID.json  records of runs that today's configs, data or numerics no longer ask for
DIRECTORY/ledger.json            a row for every reported number, and the SHA-256 of every record and picture
DIRECTORY/report.md, report.html
"""

import base64
import hashlib
import os
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.ledger import report
from experiments.ledger.claims import Claim
from experiments.ledger.consistency import UNSOUND, departures, inconsistencies, text_lengths
from experiments.ledger.records import RECORD, RECORDS, digests, load_records, record_name
from experiments.ledger.runs import run_titled, title_of
from lm.errors import UserError
from lm.runs.metrics import make_directory, write_bytes, write_json
from lm.runs.schema import read_json

SUPERSEDED = "superseded"
MOST_SEEDS = 1000
FILES = ("ledger.json", "report.md", "report.html")
# What is relied on of ledger.json: a form of lm/runs/schema.py.
LEDGER = {
    "numerics": int,
    "rows": [{"config": str, "target": str, "corpus": str, "verdict": str}],
    "other_scores": [{}],
    "commands": {str: str},
    "not_run": {str: str},
    "records": {str: str},
    "pictures": {"drawn_by": str, "sha256": {str: str}},
}
_PICTURE = re.compile(r'src="data:image/svg\+xml;base64,([^"]*)"')


# -------------------------------------------------------------------------------------- making it


def renew(directory: Path, claims: Sequence[Claim], reasons: Mapping[str, str] | None = None) -> dict:
    """Writes ledger.json and the reports of all records in directory; returns what ledger.json holds.

    reasons: {title of a run: why it has no record}. Those that the ledger there gives hold where nothing has changed.
    """
    not_run = reasons_there(directory) | set_aside(directory, claims) | dict(reasons or {})
    there = {record_name(record) for record in load_records(directory / RECORDS)}
    not_run = {title: why for title, why in not_run.items() if title not in there and run_titled(title, claims)}
    for title in unexplained(there | not_run.keys(), claims):
        not_run[title] = "it was not asked for"
    return write_ledger(directory, claims, not_run)


def write_ledger(directory: Path, claims: Sequence[Claim], not_run: Mapping[str, str]) -> dict:
    """As `renew`, of the records and reasons as they are."""
    records = load_records(directory / RECORDS)
    content = report.content(records, spoken_of(claims, records, not_run), not_run)
    pictures = report.draw(content, records)
    sums = {name: hashlib.sha256(picture).hexdigest() for name, picture in pictures.items()}
    content |= {"records": digests(directory / RECORDS), "pictures": {"drawn_by": drawn_by(), "sha256": sums}}
    write_bytes(directory / "report.md", report.render_markdown(content, records).encode())
    write_bytes(directory / "report.html", report.render_html(content, records, pictures).encode())
    write_json(directory / "ledger.json", content)
    return content


def reasons_there(directory: Path) -> dict[str, str]:
    """Why runs have no record by the ledger in directory, none where there is no ledger. Raises UserError."""
    path = directory / "ledger.json"
    return read_json(path, {"not_run": {str: str}})["not_run"] if path.exists() else {}


def set_aside(directory: Path, claims: Sequence[Claim]) -> dict[str, str]:
    """Moves the records that are of no run that a claim asks for today out of the way; {title: why}."""
    reasons = {}
    for path in sorted((directory / RECORDS).glob("*.json")):
        record = read_json(path, RECORD)
        wrong = departures(record, claims)
        if path.stem != record_name(record):
            wrong = [f"{record_name(record)}.json is the name of its file"]
        if wrong:
            identity = re.sub(r"\W", "_", record["provenance"]["identity"])[:40]
            os.replace(path, make_directory(directory / SUPERSEDED) / f"{path.stem}.{identity}.json")
            reasons[path.stem] = f"what was on record is another run: {'; '.join(wrong)}"
            print(f"{path.name} goes to {SUPERSEDED}/: {'; '.join(wrong)}")
    return reasons


def spoken_of(claims: Sequence[Claim], records: list[dict], not_run: Mapping[str, str]) -> list[Claim]:
    """The claims that have records, or reasons why they have none."""
    names = {record["name"] for record in records}
    names |= {run.config.name for title in not_run if (run := run_titled(title, claims))}
    return [claim for claim in claims if claim.config.name in names]


def unexplained(titles: set[str], claims: Sequence[Claim]) -> list[str]:
    """Runs that are missing among those of the titles: of each claim and corpus all seeds that the claim asks for,
    and all below the highest, but for the lone seeds of strangers that are beyond MOST_SEEDS."""
    seeds: dict[tuple[str, str], set[int]] = {}
    asked = {claim.config.name: claim.config.claim.seeds for claim in claims}
    for title in titles:
        if run := run_titled(title, claims):
            seeds.setdefault((run.config.name, run.config.data.corpus), set()).add(run.config.seed)
    return [
        title_of(*key, seed)
        for key, found in sorted(seeds.items())
        for seed in range(max(asked[key[0]], min(max(found) + 1, MOST_SEEDS)))
        if seed not in found
    ]


def drawn_by() -> str:
    """What the bytes of a picture depend on beside its numbers."""
    import matplotlib

    return f"matplotlib {matplotlib.__version__} on {platform.machine()}"


# -------------------------------------------------------------------------------------- check


def check(directory: Path, claims: Sequence[Claim]) -> dict:
    """Derives the ledger in directory and its reports again from the records there and today's configs.

    Returns what ledger.json holds. Raises UserError that names what differs.
    """
    path = directory / "ledger.json"
    try:
        stored = read_json(path, LEDGER)
        records = load_records(directory / RECORDS)
        wrong = wrong_records(directory, stored, records, claims)
        named = spoken_of(claims, records, stored["not_run"])
        derived = report.content(records, named, stored["not_run"])
        wrong += differing_rows(stored["rows"], derived["rows"])
        others = ("numerics", "other_scores", "commands")
        wrong += [f"ledger.json: {key} are others than derived" for key in others if stored[key] != derived[key]]
        wrong += wrong_reports(directory, stored, derived, records)
    except OSError as error:
        raise UserError(f"--check: cannot read {error.filename}: {error.strerror}") from error
    except UNSOUND as error:
        raise UserError(f"--check: {directory} holds no sound ledger ({type(error).__name__}: {error})") from error
    if wrong:
        raise UserError(f"--check of {directory} found {len(wrong)} differences: {'; '.join(wrong[:8])}")
    print(f"{path}: every verdict follows from {len(records)} records. {report.summary_line(stored['rows'])}")
    return stored


def wrong_records(directory: Path, stored: dict, records: list[dict], claims: Sequence[Claim]) -> list[str]:
    """Records that are missing, of no run that is claimed, in the wrong file, or at odds with themselves or others."""
    sums = digests(directory / RECORDS)
    wrong = [
        f"{RECORDS}/{name} is not the file that was recorded"
        for name in sorted(stored["records"].keys() | sums.keys())
        if stored["records"].get(name) != sums.get(name)
    ]
    lengths = text_lengths(records)
    for name, record in zip(sums, records, strict=True):
        title = f"record of {record['name']}, seed {record['seed']}"
        if name != f"{record_name(record)}.json":
            wrong.append(f"{title} is in the file {name[:80]}")
        wrong += [f"{title}: {why}" for why in inconsistencies(record, claims, lengths)]
    there = {record_name(record) for record in records}
    for name in stored["not_run"]:
        if name in there or not run_titled(name, claims):
            why = "is on record" if name in there else "is a run of no config"
            wrong.append(f"ledger.json: not_run: {name[:80]} {why}")
    missing = unexplained(there | stored["not_run"].keys(), claims)
    return wrong + [f"{name} has neither a record nor a reason in not_run" for name in missing]


def differing_rows(stored: list[dict], derived: list[dict]) -> list[str]:
    """The rows that are not what the records give, with the first key that differs."""
    stored, derived = ({(r["config"], r["target"], r["corpus"]): r for r in rows} for rows in (stored, derived))
    wrong = []
    for key in sorted(stored.keys() | derived.keys()):
        a, b = stored.get(key), derived.get(key)
        if a is None or b is None:
            wrong.append(f"{'/'.join(key)[:80]} is {'missing' if a is None else 'claimed by no config'}")
        elif a != b:
            name = next(name for name in sorted(a | b) if a.get(name) != b.get(name))
            wrong.append(f"{key[0]}/{key[1]}: {name} is {str(a.get(name))[:80]} and should be {b.get(name)}")
    return wrong


def wrong_reports(directory: Path, stored: dict, derived: dict, records: list[dict]) -> list[str]:
    """Reports whose text does not follow from the records, and pictures that are not those of the ledger.

    The text must agree to the letter. Pictures depend on who draws them: by the same library they are drawn again,
    by another one they are held against their SHA-256 in ledger.json.
    """
    markdown, page = ((directory / name).read_bytes().decode() for name in ("report.md", "report.html"))
    wrong, recorded = [], stored["pictures"]
    if recorded["drawn_by"] == drawn_by():
        pictures = report.draw(derived, records)
        sums = {name: hashlib.sha256(picture).hexdigest() for name, picture in pictures.items()}
        wrong += [f"ledger.json: pictures: {name[:80]} is not the curve of its records"
                  for name in sorted(sums.keys() | recorded["sha256"].keys())
                  if sums.get(name) != recorded["sha256"].get(name)]  # fmt: skip
    else:
        print(f"pictures were drawn by {recorded['drawn_by']}, here is {drawn_by()}: only their SHA-256 is checked")
        pictures = dict.fromkeys(report.drawn(derived, records), b"")
    found = [hashlib.sha256(base64.b64decode(data)).hexdigest() for data in _PICTURE.findall(page)]
    if found != [recorded["sha256"].get(name) for name in pictures]:
        wrong.append("report.html: its pictures are not those of ledger.json")
    if markdown != report.render_markdown(derived, records):
        wrong.append("report.md says something else than the records")
    if _PICTURE.sub("", page) != _PICTURE.sub("", report.render_html(derived, records, pictures)):
        wrong.append("report.html says something else than the records")
    return wrong
