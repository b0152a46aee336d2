"""The reports of a ledger, Markdown and HTML, from its content and its records alone."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

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


class Table(NamedTuple):
    """A table with its title, as both reports show it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence]


def detail_tables(content: dict, records: Sequence[dict]) -> list[Table]:
    """What stands behind the verdicts. content: of ledger.json; records: those behind it."""
    rows, others = content["rows"], [other_cells(score) for score in content["other_scores"]]
    tables = [
        Table("The same models under protocols that their sources do not report", OTHER_COLUMNS, others),
        Table("Sources", SOURCE_COLUMNS, select(rows, SOURCE_COLUMNS)),
        Table("Costs and commands", COST_COLUMNS, select(cost_rows(rows), COST_COLUMNS)),
        Table("Where the numbers come from", RUN_COLUMNS, [run_cells(record) for record in records]),
        Table("Not run, and why", ("run", "why"), list(content["not_run"].items())),
    ]
    return [each for each in tables if each.rows]


def render_markdown(content: dict, records: Sequence[dict]) -> str:
    """report.md"""
    rows = content["rows"]
    points = select((row for row in rows if not is_final(row)), POINT_COLUMNS)
    parts = [
        f"# {TITLE}",
        f"{summary_line(rows)} Version of the numerics: {content['numerics']}.",
        LEGEND,
        table(COLUMNS, select(filter(is_final, rows), COLUMNS)),
    ]
    for each in [Table("Points of training curves", POINT_COLUMNS, points), *detail_tables(content, records)]:
        parts += [f"## {each.title}", table(each.columns, each.rows)]
    parts += ["## Commands of single runs", "\n".join(f"- `{command}`" for command in content["commands"].values())]
    return "\n\n".join(parts) + "\n"


def render_html(
    content: dict, records: Sequence[dict], draw: Callable[[str, list, list], bytes] = training_curves
) -> str:
    """report.html. draw: (config, its records, its rows) -> SVG"""
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
        legend=LEGEND,
        columns=COLUMNS,
        final=[row for row in rows if is_final(row)],
        figures=figures,
        point_columns=POINT_COLUMNS,
        tables=detail_tables(content, records),
        samples=[record for record in records if record["seed"] == 0 and "samples" in record],
        cells=cells,
        summary_line=summary_line,
    )
