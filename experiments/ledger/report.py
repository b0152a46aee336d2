"""The reports of a ledger, Markdown and HTML, from its content and its records alone."""

from collections.abc import Callable, Iterable, Sequence

from experiments.ledger.plots import training_curves
from experiments.ledger.verdicts import VERDICTS
from experiments.pages import render
from experiments.pages.markdown import table
from lm.scoring.uncertainty import summarize_seeds

TITLE = "Reported numbers against ours"
POINT_COLUMNS = ("config", "what", "reported", "ours", "95% interval", "seeds", "verdict", "corpus")
COLUMNS = (*POINT_COLUMNS, "protocol", "scored")
SOURCE_COLUMNS = ("config", "what", "source", "where")
COST_COLUMNS = ("config", "corpus", "cost of a run", "command")
OTHER_COLUMNS = ("config", "corpus", "split", "protocol", "scored", "perplexity", "seeds")
RUN_COLUMNS = ("run", "identity", "revision", "jax", "device", "minutes", "scores of the test split")
LEGEND = (
    "Verdicts follow from the numbers alone. Worse: the mean over seeds is above the reported value plus the tolerance "
    "that the config states, and so is the whole 95% interval over seeds. Not distinguishable: the mean is above, the "
    "interval is not. Better: the whole interval is more than 5% below. Reproduced: everything else. One seed has no "
    "interval: its value alone decides. An aim is this project's own, not a number that a source reports. The column "
    "scored gives the number of targets that a score is a mean over."
)


# ------------------------------------------------------------------------------------------ cells


def is_final(row: dict) -> bool:
    """True for a number of the end or of the best checkpoint; False for a point of the training curve."""
    return row["at"] in ("final", "best")


