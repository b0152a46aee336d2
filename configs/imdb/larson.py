"""Sentiment of IMDB reviews with three recurrent layers of 100 units, 1,000 words and a small learning rate.

Source: Larson (2020). "13. RNN Basics", a notebook of the course "Machine Learning in Python".
Variants, by argument, with reported validation accuracy after three and six epochs, one run each:

  simple_rnn   51.65%   54.26%
  lstm         70.17%   82.76%
  gru          71.53%   70.27%

Words and padding as in configs/imdb/article.py; a fifth of the inputs and of the recurrent inputs is dropped, one mask
per review. Oddities kept: the validation reviews are IMDB's test half; Adam's epsilon is as large as its rate; and the
notebook asks for gradients clipped at norm 1, which `fit` of its TensorFlow (2.0 or 2.1) left out, so none are clipped.
Two differences: Keras adds epsilon before the correction of Adam's bias. And the source's models share one embedding
table and one optimiser and are trained in turn, three epochs each, then three more: its lstm starts from words that its
simple_rnn has learned, and with an optimiser whose step counter has passed the steps at which Adam's moments are
corrected. Here each variant starts from a table and an optimiser of its own. Tried apart: the lstm with both has 70.2%
after three epochs, with the words alone 61.2% (config.model.embedding_from, a file of word vectors).
Run (9 minutes on two CPU cores): python launch.py --config=configs/imdb/larson.py:lstm --workdir=runs/larson_lstm
"""

from typing import NamedTuple

from configs.base import base, set_targets, target
from lm.errors import lookup


class Variant(NamedTuple):
    """cell: config.model.cell; bias: config.init.bias; reported: validation accuracy after epochs 3 and 6"""

    cell: str
    bias: tuple
    parameters: int
    reported: tuple[float, float]


# Parameters: 1,000 x 50 + 101, and (50 + 100 + 1) x 100 x 1, x 4, or x 3 with a second bias of the candidate's 100.
# Keras's gru has 95,701: the other two gates have a second bias, too, which adds to the first.
VARIANTS = {
    "simple_rnn": Variant("elman_tanh", ("zeros",), 65_201, (0.5165, 0.5426)),
    "lstm": Variant("lstm", ("lstm_bias", 1.0), 110_501, (0.7017, 0.8276)),
    "gru": Variant("gru_reset_after", ("zeros",), 95_501, (0.7153, 0.7027)),
}


def get_config(variant: str = "lstm"):
    v = lookup(VARIANTS, variant, "variant")
    config = base()
    config.task = "classification"
    config.name = f"imdb/larson:{variant}"
    config.source = "Larson 2020, notebook 13. RNN Basics"
    # data
    config.data.corpus = "imdb_test_as_valid"
    config.data.max_vocabulary = 1000
    config.data.max_tokens = 500
    config.data.keep = "last"
    config.data.padding = "front_unmasked"
    config.data.batch_size = 64
    # model
    config.model.cell = v.cell
    config.model.input = "embedding"
    config.model.embedding_size = 50
    config.model.hidden = (100,)
    config.model.output = "sigmoid"
    config.init.embedding = ("uniform", -0.05, 0.05)
    config.init.recurrent = ("orthogonal",)
    config.init.bias = v.bias
    # regularisation
    config.keep_prob.input = 0.8
    config.keep_prob.hidden = 0.8
    config.dropout.mask = "variational"
    # optimiser
    config.optim.name = "adam"
    config.optim.learning_rate = 1e-4
    config.optim.epsilon = 1e-4
    config.train.epochs = 6
    config.train.report_every = 50
    config.train.steps_per_dispatch = 10
    # evaluation
    config.evaluation.splits = ("valid",)
    config.parameters = v.parameters
    config.claim.minutes = 9.0
    set_targets(
        config,
        **{
            f"epoch_{epoch}": target(
                split="valid",
                protocol="exact",
                metric="accuracy",
                value=value,
                at=f"epoch {epoch}",
                where="the notebook's val_accuracy",
            )
            for epoch, value in zip((3, 6), v.reported, strict=True)
        },
    )
    return config
