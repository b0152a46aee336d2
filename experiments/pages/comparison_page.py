"""How a comparison of runs is shown: a Markdown text, curves, and a page that holds both.

comparison: what compare.json holds (experiments/compare.py)
"""

import json

from experiments.pages import html, markdown

PAIR_COLUMNS = ("a", "b", "perplexity a", "perplexity b", "nats a - b", "95% interval", "targets", "verdict")


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
    """Rows of a key and its value in each run, values that are no numbers as text."""
    return [[key, *(cell(value) for value in values)] for key, values in table.items()]


def cell(value):
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return value if value is None or isinstance(value, str) or type(value) is int else json.dumps(value)


def explained(comparison: dict) -> str:
    """One paragraph on the pairs."""
    text = (
        f"Models at their {comparison['checkpoint']} checkpoint, on {comparison['split']}, each target once under the "
        "exact protocol; the interval is that of a paired block bootstrap. Where it holds 0 the runs are not "
        "distinguishable on this text; other seeds are another question."
    )
    if len(comparison["pairs"]) > 1:
        text += " Of pairs that do not differ, one in twenty is called different all the same."
    return text


def in_markdown(comparison: dict) -> str:
    """All of it as Markdown, beside curves.png."""
    names = [each["label"] for each in comparison["runs"]]
    differing = table_rows(comparison["differences"])
    parts = [
        f"# {' against '.join(names)}",
        markdown.table(PAIR_COLUMNS, pair_rows(comparison)),
        explained(comparison),
        "## Results",
        markdown.table(("metric", *names), table_rows(comparison["metrics"])),
        "## Config keys that differ",
        markdown.table(("key", *names), differing) if differing else "None.",
        "![curves](curves.png)",
    ]
    return "\n\n".join(parts) + "\n"


def page(comparison: dict, curves) -> str:
    """All of it as one HTML document; curves: what draw_curves gave."""
    names = [each["label"] for each in comparison["runs"]]
    differing = table_rows(comparison["differences"])
    caption = "Training loss and validation perplexity as metrics.jsonl has them, against steps and epochs."
    sections = [
        html.table(PAIR_COLUMNS, pair_rows(comparison)),
        html.paragraph(explained(comparison)),
        html.heading("Results"),
        html.table(("metric", *names), table_rows(comparison["metrics"])),
        html.heading("Config keys that differ"),
        html.table(("key", *names), differing) if differing else html.paragraph("None."),
        html.heading("Curves"),
        html.figure(html.svg_of(curves), "svg", caption, f"learning curves of {', '.join(names)}"),
        html.heading("Samples and provenance"),
    ]
    for each in comparison["runs"]:
        sections.append(html.details(f"Samples of {each['label']}", html.preformatted("\n\n".join(each["samples"]))))
        provenance = {key: value for key, value in each["provenance"].items() if key != "config"}
        text = json.dumps(provenance, indent=2, ensure_ascii=False)
        sections.append(html.details(f"Provenance of {each['label']}", html.preformatted(text)))
    return html.page(" against ".join(names), sections)


CURVES = (("loss", "training loss (nats)"), ("valid_perplexity", "validation perplexity"))


def draw_curves(comparison: dict):
    """A matplotlib figure: training loss and validation perplexity, against steps and against epochs."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

    figure = Figure(figsize=(11, 8), layout="constrained")
    axes = figure.subplots(len(CURVES), 2, sharex="col", sharey="row")
    for row, (column, title) in zip(axes, CURVES, strict=True):
        for panel, place in zip(row, ("step", "epoch"), strict=True):
            for number, each in enumerate(comparison["runs"]):
                x, y = points(each["curve"], place, column)
                style = "o-" if len(x) < 30 else "-"
                label = each["label"].replace("$", r"\$")  # what lies between two of them is TeX
                width = 1 + (len(comparison["runs"]) - number) / 2  # of equal curves all show, one within the other
                panel.plot(x, y, style, markersize=3, linewidth=width, color=f"C{number % 10}", label=label)
            panel.set_yscale("log")
            panel.yaxis.set_major_formatter(LogFormatter())
            panel.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
            panel.grid(alpha=0.3, which="both")
        row[0].set_ylabel(title)
    for panel, place in zip(axes[-1], ("steps", "epochs"), strict=True):
        panel.set_xlabel(place)
    axes[0][0].legend()
    return figure


def points(curve: dict, place: str, column: str) -> tuple[list, list]:
    """Where a column of a training curve has values, and these."""
    found = [(x, y) for x, y in zip(curve.get(place, []), curve.get(column, []), strict=False) if y is not None]
    return [x for x, _ in found], [y for _, y in found]
