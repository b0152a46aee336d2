"""config.on_nan=rollback: restores the last checkpoint and halves the learning rate after a non-finite loss.

A checkpoint may be ruined itself: its loss was finite, but measured before its last update. So each is tried once. If
the loss becomes non-finite again before the next one is written, training returns to the one before it, or the start.
"""

from lm.errors import NotFinite
from lm.runs.checkpoint import Checkpoints
from lm.training.state import TrainState

# Ten halvings leave a thousandth of the learning rate.
MOST_ROLLBACKS = 10


def count_rollback(on_nan: str, rollbacks: int, error: NotFinite) -> int:
    """The number of rollbacks including the next. Raises `error` if the config asks for none, or too many were made."""
    if on_nan != "rollback":
        raise NotFinite(f"{error} or set config.on_nan=rollback") from error
    if rollbacks >= MOST_ROLLBACKS:
        raise error
    return rollbacks + 1


def find_checkpoint(checkpoints: Checkpoints, template: TrainState) -> tuple[TrainState, dict, int] | None:
    """The last checkpoint, or the one before it if the last was tried already; None for the start of the run."""
    restored = checkpoints.restore(template)
    if restored and restored[1].get("tried", False):
        restored = checkpoints.restore(template, before=restored[2])
    return restored
