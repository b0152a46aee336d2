"""Translates German captions into English: the first three models of Trevett's tutorials.

Source: Trevett, "PyTorch Seq2Seq" (2024), tutorials 1 to 3, and the papers that they follow. Variants, by argument:

  lstm       two layers; the decoder starts from the encoder's states (Sutskever et al. 2014)
  gru        the decoder reads the encoder's last state at every step (Cho et al. 2014)
  attention  a bidirectional encoder, and additive attention (Bahdanau et al. 2015)

Words seen once become <unk>. With probability 0.5, drawn per step for the entire batch, the decoder reads the true
previous word, otherwise its own. The epoch with the lowest validation loss is reported; this loss reads the model's own
words (protocol free_running), so it is not a likelihood. Decoding is greedy, up to 25 words.

The source tokenizes with spaCy. Here texts and BLEU use Moses' tokenizer, as published with the corpus. The source's
LSTM layers have two biases, ours one, and its batches are not sorted by length.

Run (30 minutes on two CPU cores):
    python launch.py --config=configs/multi30k/tutorial.py:attention --workdir=runs/multi30k
"""

from configs.base import base, set_targets, target
from lm.errors import lookup

SMALL = ("normal", 0.0, 0.01)
EVEN = ("uniform", -0.08, 0.08)
# Variant -> (cell, layers, context, direction, initialiser of weights, of biases, parameters, test BLEU).
VARIANTS = {
    "lstm": ("lstm", 2, "start", "forward", EVEN, EVEN, 13_911_327, 13.76),
    "gru": ("gru_reset_after", 1, "every_step", "forward", SMALL, SMALL, 14_258_719, 20.61),
    "attention": ("gru_reset_after", 1, "additive", "both", SMALL, ("zeros",), 20_569_119, 28.30),
}


def get_config(variant: str = "attention"):
    cell, layers, context, direction, weights, biases, parameters, bleu = lookup(VARIANTS, variant, "variant")
    config = base()
    config.task = "translation"
    config.name = f"multi30k/tutorial:{variant}"
    config.source = "Trevett, PyTorch Seq2Seq"
    # data
    config.data.corpus = "multi30k"
    config.data.min_count = 2
    config.data.batch_size = 128
    config.data.buckets = 4
    # model
    config.model.cell = cell
    config.model.input = "embedding"
    config.model.embedding_size = 256
    config.model.hidden = layers * (512,)
    config.model.context = context
    config.model.direction = direction
    for role in ("embedding", "input", "recurrent", "output"):
        config.init[role] = weights
    for role in ("bias", "vector", "output_bias"):
        config.init[role] = biases
    # regularisation
    config.keep_prob.input = 0.5
    config.keep_prob.between = 0.5
    config.loss.teacher_forcing = 0.5
    # optimiser
    config.optim.name = "adam"
    config.optim.learning_rate = 1e-3
    config.optim.clipping = "global_norm"
    config.optim.clip = 1.0
    config.train.epochs = 10
    config.train.report_every = 50
    config.train.steps_per_dispatch = 50
    config.checkpoint.best = "keep"
    # evaluation
    config.evaluation.during = "free_running"
    config.evaluation.protocols = ("exact", "free_running")
    config.evaluation.splits = ("valid", "test")
    config.evaluation.target_length = 25
    config.sample.length = 25
    config.parameters = parameters
    config.claim.minutes = 30.0
    where = f"tutorial {list(VARIANTS).index(variant) + 1}"
    set_targets(config, bleu=target(split="test", protocol="exact", metric="bleu", value=bleu, at="best", where=where))
    return config
