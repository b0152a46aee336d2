"""One worker of a sweep: takes trials from the study, trains them, and says how they ended.

Runs in a process of its own (lm/machine/processes.py), so that a trial which takes the process with it ends as a
failed trial, not as the end of the sweep. The supervisor sends it the arguments of `work`. A trial is an ordinary run
in WORKDIR/trials/PLACE; its value is its lowest validation perplexity.
"""

import contextlib
import errno
import os
import sys
import time
from pathlib import Path

import ml_collections
import optuna
from optuna.trial import TrialState

from experiments.ledger.records import METRICS_ROW
from experiments.sweeps.heartbeat import Heart, beat, fail_silent
from experiments.sweeps.plan import Axis, changed, make_space, number_of_trials, originals, place_of
from experiments.sweeps.study import Place, directory_of, frozen, name_of, open_study, quiet, storage_trouble
from experiments.train import load_corpus
from lm.errors import UserError
from lm.machine.compilation_cache import use_compilation_cache
from lm.machine.processes import to_parent
from lm.runs import lock
from lm.runs.schema import read_rows

# What a system says where no other trial could fare better: a full disk, or one that cannot be written.
DISK = tuple(map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)))


GAVE_UP, ASKED = 2, 75  # exit statuses: an error that it sends to the supervisor; a signal, after saving


# --------------------------------------------------------------------------------------- one worker


def main() -> int:
    """Works for the supervisor, and returns the exit status."""
    supervisor = to_parent()
    config, place, at_once, left_behind = supervisor.receive()
    try:
        work(ml_collections.ConfigDict(config), Place(*place), at_once, left_behind)
    except KeyboardInterrupt:
        return ASKED
    except UserError as error:
        supervisor.send(str(error))
        return GAVE_UP
    return 0


def work(config: ml_collections.ConfigDict, place: Place, at_once: int, left_behind: list[tuple[int, ...]]):
    """Takes trials, `at_once` at a time, until there are no more to take.

    left_behind: ids of trials that were running in a process which is gone, those together that were

    Raises UserError where no trial could go on: the database fails, or the disk is full.
    """
    if at_once > 1:
        from lm.machine.cores import one_device_per_core

        one_device_per_core()
    elif config.run.train.threads:
        from lm.machine.cores import limit_threads

        limit_threads(config.run.train.threads)
    use_compilation_cache()
    study, axes = open_study(config, place), make_space(config)
    corpora = {}
    with (
        storage_trouble(place),
        open_log(place) as log,
        quiet(),
        Heart(study, config.heartbeat_seconds / 3) as heart,
        contextlib.redirect_stdout(log),
    ):
        for trials in takes(study, config, axes, place, at_once, left_behind):
            heart.watch([trial._trial_id for trial in trials])
            train_trials(study, trials, config, axes, place, corpora)
            heart.watch([])


@contextlib.contextmanager
def open_log(place: Place):
    """trials.log, where what trials print goes. Raises UserError where that cannot be written."""
    path = Path(place.workdir, "trials.log")
    try:
        with open(path, "a", encoding="utf-8", buffering=1) as log:
            yield log
    except OSError as error:  # others are of a trial, and are recorded there
        raise UserError(f"cannot write {error.filename or path}: {error.strerror}") from error


def takes(study, config, axes: list[Axis], place: Place, at_once: int, left_behind: list[tuple[int, ...]]):
    """Lists of trials to train next: those that a dead process left, then waiting ones, then new ones.

    What was left behind goes on under its own number, in its own directory.
    """
    total, seen = number_of_trials(config, axes), set()
    distributions = {axis.key: axis.distribution for axis in axes}
    for group in left_behind:
        again = [adopted(study, number, distributions) for number in group]
        if kept := [trial for trial in again if not is_too_many(study, trial, total)]:
            yield kept
    while True:
        if place.shared:
            fail_silent(study, config.retries)
        taken = []
        while len(taken) < at_once:
            waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
            if not waiting and len(originals(study)) >= total:
                break
            trial = study.ask(distributions)
            if is_too_many(study, trial, total):
                continue
            trial.set_user_attr("worker", name_of(os.getpid()))
            taken.append(trial)
        if taken:
            yield taken
        elif place.shared and (running := study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))):
            # Others are at work; where one dies its trial is ours. One that died before its first sign of life would
            # never count as silent: so each trial gets a sign from us, once.
            beat(study, {trial._trial_id for trial in running} - seen)
            seen |= {trial._trial_id for trial in running}
            time.sleep(config.heartbeat_seconds / 2)
        else:
            return


def adopted(study, trial_id: int, distributions: dict) -> optuna.trial.Trial:
    """A running trial of another process as one of this."""
    trial = optuna.trial.Trial(study, trial_id)
    for name, distribution in distributions.items():
        trial._suggest(name, distribution)  # also what it had not got when that process died
    trial.set_user_attr("worker", name_of(os.getpid()))
    return trial


def is_too_many(study, trial, total: int) -> bool:
    """Whether a trial is beyond the plan, as one of two is that took the last at once. Then it ends here."""
    known = frozen(trial)
    if "surplus" not in known.user_attrs and place_of(study, known) < total:
        return False
    trial.set_user_attr("surplus", "beyond config.trials")
    study.tell(trial, state=TrialState.FAIL)
    return True


