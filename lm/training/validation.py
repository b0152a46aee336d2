"""Decisions taken after validation: keep the best checkpoint, decay the rate, start averaging, stop early.

They depend on `Checks`, which is saved in every checkpoint, so a resumed run takes the same decisions.
"""

import math
from typing import NamedTuple

import ml_collections

from lm.errors import UserError
from lm.scoring.measures import MEASURES
from lm.scoring.score import Score

CRITERIA = ("loss", *MEASURES)


class Checks(NamedTuple):
    """The history of validation checks that decisions depend on. All losses are values of `criterion`."""

    best_nats: float = math.inf  # lowest so far
    best_step: int = 0  # the step (from 0) after which best_nats was measured
    since_best: int = 0  # checks since best_step
    since_change: int = 0  # checks since best_step or the last decay of the rate
    losses: tuple[float, ...] = ()  # nt_asgd: losses of all checks before averaging began
    averaging: bool = False  # nt_asgd: whether averaging has begun
    stopped: bool = False  # whether training has ended early


class Decision(NamedTuple):
    """The actions that follow a validation check."""

    best: bool  # the lowest loss so far
    decay: bool  # multiply the learning rate by config.optim.decay_rate
    average: bool  # begin averaging the parameters
    stop: bool  # end training


def criterion(config: ml_collections.ConfigDict, score: Score) -> float:
    """The value that validation minimises: mean nats, or 1 - the measure config.evaluation.best_by."""
    name = config.evaluation.best_by
    return score.mean_nats if name == "loss" else 1 - score.measures[name]


def decide(config: ml_collections.ConfigDict, checks: Checks, loss: float, step: int) -> tuple[Checks, Decision]:
    """Adds a check after step `step` (from 0) to the history and decides. loss: the check's value of `criterion`

    best      the loss is the lowest so far; never if it is nan
    decay     schedule plateau: `optim.patience` checks in a row without a new best since the last decay
    average   nt_asgd: the loss exceeds the lowest one measured more than `optim.nonmonotone_checks` checks earlier
              (Merity et al. 2017, algorithm 1, as in awd-lstm-lm)
    stop      `train.patience` checks in a row without a new best
    """
    optim, patience = config.optim, config.train.patience
    best = loss < checks.best_nats
    if best:
        checks = checks._replace(best_nats=loss, best_step=step, since_best=0, since_change=0)
    else:
        checks = checks._replace(since_best=checks.since_best + 1, since_change=checks.since_change + 1)
    decay = optim.schedule == "plateau" and checks.since_change >= optim.patience
    if decay:
        checks = checks._replace(since_change=0)
    average = False
    if optim.name == "nt_asgd" and not checks.averaging:
        compared = checks.losses[: -optim.nonmonotone_checks]
        average = bool(compared) and loss > min(compared)
        checks = checks._replace(averaging=average, losses=() if average else (*checks.losses, loss))
    stop = 0 < patience <= checks.since_best
    return checks._replace(stopped=stop), Decision(best, decay, average, stop)


def deciding_keys(config: ml_collections.ConfigDict) -> list[str]:
    """The settings that let validation change the rest of training, such as "optim.schedule=plateau"."""
    used = {
        f"train.patience={config.train.patience}": config.train.patience > 0,
        "optim.schedule=plateau": config.optim.schedule == "plateau",
        "optim.name=nt_asgd": config.optim.name == "nt_asgd",
    }
    return [key for key, is_used in used.items() if is_used]


def check_validation(config: ml_collections.ConfigDict, splits: dict):
    """Raises UserError if the config needs validation and `splits` has no validation split."""
    keys = deciding_keys(config) + (["checkpoint.best=keep"] if config.checkpoint.best == "keep" else [])
    if keys and "valid" not in splits:
        raise UserError(
            f"config.{keys[0]} needs a validation text, but this corpus has none; for your own text, set "
            "config.data.valid_path, fractions or valid_share"
        )
