"""Tags CoNLL-2003 with a bidirectional LSTM on GloVe vectors, with or without a CRF.

Source: Tjong Kim Sang and De Meulder (2003). "Introduction to the CoNLL-2003 Shared Task". The aims are this project's.
Variants, by argument:

  ner      named entities, IOB2; F1 as conlleval counts it
  ner_crf  the same with a CRF (Lample et al. 2016)
  pos      parts of speech; accuracy

The model reads a word's vector and an embedding of its shape (Collobert et al. 2011). A word that GloVe lacks gets the
vector of its lower case. The vocabulary also includes words that occur only in the validation and test texts, so that
they keep their GloVe vectors (zeros if it lacks the lower case, too). This uses no label, and training does not change
these vectors. The numbers are those after the last epoch: no checkpoint is selected.

Run (3 minutes on two CPU cores): python launch.py --config=configs/conll2003/tags.py:ner --workdir=runs/ner
"""

from configs.base import aim, base, set_targets
from lm.errors import lookup

# Variant -> (corpus, output, metric, aim for the validation split, parameters)
VARIANTS = {
    "ner": ("conll2003_ner", "dense", "f1", 0.89, 1_770_469),
    "ner_crf": ("conll2003_ner", "crf", "f1", 0.93, 1_770_568),
    "pos": ("conll2003_pos", "dense", "accuracy", 0.95, 1_781_305),
}


def get_config(variant: str = "ner"):
    corpus, output, metric, value, parameters = lookup(VARIANTS, variant, "variant")
    config = base()
    config.task = "tagging"
    config.name = f"conll2003/tags:{variant}"
    config.source = "this project's aim; CoNLL-2003"
    # data
    config.data.corpus = corpus
    config.data.words = "all_splits"
    config.data.buckets = 5
    config.data.batch_size = 32
    # model
    config.model.input = "embedding"
    config.model.embedding_size = 50
    config.model.embedding_from = "glove.6B.50d"
    config.model.embedding_case = "lower"
    config.model.shape_size = 10
    config.model.hidden = (150,)
    config.model.direction = "both"
    config.model.pooling = "none"
    config.model.output = output
    config.init.embedding = ("uniform", -0.1, 0.1)
    config.init.recurrent = ("orthogonal",)
    config.init.bias = ("lstm_bias", 1.0)
    # regularisation
    config.keep_prob.embedding = 0.95
    config.keep_prob.input = 0.7
    config.keep_prob.output = 0.5
    # optimiser
    config.optim.name = "adam"
    config.optim.learning_rate = 4e-3
    config.optim.schedule = "cosine"
    config.optim.clipping = "global_norm"
    config.optim.clip = 5.0
    config.train.epochs = 15
    config.train.report_every = 200
    config.train.steps_per_dispatch = 50
    # evaluation
    config.evaluation.splits = ("valid", "test")
    config.parameters = parameters
    config.claim.minutes = 3.0
    config.claim.seeds = 3
    set_targets(
        config,
        valid=aim(split="valid", protocol="exact", metric=metric, value=value, where="this project", at="final"),
    )
    return config