# ------------------------------------------------------------------------------------- some trials


def train_trials(study, trials: list, config, axes: list[Axis], place: Place, corpora: dict):
    """Trains trials, as lanes of one program where they are of one shape, and tells the study how each ended."""
    from lm.training.lanes import same_program

    groups: list[list] = []
    for trial in trials:
        run = trial_config(config, axes, trial)
        here = next((group for group in groups if same_program(group[0][1], run)), None)
        if here is None:
            groups.append(here := [])
        here.append((trial, run, Path(place.workdir, directory_of(study, frozen(trial)))))
    for group in groups:
        for _, _, directory in group:
            wait_until_free(directory)
        began = time.monotonic()
        outcomes = train_group(study, group, place, corpora)
        seconds = round(time.monotonic() - began, 2)  # of all of them together
        for (trial, _, directory), failure in zip(group, outcomes, strict=True):
            tell(study, trial, directory, failure, seconds)


def trial_config(config, axes: list[Axis], trial) -> ml_collections.ConfigDict:
    """The run of a trial. It is scored on validation text alone, whatever the run's own config says."""
    run = changed(config.run, axes, trial.params)
    run.evaluation.splits = ("valid",)
    return run


def wait_until_free(directory: Path):
    """Returns when no process trains in a trial's directory: one that was taken for dead, or is about to end.

    What it leaves there goes on.
    """
    is_said = False
    while directory.is_dir():
        try:
            with lock.alone(directory):
                return
        except UserError as error:
            if not isinstance(error.__cause__, BlockingIOError):
                return  # training will say what is wrong
        if not is_said:
            print(f"{directory}: waiting for the process that is at work there", flush=True)
            is_said = True
        time.sleep(0.5)


def train_group(study, group: list, place: Place, corpora: dict) -> list[Exception | None]:
    """What ended each trial before its end, None for most. Raises what would end any other trial, too."""
    from lm.training.lanes import train_lanes

    configs, directories = [run for _, run, _ in group], [str(directory) for _, _, directory in group]
    try:
        key = repr(configs[0].data.to_dict())
        if key not in corpora:
            corpora.clear()  # of the one before
            corpora[key] = load_corpus(configs[0], place.data_dir)
        if len(group) == 1:
            return [train_alone(group[0][0], configs[0], corpora[key], directories[0])]
        outcomes = train_lanes(configs, corpora[key], directories)
        failures = [outcome if isinstance(outcome, UserError) else None for outcome in outcomes]
        if bad := next((failure for failure in failures if failure and not is_of_the_trial(failure)), None):
            raise bad
        return failures
    except Exception as error:  # of one trial or of all: each is a failed trial, with the reason
        if not is_of_the_trial(error):
            raise
        if len(group) > 1:
            return [train_group(study, [each], place, corpora)[0] for each in group]
        return [error]


def is_of_the_trial(error: Exception) -> bool:
    """Whether other trials may fare better."""
    said = str(error)
    return not isinstance(error, optuna.exceptions.StorageInternalError) and not any(each in said for each in DISK)


def train_alone(trial, run, corpus, directory: str) -> optuna.TrialPruned | None:
    """Trains one trial, reporting each validation check to the pruner, which may end it."""
    from lm.training.loop import train

    checks = frozen(trial).intermediate_values

    def observe(step: int, perplexity: float):
        number = 1 + sum(row["step"] < step for row in validations(directory))
        if number not in checks:  # else before a kill
            trial.report(perplexity, number)
        if trial.should_prune():
            raise optuna.TrialPruned(f"pruned at validation check {number}")

    try:
        train(run, corpus, directory, observe=observe)
    except optuna.TrialPruned as pruned:
        return pruned
    return None


def validations(directory) -> list[dict]:
    """The rows of metrics.jsonl that have a validation perplexity."""
    path = Path(directory, "metrics.jsonl")
    rows = read_rows(path, METRICS_ROW) if path.is_file() else []
    return [row for row in rows if row.get("valid_perplexity") is not None]


def lowest(directory) -> float | None:
    """A run's lowest validation perplexity."""
    return min((row["valid_perplexity"] for row in validations(directory)), default=None)


def tell(study, trial, directory: Path, failure: Exception | None, seconds: float):
    """Tells the study how a trial ended, unless another machine has, which took this one for dead."""
    value = lowest(directory) if failure is None else None
    with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
        trial.set_user_attr("seconds", seconds)
        if value is not None:
            report_validations(trial, directory)
            study.tell(trial, value, skip_if_finished=True)
        elif isinstance(failure, optuna.TrialPruned):
            study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
        else:
            trial.set_user_attr("failure", in_one_line(failure))
            study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)


def report_validations(trial, directory: Path):
    """Reports the validation checks that the study lacks: lanes report none while they train."""
    known = frozen(trial).intermediate_values
    for number, row in enumerate(validations(directory), 1):
        if number not in known:
            trial.report(row["valid_perplexity"], number)


def in_one_line(failure: Exception | None) -> str:
    reason = str(failure or "there was no validation check").strip() or type(failure).__name__
    name = "" if isinstance(failure, UserError) or failure is None else f"{type(failure).__name__}: "
    return f"{name}{' '.join(reason.split())}"[:500]


if __name__ == "__main__":
    sys.exit(main())
