"""Trains the config in the workdir, going on from its last checkpoint, and prints what came of it.

Before a long run begins it says how long that will take and what memory it needs; --noeta leaves that out, --dry_run
stops there and leaves nothing behind.
"""

import functools
import math

import jax

from lm.data.corpora import load
from lm.errors import UserError
from lm.machine.clock import process_seconds
from lm.runs.workdir import read_config
from lm.training import devices, estimates
from lm.training.announce import LONG_SECONDS, announce
from lm.training.loop import train


def run(config, workdir, data_dir=None, dry_run=False, eta=True):
    """Returns the summary that `workdir`/summary.json holds; of a dry run the Estimate."""
    if dry_run:
        return estimate(config, data_dir)
    corpus = load_corpus(config, data_dir)
    if jax.process_count() == 1 and read_config(workdir) is None:  # what has begun says what is left of it
        announce(config, corpus, LONG_SECONDS if eta else math.inf)
    summary = train(config, corpus, workdir, test_text(config, data_dir))
    if devices.is_first():
        print_results(summary)
    return summary


def estimate(config, data_dir) -> estimates.Estimate:
    """Prints and returns what preflight finds."""
    if jax.process_count() > 1:
        raise UserError("--dry_run is for one process: leave --num_processes and its companions out")
    found = estimates.estimate(config, load_corpus(config, data_dir), startup=process_seconds())
    print(estimates.report(found))
    return found


def estimate_all(configs, data_dir, jobs=1) -> list[estimates.Estimate]:
    """As estimate(), for several configs that `jobs` processes will run; each distinct shape is timed once."""
    found = estimates.estimate_all(configs, functools.partial(load_corpus, data_dir=data_dir))
    print(estimates.report_all(found, jobs))
    return found


def load_corpus(config, data_dir):
    """The corpus of the config as training and selection see it: without its test split."""
    return load(config.data, data_dir, ("train", "valid"))


def test_text(config, data_dir):
    """A function that reads the test split, [N] ids or None where the corpus has none.

    It is called when training is over and no choice is left to be made, so that nothing can have looked at the test
    split before; without its file a run trains, and its summary says what was not scored.
    """
    return lambda: load(config.data, data_dir, ("test",)).splits.get("test")


def print_results(summary: dict):
    """One line per score, the targets of the source, the floor where the corpus has one, and samples."""
    for row in summary["results"]:
        print(
            f"{row['which']} {row['split']} perplexity {row['perplexity']:.4f} "
            f"({row['bits_per_symbol']:.4f} bits per symbol, protocol {row['protocol']}, {row['targets']} targets)"
        )
    for what, reason in summary["not_scored"].items():
        hint = "; --experiment=evaluate makes up for it" if what == "test" else ""
        print(f"{what} is not scored: {reason}{hint}")
    print("samples:", *summary["samples"], sep="\n  ")
    config, data = summary["provenance"]["config"], summary["provenance"]["data"]
    for name, target in config["targets"].items():
        print(
            f"the source reports {target['split']} {target['metric']} {target['value']} ({target['protocol']}, "
            f"{target['at']}: {target['where']}) [{name}]"
        )
    if "floor_nats" in data:
        print(f"no model can do better than perplexity {math.exp(data['floor_nats']):.4f}: the corpus's exact entropy")
