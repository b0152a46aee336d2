"""Copies speed measurements to the committed records: one benchmark and one lanes record per device."""

import json
import re
from pathlib import Path

from experiments.ledger.records import RESULTS, round_floats
from experiments.peers import plots
from experiments.peers.speed_page import device_name, device_section
from lm.errors import UserError, first_line
from lm.runs.files import make_directory, write_bytes
from lm.runs.schema import NUMBER, read_json

DIGITS = 4  # significant digits of a record; repeated measurements agree on fewer
# Schemas (lm/runs/schema.py) of the parts of benchmark.json and lanes_speed.json that docs/speed.md shows.
_ROW: dict = {"workload": str, "implementation": str, "spread": [NUMBER], "revision?": (str, None), "date?": str}
_ROW |= dict.fromkeys(("tokens_per_s", "ratio", "fraction_of_floor", "peak_rss_mb", "compile_s"), NUMBER)
BENCHMARK = {
    "device": {"platform": str, "cpu": str, "kind": str, "threads": int},
    "versions": {str: str},
    "absent": {str: str},
    "date": str,
    "rows": [_ROW],
}
LANES_SPEED = {
    "rows": [{"lanes": int, "tokens_per_s": NUMBER, "ratio": NUMBER, "ratio_lowest": NUMBER, "ratio_highest": NUMBER}],
    "whole_runs?": {"lanes": int, "seconds_one_after_another": NUMBER, "seconds_as_lanes": NUMBER, "ratio": NUMBER},
    "provenance": {"config": {"name": str}, "device": {"platform": str, "cpu": str, "kind": str, "count": int}},
}


def record_benchmark(workdir: str | Path, directory: Path = RESULTS) -> Path:
    """Copies workdir/benchmark.json, rounded, to DIRECTORY/benchmark.DEVICE.json, and draws its plots beside it.
    Recorded rows of workloads that it did not measure stay. Raises UserError for an invalid file."""
    source = Path(workdir, "benchmark.json")
    benchmark = read_json(source, BENCHMARK)
    path = directory / f"benchmark.{file_name(benchmark['device'])}.json"
    try:
        device_section(path, benchmark)
    except (ValueError, LookupError, TypeError, ArithmeticError) as error:
        raise UserError(f"{source} is not a valid benchmark ({type(error).__name__}: {first_line(error)})") from error
    if path.exists():
        benchmark = merged(read_json(path, BENCHMARK), benchmark)
    # One line per key and per row keeps diffs readable.
    head = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in benchmark.items() if key != "rows"]
    rows = ",\n".join(json.dumps(round_floats(row, DIGITS)) for row in benchmark["rows"])
    make_directory(directory)
    write_bytes(path, ("{\n" + ",\n".join(head) + ',\n"rows": [\n' + rows + "\n]}\n").encode())
    plots.plot_all(benchmark, str(path.with_suffix("")) + ".")
    print(f"wrote {path}")
    return path


def merged(old: dict, new: dict) -> dict:
    """Adds the old benchmark's rows and absences for workloads that the new one did not measure."""
    measured = {row["workload"] for row in new["rows"]}
    absent = {name: why for name, why in old["absent"].items() if name.rpartition(" ")[2] not in measured}
    rows = [row for row in old["rows"] if row["workload"] not in measured]
    versions = old["versions"] | new["versions"]
    return new | {"versions": versions, "absent": absent | new["absent"], "rows": rows + new["rows"]}


def record_lanes(workdir: str | Path, directory: Path = RESULTS) -> Path:
    """Copies workdir/lanes_speed.json, rounded, to DIRECTORY/lanes.DEVICE.json."""
    lanes = read_json(Path(workdir, "lanes_speed.json"), LANES_SPEED)
    device = lanes["provenance"]["device"]
    path = directory / f"lanes.{file_name(device | {'threads': device['count']})}.json"
    write_bytes(path, (json.dumps(round_floats(lanes, DIGITS), indent=1) + "\n").encode())
    print(f"wrote {path}")
    return path


def file_name(device: dict) -> str:
    """The device's name in lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", device_name(device).lower()).strip("-")[:80]
