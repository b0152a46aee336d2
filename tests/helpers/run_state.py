"""What a run has computed: the rows of its log and the arrays of its state."""

import json
from pathlib import Path

import jax
import numpy as np

from lm.training.loop import Trainer


def rows_of(workdir: Path) -> list[dict]:
    """The rows of metrics.jsonl without the speed, which the clock determines."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "tokens_per_s"} for row in rows]


def leaves_of(trainer: Trainer) -> list[np.ndarray]:
    """The arrays of a trainer's state, the random key as integers."""
    state = trainer.state._replace(key=jax.random.key_data(trainer.state.key))
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
