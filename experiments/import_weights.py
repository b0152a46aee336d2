"""Creates a run from a safetensors file: our own export or a PyTorch state dict (layouts: lm/model/weights.py).

The imported run starts at step 0: evaluate and sample read its weights, train continues from them.

PyTorch's word_language_model and awd-lstm-lm order embedding rows by first appearance in train, valid and test; ours
are ordered by frequency. To reorder the rows, pass --vocabulary=FILE: UTF-8, one token per line, in the order of the
rows; otherwise row k is used for our token k. To create FILE, run this in the directory of their data.py:

    import data; words = data.Corpus("data/penn").dictionary.idx2word
    open("tokens.txt", "w", encoding="utf-8").write("\\n".join(words) + "\\n")
"""

from pathlib import Path

import jax
import jax.numpy as jnp

from experiments.train import load_setup
from lm.errors import UserError
from lm.model.weights import load_weights, vocabulary_order
from lm.run import WEIGHTS, open_run
from lm.runs import lock
from lm.runs.workdir import differences, prepare_workdir
from lm.training.recorder import Recorder


def run(config, workdir, data_dir=None, weights=None, vocabulary=None):
    """Saves the imported parameters as the workdir's checkpoint, and returns them."""
    if not weights:
        raise UserError("--experiment=import needs --weights=FILE.safetensors")
    setup = load_setup(config, data_dir)
    known = setup.corpus.vocabulary
    order = vocabulary_order(vocabulary, known.symbols) if vocabulary else None
    with lock.alone(workdir):
        recorder = Recorder(setup, workdir)
        state = recorder.restore()
        if recorder.resumed:
            raise UserError(f"--workdir={workdir} holds a run already; import into a new directory")
        check_export(config, weights)
        parameters, layout = load_weights(weights, setup.task.model, known, order)
        prepare_workdir(workdir, config, known)
        recorder.save(state._replace(parameters=jax.tree.map(jnp.asarray, parameters)), wait=True)
    print(f"imported {weights}, layout {layout}, into {workdir}")
    if layout != "ours" and order is None:
        print("without --vocabulary, row k of the file is used for token k of the corpus")
    return parameters


def check_export(config, weights: str):
    """Raises UserError if the weights belong to an export that is damaged or whose model differs from config.model."""
    path = Path(weights)
    if path.name != WEIGHTS or not (path.parent / "config.json").exists():
        return
    theirs = open_run(path.parent).config
    changed = differences(theirs, config, ("model.embedding_from",))
    if keys := [key for key in changed if key.startswith(("task", "model."))]:
        raise UserError(f"--weights={weights} holds another model: config.{keys[0]} differs from its config.json")
