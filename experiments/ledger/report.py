"""Renders the Markdown and HTML reports of a ledger from the ledger's content and records."""

import itertools
from collections.abc import Callable, Iterable, Sequence

from experiments.ledger.plots import training_curves
from experiments.ledger.verdicts import VERDICTS, is_final
from experiments.pages import render
from experiments.pages.markdown import table
from lm.scoring.uncertainty import summarize_seeds

Draw = Callable[[str, list[dict], list[dict]], bytes]  # (config, its records, its rows) -> SVG
TITLE = "Reported numbers against ours"
SHORT_COLUMNS = ("config", "what", "reported", "ours", "verdict", "corpus", "seeds")
POINT_COLUMNS = ("config", "what", "reported", "ours", "95% interval", "seeds", "verdict", "corpus")
COLUMNS = (*POINT_COLUMNS, "protocol", "scored")
SOURCE_COLUMNS = ("config", "what", "source", "where")
COST_COLUMNS = ("config", "corpus", "cost of a run", "command")
OTHER_COLUMNS = ("config", "corpus", "split", "protocol", "scored", "perplexity", "seeds")
RUN_COLUMNS = ("run", "identity", "revision", "jax", "device", "minutes", "times test was scored")
LEGEND = (
    "Verdicts follow from the numbers alone. The bound is the reported value plus the config's tolerance. Worse: "
    "the whole 95% interval over seeds is above the bound. Not distinguishable: the mean is above it, but the "
    "lower end of the interval is not. Better: the whole interval is more than 5% below the reported value. "
    "Reproduced: everything else. A single seed's value counts as its interval. Where higher is better, the error "
    "1 - value is compared; for BLEU, the negative value. An aim is this project's own number, not one that a "
    "source reports. Scored: the number of predictions that a score averages."
)


# --- Cells ----------------------------------------------------------------------------------------------------------


def cells(row: dict) -> dict[str, object]:
    """{column: cell} for a row of ledger.json."""
    values, minutes = row["values"], row["minutes"]
    measured, expected = sum(minutes) / max(1, len(minutes)), row["expected_minutes"]
    return {
        "config": row["config"],
        "what": f"{row['split']} {row['metric'].replace('_', ' ')}, {row['at']}",
        "reported": shown_target(row),
        "ours": mean_and_sd(values),
        "95% interval": f"[{number(row['low'])}, {number(row['high'])}]" if row["low"] is not None else "",
        "seeds": len(values) or None,
        "verdict": shown_verdict(row),
        "protocol": row["protocol"],
        "corpus": row["corpus"] if values else None,
        "scored": f"{row['targets_scored']:,}" if row["targets_scored"] else None,
        "source": row["source"],
        "where": row["where"],
        "cost of a run": f"{measured:.1f} min" if minutes else f"about {expected:g} min",
        "command": row["command"],
    }


def shown_target(target: dict) -> str:
    return f"{target['value']:g}" + (" (aim)" if target["kind"] == "aim" else "")


def shown_verdict(row: dict) -> str:
    """The verdict in words: an aim is met or missed."""
    aims = {"reproduced": "aim met", "better": "aim met", "worse": "aim missed"}
    return aims.get(row["verdict"], row["verdict"]) if row["kind"] == "aim" else row["verdict"]


def select(rows: Iterable[dict], columns: Sequence[str]) -> list[list]:
    """The cells of the given columns for each row of ledger.json."""
    return [[shown[column] for column in columns] for shown in map(cells, rows)]


def other_cells(score: dict) -> list:
    """Cells of OTHER_COLUMNS. score: one of ledger.json's other_scores"""
    split, scored = f"{score['split']} ({score['which']})", f"{score['targets_scored']:,}"
    values = score["values"]
    return [score["config"], score["corpus"], split, score["protocol"], scored, mean_and_sd(values), len(values)]


def run_cells(record: dict) -> list:
    """Cells of RUN_COLUMNS: where a record's numbers come from."""
    source = record["provenance"]
    git, device = source["git"], source["device"]
    return [
        f"{record['name']} on {record['corpus']}, seed {record['seed']}",
        source["identity"],
        git["revision"][:10] + (" and changes" if git["dirty"] else "") if git else "unknown",
        source["versions"]["jax"],
        device["cpu"] if device["platform"] == "cpu" else device["kind"],
        round(record["train"]["wall_time_s"] / 60, 1),
        record["test_scores"],
    ]


