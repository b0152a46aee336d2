"""A random search like that for the RNN language model of CS224d, at reduced size.

Source: Salvatore (2017). "Report: assignment 2", part 3. Its four scatter plots show validation perplexity against
batch size, dropout, learning rate and unroll; its best trial gave the hyperparameters of configs/cs224d/rnnlm.py.
Here: the first 100,000 words of PTB's training text, four epochs. The best of 40 trials had a perplexity of 384.3 (rate
0.010, batch 56, unroll 7, keep probability 0.94). The rate matters most (docs/results/sweeps/cs224d_rnnlm/).
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
