"""Trains the runs behind the reported numbers, scores them, and compares each reported number with ours.

    python launch.py --experiment=reproduce --targets='text8/*' --corpus=text8_prefix --workdir=runs/ledger
    python launch.py --experiment=reproduce --check --workdir=docs/results

    WORKDIR/runs/TITLE.IDENTITY/      an ordinary run for each config and seed
    WORKDIR/logs/TITLE.IDENTITY.log   output of the processes that trained it
    WORKDIR/records/TITLE.json        summary and training curve of each finished run
    WORKDIR/ledger.json               one row per reported number
    WORKDIR/report.md, report.html

Run the command again to train missing runs and resume unfinished ones. A run is done if a finished directory or a
record has its identity (lm/runs/provenance.py). A run that fails or does not fit in the budget is listed as "not run"
with the reason, and the other runs continue. The ledger is written even if the command fails or is interrupted.
"""

import concurrent.futures
import contextlib
import math
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.ledger import published, report, storage
from experiments.ledger.claims import PlannedRun, all_claims, matching, plan
from experiments.ledger.contents import MOST_SEEDS
from experiments.ledger.records import RECORD, RECORDS, RESULTS, identity_today, load_records, make_record, write_record
from experiments.pages.markdown import table
from experiments.train import estimate_all
from lm.errors import UserError
from lm.machine import cores, signals
from lm.machine.processes import Supervisor
from lm.runs import lock
from lm.runs.files import make_directory
from lm.runs.schema import read_json

LONG = 10  # minutes; jobs that take longer print estimates before they start
# Seconds within which a repeated signal counts as one: timeout(1) signals a process and then its group.
SAME_SIGNAL = 1.0


class Request(NamedTuple):
    """The values of this command's own flags."""

    targets: str = "*"  # patterns as in `matching`
    seeds: int = 0  # runs per config; 0: as many as the config requires
    budget: str = ""  # such as 30m; afterwards no run starts, and active runs save and stop
    corpus: str = ""  # as in `plan`
    check: bool = False  # only derive the ledger again from its records; UserError if it differs
    dry_run: bool = False  # estimate only


class Job(NamedTuple):
    """State that the runs of one command share. deadline: by time.monotonic(), infinite without a budget; reasons:
    {title: why a run has no result}, filled by the runs"""

    workdir: Path
    data_flag: list[str]
    request: Request
    deadline: float
    supervisor: Supervisor
    reasons: dict[str, str]

    def left(self) -> float:
        """Seconds of the budget that are left."""
        return self.deadline - time.monotonic()

    def log_of(self, each: PlannedRun) -> Path:
        return self.workdir / "logs" / f"{each.directory}.log"


def run(config, workdir, data_dir=None, **flags):
    """Returns the content of ledger.json, or the estimates of a dry run. flags: fields of Request"""
    workdir, request = Path(workdir), Request(**flags)
    if request.check:
        unread = [name for name, value in flags.items() if name != "check" and value != Request._field_defaults[name]]
        if unread:
            raise UserError(f"--check reads records and trains nothing: leave out --{unread[0]}")
        claims, is_published = all_claims(), workdir.resolve() == RESULTS
        return storage.check(workdir, claims, published.faults if is_published else None)
    if not 0 <= request.seeds <= MOST_SEEDS:
        raise UserError(f"--seeds={request.seeds} must be 1 to {MOST_SEEDS}, or 0 for as many as each config asks for")
    seconds = duration(request.budget) if request.budget else math.inf
    runs = plan(matching(request.targets), request.seeds, request.corpus)
    if request.dry_run:
        return estimate([each for each in runs if not record_of(workdir, each)], data_dir)
    make_directory(workdir / "runs")
    with lock.alone(workdir), signals.raising():
        storage.stored_reasons(workdir), load_records(workdir / RECORDS)  # finds damage before anything is trained
        data_flag = [f"--data_dir={Path(data_dir).absolute()}"] if data_dir else []
        return train_and_judge(Job(workdir, data_flag, request, time.monotonic() + seconds, Supervisor(), {}), runs)


def train_and_judge(job: Job, runs: list[PlannedRun]) -> dict:
    """Trains the runs that are not done. Then, even after an exception, writes the records and the ledger."""
    try:
        announce(job, runs)
        train_all(job, runs)
    finally:
        for each in runs:
            if record := record_of(job.workdir, each):
                write_record(record, job.workdir / RECORDS)
            else:
                job.reasons.setdefault(each.title, "interrupted before it started; run the same command again")
        content = storage.renew(job.workdir, all_claims(), job.reasons)
        print(table(report.SHORT_COLUMNS, report.select(content["rows"], report.SHORT_COLUMNS)))
        for title, reason in content["not_run"].items():
            print(f"{title} is not run: {reason}")
        print(f"wrote {job.workdir / 'report.md'} and {job.workdir / 'report.html'}")
    return content


def record_of(workdir: Path, each: PlannedRun) -> dict | None:
    """The record of a run that is finished in workdir/runs or has a record in workdir; otherwise None, also for a
    finished run that cannot be recorded (`unrecordable`). Compares today's identities: a config key added after the run
    changes the identity in the directory's name."""
    records = []
    for directory in sorted((workdir / "runs").glob(f"{each.title}.*")):
        if (directory / "summary.json").is_file():
            with contextlib.suppress(UserError):
                records.append(make_record(directory))
    path = workdir / RECORDS / f"{each.title}.json"
    records += [read_json(path, RECORD)] if path.is_file() else []
    return next((record for record in records if identity_today(record) == each.identity), None)


