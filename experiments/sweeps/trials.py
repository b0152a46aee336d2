"""Reads from the study a trial's directory, its failure and its place in the plan.

A trial whose machine stops responding is repeated under a new number, at the place of the original. If two workers take
the last trial at the same time, one of them gets a surplus trial, which has no place.
"""

from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def trials_without_surplus(study: optuna.Study) -> list[FrozenTrial]:
    return [trial for trial in study.get_trials(deepcopy=False) if "surplus" not in trial.user_attrs]


def origin(trial: FrozenTrial) -> int:
    """The number of the trial that this one repeats, or its own."""
    return trial.system_attrs.get("failed_trial", trial.number)


def originals(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that are not repeats, in order. Repeats and surplus trials leave gaps between their numbers."""
    return [trial for trial in trials_without_surplus(study) if origin(trial) == trial.number]


def place_of(study: optuna.Study, trial: FrozenTrial) -> int:
    """Index of a trial in the plan, from 0."""
    return sum(each.number < origin(trial) for each in originals(study))


def directory_of(study: optuna.Study, trial: FrozenTrial) -> Path:
    """The directory of a trial's run, relative to the sweep's."""
    return Path("trials", f"{place_of(study, trial):04}")


def value_of(trial: FrozenTrial) -> float:
    """The value of a complete trial."""
    assert trial.value is not None
    return trial.value


def failure_of(trial: FrozenTrial) -> str | None:
    """Why a trial failed. Its worker or supervisor records the reason, unless the whole machine has gone."""
    if trial.state != TrialState.FAIL:
        return None
    tries = 1 + len(trial.system_attrs.get("retry_history", []))
    return trial.user_attrs.get("failure") or f"its machine stopped responding {tries} time{'s' if tries > 1 else ''}"


def describe_state(trial: FrozenTrial) -> str:
    """A complete trial's value, or the state, with the reason of a failure."""
    if trial.state == TrialState.COMPLETE:
        return f"{trial.value:.4f}"
    failure = failure_of(trial)
    return trial.state.name.lower() + (f": {failure}" if failure else "")
