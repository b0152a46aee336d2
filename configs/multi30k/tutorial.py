"""German captions of pictures into English: the first three models of Trevett's tutorials.

Source: Trevett, "PyTorch Seq2Seq" (2024), tutorials 1 to 3, and the papers that they follow. Variants, by argument:

  lstm       two layers; the decoder starts from the encoder's states (Sutskever et al. 2014)
  gru        the decoder reads the encoder's last state at every step (Cho et al. 2014)
  attention  a bidirectional encoder, and additive attention (Bahdanau et al. 2015)

Words seen once are <unk>. A step reads the true word before it with probability 0.5, else its own, for the whole batch
at once. The epoch counts whose validation loss is lowest, and that is a mean of nats after the model's own words:
protocol free_running, no likelihood. Texts are written greedily, at most 25 words.

The source cuts texts into words with spaCy; here they are the words of Moses' tokenizer, as published with the corpus,
which BLEU is measured on. Its LSTM layers have two biases where ours have one, and its batches are not sorted.

Run (30 minutes on two CPU cores):
    python launch.py --config=configs/multi30k/tutorial.py:attention --workdir=runs/multi30k
"""

from configs.base import base, set_targets, target
from lm.errors import lookup

SMALL = ("normal", 0.0, 0.01)
EVEN = ("uniform", -0.08, 0.08)
# Variant -> (cell, layers, context, direction, initialiser of weights, of biases, parameters, BLEU of the test text).
VARIANTS = {
    "lstm": ("lstm", 2, "start", "forward", EVEN, EVEN, 13_911_327, 13.76),
    "gru": (
        "gru_reset_after",
        1,
        "every_step",
        "forward",
        ("normal", 0.0, 0.01),
        ("normal", 0.0, 0.01),
        14_258_719,
        20.61,
    ),
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
