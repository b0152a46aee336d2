"""What ledger.json holds, derived from records, claims and the reasons for missing runs."""

from collections.abc import Collection, Mapping, Sequence

from experiments.ledger.claims import Claim
from experiments.ledger.planned_runs import planned_run, row_command, run_titled
from experiments.ledger.verdicts import measured, scored, verdict
from lm.runs.plain import plain
from lm.runs.provenance import NUMERICS
from lm.scoring.uncertainty import Seeds, summarize_seeds


def derive(records: Sequence[dict], claims: Sequence[Claim], not_run: Mapping[str, str]) -> dict:
    """The content of ledger.json. Every record is a run of one of the claims.

    not_run: {title of a run: why it has no record}
    """
    by_name = {claim.config.name: claim for claim in claims}
    absent = [run for title in not_run if (run := run_titled(title, claims))]
    present = [planned_run(by_name[r["name"]], r["seed"], r["corpus"]) for r in records if r["name"] in by_name]
    corpora: dict[str, set[str]] = {}
    for run in (*present, *absent):
        corpora.setdefault(run.config.name, set()).add(run.config.data.corpus)
    rows = target_rows(records, claims, corpora)
    return plain(
        {
            "numerics": NUMERICS,
            "rows": rows,
            "other_scores": other_scores(records, rows),
            "commands": {run.title: run.command for run in (*present, *absent)},
            "not_run": not_run,
        }
    )


def target_rows(records: Sequence[dict], claims: Sequence[Claim], corpora: Mapping[str, Collection[str]]) -> list[dict]:
    """One row per target of each claim and corpus.

    corpora: {config: corpora of its finished and missing runs}; without any, the claim's own
    """
    rows = []
    for claim in claims:
        for corpus in sorted(corpora.get(claim.config.name, ())) or [claim.config.data.corpus]:
            own = [r for r in records if (r["name"], r["corpus"]) == (claim.config.name, corpus)]
            rows += [target_row(claim, target_name, corpus, own) for target_name in claim.config.targets]
    return rows


def target_row(claim: Claim, target_name: str, corpus: str, records: Sequence[dict]) -> dict:
    """A row of ledger.json. records: of this claim and corpus, one per seed.

    sd, low and high are not finite with fewer than two seeds: null in JSON.
    """
    target = claim.config.targets[target_name].to_dict()
    values = [value for record in records if (value := measured(target, record)) is not None]
    scores = [score for record in records if (score := scored(target, record))]
    seeds = summarize_seeds(values)._asdict() if values else dict.fromkeys(Seeds._fields)
    return {
        "config": claim.config.name,
        "target": target_name,
        "path": claim.path,
        "source": claim.config.source,
        **target,
        "corpus": corpus,
        "values": values,
        **{key: seeds[key] for key in ("mean", "sd", "low", "high")},
        "verdict": verdict(target, values),
        "targets_scored": scores[0]["targets"] if scores else 0,
        "seeds": claim.config.claim.seeds,
        "expected_minutes": claim.config.claim.minutes,
        "minutes": [round(record["train"]["wall_time_s"] / 60, 2) for record in records],
        "command": row_command(claim, corpus, len(records) or claim.config.claim.seeds),
    }


def other_scores(records: Sequence[dict], rows: Sequence[dict]) -> list[dict]:
    """Scores under protocols for which nothing is reported, such as the exact stream."""
    reported = {(row["config"], row["split"], row["protocol"]) for row in rows}
    groups: dict[tuple, list[dict]] = {}
    for record in records:
        for score in record["results"]:
            if (record["name"], score["split"], score["protocol"]) not in reported:
                key = (record["name"], record["corpus"], score["split"], score["which"], score["protocol"])
                groups.setdefault(key, []).append(score)
    names = ("config", "corpus", "split", "which", "protocol")
    return [
        dict(zip(names, key, strict=True))
        | {
            "targets_scored": scores[0]["targets"],
            "values": [score["perplexity"] for score in scores if score["perplexity"] is not None],
        }
        for key, scores in groups.items()
    ]
