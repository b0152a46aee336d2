"""Puts the results in --workdir on record under docs/results/, from which `make results` generates tables.

in --workdir                          written to docs/results/
a finished run that a config claims   records/TITLE.json, ledger.json and reports
a ledger of `reproduce`               its records, ledger.json and reports
a benchmark                           benchmark.DEVICE.json
a benchmark of lanes                  lanes.DEVICE.json
a sweep                               NAME/: trials, config and pictures
"""

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from experiments.ledger.claims import all_claims
from experiments.ledger.records import (
    RECORDS,
    RESULTS,
    load_records,
    make_record,
    mismatches,
    record_title,
    repeated,
    replacements,
    write_record,
)
from experiments.ledger.storage import check, renew, stored_reasons
from experiments.peers.records import record_benchmark, record_lanes
from lm.errors import UserError
from lm.runs.files import make_directory
from lm.runs.schema import read_json


def run(config, workdir, data_dir=None):
    """Returns the path of the record."""
    kinds = {
        "benchmark.json": record_benchmark,
        "lanes_speed.json": record_lanes,
        "ledger.json": put_ledger_on_record,
        "sweep.json": put_sweep_on_record,
    }
    put = next((put for name, put in kinds.items() if Path(workdir, name).is_file()), put_run_on_record)
    return put(Path(workdir))


def put_run_on_record(workdir: Path, directory: Path = RESULTS) -> Path:
    """Adds or replaces the record of a finished run, and renews the ledger of `directory`. Raises UserError unless the
    run is one that a config claims today."""
    record, claims = make_record(workdir), all_claims()
    old = load_records(directory / RECORDS)
    others = [each for each in old if record_title(each) != record_title(record)]
    if wrong := [*mismatches(record, claims), *repeated([*others, record])]:
        raise UserError(f"the run in --workdir={workdir} cannot go on record: {'; '.join(wrong)}")
    path = write_record(record, directory / RECORDS)
    renew(directory, claims)
    for line in replacements(old, [record]):
        print(line)
    print(f"wrote {path}, {directory / 'ledger.json'} and its reports")
    return path


def put_ledger_on_record(workdir: Path, directory: Path = RESULTS) -> Path:
    """Copies the records of a ledger that passes its check to `directory`, and renews the ledger there. Records of
    other runs stay: to remove one, delete its file and record any run again."""
    claims = all_claims()
    check(workdir, claims)
    records = sorted((workdir / RECORDS).glob("*.json"))
    kept = {path.name for path in (directory / RECORDS).glob("*.json")} - {path.name for path in records}
    old = load_records(directory / RECORDS)
    copy_all(records, workdir, directory)
    renew(directory, claims, stored_reasons(workdir))
    for line in replacements(old, load_records(workdir / RECORDS)):
        print(line)
    print(f"wrote {directory / 'ledger.json'}: {len(records)} records from {workdir}, and {len(kept)} kept")
    return directory / "ledger.json"


def put_sweep_on_record(workdir: Path, directory: Path = RESULTS) -> Path:
    """Copies the trials, config and pictures of a finished sweep, but not its report, which repeats the pictures."""
    name = read_json(workdir / "sweep.json", {"name": str})["name"]
    if len(name) > 100 or not re.fullmatch(r"sweeps(/\w[\w-]*)+", name):  # it becomes a path
        raise UserError(f"{workdir}/sweep.json: {name[:100]!r} is not the name of a sweep, such as sweeps/NAME")
    files = [*(workdir / file for file in ("sweep.json", "config.json")), *workdir.glob("*.png")]
    copy_all(files, workdir, directory / name)
    print(f"wrote {directory / name}")
    return directory / name


def copy_all(files: Sequence[Path], source: Path, target: Path):
    """Copies files below `source` to the same places below `target`: first to a temporary directory, so that a full
    disk loses nothing. Raises UserError if one cannot be copied."""
    make_directory(target)
    try:
        with tempfile.TemporaryDirectory(prefix=".new", dir=target) as beside:
            moves = {Path(beside, str(number)): path for number, path in enumerate(files)}
            for new, path in moves.items():
                shutil.copyfile(path, new)
            for new, path in moves.items():
                place = target / path.relative_to(source)
                make_directory(place.parent)
                os.replace(new, place)
    except OSError as error:
        raise UserError(f"cannot copy {error.filename}: {error.strerror}") from error
