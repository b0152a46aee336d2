"""Sums of two numbers below 1,000, character by character, with an LSTM that reads and one that writes.

No source's number is claimed. The seq2seq example of flax (Heek et al. 2020) says that such a model adds without a
mistake after 1,800 steps of 128 sums; this config then writes 30% of 1,000 held-out sums correctly, why is not known.
Run (6 minutes on two CPU cores): python launch.py --config=configs/addition/lstm.py --workdir=runs/addition
"""

from configs.base import base


def get_config():
    config = base()
    config.task = "translation"
    config.name = "addition/lstm"
    config.source = "in the manner of flax's examples/seq2seq"
    # data
    config.data.corpus = "addition"
    config.data.size = 230_400
    config.data.batch_size = 128
    # model
    config.model.hidden = (512,)
    config.init.recurrent = ("orthogonal",)
    # optimiser
    config.optim.name = "adam"
    config.optim.learning_rate = 3e-3
    config.train.steps = 1800
    config.train.report_every = 50
    config.train.evaluate_every = 200
    config.train.steps_per_dispatch = 10
    # evaluation
    config.evaluation.splits = ("valid", "test")
    config.parameters = 2_156_556
    return config
