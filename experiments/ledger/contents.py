"""What ledger.json holds, derived from records, claims and the reasons for missing runs."""

import shlex
from collections.abc import Mapping, Sequence

from experiments.ledger.claims import Claim, planned_run, run_titled
from experiments.ledger.records import record_title
from experiments.ledger.verdicts import finite_or_infinite, measured, scored, verdict
from lm.runs.plain import plain
from lm.runs.provenance import NUMERICS
from lm.scoring.uncertainty import Seeds, summarize_seeds

MOST_SEEDS = 1000  # higher seeds are listed as missing only if a claim requires them


def derive(records: Sequence[dict], claims: Sequence[Claim], reasons: Mapping[str, str]) -> dict:
    """Returns the content of ledger.json: all claims that have a record or a reason, and their missing runs. A run is
    missing if it has no record, and its claim requires its seed or has a run with a higher seed.

    reasons: {title of a run: why it has no record}; ignored for runs on record and for runs of no claim
    """
    present = [record_title(record) for record in records]
    runs = {title: run for title in (*present, *reasons) if (run := run_titled(title, claims))}
    seeds: dict[tuple[str, str], set[int]] = {}
    for run in runs.values():
        seeds.setdefault((run.config.name, run.config.data.corpus), set()).add(run.config.seed)
    by_name = {claim.config.name: claim for claim in claims}
    for (name, corpus), known in sorted(seeds.items()):
        required = max(by_name[name].config.claim.seeds, min(max(known) + 1, MOST_SEEDS))
        lacking = [planned_run(by_name[name], seed, corpus) for seed in range(required) if seed not in known]
        runs |= {run.title: run for run in lacking}
    rows = []
    for claim in claims:
        for corpus in sorted(corpus for name, corpus in seeds if name == claim.config.name):
            own = [r for r in records if (r["name"], r["corpus"]) == (claim.config.name, corpus)]
            rows += target_rows(claim, corpus, own)
    return plain(
        {
            "numerics": NUMERICS,
            "rows": rows,
            "other_scores": other_scores(records, rows),
            "commands": {title: run.command for title, run in runs.items()},
            "not_run": {title: reasons.get(title, "not asked for") for title in runs if title not in present},
        }
    )


def target_rows(claim: Claim, corpus: str, records: Sequence[dict]) -> list[dict]:
    """One row of ledger.json per target of the claim. records: for this claim and corpus, one per seed. Values that are
    not finite, such as the interval of a single seed, become null in JSON."""
    config, rows = claim.config, []
    flags = ["--experiment=reproduce", f"--targets={config.name}", f"--seeds={len(records) or config.claim.seeds}"]
    flags += [f"--corpus={corpus}"] if corpus != config.data.corpus else []
    for name, target in config.targets.to_dict().items():
        values = [value for record in records if (value := measured(target, record)) is not None]
        scores = [score for record in records if (score := scored(target, record))]
        seeds = summarize_seeds(values)._asdict() if values else dict.fromkeys(Seeds._fields)
        row = {
            "config": config.name,
            "target": name,
            "path": claim.path,
            "source": config.source,
            **target,
            "corpus": corpus,
            "values": values,
            **{key: seeds[key] for key in ("mean", "sd", "low", "high")},
            "verdict": verdict(target, values),
            "targets_scored": scores[0]["targets"] if scores else 0,
            "seeds": config.claim.seeds,
            "expected_minutes": config.claim.minutes,
            "minutes": [round(record["train"]["wall_time_s"] / 60, 2) for record in records],
            "command": "python " + shlex.join(["launch.py", *flags]),
        }
        rows.append(row)
    return rows


def other_scores(records: Sequence[dict], rows: Sequence[dict]) -> list[dict]:
    """Scores under protocols without a reported number, such as `exact`."""
    reported = {(row["config"], row["split"], row["protocol"]) for row in rows}
    groups: dict[tuple, dict] = {}
    for record in records:
        for score in record["results"]:
            split, protocol = score["split"], score["protocol"]
            if (record["name"], split, protocol) in reported:
                continue
            key = {"config": record["name"], "corpus": record["corpus"], "split": split}
            key |= {"which": score["which"], "protocol": protocol}
            empty = {**key, "targets_scored": score["targets"], "values": []}
            group = groups.setdefault(tuple(key.values()), empty)
            group["values"].append(finite_or_infinite(score["perplexity"]))
    return list(groups.values())
