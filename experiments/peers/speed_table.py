"""README's speed section, generated from the committed records of experiments/benchmark.py, one per device.

python -m experiments.peers.speed_table          rewrites the section

`python launch.py --experiment=record --config=configs/benchmark.py --workdir=...` commits a benchmark to the records.
"""

import json
import re
from pathlib import Path
from typing import NamedTuple

from experiments.ledger.records import RESULTS
from experiments.pages import markdown
from experiments.pages.markdown import ROOT
from experiments.peers import plots
from experiments.peers.worker import IMPLEMENTATIONS
from lm.errors import UserError, first_line
from lm.runs.files import make_directory, write_bytes
from lm.runs.schema import NUMBER, read_json

PEERS = [name for name in IMPLEMENTATIONS if name not in ("lm", "floor")]


def device_name(device: dict) -> str:
    """AMD EPYC 7B13, 2 threads; or the name of the GPU."""
    if device["platform"] == "cpu":
        return f"{device['cpu']}, {device['threads']} threads"
    return device["kind"]


class Aim(NamedTuple):
    """What this project wants to reach on a CPU of two cores.

    measure: ratio (our speed over the peer's), fraction_of_floor or memory (our peak over the peer's); the last wants
        to be at most `wanted`, the others at least
    """

    workload: str
    measure: str
    wanted: float
    peer: str = ""


AIMS = (
    *(Aim("ptb_train", "ratio", 2.0, peer) for peer in ("flax", "torch", "torch_compile")),
    Aim("ptb_train", "fraction_of_floor", 0.75),
    Aim("ptb_train", "memory", 0.5, "flax"),
    *(Aim("text8_train", "ratio", 1.5, peer) for peer in ("flax", "torch", "torch_compile")),
    Aim("text8_train", "fraction_of_floor", 0.6),
    *(Aim("ptb_evaluate", "ratio", 3.0, peer) for peer in ("flax", "torch")),
    Aim("text8_sample", "ratio", 5.0, "torch"),
)
LANES_AIM, LANES = 2.0, 16  # 16 lanes against 16 runs one after another

# What is relied on of benchmark.json and lanes_speed.json: forms of lm/runs/schema.py.
_DEVICE = {"platform": str, "cpu": str, "kind": str, "threads": int}
_ROW = {
    "workload": str, "implementation": str, "tokens_per_s": NUMBER, "spread": [NUMBER], "ratio": NUMBER,
    "fraction_of_floor": NUMBER, "peak_rss_mb": NUMBER, "compile_s": NUMBER, "revision?": (str, None), "date?": str,
}  # fmt: skip
BENCHMARK = {"device": _DEVICE, "versions": {str: str}, "absent": {str: str}, "date": str, "rows": [_ROW]}
LANES_SPEED = {
    "rows": [{"lanes": int, "tokens_per_s": NUMBER, "ratio": NUMBER, "ratio_lowest": NUMBER, "ratio_highest": NUMBER}],
    "whole_runs?": {"lanes": int, "seconds_one_after_another": NUMBER, "seconds_as_lanes": NUMBER, "ratio": NUMBER},
    "provenance": {
        "config": {"name": str},
        "device": {"platform": str, "cpu": str, "kind": str, "count": int},
    },
}


