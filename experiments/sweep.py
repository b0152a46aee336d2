"""Tries many settings of a config and keeps the best by validation perplexity. The test split is never read.

    python launch.py --experiment=sweep --config=configs/sweeps/NAME.py --workdir=DIR [--jobs=2] [--storage=URL]

    WORKDIR/trials/NUMBER/   an ordinary run for each trial
    WORKDIR/trials.log       what they print
    WORKDIR/study.db         Optuna's study, where --storage names no other place
    WORKDIR/sweep.json       all trials: parameters, value, state, seconds, failure
    WORKDIR/report.html      and its pictures (experiments/sweeps/pictures.py)

The same command goes on where a killed one stopped: what is finished stays, what was running goes on from its
checkpoint under its own number. A trial that fails is recorded with the reason and not tried again. With --storage,
any database that Optuna knows, the same command on several machines works on one study; a trial whose machine falls
silent is taken over by another. Ctrl-C and SIGTERM let workers save what they train.
"""

import contextlib
import shlex
import signal
import subprocess
import time
from pathlib import Path

import ml_collections
import optuna
from optuna.trial import TrialState

from experiments.sweeps import pictures
from experiments.sweeps.plan import PLANNED, changed, make_space, number_of_trials, origin, planned
from experiments.sweeps.study import (
    FINISHED,
    Place,
    check_trials,
    directory_of,
    name_of,
    open_study,
    quiet,
    storage_trouble,
)
from experiments.sweeps.table import live_table
from experiments.sweeps.worker import ASKED, GAVE_UP
from lm.errors import UserError
from lm.machine.cores import available
from lm.machine.processes import Child, stop
from lm.machine.signals import Interrupted, raising
from lm.runs import lock
from lm.runs.files import make_directory, write_json
from lm.runs.plain import plain
from lm.runs.workdir import prepare_workdir

POLL_SECONDS = 0.3
LANES = 16  # at most, where the config leaves it open
# Keys of a sweep that may change between the calls that work on it.
FREE = ("trials", "lanes", "heartbeat_seconds", "retries")


def run(config, workdir, data_dir=None, storage="", jobs=1, dry_run=False):
    """Returns what sweep.json holds. Raises UserError for a config, flag or storage that is wrong."""
    axes = make_space(config)
    total = number_of_trials(config, axes)
    if jobs < 1:
        raise UserError(f"--jobs={jobs}: must be at least 1")
    if dry_run:
        return estimate(config, data_dir, jobs)
    directory = make_directory(workdir)
    place = Place(str(directory), data_dir, storage or f"sqlite:///{directory.absolute()}/study.db", bool(storage))
    # Machines that share a study may share the directory, too.
    with contextlib.nullcontext() if storage else lock.alone(directory), quiet(), storage_trouble(place), raising():
        prepare(directory, config)
        study = open_study(config, place)
        check_definition(study, config)
        check_trials(study, axes)
        with live_table(study, total) as table:
            supervise(study, config, place, jobs, table)
        content = outcome(study, config)
        write_json(directory / "sweep.json", content)
        pictures.write_report(study, str(directory))
    print_best(content, config)
    if not content["best"]:
        failures = [trial["failure"] for trial in content["trials"] if trial["failure"]]
        states = sorted({trial["state"] for trial in content["trials"]})
        raise UserError(f"no trial of the sweep has a value: {failures[0] if failures else ' or '.join(states)}")
    return content


def estimate(config, data_dir, jobs: int):
    """Prints how long the trials will take, and returns the estimates.

    Those of a sampler that looks at results are not known beforehand: random ones stand in for them.
    """
    from experiments.train import estimate_all

    if config.sampler not in PLANNED:
        print(f"config.sampler={config.sampler} chooses trials by results: as many random ones stand in for them")
        config = config.copy_and_resolve_references()
        config.sampler = "random"
    axes = make_space(config)
    runs = [changed(config.run, axes, planned(config, axes, n)) for n in range(number_of_trials(config, axes))]
    for each in runs:
        each.evaluation.splits = ("valid",)
    return estimate_all(runs, data_dir, jobs)


# ------------------------------------------------------------------------------------------ place


def prepare(directory: Path, config):
    """Writes down what sweep the directory is of, or checks that it is of this very one."""
    prepare_workdir(directory, {key: value for key, value in config.to_dict().items() if key not in FREE})


def check_definition(study: optuna.Study, config):
    """Writes down what the study is of, or refuses a study of something else."""
    definition = {key: value for key, value in plain(config).items() if key not in FREE}
    known = study.user_attrs.get("definition")
    if known is None:
        study.set_user_attr("definition", definition)
    elif known != definition:
        known = known if isinstance(known, dict) else {}
        keys = [key for key in definition if known.get(key) != definition[key]]
        raise UserError(f"the study {config.name} in that storage is of another sweep (config.{', config.'.join(keys)} "
                        "differ): choose another --storage or --config.name")  # fmt: skip


# -------------------------------------------------------------------------------------- processes


