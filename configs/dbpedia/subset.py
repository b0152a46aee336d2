"""Classifies DBpedia articles by their first words with a masked LSTM on GloVe vectors.

Source: no source reports a number for this subset (13,792 training, 5,000 validation and 4,999 test articles). The aim
is 96.5% test accuracy. With the full corpus of Zhang, Zhao and LeCun (2015) an LSTM reaches 98.55%.
Run (2 minutes on two CPU cores): python launch.py --config=configs/dbpedia/subset.py --workdir=runs/dbpedia
"""

from configs.base import aim, base, set_targets


def get_config():
    config = base()
    config.task = "classification"
    config.name = "dbpedia/subset"
    config.source = "this project's aim; a subset of the corpus of Zhang et al. 2015"
    # data
    config.data.corpus = "dbpedia_subset"
    config.data.max_tokens = 64
    config.data.buckets = 4
    config.data.batch_size = 64
    # model
    config.model.input = "embedding"
    config.model.embedding_size = 50
    config.model.embedding_from = "glove.6B.50d"
    config.model.hidden = (100,)
    config.model.pooling = "max"
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
    config.train.epochs = 10
    config.train.report_every = 100
    config.train.steps_per_dispatch = 50
    config.checkpoint.best = "keep"
    # evaluation
    config.evaluation.splits = ("valid", "test")
    config.parameters = 3_332_764
    config.claim.minutes = 2.0
    config.claim.seeds = 3
    set_targets(
        config,
        test=aim(split="test", protocol="exact", metric="accuracy", value=0.965, where="this project", at="best"),
    )
    return config
