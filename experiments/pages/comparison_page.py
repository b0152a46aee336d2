"""Reports a comparison of runs: as Markdown, as curves, and as an HTML page with both.

comparison: the content of compare.json (experiments/compare.py)
"""

import json
from typing import TYPE_CHECKING

from experiments.pages import markdown, render, svg_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAIR_COLUMNS = ("a", "b", "perplexity a", "perplexity b", "nats a - b", "95% interval", "targets", "verdict")
CURVES = (("loss", "training loss (nats)"), ("valid_perplexity", "validation perplexity"))


def write_markdown(comparison: dict) -> str:
    """The report as Markdown; it shows curves.png."""
    names = labels_of(comparison)
    differing = table_rows(comparison["differences"])
    parts = [
        f"# {title_of(comparison)}",
        markdown.table(PAIR_COLUMNS, pair_rows(comparison)),
        explain_pairs(comparison),
        "## Results",
        markdown.table(("metric", *names), table_rows(comparison["metrics"])),
        "## Config keys that differ",
        markdown.table(("key", *names), differing) if differing else "None.",
        "![curves](curves.png)",
    ]
    return "\n\n".join(parts) + "\n"


def write_html(comparison: dict, curves: "Figure") -> str:
    """The report as one HTML document. curves: from draw_curves"""
    runs = []
    for run in comparison["runs"]:
        provenance = {key: value for key, value in run["provenance"].items() if key != "config"}
        runs.append(run | {"provenance": json.dumps(provenance, indent=2, ensure_ascii=False)})
    return render(
        "comparison.html",
        title=title_of(comparison),
        names=labels_of(comparison),
        pair_columns=PAIR_COLUMNS,
        pairs=pair_rows(comparison),
        explanation=explain_pairs(comparison),
        metrics=table_rows(comparison["metrics"]),
        differences=table_rows(comparison["differences"]),
        curves=svg_of(curves),
        runs=runs,
    )


def labels_of(comparison: dict) -> list[str]:
    return [run["label"] for run in comparison["runs"]]


def title_of(comparison: dict) -> str:
    return " against ".join(labels_of(comparison))


def pair_rows(comparison: dict) -> list[list]:
    """Rows of PAIR_COLUMNS."""
    rows = []
    for pair in comparison["pairs"]:
        if pair["reason"]:
            rows.append([pair["a"], pair["b"], *[None] * 5, f"{pair['verdict']}: {pair['reason']}"])
            continue
        numbers = [float(f"{pair[key]:.6g}") for key in ("a_perplexity", "b_perplexity", "difference")]
        interval = f"{pair['low']:+.5f} to {pair['high']:+.5f}"
        rows.append([pair["a"], pair["b"], *numbers, interval, pair["targets"], pair["verdict"]])
    return rows


def table_rows(table: dict[str, list]) -> list[list]:
    """Rows of a key and its value in each run."""
    return [[key, *(cell(value) for value in values)] for key, values in table.items()]


def cell(value):
    """Rounds floats to six digits; values other than numbers, text and None become JSON."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return value if value is None or isinstance(value, str) or type(value) is int else json.dumps(value)


def explain_pairs(comparison: dict) -> str:
    """One paragraph on how the pairs were compared."""
    text = (
        f"Models at their {comparison['checkpoint']} checkpoint, on {comparison['split']}, each target once under the "
        "exact protocol; the interval is from a paired block bootstrap. If it contains 0, the runs are not "
        "distinguishable on this text; other seeds are another question."
    )
    if len(comparison["pairs"]) > 1:
        text += " Of pairs that do not differ, one in twenty is still called different."
    return text


def draw_curves(comparison: dict) -> "Figure":
    """Draws training loss and validation perplexity, against steps and against epochs."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

    figure = Figure(figsize=(11, 8), layout="constrained")
    axes = figure.subplots(len(CURVES), 2, sharex="col", sharey="row")
    for row, (column, title) in zip(axes, CURVES, strict=True):
        for panel, unit in zip(row, ("step", "epoch"), strict=True):
            for number, run in enumerate(comparison["runs"]):
                x, y = points(run["curve"], unit, column)
                style = "o-" if len(x) < 30 else "-"
                label = run["label"].replace("$", r"\$")  # text between two dollar signs would be TeX
                width = 1 + (len(comparison["runs"]) - number) / 2  # equal curves stay visible behind each other
                panel.plot(x, y, style, markersize=3, linewidth=width, color=f"C{number % 10}", label=label)
            panel.set_yscale("log")
            panel.yaxis.set_major_formatter(LogFormatter())
            panel.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
            panel.grid(alpha=0.3, which="both")
        row[0].set_ylabel(title)
    for panel, unit in zip(axes[-1], ("steps", "epochs"), strict=True):
        panel.set_xlabel(unit)
    axes[0][0].legend()
    return figure


def points(curve: dict, unit: str, column: str) -> tuple[list, list]:
    """(x, y) of a column of a training curve, without missing values. unit: step or epoch"""
    pairs = zip(curve.get(unit, []), curve.get(column, []), strict=False)
    found = [(x, y) for x, y in pairs if y is not None]
    return [x for x, _ in found], [y for _, y in found]
