"""Writes a run's weights to export/model.safetensors in its workdir, and what they mean to export/config.json.

--checkpoint=best takes those of the best checkpoint by validation, which config.checkpoint.best=keep keeps, instead of
the last one's.
"""

import dataclasses
import os

from experiments.evaluate import load_run
from lm.errors import UserError, check_name
from lm.model.weights import save_weights
from lm.runs.files import write_json
from lm.training.step import evaluated_parameters


def run(config, workdir, data_dir=None, checkpoint="last"):
    """Returns the directory of the export: model.safetensors, and config.json with config and vocabulary."""
    check_name(checkpoint, ("last", "best"), "--checkpoint")
    trainer = load_run(config, workdir, data_dir)
    state = trainer.state
    if checkpoint == "best":
        restored = trainer.checkpoints.restore(state, which="best")
        if restored is None:
            raise UserError(f"--workdir={workdir} holds no best checkpoint; config.checkpoint.best=keep keeps one")
        state = restored[0]
    directory = os.path.join(workdir, "export")
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {directory}: {error.strerror}") from error
    vocabulary = trainer.corpus.vocabulary
    save_weights(os.path.join(directory, "model.safetensors"), evaluated_parameters(state), vocabulary)
    description = {"config": config.to_dict(), "vocabulary": dataclasses.asdict(vocabulary)}
    write_json(os.path.join(directory, "config.json"), description)
    print(f"wrote {directory}/model.safetensors and config.json: the {checkpoint} checkpoint, {int(state.step)} steps")
    return directory