def supervise(study: optuna.Study, config, place: Place, jobs: int, table):
    """Runs workers until the study is done. A worker that dies takes its trial with it, and nothing else.

    Raises UserError where a worker says that no trial can go on, and Interrupted where a signal asks for the end;
    however it is left, no worker remains, and what they trained is saved.
    """
    at_once = lanes_at_once(config) if jobs == 1 and not place.shared else 1
    orphans = () if place.shared else without_worker(study, [])  # of a sweep that was killed
    workers: list[Child] = []

    def start(left_behind: list[tuple[int, ...]]):
        workers.append(Child("experiments/sweeps/worker.py"))
        workers[-1].send([config.to_dict(), place, at_once, left_behind])

    try:
        start([orphans] if at_once > 1 and orphans else one_by_one(orphans))
        for _ in range(jobs - 1):
            start([])
        while workers:
            time.sleep(POLL_SECONDS)
            with contextlib.suppress(optuna.exceptions.StorageInternalError):  # the next time will show more
                table.update()
            for worker in [each for each in workers if each.process.poll() is not None]:
                workers.remove(worker)
                with contextlib.closing(worker):
                    explain(study, worker)
                if worker.process.returncode:
                    start([] if place.shared else one_by_one(without_worker(study, workers)))
    except KeyboardInterrupt as error:
        number = getattr(error, "signal", signal.SIGINT)
        raise Interrupted(number, "the sweep has stopped, and what its trials had come to is saved") from error
    finally:
        stop(workers)
    table.update()


def explain(study: optuna.Study, worker: Child):
    """Raises the error of a worker that gave up, and records the trial of one that died as failed."""
    status = worker.process.returncode
    if status == GAVE_UP:
        raise UserError(worker.receive() or "a worker has ended without a reason; see what it printed")
    if status == ASKED:
        raise Interrupted(signal.SIGTERM, "a worker of the sweep was asked to end")
    if status:
        record_death(study, worker.process)


def one_by_one(trials: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [(each,) for each in trials]


def without_worker(study: optuna.Study, workers: list) -> tuple[int, ...]:
    """Ids of the running trials that none of the living workers is at."""
    alive = {name_of(worker.process.pid) for worker in workers}
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return tuple(each._trial_id for each in running if each.user_attrs.get("worker") not in alive)


def record_death(study: optuna.Study, worker: subprocess.Popen):
    """Records the trial that a dead worker was at as failed. Of several, in lanes, none: they are tried one by one.

    Raises UserError where it was at none: the next would die the same way.
    """
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    died_at = [each for each in running if each.user_attrs.get("worker") == name_of(worker.pid)]
    if not died_at:
        raise UserError(f"a worker ended with status {worker.returncode} before it took a trial; see what it printed")
    if len(died_at) == 1:
        trial = optuna.trial.Trial(study, died_at[0]._trial_id)
        how = f"signal {-worker.returncode}" if worker.returncode < 0 else f"status {worker.returncode}"
        hint = ": the system may have been out of memory" if worker.returncode == -signal.SIGKILL else ""
        trial.set_user_attr("failure", f"its process ended with {how}{hint}")
        study.tell(trial, state=TrialState.FAIL)


def lanes_at_once(config) -> int:
    """How many trials are taken at a time: 1 where lanes cannot be or would not pay.

    They pay where most trials have company of their own shape, and the models are small enough for a thread each.
    """
    from lm.training.lanes import same_program

    if config.lanes == 1 or config.sampler not in PLANNED or config.pruner != "none":
        return 1
    axes = make_space(config)
    most = min(config.lanes or LANES, number_of_trials(config, axes))
    runs = [changed(config.run, axes, planned(config, axes, number)) for number in range(most)]
    alike = sum(same_program(runs[0], each) for each in runs)
    return most if most > 1 and (config.lanes or alike == most >= available()) else 1


# ---------------------------------------------------------------------------------------- outcome


def outcome(study: optuna.Study, config) -> dict:
    """All trials of the plan in order, and the best one. Of a repeated trial the last try counts."""
    last = {}
    for trial in study.get_trials(deepcopy=False):
        if "surplus" not in trial.user_attrs:
            last[origin(trial)] = trial
    trials = [
        {
            "number": number,
            "parameters": dict(trial.params),
            "value": trial.value if trial.state == TrialState.COMPLETE else None,
            "state": trial.state.name.lower() if trial.state in FINISHED else "unfinished",
            "seconds": trial.user_attrs.get("seconds"),
            "failure": trial.user_attrs.get("failure") if trial.state == TrialState.FAIL else None,
            "workdir": str(directory_of(study, trial)),
        }
        for number, (_, trial) in enumerate(sorted(last.items()))
    ]
    complete = [trial for trial in trials if trial["value"] is not None]
    best = min(complete, key=lambda trial: trial["value"]) if complete else None
    return plain({"name": config.name, "trials": trials, "best": best})


def print_best(content: dict, config: ml_collections.ConfigDict):
    """How the best trial would be trained alone, with its test split scored."""
    best = content["best"]
    counts = [trial["state"] for trial in content["trials"]]
    print(", ".join(f"{counts.count(state)} {state}" for state in dict.fromkeys(counts)))
    if best:
        flags = [f"--config.{key}={value}" for keys, value in best["parameters"].items() for key in keys.split("+")]
        print(f"best: trial {best['number']}, validation perplexity {best['value']:.4f}")
        print(f"      of {config.run.name}: {shlex.join(flags)}")
