"""Supervises the workers of a sweep: starts them, replaces those that die, and stops them at the end."""

import contextlib
import signal
import time

import optuna
from ml_collections import ConfigDict
from optuna.trial import TrialState

from experiments.sweeps.plan import PLANNED, plan_trial
from experiments.sweeps.space import set_parameters
from experiments.sweeps.study import Sweep, name_worker
from experiments.sweeps.table import Table
from experiments.sweeps.worker import ASKED, GAVE_UP
from lm.errors import UserError
from lm.machine.cores import available
from lm.machine.processes import Child, stop
from lm.machine.signals import Interrupted

POLL_SECONDS = 0.3
LANES = 16  # at most, if the config does not say


def supervise(sweep: Sweep, jobs: int, table: Table):
    """Runs `jobs` workers until the study is done. A worker that dies fails its own trial only.

    Raises UserError if a worker reports that no trial can continue, and Interrupted after a signal. Either way no
    worker is left running, and their trials are saved.
    """
    at_once = lanes_at_once(sweep) if jobs == 1 and not sweep.place.shared else 1
    orphans = numbers_of_orphans(sweep, [])  # of a sweep that was killed
    workers: list[Child] = []

    def start(left_behind: list[tuple[int, ...]]):
        workers.append(Child("experiments/sweeps/worker.py"))
        workers[-1].send([sweep.config.to_dict(), sweep.place, at_once, left_behind])

    try:
        start([orphans] if at_once > 1 and orphans else [(each,) for each in orphans])
        for _ in range(jobs - 1):
            start([])
        while workers:
            time.sleep(POLL_SECONDS)
            with contextlib.suppress(optuna.exceptions.StorageInternalError):  # the next update may succeed
                table.update()
            for worker in [each for each in workers if each.process.poll() is not None]:
                workers.remove(worker)
                with contextlib.closing(worker):
                    handle_exit(sweep, worker)
                if worker.process.returncode:
                    start([(each,) for each in numbers_of_orphans(sweep, workers)])
    except KeyboardInterrupt as error:
        number = getattr(error, "signal", signal.SIGINT)
        raise Interrupted(number, "the sweep has stopped, and its trials are saved") from error
    finally:
        stop(workers)
    table.update()


def numbers_of_orphans(sweep: Sweep, workers: list[Child]) -> tuple[int, ...]:
    """Numbers of the running trials that none of the workers trains. In a shared study: none, heartbeats tell."""
    if sweep.place.shared:
        return ()
    alive = {name_worker(worker.process.pid) for worker in workers}
    running = sweep.trials_in(TrialState.RUNNING)
    return tuple(trial.number for trial in running if trial.user_attrs.get("worker") not in alive)


def handle_exit(sweep: Sweep, worker: Child):
    """Raises the error of a worker that gave up or was asked to end. One that died fails its trial."""
    status = worker.process.returncode
    if status == GAVE_UP:
        raise UserError(worker.receive() or "a worker gave up without a reason; see its output above")
    if status == ASKED:
        raise Interrupted(signal.SIGTERM, "a worker of the sweep was asked to end")
    if status:
        fail_trial(sweep, name_worker(worker.process.pid), status)


def fail_trial(sweep: Sweep, worker: str, status: int):
    """Fails the trial of a dead worker. Of several in lanes it fails none: each is then tried alone."""
    running = sweep.trials_in(TrialState.RUNNING)
    numbers = [trial.number for trial in running if trial.user_attrs.get("worker") == worker]
    if not numbers:  # the next worker would die in the same way
        raise UserError(f"a worker ended with status {status} before it took a trial; see its output above")
    if len(numbers) == 1:
        end = f"signal {-status}" if status < 0 else f"status {status}"
        hint = ": the system may have been out of memory" if status == -signal.SIGKILL else ""
        sweep.resume(numbers[0]).set_user_attr("failure", f"its process ended with {end}{hint}")
        sweep.study.tell(numbers[0], state=TrialState.FAIL)


def lanes_at_once(sweep: Sweep) -> int:
    """How many trials a worker trains side by side.

    1 if later trials depend on earlier results. By default also 1 if the first trials differ in shape, or if there are
    fewer of them than cores.
    """
    from lm.training.lanes import same_program

    config: ConfigDict = sweep.config
    if config.lanes == 1 or config.sampler not in PLANNED or config.pruner != "none":
        return 1
    most = min(config.lanes or LANES, sweep.total)
    parameters = [plan_trial(config, sweep.axes, number) for number in range(most)]
    runs = [set_parameters(config.run, sweep.axes, each) for each in parameters]
    pays = most >= available() and all(same_program(runs[0], run) for run in runs)
    return most if most > 1 and (config.lanes or pays) else 1
