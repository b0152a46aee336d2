"""One LSTM layer of 1,000 units on PTB by characters, with zoneout: its memory is kept at rate 0.5, its output at 0.05.

Source: Krueger et al. (2017). "Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations", with its code
github.com/teganmaharaj/zoneout (zoneout_char_ptb.py), whose folder drop_prob_cells=0.5_drop_prob_states=0.95.4 has the
settings and the log of a run. Reported: 1.27 bits per character on the test text, and validation bits by epoch. The
code reads shuffled windows of 100 characters, each from a trained initial state, and clips Adam's step. Here windows
come in order and start from zero, and W_out, [1000, 50], is one orthonormal matrix instead of 20 blocks.
Variants, by argument: the number of epochs, 5 or 180; the log's run ended by itself, with a patience of 25 epochs.
Run (100 minutes on two CPU cores, 3,600 minutes for 180 epochs):
    python launch.py --config=configs/ptb/characters.py:5 --workdir=runs/ptb_characters
"""

from configs.base import base, set_targets, target
from lm.errors import lookup

# Validation bits per character after epochs 1, 2, ..., 5.
VALID_BY_EPOCH = (1.733314, 1.602059, 1.544406, 1.510730, 1.487859)
# Variant -> (epochs, minutes).
VARIANTS = {"5": (5, 100.0), "180": (180, 3600.0)}


def get_config(variant: str = "5"):
    epochs, minutes = lookup(VARIANTS, variant, "variant")
    config = base()
    config.name = f"ptb/characters:{variant}"
    config.source = "Krueger et al. 2017, and the log of their code"
    # data: 5,017,482 characters in 32 rows; (156,796 - 1) // 99 = 1,583 windows an epoch
    config.data.corpus = "ptb_characters"
    config.data.batching = "windows"
    config.data.batch_size = 32
    config.data.unroll = 99
    # model
    config.model.input = "one_hot"
    config.model.hidden = (1000,)
    config.init.input = config.init.recurrent = config.init.output = ("orthogonal",)
    config.init.bias = ("lstm_bias", 1.0)
    # regularisation
    config.zoneout.memory = 0.5
    config.zoneout.output = 0.05
    # optimiser
    config.optim.name = "adam"
    config.optim.learning_rate = 2e-3
    config.optim.clipping = "step_norm"
    config.optim.clip = 1.0
    config.train.epochs = epochs
    config.train.patience = 25
    config.train.report_every = 100
    config.train.steps_per_dispatch = 50
    config.checkpoint.every_steps = 500
    config.checkpoint.best = "keep"
    # evaluation
    config.evaluation.during = "windows"
    config.evaluation.protocols = ("windows", "exact")
    config.evaluation.splits = ("valid", "test")
    config.evaluation.batch_size = 32
    config.evaluation.unroll = 99
    config.sample.length = 200
    # (50 + 1000 + 1) x 4 x 1000 + (1000 + 1) x 50
    config.parameters = 4_254_050
    config.claim.minutes = minutes
    set_targets(config, **(by_epoch() if epochs == 5 else {"test": test()}))
    return config


def by_epoch():
    """The first points of the log's curve, of a single run, with a tolerance of 1%."""
    return {
        f"valid_epoch_{epoch}": target(
            split="valid",
            protocol="windows",
            metric="bits_per_symbol",
            value=value,
            tolerance=round(0.01 * value, 6),
            where="log.txt, dev_bpr",
            at=f"epoch {epoch}",
        )
        for epoch, value in enumerate(VALID_BY_EPOCH, start=1)
    }


def test():
    where = "README of the code"
    return target(split="test", protocol="windows", metric="bits_per_symbol", value=1.27, where=where, at="best")
