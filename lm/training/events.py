"""Decides after which steps a run reports, validates, samples and saves."""

from lm.errors import UserError
from lm.runs.workdir import read_config
from lm.training.setup import Setup
from lm.training.validation import deciding_keys


def happens(step: int, every: int, epoch: int, total: int) -> bool:
    """Whether an event follows step `step` (from 0): yes if its period `every` divides `step`. A period of 0 means the
    end of every epoch (of `epoch` steps). The last step triggers every event."""
    if step == total - 1:
        return True
    return step % every == 0 if every else (step + 1) % epoch == 0


def next_stop(setup: Setup, done: int) -> int:
    """Completed steps after the next dispatch, which ends at an event, an epoch's end or after steps_per_dispatch."""
    stop = min(done + setup.config.train.steps_per_dispatch, setup.total_steps)
    return next(
        (made for made in range(done + 1, stop) if made % setup.task.steps_per_epoch == 0 or due(setup, made)), stop
    )


def due(setup: Setup, done: int) -> set[str]:
    """The events due after `done` steps: report, epoch, validation (with such a split), sample and checkpoint."""
    step, total, train = done - 1, setup.total_steps, setup.config.train
    epoch = setup.task.steps_per_epoch
    last = done == total
    ends_epoch = setup.task.ends_epochs and done % epoch == 0
    validates = "valid" in setup.corpus.splits and happens(step, train.evaluate_every, epoch, total)
    when = {
        "epoch": ends_epoch,
        "validation": validates,
        "report": ends_epoch or validates or happens(step, train.report_every, epoch, total),
        "sample": happens(step, train.sample_every or total, epoch, total),
        "checkpoint": last or done % setup.config.checkpoint.every_steps == 0,
    }
    return {name for name, is_due in when.items() if is_due}


def check_longer(setup: Setup, workdir, done: int):
    """Raises UserError if a finished run in `workdir`, made longer, could differ from a new run of the longer length.

    Every run validates after its last step. If that step is not on the longer run's schedule, the new run would skip
    this validation, and training differs if validation decides the rate, the averaging or an early stop.
    """
    old, config = read_config(workdir), setup.config
    if old is None or done == setup.total_steps:
        return
    epoch = setup.task.steps_per_epoch
    ended = done == (old["train"]["steps"] or old["train"]["epochs"] * epoch)
    keys = deciding_keys(config)
    if ended and keys and not happens(done - 1, config.train.evaluate_every, epoch, setup.total_steps):
        raise UserError(
            f"directory {workdir} holds a run of {done} steps, and config.{keys[0]} has used the validation after "
            "its last step, which a longer run would skip: choose another directory"
        )
