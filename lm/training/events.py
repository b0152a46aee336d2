"""Decides after which steps a run reports, validates, samples and saves."""

from lm.training.setup import Setup


def happens(step: int, every: int, epoch: int, total: int) -> bool:
    """Whether an event with period `every` follows step `step` (from 0): after steps 0, every, 2 every, …

    A period of 0 means the end of every epoch (of `epoch` steps). The last step triggers every event.
    """
    if step == total - 1:
        return True
    return step % every == 0 if every else (step + 1) % epoch == 0


def next_stop(setup: Setup, done: int) -> int:
    """Number of completed steps at the end of the next dispatch: at the next event, or after steps_per_dispatch."""
    train = setup.config.train
    epoch, total = setup.task.steps_per_epoch, setup.total_steps
    stop = min(done + train.steps_per_dispatch, total)
    for made in range(done + 1, stop):
        step = made - 1
        periods = (train.report_every, train.evaluate_every, train.sample_every or total, 0)
        if any(happens(step, every, epoch, total) for every in periods):
            return made
        if made % setup.config.checkpoint.every_steps == 0:
            return made
    return stop


def due(setup: Setup, done: int) -> set[str]:
    """Events due after `done` steps: any of report, epoch, validation, sample and checkpoint.

    Without a validation split, validation is never due.
    """
    step, total, train = done - 1, setup.total_steps, setup.config.train
    epoch = setup.task.steps_per_epoch
    last = done == total
    ends_epoch = setup.task.ends_epochs and done % epoch == 0
    validates = "valid" in setup.corpus.splits and happens(step, train.evaluate_every, epoch, total)
    when = {
        "epoch": ends_epoch,
        "validation": validates,
        "report": ends_epoch or validates or happens(step, train.report_every, epoch, total),
        "sample": last or happens(step, train.sample_every or total, epoch, total),
        "checkpoint": last or done % setup.config.checkpoint.every_steps == 0,
    }
    return {name for name, is_due in when.items() if is_due}
