"""A grid of four learning rates and three seeds on the built-in corpus, trained together as lanes.

Run: python launch.py --experiment=sweep --config=configs/sweeps/synthetic.py --workdir=runs/sweep_synthetic
"""

from configs.sweeps._definition import sweep
from configs.synthetic import lstm


def get_config():
    run = lstm.get_config()
    run.train.steps = 1000
    run.train.evaluate_every = 250
    config = sweep("sweeps/synthetic", run)
    config.space = (
        ("optim.learning_rate", "choice", 0.001, 0.003, 0.01, 0.03),
        ("seed", "choice", 0, 1, 2),
    )
    config.sampler = "grid"
    config.lock()
    return config