def slug(device: dict) -> str:
    """The device's name as part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", device_name(device).lower()).strip("-")[:80]


def put_on_record(workdir: str, directory: Path = RESULTS) -> Path:
    """Copies workdir/benchmark.json, rounded, to DIRECTORY/benchmark.DEVICE.json, and draws its plots beside it."""
    source = Path(workdir, "benchmark.json")
    record = read_json(source, BENCHMARK)
    name = f"benchmark.{slug(record['device'])}"
    try:
        section(directory / f"{name}.json", record)
    except (ValueError, LookupError, TypeError, ArithmeticError) as error:
        raise UserError(f"{source} is no sound benchmark ({type(error).__name__}: {first_line(error)})") from error
    head = {key: value for key, value in record.items() if key != "rows"}
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    rows = ",\n".join(json.dumps(rounded(row)) for row in record["rows"])
    path = directory / f"{name}.json"
    make_directory(directory)
    write_bytes(path, ("{\n" + ",\n".join(lines) + ',\n"rows": [\n' + rows + "\n]}\n").encode())
    plots.plot_all(record, str(directory / f"{name}."))
    print(f"wrote {path}")
    return path


def rounded(value):
    """Four significant digits are more than two measurements ever agree on."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def records(directory: Path = RESULTS) -> dict[Path, dict]:
    """All committed benchmarks, in order of their file names."""
    return {path: json.loads(path.read_text(encoding="utf-8")) for path in sorted(directory.glob("benchmark.*.json"))}


def render(found: dict[Path, dict]) -> str:
    """The section as Markdown."""
    return "\n\n".join(section(path, record) for path, record in found.items()) or "No benchmark is on record yet."


def section(path: Path, record: dict) -> str:
    """What one device gave."""
    device, versions = record["device"], record["versions"]
    shown = ("jax", "flax", "torch", "keras", "dm-haiku")
    libraries = ", ".join(f"{name} {versions[name]}" for name in shown if name in versions)
    intro = f"**{device_name(device)}**, float32, {measured_when(record)}; {libraries}."
    absent = [f"{name}: {reason}" for name, reason in record["absent"].items()]
    parts = [intro, speed_lines(record), cost_lines(record)]
    parts += ["Absent: " + "; ".join(absent) + "."] if absent else []
    path_of_lanes = path.with_name(path.name.replace("benchmark.", "lanes.", 1))
    lanes = json.loads(path_of_lanes.read_text(encoding="utf-8")) if path_of_lanes.is_file() else None
    parts += [lane_lines(lanes)] if lanes else []
    if device["platform"] == "cpu" and (aims := aim_lines(record, lanes)):
        parts.append(aims)
    for plot in sorted(path.parent.glob(f"{path.stem}.cost_*.png")):
        axis = plots.AXES[plot.stem.rpartition(".")[2]]
        parts.append(f"![cost against {axis}]({plot.relative_to(ROOT)})")
    return "\n\n".join(parts)


def measured_when(record: dict) -> str:
    """2026-01-02, or the span of days, and the revisions of this code behind the rows that say so."""
    days = sorted({row.get("date", record["date"]) for row in record["rows"]}) or [record["date"]]
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    revisions = dict.fromkeys(row["revision"][:7] for row in record["rows"] if row.get("revision"))
    return f"{when}, at {' and '.join(revisions)}" if revisions else when


def by_workload(record: dict) -> dict[str, dict[str, dict]]:
    """{workload: {implementation: row}} of all but the sweeps, which are plotted."""
    found: dict[str, dict[str, dict]] = {}
    for row in record["rows"]:
        if not row["workload"].startswith("cost_"):
            found.setdefault(row["workload"], {})[row["implementation"]] = row
    return found


def speed_lines(record: dict) -> str:
    """Our speed, and how many times a peer's that is."""
    workloads = by_workload(record)
    peers = [peer for peer in PEERS if any(peer in rows for rows in workloads.values())]
    lines = []
    for name, rows in workloads.items():
        ours = rows["lm"]
        low, high = ours["spread"]
        spread = f"{50 * (high - low) / ours['tokens_per_s']:.0f}%"
        ratios = [f"{rows[peer]['ratio']:.2f}" if peer in rows else "" for peer in peers]
        lines.append([name, f"{ours['tokens_per_s']:,.0f} ± {spread}", f"{ours['fraction_of_floor']:.2f}", *ratios])
    return markdown.table(("workload", "tokens/s", "of the floor", *(f"x {peer}" for peer in peers)), lines)


