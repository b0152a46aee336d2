"""Sums of a number below 100 and one below 1,000, character by character: an LSTM reads, another one writes.

Source: the seq2seq example of flax (Heek et al. 2020), and the log in its notebook. It speaks of teacher forcing, but
its training step builds the model without: each step reads the symbol that the model wrote. With teacher forcing, ours
writes 17% of the sums after 1,800 steps, and flax's own cells 48% of a batch.

The log has a sequence accuracy of 1.0 after 1,800 steps, of the batch of 128 sums that it trains on; ours is of 1,000
sums that training lacks. A model that errs in 2.3% of all sums gets 128 right in a row one time in twenty, which is the
tolerance. The example draws the symbol that a step reads by its probability; here it is the likeliest.
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
