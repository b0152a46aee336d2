"""Two-layer LSTMs on PTB.

Source: Zaremba, Sutskever and Vinyals (2014). "Recurrent Neural Network Regularization". arXiv:1409.2329, Table 1. The
numbers for small are from TensorFlow's ptb_word_lm.
Variants, by argument, with reported train / valid / test perplexity:

  small         37.99 / 121.39 / 115.91     13 minutes   200 units, no dropout
  small_held_5  the same numbers            13 minutes   like small, with one more epoch at rate 1 (early ptb_word_lm)
  medium        48.45 /  86.16 /  82.07    420 minutes   650 units, half of the non-recurrent units dropped
  large         37.87 /  82.62 /  78.29  3,000 minutes   1,500 units, 65% dropped

Minutes are for two CPU cores: measured for small, estimated from the cost of a step for the others. On an NVIDIA H100
medium took 3.3 minutes, and large would take 12 (9.6 ms per step). The loss is averaged over the batch and summed over
time before its gradient is clipped. The test text is scored as one stream.

Our medium model, one seed: 45.63 / 87.79 / 84.26. Its training perplexity is below the reported one, the others above.
The cause is unknown.
Run: python launch.py --config=configs/ptb/zaremba.py:small --workdir=runs/ptb_zaremba_small
"""

from typing import NamedTuple

from configs.base import base, set_targets, target
from lm.errors import lookup


class Variant(NamedTuple):
    """A model of the paper's section 4.1: `hold` epochs at rate 1, then x `decay` after each epoch."""

    units: int
    unroll: int
    init: float
    keep: float
    clip: float
    hold: int
    decay: float
    epochs: int
    parameters: int
    minutes: float
    reported: tuple[float, float, float]  # train, valid, test perplexity


# Parameters: 10,000 x H + 2 x (2 H + 1) x 4 H + (H + 1) x 10,000
VARIANTS = {
    "small": Variant(200, 20, 0.1, 1.0, 5.0, 4, 0.5, 13, 4_651_600, 13.0, (37.99, 121.39, 115.91)),
    "small_held_5": Variant(200, 20, 0.1, 1.0, 5.0, 5, 0.5, 13, 4_651_600, 13.0, (37.99, 121.39, 115.91)),
    "medium": Variant(650, 35, 0.05, 0.5, 5.0, 6, 0.8, 39, 19_775_200, 420.0, (48.45, 86.16, 82.07)),
    "large": Variant(1500, 35, 0.04, 0.35, 10.0, 14, 1 / 1.15, 55, 66_022_000, 3000.0, (37.87, 82.62, 78.29)),
}


def get_config(variant: str = "small"):
    v = lookup(VARIANTS, variant, "variant")
    config = base()
    config.name = f"ptb/zaremba:{variant}"
    config.source = "Zaremba et al. 2014, arXiv:1409.2329, Table 1 (small: TensorFlow's ptb_word_lm)"
    # data
    config.data.corpus = "ptb"
    config.data.batching = "rows"
    config.data.batch_size = 20
    config.data.unroll = v.unroll
    # model
    config.model.input = "embedding"
    config.model.embedding_size = v.units
    config.model.hidden = (v.units, v.units)
    weights = ("uniform", -v.init, v.init)
    for role in ("embedding", "input", "recurrent", "output", "output_bias"):
        config.init[role] = weights
    # regularisation: on the non-recurrent connections only
    config.keep_prob.input = config.keep_prob.between = config.keep_prob.output = v.keep
    # optimiser
    config.loss.weighting = "sum_over_time"
    config.optim.learning_rate = 1.0
    config.optim.schedule = "epochs"
    config.optim.decay_rate = v.decay
    config.optim.hold_epochs = v.hold - 1  # counted from epoch 0, so that `hold` epochs have rate 1
    config.optim.clipping = "global_norm"
    config.optim.clip = v.clip
    config.train.epochs = v.epochs
    config.train.report_every = 200
    config.checkpoint.every_steps = 1000
    # evaluation
    config.evaluation.during = "batched"
    config.evaluation.protocols = ("batched", "exact")
    config.evaluation.splits = ("valid", "test")
    config.evaluation.batch_size = 20
    config.evaluation.unroll = v.unroll
    config.sample.length = 30
    config.parameters = v.parameters
    config.claim.minutes = v.minutes
    train, valid, test = v.reported
    set_targets(
        config,
        train=target(split="train", protocol="train", metric="perplexity", value=train, where="Table 1"),
        valid=target(split="valid", protocol="batched", metric="perplexity", value=valid, where="Table 1"),
        test=target(split="test", protocol="exact", metric="perplexity", value=test, where="Table 1"),
    )
    return config
