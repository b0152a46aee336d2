"""Classifies the sentiment of IMDB reviews by their last 500 words with an LSTM of 100 units.

Source: Brownlee (2016). "Sequence Classification with LSTM Recurrent Neural Networks in Python with Keras",
machinelearningmastery.com. Data: Maas et al. (2011), 25,000 reviews for training and 25,000 for testing.
Variants, by argument, with reported test accuracy after three epochs, one run each:

  lstm               86.79%
  dropout            85.56%   20% dropout after the embedding and after the LSTM
  recurrent_dropout  82.82%   20% dropout of the inputs and of the recurrent inputs, one mask per review
  cnn                86.36%   a convolution of 32 filters of width 3 and max pooling over pairs, before the LSTM

The vocabulary has 5,000 entries, as in Keras: <pad>, <start>, <unk>, an unused id and the most frequent words of the
training reviews. One oddity is kept: shorter reviews are padded in front, and the LSTM reads the padding. Two
differences: the article's logs show 16,750 training reviews, an older split; its Keras has a piecewise linear sigmoid.
Run (3 minutes on two CPU cores): python launch.py --config=configs/imdb/article.py:lstm --workdir=runs/imdb_lstm
"""

from typing import NamedTuple

from configs.base import base, set_targets, target
from lm.errors import lookup


class Variant(NamedTuple):
    """keep: values for config.keep_prob; mask: config.dropout.mask; reported: test accuracy"""

    keep: dict[str, float]
    mask: str
    convolution: tuple[int, ...]
    parameters: int
    reported: float


# Parameters: 5,000 x 32 + (32 + 100 + 1) x 400 + 101; cnn: 3 x 32 x 32 + 32 more
VARIANTS = {
    "lstm": Variant({}, "elementwise", (), 213_301, 0.8679),
    "dropout": Variant({"input": 0.8, "output": 0.8}, "elementwise", (), 213_301, 0.8556),
    "recurrent_dropout": Variant({"input": 0.8, "hidden": 0.8}, "variational", (), 213_301, 0.8282),
    "cnn": Variant({}, "elementwise", (32, 3, 2), 216_405, 0.8636),
}


def get_config(variant: str = "lstm"):
    v = lookup(VARIANTS, variant, "variant")
    config = base()
    config.task = "classification"
    config.name = f"imdb/article:{variant}"
    config.source = "Brownlee 2016, machinelearningmastery.com, sequence classification with LSTM"
    # data
    config.data.corpus = "imdb"
    config.data.max_vocabulary = 5000
    config.data.valid_share = 0.0
    config.data.max_tokens = 500
    config.data.keep = "last"
    config.data.padding = "front_unmasked"
    config.data.batch_size = 64
    # model
    config.model.cell = "lstm"
    config.model.input = "embedding"
    config.model.embedding_size = 32
    config.model.convolution = v.convolution
    config.model.hidden = (100,)
    config.model.output = "sigmoid"
    config.init.embedding = ("uniform", -0.05, 0.05)
    config.init.recurrent = ("orthogonal",)
    config.init.bias = ("lstm_bias", 1.0)
    # regularisation
    for site, keep in v.keep.items():
        config.keep_prob[site] = keep
    config.dropout.mask = v.mask
    # optimiser
    config.optim.name = "adam"
    config.optim.learning_rate = 1e-3
    config.train.epochs = 3
    config.train.report_every = 50
    config.train.steps_per_dispatch = 10
    # evaluation
    config.evaluation.splits = ("test",)
    config.parameters = v.parameters
    config.claim.minutes = 3.0
    config.claim.seeds = 3
    set_targets(
        config,
        test=target(split="test", protocol="exact", metric="accuracy", value=v.reported, where="the article's output"),
    )
    return config
