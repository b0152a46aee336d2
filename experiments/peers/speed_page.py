"""Generates the tables of docs/speed.md from the records that experiments/peers/records.py wrote.

python -m experiments.peers.speed_page
"""

import json
import os
from pathlib import Path
from typing import NamedTuple

from experiments.ledger.records import RESULTS
from experiments.pages.markdown import ROOT, table, write_section
from experiments.peers import plots
from experiments.peers.worker import IMPLEMENTATIONS, OWN
from experiments.peers.workload import LABELLED_WORKLOADS, WORKLOADS

PAGE = ROOT / "docs" / "speed.md"
PEERS = [name for name in IMPLEMENTATIONS if name not in OWN]
LIBRARIES = ("jax", "flax", "torch", "keras", "dm-haiku")


class Aim(NamedTuple):
    """An aim of this project on a CPU with two cores.

    measure: ratio: our speed / that of `peer`, a library or a variant of this project; at least `wanted`
        fraction_of_floor: our speed / the floor's; at least `wanted`
        memory: our peak / the peer's; at most `wanted`
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
    Aim("imdb_train", "ratio", 1.5, "keras"),
    Aim("imdb_train", "ratio", 1.0, "torch"),
    Aim("imdb_padding", "ratio", 1.7, "lm_padded"),
)
LANES_AIM, LANES = 2.0, 16  # speed of 16 lanes divided by that of 16 runs one after another


def section(directory: Path = RESULTS) -> str:
    """The tables of all committed benchmarks, in alphabetical order of file names, as Markdown."""
    paths = sorted(directory.glob("benchmark.*.json"))
    return "\n\n".join(device_section(path, load(path)) for path in paths) or "No benchmark is on record yet."


def load(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def device_section(path: Path, benchmark: dict) -> str:
    """The tables and plots of one device. path: its benchmark file, beside its lanes record and plots"""
    device, versions = benchmark["device"], benchmark["versions"]
    libraries = ", ".join(f"{name} {versions[name]}" for name in LIBRARIES if name in versions)
    intro = f"**{device_name(device)}**, float32, {dates_and_revisions(benchmark)}; {libraries}."
    workloads = by_workload(benchmark)
    texts = {name: rows for name, rows in workloads.items() if name not in LABELLED_WORKLOADS}
    labelled = {name: rows for name, rows in workloads.items() if name in LABELLED_WORKLOADS}
    peers = [peer for peer in PEERS if any(peer in rows for rows in texts.values())]
    parts = [intro, speed_table(texts, peers), cost_table(texts, peers)]
    parts += [labelled_table(labelled)] if labelled else []
    if benchmark["absent"]:
        parts.append(f"Absent: {'; '.join(f'{name}: {why}' for name, why in benchmark['absent'].items())}.")
    lanes_path = path.with_name(path.name.replace("benchmark.", "lanes.", 1))
    lanes = load(lanes_path) if lanes_path.is_file() else None
    if lanes:
        parts.append(lanes_section(lanes))
    if device["platform"] == "cpu" and (aims := aim_table(benchmark, lanes)):
        parts.append(aims)
    for plot in sorted(path.parent.glob(f"{path.stem}.*.png")):
        name = plot.stem.rpartition(".")[2]
        caption = "speed by padding" if name == "padding" else f"cost against {plots.AXES[name]}"
        parts.append(f"![{caption}]({os.path.relpath(plot, PAGE.parent)})")
    return "\n\n".join(parts)


def device_name(device: dict) -> str:
    """For example: AMD EPYC 7B13, 2 threads; or the name of the GPU."""
    if device["platform"] == "cpu":
        return f"{device['cpu']}, {device['threads']} threads"
    return device["kind"]


def dates_and_revisions(benchmark: dict) -> str:
    """Date or range of dates of the rows, and the revisions of this code that they were measured at."""
    days = sorted({row.get("date", benchmark["date"]) for row in benchmark["rows"]}) or [benchmark["date"]]
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    revisions = dict.fromkeys(row["revision"][:7] for row in benchmark["rows"] if row.get("revision"))
    return f"{when}, at {' and '.join(revisions)}" if revisions else when


def by_workload(benchmark: dict) -> dict[str, dict[str, dict]]:
    """{workload: {implementation: row}}, without the cost sweeps, which are shown as plots."""
    found: dict[str, dict[str, dict]] = {}
    for row in benchmark["rows"]:
        if not row["workload"].startswith("cost_"):
            found.setdefault(row["workload"], {})[row["implementation"]] = row
    return found


def speed_table(workloads: dict[str, dict[str, dict]], peers: list[str]) -> str:
    """This project's speed, and its ratio to the floor and to each peer."""
    rows = []
    for workload, found in workloads.items():
        ratios = [f"{found[peer]['ratio']:.2f}" if peer in found else "" for peer in peers]
        rows.append([workload, speed_of(found["lm"]), f"{found['lm']['fraction_of_floor']:.2f}", *ratios])
    return table(("workload", "tokens/s", "of the floor", *(f"x {peer}" for peer in peers)), rows)


