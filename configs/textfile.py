"""Trains a language model on your own text: --config.data.path=FILE, by characters, words, bytes or byte pairs.

Run: python launch.py --config=configs/textfile.py --config.data.path=FILE --workdir=runs/mine
     (reads characters, unless --config.data.level is word, byte or bpe)
"""

from configs.base import base


def get_config():
    config = base()
    config.name = "textfile"
    config.source = "the user's own text"
    # data
    config.data.corpus = "textfile"
    config.data.batching = "rows"
    config.data.batch_size = 16
    config.data.unroll = 32
    # model
    config.model.input = "embedding"
    config.model.embedding_size = 64
    config.model.hidden = (256,)
    # regularisation
    config.keep_prob.output = 0.8
    # optimiser
    config.optim.name = "adam"
    config.optim.learning_rate = 3e-3
    config.optim.schedule = "cosine"
    config.optim.clipping = "global_norm"
    config.optim.clip = 1.0
    config.train.epochs = 10
    config.checkpoint.best = "keep"
    # evaluation
    config.evaluation.splits = ("valid", "test")
    config.sample.length = 200
    config.parameters = 0  # depends on the text
    return config
