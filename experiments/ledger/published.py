"""Checks what this repository publishes: the ledger of docs/results, sweeps, and the tables made from them."""

import json
from collections.abc import Sequence
from pathlib import Path

from configs.catalogue import all_configs
from experiments.ledger import results_page
from experiments.ledger.claims import Claim
from experiments.ledger.records import RESULTS
from experiments.pages.markdown import ROOT, with_section
from experiments.peers import speed_page
from experiments.sweeps.plan import PLANNED, number_of_trials, plan_trial
from experiments.sweeps.space import make_space
from lm.runs.plain import plain


def faults(ledger: dict, claims: Sequence[Claim]) -> list[str]:
    """One line for each missing or outdated item. ledger: content of docs/results/ledger.json"""
    return [*unexplained(ledger, claims), *outdated_tables(), *wrong_sweeps(RESULTS / "sweeps")]


def unexplained(ledger: dict, claims: Sequence[Claim]) -> list[str]:
    """One line for each claim that has neither a record nor a reason why it has no record."""
    known = {row["config"] for row in ledger["rows"]} | {score["config"] for score in ledger["other_scores"]}
    unknown = [claim.path for claim in claims if claim.config.name not in known]
    return [f"{path} has no record, and ledger.json gives no reason" for path in unknown]


def outdated_tables() -> list[str]:
    """One line for each generated section of README and docs that no longer matches the records."""
    sections = results_page.sections() | {(speed_page.PAGE, "speed"): speed_page.section()}
    texts = {path: path.read_text(encoding="utf-8") for path, _ in sections}
    return [
        f"{path.relative_to(ROOT)}: the table `{name}` is outdated: run `make results`"
        for (path, name), content in sections.items()
        if with_section(texts[path], name, content) != texts[path]
    ]


def wrong_sweeps(directory: Path) -> list[str]:
    """One line for each published sweep whose trials differ from its config's plan."""
    wrong, configs = [], {entry.config.get("name"): entry.config for entry in all_configs()}
    for path in sorted(directory.glob("*/sweep.json")):
        sweep = json.loads(path.read_text(encoding="utf-8"))
        config, where = configs.get(sweep["name"]), f"{path.parent.name}/sweep.json"
        if config is None:
            wrong.append(f"{where}: no config is named {sweep['name']}")
            continue
        if config.sampler in PLANNED:
            axes = make_space(config)
            planned = [plain(plan_trial(config, axes, n)) for n in range(number_of_trials(config, axes))]
            if planned != [trial["parameters"] for trial in sweep["trials"]]:
                wrong.append(f"{where}: its trials differ from the plan of the config")
    return wrong
