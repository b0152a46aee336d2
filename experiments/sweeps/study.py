"""The study of a sweep: Optuna's record of its trials, in a database that one machine has or several share."""

import contextlib
import socket
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import ml_collections
import optuna
from optuna.trial import TrialState

from experiments.sweeps.plan import Axis, make_pruner, make_sampler, make_space, place_of
from lm.errors import UserError, first_line
from lm.runs.schema import NUMBER, check

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
RECONNECTING_SECONDS = 60  # how long a server that is away, for a restart say, is asked again
# What is said of a trial beside its parameters and its value: forms of lm/runs/schema.py.
SAID = {"worker?": str, "seconds?": (NUMBER, None), "failure?": (str, None), "surplus?": str}
SAID_BY_OPTUNA = {"failed_trial?": int, "retry_history?": [int]}


class Place(NamedTuple):
    """Where a sweep lives.

    storage: Optuna's URL; shared: whether processes of other machines may be at work on the study
    """

    workdir: str
    data_dir: str | None
    storage: str
    shared: bool


# ---------------------------------------------------------------------------------------- opening


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
            _ = study.user_attrs, study.get_trials(deepcopy=False)  # damage shows here
        except Exception as error:  # of many kinds: SQLAlchemy's, its drivers', Optuna's
            where = without_password(place.storage)
            raise UserError(f"the study in {where} cannot be read: {first_line(error)}") from error
    return study


def open_storage(config: ml_collections.ConfigDict, place: Place) -> optuna.storages.RDBStorage:
    """Raises UserError where it cannot be opened."""
    beat = config.heartbeat_seconds if place.shared else None
    for attempts_left in reversed(range(5)):
        try:
            with quiet():
                storage = optuna.storages.RDBStorage(
                    place.storage, engine_kwargs={"pool_pre_ping": True}, heartbeat_interval=beat
                )
            break
        except Exception as error:  # of many kinds, as above
            reason = first_line(error)
            # Of two that make the tables at the same moment, one fails so.
            if attempts_left and ("already exists" in reason or "duplicate key" in reason):
                time.sleep(0.5)
                continue
            raise UserError(f"--storage={without_password(place.storage)} cannot be opened: {reason}") from error
    if place.shared and storage.engine.name != "sqlite":
        reconnect_patiently(storage.engine)
    return storage


def reconnect_patiently(engine):
    """From now on a server that is away is asked again for a while. The first time it must be there."""
    import sqlalchemy

    @sqlalchemy.event.listens_for(engine, "do_connect")
    def connect(dialect, record, arguments, keywords):
        for _ in range(RECONNECTING_SECONDS):
            with contextlib.suppress(dialect.loaded_dbapi.OperationalError):
                return dialect.connect(*arguments, **keywords)
            time.sleep(1)
        return dialect.connect(*arguments, **keywords)


@contextlib.contextmanager
def storage_trouble(place: Place):
    """Turns what a database that fails raises into a UserError that names it."""
    try:
        yield
    except optuna.exceptions.StorageInternalError as error:
        reason = first_line(error.__cause__ or error)
        raise UserError(f"the study in {without_password(place.storage)} cannot be used: {reason}; "
                        "the same command goes on when it can") from error  # fmt: skip


def without_password(storage: str) -> str:
    """A storage's URL as it may be shown."""
    import sqlalchemy

    try:
        return sqlalchemy.engine.make_url(storage).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return storage


@contextlib.contextmanager
def quiet():
    """Optuna says of every trial that it is over, and of heartbeats that they are experimental and not for `ask`."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", "Heartbeat of storage is supposed")
        yield


# --------------------------------------------------------------------------------------- checking


def check_trials(study: optuna.Study, axes: list[Axis]):
    """Raises UserError where a trial is none of this space, or says of itself what it cannot."""
    distributions = {axis.key: axis.distribution for axis in axes}
    for trial in study.get_trials(deepcopy=False):
        where = f"the study {study.study_name}, trial {trial.number}"
        check(dict(trial.user_attrs), SAID, where)
        check(dict(trial.system_attrs), SAID_BY_OPTUNA, where)
        for name, distribution in trial.distributions.items():
            if distributions.get(name) != distribution:
                raise UserError(f"{where}: {name[:80]} is no parameter of config.space, or another one there")
        if trial.state == TrialState.COMPLETE and trial.distributions.keys() != distributions.keys():
            raise UserError(f"{where}: has a value but lacks parameters of config.space")
        try:
            trial._validate()
        except ValueError as error:
            raise UserError(f"{where}: {first_line(error)}") from error


# ----------------------------------------------------------------------------------------- trials


def name_of(pid: int) -> str:
    """A worker of this machine, told from one of the same number on another."""
    return f"{socket.gethostname()}:{pid}"


def frozen(trial: optuna.trial.Trial) -> optuna.trial.FrozenTrial:
    """What the storage knows of a trial."""
    return trial.study._storage.get_trial(trial._trial_id)


def directory_of(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> Path:
    """Where a trial is trained, under the sweep's workdir."""
    return Path("trials", f"{place_of(study, trial):04}")