def speed_of(row: dict) -> str:
    """Tokens per second, and half the spread in percent."""
    low, high = row["spread"]
    return f"{row['tokens_per_s']:,.0f} ± {50 * (high - low) / row['tokens_per_s']:.0f}%"


def cost_of(row: dict) -> str:
    return f"{row['peak_rss_mb']:,.0f} / {row['compile_s']:.1f}"


def cost_table(workloads: dict[str, dict[str, dict]], peers: list[str]) -> str:
    """Peak memory in MB and compile time in seconds of each implementation."""
    names = ["lm", *peers]
    rows = [
        [workload, *(cost_of(found[name]) if name in found else "" for name in names)]
        for workload, found in workloads.items()
    ]
    return table(("peak MB / compile s", *names), rows)


def labelled_table(workloads: dict[str, dict[str, dict]]) -> str:
    """A row for each implementation of each workload of labelled sequences."""
    rows = []
    for name, found in workloads.items():
        [workload] = WORKLOADS[name]  # a name may stand for several workloads; these stand for one
        for implementation, row in found.items():
            batch = IMPLEMENTATIONS[implementation].arguments.get("batch", workload.batch)
            milliseconds = 1e3 * workload._replace(batch=batch).tokens / row["tokens_per_s"]
            numbers = [speed_of(row), f"{milliseconds:,.1f}", f"{row['ratio']:.2f}", cost_of(row)]
            rows.append([name, implementation, *numbers])
    titles = ("labelled sequences", "implementation", "tokens/s", "ms a step", "lm / this", "peak MB / compile s")
    return table(titles, rows)


def lanes_section(lanes: dict) -> str:
    """Speed of lanes and of the same runs one after another, one thread each (experiments/benchmark_lanes.py)."""
    rows = []
    for row in lanes["rows"]:
        spread = f"{row['ratio_lowest']:.2f} to {row['ratio_highest']:.2f}"
        rows.append([row["lanes"], f"{row['tokens_per_s']:,.0f}", f"{row['ratio']:.2f}", spread])
    config = lanes["provenance"]["config"]["name"]
    text = table((f"lanes of {config}", "tokens/s", "x one after another", "lowest to highest"), rows)
    if whole := lanes.get("whole_runs"):
        alone, together = whole["seconds_one_after_another"], whole["seconds_as_lanes"]
        text += f"\n\nWhole runs, from command to summary: {whole['lanes']} one after another took {alone:.0f} s, "
        text += f"as lanes {together:.0f} s: {whole['ratio']:.2f} times as fast."
    return text


def aim_table(benchmark: dict, lanes: dict | None) -> str:
    """The aims and the numbers reached; "" if none was measured."""
    workloads = by_workload(benchmark)
    rows = []
    for aim in AIMS:
        found = workloads.get(aim.workload, {})
        if {"lm", aim.peer or "lm"} <= found.keys():
            rows.append(_aim_row(aim, found))
    if lanes:
        ratios = [("steps", row) for row in lanes["rows"]]
        ratios += [("whole runs", lanes["whole_runs"])] if "whole_runs" in lanes else []
        for what, row in ratios:
            if row["lanes"] == LANES:
                rows.append(_at_least(f"{LANES} lanes", f"{what}, x one after another", LANES_AIM, row["ratio"]))
    return table(("aim", "measure", "wanted", "reached", "met"), rows) if rows else ""


def _aim_row(aim: Aim, found: dict[str, dict]) -> list[str]:
    """found: {implementation: row} for the aim's workload"""
    if aim.measure == "fraction_of_floor":
        return _at_least(aim.workload, "of the floor", aim.wanted, found["lm"]["fraction_of_floor"])
    if aim.measure == "ratio":
        return _at_least(aim.workload, f"x {aim.peer}", aim.wanted, found[aim.peer]["ratio"])
    reached = found["lm"]["peak_rss_mb"] / found[aim.peer]["peak_rss_mb"]
    met = "yes" if reached <= aim.wanted else "no"
    return [aim.workload, f"peak memory, x {aim.peer}", f"at most {aim.wanted:g}", f"{reached:.2f}", met]


def _at_least(aim: str, measure: str, wanted: float, reached: float) -> list[str]:
    return [aim, measure, f"at least {wanted:g}", f"{reached:.2f}", "yes" if reached >= wanted else "no"]


if __name__ == "__main__":
    write_section(PAGE, "speed", section())