def number(value: float) -> str:
    return f"{value:.4f}" if value < 2 else f"{value:.3f}"


def mean_and_sd(values: Sequence[float | None]) -> str:
    """The mean and standard deviation as text, such as 4.080 ± 0.041; for one seed, its value alone. None stands for a
    perplexity that is too large for a float."""
    if not values:
        return ""
    finite = [value for value in values if value is not None]
    if len(finite) < len(values):
        return f"infinite for {len(values) - len(finite)} of {len(values)}"
    seeds = summarize_seeds(finite)
    return number(seeds.mean) + (f" ± {seeds.sd:.3f}" if seeds.n > 1 else "")


def summary_line(rows: Sequence[dict]) -> str:
    """Counts the verdicts in words, such as: Reported numbers: 49 (35 reproduced, 14 worse). Aims: 2 (2 met)."""
    parts = []
    for kind, title in (("reported", "Reported numbers"), ("aim", "Aims")):
        verdicts = [shown_verdict(row) for row in rows if row["kind"] == kind]
        known = [word for word in (*VERDICTS, "aim met", "aim missed") if word in verdicts]
        counts = ", ".join(f"{verdicts.count(word)} {word.removeprefix('aim ')}" for word in known)
        parts += [f"{title}: {len(verdicts)} ({counts})."] if verdicts else []
    return " ".join(parts)


# --- Reports --------------------------------------------------------------------------------------------------------


def detail_tables(content: dict, records: Sequence[dict]) -> list[tuple[str, Sequence[str], list]]:
    """(title, columns, rows) of each table after the verdicts. content: ledger.json; records: its records"""
    rows = content["rows"]
    costs: dict[tuple, dict] = {}
    for row in rows:
        costs.setdefault((row["config"], row["corpus"]), row)
    others = [other_cells(score) for score in content["other_scores"]]
    tables = [
        ("The same models under protocols that their sources do not report", OTHER_COLUMNS, others),
        ("Sources", SOURCE_COLUMNS, select(rows, SOURCE_COLUMNS)),
        ("Costs and commands", COST_COLUMNS, select(costs.values(), COST_COLUMNS)),
        ("Where the numbers come from", RUN_COLUMNS, [run_cells(record) for record in records]),
        ("Not run, and why", ("run", "why"), list(content["not_run"].items())),
    ]
    return [(title, columns, rows) for title, columns, rows in tables if rows]


def render_both(content: dict, records: Sequence[dict], draw: Draw = training_curves) -> dict[str, bytes]:
    """{file name: content} of both reports."""
    pages = {"report.md": render_markdown(content, records), "report.html": render_html(content, records, draw)}
    return {name: page.encode() for name, page in pages.items()}


def render_markdown(content: dict, records: Sequence[dict]) -> str:
    """report.md"""
    rows = content["rows"]
    parts = [
        f"# {TITLE}",
        f"{summary_line(rows)} Version of the numerics: {content['numerics']}.",
        LEGEND,
        table(COLUMNS, select(filter(is_final, rows), COLUMNS)),
        "## Points of training curves",
        table(POINT_COLUMNS, select(itertools.filterfalse(is_final, rows), POINT_COLUMNS)),
    ]
    for title, columns, cells_of_rows in detail_tables(content, records):
        parts += [f"## {title}", table(columns, cells_of_rows)]
    parts += ["## Commands of single runs", "\n".join(f"- `{command}`" for command in content["commands"].values())]
    return "\n\n".join(parts) + "\n"


def render_html(content: dict, records: Sequence[dict], draw: Draw = training_curves) -> str:
    """report.html"""
    rows, figures = content["rows"], []
    for name in dict.fromkeys(row["config"] for row in rows):
        own, its_rows = [r for r in records if r["name"] == name], [row for row in rows if row["config"] == name]
        points = list(itertools.filterfalse(is_final, its_rows))
        if own:
            figures.append({"name": name, "picture": draw(name, own, its_rows), "points": points})
    return render(
        "ledger.html",
        title=TITLE,
        content=content,
        legend=LEGEND,
        columns=COLUMNS,
        final=filter(is_final, rows),
        figures=figures,
        point_columns=POINT_COLUMNS,
        tables=detail_tables(content, records),
        samples=[record for record in records if record["seed"] == 0 and "samples" in record],
        cells=cells,
        summary_line=summary_line,
    )