def unrecordable(directory: Path) -> str:
    """Why the finished run in `directory` cannot be recorded, such as a loss that is not a number; "" if it can."""
    try:
        if (directory / "summary.json").is_file():
            make_record(directory)
    except UserError as error:
        return f"{error}; remove {directory} to train it again"
    return ""


# --- Estimates ------------------------------------------------------------------------------------------------------


def duration(text: str) -> float:
    """Converts a duration such as 90s, 30m or 2h to seconds. Raises UserError if it is invalid."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match:
        raise UserError(f"--budget={text} must be a number and s, m or h, as in 30m")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def concurrent_groups(runs: Sequence[PlannedRun]) -> list[tuple[list[PlannedRun], int]]:
    """[(runs, how many train at a time)]: runs with one thread, one per core; then all other runs, one at a time."""
    narrow = [each for each in runs if each.config.train.threads == 1]
    wide = [each for each in runs if each.config.train.threads != 1]
    return [(group, min(jobs, len(group))) for group, jobs in ((narrow, cores.available()), (wide, 1)) if group]


def estimate(runs: Sequence[PlannedRun], data_dir) -> list:
    """Prints and returns estimates of the runs, and prints the minimum duration of `train_all`."""
    found, hours = [], 0.0
    for group, jobs in concurrent_groups(runs):
        estimates = estimate_all([each.config for each in group], data_dir, jobs)
        hours += sum(each.seconds for each in estimates) / jobs / 3600
        found += estimates
    print(f"runs to train: {len(found)}, in all at least {hours:.2f} hours")
    return found


def announce(job: Job, runs: Sequence[PlannedRun]):
    """Prints the estimates of a long job. A separate process measures, so that its memory is free afterwards."""
    due = [each for each in runs if not record_of(job.workdir, each) and 60 * each.config.claim.minutes <= job.left()]
    if sum(each.config.claim.minutes for each in due) < LONG:
        return
    print("timing a few steps of each shape; --dry_run does only that", flush=True)
    names = ",".join(dict.fromkeys(each.config.name for each in due))
    command = ["launch.py", "--experiment=reproduce", "--dry_run", f"--targets={names}", f"--seeds={job.request.seeds}"]
    corpora = {each.config.data.corpus for each in due}
    command += [f"--corpus={job.request.corpus}"] if job.request.corpus in corpora else []
    if job.supervisor.run([*command, f"--workdir={job.workdir.absolute()}", *job.data_flag]):
        print("the time could not be estimated; training starts anyway", flush=True)


# --- Training -------------------------------------------------------------------------------------------------------


def train_all(job: Job, runs: Sequence[PlannedRun]):
    """Trains the runs that are not done. Adds {title: reason} to job.reasons for each run without a result. On an
    exception, such as Ctrl-C, lets the active runs save and stop, and raises the exception again."""

    def train(each: PlannedRun):
        if reason := train_one(job, each):
            job.reasons[each.title] = reason

    for group, workers in concurrent_groups(runs):
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            waiting = [pool.submit(train, each) for each in group]
            try:
                for future in concurrent.futures.as_completed(waiting):
                    future.result()
            except BaseException:
                stop_all(waiting, job.supervisor)
                raise


def stop_all(waiting: Sequence[concurrent.futures.Future], supervisor: Supervisor):
    """Starts no more runs and waits until the active ones have saved. A second signal ends the wait."""
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


def train_one(job: Job, each: PlannedRun) -> str | None:
    """Trains one run in its own process. Returns None, or one line that says why the run has no result."""
    if record_of(job.workdir, each):
        print(f"{each.directory}  already done", flush=True)
        return None
    directory, left, minutes = job.workdir / "runs" / each.directory, job.left(), each.config.claim.minutes
    if reason := unrecordable(directory):
        return reason
    if left < 60 * minutes and not directory.exists():
        return f"the budget has {max(0.0, left) / 60:.1f} minutes left, and the run takes about {minutes:g}"
    if left <= 0:
        return "the budget is used up; run the same command again to resume"
    print(f"{each.directory}  starts, about {minutes:g} minutes", flush=True)
    began = time.monotonic()
    status, last = run_command(job, each, directory)
    if record_of(job.workdir, each):
        print(f"{each.directory}  done after {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
        return None
    if job.supervisor.interrupted:
        return "interrupted half done; run the same command again to resume"
    if status is None:
        return "stopped half done when the budget was used up; run the same command again to resume"
    if reason := unrecordable(directory):
        return reason
    return f"{last or 'no output'} (exit status {status}; {job.log_of(each)})"


def run_command(job: Job, each: PlannedRun, directory: Path) -> tuple[int | None, str]:
    """Returns (exit status, or None if the budget ran out; last line of output)."""
    command = [*each.arguments(str(directory.absolute())), *job.data_flag, "--noeta"]
    log = job.log_of(each)
    make_directory(log.parent)
    try:
        with open(log, "ab") as file:  # keeps the output of earlier processes
            start = file.tell()
            status = job.supervisor.run(command, file, None if math.isinf(job.deadline) else job.left())
        lines = log.read_bytes()[start:].decode(errors="replace").strip().splitlines()
    except OSError as error:
        raise UserError(f"cannot write {log}: {error.strerror}") from error
    return status, lines[-1] if lines else ""
