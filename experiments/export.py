"""Writes a run's weights to export/model.safetensors in its work directory, and its config to export/config.json.

--checkpoint=best exports the best checkpoint by validation, which config.checkpoint.best=keep keeps, instead of the
last one.
"""

import dataclasses
import os

from experiments.train import load_setup
from lm.errors import check_name
from lm.model.weights import save_weights
from lm.run import CHECKPOINTS, open_run
from lm.runs.files import make_directory, write_json


def run(config, workdir, data_dir=None, checkpoint="last"):
    """Returns the directory of the export: model.safetensors, and config.json with config and vocabulary."""
    check_name(checkpoint, CHECKPOINTS, "--checkpoint")
    opened = open_run(load_setup(config, data_dir), workdir, checkpoint)
    directory = str(make_directory(os.path.join(workdir, "export")))
    save_weights(os.path.join(directory, "model.safetensors"), opened.parameters, opened.vocabulary)
    description = {"config": config.to_dict(), "vocabulary": dataclasses.asdict(opened.vocabulary)}
    write_json(os.path.join(directory, "config.json"), description)
    print(f"wrote {directory}/model.safetensors and config.json: the {checkpoint} checkpoint, {opened.step} steps")
    return directory
