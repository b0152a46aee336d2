"""Scores a trained run again: every split and protocol that the config names, on the last (and best) checkpoint."""

import os

from experiments.train import load_corpus, print_results, test_text
from lm.errors import UserError
from lm.runs.files import write_json
from lm.training.loop import Trainer


def run(config, workdir, data_dir=None):
    """Writes `workdir`/evaluation.json and returns its content; the run itself is left as it is."""
    trainer = load_run(config, workdir, data_dir)
    summary = trainer.summary()
    write_json(os.path.join(workdir, "evaluation.json"), summary)
    print_results(summary)
    return summary


def load_run(config, workdir, data_dir=None) -> Trainer:
    """The run in workdir at its last checkpoint. Raises UserError where there is none."""
    trainer = Trainer(config, load_corpus(config, data_dir), workdir, read_test=test_text(config, data_dir))
    if not trainer.resumed:
        raise UserError(f"--workdir={workdir} holds no checkpoint; train first with --experiment=train")
    return trainer
