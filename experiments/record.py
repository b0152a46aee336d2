"""Puts what is in the workdir on record under docs/results/, from which `make results` generates tables.

a finished run that a config claims   records/TITLE.json; the ledger there is renewed
a ledger of `reproduce`               its records, ledger.json and reports
a benchmark                           benchmark.DEVICE.json
a benchmark of lanes                  lanes.DEVICE.json
a sweep                               NAME/: trials, config, pictures and report
"""

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from experiments.ledger.claims import all_claims
from experiments.ledger.records import RECORDS, RESULTS, make_record, mismatches, write_record
from experiments.ledger.storage import FILES, check, renew
from experiments.peers.records import record_benchmark, record_lanes
from lm.errors import UserError
from lm.runs.files import make_directory, write_bytes
from lm.runs.schema import read_json


def run(config, workdir, data_dir=None):
    """Returns the path of the record."""
    del config, data_dir
    workdir = Path(workdir)
    if (workdir / "benchmark.json").is_file():
        return record_benchmark(workdir)
    if (workdir / "lanes_speed.json").is_file():
        return record_lanes(workdir)
    if (workdir / "ledger.json").is_file():
        return put_ledger_on_record(workdir)
    if (workdir / "sweep.json").is_file():
        return put_sweep_on_record(workdir)
    return put_run_on_record(workdir)


def put_run_on_record(workdir: Path, directory: Path = RESULTS) -> Path:
    """Adds the record of a finished run, replacing an earlier one of the same title, and renews the ledger there.

    Raises UserError if no config claims the run as it was made.
    """
    record, claims = make_record(workdir), all_claims()
    if wrong := mismatches(record, claims):
        raise UserError(f"the run in --workdir={workdir} cannot go on record: {'; '.join(wrong)}")
    path = write_record(record, directory / RECORDS)
    renew(directory, claims)
    print(f"wrote {path}, {directory / 'ledger.json'} and its reports")
    return path


def put_ledger_on_record(workdir: Path, directory: Path = RESULTS) -> Path:
    """Copies a ledger that passes its check; its records replace all earlier ones."""
    check(workdir, all_claims())
    records = sorted((workdir / RECORDS).glob("*.json"))
    contents = {directory / RECORDS / path.name: file_bytes(path) for path in records}
    put_all(contents | {directory / name: file_bytes(workdir / name) for name in FILES})
    for path in (directory / RECORDS).glob("*.json"):
        if path not in contents:
            path.unlink()
    print(f"wrote {directory / 'ledger.json'} and its {len(records)} records")
    return directory / "ledger.json"


def put_sweep_on_record(workdir: Path, directory: Path = RESULTS) -> Path:
    """Copies the trials, config, pictures and report of a finished sweep."""
    name = read_json(workdir / "sweep.json", {"name": str})["name"]
    if len(name) > 100 or not re.fullmatch(r"\w[\w-]*(/\w[\w-]*)*", name):  # it becomes a path
        raise UserError(f"{workdir}/sweep.json: {name[:100]!r} is not the name of a sweep")
    target = directory / name
    paths = (workdir / "sweep.json", workdir / "config.json", workdir / "report.html", *workdir.glob("*.png"))
    put_all({target / path.name: file_bytes(path) for path in paths})
    print(f"wrote {target}")
    return target


def file_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def put_all(contents: Mapping[Path, bytes]):
    """Writes all files or none: first beside their places, so that a full disk loses nothing, then into them.

    Raises UserError if one cannot be written.
    """
    beside = {path: path.with_name(f".{path.name}.new") for path in contents}
    try:
        for path, content in contents.items():
            make_directory(path.parent)
            write_bytes(beside[path], content)
        for path, new in beside.items():
            os.replace(new, path)
    except OSError as error:
        raise UserError(f"cannot write {error.filename2 or error.filename}: {error.strerror}") from error
    finally:
        for new in beside.values():
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
