"""Trains the config in the workdir, going on from its last checkpoint, and prints what came of it."""

import math

from lm import devices
from lm.corpora import load
from lm.loop import train


def run(config, workdir, data_dir=None):
    """Returns the summary that `workdir`/summary.json holds."""
    summary = train(config, load_corpus(config, data_dir), workdir)
    if devices.is_first():
        print_results(summary)
    return summary


def load_corpus(config, data_dir):
    """The corpus of the config with the splits that it trains, selects and scores on, and no others."""
    return load(config.data, data_dir, ("train", "valid", *config.evaluation.splits))


def print_results(summary: dict):
    """One line per score, the targets of the source, the floor where the corpus has one, and samples."""
    for row in summary["results"]:
        print(
            f"{row['which']} {row['split']} perplexity {row['perplexity']:.4f} "
            f"({row['bits_per_symbol']:.4f} bits per symbol, protocol {row['protocol']}, {row['targets']} targets)"
        )
    print("samples:", *summary["samples"], sep="\n  ")
    config, data = summary["provenance"]["config"], summary["provenance"]["data"]
    for name, target in config["targets"].items():
        print(
            f"the source reports {target['split']} {target['metric']} {target['value']} ({target['protocol']}, "
            f"{target['at']}: {target['where']}) [{name}]"
        )
    if "floor_nats" in data:
        print(f"no model can do better than perplexity {math.exp(data['floor_nats']):.4f}: the corpus's exact entropy")