def cost_lines(record: dict) -> str:
    """Peak memory and compile time of each implementation: MB / s."""
    workloads = by_workload(record)
    names = [name for name in ("lm", *PEERS) if any(name in rows for rows in workloads.values())]
    lines = []
    for workload, rows in workloads.items():
        cells = (
            f"{rows[name]['peak_rss_mb']:,.0f} / {rows[name]['compile_s']:.1f}" if name in rows else ""
            for name in names
        )
        lines.append([workload, *cells])
    return markdown.table(("peak MB / compile s", *names), lines)


def aim_lines(record: dict, lanes: dict | None) -> str:
    """What was aimed at, and what was reached; "" where none of it was measured."""
    workloads = by_workload(record)
    lines = []
    for aim in AIMS:
        rows = workloads.get(aim.workload, {})
        if {"lm", aim.peer or "lm"} <= set(rows):
            lines.append(_aim_line(aim, _reached(aim, rows)))
    for row in lanes["rows"] if lanes else ():
        if row["lanes"] == LANES:
            lines.append(_line(f"{LANES} lanes", "steps, x one after another", "least", LANES_AIM, row["ratio"]))
    if lanes and (whole := lanes.get("whole_runs")) and whole["lanes"] == LANES:
        lines.append(_line(f"{LANES} lanes", "whole runs, x one after another", "least", LANES_AIM, whole["ratio"]))
    return markdown.table(("aim", "measure", "wanted", "reached", "met"), lines) if lines else ""


def _reached(aim: Aim, rows: dict[str, dict]) -> float:
    if aim.measure == "fraction_of_floor":
        return rows["lm"]["fraction_of_floor"]
    if aim.measure == "ratio":
        return rows[aim.peer]["ratio"]
    return rows["lm"]["peak_rss_mb"] / rows[aim.peer]["peak_rss_mb"]


def _aim_line(aim: Aim, reached: float) -> list[str]:
    measure = {"ratio": f"x {aim.peer}", "fraction_of_floor": "of the floor", "memory": f"peak memory, x {aim.peer}"}
    at = "most" if aim.measure == "memory" else "least"
    return _line(aim.workload, measure[aim.measure], at, aim.wanted, reached)


def _line(what: str, measure: str, at: str, wanted: float, reached: float) -> list[str]:
    """at: least or most"""
    met = reached >= wanted if at == "least" else reached <= wanted
    return [what, measure, f"at {at} {wanted:g}", f"{reached:.2f}", "yes" if met else "no"]


def lane_lines(report: dict) -> str:
    """Lanes against the same runs one after another, on one thread each (experiments/benchmark_lanes.py)."""
    config = report["provenance"]["config"]["name"]
    lines = []
    for row in report["rows"]:
        spread = f"{row['ratio_lowest']:.2f} to {row['ratio_highest']:.2f}"
        lines.append([row["lanes"], f"{row['tokens_per_s']:,.0f}", f"{row['ratio']:.2f}", spread])
    columns = (f"lanes of {config}", "tokens/s", "x one after another", "lowest to highest")
    parts = [markdown.table(columns, lines)]
    if whole := report.get("whole_runs"):
        alone, together = whole["seconds_one_after_another"], whole["seconds_as_lanes"]
        text = f"Whole runs, from command to summary: {whole['lanes']} one after another took {alone:.0f} s, as lanes "
        parts.append(f"{text}{together:.0f} s: {whole['ratio']:.2f} times as fast.")
    return "\n\n".join(parts)


def put_lanes_on_record(workdir: str, directory: Path = RESULTS) -> Path:
    """Copies workdir/lanes_speed.json to DIRECTORY/lanes.DEVICE.json, where `section` finds it."""
    report = read_json(Path(workdir, "lanes_speed.json"), LANES_SPEED)
    device = report["provenance"]["device"]
    path = directory / f"lanes.{slug(device | {'threads': device['count']})}.json"
    write_bytes(path, (json.dumps(rounded(report), indent=1) + "\n").encode())
    print(f"wrote {path}")
    return path


if __name__ == "__main__":
    markdown.write_section(markdown.README, "speed", render(records()))
