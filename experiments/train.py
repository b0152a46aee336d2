"""Trains a config and prints the results. Resumes if the work directory holds a checkpoint.

Before a long new run, prints an estimate of time and memory (--noeta skips it). --dry_run prints only the estimate.
"""

import math
import os
import sys

import jax

from configs.rules import check_values
from experiments.pages.printed import print_results
from lm.data.corpora import Corpus, load
from lm.data.reused import trained_on
from lm.errors import UserError, first_line
from lm.machine.clock import process_seconds
from lm.model.language_model import count_parameters
from lm.run import Run, open_run
from lm.runs.checkpoint import has_checkpoints
from lm.runs.provenance import REGISTERED_VECTORS
from lm.runs.workdir import read_config
from lm.training import devices, estimates, memory, timing
from lm.training.estimates import Estimate
from lm.training.loop import train
from lm.training.pretrained import start_from_run, start_from_vectors
from lm.training.setup import Setup, make_setup

LONG_SECONDS = 300.0  # timing a run takes a few percent of this


def run(config, workdir, data_dir=None, dry_run=False, eta=True):
    """Returns the content of `workdir`/summary.json, or the Estimate of a dry run."""
    setup = setup_to_resume(config, workdir, data_dir) or load_setup(config, data_dir)
    note_size(setup)
    if dry_run:
        return estimate(setup)
    if jax.process_count() == 1 and read_config(workdir) is None:  # a new run
        announce(setup, LONG_SECONDS if eta else math.inf)
    summary = train(setup, workdir, read_test_of(config, data_dir, setup.corpus))
    if devices.is_first():
        print_results(summary)
        draw(workdir)
    return summary


def note_size(setup: Setup):
    """Prints the number of parameters if it differs from config.parameters."""
    stated, size = setup.config.parameters, count_parameters(setup.state_shapes.parameters)
    if stated not in (0, size):
        print(f"the model has {size:,} parameters; config.parameters states {stated:,}, the published number")


def draw(workdir):
    """Writes the run's page and prints its file names. If this fails, prints a warning, and the results remain."""
    try:
        from experiments.pages.run_page import write_run_page  # matplotlib takes long to import

        *pictures, page = write_run_page(workdir)
    except Exception as error:
        print(f"warning: no report of {workdir}: {first_line(error)}", file=sys.stderr)
    else:
        print(f"wrote {', '.join(map(str, pictures))} and {page}")


def load_setup(config, data_dir) -> Setup:
    """Reads the corpus, without its test split, and checks the config against it."""
    return setup_on(config, load_corpus(config, data_dir), data_dir)


def setup_to_resume(config, workdir, data_dir) -> Setup | None:
    """The setup of a run that resumes although the weights or vectors that it started from are gone; else None."""
    source = config.init_from or config.model.embedding_from
    there = source in ("", *REGISTERED_VECTORS) or os.path.exists(os.path.expanduser(source))
    if there or not has_checkpoints(workdir):
        return None
    check_values(config)
    corpus = corpus_of(open_run(workdir), config, data_dir)
    print(f"{source} is gone: resuming from the run's own checkpoint")
    start = f"starting from {source}, which was gone when the run was resumed"
    return make_setup(config, corpus._replace(provenance=corpus.provenance | {"start": start}))


def setup_on(config, corpus: Corpus, data_dir: str | None = None) -> Setup:
    """Checks the config against the corpus, and reads the weights or word vectors that a new run starts from.

    data_dir: directory of registered word vectors
    """
    start = None
    if config.init_from and config.model.embedding_from:
        raise UserError("config.init_from and config.model.embedding_from are both set: choose one")
    if config.init_from:
        run = run_to_start_from(config)
        start = start_from_run(config, config.init_from, run.config, run.parameters)
        if reused := trained_on(config.data, run.config.data, run.data.partition("+")[0]):
            what = f"config.init_from={config.init_from} was trained on validation or test text of this run"
            print(f"warning: {what}, so the scores mislead: {reused}", file=sys.stderr)
    elif config.model.embedding_from:
        start = start_from_vectors(config, corpus, data_dir)
    if start:
        print(start.description)
        more = {"start": start.description}
        if config.model.embedding_from not in REGISTERED_VECTORS:  # registered vectors are identified by name
            more["checksum"] = f"{corpus.provenance['checksum']}+{start.checksum}"
        corpus = corpus._replace(provenance=corpus.provenance | more)
    return make_setup(config, corpus, start)


