"""Plots the cost of a training step against sequence length, hidden size, vocabulary and batch size."""

from experiments.pages import png_of
from experiments.peers.workload import SWEEPS
from lm.runs.files import write_bytes

LABELS = {"lm": "this project", "floor": "floor: matrix products alone"}
AXES = {
    "cost_unroll": "sequence length T",
    "cost_hidden": "hidden units H",
    "cost_vocabulary": "vocabulary V",
    "cost_batch": "batch B",
}


def milliseconds(record: dict, sweep: str) -> dict[str, dict[int, float]]:
    """{implementation: {value on the sweep's axis: milliseconds per step}} of the measured points."""
    points = {workload.name: workload for workload in SWEEPS[sweep]}
    found: dict[str, dict[int, float]] = {}
    for row in record["rows"]:
        if row["workload"] in points:
            value = int(row["workload"].rpartition("_")[2])
            tokens = points[row["workload"]].tokens
            found.setdefault(row["implementation"], {})[value] = 1e3 * tokens / row["tokens_per_s"]
    return found


def plot_all(record: dict, prefix: str) -> list[str]:
    """Writes PREFIXcost_*.png for each sweep with measured points. Returns the paths."""
    paths = []
    for sweep in SWEEPS:
        if times := milliseconds(record, sweep):
            paths.append(f"{prefix}{sweep}.png")
            write_bytes(paths[-1], plot(times, AXES[sweep]))
    return paths


def plot(times: dict[str, dict[int, float]], axis: str) -> bytes:
    """Draws one line per implementation on two logarithmic axes. Returns a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, points in times.items():
        style = "k--" if name == "floor" else "o-"
        axes.loglog(*zip(*sorted(points.items()), strict=True), style, label=LABELS.get(name, name))
    axes.set_xlabel(axis)
    axes.set_ylabel("milliseconds a training step")
    axes.legend()
    axes.grid(alpha=0.3, which="both")
    return png_of(figure)
