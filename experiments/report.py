"""The ledger's reports: Markdown and HTML from records alone, and the check that both still follow from them."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

from experiments import html
from experiments.claims import Claim
from experiments.ledger import RECORDS, Row, digests, identity_then, ledger, load_records
from experiments.report_plots import curves
from lm.errors import UserError
from lm.evaluate import perplexity
from lm.metrics import plain
from lm.provenance import NUMERICS
from lm.schema import read_json

VERDICTS = ("reproduced", "better", "worse", "not distinguishable", "not run")
# What is relied on of ledger.json: a form of lm/schema.py.
LEDGER = {
    "numerics": int,
    "rows": [{"config": str, "target": str, "corpus": str, "verdict": str}],
    "other_scores": [{}],
    "records": {str: str},
    "commands": {str: str},
    "not_run": {str: str},
}
COLUMNS = ("config", "what", "reported", "ours", "verdict", "protocol", "corpus", "targets scored", "cost", "where")


# ---------------------------------------------------------------------------------------- content


def content(
    records: list[dict],
    claims: Sequence[Claim],
    sums: dict[str, str],
    commands: dict[str, str],
    not_run: dict[str, str],
) -> dict:
    """What ledger.json holds.

    sums: {record file: SHA-256}; commands: {run: command line}; not_run: {run: why it has no record}
    """
    rows = ledger(records, [claim.config for claim in claims])
    paths = {claim.config.name: claim for claim in claims}
    return plain(
        {
            "numerics": NUMERICS,
            "rows": [row_of(row, paths[row.name], records) for row in rows],
            "other_scores": other_scores(records, rows),
            "commands": commands,
            "not_run": not_run,
            "records": sums,
        }
    )


def row_of(row: Row, claim: Claim, records: list[dict]) -> dict:
    """A row of ledger.json. sd and interval are null with fewer than two seeds."""
    here = [r for r in records if (r["name"], r["corpus"]) == (row.name, row.corpus)]
    seeds = row.seeds if row.values else None
    return {
        "config": row.name,
        "target": row.target_name,
        "path": claim.path,
        "source": claim.config.source,
        **row.target,
        "corpus": row.corpus or claim.config.data.corpus,
        "values": list(row.values),
        "mean": seeds.mean if seeds else None,
        "sd": seeds.sd if seeds else None,
        "low": seeds.low if seeds else None,
        "high": seeds.high if seeds else None,
        "verdict": row.verdict,
        "targets_scored": row.scored,
        "seeds": claim.config.claim.seeds,
        "expected_minutes": claim.config.claim.minutes,
        "minutes": [round(r["train"]["wall_time_s"] / 60, 2) for r in here if "wall_time_s" in r["train"]],
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
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return f"{number(mean)} (1 seed)"
    sd = math.sqrt(math.fsum((x - mean) ** 2 for x in values) / (len(values) - 1))
    return f"{number(mean)} ± {sd:.3f} ({len(values)} seeds)"


def what(row: dict) -> str:
    return f"{row['split']} {row['metric'].replace('_', ' ')}, {row['at']}"


def cost(row: dict) -> str:
    """Minutes of a run, measured where there is one."""
    minutes = row["minutes"]
    return f"{sum(minutes) / len(minutes):.1f} min" if minutes else f"about {row['expected_minutes']:g} min"


def cells(row: dict) -> list:
    """The cells of COLUMNS."""
    scored, corpus = row["targets_scored"], row["corpus"] if row["values"] else ""
    return [row["config"], what(row), f"{row['value']:g}", ours(row["values"]), row["verdict"], row["protocol"], corpus,
            f"{scored:,}" if scored else "", cost(row), row["where"]]  # fmt: skip


def markdown(columns: Sequence[str], rows: Sequence[Sequence]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def markdown_table(rows: list[dict], columns: Sequence[str] = COLUMNS[:7]) -> str:
    """Some of COLUMNS, one line per target."""
    places = [COLUMNS.index(column) for column in columns]
    return markdown(columns, [[cells(row)[place] for place in places] for row in rows])


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
    minutes = record["train"].get("wall_time_s", math.nan) / 60
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


def write(directory: Path, ledger_content: dict, records: list[dict]):
    """Writes report.md and report.html."""
    (directory / "report.md").write_text(render_markdown(ledger_content, records), encoding="utf-8")
    (directory / "report.html").write_text(render_html(ledger_content, records), encoding="utf-8")


def render_markdown(ledger_content: dict, records: list[dict]) -> str:
    rows = ledger_content["rows"]
    parts = [
        "# Reported numbers against ours",
        f"{summary_line(rows)}. Version of the numerics: {ledger_content['numerics']}.",
        LEGEND,
        markdown_table(rows, COLUMNS),
        "## The same models under protocols their sources do not report",
        markdown(OTHER_COLUMNS, [other_cells(score) for score in ledger_content["other_scores"]]),
        "## Where the numbers come from",
        markdown(PROVENANCE_COLUMNS, [provenance_cells(record) for record in records]),
    ]
    if ledger_content["not_run"]:
        parts += ["## Not run", "\n".join(f"- {name}: {why}" for name, why in ledger_content["not_run"].items())]
    parts += ["## Commands", "\n".join(f"- `{command}`" for command in ledger_content["commands"].values())]
    return "\n\n".join(parts) + "\n"


def render_html(ledger_content: dict, records: list[dict]) -> str:
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
    for name in dict.fromkeys(row["config"] for row in rows):
        own = [record for record in records if record["name"] == name]
        if own:
            figure = curves(name, own, [row for row in rows if row["config"] == name])
            sections.append(html.figure(figure, "svg", name, f"Training curves of {name}"))
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


# ------------------------------------------------------------------------------------------ check


def check(directory: Path, claims: Sequence[Claim]) -> dict:
    """Derives the ledger in directory and its reports again from the records there and today's configs.

    Returns what ledger.json holds. Raises UserError that names what differs.
    """
    path = directory / "ledger.json"
    try:
        stored = read_json(path, LEDGER)
        records = load_records(directory / RECORDS)
        sums = digests(directory / RECORDS)
        wrong = differing_files(stored["records"], sums)
        wrong += [f"{record_title(record)}: {why}" for record in records for why in inconsistencies(record)]
        named = {row["config"] for row in stored["rows"]} | {record["name"] for record in records}
        known = [claim for claim in claims if claim.config.name in named]
        derived = content(records, known, sums, stored["commands"], stored["not_run"])
        wrong += differing_rows(stored["rows"], derived["rows"])
        wrong += [f"ledger.json: {key} differs" for key in ("other_scores", "numerics") if stored[key] != derived[key]]
        for name, render in (("report.md", render_markdown), ("report.html", render_html)):
            text = (directory / name).read_text(encoding="utf-8")
            if without_figures(text) != without_figures(render(derived, records)):
                wrong.append(f"{name} says something else than the records")
    except OSError as error:
        raise UserError(f"--check: cannot read {error.filename}: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, ArithmeticError, AttributeError) as error:
        raise UserError(f"--check: {directory} holds no sound ledger ({type(error).__name__}: {error})") from error
    if wrong:
        raise UserError(f"--check of {directory} found {len(wrong)} differences: {'; '.join(wrong[:8])}")
    print(f"{path}: every verdict follows from {len(records)} records. {summary_line(stored['rows'])}")
    return stored


def record_title(record: dict) -> str:
    return f"record of {record['name']}, seed {record['seed']}"


def differing_files(stored: dict[str, str], found: dict[str, str]) -> list[str]:
    names = sorted(stored.keys() | found.keys())
    return [
        f"{RECORDS}/{name} is not the file that was recorded" for name in names if stored.get(name) != found.get(name)
    ]


def differing_rows(stored: list[dict], derived: list[dict]) -> list[str]:
    """The rows that are not what the records give, with the first key that differs."""
    stored, derived = ({(r["config"], r["target"], r["corpus"]): r for r in rows} for rows in (stored, derived))
    wrong = []
    for key in sorted(stored.keys() | derived.keys()):
        a, b = stored.get(key), derived.get(key)
        if a is None or b is None:
            wrong.append(f"{'/'.join(key)[:80]} is {'missing' if a is None else 'claimed by no config'}")
        elif a != b:
            name = next(name for name in sorted(a | b) if a.get(name) != b.get(name))
            wrong.append(f"{key[0]}/{key[1]}: {name} is {str(a.get(name))[:80]} and should be {b.get(name)}")
    return wrong


def inconsistencies(record: dict) -> list[str]:
    """What in a record contradicts itself."""
    wrong = []
    for row in record["results"]:
        mean, place = row["nats"] / row["targets"], f"{row['split']} under {row['protocol']}"
        stated = math.inf if row["perplexity"] is None else row["perplexity"]  # JSON has no infinity
        if not math.isclose(stated, perplexity(mean), rel_tol=1e-9):
            wrong.append(f"perplexity of {place} does not follow from its nats")
        if not math.isclose(row["bits_per_symbol"], mean / math.log(2), rel_tol=1e-9):
            wrong.append(f"bits per symbol of {place} do not follow from its nats")
    source = record["provenance"]
    if (source["config"]["name"], source["config"]["seed"]) != (record["name"], record["seed"]):
        wrong.append("it names another config or seed than its provenance")
    if identity_then(record) != source["identity"]:
        wrong.append("its identity does not follow from its config")
    return wrong


def without_figures(text: str) -> str:
    """Pictures depend on the version of matplotlib; everything else must agree to the letter."""
    return re.sub(r'src="data:image/[^"]*"', "", text)
