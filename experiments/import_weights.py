"""Makes a run of the weights in a safetensors file: our own export, or a PyTorch state dict (layouts: lm/weights.py).

The run stands before its first step: evaluate and sample read the imported weights, train goes on from them. Row k of a
PyTorch embedding is the token k of its own vocabulary, which word_language_model orders by first appearance; ours is
by frequency. --vocabulary=FILE, one token per line in the file's order, puts the rows in ours; without it the two must
agree.
"""

from experiments.train import load_corpus
from lm.errors import UserError
from lm.loop import Trainer
from lm.metrics import prepare_workdir
from lm.weights import convert, read, vocabulary_order


def run(config, workdir, data_dir=None, weights=None, vocabulary=None):
    """Returns the imported parameters, which are also the workdir's checkpoint."""
    if not weights:
        raise UserError("--experiment=import needs --weights=FILE.safetensors")
    tensors = read(weights)
    corpus = load_corpus(config, data_dir)
    order = vocabulary_order(vocabulary, corpus.vocabulary.symbols) if vocabulary else None
    trainer = Trainer(config, corpus, workdir)
    if trainer.resumed:
        raise UserError(f"--workdir={workdir} holds a run already; import into a new directory")
    parameters = convert(tensors, trainer.state.parameters, config.model.cell, order)
    prepare_workdir(workdir, config)
    trainer.adopt(parameters)
    print(f"imported {len(tensors)} tensors into {workdir}")
    return parameters
