"""Supervises the workers of a sweep: starts them, replaces those that die, and stops them at the end."""

import contextlib
import signal
import time

import optuna
from optuna.trial import TrialState

from experiments.sweeps.plan import PLANNED, plan_trial
from experiments.sweeps.progress import Progress
from experiments.sweeps.space import set_parameters
from experiments.sweeps.study import Sweep, name_worker
from experiments.sweeps.trials import FINISHED, trials_without_surplus
from experiments.sweeps.worker import ASKED, GAVE_UP
from lm.errors import UserError
from lm.machine.cores import available
from lm.machine.processes import Child, stop
from lm.machine.signals import Interrupted
from lm.training.lanes import same_program

POLL_SECONDS = 0.3
LANES = 16  # at most, if config.lanes is 0


def supervise(sweep: Sweep, jobs: int):
    """Runs `jobs` workers until the study is done. A worker that dies fails only its own trial. Raises UserError if a
    worker reports that no trial can continue, and Interrupted after a signal; first it stops the workers, which save
    their trials."""
    progress, workers = Progress(sweep.study, sweep.total), []

    def start(at_once: int):
        workers.append(Child("experiments/sweeps/worker.py"))
        workers[-1].send([sweep.config.to_dict(), sweep.place, at_once])

    try:
        requeue_orphans(sweep, workers)  # from a sweep that was killed
        at_once = lanes_at_once(sweep) if jobs == 1 and not sweep.place.shared else 1
        finished = sum(trial.state in FINISHED for trial in trials_without_surplus(sweep.study))
        for _ in range(min(jobs, max(1, sweep.total - finished))):
            start(at_once)
        while workers:
            time.sleep(POLL_SECONDS)
            with contextlib.suppress(optuna.exceptions.StorageInternalError):  # the next update may succeed
                progress.update()
            for worker in [each for each in workers if each.process.poll() is not None]:
                workers.remove(worker)
                with contextlib.closing(worker):
                    handle_exit(sweep, worker)
                if requeue_orphans(sweep, workers) or worker.process.returncode:
                    start(1)  # trials that failed together as lanes may succeed alone
    except KeyboardInterrupt as error:
        number = getattr(error, "signal", signal.SIGINT)
        raise Interrupted(number, "the sweep has stopped, and its trials are saved") from error
    finally:
        stop(workers)
    progress.update()


def requeue_orphans(sweep: Sweep, workers: list[Child]) -> bool:
    """Requeues the running trials of dead workers. Returns whether it found any. A shared study relies on heartbeats. A
    live worker may not have put its name on a trial yet: one without a name is requeued only if no worker lives."""
    if sweep.place.shared:
        return False
    alive = {name_worker(worker.process.pid) for worker in workers}
    names = {trial.number: trial.user_attrs.get("worker") for trial in sweep.trials_in(TrialState.RUNNING)}
    orphans = [number for number, name in names.items() if name not in alive and (name or not alive)]
    for number in orphans:
        sweep.storage.set_trial_state_values(sweep.id_of(number), TrialState.WAITING)
    return bool(orphans)


def handle_exit(sweep: Sweep, worker: Child):
    """Fails the trial of a worker that died. Several trials in lanes do not fail: each is retried alone. Raises
    UserError if the worker gave up, and Interrupted if it was asked to end."""
    status = worker.process.returncode
    if status == GAVE_UP:
        raise UserError(worker.receive() or "a worker gave up without a reason; see its output above")
    if status == ASKED:
        raise Interrupted(signal.SIGTERM, "a worker of the sweep was asked to end")
    if not status:
        return
    name, running = name_worker(worker.process.pid), sweep.trials_in(TrialState.RUNNING)
    numbers = [trial.number for trial in running if trial.user_attrs.get("worker") == name]
    if not numbers:  # the next worker would die in the same way
        raise UserError(f"a worker ended with status {status} before it took a trial; see its output above")
    if len(numbers) == 1:
        end = f"signal {-status}" if status < 0 else f"status {status}"
        hint = ": the system may have been out of memory" if status == -signal.SIGKILL else ""
        sweep.storage.set_trial_user_attr(sweep.id_of(numbers[0]), "failure", f"its process ended with {end}{hint}")
        sweep.study.tell(numbers[0], state=TrialState.FAIL)


def lanes_at_once(sweep: Sweep) -> int:
    """How many trials a worker trains side by side: 1 if later trials depend on earlier results and, by default, if the
    first trials differ in shape or are fewer than the cores."""
    config = sweep.config
    if config.lanes == 1 or config.sampler not in PLANNED or config.pruner != "none":
        return 1
    most = min(config.lanes or LANES, sweep.total)
    parameters = [plan_trial(config, sweep.axes, number) for number in range(most)]
    runs = [set_parameters(config.run, sweep.axes, each) for each in parameters]
    pays = most >= available() and all(same_program(runs[0], run) for run in runs)
    return most if most > 1 and (config.lanes or pays) else 1
