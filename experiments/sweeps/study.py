"""Opens the study of a sweep: Optuna's record of its trials, in a database of one machine or shared by several."""

import contextlib
import socket
import time
import warnings
from collections.abc import Generator
from typing import NamedTuple

import optuna
from ml_collections import ConfigDict
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Engine, event, exc, make_url

from experiments.sweeps.plan import make_pruner, make_sampler, number_of_trials
from experiments.sweeps.space import Axis, make_space
from lm.errors import UserError, first_line
from lm.runs.plain import plain
from lm.runs.schema import NUMBER, check

RECONNECT_SECONDS = 60  # how long to retry a lost connection, as when a server restarts
# Keys of a sweep's config that may differ between commands that share the sweep.
FREE = ("trials", "lanes", "heartbeat_seconds", "retries")
# The structure required of a trial's attributes, in the notation of lm/runs/schema.py.
USER_ATTRIBUTES = {"worker?": str, "seconds?": (NUMBER, None), "failure?": (str, None), "surplus?": str}
SYSTEM_ATTRIBUTES = {"failed_trial?": int, "retry_history?": [int]}


class Place(NamedTuple):
    """Where a sweep is stored. storage: URL of its database; shared: whether other machines may work on the study"""

    workdir: str
    data_dir: str | None
    storage: str
    shared: bool


class Sweep(NamedTuple):
    """A sweep that this process has opened. storage: the study's database, which optuna.Study hides"""

    config: ConfigDict
    place: Place
    axes: list[Axis]
    study: optuna.Study
    storage: optuna.storages.RDBStorage

    @property
    def total(self) -> int:
        """The number of trials in the plan."""
        return number_of_trials(self.config, self.axes)

    def trials_in(self, state: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=(state,))

    def record_of(self, trial: optuna.trial.Trial) -> FrozenTrial:
        """The study's current record of a trial."""
        return self.study.get_trials(deepcopy=False)[trial.number]

    def ask(self) -> optuna.trial.Trial:
        """The next waiting trial, or a new one."""
        return self.study.ask({axis.key: axis.distribution for axis in self.axes})

    def id_of(self, number: int) -> int:
        """The database's id of a trial."""
        study_id = self.storage.get_study_id_from_name(self.study.study_name)
        return self.storage.get_trial_id_from_study_id_trial_number(study_id, number)


def open_sweep(config: ConfigDict, place: Place) -> Sweep:
    """Opens the study, or creates it. Raises UserError if the storage cannot be opened or read, or if the study belongs
    to another sweep."""
    axes = make_space(config)
    with quiet_optuna():
        storage = open_storage(config, place)
        try:
            sampler, pruner = make_sampler(config, axes), make_pruner(config)
            study = optuna.create_study(
                storage=storage, sampler=sampler, pruner=pruner, study_name=config.name, load_if_exists=True
            )
            known, trials = study.user_attrs.get("definition"), study.get_trials(deepcopy=False)
        except Exception as error:  # from SQLAlchemy, a driver or Optuna, if the database is damaged
            where = hide_password(place.storage)
            raise UserError(f"the study in {where} cannot be read: {first_line(error)}") from error
    definition = definition_of(config)
    if known is None:
        study.set_user_attr("definition", definition)
    elif known != definition:
        known = known if isinstance(known, dict) else {}
        keys = ", ".join(f"config.{key}" for key in definition if known.get(key) != definition[key])
        raise UserError(f"--storage has another sweep named {config.name} ({keys} differ): choose another config.name")
    check_trials(trials, axes, f"the study {config.name}")
    return Sweep(config, place, axes, study, storage)


def definition_of(config: ConfigDict) -> dict:
    """{key: value} of a sweep's config, for the keys that determine its trials."""
    return {key: value for key, value in plain(config).items() if key not in FREE}


def check_trials(trials: list[FrozenTrial], axes: list[Axis], where: str):
    """Raises UserError for a trial that does not fit the space or has invalid values, as in an edited database."""
    distributions = {axis.key: axis.distribution for axis in axes}
    for trial in trials:
        name = f"{where}, trial {trial.number}"
        check(dict(trial.user_attrs), USER_ATTRIBUTES, name)
        check(dict(trial.system_attrs), SYSTEM_ATTRIBUTES, name)
        for key, distribution in trial.distributions.items():
            if distributions.get(key) != distribution:
                raise UserError(f"{name}: {key[:80]} is missing from config.space or has another range there")
        if trial.state == TrialState.COMPLETE and trial.distributions.keys() != distributions.keys():
            raise UserError(f"{name}: has a value but lacks parameters of config.space")
        try:
            optuna.create_trial(
                state=trial.state, values=trial.values, params=trial.params, distributions=trial.distributions
            )
        except ValueError as error:
            raise UserError(f"{name}: {first_line(error)}") from error


# --- The database ---------------------------------------------------------------------------------------------------


def open_storage(config: ConfigDict, place: Place) -> optuna.storages.RDBStorage:
    """Opens the database of the study. Raises UserError if that fails."""
    for attempts_left in reversed(range(5)):
        try:
            storage = optuna.storages.RDBStorage(
                place.storage,
                engine_kwargs={"pool_pre_ping": True},
                heartbeat_interval=config.heartbeat_seconds if place.shared else None,
                heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(config.retries),
            )
            break
        except Exception as error:  # from SQLAlchemy, a driver or Optuna
            reason = first_line(error)
            # If two processes create the tables at the same time, one of them fails.
            if attempts_left and ("already exists" in reason or "duplicate key" in reason):
                time.sleep(0.5)
                continue
            raise UserError(f"--storage={hide_password(place.storage)} cannot be opened: {reason}") from error
    if place.shared and storage.engine.name != "sqlite":
        reconnect_patiently(storage.engine)
    return storage


def reconnect_patiently(engine: Engine):
    """Retries lost connections for RECONNECT_SECONDS. Call it after a first successful connection."""

    @event.listens_for(engine, "do_connect")
    def connect(dialect, record, arguments, keywords):
        for _ in range(RECONNECT_SECONDS):
            with contextlib.suppress(dialect.loaded_dbapi.OperationalError):
                return dialect.connect(*arguments, **keywords)
            time.sleep(1)
        return dialect.connect(*arguments, **keywords)


@contextlib.contextmanager
def storage_errors(place: Place) -> Generator[None]:
    """Turns a database error into a UserError that names the database."""
    try:
        yield
    except optuna.exceptions.StorageInternalError as error:
        reason = f"{first_line(error.__cause__ or error)}; run the same command again when the database works"
        raise UserError(f"the study in {hide_password(place.storage)} cannot be used: {reason}") from error


def hide_password(storage: str) -> str:
    """The URL of a storage without its password."""
    try:
        return make_url(storage).render_as_string(hide_password=True)
    except exc.ArgumentError:
        return storage


@contextlib.contextmanager
def quiet_optuna() -> Generator[None]:
    """Silences Optuna's line per finished trial, and its warnings about heartbeats and experimental functions."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", "Heartbeat of storage is supposed")
        warnings.filterwarnings("ignore", "The reported value is ignored")  # a resumed trial reports its checks again
        yield


def name_worker(pid: int) -> str:
    """Names a worker process on this machine, uniquely among machines."""
    return f"{socket.gethostname()}:{pid}"
