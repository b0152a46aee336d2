"""CS224d's random search for its RNN language model, at reduced size (seeds/002_9c3a666b5afdf0f8.txt).

The report draws four scatter plots, validation perplexity against batch size, dropout, learning rate and unroll, and
took the best trial for its hyper-parameters. Here: the first 100,000 words of PTB's training text, four epochs. Of 40
trials the best had 384.3 (rate 0.010, batch 56, unroll 7, keep probability 0.94); the rate decides, as the importances
show (docs/results/sweeps/cs224d_rnnlm/).
Run: python launch.py --experiment=sweep --config=configs/sweeps/cs224d_rnnlm.py --workdir=runs/sweep_cs224d
"""

from configs.cs224d import rnnlm
from configs.sweeps._definition import sweep


def get_config():
    run = rnnlm.get_config()
    run.data.train_tokens = 100_000
    run.train.epochs = 4
    run.train.patience = 0
    run.checkpoint.best = "none"
    config = sweep("sweeps/cs224d_rnnlm", run)
    config.space = (
        ("data.batch_size", "integer", 16, 128),
        ("keep_prob.input+keep_prob.carried", "uniform", 0.5, 1.0),
        ("optim.learning_rate", "log_uniform", 1e-4, 3e-2),
        ("data.unroll", "integer", 4, 24),
    )
    config.trials = 40
    config.lock()
    return config
