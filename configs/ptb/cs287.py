"""A two-layer LSTM (512 units) on PTB whose softmax shares the embedding table.

Source: a solution of homework 2 of Harvard's course CS287, with its settings: dropout 0.5 between layers and before the
softmax, but not on the word vectors; a loss summed over 128 x 32 targets; PyTorch's initialisers, with word vectors
from N(0, 1). Its layers have two biases, ours one. Variants, by argument: 30 and 50, the number of epochs.

PyTorch's patience of 1 decays the rate after two checks in a row without a lower loss: optim.patience is 2 here.
Run (95 minutes on two CPU cores, 160 minutes for 50 epochs):
    python launch.py --config=configs/ptb/cs287.py:30 --workdir=runs/cs287
"""

from configs.base import base, set_targets, target
from lm.errors import lookup

# Variant -> (epochs, minutes, validation perplexity, test perplexity).
VARIANTS = {"30": (30, 95.0, 76.18, 73.27), "50": (50, 160.0, 75.75, 72.85)}


def get_config(variant: str = "30"):
    epochs, minutes, valid, test = lookup(VARIANTS, variant, "variant")
    config = base()
    config.name = f"ptb/cs287:{variant}"
    config.source = "a solution of homework 2, Harvard CS287"
    # data
    config.data.corpus = "ptb"
    config.data.batching = "rows"
    config.data.batch_size = 128
    config.data.unroll = 32
    # model
    config.model.input = "embedding"
    config.model.embedding_size = 512
    config.model.hidden = (512, 512)
    config.model.output = "tied"
    config.init.embedding = ("normal", 0.0, 1.0)
    even = ("uniform", -(512**-0.5), 512**-0.5)
    config.init.input = config.init.recurrent = config.init.bias = config.init.output_bias = even
    # regularisation
    config.keep_prob.between = 0.5
    config.keep_prob.output = 0.5
    # optimiser
    config.loss.weighting = "sum"
    config.optim.name = "adam"
    config.optim.learning_rate = 0.01
    config.optim.weight_decay = 1e-4
    config.optim.schedule = "plateau"
    config.optim.patience = 2
    config.optim.decay_rate = 0.25
    config.optim.clipping = "global_norm"
    config.optim.clip = 2.0
    config.train.epochs = epochs
    config.train.report_every = 113
    config.train.steps_per_dispatch = 113
    config.checkpoint.every_steps = 226
    config.checkpoint.best = "keep"
    # evaluation
    config.evaluation.during = "batched"
    config.evaluation.protocols = ("batched", "exact")
    config.evaluation.splits = ("valid", "test")
    config.evaluation.batch_size = 128
    config.evaluation.unroll = 32
    config.sample.length = 30
    # 10,000 x 512 + 2 x (512 + 512 + 1) x 4 x 512 + 10,000
    config.parameters = 9_328_400
    config.claim.minutes = minutes
    set_targets(config, valid=reported("valid", valid, epochs), test=reported("test", test, epochs))
    return config


def reported(split: str, value: float, epochs: int):
    where = f"{epochs} epochs, tied"
    return target(split=split, protocol="batched", metric="perplexity", value=value, at="best", where=where)