def cells(row: dict) -> dict[str, object]:
    """What tables show of a row of ledger.json, by column."""
    values, minutes = row["values"], row["minutes"]
    measured, expected = sum(minutes) / max(1, len(minutes)), row["expected_minutes"]
    return {
        "config": row["config"],
        "what": f"{row['split']} {row['metric'].replace('_', ' ')}, {row['at']}",
        "reported": f"{row['value']:g}" + (" (aim)" if row["kind"] == "aim" else ""),
        "ours": mean_and_sd(values),
        "95% interval": interval(values),
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


def shown_verdict(row: dict) -> str:
    """The verdict in words: an aim is met or missed."""
    aims = {"reproduced": "aim met", "better": "aim met", "worse": "aim missed"}
    return aims.get(row["verdict"], row["verdict"]) if row["kind"] == "aim" else row["verdict"]


def select(rows: Iterable[dict], columns: Sequence[str]) -> list[list]:
    """Some of the cells of rows of ledger.json."""
    return [[shown[column] for column in columns] for shown in map(cells, rows)]


def other_cells(score: dict) -> list:
    """Cells of OTHER_COLUMNS. score: of the ledger's other_scores"""
    split, scored = f"{score['split']} ({score['which']})", f"{score['targets_scored']:,}"
    values = score["values"]
    return [score["config"], score["corpus"], split, score["protocol"], scored, mean_and_sd(values), len(values)]


def run_cells(record: dict) -> list:
    """Cells of RUN_COLUMNS: where a record's numbers come from."""
    source = record["provenance"]
    git = source["git"] or {"revision": "unknown", "dirty": False}
    device = source["device"]["cpu"] if source["device"]["platform"] == "cpu" else source["device"]["kind"]
    return [
        f"{record['name']} on {record['corpus']}, seed {record['seed']}",
        source["identity"],
        git["revision"][:10] + (" and changes" if git["dirty"] else ""),
        source["versions"]["jax"],
        device,
        round(record["train"]["wall_time_s"] / 60, 1),
        record["test_scores"],
    ]


def cost_rows(rows: Sequence[dict]) -> list[dict]:
    """One row per config and corpus."""
    return list({(row["config"], row["corpus"]): row for row in reversed(rows)}.values())[::-1]


def number(value: float) -> str:
    return f"{value:.4f}" if value < 2 else f"{value:.3f}"


def mean_and_sd(values: Sequence[float]) -> str:
    """4.080 ± 0.041; of one seed its value."""
    if not values:
        return ""
    seeds = summarize_seeds(values)
    return number(seeds.mean) + (f" ± {seeds.sd:.3f}" if seeds.n > 1 else "")


def interval(values: Sequence[float]) -> str:
    """[low, high] of the mean over seeds; empty with fewer than two."""
    if len(values) < 2:
        return ""
    seeds = summarize_seeds(values)
    return f"[{number(seeds.low)}, {number(seeds.high)}]"


def summary_line(rows: Sequence[dict]) -> str:
    """Reported numbers: 49 (35 reproduced, 4 better, 4 worse, 6 not run). Aims: 2 (2 met)."""
    parts = []
    for kind, title in (("reported", "Reported numbers"), ("aim", "Aims")):
        verdicts = [shown_verdict(row) for row in rows if row["kind"] == kind]
        known = [word for word in (*VERDICTS, "aim met", "aim missed") if word in verdicts]
        counts = ", ".join(f"{verdicts.count(word)} {word.removeprefix('aim ')}" for word in known)
        parts += [f"{title}: {len(verdicts)} ({counts})."] if verdicts else []
    return " ".join(parts)


# ---------------------------------------------------------------------------------------- reports


def render_markdown(content: dict, records: Sequence[dict]) -> str:
    """report.md. content: of ledger.json; records: those behind it."""
    rows = content["rows"]
    parts = [
        f"# {TITLE}",
        f"{summary_line(rows)} Version of the numerics: {content['numerics']}.",
        LEGEND,
        table(COLUMNS, select(filter(is_final, rows), COLUMNS)),
        "## Points of training curves",
        table(POINT_COLUMNS, select((row for row in rows if not is_final(row)), POINT_COLUMNS)),
        "## The same models under protocols that their sources do not report",
        table(OTHER_COLUMNS, map(other_cells, content["other_scores"])),
        "## Sources",
        table(SOURCE_COLUMNS, select(rows, SOURCE_COLUMNS)),
        "## Costs and commands",
        table(COST_COLUMNS, select(cost_rows(rows), COST_COLUMNS)),
        "## Where the numbers come from",
        table(RUN_COLUMNS, map(run_cells, records)),
    ]
    if content["not_run"]:
        parts += ["## Not run", table(("run", "why"), list(content["not_run"].items()))]
    parts += ["## Commands of single runs", "\n".join(f"- `{command}`" for command in content["commands"].values())]
    return "\n\n".join(parts) + "\n"


def render_html(
    content: dict, records: Sequence[dict], draw: Callable[[str, list, list], bytes] = training_curves
) -> str:
    """report.html. content, records: as for `render_markdown`; draw: (config, its records, its rows) -> SVG"""
    rows, figures = content["rows"], []
    for name in dict.fromkeys(row["config"] for row in rows):
        own, its_rows = [r for r in records if r["name"] == name], [row for row in rows if row["config"] == name]
        points = [row for row in its_rows if not is_final(row)]
        if own:
            figures.append({"name": name, "picture": draw(name, own, its_rows), "points": points})
    return render(
        "ledger.html",
        title=TITLE,
        content=content,
        summary=summary_line(rows),
        legend=LEGEND,
        columns=COLUMNS,
        final=[row for row in rows if is_final(row)],
        figures=figures,
        point_columns=[column for column in POINT_COLUMNS if column != "config"],
        cells=cells,
        summary_line=summary_line,
        other_columns=OTHER_COLUMNS,
        others=[other_cells(score) for score in content["other_scores"]],
        source_columns=SOURCE_COLUMNS,
        sources=select(rows, SOURCE_COLUMNS),
        cost_columns=COST_COLUMNS,
        costs=select(cost_rows(rows), COST_COLUMNS),
        run_columns=RUN_COLUMNS,
        runs=[run_cells(record) for record in records],
        samples=[record for record in records if record["seed"] == 0 and "samples" in record],
    )
