"""The ledger's reports: Markdown and HTML, from records and claims alone."""

from collections.abc import Mapping, Sequence

from experiments.ledger.claims import Claim
from experiments.ledger.curves import curves
from experiments.ledger.records import Row, ledger
from experiments.ledger.runs import row_command, run_of, run_titled
from experiments.pages import html, markdown
from lm.runs.metrics import plain
from lm.runs.provenance import NUMERICS
from lm.scoring.uncertainty import summarize_seeds

VERDICTS = ("reproduced", "better", "worse", "not distinguishable", "not run")
COLUMNS = ("config", "what", "reported", "ours", "95% interval", "verdict", "protocol", "corpus", "targets scored",
           "cost", "where", "command")  # fmt: skip


# ---------------------------------------------------------------------------------------- content


def content(records: list[dict], claims: Sequence[Claim], not_run: Mapping[str, str]) -> dict:
    """What ledger.json says of records, each a run of one of the claims.

    not_run: {title of a run: why it has no record}
    """
    paths = {claim.config.name: claim for claim in claims}
    absent = [run for title in not_run if (run := run_titled(title, claims))]
    missing: dict[str, set] = {}
    for run in absent:
        missing.setdefault(run.config.name, set()).add(run.config.data.corpus)
    rows = ledger(records, [claim.config for claim in claims], missing)
    there = [run_of(paths[r["name"]], r["seed"], r["corpus"]) for r in records if r["name"] in paths]
    return plain(
        {
            "numerics": NUMERICS,
            "rows": [row_of(row, paths[row.name], records) for row in rows],
            "other_scores": other_scores(records, rows),
            "commands": {run.title: run.command for run in (*there, *absent)},
            "not_run": not_run,
        }
    )


def row_of(row: Row, claim: Claim, records: list[dict]) -> dict:
    """A row of ledger.json. sd and interval are null with fewer than two seeds."""
    here = [r for r in records if (r["name"], r["corpus"]) == (row.name, row.corpus)]
    seeds, corpus = row.seeds if row.values else None, row.corpus or claim.config.data.corpus
    return {
        "config": row.name,
        "target": row.target_name,
        "path": claim.path,
        "source": claim.config.source,
        **row.target,
        "corpus": corpus,
        "values": list(row.values),
        "mean": seeds.mean if seeds else None,
        "sd": seeds.sd if seeds else None,
        "low": seeds.low if seeds else None,
        "high": seeds.high if seeds else None,
        "verdict": row.verdict,
        "targets_scored": row.scored,
        "seeds": claim.config.claim.seeds,
        "expected_minutes": claim.config.claim.minutes,
        "minutes": [round(r["train"]["wall_time_s"] / 60, 2) for r in here],
        "command": row_command(claim, corpus, len(here) or claim.config.claim.seeds),
    }


def other_scores(records: list[dict], rows: list[Row]) -> list[dict]:
    """Final scores under protocols for which nothing is reported, such as the exact stream."""
    reported = {(row.name, row.target["split"], row.target["protocol"]) for row in rows}
    groups: dict[tuple, list[dict]] = {}
    for record in records:
        for result in record["results"]:
            if (record["name"], result["split"], result["protocol"]) not in reported:
                key = (record["name"], record["corpus"], result["split"], result["which"], result["protocol"])
                groups.setdefault(key, []).append(result)
    names = ("config", "corpus", "split", "which", "protocol")
    return [
        dict(zip(names, key, strict=True))
        | {
            "targets_scored": results[0]["targets"],
            "values": [result["perplexity"] for result in results if result["perplexity"] is not None],
        }
        for key, results in groups.items()
    ]


# ------------------------------------------------------------------------------------------ cells


def number(value: float) -> str:
    return f"{value:.4f}" if value < 2 else f"{value:.3f}"


def ours(values: Sequence[float]) -> str:
    """mean ± sd (n seeds)"""
    if not values:
        return ""
    seeds = summarize_seeds(values)
    spread = f" ± {seeds.sd:.3f} ({seeds.n} seeds)" if seeds.n > 1 else " (1 seed)"
    return number(seeds.mean) + spread


def interval(values: Sequence[float]) -> str:
    """[low, high] of the mean over seeds; empty where one seed says nothing of it."""
    if len(values) < 2:
        return ""
    seeds = summarize_seeds(values)
    return f"[{number(seeds.low)}, {number(seeds.high)}]"


def what(row: dict) -> str:
    return f"{row['split']} {row['metric'].replace('_', ' ')}, {row['at']}"


def cost(row: dict) -> str:
    """Minutes of a run, measured where there is one."""
    minutes = row["minutes"]
    return f"{sum(minutes) / len(minutes):.1f} min" if minutes else f"about {row['expected_minutes']:g} min"


def cells(row: dict) -> list:
    """The cells of COLUMNS."""
    scored, corpus, values = row["targets_scored"], row["corpus"] if row["values"] else "", row["values"]
    return [row["config"], what(row), f"{row['value']:g}", ours(values), interval(values), row["verdict"],
            row["protocol"], corpus, f"{scored:,}" if scored else "", cost(row), row["where"],
            row["command"]]  # fmt: skip


# Of COLUMNS, those that a table has which must be narrow.
NARROW = ("config", "what", "reported", "ours", "verdict", "protocol", "corpus")


