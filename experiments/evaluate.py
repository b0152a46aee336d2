"""Scores a trained run again: every split and protocol in its config, at its last and best checkpoint.

python launch.py --experiment=evaluate --workdir=RUN [--config.evaluation.protocols="('exact', 'batched')"]
"""

import os

from ml_collections import ConfigDict

from experiments.pages.printed import print_results
from experiments.train import corpus_of, read_test_of
from lm.errors import UserError
from lm.run import open_run
from lm.runs.files import write_json
from lm.tasks import TASKS
from lm.training.recorder import Recorder
from lm.training.setup import make_setup


def run(config, workdir, data_dir=None):
    """Writes `workdir`/evaluation.json and returns its content. Of the run itself, only test_log.jsonl changes."""
    opened = open_run(workdir)
    opened.check_config(config)
    if opened.is_export:
        reader = TASKS[opened.config.task].command
        hint = f"; {reader} reads an export too" if reader else ""
        raise UserError(f"--workdir={workdir} is an export: evaluate needs the run itself{hint}")
    config = ConfigDict(config)
    config.train.devices = 1  # even if several devices trained the run
    setup = make_setup(config, corpus_of(opened, config, data_dir))
    setup.task.check_memory(config)

    def read_test():
        """The test split. An error does not end the evaluation: the summary says why test was not scored."""
        if recorder.done > 0 and not recorder.finished:  # a run of 0 steps is an imported model
            raise UserError(f"the run has made {recorder.done} of {setup.total_steps} steps: finish it first")
        return read_test_of(config, data_dir, setup.corpus)()

    recorder = Recorder(setup, workdir, read_test)
    summary = recorder.summarise(recorder.restore())
    write_json(os.path.join(workdir, "evaluation.json"), summary)
    print_results(summary)
    return summary
