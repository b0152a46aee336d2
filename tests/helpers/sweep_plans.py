"""Small sweeps that are planned, not trained."""

from configs.sweeps._definition import sweep
from tests.helpers import tiny

RATE = ("optim.learning_rate", "log_uniform", 0.01, 1.0)
SEED = ("seed", "integer", 0, 3)
CELL = ("model.cell", "choice", "lstm", "gru")


def run_of(**changes):
    return tiny.config(data__size=3000, train__evaluate_every=6, **changes)


def make(*space, **changes):
    config = sweep("tests/sweep", run_of())
    config.space = space
    config.update(changes)
    return config