def targets_table(rows: list[dict], columns: Sequence[str] = NARROW) -> str:
    """Some of COLUMNS as Markdown, one line per target."""
    places = [COLUMNS.index(column) for column in columns]
    return markdown.table(columns, [[cells(row)[place] for place in places] for row in rows])


OTHER_COLUMNS = ("config", "corpus", "split", "protocol", "targets scored", "perplexity")


def other_cells(score: dict) -> list:
    split = f"{score['split']} ({score['which']})"
    return [score["config"], score["corpus"], split, score["protocol"], f"{score['targets_scored']:,}",
            ours(score["values"])]  # fmt: skip


def summary_line(rows: list[dict]) -> str:
    counts = [(sum(row["verdict"] == verdict for row in rows), verdict) for verdict in VERDICTS]
    return f"{len(rows)} reported numbers: " + ", ".join(f"{count} {verdict}" for count, verdict in counts if count)


# ---------------------------------------------------------------------------------------- reports

LEGEND = (
    "Verdicts follow from the numbers alone. Worse: the mean over seeds lies above the reported value plus the "
    "tolerance that the config states, and so does the whole 95% interval over seeds; not distinguishable: the mean "
    "does, the interval does not; better: the whole interval is more than 5% under; reproduced: what remains. With one "
    "seed there is no interval, and the value alone decides."
)
PROVENANCE_COLUMNS = ("run", "identity", "revision", "jax", "device", "minutes", "scores of the test split")


def provenance_cells(record: dict) -> list:
    source = record["provenance"]
    git = source["git"] or {"revision": "unknown", "dirty": False}
    revision = git["revision"][:10] + (" and changes" if git["dirty"] else "")
    device = source["device"]["cpu"] if source["device"]["platform"] == "cpu" else source["device"]["kind"]
    minutes = record["train"]["wall_time_s"] / 60
    run = f"{record['name']} on {record['corpus']}, seed {record['seed']}"
    return [
        run,
        source["identity"],
        revision,
        source["versions"]["jax"],
        device,
        round(minutes, 1),
        record["test_scores"],
    ]


def render_markdown(ledger_content: dict, records: list[dict]) -> str:
    rows = ledger_content["rows"]
    parts = [
        "# Reported numbers against ours",
        f"{summary_line(rows)}. Version of the numerics: {ledger_content['numerics']}.",
        LEGEND,
        targets_table(rows, COLUMNS),
        "## The same models under protocols their sources do not report",
        markdown.table(OTHER_COLUMNS, [other_cells(score) for score in ledger_content["other_scores"]]),
        "## Where the numbers come from",
        markdown.table(PROVENANCE_COLUMNS, [provenance_cells(record) for record in records]),
    ]
    if ledger_content["not_run"]:
        parts += ["## Not run", markdown.table(("run", "why"), list(ledger_content["not_run"].items()))]
    parts += ["## Commands", "\n".join(f"- `{command}`" for command in ledger_content["commands"].values())]
    return "\n\n".join(parts) + "\n"


def drawn(ledger_content: dict, records: list[dict]) -> list[str]:
    """The configs of which there is a picture."""
    there = {record["name"] for record in records}
    return [name for name in dict.fromkeys(row["config"] for row in ledger_content["rows"]) if name in there]


def draw(ledger_content: dict, records: list[dict]) -> dict[str, bytes]:
    """{config: SVG of its runs' curves and what is reported of them}"""
    pictures = {}
    for name in drawn(ledger_content, records):
        own = [record for record in records if record["name"] == name]
        pictures[name] = curves(name, own, [row for row in ledger_content["rows"] if row["config"] == name])
    return pictures


def render_html(ledger_content: dict, records: list[dict], pictures: Mapping[str, bytes]) -> str:
    """pictures: as `draw` gives them"""
    rows = ledger_content["rows"]
    sections = [
        html.paragraph(f"{summary_line(rows)}. Version of the numerics: {ledger_content['numerics']}."),
        html.paragraph(LEGEND),
        html.table(COLUMNS, [cells(row) for row in rows]),
        html.heading("The same models under protocols their sources do not report"),
        html.table(OTHER_COLUMNS, [other_cells(score) for score in ledger_content["other_scores"]]),
        html.heading("Curves"),
        html.paragraph("Lines: ours, one per seed. Crosses and dashed lines: reported."),
    ]
    for name, picture in pictures.items():
        sections.append(html.figure(picture, "svg", name, f"Training curves of {name}"))
    sections.append(html.heading("Samples"))
    for record in records:
        if record["seed"] == 0 and "samples" in record:
            title = f"{record['name']} on {record['corpus']}"
            sections.append(html.details(title, html.preformatted("\n\n".join(record["samples"]))))
    sections.append(html.heading("Where the numbers come from"))
    sections.append(html.table(PROVENANCE_COLUMNS, [provenance_cells(record) for record in records]))
    if ledger_content["not_run"]:
        sections.append(html.heading("Not run"))
        sections.append(html.table(("run", "why"), list(ledger_content["not_run"].items())))
    sections.append(html.heading("Commands"))
    sections.append(html.preformatted("\n".join(ledger_content["commands"].values())))
    return html.page("Reported numbers against ours", sections)
