"""A text8 LSTM with 128-dimensional character embeddings.

Source: Vanhoucke (2016). "Deep Learning" (Udacity), assignment 6, problem 2a.
Reported at step 7000: mean loss 1.568867, minibatch perplexity 4.88, validation perplexity 4.36.
Run (0.3 minutes on two CPU cores): python launch.py --config=configs/text8/embedding.py --workdir=runs/text8_embedding
"""

from configs.base import set_targets, target
from configs.text8._assignment6 import assignment6


def get_config():
    config = assignment6("embedding")
    config.model.input = "embedding"
    config.model.embedding_size = 128
    config.init.embedding = ("uniform", -1.0, 1.0)
    # 27 x 128 + (128 + 64 + 1) x 4 x 64 + (64 + 1) x 27
    config.parameters = 54_619
    config.claim.minutes, config.claim.seeds = 0.3, 3
    where = "problem 2, embedding, step 7000"
    set_targets(
        config,
        perplexity=target(split="valid", protocol="notebook", metric="perplexity", value=4.36, where=where),
        loss=target(split="train", protocol="train", metric="loss", value=1.568867, tolerance=0.02, where=where),
    )
    return config
