"""Trains the trials of a sweep and tells the study their results.

A trial is an ordinary run in WORKDIR/trials/PLACE. Its value is its lowest validation perplexity.
"""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import optuna
from ml_collections import ConfigDict
from optuna.trial import Trial, TrialState

from experiments.ledger.records import METRICS_ROW
from experiments.sweeps.space import trial_config
from experiments.sweeps.study import Sweep
from experiments.sweeps.trials import directory_of
from experiments.train import load_corpus, setup_on
from lm.data.corpora import Corpus
from lm.errors import UserError
from lm.runs import lock
from lm.runs.files import DISK_ERRORS
from lm.runs.schema import read_rows
from lm.training.lanes import same_program, train_lanes
from lm.training.loop import train


class TrialRun(NamedTuple):
    """A trial, the config of its run, and its directory."""

    trial: Trial
    config: ConfigDict
    directory: Path


def train_trials(sweep: Sweep, trials: list[Trial], corpora: dict[str, Corpus]):
    """Trains trials, with trials of one shape as lanes of one program, and tells the study how each ended. corpora: a
    cache of the last corpus, {its config: corpus}, updated here"""
    groups: list[list[TrialRun]] = []
    for trial in trials:
        directory = Path(sweep.place.workdir, directory_of(sweep.study, sweep.record_of(trial)))
        run = TrialRun(trial, trial_config(sweep.config, sweep.axes, trial.params), directory)
        group = next((group for group in groups if same_program(group[0].config, run.config)), None)
        groups.append([run]) if group is None else group.append(run)
    for group in groups:
        for run in group:
            wait_until_free(run.directory)
        began = time.monotonic()
        failures = train_group(sweep, group, corpora)
        seconds = round((time.monotonic() - began) / len(group), 2)  # an equal part for each lane
        for run, failure in zip(group, failures, strict=True):
            tell_result(sweep, run, failure, seconds)


def wait_until_free(directory: Path):
    """Waits until no other process trains in the directory, such as one presumed dead or about to end."""
    announced = False
    while directory.is_dir():
        try:
            with lock.alone(directory):
                return
        except UserError as error:
            if not isinstance(error.__cause__, BlockingIOError):
                return  # training will report the error
        if not announced:
            print(f"{directory}: waiting for the process that trains there", flush=True)
            announced = True
        time.sleep(0.5)


def train_group(sweep: Sweep, group: list[TrialRun], corpora: dict[str, Corpus]) -> list[Exception | None]:
    """Trains trials of one shape. Returns the error of each, or None. Raises an error that would end every trial."""
    first = group[0].config
    failures: list[Exception | None]
    try:
        key = repr((first.data.to_dict(), first.init_from))
        if key not in corpora:
            corpora.clear()  # only the last one is kept
            corpora[key] = load_corpus(first, sweep.place.data_dir)
        if "valid" not in corpora[key].splits:
            raise UserError(f"config.run.data.corpus={first.data.corpus} has no validation split, which a sweep needs")
        setups = [setup_on(run.config, corpora[key], sweep.place.data_dir) for run in group]
        if len(group) == 1:
            train(setups[0], group[0].directory, observe=reporter(group[0]))
            return [None]
        outcomes = train_lanes(setups, [str(run.directory) for run in group])
        failures = [outcome if isinstance(outcome, UserError) else None for outcome in outcomes]
    except Exception as error:  # whatever a trial raises is recorded as its failure
        if len(group) > 1 and concerns_one_trial(error):
            return [train_group(sweep, [run], corpora)[0] for run in group]
        failures = [error]
    for failure in failures:
        if failure and not concerns_one_trial(failure):
            raise failure
    return failures


def concerns_one_trial(error: Exception) -> bool:
    """Whether other trials may succeed in spite of this error."""
    if isinstance(error, optuna.exceptions.StorageInternalError):
        return False
    # A disk that is full or read-only would end every other trial, too.
    return not any(reason in str(error) for reason in DISK_ERRORS)


def reporter(run: TrialRun) -> Callable[[int, float], None]:
    """Returns a function that reports a validation check, and raises TrialPruned if the pruner ends the trial."""

    def observe(step: int, perplexity: float):
        earlier = [row for row in read_validations(run.directory) if row["step"] < step]
        check = 1 + sum(row["valid_perplexity"] is not None for row in earlier)
        run.trial.report(perplexity, check)
        if run.trial.should_prune():
            raise optuna.TrialPruned(f"pruned at validation check {check}")

    return observe


def read_validations(directory: Path) -> list[dict]:
    """The rows of metrics.jsonl that have a validation perplexity; it is None if it is too large for a float."""
    path = directory / "metrics.jsonl"
    rows = read_rows(path, METRICS_ROW) if path.is_file() else []
    return [row for row in rows if "valid_perplexity" in row]


def tell_result(sweep: Sweep, run: TrialRun, failure: Exception | None, seconds: float):
    """Tells the study how a trial ended, unless another machine that presumed this one dead has done so."""
    trial, checks = run.trial, []
    if failure is None:
        found = [row["valid_perplexity"] for row in read_validations(run.directory)]
        checks = [perplexity for perplexity in found if perplexity is not None]
        why = "every validation perplexity is too large for a float" if found else "there was no validation check"
        failure = None if checks else UserError(why)
    with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
        trial.set_user_attr("seconds", seconds)
        if failure is None:
            for number, perplexity in enumerate(checks, 1):
                trial.report(perplexity, number)  # lanes do not report during training
            sweep.study.tell(trial, min(checks), skip_if_finished=True)
        elif isinstance(failure, optuna.TrialPruned):
            sweep.study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
        else:
            trial.set_user_attr("failure", describe_error(failure))
            sweep.study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)


def describe_error(error: Exception) -> str:
    """Describes an error in one line, with its type unless it is a UserError."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return (reason if isinstance(error, UserError) else f"{type(error).__name__}: {reason}")[:500]
