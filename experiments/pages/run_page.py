"""The page of a finished run: curves.png, confusion.png of labels, attention.png, and a self-contained report.html."""

import math
from pathlib import Path

from experiments.ledger.records import METRICS_ROW, make_record
from experiments.ledger.report import shown_target, shown_verdict
from experiments.ledger.verdicts import is_final, measured, verdict
from experiments.pages import new_figure, png_of, points, render, svg_of, use_log_axis
from experiments.pages.attention import draw_attention, shown
from experiments.pages.confusion import draw_confusion
from experiments.pages.printed import changed_from_source, measures_of, targets_of
from lm.runs.files import write_bytes
from lm.runs.schema import read_rows
from lm.scoring.measures import MEASURES

TARGET_COLUMNS = ("what", "reported", "ours", "verdict", "where")
EXAMPLE_COLUMNS = ("source", "written", "target")
# Panels of the figure: axis label -> {column of metrics.jsonl: label of its line}.
PANELS = {
    "perplexity": {"perplexity": "train", "valid_perplexity": "valid"},
    "learning rate": {"learning_rate": ""},
    "gradient norm": {"gradient_norm": ""},
}


def write_run_page(workdir: str | Path) -> list[Path]:
    """Writes the pictures and the page of a finished run to its work directory. Returns their paths, the page last.
    Raises UserError if the run is not finished, or a file cannot be written."""
    workdir = Path(workdir)
    record, rows = make_record(workdir), read_rows(workdir / "metrics.jsonl", METRICS_ROW)
    targets = targets_of(record["provenance"]["config"])
    figures = {"curves": draw_curves(rows, list(targets.values()))}
    if "confusion" in record:
        figures["confusion"] = draw_confusion(record["confusion"])
    examples = record.get("examples", [])
    if examples and "attention" in examples[0]:
        figures["attention"] = draw_attention(examples)
    score_columns, scores = score_table(record)
    page = render(
        "run.html",
        title=record["name"] or workdir.name,
        summary=summarise(record),
        score_columns=score_columns,
        scores=scores,
        target_columns=TARGET_COLUMNS,
        targets=target_rows(record, targets),
        changed=changed_from_source(record["provenance"]["config"]),
        figures={name: svg_of(figure) for name, figure in figures.items()},
        record=record,
        example_columns=EXAMPLE_COLUMNS,
        examples=[example_row(example, record["provenance"]["data"].get("level")) for example in examples],
    )
    files = {f"{name}.png": png_of(figure) for name, figure in figures.items()} | {"report.html": page.encode()}
    for name, content in files.items():
        write_bytes(workdir / name, content)
    return [workdir / name for name in files]


def summarise(record: dict) -> str:
    """Describes the training in one line."""
    train, data = record["train"], record["provenance"]["data"]
    return (
        f"{record['parameters']:,} parameters, {train['steps']:,} steps on {data.get('corpus', record['corpus'])}, "
        f"seed {record['seed']}, {train['wall_time_s']:.0f} s; identity {record['provenance']['identity']}"
    )


def score_table(record: dict) -> tuple[list[str], list[list]]:
    """(columns, rows) of the scores, with the measures of labels if there are any."""
    results = record["results"]
    measures = measures_of(results[0]) if results else []
    keys = ["which", "split", "protocol", *measures, "perplexity", "bits_per_symbol", "nats", "targets"]
    columns = [{"which": "checkpoint"}.get(key, key.replace("_", " ")) for key in keys]
    return columns, [[row[key] for key in keys] for row in results]


def target_rows(record: dict, targets: dict) -> list[list]:
    """Rows of TARGET_COLUMNS: each reported number beside this run's, judged as in the ledger."""
    rows = []
    for target in targets.values():
        value = measured(target, record)
        what = f"{target['split']} {target['metric']}, {target['at']} ({target['protocol']})"
        judged = target | {"verdict": verdict(target, [] if value is None else [value])}
        rows.append([what, shown_target(target), value, shown_verdict(judged), target["where"]])
    return rows


def example_row(example: dict, level: str | None) -> list[str]:
    """The cells of a pair for EXAMPLE_COLUMNS."""
    between = "" if level == "char" else " "
    return [*(between.join(map(shown, example[side])) for side in EXAMPLE_COLUMNS[:2]), example["target"]]


def draw_curves(rows: list[dict], targets: list[dict]):
    """Draws PANELS and validation measures against steps, and reported final perplexities as dashed lines."""
    panels = {"perplexity": PANELS["perplexity"]}
    for name, measure in MEASURES.items():
        if any(f"valid_{name}" in row for row in rows):
            panels.setdefault(measure.panel, {})[f"valid_{name}"] = f"{measure.label}, valid"
    panels |= PANELS
    figure = new_figure(9, 8)
    axes = figure.subplots(len(panels), 1, sharex=True, height_ratios=(3, *[1] * (len(panels) - 1)))
    for panel, (title, columns) in zip(axes, panels.items(), strict=True):
        for column, label in columns.items():
            steps, values = points([row["step"] for row in rows], [row.get(column) for row in rows])
            if steps:
                panel.plot(steps, values, label=label)
        panel.set_ylabel(title)
        panel.grid(alpha=0.3, which="both")
    for target in targets:
        if is_final(target) and target["metric"] in ("perplexity", "loss"):
            value = math.exp(target["value"]) if target["metric"] == "loss" else target["value"]
            axes[0].axhline(value, linestyle="--", linewidth=1, color="grey", label=f"reported, {target['split']}")
    use_log_axis(axes[0])
    if axes[0].get_legend_handles_labels()[0]:
        axes[0].legend()
    axes[-1].set_xlabel("steps")
    return figure
