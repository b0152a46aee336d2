"""Writes a run's weights to export/model.safetensors in its workdir, and what they mean to export/config.json."""

import os

from experiments.evaluate import load_run
from lm.metrics import write_json
from lm.weights import write


def run(config, workdir, data_dir=None):
    """Returns the directory of the export: model.safetensors, and config.json with config and vocabulary."""
    trainer = load_run(config, workdir, data_dir)
    directory = os.path.join(workdir, "export")
    os.makedirs(directory, exist_ok=True)
    write(os.path.join(directory, "model.safetensors"), trainer.parameters)
    description = {"config": config.to_dict(), "vocabulary": trainer.corpus.vocabulary.to_dict()}
    write_json(os.path.join(directory, "config.json"), description)
    print(f"wrote {directory}/model.safetensors and config.json")
    return directory
