"""The default: an LSTM on the built-in synthetic corpus, whose entropy is known exactly.

Source: this project (lm/data/synthetic.py).
Run: make run (or: python launch.py --workdir=runs/first)
"""

from configs.base import base


def get_config():
    config = base()
    config.name = "synthetic/lstm"
    config.source = "lm/data/synthetic.py: the corpus and its entropy rate"
    # data
    config.data.corpus = "synthetic"
    config.data.batch_size = 32
    config.data.unroll = 32
    # model
    config.model.hidden = (128,)
    # optimiser
    config.optim.name = "adam"
    config.optim.learning_rate = 5e-3
    config.optim.schedule = "cosine"
    config.optim.clipping = "global_norm"
    config.optim.clip = 1.0
    config.train.steps = 3000
    config.train.report_every = 250
    config.train.evaluate_every = 500
    config.evaluation.splits = ("valid", "test")
    # (27 + 128 + 1) x 4 x 128 + (128 + 1) x 27
    config.parameters = 83_355
    return config
