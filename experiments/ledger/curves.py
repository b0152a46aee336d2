"""Training curves with the reported numbers on them."""

import math
from collections.abc import Sequence

from experiments.pages import html

# Columns of a record's curve that are drawn, in this order: those that the run has of them.
DRAWN = {"epoch_perplexity": "train, epoch", "perplexity": "train", "valid_perplexity": "valid"}
COLOURS = {"train": "#1b6ca8", "valid": "#c8553d", "test": "#4a7c59"}  # by split


def curves(name: str, records: Sequence[dict], rows: Sequence[dict]) -> bytes:
    """SVG: perplexity of each record against epochs, on a logarithmic axis, and what is reported of it.

    records: of one config, one per seed; rows: of its ledger. What is reported of a place on the curve is a cross
    there, of the end a dashed line.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for record in records:
        draw_record(axes, record, first=record is records[0])
    for row in rows:
        draw_reported(axes, row, records[0]["curve"])
    axes.set(title=name, xlabel="epochs", ylabel="perplexity", yscale="log")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize="small")
    return html.svg_of(figure)


def draw_record(axes, record: dict, first: bool):
    """The curves of one record; the first bears the labels."""
    curve = record["curve"]
    drawn = [column for column in DRAWN if column in curve]
    if "epoch_perplexity" in drawn:  # the mean of an epoch says all that its reports say, with less noise
        drawn.remove("perplexity")
    for column in drawn:
        points = [(x, y) for x, y in zip(curve["epoch"], curve[column], strict=True) if y is not None]
        colour = COLOURS["valid" if column.startswith("valid") else "train"]
        axes.plot(
            *zip(*points, strict=True), color=colour, linewidth=1.2, alpha=0.8, label=DRAWN[column] if first else None
        )


def draw_reported(axes, row: dict, curve: dict):
    """A reported value in the colour of its split."""
    value = math.exp(row["value"]) if row["metric"] == "loss" else row["value"]
    colour = COLOURS[row["split"]]
    if row["at"] in ("final", "best"):
        axes.axhline(value, color=colour, linestyle="--", linewidth=1, label=f"reported, {row['split']} {row['at']}")
        return
    unit, place = row["at"].split()
    epoch = float(place) if unit == "epoch" else curve["epoch"][curve["step"].index(int(place))]
    axes.plot([epoch], [value], "x", color=colour, markersize=7)
