"""One worker of a sweep: takes trials from the study, trains them, and says how they ended.

Runs in a process of its own, so that a trial which takes the process with it ends as a failed trial, not as the end of
the sweep. A trial is an ordinary run in WORKDIR/trials/NUMBER; its value is its lowest validation perplexity.
"""

import contextlib
import os
import socket
import threading
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import ml_collections
import optuna
from optuna.trial import TrialState

from experiments import sweep_plan
from experiments.ledger import METRICS_ROW
from experiments.sweep_plan import Axis, changed, make_pruner, make_sampler, make_space, number_of_trials, origin
from experiments.train import load_corpus
from lm.errors import UserError, first_line
from lm.schema import read_rows

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class Place(NamedTuple):
    """Where a sweep lives.

    storage: Optuna's URL; shared: whether processes of other machines may be at work on the study
    """

    workdir: str
    data_dir: str | None
    storage: str
    shared: bool


# ------------------------------------------------------------------------------------------ study


def open_storage(config: ml_collections.ConfigDict, place: Place) -> optuna.storages.RDBStorage:
    """Raises UserError where it cannot be opened."""
    beat = config.heartbeat_seconds if place.shared else None
    retry = None
    for attempts_left in reversed(range(5)):
        try:
            with quiet():
                if place.shared:
                    retry = optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=config.retries)
                return optuna.storages.RDBStorage(
                    place.storage, heartbeat_interval=beat, heartbeat_stale_trial_callback=retry
                )
        except Exception as error:  # SQLAlchemy's, its drivers', Optuna's
            reason = first_line(error)
            # Of two that make the tables at the same moment, one fails so.
            if attempts_left and ("already exists" in reason or "duplicate key" in reason):
                time.sleep(0.5)
                continue
            raise UserError(f"--storage={without_password(place.storage)} cannot be opened: {reason}") from error
    raise AssertionError("the last attempt returns or raises")


def without_password(storage: str) -> str:
    """A storage's URL as it may be shown."""
    import sqlalchemy

    try:
        return sqlalchemy.engine.make_url(storage).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return storage


def name_of(pid: int) -> str:
    """A worker of this machine, told from one of the same number on another."""
    return f"{socket.gethostname()}:{pid}"


def open_study(config: ml_collections.ConfigDict, place: Place) -> optuna.Study:
    """The study, made where there is none. Raises UserError where the storage cannot be opened."""
    axes = make_space(config)
    with quiet():
        storage = open_storage(config, place)
        try:
            study = optuna.create_study(
                storage=storage, study_name=config.name, load_if_exists=True, sampler=make_sampler(config, axes),
                pruner=make_pruner(config),
            )  # fmt: skip
            _ = study.user_attrs, [origin(trial) for trial in study.get_trials(deepcopy=False)]  # damage shows here
        except Exception as error:  # of many kinds, as above
            where = without_password(place.storage)
            raise UserError(f"the study in {where} cannot be read: {first_line(error)}") from error
    return study


@contextlib.contextmanager
def quiet():
    """Optuna says of every trial that it is over, and of heartbeats that they are experimental and not for `ask`."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", "Heartbeat of storage is supposed")
        yield


def originals(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Trials that repeat no other, in order of their numbers."""
    return [trial for trial in study.get_trials(deepcopy=False) if origin(trial) == trial.number]


# --------------------------------------------------------------------------------------- one worker


def work(config: ml_collections.ConfigDict, place: Place, at_once: int, left_behind: list[tuple[int, ...]]):
    """Takes trials, `at_once` at a time, until there are no more to take. What `multiprocessing` runs.

    left_behind: ids of trials that were running in a process which is gone, those together that were
    """
    if at_once > 1:
        from lm.cores import one_device_per_core

        one_device_per_core()
    elif config.run.train.threads:
        from lm.cores import limit_threads

        limit_threads(config.run.train.threads)
    use_the_compilation_cache_of_the_parent()
    study, axes = open_study(config, place), make_space(config)
    corpora = {}
    log = open(Path(place.workdir, "trials.log"), "a", encoding="utf-8")  # noqa: SIM115 - closed with the process
    with quiet(), Heart(study, config.heartbeat_seconds / 3) as heart, contextlib.redirect_stdout(log):
        for trials in takes(study, config, axes, place, at_once, left_behind):
            heart.watch([trial._trial_id for trial in trials])
            train_trials(study, trials, config, axes, place, corpora)
            heart.watch([])


def use_the_compilation_cache_of_the_parent():
    """Which said where it is in the environment."""
    import jax

    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def takes(study, config, axes: list[Axis], place: Place, at_once: int, left_behind: list[tuple[int, ...]]):
    """Lists of trials to train next: those that a dead process left, then waiting ones, then new ones.

    What was left behind goes on under its own number, in its own directory.
    """
    total, seen = number_of_trials(config, axes), set()
    distributions = {axis.key: axis.distribution for axis in axes}
    for group in left_behind:
        yield [adopted(study, number, distributions) for number in group]
    while True:
        if place.shared:
            optuna.storages.fail_stale_trials(study)
        taken = []
        while len(taken) < at_once:
            waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
            if not waiting and len(originals(study)) >= total:
                break
            trial = study.ask(distributions)
            if surplus(study, trial, total):
                trial.set_user_attr("surplus", "two workers took the last trial at once")
                study.tell(trial, state=TrialState.FAIL)
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


