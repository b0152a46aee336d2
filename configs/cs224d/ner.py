"""Tags named entities of CoNLL-2003 with a window model: Stanford CS224d, assignment 2, part 2.

Source: Salvatore (2017). "Report: assignment 2", a solution of the Stanford course CS224d (Socher et al. 2015).
Reported: validation loss 0.156871527433, with hyperparameters from a random search over batch size, dropout, learning
rate and L2. Variants, by argument:

  glove    GloVe's vectors, fine-tuned; the course's own vectors are not available
  random   vectors drawn from U(-0.5, 0.5)
  starter  GloVe's vectors and the hyperparameters of the course's starter code

Oddities: dropout is also applied to the logits; biases are initialised like matrices of one row; the reported loss is a
mean over batches, in which the short last batch has full weight, plus the L2 term (protocol batched).
Run (3 minutes on two CPU cores): python launch.py --config=configs/cs224d/ner.py --workdir=runs/cs224d_ner
"""

from typing import NamedTuple

from configs.base import aim, base, set_targets, target
from lm.errors import lookup


class Settings(NamedTuple):
    vectors: str
    batch_size: int
    keep_prob: float
    learning_rate: float
    l2: float
    loss: float


SEARCHED = (84, 0.991323729933, 0.00365884577219, 1.7095245617e-05)
VARIANTS = {
    "glove": Settings("glove.6B.50d", *SEARCHED, 0.156871527433),
    "random": Settings("", *SEARCHED, 0.18),
    "starter": Settings("glove.6B.50d", 64, 0.9, 0.001, 0.001, 0.2),
}


def get_config(variant: str = "glove"):
    settings = lookup(VARIANTS, variant, "variant")
    config = base()
    config.task = "windows"
    config.name = f"cs224d/ner:{variant}"
    config.source = "CS224d assignment 2 report (F. Salvatore 2017), part 2"
    # data
    config.data.corpus = "cs224d_ner"
    config.data.window = 3
    config.data.batch_size = settings.batch_size
    # model: softmax(tanh(x W + b1) U + b2)
    config.model.input = "embedding"
    config.model.embedding_size = 50
    config.model.embedding_from = settings.vectors
    config.model.hidden = (100,)
    config.model.output = "dropped_logits"
    config.init.embedding = ("uniform", -0.5, 0.5)
    for role in ("input", "bias", "output", "output_bias"):
        config.init[role] = ("glorot_uniform",)
    # regularisation
    config.keep_prob.output = settings.keep_prob
    config.penalty.l2 = settings.l2
    # optimiser
    config.optim.name = "adam"
    config.optim.learning_rate = settings.learning_rate
    config.train.epochs = 24
    config.train.patience = 2
    config.train.report_every = 500
    config.checkpoint.best = "keep"
    # evaluation
    config.evaluation.during = "batched"
    config.evaluation.protocols = ("batched", "exact")
    config.evaluation.batch_size = settings.batch_size
    config.parameters = 5_027_205
    config.claim.minutes = 3.0
    config.claim.seeds = 3
    state, where = (target, "below figure 2") if variant == "glove" else (aim, "this project")
    loss = state(split="valid", protocol="batched", metric="loss", value=settings.loss, where=where, at="best")
    set_targets(config, valid=loss)
    return config
