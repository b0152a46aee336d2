"""Trains a recurrent layer to track a state: parity, even_pairs, cycle or modular (lm/data/state_tracking.py).

Source: Delétang et al. (2023) train on texts of at most 40 symbols and test on longer ones. Here every symbol has a
label, and the test texts have 40 to 256 symbols. `--experiment=state_tracking` compares all cells. Variants, by
argument: the four tasks.
Run (20 seconds on two CPU cores): python launch.py --config=configs/state_tracking.py:parity --workdir=runs/parity
"""

from configs.base import base
from lm.errors import lookup

# Task -> number of parameters: embedding + (16 + 32 + 1) x 4 x 32 + output.
VARIANTS = {"parity": 6_370, "even_pairs": 6_370, "cycle": 6_485, "modular": 6_549}


def get_config(task: str = "parity"):
    parameters = lookup(VARIANTS, task, "variant")
    config = base()
    config.task = "tagging"
    config.name = f"state_tracking:{task}"
    config.source = "in the manner of Delétang et al. 2023"
    # data
    config.data.corpus = task
    config.data.size = 64_000
    config.data.batch_size = 64
    # model
    config.model.input = "embedding"
    config.model.embedding_size = 16
    config.model.hidden = (32,)
    config.model.pooling = "none"
    config.init.embedding = ("normal", 0.0, 1.0)
    # optimiser
    config.optim.name = "adam"
    config.optim.learning_rate = 5e-3
    config.optim.clipping = "global_norm"
    config.optim.clip = 1.0
    config.train.steps = 1000
    config.train.report_every = 100
    config.train.evaluate_every = 500
    config.train.steps_per_dispatch = 100
    # evaluation
    config.evaluation.splits = ("valid", "test")
    config.parameters = parameters
    return config
