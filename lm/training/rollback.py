"""config.on_nan=rollback: where a loss is not finite, back to a checkpoint at half the learning rate.

A checkpoint may be ruined itself: its loss was finite, but taken before its last update. So each is tried once; where
the loss is not finite again before the next one is written, the one before it is taken, or else the start.
"""

import numpy as np

from lm.errors import NotFinite
from lm.training import devices

# After so many the rate is a thousandth of what it was.
MOST_ROLLBACKS = 10

# What a checkpoint's record holds of it, a form of lm/runs/schema.py: whether a run has gone back to it.
SAVED = {"tried?": bool}


def roll_back(trainer, error: NotFinite):
    """Takes a `Trainer` back. Raises `error` where its config does not ask for that, or it was done too often.

    A kill at any moment in here changes nothing: the run does it again.
    """
    rollbacks = trainer.progress.rollbacks + 1
    if trainer.config.on_nan != "rollback" or rollbacks > MOST_ROLLBACKS:
        raise error
    trainer.checkpoints.wait()
    devices.wait_for_all("checkpoints are written")
    start = trainer.start()
    restored = trainer.checkpoints.restore(start)
    if restored and restored[1].get("tried", False):
        restored = trainer.checkpoints.restore(start, before=restored[2])
    trainer.go_to(restored, start)
    halvings = rollbacks - trainer.progress.rollbacks  # more than one where the checkpoint is from before the last
    trainer.progress = trainer.progress._replace(rollbacks=rollbacks)
    rate_factor = trainer.state.rate_factor * np.float32(0.5**halvings)
    trainer.state = trainer.state._replace(rate_factor=rate_factor)
    if trainer.writes:
        trainer.checkpoints.forget_best_after(trainer.done)
    trainer.save_here(tried=True)  # a kill from here on goes on at the lower rate
    trainer.say(f"{error}: back to step {trainer.done} at half the learning rate (rollback {rollbacks})")
