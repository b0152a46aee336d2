"""Scores a trained run again: every split and protocol that the config names, on the last (and best) checkpoint."""

import os

from experiments.train import load_setup, print_results, test_text
from lm.run import open_run
from lm.runs.files import write_json


def run(config, workdir, data_dir=None):
    """Writes `workdir`/evaluation.json and returns its content; the run itself stays as it is."""
    opened = open_run(load_setup(config, data_dir), workdir, read_test=test_text(config, data_dir))
    summary = opened.summarise()
    write_json(os.path.join(workdir, "evaluation.json"), summary)
    print_results(summary)
    return summary
