"""An LSTM or a GRU on the characters of Tiny Shakespeare, divided 90/5/5 in file order.

Source: this project; the text is that of Karpathy (2015), char-rnn.
Aim (no source reports this number): at most 1.50 nats per validation character, within 15 minutes on two CPU cores.
For comparison: the 10M-parameter transformer of Karpathy (2022), nanoGPT, reaches 1.47 on its own split.
Variants, by argument: lstm (11 minutes), gru (4 minutes).
Run: python launch.py --config=configs/tiny_shakespeare/char.py:lstm --workdir=runs/tiny_lstm
"""

from configs.base import aim, base, set_targets
from lm.errors import check_name

# Variant -> (cell, epochs, parameters). Parameters: 65 x 128 + (128 + 512 + 1) x G x 512 + (512 + 1) x 65, with G
# gates. The GRU's candidate has a second bias of 512.
VARIANTS = {"lstm": ("lstm", 11, 1_354_433), "gru": ("gru_reset_after", 6, 1_026_753)}
MINUTES_AND_SEEDS = {"lstm": (11.0, 1), "gru": (4.0, 3)}


def get_config(variant: str = "lstm"):
    check_name(variant, VARIANTS, "variant")
    config = base()
    config.name = f"tiny_shakespeare/char:{variant}"
    config.source = "this project; data from karpathy/char-rnn"
    # data
    config.data.corpus = "tiny_shakespeare"
    config.data.fractions = (0.9, 0.05, 0.05)
    config.data.batching = "rows"
    config.data.batch_size = 32
    config.data.unroll = 64
    # model
    config.model.cell, config.train.epochs, config.parameters = VARIANTS[variant]
    config.claim.minutes, config.claim.seeds = MINUTES_AND_SEEDS[variant]
    config.model.input = "embedding"
    config.model.embedding_size = 128
    config.model.hidden = (512,)
    # regularisation
    config.keep_prob.input = 0.9
    config.keep_prob.output = 0.6
    # optimiser
    config.optim.name = "adam"
    config.optim.learning_rate = 2e-3
    config.optim.schedule = "cosine"
    config.optim.clipping = "global_norm"
    config.optim.clip = 1.0
    config.train.report_every = 100
    config.checkpoint.best = "keep"
    # evaluation
    config.evaluation.during = "exact"
    config.evaluation.splits = ("valid", "test")
    config.sample.length = 300
    config.sample.number = 2
    set_targets(
        config,
        valid=aim(split="valid", protocol="exact", metric="loss", value=1.50, where="this project's aim"),
    )
    return config