def run_to_start_from(config) -> Run:
    """The run of config.init_from. Raises UserError if its task or tokenisation differs."""
    run = open_run(config.init_from)
    if run.config.task != config.task:
        other = f"and this config has {config.task}: name a run of the same task"
        raise UserError(f"config.init_from={config.init_from} is a run of config.task={run.config.task}, {other}")
    level = run.vocabulary.level
    if config.data.corpus == "textfile" and config.data.level != level:
        raise UserError(f"config.data.level must be {level}, as in config.init_from={config.init_from}")
    return run


def load_corpus(config, data_dir, splits=("train", "valid"), vocabulary=None) -> Corpus:
    """Checks the config and loads the corpus, by default only the splits for training and selection, without test.

    vocabulary: encodes the text; None: the vocabulary of the run in config.init_from, or else of the text itself
    """
    check_values(config)
    if config.init_from and vocabulary is None:
        vocabulary = run_to_start_from(config).vocabulary
    return load(config.data, data_dir, splits, vocabulary)


def corpus_of(run: Run, config, data_dir, splits=("train", "valid")) -> Corpus:
    """The corpus that a run was trained on. Raises UserError if its text or vocabulary has changed since."""
    corpus = load_corpus(config, data_dir, splits, run.vocabulary if config.init_from else None)
    text = run.data.partition("+")[0]  # without the part for the initial weights, which may be gone
    if text not in ("", corpus.provenance.get("checksum", "")) or corpus.vocabulary != run.vocabulary:
        hint = "use the text that it was trained on"
        raise UserError(f"{run.workdir} holds a run on other data: its corpus {corpus.name} has changed since; {hint}")
    return corpus._replace(provenance=corpus.provenance | {"checksum": run.data}) if run.data else corpus


def read_test_of(config, data_dir, corpus: Corpus):
    """Returns a function that reads the test split: ids [N], or None if the corpus has no test split. It is called
    after training and selection, so that neither can use the test split. If the file is missing or the text has changed
    since `corpus` was loaded, the run finishes anyway, and its summary says what was not scored."""

    def read():
        found = load_corpus(config, data_dir, ("test",), corpus.vocabulary)
        if found.provenance["checksum"] != corpus.provenance["checksum"].partition("+")[0]:
            raise UserError("the text has changed since training began")
        return found.splits.get("test")

    return read


def announce(setup: Setup, long_seconds: float) -> Estimate | None:
    """Checks the memory that the compiled programs need, and prints an estimate for a long run. Returns it, or None for
    a run of less than `long_seconds`. Raises UserError if memory is too small."""
    is_long = estimates.guess_seconds(setup) > long_seconds
    if setup.config.train.devices > 1 and not is_long:  # memory.peak would compile programs that the run does not use
        return None
    needed = memory.peak(setup, all_programs=is_long)
    if not is_long:
        return None
    print(f"timing {setup.config.name or 'the config'} for some seconds; --noeta skips this", flush=True)
    found = estimates.make_estimate(setup, needed, timing.measure(setup))
    print(estimates.in_one_line(found), flush=True)
    return found


def estimate(setup: Setup) -> Estimate:
    """Prints and returns the estimate of a run, including the start of the process."""
    if jax.process_count() > 1:
        raise UserError("--dry_run works in one process: leave out --num_processes and the flags that go with it")
    found = timing.estimate(setup, startup=process_seconds())
    print(estimates.in_full(found))
    return found


def estimate_all(configs, data_dir, jobs=1) -> list[Estimate]:
    """Prints and returns the estimates of configs that `jobs` processes will run. Times each distinct shape once."""
    found = timing.estimate_all(load_setup(config, data_dir) for config in configs)
    print(estimates.in_one_table(found, jobs))
    return found
