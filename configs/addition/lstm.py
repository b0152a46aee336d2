"""Adds numbers below 100 and below 1,000, character by character, with an LSTM encoder and an LSTM decoder.

Source: the seq2seq example of flax (Heek et al. 2020), and the log in its notebook. The example says that it uses
teacher forcing, but its decoder reads its own symbols in training. With teacher forcing for 1,800 steps, our model gets
17% of the sums right, and flax's own cells get 48% of a batch right.

The log reports a sequence accuracy of 1.0 after 1,800 steps, on a batch of 128 training sums. Ours is measured on 1,000
sums that are not in the training data. A model with 2.3% wrong sums gets all 128 right with a probability of 5%, so
the tolerance is 2.3%. The example's decoder reads a symbol drawn from its prediction, ours reads the most probable one.
Run (5 minutes on two CPU cores): python launch.py --config=configs/addition/lstm.py --workdir=runs/addition
"""

from configs.base import base, set_targets, target


def get_config():
    config = base()
    config.task = "translation"
    config.name = "addition/lstm"
    config.source = "Heek et al. 2020, examples/seq2seq"
    # data
    config.data.corpus = "addition"
    config.data.size = 230_400
    config.data.batch_size = 128
    # model
    config.model.hidden = (512,)
    config.init.recurrent = ("orthogonal",)
    config.loss.teacher_forcing = 0.0
    # optimiser
    config.optim.name = "adam"
    config.optim.learning_rate = 3e-3
    config.train.steps = 1800
    config.train.report_every = 50
    config.train.evaluate_every = 200
    config.train.steps_per_dispatch = 10
    # evaluation
    config.evaluation.splits = ("valid", "test")
    config.evaluation.target_length = 6
    config.parameters = 2_156_556
    config.claim.minutes = 5.0
    config.claim.seeds = 3
    set_targets(
        config,
        accuracy=target(
            split="test",
            protocol="exact",
            metric="sequence_accuracy",
            value=1.0,
            tolerance=0.023,
            where="README of examples/seq2seq, step 1800",
        ),
    )
    return config
