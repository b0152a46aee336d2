"""A random search like that for the window model of CS224d, at reduced size.

Source: Salvatore (2017). "Report: assignment 2", part 2. Its figure 2 shows validation loss against batch size,
dropout, learning rate and L2; its best trial gave the hyperparameters of configs/cs224d/ner.py. Here: one epoch.
Run: python launch.py --experiment=sweep --config=configs/sweeps/cs224d_ner.py --workdir=runs/sweep_ner
"""

from configs.cs224d import ner
from configs.sweeps._definition import sweep


def get_config():
    run = ner.get_config()
    run.train.epochs = 1
    run.train.patience = 0
    run.checkpoint.best = "none"
    config = sweep("sweeps/cs224d_ner", run)
    config.space = (
        ("data.batch_size", "integer", 16, 128),
        ("keep_prob.output", "uniform", 0.5, 1.0),
        ("optim.learning_rate", "log_uniform", 1e-4, 3e-2),
        ("penalty.l2", "log_uniform", 1e-6, 1e-2),
    )
    config.trials = 30
    config.lock()
    return config
