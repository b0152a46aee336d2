"""Writes a run's weights to export/model.safetensors in its work directory, and its config to export/config.json.

The export is a model that can be picked up: sample, score and `lm.open_run` take its directory.
"""

import dataclasses
import os

from lm.model.weights import save_weights
from lm.run import WEIGHTS, open_run
from lm.runs.files import make_directory, write_json


def run(config, workdir, data_dir=None, checkpoint="last"):
    """Returns the directory of the export: model.safetensors, and config.json with config, vocabulary and step."""
    opened = open_run(workdir, checkpoint)
    opened.check_config(config)
    directory = str(make_directory(os.path.join(workdir, "export")))
    save_weights(os.path.join(directory, WEIGHTS), opened.parameters, opened.vocabulary)
    description = {
        "config": opened.config.to_dict(),
        "vocabulary": dataclasses.asdict(opened.vocabulary),
        "step": opened.step,
        "checkpoint": opened.checkpoint,
        "data": opened.data,
    }
    write_json(os.path.join(directory, "config.json"), description)
    print(f"wrote {directory}/model.safetensors and config.json: the {checkpoint} checkpoint, {opened.step} steps")
    return directory
