"""Training curves, ours against the reported ones."""

import math
from collections.abc import Sequence

from experiments.pages import points, svg_of, use_log_axis

# Columns of a record's curve that are drawn, if the run has them, with their label.
DRAWN = {
    "epoch_perplexity": "ours, train (epochs)",
    "perplexity": "ours, train",
    "valid_perplexity": "ours, valid",
}
COLOURS = {"train": "#1b6ca8", "valid": "#c8553d", "test": "#4a7c59"}  # by split


def training_curves(name: str, records: Sequence[dict], rows: Sequence[dict]) -> bytes:
    """SVG of perplexity against epochs: one line per record, and what the source reports.

    A reported point of the curve is a cross, a reported final number a dashed line.

    records: of one config, one per seed; rows: of its ledger
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for record in records:
        _draw_record(axes, record)
    for row in rows:
        _draw_reported(axes, row, records[0]["curve"])
    axes.set(title=name, xlabel="epochs", ylabel="perplexity")
    use_log_axis(axes)
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))  # several lines share a label
    axes.legend(once.values(), once.keys(), fontsize="small")
    return svg_of(figure)


def _draw_record(axes, record: dict):
    curve = record["curve"]
    drawn = [column for column in DRAWN if column in curve]
    if "epoch_perplexity" in drawn:  # the mean over an epoch, with less noise than its reports
        drawn.remove("perplexity")
    for column in drawn:
        line, colour = (
            points(curve["epoch"], curve[column]),
            COLOURS["valid" if column.startswith("valid") else "train"],
        )
        axes.plot(*line, color=colour, linewidth=1.2, alpha=0.8, label=DRAWN[column])


def _draw_reported(axes, row: dict, curve: dict):
    value = math.exp(row["value"]) if row["metric"] == "loss" else row["value"]
    label, colour = f"{row['kind']}, {row['split']}", COLOURS[row["split"]]
    if row["at"] in ("final", "best"):
        axes.axhline(value, color=colour, linestyle="--", linewidth=1, label=f"{label} {row['at']}")
        return
    unit, place = row["at"].split()
    epoch = float(place) if unit == "epoch" else curve["epoch"][curve["step"].index(int(place))]
    axes.plot([epoch], [value], "x", color="black", markersize=6, label=label, zorder=3)
