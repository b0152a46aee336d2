"""Plots the cost of a training step against sequence length, hidden size, vocabulary and batch size, and the speed of
labelled sequences for three ways to pad them."""

from experiments.pages import new_figure, png_of
from experiments.peers.workload import SWEEPS
from lm.runs.files import write_bytes

LABELS = {"lm": "this project", "floor": "floor: matrix products alone"}
# Implementation -> label of its bar in the padding plot.
PADDING = {"lm_single": "one sequence\nat a time", "lm_padded": "all padded to 500", "lm": "8 buckets"}
AXES = {
    "cost_unroll": "sequence length T",
    "cost_hidden": "hidden units H",
    "cost_vocabulary": "vocabulary V",
    "cost_batch": "batch B",
}


def milliseconds(record: dict, sweep: str) -> dict[str, dict[int, float]]:
    """Returns {implementation: {value on the sweep's axis: milliseconds per step}} for the measured points."""
    points = {workload.name: workload for workload in SWEEPS[sweep]}
    found: dict[str, dict[int, float]] = {}
    for row in record["rows"]:
        if row["workload"] in points:
            value = int(row["workload"].rpartition("_")[2])
            tokens = points[row["workload"]].tokens
            found.setdefault(row["implementation"], {})[value] = 1e3 * tokens / row["tokens_per_s"]
    return found


def plot_all(record: dict, prefix: str):
    """Writes PREFIXcost_*.png for each measured sweep and, if measured, PREFIXpadding.png."""
    for sweep in SWEEPS:
        if times := milliseconds(record, sweep):
            write_bytes(f"{prefix}{sweep}.png", plot(times, AXES[sweep]))
    rows = {row["implementation"]: row for row in record["rows"] if row["workload"] == "imdb_padding"}
    if rows.keys() >= PADDING.keys():
        write_bytes(f"{prefix}padding.png", plot_padding(rows))


def plot_padding(rows: dict[str, dict]) -> bytes:
    """Draws one bar per padding method. rows: {implementation: row}. Returns a PNG."""
    figure = new_figure(6, 3)
    axes = figure.subplots()
    for place, name in enumerate(PADDING):
        speed, (low, high) = rows[name]["tokens_per_s"], rows[name]["spread"]
        axes.barh(place, speed, xerr=[[speed - low], [high - speed]], color="tab:blue", height=0.6)
        axes.text(high, place, f"  {speed:,.0f}", va="center")
    axes.set_yticks(range(len(PADDING)), list(PADDING.values()))
    axes.margins(x=0.15)
    axes.set_xlabel("tokens a second, without padding")
    axes.grid(alpha=0.3, axis="x")
    return png_of(figure)


def plot(times: dict[str, dict[int, float]], axis: str) -> bytes:
    """Draws one line per implementation on two logarithmic axes. Returns a PNG."""
    figure = new_figure(6, 4.5)
    axes = figure.subplots()
    for name, points in times.items():
        style = "k--" if name == "floor" else "o-"
        axes.loglog(*zip(*sorted(points.items()), strict=True), style, label=LABELS.get(name, name))
    axes.set(xlabel=axis, ylabel="milliseconds a training step")
    axes.legend()
    axes.grid(alpha=0.3, which="both")
    return png_of(figure)
