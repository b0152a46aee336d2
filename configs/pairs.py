"""Trains an encoder and a decoder with attention on your own pairs, such as sentences and their translations.

    python launch.py --config=configs/pairs.py --config.data.path=pairs.tsv --workdir=runs/pairs
    python launch.py --config=configs/pairs.py --config.data.path=names.csv --config.data.format=csv \\
        --config.data.columns='(1, 0)' --config.data.header=first_line --config.data.tokenizer=characters

Each row holds a source and a target; config.data.columns names the columns. Tokens are words or characters
(config.data.tokenizer). A token seen only once among the sources, or among the targets, becomes <unk> there. A tenth of
the rows is held out for validation unless config.data.valid_path names a file. The best checkpoint is kept.
"""

from configs.base import base


def get_config():
    config = base()
    config.task = "translation"
    config.name = "pairs"
    config.source = "your own pairs"
    # data
    config.data.corpus = "pairs"
    config.data.min_count = 2
    config.data.buckets = 4
    config.data.batch_size = 64
    # model: a smaller version of configs/multi30k/strong.py
    config.model.input = "embedding"
    config.model.embedding_size = 256
    config.model.hidden = (256,)
    config.model.context = "fed"
    config.model.direction = "both"
    config.model.output = "tied"
    config.init.embedding = ("normal", 0.0, 0.05)
    config.init.recurrent = ("orthogonal",)
    config.init.bias = ("lstm_bias", 1.0)
    # regularisation
    config.keep_prob.input = 0.7
    config.keep_prob.output = 0.7
    config.loss.label_smoothing = 0.1
    # optimiser
    config.optim.name = "adam"
    config.optim.learning_rate = 1e-3
    config.optim.clipping = "global_norm"
    config.train.epochs = 20
    config.train.patience = 4
    config.train.report_every = 50
    config.train.steps_per_dispatch = 50
    config.checkpoint.best = "keep"
    config.evaluation.protocols = ("exact", "beam")
    config.sample.beams = 5
    return config
