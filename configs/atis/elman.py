"""Slots of ATIS, flight queries, with an Elman or a Jordan network that learns word by word.

Source: Mesnil, He, Deng and Bengio (2013). "Investigation of Recurrent-Neural-Network Architectures and Learning
Methods for Spoken Language Understanding", by the settings of its code. A log of that code, printed in a copy of it,
has an F1 on held-out sentences of 85.71, 91.78, 93.54, 95.12 and 95.40 after the first five epochs, 97.54 at best, and
93.90 on the test sentences. The code's option to lower the rate is off. Of its Jordan network no number is known here.
Variants, by argument:

  elman   the hidden units feed back
  jordan  the softmax feeds back

A step reads the last 9 words up to some word, each in a window of 7, and learns the label of that word. An epoch
shuffles the sentences. Digits become DIGIT, and words that the training file has once <unk>. A fifth of the sentences,
drawn at random, is held out, and the epoch with the highest F1 on it counts. F1 is that of slots as conlleval counts
them.

Run (4 minutes on one CPU core): python launch.py --config=configs/atis/elman.py --workdir=runs/atis_elman
"""

from configs.base import aim, base, set_targets, target
from lm.errors import lookup

LABELS = 129
# Variant -> (cell, parameters, kind of target, test F1 at the best epoch, its place).
VARIANTS = {
    "elman": ("elman_sigmoid", 149_929, target, 0.939, "log of the code, epoch 36"),
    "jordan": ("jordan_softmax", 152_858, aim, 0.93, "this project"),
}
# In that log the best epochs from 21 on have a test F1 of 93.00 to 94.75.
TOLERANCE = 0.005


def get_config(variant: str = "elman"):
    cell, parameters, kind, f1, where = lookup(VARIANTS, variant, "variant")
    config = base()
    config.task = "tagging"
    config.name = f"atis/elman:{variant}"
    config.source = "Mesnil et al. 2013, code is13"
    # data
    config.data.corpus = "atis"
    config.data.digits = "DIGIT"
    config.data.min_count = 2
    config.data.valid_share = 0.2
    config.data.examples = "words"
    config.data.unroll = 9
    config.data.window = 7
    config.data.batch_size = 1
    # model
    config.model.cell = cell
    config.model.input = "embedding"
    config.model.embedding_size = 100
    config.model.hidden = (100,)
    config.model.pooling = "none"
    config.model.initial_carry = "learned"
    if variant == "jordan":
        config.model.projection = LABELS
        config.model.output = "identity"
    for role in ("embedding", "input", "recurrent", "output"):
        config.init[role] = ("uniform", -0.2, 0.2)
    # optimiser
    config.optim.name = "sgd"
    config.optim.learning_rate = 0.0627142536696559
    config.optim.unit_rows = ("embedding", "outside")
    config.train.epochs = 50
    config.train.report_every = 5000
    config.train.steps_per_dispatch = 2000
    config.train.threads = 1  # one row at a time: a second core gains nothing
    config.checkpoint.every_steps = 50_000
    config.checkpoint.best = "keep"
    # evaluation
    config.evaluation.best_by = "f1"
    config.evaluation.splits = ("valid", "test")
    config.parameters = parameters
    config.claim.minutes = 4.0
    config.claim.seeds = 3
    reached = {"split": "test", "protocol": "exact", "metric": "f1", "at": "best"}
    set_targets(config, test=kind(**reached, value=f1, where=where, tolerance=TOLERANCE))
    return config
