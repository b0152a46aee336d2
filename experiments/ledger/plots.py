"""Training curves, ours against the reported ones."""

import math
from collections.abc import Sequence

from experiments.ledger.verdicts import is_final
from experiments.pages import new_figure, points, svg_of, use_log_axis

# Columns of a record's curve that are drawn, if the run has them, with their label.
DRAWN = {"epoch_perplexity": "ours, train (epochs)", "perplexity": "ours, train", "valid_perplexity": "ours, valid"}
COLOURS = {"train": "#1b6ca8", "valid": "#c8553d", "test": "#4a7c59"}  # by split


def training_curves(name: str, records: Sequence[dict], rows: Sequence[dict]) -> bytes:
    """Draws perplexity against epochs as SVG: one line per record. A reported point of the curve is a cross, a reported
    final number a dashed line. records: of one config, one per seed; rows: of ledger.json for that config"""
    figure = new_figure(6.4, 3.6)
    axes = figure.subplots()
    for curve in (record["curve"] for record in records):
        for column, label in DRAWN.items():
            # The mean over an epoch is less noisy than the reports within it.
            if column in curve and not (column == "perplexity" and "epoch_perplexity" in curve):
                colour = COLOURS["valid" if column.startswith("valid") else "train"]
                line = points(curve["epoch"], curve[column])
                axes.plot(*line, color=colour, linewidth=1.2, alpha=0.8, label=label)
    curve = records[0]["curve"]
    for row in rows:
        value = math.exp(row["value"]) if row["metric"] == "loss" else row["value"]
        label, colour = f"{row['kind']}, {row['split']}", COLOURS[row["split"]]
        if is_final(row):
            axes.axhline(value, color=colour, linestyle="--", linewidth=1, label=f"{label} {row['at']}")
            continue
        unit, place = row["at"].split()
        epoch = float(place) if unit == "epoch" else curve["epoch"][curve["step"].index(int(place))]
        axes.plot([epoch], [value], "x", color="black", markersize=6, label=label, zorder=3)
    axes.set(title=name, xlabel="epochs", ylabel="perplexity")
    use_log_axis(axes)
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))  # several lines share a label
    axes.legend(once.values(), once.keys(), fontsize="small")
    return svg_of(figure)
