"""Reports a comparison of runs as Markdown, as curves, and as an HTML page with both.

comparison: the content of compare.json (experiments/compare.py)
"""

import json
import math

from experiments.pages import new_figure, points, render, svg_of, use_log_axis
from experiments.pages.markdown import table

PAIR_COLUMNS = ("a", "b", "perplexity a", "perplexity b", "nats a - b", "95% interval", "targets", "verdict")
CURVES = (("loss", "training loss (nats)"), ("valid_perplexity", "validation perplexity"))


def write_markdown(comparison: dict) -> str:
    """The report as Markdown; it shows curves.png."""
    shown = contents(comparison)
    parts = [
        f"# {shown['title']}",
        table(PAIR_COLUMNS, shown["pairs"]),
        shown["explanation"],
        "## Results",
        table(("metric", *shown["names"]), shown["metrics"]),
        "## Config keys that differ",
        table(("key", *shown["names"]), shown["differences"]) if shown["differences"] else "None.",
        "![curves](curves.png)",
    ]
    return "\n\n".join(parts) + "\n"


def write_html(comparison: dict, curves) -> str:
    """The report as one HTML document. curves: from draw_curves"""
    shown = contents(comparison) | {"pair_columns": PAIR_COLUMNS, "runs": comparison["runs"]}
    return render("comparison.html", curves=svg_of(curves), **shown)


def contents(comparison: dict) -> dict:
    """What both reports show: title, names of the runs, explanation and the rows of the tables."""
    names = [run["label"] for run in comparison["runs"]]
    text = (
        f"Models at their {comparison['checkpoint']} checkpoint, on {comparison['split']}, each target once under the "
        "exact protocol; the interval is from a paired block bootstrap. If it contains 0, the runs are not "
        "distinguishable on this text; other seeds may differ."
    )
    if len(comparison["pairs"]) > 1:
        text += " Of pairs that do not differ, one in twenty is still reported as different."
    shown = {"title": " against ".join(names), "names": names, "explanation": text}
    shown["pairs"] = [_pair_row(pair) for pair in comparison["pairs"]]
    for part in ("metrics", "differences"):
        shown[part] = [[key, *map(_cell, values)] for key, values in comparison[part].items()]
    return shown


def _pair_row(pair: dict) -> list:
    """A row of PAIR_COLUMNS."""
    if pair["reason"]:
        return [pair["a"], pair["b"], *[None] * 5, f"{pair['verdict']}: {pair['reason']}"]
    numbers = [_cell(pair[key]) for key in ("a_perplexity", "b_perplexity", "difference")]
    interval = f"{pair['low']:+.5f} to {pair['high']:+.5f}" if math.isfinite(pair["low"]) else None
    return [pair["a"], pair["b"], *numbers, interval, pair["targets"], pair["verdict"]]


def _cell(value):
    """Rounds floats to six digits; values other than numbers, text and None become JSON."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return value if value is None or isinstance(value, str) or type(value) is int else json.dumps(value)


def draw_curves(comparison: dict):
    """Draws a figure of training loss and validation perplexity, against steps and against epochs."""
    figure = new_figure(11, 8)
    axes = figure.subplots(len(CURVES), 2, sharex="col", sharey="row")
    for row, (column, title) in zip(axes, CURVES, strict=True):
        for panel, unit in zip(row, ("step", "epoch"), strict=True):
            for number, run in enumerate(comparison["runs"]):
                x, y = points(run["curve"].get(unit, []), run["curve"].get(column, []))
                style = "o-" if len(x) < 30 else "-"
                label = run["label"].replace("$", r"\$")  # text between two dollar signs would be TeX
                width = 1 + (len(comparison["runs"]) - number) / 2  # equal curves stay visible behind each other
                panel.plot(x, y, style, markersize=3, linewidth=width, color=f"C{number % 10}", label=label)
            use_log_axis(panel)
        row[0].set_ylabel(title)
    for panel, unit in zip(axes[-1], ("steps", "epochs"), strict=True):
        panel.set_xlabel(unit)
    axes[0][0].legend()
    return figure
