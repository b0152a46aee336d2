"""Puts what is in the workdir on record under experiments/results/, where README's tables are generated from.

A finished run goes there as records/<config>.<corpus>.seed<n>.json, a ledger of `reproduce` with its records and
reports, a benchmark as benchmark.<device>.json, one of lanes as lanes.<device>.json, a sweep with its pictures as
<sweep's name>/. Records are committed; `make results` renews the tables.
"""

import re
import shutil
from pathlib import Path

from experiments import report, speed_table
from experiments.claims import all_claims
from experiments.ledger import RECORDS, RESULTS, make_record, write_record
from lm.errors import UserError
from lm.schema import read_json


def run(config, workdir, data_dir=None):
    """Returns the path of the record."""
    del config, data_dir
    workdir = Path(workdir)
    if (workdir / "benchmark.json").is_file():
        return speed_table.put_on_record(workdir)
    if (workdir / "lanes_speed.json").is_file():
        return speed_table.put_lanes_on_record(workdir)
    if (workdir / "ledger.json").is_file():
        return put_ledger_on_record(workdir)
    if (workdir / "sweep.json").is_file():
        return put_sweep_on_record(workdir)
    path = write_record(make_record(workdir), RESULTS / RECORDS)
    print(f"wrote {path}")
    return path


def put_ledger_on_record(workdir: Path, directory: Path = RESULTS) -> Path:
    """Copies a ledger that passes its check; its records take the place of all that there were."""
    report.check(workdir, all_claims())
    shutil.rmtree(directory / RECORDS, ignore_errors=True)
    shutil.copytree(workdir / RECORDS, directory / RECORDS)
    for name in ("report.md", "report.html", "ledger.json"):
        shutil.copyfile(workdir / name, directory / name)
    print(f"wrote {directory / 'ledger.json'} and its {len(list((directory / RECORDS).glob('*.json')))} records")
    return directory / "ledger.json"


def put_sweep_on_record(workdir: Path, directory: Path = RESULTS) -> Path:
    """Copies what a sweep leaves at its end: trials, config, pictures and report."""
    name = read_json(workdir / "sweep.json", {"name": str})["name"]
    if len(name) > 100 or not re.fullmatch(r"\w[\w-]*(/\w[\w-]*)*", name):  # it becomes a path
        raise UserError(f"{workdir}/sweep.json: {name[:100]!r} is no name of a sweep")
    target = directory / name
    target.mkdir(parents=True, exist_ok=True)
    for path in (workdir / "sweep.json", workdir / "config.json", workdir / "report.html", *workdir.glob("*.png")):
        shutil.copyfile(path, target / path.name)
    print(f"wrote {target}")
    return target
