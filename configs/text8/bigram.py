"""A text8 LSTM that reads bigrams (c[t-1], c[t]) from a 729 x 128 table and predicts c[t+1].

Source: Vanhoucke (2016). "Deep Learning" (Udacity), assignment 6, problem 2b.
Reported at step 7000: mean loss 1.567820, minibatch perplexity 4.62, validation perplexity 6.76.
The 6.76 is an artefact: the notebook's validation advances two characters per prediction, so the state skips every
other bigram (protocol notebook_stride2). Stride 1 (protocols notebook and exact) scores the same model correctly.
Run (0.5 minutes on two CPU cores): python launch.py --config=configs/text8/bigram.py --workdir=runs/text8_bigram
"""

from configs.base import set_targets, target
from configs.text8._assignment6 import assignment6


def bigram(name: str):
    """The model with bigram input. A window of 11 characters gives 9 predictions, from the third character on."""
    config = assignment6(name)
    config.model.input = "bigram"
    config.model.embedding_size = 128
    config.init.embedding = ("uniform", -1.0, 1.0)
    config.evaluation.during = "notebook_stride2"
    config.evaluation.protocols = ("notebook_stride2", "notebook", "exact")
    # 27^2 x 128 + (128 + 64 + 1) x 4 x 64 + (64 + 1) x 27
    config.parameters = 144_475
    config.claim.minutes, config.claim.seeds = 0.5, 3
    return config


def get_config():
    config = bigram("bigram")
    where = "problem 2, bigrams, step 7000"
    set_targets(
        config,
        perplexity=target(split="valid", protocol="notebook_stride2", metric="perplexity", value=6.76, where=where),
        loss=target(split="train", protocol="train", metric="loss", value=1.567820, tolerance=0.02, where=where),
    )
    return config