def frozen(trial: optuna.trial.Trial) -> optuna.trial.FrozenTrial:
    """What the storage knows of a trial."""
    return trial.study._storage.get_trial(trial._trial_id)


def adopted(study, trial_id: int, distributions: dict) -> optuna.trial.Trial:
    """A running trial of another process as one of this."""
    trial = optuna.trial.Trial(study, trial_id)
    for name, distribution in distributions.items():
        trial._suggest(name, distribution)  # also what it had not got when that process died
    trial.set_user_attr("worker", name_of(os.getpid()))
    return trial


def surplus(study, trial, total: int) -> bool:
    """Whether more trials were begun than there should be, and this is one of the last."""
    return sweep_plan.place(study, frozen(trial)) >= total


def beat(study, trial_ids):
    """A sign of life for each of some running trials, where the storage keeps such."""
    backend = getattr(study._storage, "_backend", study._storage)
    if backend.get_heartbeat_interval() is not None:
        for trial_id in trial_ids:
            backend.record_heartbeat(trial_id)


class Heart:
    """Tells the storage of a shared study, from a thread, that the current trials are alive; dies with the parent."""

    def __init__(self, study, seconds: float):
        self.study, self.seconds, self.trials = study, seconds, []
        self.parent, self.stopped = os.getppid(), threading.Event()
        self.thread = threading.Thread(target=self._beat, daemon=True)

    def watch(self, trials: list[int]):
        """Trials that begin now, and at once the first sign of life for each."""
        self.trials = trials
        beat(self.study, trials)

    def _beat(self):
        last = 0.0
        while not self.stopped.wait(0.5):
            if os.getppid() != self.parent:
                os._exit(1)  # the supervisor was killed: what it runs would train beside its successor
            if time.monotonic() - last > self.seconds:
                last = time.monotonic()
                beat(self.study, list(self.trials))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *unused):
        self.stopped.set()
        self.thread.join()


# ------------------------------------------------------------------------------------- some trials


def train_trials(study, trials: list, config, axes: list[Axis], place: Place, corpora: dict):
    """Trains trials, as lanes of one program where they are of one shape, and tells the study how each ended."""
    from lm.lanes import same_program

    groups: list[list] = []
    for trial in trials:
        run = trial_config(config, axes, trial)
        directory = trial_directory(place.workdir, trial)
        trial.set_user_attr("workdir", str(Path("trials") / directory.name))
        here = next((group for group in groups if same_program(group[0][1], run)), None)
        if here is None:
            groups.append(here := [])
        here.append((trial, run, directory))
    for group in groups:
        began = time.monotonic()
        outcomes = train_group(study, group, place, corpora)
        seconds = round(time.monotonic() - began, 2)  # of all of them together
        for (trial, _, directory), failure in zip(group, outcomes, strict=True):
            trial.set_user_attr("seconds", seconds)
            tell(study, trial, directory, failure)


def trial_config(config, axes: list[Axis], trial) -> ml_collections.ConfigDict:
    """The run of a trial. It is scored on validation text alone, whatever the run's own config says."""
    run = changed(config.run, axes, trial.params)
    run.evaluation.splits = ("valid",)
    return run


def trial_directory(workdir: str, trial) -> Path:
    return Path(workdir, "trials", f"{sweep_plan.place(trial.study, frozen(trial)):04}")


def train_group(study, group: list, place: Place, corpora: dict) -> list[Exception | None]:
    """What ended each trial before its end, None for most."""
    from lm.lanes import train_lanes

    configs, directories = [run for _, run, _ in group], [str(directory) for _, _, directory in group]
    try:
        key = repr(configs[0].data.to_dict())
        if key not in corpora:
            corpora.clear()  # of the one before
            corpora[key] = load_corpus(configs[0], place.data_dir)
        if len(group) == 1:
            return [train_alone(group[0][0], configs[0], corpora[key], directories[0])]
        outcomes = train_lanes(configs, corpora[key], directories)
        return [outcome if isinstance(outcome, UserError) else None for outcome in outcomes]
    except Exception as error:  # of one trial or of all: each is a failed trial, with the reason
        if len(group) > 1:
            return [train_group(study, [each], place, corpora)[0] for each in group]
        return [error]


def train_alone(trial, run, corpus, directory: str) -> optuna.TrialPruned | None:
    """Trains one trial, reporting each validation check to the pruner, which may end it."""
    from lm.loop import train

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


def tell(study, trial, directory: Path, failure: Exception | None):
    """The study's last word on a trial."""
    if isinstance(failure, optuna.TrialPruned):
        study.tell(trial, state=TrialState.PRUNED)
        return
    value = lowest(directory) if failure is None else None
    if value is not None:
        study.tell(trial, value)
        return
    reason = str(failure or "there was no validation check").strip() or type(failure).__name__
    name = "" if isinstance(failure, UserError) or failure is None else f"{type(failure).__name__}: "
    trial.set_user_attr("failure", f"{name}{' '.join(reason.split())}"[:500])
    study.tell(trial, state=TrialState.FAIL)
