"""The results of a finished run as printed lines."""

import functools
import math

from configs.catalogue import Entry, all_configs
from lm.model.language_model import CONTEXT
from lm.runs import sampled_texts
from lm.runs.workdir import FREE, differences, shown
from lm.scoring.measures import MEASURES
from lm.tasks import protocol_settings
from lm.training.summary import NO_TEST


def print_results(summary: dict):
    """Prints the scores, the source's reported numbers, the corpus's entropy if it is known, and samples."""
    for row in summary["results"]:
        print(shown_score(row, summary["provenance"]))
    for name, reason in summary["not_scored"].items():
        hint = "; --experiment=evaluate scores it later" if name == "test" and reason != NO_TEST else ""
        print(f"{name} is not scored: {reason}{hint}")
    if summary["samples"]:
        print("samples:", sampled_texts.bordered(summary["samples"]), sep="\n")
    config, data = summary["provenance"]["config"], summary["provenance"]["data"]
    for name, target in targets_of(config).items():
        where = f"({target['protocol']}, {target['at']}: {target['where']}) [{name}]"
        print(f"the source reports {target['split']} {target['metric']} {target['value']} {where}")
    if changed := changed_from_source(config):
        print(f"{changed}: the source's numbers are of another model")
    if "floor_nats" in data:
        print(f"no model can do better than perplexity {math.exp(data['floor_nats']):.4f}: the corpus's exact entropy")


def measures_of(row: dict) -> list[str]:
    """The measures in a row of summary.json's results, the main one first; empty for language modelling."""
    return [name for name in MEASURES if name in row]


def shown_score(row: dict, provenance: dict) -> str:
    """A row of summary.json's results in one line: measures and loss of labels, or perplexity of a text."""
    used = protocol_settings(row["protocol"], provenance["config"]["evaluation"])
    settings = f" ({', '.join(f'{key} {value}' for key, value in used.items())})" if used else ""
    head, protocol = f"{row['which']} {row['split']}", f"protocol {row['protocol']}{settings}, {row['targets']}"
    measures = [f"{name} {row[name]:.4f}" for name in measures_of(row)]
    if measures:
        each = "symbol" if "sequence_accuracy" in row else "label"
        return f"{head} {', '.join(measures)} ({row['nats'] / row['targets']:.4f} nats per {each}, {protocol} {each}s)"
    bits = f"{row['bits_per_symbol']:.4f} bits per symbol{other_units(row, provenance)}"
    return f"{head} perplexity {row['perplexity']:.4f} ({bits}, {protocol} targets)"


def targets_of(config: dict) -> dict:
    """The targets to compare a run with: none if it started from another run's weights."""
    return {} if config.get("init_from") else config["targets"]


def changed_from_source(config: dict) -> str:
    """How a run with targets differs from the config of its name in configs/; "" if it does not, or has no targets."""
    if not targets_of(config) or config["name"] not in (named := configs_by_name()):
        return ""
    changed = differences(named[config["name"]].config, config, (*FREE, "seed"))
    return f"this run differs from {named[config['name']].path} ({shown(changed)})" if changed else ""


@functools.cache
def configs_by_name() -> dict[str, Entry]:
    return {entry.config.get("name", entry.path): entry for entry in all_configs()}


def other_units(row: dict, provenance: dict) -> str:
    """Units that are comparable between tokenisations: ", X bits per byte, perplexity Y per word"; "" if unknown. Only
    for the exact protocol, which scores all tokens except the first ones: each of these gets the mean score."""
    data, context = provenance["data"], CONTEXT[provenance["config"]["model"]["input"]]
    if row["protocol"] != "exact":
        return ""
    bits, found = row["bits_per_symbol"] * (row["targets"] + context), ""
    if size := data.get("bytes", {}).get(row["split"]):
        found += f", {bits / size:.4f} bits per byte"
        if unknown := data.get("unknown_rate", {}).get(row["split"]):
            found += f" with {unknown:.1%} of the symbols unknown"
    if words := data.get("words", {}).get(row["split"]):
        found += f", perplexity {math.exp(bits * math.log(2) / words):.2f} per word"
    return found
