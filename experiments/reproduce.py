"""Trains what the reported numbers ask for, scores it, and says of each number: reported, ours, verdict.

    python launch.py --experiment=reproduce --targets='text8/*' --corpus=text8_prefix --workdir=runs/ledger
    python launch.py --experiment=reproduce --check --workdir=docs/results

    WORKDIR/runs/NAME/             an ordinary run for each config and seed, trained by the command of the report
    WORKDIR/logs/NAME.log          what its processes printed
    WORKDIR/records/NAME.json      what is kept of each finished run
    WORKDIR/ledger.json            a row for every reported number, and the SHA-256 of every record
    WORKDIR/report.md, report.html

Run again, it trains what is missing, goes on with what is half done and skips what is done, which it knows by the
identity of a run (lm/runs/provenance.py): a record of that identity is enough. One that fails, or that the budget
leaves no time for, is "not run", with the reason; the rest go on. However it ends, the ledger is written.
"""

import concurrent.futures
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.ledger import report, storage
from experiments.ledger.claims import all_claims, matching, on_corpus
from experiments.ledger.planned_runs import PlannedRun, plan
from experiments.ledger.records import RECORD, RECORDS, identity_today, make_record, write_record
from experiments.pages.markdown import table
from experiments.train import estimate_all
from lm.errors import UserError
from lm.machine import cores, signals
from lm.machine.processes import Supervisor
from lm.runs import lock
from lm.runs.metrics import make_directory
from lm.runs.schema import read_json

SECONDS = {"s": 1, "m": 60, "h": 3600}
# Where the configs expect more minutes than these, the job is timed by a dry run before it begins.
LONG = 10
# Columns of the table that is printed at the end.
SHOWN = ("config", "what", "reported", "ours", "verdict", "corpus", "seeds")
# Seconds within which a second signal is the first one again: timeout(1) sends it to a process and to its group.
SAME_SIGNAL = 1.0


class Job(NamedTuple):
    """Where and with what the runs of one command are made. deadline: of time.monotonic(), or None."""

    workdir: Path
    data_dir: str | None
    deadline: float | None
    supervisor: Supervisor

    def left(self) -> float:
        """Seconds of the budget."""
        return math.inf if self.deadline is None else self.deadline - time.monotonic()

    def data_flag(self) -> list[str]:
        return [f"--data_dir={Path(self.data_dir).absolute()}"] if self.data_dir else []


def run(config, workdir, data_dir=None, targets="*", seeds=0, budget="", corpus="", check=False, dry_run=False):
    """Returns what ledger.json holds; of a dry run the estimates of the runs that are not done.

    targets: patterns of claims.matching; seeds: runs of each config, 0: as many as it asks for; budget: such as 30m,
    after which no run begins and those under way stop where they can go on; corpus: of claims.on_corpus; check: derives
    everything in workdir again from the records there, trains nothing, and raises UserError where anything differs
    """
    del config
    workdir = Path(workdir)
    if check:
        return storage.check(workdir, all_claims())
    claims = matching(targets)
    if corpus:
        claims = on_corpus(claims, corpus)
    if seeds < 0:
        raise UserError(f"--seeds={seeds} must be at least 1, or 0 for as many as each config asks for")
    seconds, runs = duration(budget) if budget else None, plan(claims, seeds)
    if dry_run:
        return estimate([each for each in runs if not is_done(workdir, each)], data_dir)
    make_directory(workdir / "runs")
    with lock.alone(workdir), signals.raising():
        storage.stored_reasons(workdir)  # one that cannot be read is found before anything is trained
        job = Job(workdir, data_dir, time.monotonic() + seconds if budget else None, Supervisor())
        return train_and_judge(job, runs, lambda: announce(job, runs, seeds, corpus))


def train_and_judge(job: Job, runs: list[PlannedRun], first: Callable[[], None]) -> dict:
    """Trains what is not done; whatever comes between, what there is then is put on record and judged."""
    reasons: dict[str, str] = {}
    try:
        first()
        train_all(job, runs, reasons)
    finally:
        for each in runs:
            if directory := finished(job.workdir, each):
                write_record(make_record(directory), job.workdir / RECORDS)
            elif not is_done(job.workdir, each):
                reasons.setdefault(each.title, "the command was interrupted before; the same one goes on")
        content = storage.renew(job.workdir, all_claims(), reasons)
        show(content, job.workdir)
    return content


def show(content: dict, workdir: Path):
    """Prints the ledger."""
    print(table(SHOWN, report.select(content["rows"], SHOWN)))
    for title, reason in content["not_run"].items():
        print(f"{title} is not run: {reason}")
    print(f"wrote {workdir / 'report.md'} and {workdir / 'report.html'}")


# --------------------------------------------------------------------------------------- how long


