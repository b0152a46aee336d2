"""A text8 LSTM that computes its four gates with one input product and one recurrent product.

Source: Vanhoucke (2016). "Deep Learning" (Udacity), assignment 6, problem 1.
Reported at step 7000: mean loss 1.575352, minibatch perplexity 4.88, validation perplexity 4.39.
Run (0.3 minutes on two cores): python launch.py --config=configs/text8/lstm_fused.py --workdir=runs/text8_lstm_fused
"""

from configs.base import set_targets, target
from configs.text8._assignment6 import assignment6


def get_config():
    config = assignment6("lstm_fused")
    config.model.cell = "lstm"
    # (27 + 64 + 1) x 4 x 64 + (64 + 1) x 27
    config.parameters = 25_307
    config.claim.minutes, config.claim.seeds = 0.3, 3
    where = "problem 1, step 7000"
    set_targets(
        config,
        perplexity=target(split="valid", protocol="notebook", metric="perplexity", value=4.39, where=where),
        loss=target(split="train", protocol="train", metric="loss", value=1.575352, tolerance=0.02, where=where),
    )
    return config
