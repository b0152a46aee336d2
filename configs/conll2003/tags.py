"""Tags of CoNLL-2003 with a bidirectional LSTM on GloVe vectors and without a CRF.

Source: Tjong Kim Sang and De Meulder (2003). "Introduction to the CoNLL-2003 Shared Task". The aims are this project's.
Variants, by argument:

  ner  named entities, IOB2; F1 as conlleval counts it
  pos  parts of speech; accuracy

Words are in lower case. A word that the training text lacks is <unk>, even if it has a vector.
Run (4 minutes on two CPU cores): python launch.py --config=configs/conll2003/tags.py:ner --workdir=runs/ner
"""

from configs.base import aim, base, set_targets
from lm.errors import lookup

# Variant -> (metric, aim for the validation split, parameters)
VARIANTS = {"ner": ("f1", 0.89, 1_173_109), "pos": ("accuracy", 0.95, 1_180_345)}


def get_config(variant: str = "ner"):
    metric, value, parameters = lookup(VARIANTS, variant, "variant")
    config = base()
    config.task = "tagging"
    config.name = f"conll2003/tags:{variant}"
    config.source = "this project's aim; CoNLL-2003"
    # data
    config.data.corpus = f"conll2003_{variant}"
    config.data.buckets = 5
    config.data.batch_size = 32
    # model
    config.model.input = "embedding"
    config.model.embedding_size = 50
    config.model.embedding_from = "glove.6B.50d"
    config.model.hidden = (100,)
    config.model.direction = "both"
    config.model.pooling = "none"
    config.init.embedding = ("uniform", -0.1, 0.1)
    config.init.recurrent = ("orthogonal",)
    config.init.bias = ("lstm_bias", 1.0)
    # regularisation
    config.keep_prob.embedding = 0.85
    config.keep_prob.input = 0.7
    config.keep_prob.output = 0.5
    # optimiser
    config.optim.name = "adam"
    config.optim.learning_rate = 2e-3
    config.optim.schedule = "cosine"
    config.optim.clipping = "global_norm"
    config.optim.clip = 5.0
    config.train.epochs = 15
    config.train.report_every = 200
    config.train.steps_per_dispatch = 50
    config.checkpoint.best = "keep"
    # evaluation
    config.evaluation.splits = ("valid", "test")
    config.parameters = parameters
    config.claim.minutes = 4.0
    config.claim.seeds = 3
    set_targets(
        config,
        valid=aim(split="valid", protocol="exact", metric=metric, value=value, where="this project", at="best"),
    )
    return config
