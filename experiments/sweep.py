"""Tries many settings of a config and keeps the best by validation perplexity. The test split is never read.

    python launch.py --experiment=sweep --config=configs/sweeps/NAME.py --workdir=DIR [--jobs=2] [--storage=URL]

    WORKDIR/trials/PLACE/    an ordinary run for each trial
    WORKDIR/trials.log       the output of all trials
    WORKDIR/study.db         Optuna's study, unless --storage names another database
    WORKDIR/sweep.json       all trials: parameters, value, state, seconds, failure
    WORKDIR/report.html      with pictures (experiments/sweeps/pictures.py)

If a sweep is killed, run the same command again: finished trials stay, and unfinished ones resume from their
checkpoints. A trial that fails is recorded with the reason and not repeated. With --storage, several machines can run
the same command on one study; if a machine stops responding, another repeats its trial. Ctrl-C and SIGTERM let the
workers save first.
"""

import contextlib
import shlex
import sys
from pathlib import Path

import optuna
from ml_collections import ConfigDict
from optuna.trial import TrialState

from configs.rules import SWEEP_RULES, check_values
from experiments.sweeps.plan import PLANNED, number_of_trials, plan_trial
from experiments.sweeps.space import incomparable, make_space, trial_config
from experiments.sweeps.study import Place, definition_of, open_sweep, quiet_optuna, storage_errors
from experiments.sweeps.supervisor import supervise
from experiments.sweeps.trials import FINISHED, directory_of, failure_of, origin, trials_without_surplus
from experiments.train import estimate_all
from lm.errors import UserError
from lm.machine.signals import raising
from lm.runs import lock
from lm.runs.files import make_directory, write_json
from lm.runs.plain import plain
from lm.runs.workdir import prepare_workdir
from lm.training.setup import check_length


def run(config: ConfigDict, workdir, data_dir=None, storage="", jobs=1, dry_run=False):
    """Returns the content of sweep.json, or the estimates of a dry run. Raises UserError for a wrong config or flag."""
    axes = make_space(config)
    if keys := incomparable(axes):
        what = "changes what validation measures: the best value may be of an easier text or protocol"
        print(f"warning: config.space: {', '.join(keys)} {what}", file=sys.stderr)
    check_values(config, SWEEP_RULES)
    if config.sampler != "grid" and not config.trials:
        raise UserError("config.trials must be positive for every sampler except grid")
    if jobs < 1:
        raise UserError(f"--jobs={jobs}: must be at least 1")
    if dry_run:
        return estimate(config, data_dir, jobs)
    check_values(config.run)  # before the directory is created, which then accepts only this config
    if not {"train.steps", "train.epochs"} & {key for axis in axes for key in axis.keys}:
        check_length(config.run.train)
    directory = make_directory(workdir)
    place = Place(str(directory), data_dir, storage or f"sqlite:///{directory.absolute()}/study.db", bool(storage))
    # Machines that share a study may share the directory, too, so it is not locked.
    alone = contextlib.nullcontext() if storage else lock.alone(directory)
    with alone, quiet_optuna(), storage_errors(place), raising():
        prepare_workdir(directory, definition_of(config))
        sweep = open_sweep(config, place)
        supervise(sweep, jobs)
        content = summarise(sweep.study, config.name)
        write_json(directory / "sweep.json", content)
        from experiments.sweeps import pictures  # matplotlib takes long to import

        pictures.write_report(sweep.study, directory)
    print_best(content, directory)
    if not content["best"]:
        failures = [trial["failure"] for trial in content["trials"] if trial["failure"]]
        states = sorted({trial["state"] for trial in content["trials"]})
        raise UserError(f"no trial of the sweep has a value: {failures[0] if failures else ' or '.join(states)}")
    return content


def estimate(config: ConfigDict, data_dir, jobs: int):
    """Prints and returns the estimated time of each trial; of random ones for a sampler that depends on results."""
    if config.sampler not in PLANNED:
        print(f"config.sampler={config.sampler} chooses trials by results: the estimate is for random trials")
        config = config.copy_and_resolve_references()
        config.sampler = "random"
    axes = make_space(config)
    planned = [plan_trial(config, axes, number) for number in range(number_of_trials(config, axes))]
    return estimate_all([trial_config(config, axes, each) for each in planned], data_dir, jobs)


def summarise(study: optuna.Study, name: str) -> dict:
    """The content of sweep.json: the trials in the order of the plan (only the last of repeats), and the best."""
    last = {origin(trial): trial for trial in trials_without_surplus(study)}
    trials = [
        {
            "number": number,
            "parameters": dict(trial.params),
            "value": trial.value if trial.state == TrialState.COMPLETE else None,
            "state": trial.state.name.lower() if trial.state in FINISHED else "unfinished",
            "seconds": trial.user_attrs.get("seconds"),
            "failure": failure_of(trial),
            "workdir": str(directory_of(study, trial)),
        }
        for number, (_, trial) in enumerate(sorted(last.items()))
    ]
    complete = [trial for trial in trials if trial["value"] is not None]
    best = min(complete, key=lambda trial: trial["value"]) if complete else None
    return plain({"name": name, "trials": trials, "best": best})


def print_best(content: dict, directory: Path):
    """Prints the number of trials by state, the best trial, and the flags that train its config elsewhere."""
    states = [trial["state"] for trial in content["trials"]]
    print(", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)))
    if best := content["best"]:
        chosen = ", ".join(f"{key}={value}" for key, value in best["parameters"].items())
        print(f"best: trial {best['number']}, validation perplexity {best['value']:.4f} ({chosen})")
        path = shlex.quote(f"{directory}/{best['workdir']}/config.json")
        print(f"      its config for a run of your own: --config={path} --workdir=NEW")