def duration(text: str) -> float:
    """Seconds of 90s, 30m or 2h. Raises UserError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match:
        raise UserError(f"--budget={text} must be a number and s, m or h, as in 30m")
    return float(match[1]) * SECONDS[match[2]]


def side_by_side(runs: Sequence[PlannedRun]) -> list[tuple[list[PlannedRun], int]]:
    """(runs, how many of them at a time) of each group: those of one thread, one for each core; then the others."""
    narrow = [each for each in runs if each.config.train.threads == 1]
    wide = [each for each in runs if each.config.train.threads != 1]
    return [(narrow, cores.available()), (wide, 1)]


def estimate(runs: Sequence[PlannedRun], data_dir) -> list:
    """Prints and returns what preflight finds of the runs, and how long they take as `train_all` makes them."""
    found, hours = [], 0.0
    for group, jobs in side_by_side(runs):
        if group:
            estimates = estimate_all([each.config for each in group], data_dir, min(jobs, len(group)))
            hours += sum(each.seconds for each in estimates) / min(jobs, len(group)) / 3600
            found += estimates
    print(f"runs to train: {len(found)}, in all at least {hours:.2f} hours")
    return found


def announce(job: Job, runs: Sequence[PlannedRun], seeds: int, corpus: str):
    """Prints what a dry run finds of what is to be trained, where that takes long. A process of its own measures, so
    that nothing of it is left in memory beside those that train."""
    due = [each for each in runs if not is_done(job.workdir, each) and 60 * each.config.claim.minutes <= job.left()]
    if sum(each.config.claim.minutes for each in due) < LONG:
        return
    print("timing a few steps of each shape: --dry_run does that alone", flush=True)
    names = ",".join(dict.fromkeys(each.config.name for each in due))
    command = ["launch.py", "--experiment=reproduce", "--dry_run", f"--targets={names}", f"--seeds={seeds}"]
    command += [f"--corpus={corpus}"] if any(each.config.data.corpus == corpus for each in due) else []
    if job.supervisor.run([*command, f"--workdir={job.workdir.absolute()}", *job.data_flag()]):
        print("how long it will take is not known; it begins all the same", flush=True)


# ------------------------------------------------------------------------------------------ train


def train_all(job: Job, runs: Sequence[PlannedRun], reasons: dict[str, str]):
    """Trains what is not done and notes {title: why it has no result} of the rest.

    When an exception comes, such as that of a Ctrl-C, the runs under way save and end before it goes on.
    """
    for group, workers in side_by_side(runs):
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            waiting = {pool.submit(train_one, job, each): each for each in group}
            try:
                for future in concurrent.futures.as_completed(waiting):
                    if reason := future.result():
                        reasons[waiting[future].title] = reason
            except BaseException:
                end(waiting, job.supervisor)
                reasons |= {each.title: f.result() for f, each in waiting.items() if ended_with_reason(f)}
                raise


def end(waiting: Mapping[concurrent.futures.Future, PlannedRun], supervisor: Supervisor):
    """Begins no more, and waits until those under way have saved; a second signal does not wait."""
    began = time.monotonic()
    for future in waiting:
        future.cancel()
    while True:
        try:
            if not supervisor.interrupted:
                supervisor.interrupt()
            concurrent.futures.wait(waiting)
            return
        except BaseException:
            if time.monotonic() - began > SAME_SIGNAL:
                supervisor.interrupt()
                raise


def ended_with_reason(future: concurrent.futures.Future) -> bool:
    return future.done() and not future.cancelled() and not future.exception() and bool(future.result())


def train_one(job: Job, each: PlannedRun) -> str | None:
    """Trains one run in a process of its own; None, or in one line why it has no result."""
    if is_done(job.workdir, each):
        print(f"{each.directory}  done before", flush=True)
        return None
    directory, left, minutes = job.workdir / "runs" / each.directory, job.left(), each.config.claim.minutes
    if left < 60 * minutes and not directory.exists():
        return f"the budget has {max(0.0, left) / 60:.1f} minutes left, and it takes about {minutes:g}"
    if left <= 0:
        return "the budget is used up; the same command with a new one goes on"
    print(f"{each.directory}  begins, about {minutes:g} minutes", flush=True)
    began = time.monotonic()
    status, last = run_command(job, each, directory)
    if is_done(job.workdir, each):
        print(f"{each.directory}  done after {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
        return None
    if job.supervisor.interrupted:
        return "interrupted half done; the same command goes on"
    if status is None:
        return "stopped half done at the end of the budget; the same command with a new one goes on"
    return f"{last or 'no output'} (exit status {status}; {log_of(directory)})"


def run_command(job: Job, each: PlannedRun, directory: Path) -> tuple[int | None, str]:
    """(exit status, or None where it was stopped at the end of the budget; the last line of its output)"""
    command = [*each.arguments(str(directory.absolute())), *job.data_flag(), "--noeta"]
    log = log_of(directory)
    make_directory(log.parent)
    try:
        with open(log, "ab") as file:  # what its earlier processes said stays
            start = file.tell()
            status = job.supervisor.run(command, file, None if job.deadline is None else job.left())
        lines = log.read_bytes()[start:].decode(errors="replace").strip().splitlines()
    except OSError as error:
        raise UserError(f"cannot write {log}: {error.strerror}") from error
    return status, lines[-1] if lines else ""


def log_of(directory: Path) -> Path:
    """What the processes that train in WORKDIR/runs/NAME print: WORKDIR/logs/NAME.log."""
    return directory.parent.parent / "logs" / f"{directory.name}.log"


# ---------------------------------------------------------------------------------- what is done


def is_done(workdir: Path, each: PlannedRun) -> bool:
    """Whether the run is finished or on record, whoever made it and where."""
    return finished(workdir, each) is not None or is_on_record(workdir, each)


def is_on_record(workdir: Path, each: PlannedRun) -> bool:
    path = workdir / RECORDS / f"{each.title}.json"
    return path.is_file() and identity_today(read_json(path, RECORD)) == each.identity


def finished(workdir: Path, each: PlannedRun) -> Path | None:
    """The directory with a summary of this identity, though keys that came later give it another name today."""
    for directory in sorted((workdir / "runs").glob(f"{each.title}.*")):
        if (directory / "summary.json").is_file() and identity_today(make_record(directory)) == each.identity:
            return directory
    return None
