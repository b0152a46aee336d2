"""Classifies the sentiment of IMDB reviews with a masked bidirectional LSTM, this project's own model.

Source: no source reports this model. The aim is 88.5% test accuracy, above configs/imdb/article.py (86.79%).
Batches hold reviews of similar length, padded at the end and masked. The settings were chosen on a held-out tenth of
the training reviews. The test reviews are scored once, at the end, with the best checkpoint.
Run (10 minutes on two CPU cores): python launch.py --config=configs/imdb/masked.py --workdir=runs/imdb_masked
"""

from configs.base import aim, base, set_targets


def get_config():
    config = base()
    config.task = "classification"
    config.name = "imdb/masked"
    config.source = "this project's aim; data of Maas et al. 2011"
    # data
    config.data.corpus = "imdb"
    config.data.max_vocabulary = 20_000
    config.data.valid_share = 0.1
    config.data.max_tokens = 400
    config.data.keep = "last"
    config.data.buckets = 6
    config.data.batch_size = 32
    # model
    config.model.input = "embedding"
    config.model.embedding_size = 64
    config.model.hidden = (64,)
    config.model.direction = "both"
    config.model.pooling = "max"
    config.model.output = "sigmoid"
    config.init.recurrent = ("orthogonal",)
    config.init.bias = ("lstm_bias", 1.0)
    # regularisation
    config.keep_prob.embedding = 0.7
    config.keep_prob.input = 0.5
    config.keep_prob.output = 0.5
    # optimiser
    config.optim.name = "adam"
    config.optim.learning_rate = 1e-3
    config.optim.clipping = "global_norm"
    config.optim.clip = 1.0
    config.optim.schedule = "cosine"
    config.train.epochs = 5
    config.train.report_every = 100
    config.train.steps_per_dispatch = 20
    config.checkpoint.best = "keep"
    # evaluation
    config.evaluation.splits = ("valid", "test")
    config.parameters = 1_346_177
    config.claim.minutes = 10.0
    config.claim.seeds = 3
    set_targets(
        config,
        test=aim(
            split="test",
            protocol="exact",
            metric="accuracy",
            value=0.885,
            where="above every row of the article",
            at="best",
        ),
    )
    return config
